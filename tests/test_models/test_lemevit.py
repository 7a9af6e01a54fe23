"""Details of LeMeViT beside its published outputs, which are in test_reference.py."""

import pytest
import torch
from torch import nn

from lale_mmseg.models.attention import CrossAttention, DualCrossAttention, GivingCrossAttention, MultiHeadAttention
from lale_mmseg.models.backbones import LeMeViT
from lale_mmseg.models.backbones.lemevit import CrossBlock, DualBlock, GivingBlock, SelfBlock


@pytest.mark.parametrize(
    ('block', 'attention'),
    [
        (CrossBlock, CrossAttention),
        (DualBlock, DualCrossAttention),
        (GivingBlock, GivingCrossAttention),
        (SelfBlock, MultiHeadAttention),
    ],
)
def test_dropped_branches_leave_the_residual(block, attention):
    norm_cfg, act_cfg = dict(type='LN', eps=1e-6), dict(type='GELU')
    module = block(16, attention(16, 2), 3, norm_cfg, act_cfg, drop_path_rate=1 - 1e-7)
    x, meta = torch.randn(2, 16, 5, 6), torch.randn(2, 4, 16)
    found, found_meta = module(x, meta)
    torch.testing.assert_close(found, x if block is CrossBlock else x + module.pos_embed(x))
    torch.testing.assert_close(found_meta, meta)


def test_dropout_rates_reach_every_layer():
    arch = dict(depths=(1, 1, 1, 1, 1), embed_dims=(32, 32, 64, 64, 96))
    model = LeMeViT(arch, drop_rate=0.25, attn_drop_rate=0.5)
    blocks = [block for stage in model.stages for block in stage]
    assert {module.p for module in model.modules() if isinstance(module, nn.Dropout)} == {0.25}
    assert [block.attn.attn_drop for block in blocks] == [0.5] * 5
