"""Tests a checkpoint: `python tools/test.py CONFIG CHECKPOINT`; on several processes `bash tools/dist_test.sh`."""

from __future__ import annotations

import argparse

from mmengine.config import Config, ConfigDict
from mmseg.registry import METRICS, RUNNERS

from ..compat import is_cpu_only, keep_freed_memory
from ..errors import ConfigError
from ..evaluation import SegmentationMetric
from ..inference import apply_tta
from .common import add_common_options, load_config, run_command


def parse_args() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description='Tests a segmentation network on the test split of its config.')
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    add_common_options(parser)
    parser.add_argument('--out', metavar='DIR', help='folder for the predictions as PNG of class indexes')
    parser.add_argument('--show-dir', metavar='DIR', help='folder for overlays of all images')
    parser.add_argument('--tta', action='store_true', help='average over the views and scales of tta_cfg')
    return parser.parse_args()


def apply_options(cfg: Config, args: argparse.Namespace) -> None:
    """Writes the options of the command line into the config."""
    cfg.load_from = args.checkpoint
    cfg.resume = False
    if args.out is not None:
        evaluators = cfg.test_evaluator if isinstance(cfg.test_evaluator, list) else [cfg.test_evaluator]
        ours = [evaluator for evaluator in evaluators if is_ours(evaluator)]
        if not ours:
            raise ConfigError(f'--out: test_evaluator has no SegmentationMetric, found {evaluators[0].type}')
        ours[0].pred_dir = args.out
    if args.show_dir is not None:
        cfg.setdefault('default_hooks', ConfigDict())
        report = cfg.default_hooks.get('report') or dict(type='ReportHook')
        cfg.default_hooks.report = {**report, 'num_overlays': -1, 'overlay_dir': args.show_dir}
    if args.tta:
        apply_tta(cfg)


def is_ours(evaluator: ConfigDict) -> bool:
    """Whether an evaluator's config is that of a `SegmentationMetric` or a subclass."""
    kind = METRICS.get(evaluator.type) if isinstance(evaluator.type, str) else evaluator.type
    return isinstance(kind, type) and issubclass(kind, SegmentationMetric)


def main() -> None:
    """Tests."""
    args = parse_args()
    if is_cpu_only():
        keep_freed_memory()
    cfg = load_config(args)
    apply_options(cfg, args)
    cfg.setdefault('runner_type', 'LALERunner')
    RUNNERS.build(cfg).test()


def command() -> None:
    """`lale-test` and tools/test.py."""
    run_command(main)
