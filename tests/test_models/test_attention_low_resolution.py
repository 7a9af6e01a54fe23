"""Low-resolution self-attention and LRFormer's block against plain forms written from the paper."""

import math

import pytest
import torch
import torch.nn.functional as F
from mmcv.cnn.bricks import LayerScale
from torch import Tensor, nn

from lale_mmseg.models.attention import (
    LowResolutionBlock,
    LowResolutionSelfAttention,
    PooledAttention,
    PoolingPyramid,
)
from lale_mmseg.models.attention.low_resolution import pooled_size

BN, GELU = dict(type='BN'), dict(type='GELU')


@pytest.mark.parametrize(
    ('hw', 'side', 'expected'),
    [
        ((192, 320), 16, (16, 27)),  # 320 * 16 / 192 = 26.67
        ((320, 192), 16, (27, 16)),
        ((128, 128), 16, (16, 16)),
        ((3, 5), 11, (11, 18)),  # 18.33
        ((8, 20), 11, (11, 28)),  # 27.5: a half goes up to an even number ...
        ((8, 20), 9, (9, 23)),  # 22.5: ... and to an odd one, where Python alone gives 22
        ((20, 8), 1, (3, 1)),  # 2.5
        ((1, 7), 4, (4, 28)),
        ((10, 79), 10, (10, 79)),  # just under the limit of 8 times the short side,
        ((2, 16), 11, (11, 88)),  # just at it,
        ((10, 81), 10, (10, 80)),  # and above it
        ((16, 400), 16, (16, 128)),
        ((400, 16), 11, (88, 11)),
        ((1, 1000), 1, (1, 8)),
        ((1, 1), 6, (6, 6)),
    ],
)
def test_pooled_sizes_by_hand(hw, side, expected):
    assert pooled_size(hw, side) == expected


@pytest.mark.parametrize(
    ('q_size', 'expected'),
    [
        (16, (11, 8, 6, 4)),
        (32, (22, 16, 12, 8)),
        (8, (6, 4, 3, 2)),  # 5.5 is rounded to the even 6
        (4, (3, 2, 2, 1)),  # 2.75, 2, 1.5, 1
        (1, (1, 1, 1, 1)),  # 0.69, then under a half, where one pixel is left
    ],
)
def test_context_scales_with_the_queries(q_size, expected):
    assert PoolingPyramid(4, q_size, (11, 8, 6, 4), convs=False).sides == expected


def test_pyramid_is_the_averages_in_row_order():
    x = torch.arange(32.0).reshape(1, 1, 4, 8)
    context = PoolingPyramid(1, 16, (2, 1), convs=False)(x)
    means = [4.5, 6.5, 8.5, 10.5, 20.5, 22.5, 24.5, 26.5]  # 2 x 4 windows of 2 x 2
    assert context.flatten().tolist() == [*means, 13.5, 17.5]


def half_up(value: float) -> int:
    return math.floor(value + 0.5)


def expected_size(height: int, width: int, side: int) -> tuple[int, int]:
    if height <= width:
        return side, min(half_up(width * side / height), 8 * side)
    return min(half_up(height * side / width), 8 * side), side


def average_windows(before: int, after: int) -> Tensor:
    """Rows average the pixels that the new pixel covers, those at its ends in full."""
    weights = torch.zeros(after, before)
    for new in range(after):
        first, last = (new * before) // after, -((-(new + 1) * before) // after)
        weights[new, first:last] = 1 / (last - first)
    return weights


def bilinear(before: int, after: int) -> Tensor:
    """Rows weigh the two pixels around the centre of the new pixel, held at the edge."""
    weights = torch.zeros(after, before)
    for new in range(after):
        place = min(max((new + 0.5) * before / after - 0.5, 0.0), before - 1)
        low = math.floor(place)
        weights[new, low] += 1 - (place - low)
        weights[new, min(low + 1, before - 1)] += place - low
    return weights


