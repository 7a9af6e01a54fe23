"""Early stopping that survives a resume and may start late."""

from __future__ import annotations

from math import isfinite

from mmengine.hooks import EarlyStoppingHook
from mmengine.runner import Runner
from mmseg.registry import HOOKS

from .by_epochs import require_epochs

#: Entry of a checkpoint: the states by name of the score.
_KEY = 'early_stopping'


@HOOKS.register_module()
class LALEEarlyStopping(EarlyStoppingHook):
    """mmengine's `EarlyStoppingHook` with these differences.

    * The best score and the count of validations without improvement are stored in checkpoints, so a resumed run
      continues the count; mmengine's starts anew.
    * A score equal to the best one is no improvement: a network that predicts nothing, at 0 for ever, ends its run.
    * Validations of the first `begin` epochs are not counted.
    * A score that a validation lacks is an error.

    Args:
        monitor: Name of the score, such as 'mIoU'.
        rule: 'greater' or 'less'; mmengine knows it for the usual names.
        min_delta: Smallest gain that counts as an improvement.
        patience: Number of validations without improvement after which the run ends.
        begin: Number of epochs that are not counted, such as those with a frozen backbone.
        check_finite: Whether a score that is NaN or infinite ends the run.
        stopping_threshold: A score better than this one ends the run.

    Raises:
        ConfigError: `begin` is set and the run is not by epochs.
    """

    # Before the checkpoint hook, which saves the best checkpoint after a validation.
    priority = 'LOW'

    def __init__(
        self,
        monitor: str,
        rule: str | None = None,
        min_delta: float = 0.0,
        patience: int = 5,
        begin: int = 0,
        check_finite: bool = True,
        stopping_threshold: float | None = None,
    ) -> None:
        super().__init__(
            monitor=monitor,
            rule=rule,
            min_delta=min_delta,
            strict=True,
            check_finite=check_finite,
            patience=patience,
            stopping_threshold=stopping_threshold,
        )
        self.begin = begin

    def before_train(self, runner: Runner) -> None:
        """Checks that `begin` can be counted; a run that had stopped early stops at once when it is resumed."""
        if self.begin:
            require_epochs(runner, f'LALEEarlyStopping: begin={self.begin} counts epochs')
        if self.wait_count >= self.patience:
            runner.train_loop.stop_training = True
            runner.logger.info(
                f'{self.monitor} had not improved in the last {self.wait_count} validations: training has ended'
            )

    def before_run(self, runner: Runner) -> None:
        """Checks that the training loop can be stopped early; without a training there is nothing to check."""
        if isinstance(runner._train_loop, dict) or runner._train_loop is None:
            return
        super().before_run(runner)

    def after_val_epoch(self, runner: Runner, metrics: dict) -> None:
        """Counts a validation of a training and may end the run."""
        if isinstance(runner._train_loop, dict) or runner._train_loop is None:
            return
        if self.begin and runner.epoch <= self.begin:
            return
        super().after_val_epoch(runner, metrics)

    def _check_stop_condition(self, current_score: float) -> tuple[bool, str]:
        """Whether to stop, and why; unlike mmengine's, an equal score is no improvement."""
        limit = self.stopping_threshold
        ends = not isfinite(current_score) or (limit is not None and self.rule_map[self.rule](current_score, limit))
        if current_score == self.best_score + self.min_delta and not ends:
            self.wait_count += 1
            message = f'{self.monitor} did not improve in the last {self.wait_count} validations'
            return self.wait_count >= self.patience, f'{message}; the best is {self.best_score:.3f}'
        return super()._check_stop_condition(current_score)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Stores count and best score."""
        checkpoint.setdefault(_KEY, {})[self.monitor] = dict(wait_count=self.wait_count, best_score=self.best_score)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Reads them when the run is resumed."""
        state = (checkpoint.get(_KEY) or {}).get(self.monitor)
        if runner._resume and state is not None:
            self.wait_count = int(state['wait_count'])
            self.best_score = float(state['best_score'])
