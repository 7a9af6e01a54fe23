"""Converts published weights of GhostNet and of the light body and edge network on it.

`python tools/model_converters/body_edge.py OFFICIAL.pth OUT.pth`: networks of all three kinds (UED, UED+BES,
UED+BES+SFM) for any number of classes, whose GhostNet may have its unused classifier, and GhostNet alone under the
names of timm, which are ours.
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
from lale_mmseg.models.backbones.ghostnet import ARCHS


def _conv_rules(theirs: str, ours: str) -> list[tuple[str, str]]:
    """Rules for a published convolution with norm that is a `ConvModule` here."""
    return [(rf'^{theirs}\.primary\.{index}\.', f'{ours}.{layer}.') for index, layer in ((0, 'conv'), (1, 'bn'))]


#: Decoder and the two convolutions after it, in every kind of the network.
_DECODER = [
    *((rf'^dec_c{3 - merge}\.up\.', f'decoder.merges.{merge}.narrow.') for merge in range(3)),
    *((rf'^dec_c{3 - merge}\.cat_conv\.', f'decoder.merges.{merge}.mix.') for merge in range(3)),
    *(rule for index in range(2) for rule in _conv_rules(rf'final_out\.{index}', f'refine.{index}')),
]
#: Without separation the last convolution is the classifier.
_UED = [*_DECODER, (r'^final_out\.2\.', 'conv_seg.')]
_BES = [
    *_DECODER,
    (r'^final_out\.2\.', 'features.'),
    (r'^decouple_body_edge\.conv_high_res\.', 'separation.high.'),
    (r'^decouple_body_edge\.conv_low_res\.(\d)\.(primary\.)?', r'separation.low.\1.'),
    (r'^decouple_body_edge\.flow_make\.', 'separation.flow.'),
    *(rule for part in ('body', 'edge') for rule in _conv_rules(rf'decouple_{part}\.0', f'{part}_branch.0')),
    *((rf'^decouple_{part}\.1\.', f'{part}_branch.1.') for part in ('body', 'edge')),
    *(rule for part in ('body', 'edge') for rule in _conv_rules(rf'{part}_out\.0', f'{part}_head.0')),
    *((rf'^{part}_out\.1\.', f'{part}_head.1.') for part in ('body', 'edge')),
    *(rule for index in range(2) for rule in _conv_rules(rf'seg_out\.{index}', f'seg_convs.{index}')),
    (r'^seg_out\.2\.', 'conv_seg.'),
    *(
        (rf'^fusion_score\.{theirs}\.', f'fusion.{ours}.')
        for theirs, ours in (('h_map', 'rows'), ('w_map', 'columns'), ('x_map', 'pixels'))
    ),
]


def _head_config(weights: Mapping[str, Tensor], out_channels: Sequence[int]) -> dict:
    """Config of the head with the parts that the weights contain."""
    classify = weights.get('conv_seg.weight')
    return dict(
        type='BodyEdgeHead',
        in_channels=list(out_channels),
        channels=out_channels[0],
        num_classes=2 if classify is None else classify.shape[0],
        separate_body_edge=any(name.startswith('separation.') for name in weights),
        spatial_fusion=any(name.startswith('fusion.') for name in weights),
        norm_cfg=dict(type='BN'),
    )


FAMILY = Family(
    backbone='GhostNet',
    archs=ARCHS,
    stem='conv_stem.weight',
    # The last 1x1 convolutions only feed the classifier.
    names=Names(unused=[(r'^(base_network\.)?(blocks\.9|conv_head|classifier)\.', 'classifier')]),
    heads=[
        Head(sign='decouple_body_edge.flow_make.weight', names=Names(rules=_BES), config=_head_config),
        Head(sign='final_out.2.weight', names=Names(rules=_UED), config=_head_config),
    ],
    parts=[
        (r'^base_network\.', ''),
        (r'^(dec_c\d|final_out|decouple_\w+|(seg|body|edge)_out|fusion_score)\.', r'decode_head.\g<0>'),
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
