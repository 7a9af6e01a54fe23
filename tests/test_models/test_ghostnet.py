"""GhostNet's own facts; the contract of all backbones is in test_backbone_contract.py."""

import pytest
import timm
import torch
from mmseg.registry import MODELS

from lale_mmseg.models.backbones import GhostNet
from tools.model_converters import body_edge, conversion


def test_widths_are_multiples_of_four_near_the_factor():
    assert GhostNet('X1.0').embed_dims == (16, 24, 40, 112, 160)
    assert GhostNet('x1.3').embed_dims == (20, 32, 52, 144, 208)
    assert GhostNet('x1.5').out_channels == (36, 60, 168, 240)
    # 24 * 0.3 = 7.2 would round to 8, 16 * 0.3 = 4.8 to 4, which is more than a tenth less.
    assert GhostNet(dict(multiplier=0.3)).embed_dims[:2] == (8, 8)


@pytest.mark.parametrize(('size', 'model_name'), [('x1.0', 'ghostnet_100'), ('x1.3', 'ghostnet_130')])
def test_feature_maps_are_those_of_timm(size, model_name):
    """Weights under timm's names pass the converter, with the classifier among them."""
    theirs = timm.create_model(model_name, pretrained=False).eval()
    result = conversion.convert(theirs.state_dict(), body_edge.FAMILY)
    assert result.arch == size
    assert set(result.unused.values()) == {'classifier'}
    ours = MODELS.build(dict(type='GhostNet', arch=size, out_indices=range(5))).eval()
    ours.load_state_dict(result.state)
    expected: dict[int, torch.Tensor] = {}
    for group in (0, 2, 4, 6, 8):  # the last of each stride
        theirs.blocks[group].register_forward_hook(lambda _, __, map_, group=group: expected.update({group: map_}))
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        theirs(x)
        torch.testing.assert_close(list(ours(x)), list(expected.values()), rtol=1e-4, atol=1e-5)
