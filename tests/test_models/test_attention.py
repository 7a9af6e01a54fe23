import pytest
import torch
from mmseg.registry import MODELS

from lale_mmseg.models.attention import MultiHeadAttention


def plain_softmax_attention(module: MultiHeadAttention, x: torch.Tensor) -> torch.Tensor:
    """The textbook form, head by head."""
    dims = x.shape[2]
    width = dims // module.num_heads
    query, key, value = module.qkv(x).split(dims, dim=2)
    heads = []
    for head in range(module.num_heads):
        part = slice(head * width, (head + 1) * width)
        scores = query[..., part] @ key[..., part].transpose(1, 2) / width**0.5
        heads.append(scores.softmax(dim=-1) @ value[..., part])
    return module.proj(torch.cat(heads, dim=2))


def test_equals_the_plain_softmax_form():
    module = MultiHeadAttention(embed_dims=24, num_heads=3)
    x = torch.randn(2, 35, 24)
    torch.testing.assert_close(module(x, (5, 7)), plain_softmax_attention(module, x), rtol=1e-4, atol=1e-5)


def test_is_chosen_by_config():
    module = MODELS.build(dict(type='MultiHeadAttention', embed_dims=8, num_heads=2))
    assert isinstance(module, MultiHeadAttention)


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match='embed_dims=10 is not divisible by num_heads=4'):
        MultiHeadAttention(10, 4)
