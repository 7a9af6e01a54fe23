"""Recorded attention: weights against a plain softmax, figures by hand, places in the networks."""

import math

import pytest
import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import nn

from lale_mmseg.errors import ConfigError
from lale_mmseg.inference.attention_maps import (
    attention_places,
    cell_at,
    choose_places,
    entropy,
    listening_shares,
    mean_attention,
    pooled_row,
    pyramid_levels,
    record_attention,
    spread,
    summary_of,
)
from lale_mmseg.models.attention import LowResolutionSelfAttention, MetaTokenAttention
from lale_mmseg.models.attention.base import GATHER, GIVE, POOLED, SELF

HW = (3, 5)


def softmax(query, key, scale):
    """The plain form: (1, Q, heads * d) and (1, K, heads * d) of two heads to (Q, K)."""
    pairs = zip(query[0].chunk(2, dim=1), key[0].chunk(2, dim=1), strict=True)
    weights = [torch.softmax(q @ k.T * scale, dim=1) for q, k in pairs]
    return sum(weights) / 2


def recorded(model, run, pixel=(0, 0), hw=HW):
    places = attention_places(model)
    found = record_attention(model, run, places, hw, pixel)
    assert [each.place for each in found] == places
    for each in found:
        assert each.weights.dtype == torch.float32
        torch.testing.assert_close(each.weights.sum(dim=1), torch.ones(len(each.weights)))
    return {each.place.role: each for each in found}


