"""Published LeMeViT weights to ours: `python tools/model_converters/lemevit.py OFFICIAL.pth OUT.pth`.

Backbones, with or without classifier, and segmentors, whose heads (UPerNet) are those of mmsegmentation.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import _cli
from model_converters._convert import Family, Names, run_converter
from model_converters._convert import parse_args as parse_converter_args

from lale_mmseg.models.backbones.lemevit import ARCHS

_FEEDS_NO_MAP = 'feeds no map'

FAMILY = Family(
    backbone='LeMeViT',
    archs=ARCHS,
    stem='downsample_layers.0.0.weight',
    # Our names are the published ones.
    names=Names(
        unused=[
            # The meta tokens' way after the last dual cross-attention.
            (r'^meta_token_downsample\.[34]\.', _FEEDS_NO_MAP),
            (r'^stages\.[12]\.\d+\.attn\.proj_c\.', _FEEDS_NO_MAP),
            # In front of the classifier.
            (r'^norm(_c)?\.', _FEEDS_NO_MAP),
        ]
    ),
)


def parse_args() -> argparse.Namespace:
    """Options of the command line."""
    return parse_converter_args(FAMILY)


def main() -> None:
    """Converts."""
    run_converter(FAMILY, parse_args())


if __name__ == '__main__':
    _cli.run(main)
