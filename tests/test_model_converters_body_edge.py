"""Converter of GhostNet and of the light body and edge network, on made-up checkpoints with the published names."""

import pytest
import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmseg.registry import MODELS

from lale_mmseg.engine.checkpoint import load_weights, read_checkpoint
from lale_mmseg.engine.pretrained import load_pretrained_parts, take_pretrained_parts
from lale_mmseg.errors import CheckpointError
from tests.published import NETWORKS, facts, parameters_in, published_state
from tests.support import REPO
from tools.model_converters import body_edge, conversion

#: What of GhostNet feeds its classifier alone.
CLASSIFIER = ('blocks.9.', 'conv_head.', 'classifier.')


def convert_file(*words) -> None:
    conversion.run_converter(body_edge.FAMILY, conversion.parse_args(body_edge.FAMILY, [str(word) for word in words]))


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


def loaded(path, **options) -> torch.nn.Module:
    """GhostNet with the weights of a file, as `init_cfg` loads them."""
    init_cfg = dict(type='Pretrained', checkpoint=str(path), **options)
    parts = torch.nn.ModuleDict(dict(backbone=MODELS.build(dict(type='GhostNet', init_cfg=init_cfg))))
    load_pretrained_parts(take_pretrained_parts(parts))
    return parts.backbone


@pytest.mark.parametrize('name', NETWORKS)
def test_every_kind_is_filled_and_every_name_accounted_for(name):
    prefix = 'module.'
    state = {prefix + key: value for key, value in published_state(name, 'meta').items()}
    result = conversion.convert(state, body_edge.FAMILY)
    result.check(name)
    assert result.arch == 'x1.0'
    assert sorted([*result.used.values(), *result.unused]) == sorted(state)
    assert parameters_in(state) == facts(name)['params']
    classifier = [key for key in state if key.removeprefix(prefix + 'base_network.').startswith(CLASSIFIER)]
    assert result.unused == dict.fromkeys(classifier, 'classifier')
    assert len(classifier) == 10
    ours = {key for key in model(name).state_dict() if not key.startswith('data_preprocessor.')}
    assert set(result.state) == ours


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
    backbone = loaded(tmp_path / 'out.pth', prefix='backbone.')
    for key, value in backbone.state_dict().items():
        assert torch.equal(value, network.backbone.state_dict()[key])


def test_ghostnet_alone_loads_by_init_cfg(tmp_path):
    state = ghostnet()
    torch.save(state, tmp_path / 'ghostnet.pth')
    convert_file(tmp_path / 'ghostnet.pth', tmp_path / 'out.pth')
    assert torch.equal(loaded(tmp_path / 'out.pth').conv_stem.weight, state['conv_stem.weight'])


@pytest.mark.parametrize('size', ['x1.3', 'x1.5'])
def test_other_sizes_are_recognised_without_a_classifier_and_with_other_bands(size):
    with torch.device('meta'):
        state = MODELS.build(dict(type='GhostNet', arch=size, in_channels=4)).state_dict()
    result = conversion.convert(state, body_edge.FAMILY)
    result.check(size)
    assert (result.arch, result.unused) == (size, {})


def test_what_does_not_fit_is_named():
    state = ghostnet('meta')
    del state['blocks.6.0.ghost1.primary_conv.0.weight']
    state['bn1.bias'] = torch.zeros(3)
    result = conversion.convert(state, body_edge.FAMILY)  # one damaged weight hides no size
    assert result.missing == ['blocks.6.0.ghost1.primary_conv.0.weight']
    assert result.reshaped == {'bn1.bias': ((3,), (16,))}
    with torch.device('meta'):
        narrow = MODELS.build(dict(type='GhostNet', arch=dict(multiplier=0.5))).state_dict()
    with pytest.raises(
        CheckpointError, match=r'x: the shapes are of no size of GhostNet; the closest, x1\.0, has .* one of x1\.0, x1'
    ):
        conversion.convert(narrow, body_edge.FAMILY, 'x')