def test_mean_over_heads_by_hand():
    query = torch.tensor([[[1.0, 0.0]], [[0.0, 2.0]]])  # two heads, one query
    key = torch.tensor([[[math.log(3), 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]])
    torch.testing.assert_close(mean_attention(query, key, scale=1.0), torch.tensor([[(0.75 + 0.5) / 2, 0.375]]))
    halved = math.sqrt(3) / (1 + math.sqrt(3))
    assert mean_attention(query, key, scale=0.5)[0, 0].item() == pytest.approx((halved + 0.5) / 2)
    assert mean_attention(query, key)[0, 0].item() == pytest.approx((3 ** (0.5**0.5) / (1 + 3 ** (0.5**0.5)) + 0.5) / 2)


def test_meta_tokens_gather_and_give():
    attention = MetaTokenAttention(8, 2, num_meta_tokens=4).eval()
    x = torch.randn(1, 15, 8)
    found = recorded(attention, lambda: attention(x, HW))
    assert {role: tuple(each.weights.shape) for role, each in found.items()} == {GATHER: (4, 15), GIVE: (15, 4)}
    query, key, value = attention.qkv(x).chunk(3, dim=2)
    asked = attention.meta_q(attention.meta_tokens[None])
    gather = softmax(asked, key, 8**-0.5)
    torch.testing.assert_close(found[GATHER].weights, gather)
    per_head = [torch.softmax(q @ k.T * 8**-0.5, 1) @ v for q, k, v in zip(
        asked[0].chunk(2, 1), key[0].chunk(2, 1), value[0].chunk(2, 1), strict=True)]  # fmt: skip
    meta = attention.meta_norm(attention.meta_tokens + attention.meta_proj(torch.cat(per_head, 1)))[None]
    scale = 8**-0.5 * math.log(4) / math.log(15)
    torch.testing.assert_close(found[GIVE].weights, softmax(query, attention.meta_kv(meta).chunk(2, dim=2)[0], scale))
    assert (found[GATHER].hw, found[GATHER].num_heads, found[GATHER].stride) == (HW, 2, 1)


def test_low_resolution_attention():
    attention = LowResolutionSelfAttention(8, 2, q_size=2, pool_sizes=(16, 8)).eval()  # sides 2 and 1
    hw = (4, 8)
    x = torch.randn(1, 32, 8)
    found = recorded(attention, lambda: attention(x, hw), hw=hw)[POOLED]
    grid = x.transpose(1, 2).unflatten(2, hw)
    inner = attention.attention
    query = inner.q(F.adaptive_avg_pool2d(grid, (2, 4)).flatten(2).transpose(1, 2))
    key = inner.kv(inner.norm(attention.pyramid(grid))).chunk(2, dim=2)[0]
    torch.testing.assert_close(found.weights, softmax(query, key, 4**-0.5))
    assert found.place.kind == 'LowResolutionSelfAttention'
    assert (found.hw, found.query_hw, found.key_grids) == (hw, (2, 4), ((2, 4), (1, 2)))
    first, second = pyramid_levels(torch.arange(10), found.key_grids)
    assert (first.tolist(), second.tolist()) == ([[0, 1, 2, 3], [4, 5, 6, 7]], [[8, 9]])
    assert torch.equal(pooled_row(found, hw, (3, 2)), found.weights[4 + 1])
    figures = summary_of(found)
    mean = found.weights.mean(dim=0)
    assert figures['pyramid_shares'] == pytest.approx([mean[:8].sum().item(), mean[8:].sum().item()])
    assert figures['equal_shares'] == [0.8, 0.2]
    best = int(mean.argmax())
    assert figures['peak'] == pytest.approx([10 * mean[best].item()])
    assert figures['peak_cell'] == [[0, best // 4, best % 4] if best < 8 else [1, 0, best - 8]]


def test_self_attention_is_one_row():
    attention = MODELS.build(dict(type='MultiHeadAttention', embed_dims=8, num_heads=2)).eval()
    x = torch.randn(1, 15, 8)
    found = recorded(attention, lambda: attention(x, HW), pixel=(5, 9), hw=(6, 10))[SELF]
    query, key, _ = attention.qkv(x).chunk(3, dim=2)
    torch.testing.assert_close(found.weights, softmax(query, key, 4**-0.5)[14:15])
    assert found.stride == 2


def test_recording_changes_no_output_and_stops_after_errors():
    attention = MetaTokenAttention(8, 2).eval()
    x = torch.randn(1, 15, 8)
    before = attention(x, HW)
    kept = []
    record_attention(attention, lambda: kept.append(attention(x, HW)), attention_places(attention), HW, (0, 0))
    assert torch.equal(kept[0], before)
    with pytest.raises(ZeroDivisionError):
        record_attention(attention, lambda: 1 // 0, attention_places(attention), HW, (0, 0))
    assert torch.equal(attention(x, HW), before)


def test_figures_by_hand():
    weights = torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.25] * 4, [0.5, 0.5, 0.0, 0.0]])
    torch.testing.assert_close(entropy(weights), torch.tensor([0.0, math.log(4), math.log(2)]))
    torch.testing.assert_close(spread(weights), torch.tensor([0.25, 1.0, 0.5]))
    winners = torch.tensor([[0.6, 0.4, 0.0], [0.1, 0.9, 0.0], [0.7, 0.2, 0.1], [0.8, 0.1, 0.1]])
    assert listening_shares(winners) == [0.75, 0.25, 0.0]
    assert cell_at((0, 99), (100, 100), (4, 7)) == (0, 6)
    assert cell_at((25, 14), (100, 100), (4, 7)) == (1, 0)


def backbone(kind, **settings):
    model = nn.Module()
    model.backbone = MODELS.build(dict(type=kind, **settings))
    return model


def test_places_of_lemevit_and_the_last_blocks():
    places = attention_places(backbone('LeMeViT', arch=dict(embed_dims=(32,) * 5, depths=(1, 2, 2, 1, 1))))
    seen = [(place.stage, place.block, place.role) for place in places]
    assert seen == [
        ('1', 1, GATHER),
        *[('2', block, role) for block in (1, 2) for role in (GIVE, GATHER)],
        ('3', 1, GIVE),
        ('3', 1, GATHER),
        ('3', 2, GIVE),
        ('4', 1, SELF),
        ('5', 1, SELF),
    ]
    chosen = choose_places(places, ['2', '3'])
    # The last block of stage 3 has nothing to gather: its tokens are read by nobody.
    assert [(place.stage, place.block, place.role) for place in chosen] == [
        ('2', 2, GIVE),
        ('2', 2, GATHER),
        ('3', 1, GATHER),
        ('3', 2, GIVE),
    ]
    assert {place.block for place in choose_places(places, block=1)} == {1}
    with pytest.raises(ConfigError, match=r'^stage=6: .* one of 1, 2, 3, 4, 5$'):
        choose_places(places, ['6'])
    with pytest.raises(ConfigError, match=r'^block=3: .* one of 1, 2$'):
        choose_places(places, block=3)
