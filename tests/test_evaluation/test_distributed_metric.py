"""Two real processes over gloo, with the sampler of the dataloaders: the same result as one process."""

import json
import os
import socket
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as multiprocessing
from mmengine.dataset import DefaultSampler
from mmengine.registry import init_default_scope

from lale_mmseg.evaluation import LogitsLossMetric, SegmentationMetric

CLASSES = ('a', 'b', 'c')
SIZES = (5, 4, 1)
LOSSES = [dict(type='CrossEntropyLoss', loss_name='loss_ce')]


def make_sample(index):
    generator = torch.Generator().manual_seed(index)
    # Images of different sizes: one that counts twice or not at all changes every score.
    shape = (1, 3 + index, 7)
    return dict(
        pred_sem_seg=dict(data=torch.randint(0, 3, shape, generator=generator)),
        gt_sem_seg=dict(data=torch.randint(0, 3, shape, generator=generator)),
        seg_logits=dict(data=torch.randn(3, *shape[1:], generator=generator)),
        img_path=f'/img/{index}/image_{index}.png',
    )


def evaluate(folder, size, **sampler):
    """Scores with boundaries and tiles, and the saved report of the main process."""
    metric = SegmentationMetric(
        boundary_tolerance=1, per_tile=True, output_dir=str(folder), pred_dir=str(folder / 'pred')
    )
    losses = LogitsLossMetric(LOSSES)
    metric.dataset_meta = dict(classes=CLASSES)
    for index in DefaultSampler(range(size), shuffle=False, **sampler):
        metric.process(None, [make_sample(index)])
        losses.process(None, [make_sample(index)])
    return metric.evaluate(size) | losses.evaluate(size)


def worker(rank, port, folder):
    os.environ.update(MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE='2')
    torch.set_num_threads(1)
    init_default_scope('mmseg')
    torch.distributed.init_process_group('gloo', rank=rank, world_size=2)
    results = {}
    for size in SIZES:
        results[size] = evaluate(Path(folder) / f'{size}', size)
        results[f'{size} not padded'] = evaluate(Path(folder) / f'{size} not padded', size, round_up=False)
    # Every process scores the whole set: this must not pass for a result.
    metric = SegmentationMetric()
    metric.dataset_meta = dict(classes=CLASSES)
    for index in range(4):
        metric.process(None, [make_sample(index)])
    try:
        metric.evaluate(4)
    except RuntimeError as error:
        results['repeated'] = str(error)
    torch.save(results, os.path.join(folder, f'rank_{rank}.pt'))
    torch.distributed.barrier()  # a process that leaves first may abort the other
    torch.distributed.destroy_process_group()


@pytest.fixture(scope='module')
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp('two_processes')
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    multiprocessing.start_processes(worker, (port, str(folder)), nprocs=2, start_method='forkserver')
    return [torch.load(folder / f'rank_{rank}.pt', weights_only=True) for rank in range(2)], folder


@pytest.mark.parametrize('padded', [True, False])
@pytest.mark.parametrize('size', SIZES)
def test_two_processes_equal_one(results, tmp_path, size, padded):
    name = size if padded else f'{size} not padded'
    alone = evaluate(tmp_path, size)
    for of_rank in results[0]:
        assert of_rank[name] == pytest.approx(alone, rel=1e-12)
        assert of_rank[name]['mBIoU'] > 0
    reports = [json.loads((folder / 'metrics.json').read_text()) for folder in (results[1] / str(name), tmp_path)]
    assert reports[0] == reports[1]
    assert len(list((results[1] / str(name) / 'pred').iterdir())) == size


def test_repeated_images_are_an_error(results):
    for of_rank in results[0]:
        assert '8 of 4 images were scored' in of_rank['repeated']
