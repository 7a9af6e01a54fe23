"""Losses of a validation, computed by hand."""

import math
import os
import socket

import pytest
import torch
import torch.multiprocessing as multiprocessing
from mmengine.dataset import DefaultSampler
from mmengine.registry import init_default_scope

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
        (without('seg_logits'), ConfigError, r'/a\.png: its result has no seg_logits .*test_cfg\.keep_logits=True'),
        (without('gt_sem_seg'), DataError, r'/a\.png: has no label'),
        (IMAGES[0] | dict(gt_sem_seg=dict(data=torch.zeros(1, 3, 3))), DataError, r'\(1, 2\), the label is \(3, 3\)'),
        (IMAGES[0] | dict(seg_logits=dict(data=torch.zeros(1, 1, 2))), ConfigError, 'heads of one channel'),
    ],
)
def test_what_has_no_loss_is_an_error(image, error, message):
    with pytest.raises(error, match=message):
        evaluated([image])


@pytest.mark.parametrize(
    ('losses', 'message'),
    [
        ([], 'losses is empty'),
        ([LOSSES[0], LOSSES[0]], r"losses\.1\.loss_name is 'loss_bce': .* before it are loss_bce"),
        ([LOSSES[0] | dict(loss_name='bce')], r"losses\.0\.loss_name is 'bce'"),
    ],
)
def test_losses_have_names_of_their_own(losses, message):
    with pytest.raises(ConfigError, match=message):
        LogitsLossMetric(losses)


def worker(rank, port, folder):
    os.environ.update(MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE='2')
    torch.set_num_threads(1)
    init_default_scope('mmseg')
    torch.distributed.init_process_group('gloo', rank=rank, world_size=2)
    metric = LogitsLossMetric(LOSSES)
    for index in DefaultSampler(IMAGES, shuffle=False):
        metric.process(None, [IMAGES[index]])
    torch.save(metric.evaluate(len(IMAGES)), os.path.join(folder, f'{rank}.pt'))
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path):
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    multiprocessing.spawn(worker, (port, str(tmp_path)), nprocs=2)
    for rank in range(2):
        assert torch.load(tmp_path / f'{rank}.pt', weights_only=True) == pytest.approx(evaluated())
