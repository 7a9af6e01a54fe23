"""Attention between image tokens and meta tokens against plain softmax forms, written from the paper."""

import math

import pytest
import torch
from torch import Tensor, nn

from lale_mmseg.models.attention import CrossAttention, DualCrossAttention, GivingCrossAttention, MetaTokenAttention

DIMS, HEADS = 24, 3
HW = (5, 7)


def plain_attention(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """(B, N, C) and 2 x (B, M, C) to (B, N, C), head by head."""
    width = DIMS // HEADS
    heads = []
    for head in range(HEADS):
        part = slice(head * width, (head + 1) * width)
        scores = query[..., part] @ key[..., part].transpose(1, 2) * scale
        heads.append(scores.softmax(dim=-1) @ value[..., part])
    return torch.cat(heads, dim=2)


def sharpen(module: nn.Module) -> nn.Module:
    """Large projections, so that softmax is far from uniform and a wrong scale shows."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=0.7)
            nn.init.normal_(part.bias)
        if isinstance(part, nn.LayerNorm):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.uniform_(part.bias, -0.5, 0.5)
    return module.eval()


@pytest.fixture
def image() -> Tensor:
    return torch.randn(2, 35, DIMS)


@pytest.fixture
def meta() -> Tensor:
    return torch.randn(2, 5, DIMS)


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_cross_attention(image, meta):
    module = sharpen(CrossAttention(DIMS, HEADS))
    key, value = module.kv(image).chunk(2, dim=2)
    close(
        module(meta, image, HW), module.proj(plain_attention(module.q(meta), key, value, scale=(DIMS // HEADS) ** -0.5))
    )


def plain_dual(module: DualCrossAttention, image: Tensor, meta: Tensor) -> tuple[Tensor, Tensor]:
    query_x, key_x, value_x = module.qkv1(image).chunk(3, dim=2)
    query_c, key_c, value_c = module.qkv2(meta).chunk(3, dim=2)
    scale = DIMS**-0.5 * math.log(meta.shape[1]) / math.log(image.shape[1])
    read = module.proj_x(plain_attention(query_x, key_c, value_c, scale))
    return read, module.proj_c(plain_attention(query_c, key_x, value_x, DIMS**-0.5))


def test_dual_cross_attention(image, meta):
    module = sharpen(DualCrossAttention(DIMS, HEADS))
    for found, expected in zip(module(image, meta, HW), plain_dual(module, image, meta), strict=True):
        close(found, expected)


def test_giving_is_the_image_half_of_dual_cross_attention(image, meta):
    dual, giving = sharpen(DualCrossAttention(DIMS, HEADS)), GivingCrossAttention(DIMS, HEADS)
    loaded = giving.load_state_dict(dual.state_dict(), strict=False)
    assert loaded.missing_keys == []
    assert loaded.unexpected_keys == ['proj_c.weight', 'proj_c.bias']
    close(giving(image, meta, HW), dual(image, meta, HW)[0])
    close(giving(image, meta, HW), plain_dual(dual, image, meta)[0])


def test_meta_token_attention(image):
    module = sharpen(MetaTokenAttention(DIMS, HEADS, num_meta_tokens=5))
    meta = module.meta_tokens[None].repeat(2, 1, 1)
    query, key, value = module.qkv(image).chunk(3, dim=2)
    gathered = plain_attention(module.meta_q(meta), key, value, DIMS**-0.5)
    meta = meta + module.meta_proj(gathered)
    mean, variance = meta.mean(-1, keepdim=True), meta.var(-1, keepdim=True, unbiased=False)
    meta = (meta - mean) / (variance + 1e-6).sqrt() * module.meta_norm.weight + module.meta_norm.bias
    key, value = module.meta_kv(meta).chunk(2, dim=2)
    expected = module.proj(plain_attention(query, key, value, DIMS**-0.5 * math.log(5) / math.log(35)))
    close(module(image, (5, 7)), expected)


def test_meta_token_attention_does_not_know_the_order_of_pixels(image):
    module = sharpen(MetaTokenAttention(DIMS, HEADS))
    order = torch.randperm(35)
    close(module(image[:, order], (5, 7)), module(image, (5, 7))[:, order])


@pytest.mark.parametrize(('pixels', 'tokens'), [(1, 16), (35, 1), (1, 1), (2, 1)])
def test_one_pixel_or_one_token_works(pixels, tokens):
    x = torch.randn(1, pixels, DIMS)
    out = sharpen(MetaTokenAttention(DIMS, HEADS, tokens))(x, (1, pixels))
    assert out.shape == x.shape
    assert out.isfinite().all()


@pytest.mark.parametrize('kind', [CrossAttention, DualCrossAttention, GivingCrossAttention])
@pytest.mark.parametrize('rate', ['attn_drop', 'proj_drop'])
def test_dropping_happens_in_training_only(kind, rate, image, meta):
    plain, module = sharpen(kind(DIMS, HEADS)), kind(DIMS, HEADS, **{rate: 0.5}).eval()
    module.load_state_dict(plain.state_dict())
    inputs = (meta, image) if kind is CrossAttention else (image, meta)
    expected = plain(*inputs, HW)
    torch.testing.assert_close(module(*inputs, HW), expected)
    dropped = module.train()(*inputs, HW)
    pairs = zip(dropped, expected, strict=True) if kind is DualCrossAttention else [(dropped, expected)]
    assert not any(torch.allclose(a, b) for a, b in pairs)
