"""Decoders for maps of a vision transformer."""

import pytest
import torch
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
    """3x3 convolutions without bias, two numbers a channel for each norm, a classifier of 48 * 2 + 2 or 40 * 2 + 2."""
    stages = [(256, 384), (384, 192), (192, 96), (96, 48)]
    assert size(conv_head()) == sum(9 * a * b + 2 * b for a, b in stages) + 98 == 1_757_186
    # A 1x1 convolution for stride 16; transposed 2x2 ones, each with a norm, for strides 8, 4 and 2.
    projections = 768 * 640 + 2 * 640 + 4 * 768 * 320 + 2 * 320
    projections += 4 * (768 + 160) * 160 + 2 * 2 * 160 + 4 * (768 + 80 + 80) * 80 + 3 * 2 * 80
    # A stage narrows by 1x1, then mixes skip and map by 3x3 twice.
    decoder = sum(low * high + 9 * 2 * high * high + 9 * high * high + 3 * 2 * high
                  for low, high in [(640, 320), (320, 160), (160, 80)])  # fmt: skip
    assert size(unet_head()) == projections + decoder + 9 * 80 * 40 + 2 * 40 + 82 == 6_298_402


def test_logits_have_the_size_of_the_image():
    hw, (height, width) = (3, 5), (48, 80)
    neck = torch.randn(2, 256, *hw)
    assert conv_head()((neck,)).shape == (2, 2, height, width)
    two_stages = conv_head(decoder_channels=(64, 32), in_index=-1)
    assert two_stages((None, neck)).shape == (2, 2, height // 4, width // 4)
    assert unet_head()([torch.randn(2, 768, *hw)] * 4).shape == (2, 2, height, width)
    small = unet_head(in_channels=(8, 8), decoder_channels=(4, 8), in_index=(0, 2), channels=3)
    assert small([torch.randn(2, 8, *hw), None, torch.randn(2, 8, *hw)]).shape == (2, 2, 4 * hw[0], 4 * hw[1])


def test_the_first_block_makes_the_finest_map():
    head, seen = unet_head().eval(), []
    for projection in head.projections:
        projection.register_forward_hook(lambda module, args, output: seen.append(tuple(output.shape[1:])))
    head([torch.randn(1, 768, 2, 3)] * 4)
    assert seen == [(80, 16, 24), (160, 8, 12), (320, 4, 6), (640, 2, 3)]


@pytest.mark.parametrize('build', [conv_head, unet_head])
def test_every_map_and_parameter_gets_a_gradient(build):
    head = build(decoder_dropout=0.0).train()
    width = 256 if build is conv_head else 768
    maps = [torch.randn(2, width, 2, 2, requires_grad=True) for _ in range(1 if build is conv_head else 4)]
    logits = head(maps)
    (logits * torch.randn_like(logits)).sum().backward()
    assert all(x.grad.abs().max() > 0 for x in maps)
    assert [name for name, p in head.named_parameters() if p.grad is None or not p.grad.abs().max() > 0] == []


@pytest.mark.parametrize('build', [conv_head, unet_head])
def test_dropout_lies_between_the_four_stages(build):
    head = build(decoder_dropout=0.5).eval()
    assert [(type(drop), drop.p) for drop in head.between] == [(nn.Dropout2d, 0.5)] * 3
    order = []
    stages = [*head.stages, *([head.last_stage] if build is unet_head else [])]
    for kind, modules in (('stage', stages), ('drop', head.between)):
        for module in modules:
            module.register_forward_hook(lambda *_, kind=kind: order.append(kind))
    head([torch.randn(1, 256 if build is conv_head else 768, 2, 2)] * 4)
    assert order == ['stage', 'drop'] * 3 + ['stage']


@pytest.mark.parametrize(('build', 'convolutions'), [(conv_head, 4), (unet_head, 1 + 1 + 2 + 3 + 3 * 3 + 1)])
def test_each_convolution_has_the_norm_and_activation_of_the_config(build, convolutions):
    parts = [type(part) for part in build(act_cfg=dict(type='GELU')).modules()]
    assert [parts.count(kind) for kind in (nn.GELU, nn.BatchNorm2d, nn.ReLU)] == [convolutions, convolutions, 0]
