"""The registered attentions: values of the softmax form, cost, and errors of `attn_cfg`.

Sizes, gradients, dropout and precision are tested with the backbones, in test_backbone_contract.py.
"""

import pytest
import torch
from torch import nn

from lale_mmseg.errors import ConfigError
from lale_mmseg.models.attention import MultiHeadAttention
from lale_mmseg.models.attention.base import recording
from lale_mmseg.models.backbones import LALE, LRFormer


def test_multi_head_attention_equals_the_plain_softmax_form():
    module, x = MultiHeadAttention(embed_dims=24, num_heads=3), torch.randn(2, 35, 24)
    query, key, value = module.qkv(x).split(24, dim=2)
    heads = []
    for head in range(3):
        part = slice(head * 8, (head + 1) * 8)
        scores = query[..., part] @ key[..., part].transpose(1, 2) / 8**0.5
        heads.append(scores.softmax(dim=-1) @ value[..., part])
    torch.testing.assert_close(module(x, (5, 7)), module.proj(torch.cat(heads, dim=2)), rtol=1e-4, atol=1e-5)


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