def resample(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    return torch.einsum('ih,jw,bchw->bcij', rows, columns, x)


def pool(x: Tensor, side: int) -> Tensor:
    height, width = x.shape[2:]
    rows, columns = expected_size(height, width, side)
    return resample(x, average_windows(height, rows), average_windows(width, columns))


def depthwise(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """3x3 with zeros around the map, one shifted copy for each weight."""
    height, width = x.shape[2:]
    padded = F.pad(x, (1, 1, 1, 1))
    out = conv.bias[:, None, None].expand_as(x).clone()
    for i in range(3):
        for j in range(3):
            out += conv.weight[:, 0, i, j, None, None] * padded[:, :, i : i + height, j : j + width]
    return out


def norm_of_tokens(x: Tensor, norm: nn.LayerNorm, eps: float) -> Tensor:
    mean, variance = x.mean(-1, keepdim=True), x.var(-1, keepdim=True, unbiased=False)
    return (x - mean) / (variance + eps).sqrt() * norm.weight + norm.bias


def plain_lrsa(x: Tensor, attention: PooledAttention, sides: tuple[int, ...], refine: nn.ModuleList | None) -> Tensor:
    """LRSA over a map, head by head."""
    height, width = x.shape[2:]
    pooled = pool(x, attention.q_size)
    context = []
    for position, side in enumerate(sides):
        part = pool(x, side)
        if refine is not None:
            part = part + depthwise(part, refine[position].conv)
        context.append(part.flatten(2))
    tokens = norm_of_tokens(torch.cat(context, dim=2).transpose(1, 2), attention.norm, eps=1e-5)
    query = attention.q(pooled.flatten(2).transpose(1, 2))
    key, value = attention.kv(tokens).chunk(2, dim=2)
    dims = query.shape[2] // attention.num_heads
    heads = []
    for head in range(attention.num_heads):
        part = slice(head * dims, (head + 1) * dims)
        scores = query[..., part] @ key[..., part].transpose(1, 2) * dims**-0.5
        heads.append(scores.softmax(dim=-1) @ value[..., part])
    out = attention.proj(torch.cat(heads, dim=2)).transpose(1, 2).reshape(pooled.shape)
    return resample(out, bilinear(pooled.shape[2], height), bilinear(pooled.shape[3], width))


def shake(module: nn.Module) -> nn.Module:
    """Norms and layer scales away from their start, where they would do nothing."""
    for part in module.modules():
        if isinstance(part, (nn.LayerNorm, nn.BatchNorm2d, LayerScale)):
            for parameter in part.parameters():
                nn.init.uniform_(parameter, 0.5, 1.5)
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.running_mean, -0.5, 0.5)
            nn.init.uniform_(part.running_var, 0.5, 1.5)
    return module.eval()


@pytest.mark.parametrize('hw', [(24, 24), (9, 31), (37, 17), (5, 7), (1, 3), (1, 1)])
@pytest.mark.parametrize(
    ('q_size', 'sides', 'convs'), [(16, (11, 8, 6, 4), True), (8, (6, 4, 3, 2), True), (32, (22, 16, 12, 8), False)]
)
def test_equals_the_plain_form(hw, q_size, sides, convs):
    check_against_plain_form(hw, q_size, sides, convs)


@pytest.mark.parametrize('hw', [(3, 40), (40, 3)])
def test_a_strip_equals_the_plain_form(hw):
    check_against_plain_form(hw, 4, (3, 2, 2, 1), True)


def check_against_plain_form(hw, q_size, sides, convs):
    module = shake(LowResolutionSelfAttention(24, 3, q_size, pool_convs=convs))
    x = torch.randn(2, 24, *hw)
    expected = plain_lrsa(x, module.attention, sides, module.pyramid.refine if convs else None)
    found = module(x.flatten(2).transpose(1, 2), hw)
    torch.testing.assert_close(found, expected.flatten(2).transpose(1, 2), rtol=1e-4, atol=1e-5)


def test_rows_and_columns_are_treated_alike():
    module = shake(LowResolutionSelfAttention(8, 2))
    for conv in (refine.conv for refine in module.pyramid.refine):
        conv.weight.data = conv.weight.data + conv.weight.data.transpose(2, 3)
    x = torch.randn(1, 8, 9, 22)
    wide = module(x.flatten(2).transpose(1, 2), (9, 22)).transpose(1, 2).unflatten(2, (9, 22))
    tall = module(x.transpose(2, 3).flatten(2).transpose(1, 2), (22, 9)).transpose(1, 2).unflatten(2, (22, 9))
    torch.testing.assert_close(tall.transpose(2, 3), wide, rtol=1e-4, atol=1e-5)


def block(layer_scale: float | None = None, pre_norm: bool = False, **options) -> LowResolutionBlock:
    return LowResolutionBlock(16, 2, 3, 8, BN, GELU, layer_scale=layer_scale, pre_norm=pre_norm, **options)


@pytest.mark.parametrize(('layer_scale', 'pre_norm'), [(None, False), (0.5, False), (0.5, True)])
def test_block_equals_the_plain_form(layer_scale, pre_norm):
    module, pyramid = shake(block(layer_scale, pre_norm)), shake(PoolingPyramid(16, 8, (11, 8, 6, 4), convs=True))
    x = torch.randn(2, 16, 11, 14)

    def normed(y: Tensor, norm: nn.BatchNorm2d) -> Tensor:
        scale = norm.weight / (norm.running_var + 1e-5).sqrt()
        return (y - norm.running_mean[:, None, None]) * scale[:, None, None] + norm.bias[:, None, None]

    def scaled(y: Tensor, scale: nn.Module) -> Tensor:
        return y * scale.weight[:, None, None] if layer_scale else y

    y = normed(x, module.pre_norm) if pre_norm else x
    y = y + depthwise(y, module.cpe)
    low = plain_lrsa(normed(y, module.norm1), module.attn, (6, 4, 3, 2), pyramid.refine)
    y = y + scaled(low, module.scale1)
    hidden = torch.einsum('oc,bchw->bohw', module.mlp.fc1.weight[:, :, 0, 0], normed(y, module.norm2))
    hidden = F.gelu(hidden + module.mlp.fc1.bias[:, None, None])
    hidden = hidden + depthwise(hidden, module.mlp.conv)
    out = torch.einsum('oc,bchw->bohw', module.mlp.fc2.weight[:, :, 0, 0], hidden)
    y = y + scaled(out + module.mlp.fc2.bias[:, None, None], module.scale2)
    torch.testing.assert_close(module(x, pyramid), y, rtol=1e-4, atol=1e-5)


def test_branches_vanish_with_a_layer_scale_of_zero_or_when_dropped():
    x, pyramid = torch.randn(3, 16, 8, 8), PoolingPyramid(16, 8, (4,), convs=True)
    silent = block(layer_scale=0.0)
    torch.testing.assert_close(silent(x, pyramid), x + silent.cpe(x))
    skipped = block(drop_path_rate=1 - 1e-7)
    torch.testing.assert_close(skipped(x, pyramid), x + skipped.cpe(x))
    assert not torch.allclose(skipped.eval()(x, pyramid), x + skipped.cpe(x))


def test_block_drops_attention_weights_and_values_in_training_only():
    x, pyramid = torch.randn(2, 16, 8, 8), PoolingPyramid(16, 8, (4,), convs=True)
    plain = shake(block())
    expected = plain(x, pyramid)
    for options in (dict(drop_rate=0.5), dict(attn_drop_rate=0.5)):
        module = block(**options)
        module.load_state_dict(plain.state_dict())
        torch.testing.assert_close(module.eval()(x, pyramid), expected)
        module.attn.train()
        assert not torch.allclose(module(x, pyramid), expected)
    values = block(drop_rate=1.0).train()
    torch.testing.assert_close(values(x, pyramid), x + values.cpe(x))
