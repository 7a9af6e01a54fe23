"""Sizes of backbones: by name, or of the user's own."""

import re

import pytest
import torch
from torch import Tensor, nn

from lale_mmseg.errors import ConfigError
from lale_mmseg.models.attention.heads import check_rate
from lale_mmseg.models.backbones import LALE, LeMeViT, LRFormer
from lale_mmseg.models.backbones.archs import (
    arch_settings,
    block_positions,
    check_counts,
    check_out_indices,
    drop_path_rates,
)

KNOWN = {'s': dict(widths=(8, 16), depths=(1, 2)), 'l': dict(widths=(16, 32), depths=(3, 4), drop_path=0.5)}
PER_STAGE = ('widths', 'depths')


def settings(arch):
    return arch_settings(arch, KNOWN, PER_STAGE, optional=dict(drop_path=0.0))


def test_a_name_stands_for_its_row_of_the_table_in_any_case():
    assert settings('s') == dict(widths=(8, 16), depths=(1, 2), drop_path=0.0)
    assert settings('L') == dict(widths=(16, 32), depths=(3, 4), drop_path=0.5)


def test_own_sizes_may_be_lists_and_leave_out_what_is_optional():
    own = dict(depths=[1], widths=[4])
    assert settings(own) == dict(widths=(4,), depths=(1,), drop_path=0.0)
    assert settings({**own, 'drop_path': 0.2})['drop_path'] == 0.2
    assert own == dict(depths=[1], widths=[4])


@pytest.mark.parametrize(
    ('arch', 'message'),
    [
        ('m', r"^arch='m': known sizes are s, l$"),
        (dict(widths=(8,)), 'must have widths, depths, and may have drop_path; depths is missing'),
        (dict(widths=(8,), depth=(1,)), 'depths is missing, depth is unknown'),
        (dict(widths=(8,), depths=(1,), heads=(1,)), 'heads is unknown'),
        (dict(widths=(8, 16), depths=(1,)), 'widths, depths need one entry for each stage'),
        (dict(widths=(), depths=()), 'widths, depths need one entry for each stage'),
        (dict(widths=(8, 16), depths=(1, 0)), 'every entry of widths, depths is at least 1'),
        (dict(widths=(8, -16), depths=(1, 1)), 'every entry of widths, depths is at least 1'),
        (dict(widths=8, depths=(1,)), 'widths is a list of whole numbers'),
        (dict(widths=(8,), depths='1'), 'depths is a list of whole numbers'),
        (dict(widths=(8,), depths=(1.5,)), 'depths is a list of whole numbers'),
        (3, '^arch=3: a name or a dict is due; known sizes are s, l$'),
        (('s',), r"^arch=\('s',\): a name or a dict is due"),
        (None, '^arch=None: a name or a dict is due'),
    ],
)
def test_bad_sizes_are_named(arch, message):
    with pytest.raises(ConfigError, match=message):
        settings(arch)


@pytest.mark.parametrize('out_indices', [(), (4,), (0, -1), [1, 2, 1], 3, '12', (1.0,), [[0]], None])
def test_stages_that_are_not_there(out_indices):
    for good in ((3, 0), [0, 1, 2, 3]):
        check_out_indices(good, 4)
    message = f'out_indices={out_indices!r}: a list of stages is due, each once; stages are 0 to 3'
    with pytest.raises(ConfigError, match=f'^{re.escape(message)}$'):
        check_out_indices(out_indices, 4)


def test_rates_are_from_0_up_and_under_1():
    for good in (0, 0.0, 0.999):
        check_rate('drop_rate', good)
    for bad in (-0.1, 1, 1.0, 50, float('nan'), '0.1', None):
        with pytest.raises(ConfigError, match=f'^drop_rate={bad!r}: at least 0 and under 1 is due$'):
            check_rate('drop_rate', bad)


def test_counts_are_whole_numbers_from_1_up():
    check_counts(bands=1, width=32)
    for bad in (0, -3, 1.5, '8', None):
        with pytest.raises(ConfigError, match=f'^width={bad!r}: a whole number is due, at least 1$'):
            check_counts(bands=1, width=bad)


