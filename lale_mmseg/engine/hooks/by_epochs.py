"""A check that several hooks share."""

from __future__ import annotations

from mmengine.runner import EpochBasedTrainLoop, Runner

from ...errors import ConfigError


def require_epochs(runner: Runner, what: str) -> None:
    """Checks that the training is by epochs.

    Args:
        runner: A runner that trains.
        what: What needs epochs, and for what; begins the message, such as 'FreezeBackboneHook counts epochs'.

    Raises:
        ConfigError: It is not.
    """
    if not isinstance(runner.train_loop, EpochBasedTrainLoop):
        raise ConfigError(
            f'{what}, but train_cfg.type is {type(runner.train_loop).__name__}; leave it out, or use '
            'EpochBasedTrainLoop'
        )
