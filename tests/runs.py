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
from tests.support import REPO
from tests.test_docs import load_script

CONFIG = dict(
    model=dict(type='A', test_cfg=dict(mode='whole')),
    train_dataloader=dict(batch_size=4, num_workers=2, dataset=dict(type='InriaDataset', data_root='/data')),
    optim_wrapper=dict(optimizer=dict(type='AdamW', lr=0.001)),
    load_from=None,
    resume=False,
)


def run_in_process(tool: str, monkeypatch, *words):
    """Runs a tool of tools/analysis in this process; returns its exit status."""
    monkeypatch.syspath_prepend(str(REPO / 'tools'))
    monkeypatch.syspath_prepend(str(REPO / 'tools' / 'analysis'))
    monkeypatch.setattr('sys.argv', [tool, *map(str, words)])
    return load_script(tool).main()


def write_log(folder: Path, scores, start: str = '20260101_000000', first: int = 1, **changes) -> dict:
    """The log of a start with these validation mIoU by epoch; returns its config."""
    log = folder / start / 'vis_data'
    log.mkdir(parents=True)
    config = {**CONFIG, 'randomness': dict(seed=0), **changes}
    Config(config).dump(log / 'config.py')
    lines = []
    for epoch, score in enumerate(scores, first):
        losses = {'loss': 2 / epoch, 'decode.loss_bce': 1 / epoch, 'decode.loss_edge': 1 / epoch}
        lines.append({**losses, 'epoch': epoch, 'iter': 10 * epoch, 'step': 10 * epoch})
        lines.append(dict(mIoU=score, mF1=score + 8, OA=score + 20, step=epoch))
    (log / 'scalars.json').write_text(''.join(json.dumps(line) + '\n' for line in lines))
    return config


def write_split(folder: Path, tiles, by: int, split: str = 'val', side: int = 64) -> None:
    """Scores and pictures of predictions of squares that are off by some pixels."""
    metric = SegmentationMetric(protocol='few-shot', per_tile=True, output_dir=str(folder))
    source = dict(city='inria', protocol='few-shot', split=split, clean=False, labels='full')
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
