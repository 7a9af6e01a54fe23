"""Trains the rest of a network first, on a part that stays as it is."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import EpochBasedTrainLoop, Runner
from mmseg.registry import HOOKS
from torch import nn

from ...errors import ConfigError
from ..unwrap import unwrapped


@HOOKS.register_module()
class FreezeBackboneHook(Hook):
    """Freezes a part for the first epochs of a run: its weights, and the statistics of its norms (evaluation mode).

    Frozen parameters get no gradients, so the optimizer neither moves nor decays them. Those that were frozen before
    stay so after the release. A resumed run goes on in the phase of its epoch. The learning rate of the part alone is
    that of its group in the optimizer: `optim_wrapper.paramwise_cfg.custom_keys`, such as
    `dict(backbone=dict(lr_mult=0.1))`.

    Several processes need `find_unused_parameters = True` in the config.

    Args:
        epochs: Number of epochs that the part is frozen for, 1 or more.
        part: Name of the part in the network, such as 'backbone' or 'backbone.layer1'.
        lr_mult: Factor of all learning rates at the release, above 0 and up to 1.

    Raises:
        ConfigError: An argument is out of range, the network has no such part, the run is not by epochs, or it is on
            several processes that do not look for unused parameters.
    """

    priority = 'HIGH'

    def __init__(self, epochs: int = 20, part: str = 'backbone', lr_mult: float = 1.0) -> None:
        if isinstance(epochs, bool) or not isinstance(epochs, int) or epochs < 1:
            raise ConfigError(f'FreezeBackboneHook: epochs={epochs!r}: a whole number from 1 is due')
        if not 0 < lr_mult <= 1:
            raise ConfigError(
                f'FreezeBackboneHook: lr_mult={lr_mult!r}: above 0 and up to 1 is due; what was frozen goes on at the '
                'same or a lower learning rate'
            )
        self.epochs = epochs
        self.part = part
        self.lr_mult = lr_mult
        self._frozen: list[nn.Parameter] = []

    def before_train(self, runner: Runner) -> None:
        """Checks the run, and freezes the part if the first epoch is one of those."""
        module = self._module(runner)
        if not isinstance(runner.train_loop, EpochBasedTrainLoop):
            raise ConfigError(
                'FreezeBackboneHook counts epochs, but train_cfg.type is '
                f'{type(runner.train_loop).__name__}; use EpochBasedTrainLoop'
            )
        if is_model_wrapper(runner.model) and not getattr(runner.model, 'find_unused_parameters', True):
            raise ConfigError(
                'FreezeBackboneHook on several processes: they would wait for gradients of the frozen part; set '
                'find_unused_parameters = True in the config'
            )
        if runner.epoch >= self.epochs:
            return
        if self.epochs >= runner.max_epochs:
            runner.logger.warning(
                f'{self.part} is frozen for {self.epochs} epochs, and the run has {runner.max_epochs}: it is never '
                'trained'
            )
        self._frozen = [parameter for parameter in module.parameters() if parameter.requires_grad]
        for parameter in self._frozen:
            parameter.requires_grad_(False)
            parameter.grad = None
        runner.logger.info(f'{self.part} is frozen until the end of epoch {self.epochs}')

    def before_train_epoch(self, runner: Runner) -> None:
        """Releases the part when its time has come."""
        # Not by what is frozen here: a run that is resumed just after the last frozen epoch is released, too.
        if runner.epoch != self.epochs:
            return
        for parameter in self._frozen:
            parameter.requires_grad_(True)
        self._frozen = []
        if self.lr_mult < 1:
            for group in runner.optim_wrapper.param_groups:
                group['lr'] *= self.lr_mult
        runner.logger.info(f'{self.part} is trained from now on; learning rates are multiplied by {self.lr_mult:g}')

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Keeps a frozen part in evaluation mode, after the loop has put the network into training mode."""
        if runner.epoch < self.epochs:
            module = self._module(runner)
            if module.training:
                module.eval()

    def _module(self, runner: Runner) -> nn.Module:
        network = unwrapped(runner.model)
        try:
            return network.get_submodule(self.part)
        except AttributeError:
            raise ConfigError(
                f'FreezeBackboneHook: the network has no part {self.part!r}; its parts are '
                f'{", ".join(name for name, _ in network.named_children())}'
            ) from None
