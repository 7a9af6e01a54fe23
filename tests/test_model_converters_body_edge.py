"""Converter of GhostNet and of the light body and edge network, on made-up checkpoints with the published names."""

import importlib

import pytest
import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmseg.registry import MODELS

from lale_mmseg.engine.checkpoint import load_weights, read_checkpoint
from lale_mmseg.engine.pretrained import load_pretrained_parts, take_pretrained_parts
from lale_mmseg.errors import CheckpointError
from tests.published import NETWORKS, facts, parameters_in, published_state
from tests.support import REPO, run_tool
from tools.model_converters import body_edge

# The scripts put tools/ on the path and import the shared module from there.
_convert = importlib.import_module('model_converters._convert')
#: What of GhostNet feeds its classifier alone.
CLASSIFIER = ('blocks.9.', 'conv_head.', 'classifier.')


def convert_file(*words) -> None:
    _convert.run_converter(body_edge.FAMILY, _convert.parse_args(body_edge.FAMILY, [str(word) for word in words]))


def ghostnet(device: str = 'cpu') -> dict[str, torch.Tensor]:
    """GhostNet alone, under timm's names."""
    prefix = 'base_network.'
    state = published_state('hrrsi_ued', device)
    return {name[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)}


def model(name: str, num_classes: int = 6) -> torch.nn.Module:
    cfg = Config.fromfile(REPO / 'configs/_base_/models/body_edge.py')
    head = cfg.model.decode_head
    head.update(num_classes=num_classes, separate_body_edge='bes' in name, spatial_fusion='sfm' in name)
    return revert_sync_batchnorm(MODELS.build(cfg.model))


@pytest.mark.parametrize('prefix', ['', 'module.'])
@pytest.mark.parametrize('name', NETWORKS)
def test_every_kind_is_filled_and_every_name_accounted_for(name, prefix):
    state = {prefix + key: value for key, value in published_state(name, 'meta').items()}
    result = _convert.convert(state, body_edge.FAMILY)
    result.check(name)
    assert result.arch == 'x1.0'
    assert sorted([*result.used.values(), *result.unused]) == sorted(state)
    assert parameters_in(state) == facts(name)['params']
    due = [key for key in state if key.removeprefix(prefix + 'base_network.').startswith(CLASSIFIER)]
    assert result.unused == dict.fromkeys(due, 'classifier')
    assert len(due) == 10
    ours = {key for key in model(name).state_dict() if not key.startswith('data_preprocessor.')}
    assert set(result.state) == ours


def test_tensors_reach_the_places_that_they_are_for():
    result = _convert.convert(published_state('hrrsi_ued_bes_sfm', 'meta'), body_edge.FAMILY)
    for ours, theirs in {
        'backbone.blocks.6.3.ghost2.cheap_operation.1.bias': 'base_network.blocks.6.3.ghost2.cheap_operation.1.bias',
        'decode_head.decoder.merges.0.narrow.0.weight': 'dec_c3.up.0.weight',
        'decode_head.decoder.merges.2.mix.1.bias': 'dec_c1.cat_conv.1.bias',
        'decode_head.refine.1.conv.weight': 'final_out.1.primary.0.weight',
        'decode_head.features.weight': 'final_out.2.weight',
        'decode_head.separation.low.1.1.weight': 'decouple_body_edge.conv_low_res.1.primary.1.weight',
        'decode_head.separation.low.2.bias': 'decouple_body_edge.conv_low_res.2.bias',
        'decode_head.edge_branch.1.weight': 'decouple_edge.1.weight',
        'decode_head.fusion.rows.weight': 'fusion_score.h_map.weight',
        'decode_head.conv_seg.bias': 'seg_out.2.bias',
    }.items():
        assert result.used[ours] == theirs
    ued = _convert.convert(published_state('hrrsi_ued', 'meta'), body_edge.FAMILY)
    assert ued.used['decode_head.conv_seg.weight'] == 'final_out.2.weight'


