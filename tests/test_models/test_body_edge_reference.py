"""The light body and edge network against outputs of the published implementation; see test_reference.py.

Of its third kind, with spatial fusion, names, shapes and counts are known, and no outputs: the fusion itself is
computed by hand in test_body_edge_head.py.
"""

import pytest
import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tests.published import NETWORKS, check_outputs, facts, image, published_state
from tools.model_converters import body_edge, conversion

#: Figures of the publication: million parameters and 10^9 multiply-accumulates of a 512x512 image.
PUBLISHED = {'hrrsi_ued': (2.77, 1.38), 'hrrsi_ued_bes': (2.82, 2.12), 'hrrsi_ued_bes_sfm': (2.83, 2.30)}
COMPARED = ['hrrsi_ued', 'hrrsi_ued_bes']


def converted(name: str) -> nn.ModuleDict:
    """Our backbone and head with the weights of the published network."""
    result = conversion.convert(published_state(name), body_edge.FAMILY)
    result.check(name)
    head = dict(
        type='BodyEdgeHead',
        num_classes=facts(name)['config']['num_class'],
        separate_body_edge='bes' in name,
        spatial_fusion='sfm' in name,
        norm_cfg=dict(type='BN'),
    )
    model = nn.ModuleDict(dict(backbone=MODELS.build(dict(type='GhostNet')), decode_head=MODELS.build(head)))
    model.load_state_dict(result.state)  # every weight has its place, and none is left over
    return model.eval().requires_grad_(False)


def outputs(model: nn.ModuleDict, x: torch.Tensor) -> list[torch.Tensor]:
    """Logits of segmentation, body and edge at the size of the input, as the published network returns them."""
    found = model['decode_head'].outputs(model['backbone'](x))
    logits = [y for y in (found.segmentation, found.body, found.edge) if y is not None]
    logits = [F.interpolate(y, size=x.shape[2:], mode='bilinear', align_corners=True) for y in logits]
    return [*logits[:2], *(y.squeeze(1) for y in logits[2:])]


@pytest.mark.parametrize('name', COMPARED)
def test_outputs_agree_with_the_published_ones(name):
    model = converted(name)
    for case in facts(name)['cases']:
        check_outputs(outputs(model, image(0, case['height'], case['width'])), case['outputs'])


@pytest.mark.parametrize('name', NETWORKS)
def test_parameters_and_multiply_accumulates_are_the_published_ones(name):
    """Counted as the publication does: with the branches that only training needs."""
    model = converted(name)
    parameters, macs = PUBLISHED[name]
    # The published count also has the classifier of GhostNet: 960 channels at stride 32, 1280, 1000 classes.
    classifier = 160 * 960 + 2 * 960 + 960 * 1280 + 1280 + 1280 * 1000 + 1000
    total = sum(parameter.numel() for parameter in model.parameters())
    assert total == facts(name)['params'] - classifier
    assert total / 1e6 == pytest.approx(parameters, abs=0.005)
    sizes = facts(name)['gmacs'] or [[512, 512, macs]]
    for height, width, published in sizes:
        with FlopCounterMode(display=False) as counter:
            outputs(model, torch.zeros(1, 3, height, width))
        assert counter.get_total_flops() / 2e9 == pytest.approx(published, rel=1e-4 if name in COMPARED else 2e-3)
    assert sizes[-1][2] == pytest.approx(macs, rel=0.05)


def test_a_prediction_leaves_out_the_heads_of_body_and_edge():
    model = converted('hrrsi_ued_bes_sfm')
    x = torch.zeros(1, 3, 512, 512)
    with FlopCounterMode(display=False) as counter:
        logits = model['decode_head'](model['backbone'](x))
    pixels, width, classes = 128 * 128, 24, 6
    branches = pixels * (2 * 9 * width**2 + width * (classes + 1))
    assert counter.get_total_flops() / 2e9 == pytest.approx(2.302136 - branches / 1e9, rel=1e-4)
    assert torch.equal(logits, model['decode_head'].outputs(model['backbone'](x)).segmentation)
