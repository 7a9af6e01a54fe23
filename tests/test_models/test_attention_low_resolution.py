"""Low-resolution self-attention against a plain form written from the paper, and details of LRFormer's block."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lale_mmseg.models.attention import (
    LowResolutionBlock,
    LowResolutionSelfAttention,
    PooledAttention,
    PoolingPyramid,
)
from lale_mmseg.models.attention.low_resolution import pooled_size


@pytest.mark.parametrize(
    ('hw', 'side', 'expected'),
    [
        ((192, 320), 16, (16, 27)),  # 320 * 16 / 192 = 26.67
        ((8, 20), 11, (11, 28)),  # 27.5: a half goes up to an even number ...
        ((8, 20), 9, (9, 23)),  # 22.5: ... and to an odd one, where Python alone gives 22
        ((20, 8), 1, (3, 1)),  # 2.5
        ((10, 79), 10, (10, 79)),  # just under the limit of 8 times the short side,
        ((2, 16), 11, (11, 88)),  # just at it,
        ((10, 81), 10, (10, 80)),  # and above it
        ((400, 16), 11, (88, 11)),
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
    rows, columns = pooled_size((height, width), side)
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


@pytest.mark.parametrize('hw', [(24, 24), (9, 31), (37, 17), (1, 3), (1, 1), (3, 40)])
@pytest.mark.parametrize(
    ('q_size', 'sides', 'convs'), [(8, (6, 4, 3, 2), True), (24, (16, 12, 9, 6), False), (4, (3, 2, 2, 1), True)]
)
def test_equals_the_plain_form(hw, q_size, sides, convs):
    module = LowResolutionSelfAttention(24, 3, q_size, pool_convs=convs)
    # Away from its start, where the norm does nothing.
    nn.init.uniform_(module.attention.norm.weight, 0.5, 1.5)
    nn.init.uniform_(module.attention.norm.bias, 0.5, 1.5)
    x = torch.randn(2, 24, *hw)
    expected = plain_lrsa(x, module.attention, sides, module.pyramid.refine if convs else None)
    found = module(x.flatten(2).transpose(1, 2), hw)
    torch.testing.assert_close(found, expected.flatten(2).transpose(1, 2), rtol=1e-4, atol=1e-5)


def block(**options) -> LowResolutionBlock:
    return LowResolutionBlock(16, 2, 3, 8, dict(type='BN'), dict(type='GELU'), **options)


def test_pre_norm_of_a_block():
    """The rest of the block is compared with the published one in test_reference.py."""
    normed, plain, pyramid = block(pre_norm=True).eval(), block().eval(), PoolingPyramid(16, 8, (4,), convs=True)
    nn.init.uniform_(normed.pre_norm.running_mean)
    plain.load_state_dict(normed.state_dict(), strict=False)
    x = torch.randn(2, 16, 11, 14)
    torch.testing.assert_close(
        normed(x, pyramid), plain((x - normed.pre_norm.running_mean[:, None, None]) / (1 + 1e-5) ** 0.5, pyramid)
    )


def test_dropped_branches_leave_the_residual():
    x, pyramid = torch.randn(3, 16, 8, 8), PoolingPyramid(16, 8, (4,), convs=True)
    skipped = block(drop_path_rate=1 - 1e-7)
    torch.testing.assert_close(skipped(x, pyramid), x + skipped.cpe(x))
