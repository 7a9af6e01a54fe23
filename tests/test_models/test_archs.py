"""Sizes of backbones: by name, or of the user's own."""

import pytest

from lale_mmseg.errors import ConfigError
from lale_mmseg.models.backbones import LALE, LeMeViT, LRFormer
from lale_mmseg.models.backbones.archs import arch_settings, check_out_indices, drop_path_rates

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
    ],
)
def test_bad_sizes_are_named(arch, message):
    with pytest.raises(ConfigError, match=message):
        settings(arch)


@pytest.mark.parametrize('out_indices', [(), (4,), (0, -1)])
def test_stages_that_are_not_there(out_indices):
    check_out_indices((3, 0), 4)
    with pytest.raises(ConfigError, match=r'^out_indices=\(.*\): stages are 0 to 3$'):
        check_out_indices(out_indices, 4)


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
        (LRFormer, dict(arch=dict(FOUR, pre_norms=((2, 1),))), r'no block \(stage, position\) is \(2, 1\)'),
        (LRFormer, dict(arch=FOUR, q_size=0), 'q_size=0: .* at least 1'),
        (LRFormer, dict(arch=FOUR, q_size=(16, 16)), 'q_size has 2 entries for 4 stages'),
        (LRFormer, dict(arch=FOUR, pool_sizes=()), r'pool_sizes=\(\): one side or more'),
        (LRFormer, dict(arch=FOUR, pool_sizes=(4, 0)), r'pool_sizes=\(4, 0\): .* at least 1'),
        (LRFormer, dict(arch=FOUR, out_indices=(4,)), 'stages are 0 to 3'),
        (LRFormer, dict(arch=FOUR, drop_path_rate=1.5), 'drop_path_rate=1.5'),
        (LeMeViT, dict(out_indices=(4,)), 'stages are 0 to 3'),
        (LeMeViT, dict(num_meta_tokens=0), 'num_meta_tokens=0: at least 1'),
        (LeMeViT, dict(head_width=24), "width 64 of arch='tiny' is not divisible by head_width=24"),
        (LeMeViT, dict(arch=dict(widths=(32, 64), depths=(1, 1))), 'widths of five steps are due'),
        (LeMeViT, dict(arch=dict(widths=(32, 64, 64, 64, 64), depths=(1,) * 5)), 'first two of them equal'),
    ],
)
def test_bad_arguments_of_backbones_are_named(backbone, arguments, message):
    with pytest.raises(ConfigError, match=message):
        backbone(**arguments)


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
