"""GhostNet's own facts; what every backbone promises is in test_backbone_contract.py."""

import importlib

import pytest
import torch
from mmseg.registry import MODELS

from lale_mmseg.models.backbones.ghostnet import GhostBottleneck, GhostNet, SqueezeExcite, stage_widths
from tools.model_converters import body_edge

# The scripts put tools/ on the path and import the shared module from there.
_convert = importlib.import_module('model_converters._convert')


def test_widths_are_multiples_of_four_near_the_factor():
    assert stage_widths(1.0) == (16, 24, 40, 112, 160)
    assert stage_widths(1.3) == (20, 32, 52, 144, 208)
    # 24 * 0.3 = 7.2 would round to 8, 16 * 0.3 = 4.8 to 4, which is more than a tenth less.
    assert stage_widths(0.3)[:2] == (8, 8)
    assert GhostNet('X1.5').out_channels == stage_widths(1.5)[1:]
    assert GhostNet(dict(multiplier=0.5), out_indices=(0, 4)).out_channels == (8, 80)


def test_all_five_strides_are_there():
    model = GhostNet(dict(multiplier=0.5), out_indices=range(5)).eval()
    sizes = [tuple(x.shape[1:]) for x in model(torch.randn(1, 3, 65, 96))]
    assert sizes == [(8, 33, 48), (12, 17, 24), (20, 9, 12), (56, 5, 6), (80, 3, 3)]


def test_channels_are_weighted_by_a_hard_sigmoid_of_their_means():
    """Means 3 and -3 of two channels; reduced to 4 values of mean 1 plus 2 times mean 2 = -3, and minus that = 3.

    After ReLU: 0 and 3; expanded to 3 * 1 - 3 = 0 and 3 * 1 + 6 = 9; hard sigmoid: 0 / 6 + 0.5 = 0.5 and 1.
    """
    gate = SqueezeExcite(2)
    assert gate.reduce.out_channels == 4
    with torch.no_grad():
        gate.reduce.weight[:] = torch.tensor([[1.0, 2.0], [-1.0, -2.0], [0.0, 0.0], [0.0, 0.0]])[..., None, None]
        gate.reduce.bias.zero_()
        gate.expand.weight[:] = torch.tensor([[5.0, 1.0, 0.0, 0.0], [5.0, 1.0, 0.0, 0.0]])[..., None, None]
        gate.expand.bias[:] = torch.tensor([-3.0, 6.0])
        x = torch.tensor([[2.0, 4.0], [-2.0, -4.0]]).reshape(1, 2, 1, 2)
        assert torch.allclose(gate(x), x * torch.tensor([0.5, 1.0]).reshape(1, 2, 1, 1))


def test_shortcuts_are_convolutions_only_where_sizes_differ():
    shortcuts = [[type(block.shortcut).__name__ for block in stage] for stage in GhostNet().stages]
    assert shortcuts == [
        ['Identity'],
        ['Sequential', 'Identity'],
        ['Sequential', 'Identity'],
        ['Sequential', 'Identity', 'Identity', 'Identity', 'Sequential', 'Identity'],
        ['Sequential', 'Identity', 'Identity', 'Identity', 'Identity'],
    ]


def test_norm_and_activation_are_those_of_the_config():
    model = GhostNet(dict(multiplier=0.5), norm_cfg=dict(type='GN', num_groups=2), act_cfg=dict(type='GELU'))
    names = {type(module).__name__ for module in model.modules()}
    assert {'GroupNorm', 'GELU'} <= names
    assert not {'BatchNorm2d', 'ReLU'} & names
    assert sum(isinstance(module, GhostBottleneck) for module in model.modules()) == 16


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(arch='x2'), r"arch='x2': known sizes are x1\.0, x1\.3, x1\.5"),
        (dict(arch=1.3), r'arch=1\.3: a name or a dict of multiplier alone is due'),
        (dict(arch=dict(width=1.0)), r"arch=\{'width': 1\.0\}: a name or a dict of multiplier"),
        (dict(arch=dict(multiplier=0)), r'arch\.multiplier=0: a number above 0'),
        (dict(in_channels=0), r'in_channels=0: a whole number is due'),
        (dict(out_indices=(5,)), r'stages are 0 to 4'),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        GhostNet(**arguments)


@pytest.mark.parametrize(('size', 'model_name'), [('x1.0', 'ghostnet_100'), ('x1.3', 'ghostnet_130')])
def test_maps_are_those_of_timm(size, model_name):
    """Weights under timm's names go through the converter, the classifier's among them."""
    timm = pytest.importorskip('timm')
    theirs = timm.create_model(model_name, pretrained=False).eval()
    result = _convert.convert(theirs.state_dict(), body_edge.FAMILY)
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
