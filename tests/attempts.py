"""Work dirs of attempts, written by the real parts of a training: rows, reports and pictures."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from lale_mmseg.engine.hooks.diagnostics import write_row
from lale_mmseg.engine.hooks.report import _keep
from lale_mmseg.evaluation import TileSegmentationMetric
from lale_mmseg.metainfo import inria
from tests.support import REPO
from tests.test_docs import load_script

TOOL = 'tools/analysis/compare_attempts.py'
CONFIG = """
model = dict(decode_head=dict(loss_decode=[dict(type='CrossEntropyLoss', loss_weight={bce})]))
augmentation = '{augmentation}'
train_dataloader = dict(
    batch_size=4, sampler=dict(type='ReplacementSampler', samples_per_epoch={samples}),
    dataset=dict(type='InriaDataset', protocol='few-shot', split='train', pipeline=[dict(type='LoadBands')]),
)
val_dataloader = dict(dataset=dict(type='InriaDataset', protocol='few-shot', split='val'))
val_evaluator = dict(type='TileSegmentationMetric', protocol='few-shot')
optim_wrapper = dict(optimizer=dict(type='AdamW', lr={lr}, weight_decay=1e-4))
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs={max_epochs})
default_hooks = dict(stop=dict(type='LALEEarlyStopping', monitor='mIoU', patience=10), report=dict(type='ReportHook'))
randomness = dict(seed=42)
"""
VAL_TILES = ('austin1', 'austin6', 'austin11')
RECIPE = dict(bce=0.5, augmentation='medium', samples=400, lr=0.001, max_epochs=3)


def truth_of(name: str, side: int = 64) -> np.ndarray:
    """Roofs: rectangles on a plain."""
    rng = np.random.default_rng(sum(map(ord, name)))
    label = np.zeros((side, side), np.uint8)
    for _ in range(5):
        top, left = rng.integers(0, side * 3 // 4, 2)
        label[top : top + side // 5, left : left + side // 4] = 1
    return label


def image_of(label: np.ndarray) -> np.ndarray:
    """Grey roofs on green ground with some noise, RGB."""
    noise = np.random.default_rng(0).integers(0, 40, (*label.shape, 1))
    return (np.where(label[..., None] == 1, (150, 140, 135), (70, 110, 60)) + noise).astype(np.uint8)


def shifted(label: np.ndarray, by: int) -> np.ndarray:
    return np.roll(label, by, axis=(0, 1))


def write_split(folder: Path, tiles, by: int, split: str = 'val', side: int = 64) -> dict:
    """Scores and pictures as an evaluation leaves them, of predictions that are off by some pixels."""
    metric = TileSegmentationMetric(protocol='few-shot', output_dir=str(folder))
    source = dict(city='inria', protocol='few-shot', split=split, clean=False, labels='full')
    source.update(tiles=list(tiles), missing_tiles=[])
    colors = [list(color) for color in inria.COLORS]
    metric.dataset_meta = dict(classes=inria.CLASSES, palette=colors, source=source, tile_pattern=inria.TILE_PATTERN)
    for tile in tiles:
        label = truth_of(tile, side)
        pred = shifted(label, by)
        sample = {
            key: dict(data=torch.from_numpy(values)[None])
            for key, values in (('gt_sem_seg', label), ('pred_sem_seg', pred))
        }
        metric.process(None, [dict(img_path=f'{tile}.jpg', **sample)])
        _keep(folder, tile, image_of(label), label, pred)
    return metric.evaluate(len(tiles))


def attempt(
    folder: Path,
    scores,
    by=2,
    tiles=('austin1', 'austin6', 'austin11'),
    test=None,
    reads=0,
    side=64,
    extra='',
    starts=None,
    processes=None,
    **recipe,
):
    """A work dir of a training with these validation IoUs by epoch, and of a test if `test` says how far it is off."""
    folder.mkdir(parents=True)
    (folder / 'roofs.py').write_text(CONFIG.format(**{**RECIPE, **recipe}) + extra)
    for epoch, score in enumerate(scores, 1):
        row = dict(epoch=epoch, iter=100 * epoch, lr=0.001, lr_backbone=None, train=dict(loss=1 / epoch))
        row.update(val=dict(mIoU=score, mF1=score + 8, OA=score + 20), tiles={}, worst_tile=None)
        row.update(
            memory_mb=900.0 + epoch, memory_kind='gpu', step_time_s=0.1, data_time_s=0.0, epoch_time_s=10.0 * epoch
        )
        row.update(epoch_time_s=10.0 * epoch, parameters=2_500_000, trainable_parameters=1_250_000)
        row.update(starts=starts, processes=processes)
        write_row(folder, row)
    write_split(folder / 'val', tiles, by, side=side)
    if test is not None:
        write_split(folder / 'test', ('austin31', 'austin32'), test, 'test', side)
    for read in range(1, reads + 1):
        with (folder / 'test_ledger.jsonl').open('a') as file:
            file.write(json.dumps(dict(date=f'day {read}', split='inria test (few-shot)', read=read)) + '\n')
    return folder


@pytest.fixture(name='compare')
def comparing(tmp_path, monkeypatch, capsys):
    """Runs the tool in this process; returns what it printed and attempts.json."""
    monkeypatch.syspath_prepend(str(REPO / 'tools'))
    monkeypatch.syspath_prepend(str(REPO / 'tools' / 'analysis'))
    module = load_script(TOOL)

    def run(*words):
        monkeypatch.setattr('sys.argv', [TOOL, *map(str, words), '--out', str(tmp_path / 'out')])
        module.main()
        return capsys.readouterr().out, json.loads((tmp_path / 'out' / 'attempts.json').read_text())

    return run


def rows(text: str) -> dict[str, list[str]]:
    """Cells by the first cell of the Markdown table."""
    table = [[cell.strip() for cell in line.strip('|').split('|')] for line in text.splitlines() if line[:2] == '| ']
    return {line[0]: line[1:] for line in table}


def change(path: Path, **fields) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def log_of(folder: Path, name: str, epoch: int, resume: bool = False) -> None:
    log = folder / name / 'vis_data'
    log.mkdir(parents=True)
    (log / 'config.py').write_text((folder / 'roofs.py').read_text() + f'resume = {resume}\n')
    (log / 'scalars.json').write_text(json.dumps({'train/loss': 0.5, 'epoch': epoch, 'iter': 1, 'step': 1}) + '\n')
