"""What all registered attentions share, and multi-head attention."""

import pytest
import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from torch.overrides import TorchFunctionMode

from lale_mmseg.errors import ConfigError
from lale_mmseg.models.attention import MultiHeadAttention
from lale_mmseg.models.backbones import LALE, LRFormer

ATTENTIONS = ('LowResolutionSelfAttention', 'MetaTokenAttention', 'MultiHeadAttention')
every_attention = pytest.mark.parametrize('kind', ATTENTIONS)


class RecordAttention(TorchFunctionMode):
    """Notes (query tokens, key tokens, dropout) of every scaled dot product."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, int, float]] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            self.seen.append((args[0].shape[2], args[1].shape[2], kwargs.get('dropout_p', 0.0)))
        return func(*args, **kwargs)


def build(kind: str, embed_dims: int = 24, num_heads: int = 3, **options) -> torch.nn.Module:
    return MODELS.build(dict(type=kind, embed_dims=embed_dims, num_heads=num_heads, **options))


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


def test_multi_head_attention_equals_the_plain_softmax_form():
    module = MultiHeadAttention(embed_dims=24, num_heads=3)
    x = torch.randn(2, 35, 24)
    torch.testing.assert_close(module(x, (5, 7)), plain_softmax_attention(module, x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('hw', [(1, 1), (1, 9), (5, 7), (20, 3)])
@every_attention
def test_tokens_keep_their_shape_on_any_map(kind, hw):
    x = torch.randn(2, hw[0] * hw[1], 24)
    out = build(kind)(x, hw)
    assert out.shape == x.shape
    assert out.isfinite().all()


@every_attention
def test_every_parameter_gets_a_gradient(kind):
    module = build(kind)
    out = module(torch.randn(2, 35, 24), (5, 7))
    (out * torch.randn_like(out)).sum().backward()
    assert [name for name, p in module.named_parameters() if p.grad is None or not p.grad.abs().max() > 0] == []


@every_attention
def test_every_pixel_reaches_every_pixel(kind):
    x = torch.randn(1, 6 * 9, 24, requires_grad=True)
    build(kind)(x, (6, 9))[0, -1].sum().backward()
    assert (x.grad[0].abs().sum(dim=1) > 0).all()


@every_attention
def test_attention_weights_are_dropped_in_training_only(kind):
    dropping, whole, x = build(kind, attn_drop=0.9), build(kind), torch.randn(2, 35, 24)
    whole.load_state_dict(dropping.state_dict())
    expected = whole(x, (5, 7))
    with RecordAttention() as calls:
        assert not torch.allclose(dropping(x, (5, 7)), expected)
        torch.testing.assert_close(dropping.eval()(x, (5, 7)), expected)
    half = len(calls.seen) // 2
    assert [dropout for *_, dropout in calls.seen] == [0.9] * half + [0.0] * half


@every_attention
def test_output_values_are_dropped_in_training_only(kind):
    dropping, whole, x = build(kind, proj_drop=1 - 1e-7), build(kind), torch.randn(2, 35, 24)
    whole.load_state_dict(dropping.state_dict())
    assert not dropping(x, (5, 7)).any()
    torch.testing.assert_close(dropping.eval()(x, (5, 7)), whole(x, (5, 7)))


@every_attention
def test_heads_must_divide_the_width(kind):
    with pytest.raises(ConfigError, match='embed_dims=10 must be divisible by num_heads=4'):
        build(kind, 10, 4)


@pytest.mark.parametrize(
    ('attn_cfg', 'message'),
    [
        (dict(kind='LRSA'), r"^attn_cfg=\{'kind': 'LRSA'\}: expected a dict such as dict\(type="),
        ('LRSA', "^attn_cfg='LRSA': expected a dict"),
        ([None, None, 'LRSA', None], "^attn_cfg='LRSA': expected a dict"),
        (dict(type='MultiHeadAttention', num_heads=2), r'^attn_cfg\.num_heads follows from'),
        (dict(type='MultiHeadAttention', embed_dims=2), r'^attn_cfg\.embed_dims follows from'),
    ],
)
def test_bad_attentions_are_named(attn_cfg, message):
    with pytest.raises(ConfigError, match=message):
        LALE('s1', attn_cfg=attn_cfg)


def test_misspelt_options_are_rejected():
    with pytest.raises(TypeError, match='qsize'):
        LALE('s1', attn_cfg=dict(type='LowResolutionSelfAttention', qsize=8))


def test_an_attention_may_be_given_as_a_class():
    model = LALE('s1', attn_cfg=dict(type=MultiHeadAttention))
    assert type(model.stages[3][0].attention) is MultiHeadAttention


def attended(model: torch.nn.Module, side: int) -> list[tuple[int, int]]:
    """(query tokens, key tokens) of every attention over a square image."""
    with RecordAttention() as calls, torch.no_grad():
        model.eval()(torch.randn(1, 3, side, side))
    return [(queries, keys) for queries, keys, _ in calls.seen]


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
