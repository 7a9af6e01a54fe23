"""Tests a checkpoint: `python tools/test.py CONFIG CHECKPOINT`; on several processes `bash tools/dist_test.sh`."""

from __future__ import annotations

import argparse

from _cli import add_common_options, load_config, run
from mmengine.config import Config, ConfigDict
from mmseg.registry import RUNNERS

from lale_mmseg.errors import ConfigError


def parse_args() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description='Tests a segmentation network on the test split of its config.')
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    add_common_options(parser)
    parser.add_argument('--out', metavar='DIR', help='folder for the predictions as PNG of class indexes')
    parser.add_argument('--show-dir', metavar='DIR', help='folder for overlays of all images')
    parser.add_argument('--tta', action='store_true', help='average over flips (tta_pipeline of the config)')
    return parser.parse_args()


def apply_options(cfg: Config, args: argparse.Namespace) -> None:
    """Writes the options of the command line into the config."""
    cfg.load_from = args.checkpoint
    cfg.resume = False
    if args.out is not None:
        evaluators = cfg.test_evaluator if isinstance(cfg.test_evaluator, list) else [cfg.test_evaluator]
        ours = [evaluator for evaluator in evaluators if evaluator.type == 'SegmentationMetric']
        if not ours:
            raise ConfigError(f'--out: test_evaluator has no SegmentationMetric, found {evaluators[0].type}')
        ours[0].pred_dir = args.out
    if args.show_dir is not None:
        cfg.setdefault('default_hooks', ConfigDict())
        cfg.default_hooks.report = dict(type='ReportHook', num_overlays=-1, overlay_dir=args.show_dir)
    if args.tta:
        missing = [field for field in ('tta_pipeline', 'tta_model') if field not in cfg]
        if missing:
            raise ConfigError(f'--tta: the config has no field {missing[0]}')
        cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline
        cfg.tta_model.module = cfg.model
        cfg.model = cfg.tta_model


def main() -> None:
    """Tests."""
    args = parse_args()
    cfg = load_config(args)
    apply_options(cfg, args)
    cfg.setdefault('runner_type', 'LaleRunner')
    RUNNERS.build(cfg).test()


if __name__ == '__main__':
    run(main)
