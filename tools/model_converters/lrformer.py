"""Converts published LRFormer weights: `python tools/model_converters/lrformer.py OFFICIAL.pth OUT.pth`.

Backbones, with or without classifier, and segmentors with LRHead.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from model_converters.conversion import Family, Head, Names, run_converter
from model_converters.conversion import parse_args as parse_converter_args

from lale_mmseg.cli.common import run_command
from lale_mmseg.models.backbones.lrformer import ARCHS

#: Learned scales are modules here.
_SCALES = [(r'\.layer_scale_([12])$', r'.scale\1.weight')]


def _stage_rules(stage: int) -> list[tuple[str, str]]:
    """Rules of a stage: the published names count from 1, ours from 0."""
    published = stage + 1
    return [
        # The stem has ten layers before its norm; the other stages have one convolution before it.
        (rf'^patch_embed{published}\.conv1\.', f'downsamples.{stage}.'),
        (rf'^patch_embed{published}\.proj\.', f'downsamples.{stage}.0.'),
        (rf'^patch_embed{published}\.norm\.', f'downsamples.{stage}.{10 if stage == 0 else 1}.'),
        (rf'^d_convs{published}\.(\d+)\.', rf'pyramids.{stage}.refine.\1.conv.'),
        (rf'^block{published}\.', f'stages.{stage}.'),
    ]


def _head_config(weights: Mapping[str, Tensor], out_channels: Sequence[int]) -> dict:
    """Config of LRHead on the last three stages, as wide as its first squeeze."""
    squeeze, classify = weights.get('squeeze1.conv.weight'), weights.get('conv_seg.weight')
    return dict(
        type='LRHead',
        in_channels=list(out_channels[1:]),
        channels=256 if squeeze is None else squeeze.shape[0],
        num_classes=2 if classify is None else classify.shape[0],
        norm_cfg=dict(type='BN'),
        loss_decode=dict(type='CrossEntropyLoss', avg_non_ignore=True),
    )


FAMILY = Family(
    backbone='LRFormer',
    archs=ARCHS,
    stem='downsamples.0.0.weight',
    names=Names(
        rules=[
            *(rule for stage in range(4) for rule in _stage_rules(stage)),
            *_SCALES,
            (r'\.attn\.(q|kv)\.0\.', r'.attn.\1.'),
        ]
    ),
    heads=[
        Head(
            sign='fuse_block1.layer_scale_1',
            names=Names(rules=_SCALES, matrices=r'\.attn\.q\.weight$'),
            config=_head_config,
        )
    ],
)


def parse_args() -> argparse.Namespace:
    """Parses the command line."""
    return parse_converter_args(FAMILY)


def main() -> None:
    """Converts a file."""
    run_converter(FAMILY, parse_args())


if __name__ == '__main__':
    run_command(main)
