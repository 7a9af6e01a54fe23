"""Validation losses, computed by hand (two processes are in test_distributed_metric.py)."""

import math

import pytest
import torch

import lale_mmseg.register  # noqa: F401
from lale_mmseg.errors import ConfigError, DataError
from lale_mmseg.evaluation import LogitsLossMetric

LOSSES = [
    dict(type='CrossEntropyLoss', avg_non_ignore=True, loss_weight=0.5, loss_name='loss_bce'),
    dict(type='SoftDiceLoss', class_weight=[0.0, 1.0], loss_weight=0.5),
]


def sample(probabilities, labels):
    """Pixels in a row: probability of building and label."""
    building = torch.tensor(probabilities, dtype=torch.float64)
    logits = torch.stack([torch.zeros_like(building), torch.log(building / (1 - building))]).float()[:, None]
    return dict(img_path='/a.png', seg_logits=dict(data=logits), gt_sem_seg=dict(data=torch.tensor(labels)[None, None]))


IMAGES = [
    sample([0.5, 0.75], [1, 0]),
    # The third pixel is ignored, by both losses.
    sample([0.8, 0.6, 0.01], [1, 1, 255]),
    sample([0.9], [0]),
]
#: Means over pixels of -log(probability of the label), and 1 - 2 sum(p t) / sum(p + t); no building: 0.
BCE = [
    -(math.log(0.5) + math.log(0.25)) / 2,
    -(math.log(0.8) + math.log(0.6)) / 2,
    -math.log(0.1),
]
DICE = [1 - 2 * 0.5 / (1.25 + 1), 1 - 2 * 1.4 / (1.4 + 2), 0.0]


def evaluated(images=IMAGES, **options):
    metric = LogitsLossMetric(LOSSES, **options)
    metric.process(None, images)
    return metric.evaluate(len(images))


def test_losses_are_means_over_images():
    result = evaluated()
    assert result['loss_bce'] == pytest.approx(0.5 * sum(BCE) / 3, rel=1e-5)
    assert result['loss_dice'] == pytest.approx(0.5 * sum(DICE) / 3, rel=1e-5)
    assert result['loss'] == pytest.approx(result['loss_bce'] + result['loss_dice'])
    assert evaluated(prefix='x').keys() == {'x/loss_bce', 'x/loss_dice', 'x/loss'}


def test_an_evaluation_starts_anew():
    metric = LogitsLossMetric(LOSSES)
    for image, bce in zip(IMAGES, BCE, strict=True):
        metric.process(None, [image])
        assert metric.evaluate(1)['loss_bce'] == pytest.approx(0.5 * bce, rel=1e-5)


def without(name):
    return {key: value for key, value in IMAGES[0].items() if key != name}


@pytest.mark.parametrize(
    ('image', 'error', 'message'),
    [
        (without('seg_logits'), ConfigError, r'/a\.png: the result has no seg_logits .*test_cfg\.keep_logits=True'),
        (without('gt_sem_seg'), DataError, r'/a\.png: no label'),
        (IMAGES[0] | dict(seg_logits=dict(data=torch.zeros(1, 1, 2))), ConfigError, 'one output per class'),
    ],
)
def test_results_without_losses_are_errors(image, error, message):
    with pytest.raises(error, match=message):
        evaluated([image])


@pytest.mark.parametrize('losses', [[], [LOSSES[0], LOSSES[0]]])
def test_losses_need_names_of_their_own(losses):
    with pytest.raises(ConfigError, match='expected losses with different `loss_name`'):
        LogitsLossMetric(losses)
