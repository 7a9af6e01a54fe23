"""The registered attentions and LRFormer's block: plain softmax forms, cost, and errors of `attn_cfg`.

Sizes, gradients, dropout and precision are tested with the backbones, in test_backbone_contract.py. Attention of the
published networks is also compared with their outputs, in test_reference.py.
"""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lale_mmseg.errors import ConfigError
from lale_mmseg.models.attention import (
    DualCrossAttention,
    GivingCrossAttention,
    LowResolutionBlock,
    LowResolutionSelfAttention,
    MetaTokenAttention,
    MultiHeadAttention,
    PooledAttention,
    PoolingPyramid,
)
from lale_mmseg.models.attention.base import recording
from lale_mmseg.models.attention.low_resolution import pooled_size
from lale_mmseg.models.backbones import LALE, LRFormer

DIMS, HEADS = 24, 3
HW = (5, 7)


def plain_attention(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """(B, N, C) and 2 x (B, M, C) to (B, N, C), head by head."""
    heads = []
    for q, k, v in zip(*(x.chunk(HEADS, dim=2) for x in (query, key, value)), strict=True):
        heads.append((q @ k.transpose(1, 2) * scale).softmax(dim=-1) @ v)
    return torch.cat(heads, dim=2)


def sharpen(module: nn.Module) -> nn.Module:
    """Draws large projections, so that the softmax is far from uniform and a wrong scale shows."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=0.7)
            nn.init.normal_(part.bias)
        if isinstance(part, nn.LayerNorm):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.uniform_(part.bias, -0.5, 0.5)
    return module.eval()


def test_multi_head_attention_equals_the_plain_form():
    module, x = sharpen(MultiHeadAttention(DIMS, HEADS)), torch.randn(2, 35, DIMS)
    expected = module.proj(plain_attention(*module.qkv(x).chunk(3, dim=2), (DIMS // HEADS) ** -0.5))
    torch.testing.assert_close(module(x, HW), expected, rtol=1e-4, atol=1e-4)


def test_meta_token_attention_equals_the_plain_form():
    module, image = sharpen(MetaTokenAttention(DIMS, HEADS, num_meta_tokens=5)), torch.randn(2, 35, DIMS)
    meta = module.meta_tokens[None].repeat(2, 1, 1)
    query, key, value = module.qkv(image).chunk(3, dim=2)
    gathered = plain_attention(module.meta_q(meta), key, value, DIMS**-0.5)
    meta = meta + module.meta_proj(gathered)
    mean, variance = meta.mean(-1, keepdim=True), meta.var(-1, keepdim=True, unbiased=False)
    meta = (meta - mean) / (variance + 1e-6).sqrt() * module.meta_norm.weight + module.meta_norm.bias
    key, value = module.meta_kv(meta).chunk(2, dim=2)
    expected = module.proj(plain_attention(query, key, value, DIMS**-0.5 * math.log(5) / math.log(35)))
    torch.testing.assert_close(module(image, HW), expected, rtol=1e-4, atol=1e-4)


def test_giving_is_the_image_half_of_dual_cross_attention():
    dual, giving = sharpen(DualCrossAttention(DIMS, HEADS)), GivingCrossAttention(DIMS, HEADS)
    loaded = giving.load_state_dict(dual.state_dict(), strict=False)
    assert loaded.missing_keys == []
    assert loaded.unexpected_keys == ['proj_c.weight', 'proj_c.bias']
    image, meta = torch.randn(2, 35, DIMS), torch.randn(2, 5, DIMS)
    torch.testing.assert_close(giving(image, meta, HW), dual(image, meta, HW)[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(('pixels', 'tokens'), [(1, 16), (35, 1), (1, 1)])
def test_one_pixel_or_one_token_works(pixels, tokens):
    """The scale of the softmax contains the logarithms of both counts, which are zero here."""
    x = torch.randn(1, pixels, DIMS)
    assert sharpen(MetaTokenAttention(DIMS, HEADS, tokens))(x, (1, pixels)).isfinite().all()


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


def plain_lrsa(x: Tensor, attention: PooledAttention, sides: tuple[int, ...], refine: nn.ModuleList | None) -> Tensor:
    """LRSA over a feature map."""

    def pool(side: int) -> Tensor:
        return F.adaptive_avg_pool2d(x, pooled_size((x.shape[2], x.shape[3]), side))

    context = []
    for position, side in enumerate(sides):
        part = pool(side)
        if refine is not None:
            conv = refine[position].conv
            part = part + F.conv2d(part, conv.weight, conv.bias, padding=1, groups=DIMS)
        context.append(part.flatten(2))
    norm = attention.norm
    tokens = F.layer_norm(torch.cat(context, dim=2).transpose(1, 2), (DIMS,), norm.weight, norm.bias, eps=1e-5)
    query = attention.q(pool(attention.q_size).flatten(2).transpose(1, 2))
    out = plain_attention(query, *attention.kv(tokens).chunk(2, dim=2), (DIMS // HEADS) ** -0.5)
    out = attention.proj(out).transpose(1, 2).reshape(pool(attention.q_size).shape)
    return F.interpolate(out, size=x.shape[2:], mode='bilinear', align_corners=False)


@pytest.mark.parametrize('hw', [(24, 24), (9, 31), (37, 17), (1, 3), (1, 1), (3, 40)])
@pytest.mark.parametrize(
    ('q_size', 'sides', 'convs'), [(8, (6, 4, 3, 2), True), (24, (16, 12, 9, 6), False), (4, (3, 2, 2, 1), True)]
)
def test_low_resolution_attention_equals_the_plain_form(hw, q_size, sides, convs):
    module = sharpen(LowResolutionSelfAttention(DIMS, HEADS, q_size, pool_convs=convs))
    x = torch.randn(2, DIMS, *hw)
    expected = plain_lrsa(x, module.attention, sides, module.pyramid.refine if convs else None)
    found = module(x.flatten(2).transpose(1, 2), hw)
    torch.testing.assert_close(found, expected.flatten(2).transpose(1, 2), rtol=1e-4, atol=1e-3)


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


@pytest.mark.parametrize(
    ('attn_cfg', 'message'),
    [
        (dict(kind='LRSA'), r"^attn_cfg=\{'kind': 'LRSA'\}: expected a dict such as dict\(type="),
        ([None, None, 'LRSA', None], "^attn_cfg='LRSA': expected a dict"),
        (dict(type='MultiHeadAttention', num_heads=2), r'^attn_cfg\.num_heads follows from'),
    ],
)
def test_invalid_attn_cfg(attn_cfg, message):
    with pytest.raises(ConfigError, match=message):
        LALE('s1', attn_cfg=attn_cfg)


def attended(model: nn.Module, side: int) -> list[tuple[int, int]]:
    """(query tokens, key tokens) of every attention over a square image."""
    calls = []
    with recording(calls.append), torch.no_grad():
        model.eval()(torch.randn(1, 3, side, side))
    return [(call.query.shape[2], call.key.shape[2]) for call in calls]


@pytest.mark.parametrize(
    'everywhere', [LALE('s1', attn_cfg=[dict(type='mmseg.LowResolutionSelfAttention')] * 4), LRFormer('t')]
)
def test_low_resolution_attention_does_not_grow_with_the_image(everywhere):
    small = attended(everywhere, 64)
    assert set(small) == {(16 * 16, 11 * 11 + 8 * 8 + 6 * 6 + 4 * 4)}
    assert attended(everywhere, 192) == small


def test_meta_tokens_grow_linearly_and_softmax_over_pixels_quadratically():
    pixels = [(side // 4) ** 2 >> 2 * stage for side in (64, 128) for stage in range(4)]
    meta = LALE('s1', attn_cfg=[dict(type='MetaTokenAttention')] * 4)
    both_ways = [pair for count in pixels for pair in ((16, count), (count, 16))]
    assert attended(meta, 64) + attended(meta, 128) == both_ways
    softmax = LALE('s1', attn_cfg=[dict(type='MultiHeadAttention')] * 4)
    assert attended(softmax, 64) + attended(softmax, 128) == [(count, count) for count in pixels]
