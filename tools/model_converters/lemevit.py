"""Converts published LeMeViT weights: `python tools/model_converters/lemevit.py OFFICIAL.pth OUT.pth`.

Backbones, with or without classifier, and segmentors, whose heads (UPerNet) are those of mmsegmentation.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from model_converters.conversion import Family, Names, run_converter
from model_converters.conversion import parse_args as parse_converter_args

from lale_mmseg.cli.common import run_command
from lale_mmseg.models.backbones.lemevit import ARCHS

_UNUSED = 'feeds no feature map'

FAMILY = Family(
    backbone='LeMeViT',
    archs=ARCHS,
    stem='downsample_layers.0.0.weight',
    # Our names are the published ones.
    names=Names(
        unused=[
            # Layers of the meta tokens after the last dual cross-attention.
            (r'^meta_token_downsample\.[34]\.', _UNUSED),
            (r'^stages\.[12]\.\d+\.attn\.proj_c\.', _UNUSED),
            # Norms before the classifier.
            (r'^norm(_c)?\.', _UNUSED),
        ]
    ),
)


def parse_args() -> argparse.Namespace:
    """Parses the command line."""
    return parse_converter_args(FAMILY)


def main() -> None:
    """Converts a file."""
    run_converter(FAMILY, parse_args())


if __name__ == '__main__':
    run_command(main)