@pytest.mark.parametrize(
    ('positions', 'message'),
    [
        (2, r'^pre_norms=2: a list of pairs \(stage, block\) is due, both counting from 0$'),
        ((2, 1), r'^pre_norms=\(2, 1\): a list of pairs .*; 2 is none$'),
        ([(0, 1, 2)], r'; \(0, 1, 2\) is none$'),
        ([[0, 0], 'ab'], "; 'ab' is none$"),
        ([(1, 2)], r'; no block is \(1, 2\), the stages have \(1, 2\) blocks$'),
        ([(0, -1)], r'; no block is \(0, -1\)'),
    ],
)
def test_positions_are_pairs_that_name_a_block(positions, message):
    assert block_positions('pre_norms', [[1, 1], (0, 0)], (1, 2)) == {(0, 0), (1, 1)}
    with pytest.raises(ConfigError, match=message):
        block_positions('pre_norms', positions, (1, 2))


def test_stochastic_depth_rises_linearly_from_none():
    assert drop_path_rates(0.6, 4) == pytest.approx([0.0, 0.2, 0.4, 0.6])
    assert drop_path_rates(0.6, 1) == [0.0]
    for rate in (-0.1, 1.0):
        with pytest.raises(ConfigError, match=f'^drop_path_rate={rate}: at least 0 and under 1'):
            drop_path_rates(rate, 4)


FOUR = dict(widths=(16, 16, 32, 32), depths=(1, 1, 1, 1), num_heads=(1, 2, 2, 2), mlp_ratios=(1, 1, 1, 1))


@pytest.mark.parametrize(
    ('backbone', 'arguments', 'message'),
    [
        (LALE, dict(arch='s9'), r"^arch='s9': known sizes are s1, s2, s3, s4$"),
        (LRFormer, dict(arch='xs'), r"^arch='xs': known sizes are t, s, b, l, xl$"),
        (LeMeViT, dict(arch='large'), r"^arch='large': known sizes are tiny, small, base$"),
        (LRFormer, dict(arch=dict(FOUR, num_heads=(1, 3, 2, 2))), 'embed_dims=16 is not divisible by num_heads=3'),
        (LRFormer, dict(arch=dict(FOUR, pre_norms=((2, 1),))), r'arch\.pre_norms=.* no block is \(2, 1\)'),
        (LRFormer, dict(arch=dict(FOUR, pre_norms=(2, 0))), r'arch\.pre_norms=\(2, 0\): .* 2 is none'),
        (LRFormer, dict(arch=dict(FOUR, drop_path=1.0)), 'drop_path_rate=1.0: at least 0 and under 1'),
        (LRFormer, dict(arch=FOUR, drop_rate=-0.1), '^drop_rate=-0.1: at least 0 and under 1'),
        (LRFormer, dict(arch=FOUR, attn_drop_rate=1.0), '^attn_drop_rate=1.0: at least 0 and under 1'),
        (LRFormer, dict(arch=FOUR, in_channels=0), '^in_channels=0: a whole number'),
        (LRFormer, dict(arch=FOUR, out_indices=3), '^out_indices=3: a list'),
        (LALE, dict(in_channels=0), '^in_channels=0: a whole number'),
        (LALE, dict(head_width=0), '^head_width=0: a whole number'),
        (LALE, dict(expansion=0), '^expansion=0: a whole number'),
        (LALE, dict(out_indices=(1, 1)), r'^out_indices=\(1, 1\): a list of stages is due, each once'),
        (LRFormer, dict(arch=FOUR, q_size=0), 'q_size=0: .* at least 1'),
        (LRFormer, dict(arch=FOUR, q_size=(16, 16)), 'q_size has 2 entries for 4 stages'),
        (LRFormer, dict(arch=FOUR, pool_sizes=()), r'pool_sizes=\(\): one side or more'),
        (LRFormer, dict(arch=FOUR, pool_sizes=(4, 0)), r'pool_sizes=\(4, 0\): .* at least 1'),
        (LRFormer, dict(arch=FOUR, out_indices=(4,)), 'stages are 0 to 3'),
        (LRFormer, dict(arch=FOUR, drop_path_rate=1.5), 'drop_path_rate=1.5'),
        (LeMeViT, dict(out_indices=(4,)), 'stages are 0 to 3'),
        (LeMeViT, dict(out_indices=2), '^out_indices=2: a list'),
        (LeMeViT, dict(in_channels=0), '^in_channels=0: a whole number'),
        (LeMeViT, dict(head_width=0), '^head_width=0: a whole number'),
        (LeMeViT, dict(mlp_ratio=0), '^mlp_ratio=0: a whole number'),
        (LeMeViT, dict(drop_rate=1.0), '^drop_rate=1.0: at least 0 and under 1'),
        (LeMeViT, dict(attn_drop_rate=-1), '^attn_drop_rate=-1: at least 0 and under 1'),
        (LeMeViT, dict(drop_path_rate=2), '^drop_path_rate=2: at least 0 and under 1'),
        (LeMeViT, dict(num_meta_tokens=0), 'num_meta_tokens=0: at least 1'),
        (LeMeViT, dict(head_width=24), "width 64 of arch='tiny' is not divisible by head_width=24"),
        (LeMeViT, dict(arch=dict(widths=(32, 64), depths=(1, 1))), 'widths of five steps are due'),
        (LeMeViT, dict(arch=dict(widths=(32, 64, 64, 64, 64), depths=(1,) * 5)), 'first two of them equal'),
    ],
)
def test_bad_arguments_of_backbones_are_named(backbone, arguments, message):
    with pytest.raises(ConfigError, match=message):
        backbone(**arguments)


