"""Trains the rest of a network first, on a part that stays as it is."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from mmseg.registry import HOOKS
from torch import nn

from ...errors import ConfigError
from ..unwrap import unwrapped
from .by_epochs import require_epochs

#: Entry of a checkpoint: parts whose `lr_mult` is in its learning rates.
_KEY = 'frozen_parts_reduced'


@HOOKS.register_module()
class FreezeBackboneHook(Hook):
    """Freezes a part for the first epochs of a run: its weights, and the statistics of its norms (evaluation mode).

    Frozen parameters get no gradients, so the optimizer neither moves nor decays them. Those that were frozen before
    stay so after the release. Several hooks may hold parts that overlap, in any order: a parameter is trained as soon
    as none of them holds it. A resumed run goes on in the phase of its epoch. The learning rate of the part alone is
    that of its group in the optimizer: `optim_wrapper.paramwise_cfg.custom_keys`, such as
    `dict(backbone=dict(lr_mult=0.1))`.

    Several processes need `find_unused_parameters = True` in the config.

    Args:
        epochs: Number of epochs that the part is frozen for, 1 or more.
        part: Name of the part in the network, such as 'backbone' or 'backbone.layer1'.
        lr_mult: Factor of all learning rates at the release, above 0 and up to 1; once in a run, resumed or not.

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
        self._reduced = False

    def before_train(self, runner: Runner) -> None:
        """Checks the run, and freezes the part if the first epoch is one of those."""
        module = self._module(runner)
        require_epochs(runner, 'FreezeBackboneHook counts epochs')
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
        held = _held(runner)
        self._frozen = [
            parameter for parameter in module.parameters() if parameter.requires_grad or id(parameter) in held
        ]
        for parameter in self._frozen:
            parameter.requires_grad_(False)
            parameter.grad = None
        runner.logger.info(f'{self.part} is frozen until the end of epoch {self.epochs}')

    def before_train_epoch(self, runner: Runner) -> None:
        """Releases the part when its time has come."""
        # Not by what is frozen here: a run that is resumed just after the last frozen epoch is released, too.
        if runner.epoch != self.epochs:
            return
        released, self._frozen = self._frozen, []
        held = _held(runner)
        for parameter in released:
            parameter.requires_grad_(id(parameter) not in held)
        factor = 1.0 if self._reduced else self.lr_mult
        if factor < 1:
            for group in runner.optim_wrapper.param_groups:
                group['lr'] *= factor
            self._reduced = True
        runner.logger.info(f'{self.part} is trained from now on; learning rates are multiplied by {factor:g}')

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Keeps a frozen part in evaluation mode, after the loop has put the network into training mode."""
        if runner.epoch < self.epochs:
            module = self._module(runner)
            if module.training:
                module.eval()

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Writes whether `lr_mult` is in the learning rates: a checkpoint may be of within the first epoch after."""
        if self._reduced:
            checkpoint.setdefault(_KEY, []).append(self.part)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Reads it where the run is resumed."""
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


def _held(runner: Runner) -> set[int]:
    """Identities of the parameters that hooks of the run hold frozen at the moment."""
    hooks = (hook for hook in runner.hooks if isinstance(hook, FreezeBackboneHook))
    return {id(parameter) for hook in hooks for parameter in hook._frozen}
