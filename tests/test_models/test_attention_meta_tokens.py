"""Meta token attention against a plain softmax form; LeMeViT's attentions are compared in test_reference.py."""

import math

import pytest
import torch
from torch import Tensor, nn

from lale_mmseg.models.attention import DualCrossAttention, GivingCrossAttention, MetaTokenAttention

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
    """Draws large projections, so that the softmax is far from uniform and a wrong scale shows."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=0.7)
            nn.init.normal_(part.bias)
        if isinstance(part, nn.LayerNorm):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.uniform_(part.bias, -0.5, 0.5)
    return module.eval()


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