@pytest.mark.parametrize('arch', [*'tsb', *(pytest.param(size, marks=pytest.mark.slow) for size in ('l', 'xl'))])
def test_a_fresh_lrformer_stays_far_inside_the_range_of_fp16(arch):
    model = LRFormer(arch)
    model.init_weights()
    largest: dict[str, float] = {}

    def watch(name: str, module: nn.Module) -> None:
        module.register_forward_hook(
            lambda module, inputs, output: (
                largest.update({name: output.abs().max().item()}) if isinstance(output, Tensor) else None
            )
        )

    for name, module in model.named_modules():
        watch(name, module)
    with torch.no_grad():
        maps = model.train()(torch.randn(2, 3, 64, 64))
    assert len(largest) > 100
    assert [name for name, value in largest.items() if not value < torch.finfo(torch.float16).max] == []
    assert all(x.std() < 100 for x in maps), [x.std().item() for x in maps]


def test_arguments_are_never_swallowed():
    for backbone in (LALE, LRFormer, LeMeViT):
        with pytest.raises(TypeError, match='pretrained'):
            backbone(pretrained='weights.pth')


def test_stochastic_depth_of_networks():
    def rates(model):
        return [block.drop_path.drop_prob for stage in model.stages for block in stage]

    assert rates(LRFormer('t')) == pytest.approx([0.1 * i / 12 for i in range(13)])  # 2 + 2 + 6 + 3 blocks, up to 0.1
    assert rates(LRFormer(dict(FOUR), drop_path_rate=0.3)) == pytest.approx([0.0, 0.1, 0.2, 0.3])
    assert rates(LRFormer(dict(FOUR, drop_path=0.6))) == pytest.approx([0.0, 0.2, 0.4, 0.6])
    assert rates(LeMeViT('tiny')) == [0.0] * 15
    assert rates(LeMeViT('tiny', drop_path_rate=0.7)) == pytest.approx([0.05 * i for i in range(15)])


def test_published_details_of_lrformer():
    model = LRFormer(dict(FOUR, depths=(1, 1, 2, 1), pre_norms=((2, 1),)))
    blocks = {(i, j): block for i, stage in enumerate(model.stages) for j, block in enumerate(stage)}
    scaled = {place for place, block in blocks.items() if hasattr(block.scale1, 'weight')}
    assert scaled == {(2, 0), (2, 1), (3, 0)}
    scales = [scale for place in scaled for scale in blocks[place].scale2.weight.tolist()]
    assert scales == pytest.approx([1e-6] * (2 * 32 + 32))
    assert [place for place, block in blocks.items() if 'pre_norm.weight' in block.state_dict()] == [(2, 1)]
    assert {(block.norm1.eps, block.norm2.eps, block.attn.norm.eps) for block in blocks.values()} == {
        (1e-6, 1e-6, 1e-5)
    }
    assert model.downsamples[0][-1].eps == model.downsamples[1][1].eps == 1e-6


def test_published_details_of_lemevit():
    model = LeMeViT('tiny')
    kinds = [[type(block).__name__ for block in stage] for stage in model.stages]
    cross, dual, giving, alone = 'CrossBlock', 'DualBlock', 'GivingBlock', 'SelfBlock'
    assert kinds == [[cross], [dual, dual], [dual, giving], [alone] * 8, [alone] * 2]
    assert [stage[0].attn.num_heads for stage in model.stages] == [2, 2, 4, 6, 10]
    assert {norm.eps for stage in model.stages for block in stage for norm in (block.norm1, block.norm2)} == {1e-6}
    assert model.meta_tokens.shape == (16, 64)
