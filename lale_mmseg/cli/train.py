"""Trains a config: `python tools/train.py CONFIG`; on several GPUs or processes `bash tools/dist_train.sh CONFIG N`."""

from __future__ import annotations

import argparse
import os

from mmengine.config import Config
from mmseg.registry import RUNNERS

from ..engine.pretrained import leave_out_pretrained
from ..errors import ConfigError
from .common import AMP_DTYPES, add_common_options, load_config, run_command


def parse_args() -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description='Trains a segmentation network.')
    parser.add_argument('config', help='config file')
    add_common_options(parser)
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='continue from this checkpoint, or from the newest readable one in the work dir',
    )
    parser.add_argument(
        '--overwrite', action='store_true', help='remove the checkpoints of another run from the work dir'
    )
    parser.add_argument('--amp', choices=[*AMP_DTYPES], help='mixed precision; fp16 needs a GPU')
    parser.add_argument('--compile', action='store_true', help='compile the network with torch.compile')
    parser.add_argument(
        '--random-init',
        action='store_true',
        help='start from random weights: no pretrained weights of the config, nor load_from, are loaded or downloaded',
    )
    parser.add_argument('--seed', type=int, help='random seed (default: from the config)')
    return parser.parse_args()


def apply_options(cfg: Config, args: argparse.Namespace) -> None:
    """Applies the command line options to the config."""
    if args.amp is not None:
        kind = cfg.optim_wrapper.get('type', 'OptimWrapper')
        if kind not in ('OptimWrapper', 'AmpOptimWrapper', 'AnyDeviceAmpOptimWrapper'):
            raise ConfigError(f'--amp: optim_wrapper.type is {kind!r}, which has no mixed precision variant')
        cfg.optim_wrapper.type = 'AnyDeviceAmpOptimWrapper'
        cfg.optim_wrapper.dtype = AMP_DTYPES[args.amp]
    if args.compile:
        cfg.compile = True
    if args.overwrite:
        cfg.overwrite = True
    if args.random_init:
        left_out = leave_out_pretrained(cfg.model)
        if cfg.get('load_from') and not resumes_from_load_from(cfg, args.resume):
            left_out['load_from'] = cfg.load_from
            cfg.load_from = None
        if int(os.environ.get('RANK', 0)) == 0:
            shown = ', '.join(f'{path}={value!r}' for path, value in left_out.items())
            print(f'--random-init: left out {shown or "nothing: the config names no pretrained weights"}')
    if args.seed is not None:
        cfg.randomness = {**cfg.get('randomness', {}), 'seed': args.seed}
    if args.resume is not None:
        # 'auto' keeps load_from: the first start begins with those weights, later ones continue from checkpoints.
        cfg.resume = 'auto' if args.resume == 'auto' else True
        if args.resume != 'auto':
            cfg.load_from = args.resume


def resumes_from_load_from(cfg: Config, resume: str | None) -> bool:
    """Whether training resumes from `load_from` or another named checkpoint, so that `load_from` must be kept."""
    asked = cfg.get('resume') if resume is None else resume
    return bool(asked) and asked != 'auto'


def main() -> None:
    """Trains the config from the command line."""
    args = parse_args()
    cfg = load_config(args)
    apply_options(cfg, args)
    cfg.setdefault('runner_type', 'LALERunner')
    RUNNERS.build(cfg).train()


def command() -> None:
    """`lale-train` and tools/train.py."""
    run_command(main)
