"""A check that several hooks share."""

from __future__ import annotations

from mmengine.runner import EpochBasedTrainLoop, Runner

from ...errors import ConfigError


def require_epochs(runner: Runner, what: str) -> None:
    """Raises ConfigError, with `what` as the reason, if the training is not by epochs."""
    if not isinstance(runner.train_loop, EpochBasedTrainLoop):
        raise ConfigError(
            f'{what}, but train_cfg.type is {type(runner.train_loop).__name__}; use EpochBasedTrainLoop, or remove it'
        )
