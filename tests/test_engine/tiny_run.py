"""Runs of a second each, in this process: made-up roofs of 16x16 pixels, and a network of a few hundred weights."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
from mmengine.config import Config
from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS, MODELS, RUNNERS, TRANSFORMS
from torch import nn

SIZE = 16
TILES = dict(train=('austin2', 'austin3'), val=('austin1', 'austin6'), test=('austin31', 'austin32'))
_numbers = itertools.count()


@DATASETS.register_module(force=True)
class TinyRoofs(BaseSegDataset):
    """Two tiles a split of two images each; the test split is held out."""

    METAINFO = dict(classes=('background', 'building'), palette=[[255, 255, 255], [220, 20, 60]])

    unit = 'windows'
    #: Splits whose files were listed, for the tests.
    listed: list[str] = []

    def __init__(self, split='train', free=False, **kwargs):
        self.split = split
        self.held_out = split == 'test' and not free
        source = dict(dataset='inria', protocol='few-shot', split=split, clean=False, labels='full')
        super().__init__(metainfo=dict(source=source), data_prefix=dict(), **kwargs)
        # Not handed over: mmengine takes a text there for the name of a file.
        self._metainfo['tile_pattern'] = r'(?P<tile>(?P<city>[a-z]+)\d+)_\d+'

    @property
    def source_tiles(self):
        return frozenset(f'inria/{tile}' for tile in TILES[self.split])

    def class_pixels(self):
        TinyRoofs.listed.append(f'{self.split} pixels')
        return [100, 10]

    def load_data_list(self):
        TinyRoofs.listed.append(self.split)
        self._metainfo['source'].update(tiles=list(TILES[self.split]), missing_tiles=[])
        names = [f'{tile}_{window}' for tile in TILES[self.split] for window in range(2)]
        return [dict(img_path=f'/roofs/{name}.png', seg_map_path='', seg_fields=[], stem=name) for name in names]


@TRANSFORMS.register_module(force=True)
class TinyLoad:
    """Makes the image and label of a name; buildings are brighter."""

    def __call__(self, results):
        rng = np.random.default_rng(sum(map(ord, results['stem'])))
        label = np.zeros((SIZE, SIZE), np.uint8)
        top, left = rng.integers(0, SIZE // 2, 2)
        label[top : top + 8, left : left + 8] = 1
        image = rng.integers(0, 120, (SIZE, SIZE, 3)).astype(np.uint8)
        image[label == 1] += 100
        results.update(img=image, gt_seg_map=label, img_shape=(SIZE, SIZE), ori_shape=(SIZE, SIZE))
        results['seg_fields'].append('gt_seg_map')
        return results


@MODELS.register_module(force=True)
class TinyBackbone(nn.Module):
    """A convolution and a norm."""

    out_channels = (8,)

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)

    def forward(self, inputs):
        return (self.norm(self.conv(inputs)).relu(),)


LOSSES = [
    dict(type='CrossEntropyLoss', avg_non_ignore=True, loss_weight=0.5, loss_name='loss_bce'),
    dict(type='SoftDiceLoss', class_weight=[0.0, 1.0], loss_weight=0.5),
]


def tiny_config(work_dir: Path, epochs: int = 2, test: bool = False, **changes) -> Config:
    """A whole config by the schedule of 60 epochs; `changes` are merged into it."""
    pipeline = [dict(type='TinyLoad'), dict(type='PackSegInputs', meta_keys=('img_path', 'ori_shape', 'img_shape'))]
    schedule = Path(__file__).resolve().parents[2] / 'configs/_base_/schedules/schedule_plateau_60e.py'
    cfg = Config.fromfile(schedule)
    for split in TILES:
        cfg[f'{split}_dataloader'] = dict(
            batch_size=2 if split == 'train' else 1,
            num_workers=0,
            sampler=dict(type='DefaultSampler', shuffle=split == 'train'),
            dataset=dict(type='TinyRoofs', split=split, data_root=str(work_dir), pipeline=pipeline),
        )
    cfg.merge_from_dict(
        dict(
            runner_type='LALERunner',
            default_scope='mmseg',
            work_dir=str(work_dir),
            experiment_name=f'tiny_{next(_numbers)}',
            randomness=dict(seed=1),
            env_cfg=dict(cudnn_benchmark=False),
            model=dict(
                type='EncoderDecoder',
                data_preprocessor=dict(
                    type='SegDataPreProcessor', mean=[99.0] * 3, std=[60.0] * 3, size=(SIZE, SIZE), seg_pad_val=255
                ),
                backbone=dict(type='TinyBackbone'),
                decode_head=dict(
                    type='FCNHead',
                    in_channels=8,
                    in_index=0,
                    channels=4,
                    num_convs=1,
                    concat_input=False,
                    dropout_ratio=0.0,
                    num_classes=2,
                    norm_cfg=dict(type='BN'),
                    align_corners=False,
                    loss_decode=LOSSES,
                ),
                test_cfg=dict(mode='whole'),
            ),
            val_evaluator=[
                dict(type='SegmentationMetric', per_tile=True, score_classes=[1]),
                dict(type='LogitsLossMetric', losses=LOSSES),
            ],
            test_evaluator=dict(type='SegmentationMetric', per_tile=True, score_classes=[1]),
            train_cfg=dict(max_epochs=epochs),
            default_hooks=dict(logger=dict(interval=1)),
        )
    )
    # A list of a hook's mapping replaces what stands there, as in a child config.
    cfg.merge_from_dict(changes)
    return cfg


def build(cfg: Config):
    return RUNNERS.build(cfg)


def train(work_dir: Path, epochs: int = 2, **changes):
    runner = build(tiny_config(work_dir, epochs, **changes))
    runner.train()
    return runner
