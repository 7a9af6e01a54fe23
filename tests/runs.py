"""Work dirs of trainings with known scores, and tools that run in the process of a test."""

import json
from pathlib import Path

import cv2
import numpy as np
import torch
from mmengine.config import Config

from lale_mmseg.engine.provenance import config_hash
from lale_mmseg.evaluation import SegmentationMetric
from lale_mmseg.files import save_png
from lale_mmseg.metainfo import inria
from tests.logs import write_log
from tests.support import REPO
from tests.test_docs import load_script


def run_in_process(tool: str, monkeypatch, *words):
    """Runs a tool of tools/analysis in this process; returns its exit status."""
    monkeypatch.syspath_prepend(str(REPO / 'tools'))
    monkeypatch.syspath_prepend(str(REPO / 'tools' / 'analysis'))
    monkeypatch.setattr('sys.argv', [tool, *map(str, words)])
    return load_script(tool).main()


def write_split(folder: Path, tiles, by: int, split: str = 'val', side: int = 64) -> None:
    """Scores and pictures of predictions of squares that are off by some pixels."""
    metric = SegmentationMetric(protocol='few-shot', per_tile=True, output_dir=str(folder))
    source = dict(dataset='inria', protocol='few-shot', split=split, clean=False, labels='full')
    source.update(tiles=list(tiles), missing_tiles=[])
    colors = [list(color) for color in inria.COLORS]
    metric.dataset_meta = dict(classes=inria.CLASSES, palette=colors, source=source, tile_pattern=inria.TILE_PATTERN)
    label = np.zeros((side, side), np.uint8)
    label[8:40, 8:40] = 1
    pred = np.roll(label, by, axis=(0, 1))
    for tile in tiles:
        data = dict(gt_sem_seg=label, pred_sem_seg=pred)
        sample = {key: dict(data=torch.from_numpy(values)[None]) for key, values in data.items()}
        metric.process(None, [dict(img_path=f'{tile}.jpg', **sample)])
        (folder / 'images').mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / 'images' / f'{tile}.jpg'), np.full((side, side, 3), 120, np.uint8))
        save_png(folder / 'labels' / f'{tile}.png', label)
        save_png(folder / 'predictions' / f'{tile}.png', pred)
    metric.evaluate(len(tiles))


def write_run(folder: Path, scores, test: int | None = None, tiles=('austin1', 'austin6'), **changes) -> Path:
    """A work dir of a training with these validation mIoU by epoch, and of a test that is off by `test` pixels."""
    run = changes.pop('run', {})
    config = write_log(folder, scores, **changes)
    write_split(folder / 'val', tiles, 2)
    if test is not None:
        write_split(folder / 'test', ('austin31', 'austin32'), test, 'test')
        best = int(np.argmax(scores)) + 1
        described = dict(checkpoint='best.pth', epoch=best, iter=10 * best, config_hash=config_hash(Config(config)))
        described |= dict(split='test', prediction=dict(mode='whole', views='none', scales=[1.0]), test_read=1)
        (folder / 'test' / 'run.json').write_text(json.dumps(described | run))
    return folder