@pytest.mark.parametrize('name', NETWORKS)
def test_a_network_of_any_number_of_classes_is_loaded_whole(name, tmp_path):
    state = published_state(name)
    for key in ('body_out.1.weight', 'body_out.1.bias', 'seg_out.2.weight', 'seg_out.2.bias'):
        if key in state:
            state[key] = state[key][:5]
    if name == 'hrrsi_ued':
        state['final_out.2.weight'] = state['final_out.2.weight'][:5]
    torch.save({'state_dict': state}, tmp_path / 'official.pth')
    convert_file(tmp_path / 'official.pth', tmp_path / 'out.pth')
    network = model(name, num_classes=5)
    load_weights(network, read_checkpoint(tmp_path / 'out.pth')['state_dict'], 'out.pth')  # as load_from does
    published = state['final_out.2.weight' if name == 'hrrsi_ued' else 'seg_out.2.weight']
    assert torch.equal(network.decode_head.conv_seg.weight, published)
    # And the backbone alone, as init_cfg does.
    init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'out.pth'), prefix='backbone.')
    alone = torch.nn.ModuleDict(dict(backbone=MODELS.build(dict(type='GhostNet', init_cfg=init_cfg))))
    load_pretrained_parts(take_pretrained_parts(alone))
    for key, value in alone.backbone.state_dict().items():
        assert torch.equal(value, network.backbone.state_dict()[key])


@pytest.mark.slow
def test_the_tool_writes_ghostnet_for_init_cfg_and_reports_its_classifier(tmp_path):
    torch.save(ghostnet(), tmp_path / 'ghostnet.pth')
    out = tmp_path / 'out.pth'
    done = run_tool('python', 'tools/model_converters/body_edge.py', tmp_path / 'ghostnet.pth', out)
    lines = done.stdout.splitlines()
    assert f'{tmp_path}/ghostnet.pth: GhostNet x1.0' in lines
    for theirs in ('classifier.weight', 'conv_head.bias', 'blocks.9.0.bn1.weight'):
        assert f'  {theirs}: classifier' in lines
    assert 'unused: 10' in lines
    assert 'missing: 0' in lines
    init_cfg = dict(type='Pretrained', checkpoint=str(out))
    parts = torch.nn.ModuleDict(dict(backbone=MODELS.build(dict(type='GhostNet', init_cfg=init_cfg))))
    load_pretrained_parts(take_pretrained_parts(parts))
    assert torch.equal(parts.backbone.conv_stem.weight, ghostnet()['conv_stem.weight'])


@pytest.mark.parametrize('size', ['x1.3', 'x1.5'])
def test_other_sizes_are_recognised_without_a_classifier_and_with_other_bands(size):
    with torch.device('meta'):
        state = MODELS.build(dict(type='GhostNet', arch=size, in_channels=4)).state_dict()
    result = _convert.convert(state, body_edge.FAMILY)
    result.check(size)
    assert (result.arch, result.unused) == (size, {})


def test_what_does_not_fit_is_named():
    state = ghostnet('meta')
    del state['blocks.6.0.ghost1.primary_conv.0.weight']
    state['bn1.bias'] = torch.zeros(3)
    result = _convert.convert(state, body_edge.FAMILY)  # one damaged weight hides no size
    assert result.missing == ['blocks.6.0.ghost1.primary_conv.0.weight']
    assert result.reshaped == {'bn1.bias': ((3,), (16,))}
    with torch.device('meta'):
        narrow = MODELS.build(dict(type='GhostNet', arch=dict(multiplier=0.5))).state_dict()
    with pytest.raises(
        CheckpointError, match=r'x: the shapes are of no size of GhostNet; the closest, x1\.0, has .* one of x1\.0, x1'
    ):
        _convert.convert(narrow, body_edge.FAMILY, 'x')
    with pytest.raises(CheckpointError, match=r'x: no weights of GhostNet; found names such as a$'):
        _convert.convert({'a': torch.zeros(1)}, body_edge.FAMILY, 'x')


def test_a_missing_branch_is_an_error():
    state = published_state('hrrsi_ued_bes', 'meta')
    state = {name: value for name, value in state.items() if not name.startswith('edge_out.1.')}
    assert _convert.convert(state, body_edge.FAMILY).missing == [
        'decode_head.edge_head.1.weight',
        'decode_head.edge_head.1.bias',
    ]
