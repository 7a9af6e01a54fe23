import os

import pytest
import torch
from mmengine.config import Config
from mmseg.registry import MODELS
from torch import nn

from lale_mmseg.engine.pretrained import load_pretrained_parts, take_pretrained_parts
from lale_mmseg.engine.runner import LALERunner
from lale_mmseg.errors import CheckpointError
from tests.support import REPO


class Bait:
    """Unpickling this creates a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f'touch {self.path}',)


def network(checkpoint, **options) -> nn.Module:
    """A backbone inside a model, with weights named in its config."""
    init_cfg = dict(type='Pretrained', checkpoint=str(checkpoint), **options)
    return nn.ModuleDict(dict(backbone=MODELS.build(dict(type='LALE', arch='s1', init_cfg=init_cfg))))


def test_weights_below_a_prefix_are_loaded_and_others_left_out(tmp_path):
    source = MODELS.build(dict(type='LALE', arch='s1'))
    state = {f'module.backbone.{name}': value for name, value in source.state_dict().items()}
    torch.save({'state_dict': {**state, 'module.head.weight': torch.zeros(1)}}, tmp_path / 'x.pth')
    model = network(tmp_path / 'x.pth', prefix='backbone.')
    load_pretrained_parts(take_pretrained_parts(model))
    assert all(torch.equal(value, source.state_dict()[name]) for name, value in model.backbone.state_dict().items())
    assert model.backbone.init_cfg is None


def test_missing_weights_are_an_error_instead_of_random_ones(tmp_path):
    torch.save({'state_dict': {'stem.weight': torch.zeros(1)}}, tmp_path / 'x.pth')
    with pytest.raises(
        CheckpointError, match=r'does not fit this model \(0 of .*convert published weights of LRFormer and LeMeViT'
    ):
        load_pretrained_parts(take_pretrained_parts(network(tmp_path / 'x.pth')))


def test_a_prefix_that_was_left_out_is_advised_and_partial_loading_is_not(tmp_path):
    state = {f'backbone.{name}': value for name, value in MODELS.build(dict(type='LALE')).state_dict().items()}
    torch.save({'state_dict': state}, tmp_path / 'x.pth')
    with pytest.raises(CheckpointError) as info:
        load_pretrained_parts(take_pretrained_parts(network(tmp_path / 'x.pth')))
    assert str(info.value).endswith(
        "; the weights of this part have the prefix 'backbone': set prefix='backbone.' in init_cfg"
    )
    assert 'partial_load' not in str(info.value)


def test_weights_of_another_size_are_named_by_their_first_five_shapes(tmp_path):
    wide = dict(depths=(1, 1, 1, 1), embed_dims=(64, 64, 128, 256))
    torch.save(MODELS.build(dict(type='LALE', arch=wide)).state_dict(), tmp_path / 'wide.pth')
    message = (
        r'wide\.pth: does not fit .*: \d+ of another shape: (\S+ \([\d, ]+\) instead of \([\d, ]+\),? ){5}and \d+ more$'
    )
    with pytest.raises(CheckpointError, match=message):
        load_pretrained_parts(take_pretrained_parts(network(tmp_path / 'wide.pth')))


def test_code_in_the_file_is_refused(tmp_path):
    torch.save({'state_dict': {}, 'extra': Bait(tmp_path / 'executed')}, tmp_path / 'evil.pth')
    with pytest.raises(CheckpointError, match=r'evil\.pth: refused'):
        load_pretrained_parts(take_pretrained_parts(network(tmp_path / 'evil.pth')))
    assert not (tmp_path / 'executed').exists()


def test_model_zoos_of_mmengine_stay_with_it():
    model = network('torchvision://resnet18')
    load_pretrained_parts(take_pretrained_parts(model))
    assert model.backbone.init_cfg['checkpoint'] == 'torchvision://resnet18'


SMALL = [
    dict(type='LALE', arch=dict(depths=(1, 1), embed_dims=(32, 32)), out_indices=(0, 1)),
    dict(
        type='LRFormer',
        arch=dict(embed_dims=(16, 32), depths=(1, 1), num_heads=(1, 2), mlp_ratios=(2, 2)),
        out_indices=(0, 1),
    ),
    dict(type='LeMeViT', arch=dict(embed_dims=(32,) * 5, depths=(1,) * 5)),
    dict(type='MixVisionTransformer', embed_dims=8, num_layers=[1] * 4, num_heads=[1] * 4),
]


@pytest.mark.parametrize('backbone', SMALL, ids=lambda cfg: cfg['type'])
def test_a_run_starts_from_the_weights_of_the_file(backbone, toy_root, tmp_path):
    """Some backbones start from random weights where they find no `init_cfg`; the file comes last."""
    source = MODELS.build(backbone)
    torch.save({name: torch.full_like(value, 0.125) for name, value in source.state_dict().items()}, tmp_path / 'x.pth')
    cfg = Config.fromfile(REPO / 'configs/lale/lale_s1_1xb8-onecycle-400_aras400k-toy-256x256.py')
    cfg.merge_from_dict(dict(data_root=str(toy_root), work_dir=str(tmp_path / 'work'), log_level='ERROR'))
    widths = [map_.shape[1] for map_ in source(torch.zeros(1, 3, 64, 64))]
    cfg.model.decode_head.in_channels = widths
    cfg.model.decode_head.in_index = list(range(len(widths)))
    cfg.model.backbone = dict(backbone, init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'x.pth')))
    runner = LALERunner.from_cfg(cfg)
    runner._init_model_weights()
    assert all((value == 0.125).all() for value in runner.model.backbone.state_dict().values() if value.ndim)


def test_a_missing_file_is_named_with_its_field(tmp_path):
    with pytest.raises(CheckpointError, match=r'backbone\.init_cfg: .*none\.pth: no such checkpoint'):
        load_pretrained_parts(take_pretrained_parts(network(tmp_path / 'none.pth')))
