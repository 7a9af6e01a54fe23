"""Where weights come from: their training config and training tiles, and what a test tested."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.logging import MMLogger

from ..files import file_sha256, hash_json
from .default_hooks import OBSERVERS
from .splits import scenes_of

#: Config fields that define a training, beside the segmentor.
_TRAINING_FIELDS = (
    *['train_dataloader', 'optim_wrapper', 'param_scheduler', 'train_cfg', 'randomness', 'augmentation'],
    *['binary_class', 'class_map', 'custom_hooks', 'data_preprocessor'],
)
#: Fields at any depth that describe the machine or the prediction, not the training.
_LEFT_OUT = (
    *['data_root', 'num_workers', 'persistent_workers', 'pin_memory', 'prefetch_factor', 'cache_cfg', 'test_cfg'],
)
_SHOWN = 8


def config_hash(cfg: Config) -> str:
    """SHA-256, in hexadecimal, of the network and its training, without folders, workers, evaluation and `test_cfg`."""
    content = {name: cfg.get(name) for name in _TRAINING_FIELDS}
    content['model'] = cfg.get('model')
    # Freezing, early stopping and averages of weights are hooks with names of their own.
    hooks = (cfg.get('default_hooks') or {}).items()
    content['hooks'] = {name: hook for name, hook in hooks if name not in OBSERVERS and hook is not None}
    return hash_json(_plain(content))


def _plain(node: Any) -> Any:
    """A part of a config as plain data, without the fields of `_LEFT_OUT`."""
    if isinstance(node, Mapping):
        return {name: _plain(value) for name, value in node.items() if name not in _LEFT_OUT}
    return [_plain(value) for value in node] if isinstance(node, (list, tuple)) else node


def describe_test(
    cfg: Config,
    checkpoint: str | None,
    meta: Mapping[str, Any],
    split: str | None,
    prediction: Mapping[str, Any],
) -> dict[str, Any]:
    """Content of `run.json`: what a test tested, and how it predicted.

    Args:
        cfg: Config of the test.
        checkpoint: The tested checkpoint; None if the network was trained in this process or has its initial weights.
        meta: `meta` of the checkpoint.
        split: Name of the tested split, if the dataset has one.
        prediction: Options of the predictor.

    Returns:
        `checkpoint` (path) and `checkpoint_sha256` (None unless it is a local file); `epoch` and `iter` of the
        checkpoint; `config` (file name) and `config_hash` of the training; `split`; `prediction`. Unknown entries are
        None.
    """
    local = Path(checkpoint).expanduser() if checkpoint is not None and '://' not in checkpoint else None
    return dict(
        checkpoint=checkpoint if local is None else str(local.resolve()),
        checkpoint_sha256=None if local is None else file_sha256(local),
        epoch=meta.get('epoch'),
        iter=meta.get('iter'),
        config=Path(cfg.filename).name if cfg.filename else None,
        config_hash=meta.get('config_hash') or config_hash(cfg),
        split=split,
        prediction=dict(prediction),
    )


def tiles_seen(checkpoint: Mapping[str, Any]) -> frozenset[str]:
    """Tiles that the weights of a checkpoint were trained on, such as 'inria/austin1', over all trainings."""
    return frozenset((checkpoint.get('meta') or {}).get('seen_tiles') or ())


def warn_of_seen_tiles(seen: Collection[str], cfg: Config, phases: Sequence[str]) -> None:
    """Warns if weights were trained on tiles that a run evaluates.

    Args:
        seen: Tiles that the weights were trained on.
        cfg: Config of the run.
        phases: Phases of the run to check: 'val', 'test' or both.
    """
    for phase in phases if seen else ():
        both = sorted(scenes_of(cfg, phase).intersection(seen))
        if both:
            names = ', '.join(both[:_SHOWN]) + (' ...' if len(both) > _SHOWN else '')
            MMLogger.get_current_instance().warning(
                f'LEAKAGE: {len(both)} tiles of {phase}_dataloader were training tiles of the loaded weights, or of '
                f'weights that those were started from: {names}. Scores on them tell nothing about other tiles; '
                'evaluate on other tiles, or start from weights that have not seen them'
            )
