"""Time per image of SegmentationMetric and of mmsegmentation's IoUMetric, on the same samples in one run.

    python benchmarks/metric.py [--threads 1] [--save]

Batches are like those of a test loop: int64 predictions and labels of 7 classes in blobs, with ignored pixels.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
warnings.filterwarnings('ignore')

from mmseg.evaluation import IoUMetric  # noqa: E402

from benchmarks._timing import interleaved_medians, table_text, write_result  # noqa: E402
from lale_mmseg.evaluation import SegmentationMetric  # noqa: E402
from lale_mmseg.metainfo import IGNORE_INDEX, aras400k  # noqa: E402

SIZES = (256, 512, 1024)
BATCH_SIZE = 8
NUM_CLASSES = len(aras400k.CLASSES)


def make_sample(size: int, seed: int = 0) -> dict:
    """A data sample of `size` x `size` pixels: blobs of 16 pixels, a fifth of the pixels wrong, 5 % ignored."""
    generator = torch.Generator().manual_seed(seed)
    blobs = torch.randint(0, NUM_CLASSES, (1, size // 16, size // 16), generator=generator)
    label = blobs.repeat_interleave(16, 1).repeat_interleave(16, 2)
    wrong = torch.rand(label.shape, generator=generator) < 0.2
    pred = torch.where(wrong, torch.randint(0, NUM_CLASSES, label.shape, generator=generator), label)
    label[:, : size // 20] = IGNORE_INDEX
    return dict(pred_sem_seg=dict(data=pred), gt_sem_seg=dict(data=label), img_path='a.png', seg_map_path='a.png')


def measure(size: int, repeats: int) -> dict[str, float]:
    """Median seconds per image of both metrics, over batches of `BATCH_SIZE` images."""
    samples = [make_sample(size, seed) for seed in range(BATCH_SIZE)]
    ours = SegmentationMetric()
    theirs = IoUMetric(iou_metrics=['mIoU', 'mFscore'], prefix='mmseg')
    for metric in (ours, theirs):
        metric.dataset_meta = dict(classes=aras400k.CLASSES)
    seconds = interleaved_medians(
        {'SegmentationMetric': lambda: ours.process(None, samples), 'IoUMetric': lambda: theirs.process(None, samples)},
        repeats,
    )
    return {name: value / BATCH_SIZE for name, value in seconds.items()}


def main() -> None:
    """Measures, prints and, with --save, writes benchmarks/results/metric.*"""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--save', action='store_true', help='write benchmarks/results/metric.json and metric.md')
    parser.add_argument('--repeats', type=int, default=30, help='timed runs per metric and size')
    parser.add_argument(
        '--threads', type=int, help='number of torch threads (default: set by torch; use 1 on a busy machine)'
    )
    args = parser.parse_args()
    if args.threads is not None:
        torch.set_num_threads(args.threads)

    rows, values = [], {}
    for size in SIZES:
        seconds = measure(size, args.repeats)
        ours, theirs = seconds['SegmentationMetric'], seconds['IoUMetric']
        values[str(size)] = {**seconds, 'ratio': theirs / ours}
        rows.append((f'{size} x {size}', f'{1e3 * ours:.3f}', f'{1e3 * theirs:.3f}', f'{theirs / ours:.1f}'))
    text = table_text(('image', 'SegmentationMetric ms', 'IoUMetric ms', 'times faster'), rows)
    print(text)
    if args.save:
        for path in write_result(
            'metric', {'seconds_per_image': values, 'batch_size': BATCH_SIZE, 'repeats': args.repeats}, text
        ):
            print(f'written: {path}')


if __name__ == '__main__':
    main()
