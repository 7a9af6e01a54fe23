"""Tests a checkpoint: `python tools/test.py CONFIG CHECKPOINT`; on several processes `bash tools/dist_test.sh`."""

from __future__ import annotations

import argparse

from _cli import add_common_options, load_config, run
from mmengine.config import Config, ConfigDict
from mmseg.registry import METRICS, MODELS, RUNNERS

import lale_mmseg.register  # noqa: F401
from lale_mmseg.compat import is_cpu_only, keep_freed_memory
from lale_mmseg.errors import ConfigError
from lale_mmseg.evaluation import SegmentationMetric
from lale_mmseg.models.segmentors import SlidingEncoderDecoder
from lale_mmseg.models.segmentors.options import check_names


def parse_args() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description='Tests a segmentation network on the test split of its config.')
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    add_common_options(parser)
    parser.add_argument('--out', metavar='DIR', help='folder for the predictions as PNG of class indexes')
    parser.add_argument('--show-dir', metavar='DIR', help='folder for overlays of all images')
    parser.add_argument('--tta', action='store_true', help='average over views of each image (tta_cfg or tta_pipeline)')
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
        cfg.default_hooks.report = dict(type='ReportHook', num_overlays=-1, overlay_dir=args.show_dir)
    if args.tta:
        apply_tta(cfg)


def apply_tta(cfg: Config) -> None:
    """Turns on test-time augmentation.

    A `SlidingEncoderDecoder` augments each window itself, as `tta_cfg` says. For other segmentors mmengine's wrapper
    predicts the whole image once for each augmentation of `tta_pipeline`.

    Raises:
        ConfigError: The config lacks a field that is needed, or `tta_cfg` has an unknown one.
    """
    if is_sliding(cfg.model):
        if not cfg.get('tta_cfg'):
            raise ConfigError("--tta: the config has no field tta_cfg, such as tta_cfg = dict(views='d4')")
        check_names(cfg.tta_cfg, 'tta_cfg')
        cfg.model.test_cfg = ConfigDict({**(cfg.model.get('test_cfg') or {}), **cfg.tta_cfg})
    else:
        missing = [field for field in ('tta_pipeline', 'tta_model') if field not in cfg]
        if missing:
            raise ConfigError(f'--tta: the config has no field {missing[0]}')
        cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline
        cfg.tta_model.module = cfg.model
        cfg.model = cfg.tta_model


def is_ours(evaluator: ConfigDict) -> bool:
    """Whether an evaluator's config is of a `SegmentationMetric` or a class made from it."""
    kind = METRICS.get(evaluator.type) if isinstance(evaluator.type, str) else evaluator.type
    return isinstance(kind, type) and issubclass(kind, SegmentationMetric)


def is_sliding(model: ConfigDict) -> bool:
    """Whether a model's config is of a `SlidingEncoderDecoder` or a class made from it."""
    kind = MODELS.get(model.type) if isinstance(model.get('type'), str) else model.get('type')
    return isinstance(kind, type) and issubclass(kind, SlidingEncoderDecoder)


def main() -> None:
    """Tests."""
    args = parse_args()
    if is_cpu_only():
        keep_freed_memory()
    cfg = load_config(args)
    apply_options(cfg, args)
    cfg.setdefault('runner_type', 'LALERunner')
    RUNNERS.build(cfg).test()


if __name__ == '__main__':
    run(main)
