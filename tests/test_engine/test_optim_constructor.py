"""Learning rate and weight decay of every parameter in recipes that set them by module type or name."""

import pytest
import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmseg.registry import MODELS, OPTIM_WRAPPER_CONSTRUCTORS
from torch import nn

from lale_mmseg.engine.config import decode_heads
from lale_mmseg.errors import ConfigError
from lale_mmseg.models.layers import LayerNorm2d, RMSNorm2d
from tests.support import REPO

#: The constructor finds norms by class name; this list is independent of it.
NORMS = (LayerNorm2d, RMSNorm2d, nn.LayerNorm, nn.GroupNorm, nn.BatchNorm1d.__mro__[1])


def build(optim_wrapper: dict, model: nn.Module):
    cfg = dict(optim_wrapper)
    constructor = OPTIM_WRAPPER_CONSTRUCTORS.build(
        dict(
            type=cfg.pop('constructor', 'GroupedOptimWrapperConstructor'),
            paramwise_cfg=cfg.pop('paramwise_cfg', None),
            optim_wrapper_cfg=cfg,
        )
    )
    return constructor(model)


def settings(name: str, schedule: str | None = None, on_cpus: bool = False):
    """(kind, name, learning rate, weight decay) of each parameter of a config's network, or as a run on CPUs has it."""
    cfg = Config.fromfile(REPO / 'configs' / name)
    if schedule:
        cfg.optim_wrapper = Config.fromfile(REPO / 'configs/_base_/schedules' / schedule).optim_wrapper
    for _, head in decode_heads(cfg):
        head.num_classes = 3
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
        model = revert_sync_batchnorm(model) if on_cpus else model
    wrapper = build(cfg.optim_wrapper, model)
    groups = {p: group for group in wrapper.optimizer.param_groups for p in group['params']}
    assert set(groups) == set(model.parameters())
    kinds = {}
    for module in model.modules():
        kind = 'norm' if isinstance(module, NORMS) else 'embedding' if isinstance(module, nn.Embedding) else 'other'
        kinds.update(dict.fromkeys(module.parameters(recurse=False), kind))
    rows = [(kinds[p], n, groups[p]['lr'], groups[p]['weight_decay']) for n, p in model.named_parameters()]
    assert any(kind == 'norm' for kind, *_ in rows)
    return wrapper, rows


#: On CPUs mmengine converts SyncBatchNorm to its own class, `_BatchNormXd`.
with_both_batch_norms = pytest.mark.parametrize('on_cpus', [False, True])


@with_both_batch_norms
def test_lrformer_no_decay_on_norms_and_ten_times_the_rate_in_the_head(on_cpus):
    wrapper, rows = settings('lrformer/lrformer_t_8xb2-160k_ade20k-512x512.py', on_cpus=on_cpus)
    assert {name for kind, name, *_ in rows if kind == 'norm'} >= {f'decode_head.squeeze{i}.bn.weight' for i in (1, 2)}
    assert wrapper.clip_grad_kwargs == dict(max_norm=35.0)
    assert wrapper.optimizer.defaults['betas'] == (0.9, 0.999)
    for kind, name, lr, decay in rows:
        assert lr == pytest.approx(6e-4 if name.startswith('decode_head') else 6e-5), name
        assert decay == (0.0 if kind == 'norm' else 0.01), name
    assert len(wrapper.optimizer.param_groups) == 4


def test_lrformer_plus_no_decay_on_norms_and_embeddings_and_a_tenth_of_the_rate_in_the_backbone():
    wrapper, rows = settings('lrformer_plus/lrformer-plus_t_8xb2-160k_ade20k-512x512.py')
    assert wrapper.clip_grad_kwargs == dict(max_norm=0.01)
    for kind, name, lr, decay in rows:
        assert lr == pytest.approx(1e-5 if name.startswith('backbone') else 1e-4), name
        assert decay == (0.05 if kind == 'other' else 0.0), name
    embeddings = {name.split('.')[-2] for kind, name, *_ in rows if kind == 'embedding'}
    assert embeddings == {'query_embed', 'query_feat', 'level_embed', 'level_encoding'}


@with_both_batch_norms
def test_rms_norms_of_lale_are_norms_too(on_cpus):
    _, rows = settings('lale/lale_s1_1xb8-onecycle-400_palette-256x256.py', 'schedule_lrformer_160k.py', on_cpus)
    assert any(kind == 'norm' and name.startswith('backbone') for kind, name, *_ in rows)
    for kind, name, _, decay in rows:
        assert decay == (0.0 if kind == 'norm' else 0.01), name


ADAMW = dict(type='AdamW', lr=1.0, weight_decay=1.0)


def toy() -> nn.Module:
    return nn.ModuleDict(
        dict(backbone=nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2), nn.Embedding(2, 2)), head=nn.Linear(2, 2))
    )


def test_the_longest_key_counts_and_its_own_decay_goes_before_that_of_norms():
    keys = {'backbone': dict(lr_mult=0.1), 'backbone.1': dict(decay_mult=0.5)}
    model = toy()
    wrapper = build(dict(optimizer=ADAMW, paramwise_cfg=dict(norm_decay_mult=0.0, custom_keys=keys)), model)
    groups = {
        p: (group['lr'], group['weight_decay']) for group in wrapper.optimizer.param_groups for p in group['params']
    }
    assert groups[model.backbone[0].weight] == (0.1, 1.0)
    assert groups[model.backbone[1].weight] == (1.0, 0.5)
    assert groups[model.backbone[2].weight] == (0.1, 1.0)
    assert groups[model.head.bias] == (1.0, 1.0)


def test_frozen_parameters_are_left_out_and_shared_ones_counted_once():
    model = toy()
    model.again = model.head
    model.backbone.requires_grad_(False)
    wrapper = build(dict(optimizer=ADAMW, paramwise_cfg=dict(norm_decay_mult=0.0)), model)
    assert sum(len(group['params']) for group in wrapper.optimizer.param_groups) == 2


@pytest.mark.parametrize(
    ('optimizer', 'paramwise', 'message'),
    [
        (ADAMW, dict(custom_keys=dict(decode_haed=dict(lr_mult=2.0))), "no parameter name contains 'decode_haed'"),
        (ADAMW, dict(norm_decay=0.0), "unknown field 'norm_decay'; known are norm_decay_mult"),
        (ADAMW, dict(custom_keys=dict(head=dict(lr=2.0))), r"custom_keys\.head: unknown field 'lr'"),
        (dict(type='AdamW', lr=1.0), dict(norm_decay_mult=0.0), 'weight_decay=None'),
    ],
)
def test_settings_without_effect_are_errors(optimizer, paramwise, message):
    with pytest.raises(ConfigError, match=message):
        build(dict(optimizer=optimizer, paramwise_cfg=paramwise), toy())
