"""LRFormer, LRHead and LeMeViT against outputs of the published implementations.

Weights and inputs are drawn by seeded rules (tests/published.py). Names go through the converters, so what is compared
is what a user of a published checkpoint gets.
"""

import json

import pytest
import torch
from mmseg.registry import MODELS
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from lale_mmseg.engine.checkpoint import load_weights
from tests.published import (
    FACTS,
    HEADS,
    check_outputs,
    facts,
    image,
    published_state,
    reference_root,
    rounded,
)
from tools.model_converters import conversion, lemevit, lrformer

FAMILIES = {'lrformer': lrformer.FAMILY, 'lrhead': lrformer.FAMILY, 'lemevit': lemevit.FAMILY}
ROOT = reference_root()
#: Networks with reference outputs.
COMPARED = ['lemevit_tiny', 'lrformer_t', 'lrhead_t']
#: Silences a warning of mmsegmentation about the default of `avg_non_ignore`.
LOSS = dict(loss_decode=dict(type='CrossEntropyLoss', avg_non_ignore=True))


def converted(name: str) -> torch.nn.Module:
    """Our network with the weights of the published one."""
    state = published_state(name)
    family = FAMILIES[name.partition('_')[0]]
    if name in HEADS:
        backbone = published_state(name.replace('lrhead', 'lrformer'))
        state = {f'decode_head.{key}': value for key, value in state.items()}
        state |= {f'backbone.{key}': value for key, value in backbone.items()}
    result = conversion.convert(state, family)
    result.check(name)
    if name in HEADS:
        model = MODELS.build(dict(LOSS, type='LRHead', **facts(name)['config']))
        prefix = 'decode_head.'
    else:
        model = MODELS.build(dict(type=family.backbone, arch=name.partition('_')[2]))
        prefix = ''
    ours = {key[len(prefix) :]: value for key, value in result.state.items() if key.startswith(prefix)}
    load_weights(model, ours, name)
    return model.eval()


def head_inputs(height: int, width: int) -> list[tuple[int, int, int]]:
    """Width, height and width of the maps that the head alone was given, for the size of an image."""
    return [(dims, height >> (2 + i), width >> (2 + i)) for i, dims in enumerate(lrformer.ARCHS['t']['embed_dims'])]


@pytest.mark.skipif(ROOT is None, reason='the files that the facts are from are not here (LALE_MMSEG_REFERENCE)')
def test_the_facts_are_those_of_the_reference_files():
    published = {
        path.stem: json.loads(path.read_text())
        for path in ROOT.glob('*.json')
        if path.stem.startswith(('lrformer_', 'lemevit_', 'lrhead_', 'hrrsi_'))
    }
    assert sorted(published) == sorted(path.stem for path in FACTS.glob('*.json'))
    for name, reference in published.items():
        cases = reference.get('cases', [])
        expected = dict(
            config=reference['config'],
            params=reference['params'],
            gmacs=[[case['height'], case['width'], case.pop('gmacs')] for case in cases],
            state={key: shape for key, (shape, _) in reference['state'].items()},
        )
        assert facts(name) == expected | (dict(cases=rounded(cases)) if cases else {})


@pytest.mark.parametrize('name', COMPARED)
def test_outputs_agree_with_the_published_ones(name):
    model = converted(name)
    for case in facts(name)['cases']:
        height, width = case['height'], case['width']
        if name in HEADS:
            maps = enumerate(head_inputs(height, width))
            inputs = [image(1 + i, *size, channels=channels) for i, (channels, *size) in maps]
        else:
            inputs = image(0, height, width)
        with torch.no_grad():
            outputs = model(inputs)
        check_outputs(outputs if isinstance(outputs, tuple) else (outputs,), case['outputs'])


def lemevit_unused_macs(height: int, width: int) -> int:
    """Products of the published LeMeViT-tiny that feed no map, and that ours leaves out."""
    meta = 16
    dims, third, fourth = lemevit.ARCHS['tiny']['embed_dims'][2:]
    pixels = (height // 8) * (width // 8)
    # In the last dual cross-attention keys and values of the image, queries and output of the meta tokens, their MLP;
    gathering = 2 * pixels * dims**2 + 2 * meta * dims**2 + 2 * meta * dims * 4 * dims
    # then their way into the last two steps.
    return gathering + meta * 4 * (dims * (dims + third) + third * (third + fourth))


@pytest.mark.parametrize('name', COMPARED)
def test_parameters_and_multiply_accumulates_are_the_published_ones(name):
    """Parameters of backbones are counted in tests/test_model_converters.py.

    The counter and its unit are those of tools/analysis/complexity.py.

    The published figures of LeMeViT are without the products inside attention, which ran in a fused kernel that the
    counter does not know, and with 2 % of what feeds no map.
    """
    family, size = name.split('_')
    if name in HEADS:
        model = MODELS.build(dict(LOSS, type='LRHead', **facts(name)['config']))
        assert sum(parameter.numel() for parameter in model.parameters()) == facts(name)['params']
    else:
        model = MODELS.build(dict(type=FAMILIES[family].backbone, arch=size))
    model.eval().requires_grad_(False)
    for height, width, published in facts(name)['gmacs']:
        if name in HEADS:
            inputs = [torch.zeros(1, *shape) for shape in head_inputs(height, width)]
        else:
            inputs = torch.zeros(1, 3, height, width)
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            model(inputs)
        macs = counter.get_total_flops() / 2
        if family == 'lemevit':
            attention = counter.get_flop_counts()['Global'][torch.ops.aten.bmm] / 2
            assert attention > 0.1 * macs
            macs += lemevit_unused_macs(height, width) - attention
        assert macs / 1e9 == pytest.approx(published, rel=1e-4)
