"""Sizes of backbones, by name or as a dict, and published details of the families."""

import pytest
import torch
from torch import Tensor

from lale_mmseg.errors import ConfigError
from lale_mmseg.models.backbones import LALE, LeMeViT, LRFormer
from lale_mmseg.models.backbones.archs import arch_settings, check_out_indices

KNOWN = {'s': dict(embed_dims=(8, 16), depths=(1, 2)), 'l': dict(embed_dims=(16, 32), depths=(3, 4), drop_path_rate=1)}
FOUR = dict(embed_dims=(16, 16, 32, 32), depths=(1, 1, 1, 1), num_heads=(1, 2, 2, 2), mlp_ratios=(1, 1, 1, 1))


@pytest.mark.parametrize(
    ('arch', 'expected'),
    [
        ('s', dict(embed_dims=(8, 16), depths=(1, 2), drop_path_rate=0.0)),
        ('L', dict(embed_dims=(16, 32), depths=(3, 4), drop_path_rate=1)),
        (dict(depths=[1], embed_dims=[4]), dict(embed_dims=[4], depths=[1], drop_path_rate=0.0)),
    ],
)
def test_settings_of_a_name_and_of_a_dict(arch, expected):
    assert arch_settings(arch, KNOWN, drop_path_rate=0.0) == expected


@pytest.mark.parametrize(
    ('arch', 'message'),
    [
        ('m', r"^arch='m': unknown size; expected one of s, l,"),
        (dict(embed_dims=(8,), depths=(1,), heads=(1,)), r'a dict of depths, embed_dims \(optional: drop_path_rate\)$'),
        (dict(embed_dims=(8, 16), depths=(1,)), 'lists differ in length'),
    ],
)
def test_invalid_sizes(arch, message):
    with pytest.raises(ConfigError, match=message):
        arch_settings(arch, KNOWN, drop_path_rate=0.0)


@pytest.mark.parametrize('out_indices', [(), (4,), [2, 1]])
def test_out_indices_are_increasing_stages(out_indices):
    assert check_out_indices([0, 3], 4) == (0, 3)
    with pytest.raises(ConfigError, match=r'expected increasing indices from 0 to 3$'):
        check_out_indices(out_indices, 4)


@pytest.mark.parametrize(
    ('backbone', 'arguments', 'message'),
    [
        (LRFormer, dict(arch=dict(FOUR, num_heads=(1, 3, 2, 2))), 'embed_dims=16 must be divisible by num_heads=3'),
        (LRFormer, dict(arch=dict(FOUR, pre_norms=((2, 1),))), r'arch\.pre_norms=.* pairs exist'),
        (LRFormer, dict(arch=FOUR, q_size=(16, 16)), 'q_size has 2 entries; expected one for each of the 4 stages'),
        (LALE, dict(arch='s1', attn_cfg=[None]), 'attn_cfg has 1 entries; expected one for each of the 4 stages'),
        (LALE, dict(kernel_size=4), 'kernel_size=4: expected an odd number'),
        (LALE, dict(head_dim=48), 'embed_dims=128 must be divisible by head_dim=48'),
        (LeMeViT, dict(arch=dict(embed_dims=(32, 64), depths=(1, 1))), 'embed_dims of five steps'),
        (LeMeViT, dict(arch=dict(embed_dims=(32, 64, 64, 64, 64), depths=(1,) * 5)), 'first two of them equal'),
    ],
)
def test_invalid_arguments_of_backbones(backbone, arguments, message):
    with pytest.raises(ConfigError, match=message):
        backbone(**arguments)


@pytest.mark.parametrize('arch', [*'tb', *(pytest.param(size, marks=pytest.mark.slow) for size in ('l', 'xl'))])
def test_a_fresh_lrformer_stays_far_inside_the_range_of_fp16(arch):
    model = LRFormer(arch)
    model.init_weights()
    largest: list[float] = []
    for module in model.modules():
        module.register_forward_hook(
            lambda _, __, output: largest.append(output.abs().max().item()) if isinstance(output, Tensor) else None
        )
    with torch.no_grad():
        maps = model.train()(torch.randn(2, 3, 64, 64))
    assert len(largest) > 100
    assert max(largest) < torch.finfo(torch.float16).max
    assert all(x.std() < 100 for x in maps), [x.std().item() for x in maps]


def test_stochastic_depth_of_networks():
    def rates(model):
        return [block.drop_path.drop_prob for stage in model.stages for block in stage]

    assert rates(LRFormer('t')) == pytest.approx([0.1 * i / 12 for i in range(13)])  # 2 + 2 + 6 + 3 blocks, up to 0.1
    assert rates(LRFormer(dict(FOUR), drop_path_rate=0.3)) == pytest.approx([0.0, 0.1, 0.2, 0.3])
    assert rates(LRFormer(dict(FOUR, drop_path_rate=0.6))) == pytest.approx([0.0, 0.2, 0.4, 0.6])
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
    assert {norm.eps for stage in model.stages for block in stage for norm in (block.norm1, block.norm2)} == {1e-6}
    assert model.meta_tokens.shape == (16, 64)
