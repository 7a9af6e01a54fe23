"""Decoders for maps of a vision transformer."""

import pytest
import torch
from mmcv.cnn import ConvModule
from mmseg.registry import MODELS
from torch import nn

COMMON = dict(num_classes=2, norm_cfg=dict(type='BN'), loss_decode=dict(type='CrossEntropyLoss'))


def conv_head(**changes) -> nn.Module:
    return MODELS.build(dict(type='SAMConvHead', **COMMON, **changes))


def unet_head(**changes) -> nn.Module:
    return MODELS.build(dict(type='SAMUNetHead', **COMMON, **changes))


def size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_sizes_by_hand():
    """3x3 convolutions without bias, two numbers a channel for each norm, a classifier of 16 * 2 + 2."""
    stages = [(256, 128), (128, 64), (64, 32), (32, 16)]
    assert size(conv_head()) == sum(9 * a * b + 2 * b for a, b in stages) + 34 == 392_194
    # A 1x1 convolution for stride 16; transposed 2x2 ones, each with a norm, for strides 8, 4 and 2.
    projections = 768 * 256 + 512 + 4 * 768 * 128 + 256
    projections += 4 * (768 + 64) * 64 + 2 * 128 + 4 * (768 + 32 + 32) * 32 + 3 * 64
    # A stage narrows by 1x1, then mixes skip and map by 3x3 twice.
    decoder = sum(low * high + 9 * 2 * high * high + 9 * high * high + 3 * 2 * high
                  for low, high in [(256, 128), (128, 64), (64, 32)])  # fmt: skip
    assert size(unet_head()) == projections + decoder + 9 * 32 * 16 + 32 + 34 == 1_540_162


@pytest.mark.parametrize('hw', [(4, 4), (3, 5), (1, 1)])
def test_logits_have_the_size_of_the_image(hw):
    height, width = 16 * hw[0], 16 * hw[1]
    neck = torch.randn(2, 256, *hw)
    assert conv_head().eval()((neck,)).shape == (2, 2, height, width)
    assert conv_head(decoder_channels=(64, 32), in_index=-1).eval()((None, neck)).shape == (
        2,
        2,
        height // 4,
        width // 4,
    )
    blocks = [torch.randn(2, 768, *hw) for _ in range(4)]
    assert unet_head().eval()(blocks).shape == (2, 2, height, width)
    small = unet_head(in_channels=(8, 8), decoder_channels=(4, 8), in_index=(0, 2), channels=3).eval()
    assert small([torch.randn(2, 8, *hw), None, torch.randn(2, 8, *hw)]).shape == (2, 2, 4 * hw[0], 4 * hw[1])


def test_the_first_block_makes_the_finest_map():
    head, seen = unet_head().eval(), []
    for projection in head.projections:
        projection.register_forward_hook(lambda module, args, output: seen.append(tuple(output.shape[1:])))
    head([torch.randn(1, 768, 2, 3)] * 4)
    assert seen == [(32, 16, 24), (64, 8, 12), (128, 4, 6), (256, 2, 3)]


@pytest.mark.parametrize('build', [conv_head, unet_head])
def test_every_map_and_parameter_takes_part(build):
    head = build(decoder_dropout=0.0).train()
    width = 256 if build is conv_head else 768
    maps = [torch.randn(2, width, 2, 2, requires_grad=True) for _ in range(1 if build is conv_head else 4)]
    logits = head(maps)
    (logits * torch.randn_like(logits)).sum().backward()
    assert all(x.grad.abs().max() > 0 for x in maps)
    assert [name for name, p in head.named_parameters() if p.grad is None or not p.grad.abs().max() > 0] == []


@pytest.mark.parametrize('build', [conv_head, unet_head])
def test_three_dropouts_lie_between_stages(build):
    head = build(decoder_dropout=0.5)
    maps = [torch.randn(1, 256 if build is conv_head else 768, 2, 2) for _ in range(4)]
    order = []

    def note(name):
        return lambda *_: order.append(name)

    for stage in head.stages:
        stage.register_forward_hook(note('stage'))
    if hasattr(head, 'last_stage'):
        head.last_stage.register_forward_hook(note('stage'))
    for drop in head.between:
        assert (type(drop), drop.p) == (nn.Dropout2d, 0.5)
        drop.register_forward_hook(note('drop'))
    head.eval()
    assert torch.equal(head(maps), head(maps))
    assert order[: len(order) // 2] == ['stage', 'drop'] * 3 + ['stage']
    for drop in head.between:
        drop.train()
    assert not torch.equal(head(maps), head(maps))


@pytest.mark.parametrize(('build', 'convolutions'), [(conv_head, 4), (unet_head, 1 + 1 + 2 + 3 + 3 * 3 + 1)])
def test_each_convolution_has_the_norm_and_activation_of_the_config(build, convolutions):
    parts = [*build(act_cfg=dict(type='GELU'), align_corners=True).modules()]
    modules = [part for part in parts if isinstance(part, ConvModule)]
    assert len(modules) == sum(isinstance(part, nn.GELU) for part in parts) == convolutions
    assert sum(isinstance(part, nn.BatchNorm2d) for part in parts) == convolutions
    assert not any(isinstance(part, nn.ReLU) for part in parts)
    assert all(module.conv.bias is None for module in modules)
