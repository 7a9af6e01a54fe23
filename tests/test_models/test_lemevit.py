"""The blocks of LeMeViT in plain form, and where its rates of dropping go."""

import pytest
import torch
from torch import Tensor, nn

from lale_mmseg.models.attention import CrossAttention, DualCrossAttention, GivingCrossAttention, MultiHeadAttention
from lale_mmseg.models.backbones import LeMeViT
from lale_mmseg.models.backbones.lemevit import CrossBlock, DualBlock, GivingBlock, SelfBlock

KINDS = [
    (CrossBlock, CrossAttention),
    (DualBlock, DualCrossAttention),
    (GivingBlock, GivingCrossAttention),
    (SelfBlock, MultiHeadAttention),
]
every_block = pytest.mark.parametrize(('block', 'attention'), KINDS)


def build(block: type, attention: type, **options) -> nn.Module:
    return block(16, attention(16, 2), 3, dict(type='LN', eps=1e-6), dict(type='GELU'), **options)


def to_tokens(x: Tensor) -> Tensor:
    return x.flatten(2).transpose(1, 2)


@every_block
def test_order_of_a_block(block, attention):
    module, x, meta = build(block, attention), torch.randn(2, 16, 5, 6), torch.randn(2, 4, 16)
    placed = to_tokens(x + module.pos_embed(x))
    tokens, context = module.norm1(placed), module.norm1(meta)
    expected, expected_meta = to_tokens(x), meta
    if block is CrossBlock:  # the image leaves as it came, without the depthwise convolution
        expected_meta = meta + module.attn(context, tokens, (5, 6))
    elif block is DualBlock:
        read, gathered = module.attn(tokens, context, (5, 6))
        expected, expected_meta = placed + read, meta + gathered
    elif block is GivingBlock:
        expected = placed + module.attn(tokens, context, (5, 6))
    else:
        expected = placed + module.attn(tokens, (5, 6))
    if block is not CrossBlock:
        expected = expected + module.mlp(module.norm2(expected))
    if block in (CrossBlock, DualBlock):
        expected_meta = expected_meta + module.mlp(module.norm2(expected_meta))
    found, found_meta = module(x, meta)
    assert found.shape == x.shape
    torch.testing.assert_close(to_tokens(found), expected)
    torch.testing.assert_close(found_meta, expected_meta)


@every_block
def test_skipped_branches_leave_the_residual(block, attention):
    module, x, meta = build(block, attention, drop_path_rate=1 - 1e-7), torch.randn(2, 16, 5, 6), torch.randn(2, 4, 16)
    found, found_meta = module(x, meta)
    torch.testing.assert_close(found, x if block is CrossBlock else x + module.pos_embed(x))
    torch.testing.assert_close(found_meta, meta)


def test_rates_of_dropping_reach_every_layer():
    arch = dict(depths=(1, 1, 1, 1, 1), embed_dims=(32, 32, 64, 64, 96))
    model = LeMeViT(arch, drop_rate=0.25, attn_drop_rate=0.5)
    blocks = [block for stage in model.stages for block in stage]
    assert {module.p for module in model.modules() if isinstance(module, nn.Dropout)} == {0.25}
    assert [block.attn.attn_drop for block in blocks] == [0.5] * 5
