"""Freezes a part of a network for the first epochs of a training."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmseg.registry import HOOKS
from torch import nn

from ...errors import ConfigError
from ..unwrap import unwrapped
from .by_epochs import require_epochs

#: Entry of a checkpoint: frozen parts whose `lr_mult` is already in its learning rates.
_KEY = 'frozen_parts_reduced'


@HOOKS.register_module()
class FreezeBackboneHook(Hook):
    """Freezes a part for the first epochs of a run: its weights, and the statistics of its norms (evaluation mode).

    Frozen parameters get no gradients, so the optimizer neither moves nor decays them; those that were frozen before
    stay frozen. A resumed run continues in the phase of its epoch. A different learning rate for the part alone is set
    by `optim_wrapper.paramwise_cfg.custom_keys`, such as `dict(backbone=dict(lr_mult=0.1))`. Distributed training needs
    `find_unused_parameters = True` in the config.

    Args:
        epochs: Number of epochs that the part is frozen for.
        part: Name of the part in the network, such as 'backbone' or 'backbone.layer1'.
        lr_mult: Factor of all learning rates at the release, applied once in a run, resumed or not.

    Raises:
        ConfigError: The network has no such part, or the run is not by epochs.
    """

    priority = 'HIGH'

    def __init__(self, epochs: int = 20, part: str = 'backbone', lr_mult: float = 1.0) -> None:
        self.epochs = epochs
        self.part = part
        self.lr_mult = lr_mult
        self._frozen: list[nn.Parameter] = []
        self._reduced = False

    def before_train(self, runner: Runner) -> None:
        """Freezes the part if the first epoch is one of those."""
        module = self._module(runner)
        require_epochs(runner, 'FreezeBackboneHook counts epochs')
        if runner.epoch >= self.epochs:
            return
        if self.epochs >= runner.max_epochs:
            runner.logger.warning(
                f'{self.part} is frozen for {self.epochs} epochs, but the run has only {runner.max_epochs}: it is '
                'never trained'
            )
        self._frozen = [parameter for parameter in module.parameters() if parameter.requires_grad]
        for parameter in self._frozen:
            parameter.requires_grad_(False)
        runner.logger.info(f'{self.part} is frozen until the end of epoch {self.epochs}')

    def before_train_epoch(self, runner: Runner) -> None:
        """Releases the part after its last frozen epoch."""
        # By the epoch, not by what is frozen: a run resumed just after the last frozen epoch is released, too.
        if runner.epoch != self.epochs:
            return
        for parameter in self._frozen:
            parameter.requires_grad_(True)
        factor = 1.0 if self._reduced else self.lr_mult
        if factor != 1:
            for group in runner.optim_wrapper.param_groups:
                group['lr'] *= factor
            self._reduced = True
        runner.logger.info(f'{self.part} is trained from now on; learning rates are multiplied by {factor:g}')

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Keeps a frozen part in evaluation mode; the loop puts the network into training mode each epoch."""
        if runner.epoch < self.epochs:
            self._module(runner).eval()

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Stores whether `lr_mult` is in the learning rates: within the first epoch after, the epoch does not tell."""
        if self._reduced:
            checkpoint.setdefault(_KEY, []).append(self.part)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Reads it when the run is resumed."""
        self._reduced = bool(runner._resume) and self.part in (checkpoint.get(_KEY) or ())

    def _module(self, runner: Runner) -> nn.Module:
        network = unwrapped(runner.model)
        try:
            return network.get_submodule(self.part)
        except AttributeError:
            raise ConfigError(
                f'FreezeBackboneHook: the network has no part {self.part!r}; its parts are '
                f'{", ".join(name for name, _ in network.named_children())}'
            ) from None
