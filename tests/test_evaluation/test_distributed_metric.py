"""Two real processes over gloo, with the sampler of the dataloaders: the same result as one process."""

import os
import socket

import pytest
import torch
import torch.multiprocessing as multiprocessing
from mmengine.dataset import DefaultSampler
from mmengine.dist import get_dist_info

from lale_mmseg.errors import DataError
from lale_mmseg.evaluation import SegmentationMetric

CLASSES = ('a', 'b', 'c')
SIZES = (5, 4, 1)


def make_sample(index, stem=None):
    generator = torch.Generator().manual_seed(index)
    # Images of different sizes: one that counts twice or not at all changes every score.
    shape = (1, 3 + index, 7)
    name = stem or f'image_{index}'
    return dict(
        pred_sem_seg=dict(data=torch.randint(0, 3, shape, generator=generator)),
        gt_sem_seg=dict(data=torch.randint(0, 3, shape, generator=generator)),
        img_path=f'/img/{index}/{name}.png',
    )


def evaluate(metric, size, **sampler):
    metric.dataset_meta = dict(classes=CLASSES)
    for index in DefaultSampler(range(size), shuffle=False, **sampler):
        metric.process(None, [make_sample(index)])
    return metric.evaluate(size), metric.report.matrix.tolist()


def evaluate_boundaries(size):
    metric = SegmentationMetric(boundary_tolerance=1)
    result, _ = evaluate(metric, size)
    return result, metric.report.boundary.counts.tolist()


def worker(rank, port, folder):
    os.environ.update(MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE='2')
    torch.set_num_threads(1)
    torch.distributed.init_process_group('gloo', rank=rank, world_size=2)
    results = {}
    metric = SegmentationMetric(pred_dir=os.path.join(folder, 'pred'))
    for size in SIZES:
        results[size] = evaluate(metric, size)
        results[f'{size} not padded'] = evaluate(SegmentationMetric(), size, round_up=False)
        results[f'{size} boundaries'] = evaluate_boundaries(size)

    # Every process scores the whole set: this must not pass for a result.
    metric = SegmentationMetric()
    metric.dataset_meta = dict(classes=CLASSES)
    for index in range(4):
        metric.process(None, [make_sample(index)])
    try:
        metric.evaluate(4)
    except RuntimeError as error:
        results['repeated'] = str(error)

    # Two images of one stem on different processes: told on both.
    metric = SegmentationMetric(pred_dir=os.path.join(folder, 'same_stem'))
    metric.dataset_meta = dict(classes=CLASSES)
    metric.process(None, [make_sample(get_dist_info()[0], stem='twin')])
    try:
        metric.evaluate(2)
    except DataError as error:
        results['same stem'] = str(error)
    torch.save(results, os.path.join(folder, f'rank_{rank}.pt'))
    torch.distributed.destroy_process_group()


@pytest.fixture(scope='module')
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp('two_processes')
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    multiprocessing.spawn(worker, (port, str(folder)), nprocs=2)
    return [torch.load(folder / f'rank_{rank}.pt', weights_only=True) for rank in range(2)], folder


@pytest.mark.parametrize('size', SIZES)
def test_two_processes_equal_one(results, size):
    alone = evaluate(SegmentationMetric(), size)
    for of_rank in results[0]:
        assert of_rank[size] == alone
        assert of_rank[f'{size} not padded'] == alone


@pytest.mark.parametrize('size', SIZES)
def test_boundaries_of_two_processes_equal_those_of_one(results, size):
    alone = evaluate_boundaries(size)
    assert sum(map(sum, alone[1])) > 0
    for of_rank in results[0]:
        assert of_rank[f'{size} boundaries'] == alone


def test_predictions_of_all_images_are_there(results):
    assert sorted(path.name for path in (results[1] / 'pred').iterdir()) == [f'image_{i}.png' for i in range(5)]


def test_repeated_images_are_an_error(results):
    for of_rank in results[0]:
        assert '8 of 4 images were scored' in of_rank['repeated']


def test_one_stem_on_two_processes_is_an_error(results):
    for of_rank in results[0]:
        assert '/img/0/twin.png and /img/1/twin.png have the same stem' in of_rank['same stem']
