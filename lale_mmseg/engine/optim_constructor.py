"""Learning rate and weight decay by kind and by name of parameter, for any norm."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from mmengine.logging import MMLogger
from mmengine.optim import DefaultOptimWrapperConstructor
from mmseg.registry import OPTIM_WRAPPER_CONSTRUCTORS
from torch import nn

from ..errors import ConfigError

_OPTIONS = ('norm_decay_mult', 'embedding_decay_mult', 'custom_keys')
_MULTIPLIERS = ('lr_mult', 'decay_mult')
#: Class names of norms: LayerNorm, RMSNorm2d, SyncBatchNorm, ... Not all of them are classes of torch; `BatchNormXd` is
#: what mmengine makes of SyncBatchNorm in a run on CPUs.
_NORM = re.compile(r'Norm(\dd|Xd)?$')


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class GroupedOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """mmengine's default constructor with these differences.

    * Every module whose class name ends in `Norm`, `Norm1d`, `Norm2d`, `Norm3d` or `NormXd` is a norm; mmengine's own
      knows those of torch alone.
    * `norm_decay_mult` and `embedding_decay_mult` also hold where a key of `custom_keys` matches, unless that key has a
      `decay_mult`; mmengine's own ignores them there.
    * A key that matches no parameter, and an unknown option, are errors.
    * Parameters of equal settings share a group: the optimizer updates each group at once.

    Options of `paramwise_cfg`, all of them left out by default:

    * `norm_decay_mult`: Multiplies the weight decay of norms.
    * `embedding_decay_mult`: Multiplies the weight decay of `nn.Embedding`.
    * `custom_keys`: Maps a part of a parameter's name to `dict(lr_mult=..., decay_mult=...)`; the longest one counts.

    Raises:
        ConfigError: An option or multiplier is unknown, a key matches no parameter, or the optimizer has no `lr` or
            `weight_decay` to multiply.
    """

    def _validate_cfg(self) -> None:
        self._require_known('optim_wrapper.paramwise_cfg', self.paramwise_cfg, _OPTIONS)
        for key, multipliers in self.paramwise_cfg.get('custom_keys', {}).items():
            self._require_known(f'optim_wrapper.paramwise_cfg.custom_keys.{key}', multipliers, _MULTIPLIERS)
        if self.paramwise_cfg and (self.base_lr is None or self.base_wd is None):
            raise ConfigError(
                f'optim_wrapper.optimizer has lr={self.base_lr} and weight_decay={self.base_wd}; paramwise_cfg '
                'multiplies them, so both are due'
            )
        super()._validate_cfg()

    @staticmethod
    def _require_known(path: str, found: Mapping[str, Any], known: tuple[str, ...]) -> None:
        for name in found:
            if name not in known:
                raise ConfigError(f'{path}: unknown field {name!r}; known are {", ".join(known)}')

    def add_params(
        self, params: list[dict], module: nn.Module, prefix: str = '', is_dcn_module: int | float | None = None
    ) -> None:
        """Adds all trainable parameters of a network to `params`, one group for each pair of settings.

        Args:
            params: List of groups, changed in place.
            module: The network.
            prefix: Name of the network, in front of its parameters' names.
            is_dcn_module: Not used; part of the parent's interface.
        """
        keys = self.paramwise_cfg.get('custom_keys', {})
        matched: Counter[str] = Counter()
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        seen: set[nn.Parameter] = set()
        for module_name, part in module.named_modules(prefix=prefix):
            for name, parameter in part.named_parameters(prefix=module_name, recurse=False):
                if parameter in seen:
                    continue
                seen.add(parameter)
                found = [key for key in keys if key in name]
                matched.update(found)
                if not parameter.requires_grad:
                    continue
                # The longest, and of equally long ones the first by alphabet, as in mmengine.
                chosen = keys[min(found, key=lambda key: (-len(key), key))] if found else {}
                settings = (chosen.get('lr_mult', 1.0), chosen.get('decay_mult', self._decay_of_kind(part)))
                groups.setdefault(settings, []).append(parameter)
        unmatched = [key for key in keys if not matched[key]]
        if unmatched:
            raise ConfigError(
                f'optim_wrapper.paramwise_cfg.custom_keys: no parameter has {unmatched[0]!r} in its name; the parts of '
                f'the model are {", ".join(name for name, _ in module.named_children())}'
            )
        logger = MMLogger.get_current_instance()
        for (lr_mult, decay_mult), members in groups.items():
            group = dict(params=members, lr=self.base_lr * lr_mult, weight_decay=self.base_wd * decay_mult)
            logger.info(f'{len(members)} parameters: lr {group["lr"]:g}, weight decay {group["weight_decay"]:g}')
            params.append(group)

    def _decay_of_kind(self, module: nn.Module) -> float:
        """Multiplier of the weight decay of a module's own parameters."""
        if _NORM.search(type(module).__name__):
            return self.paramwise_cfg.get('norm_decay_mult', 1.0)
        if isinstance(module, nn.Embedding):
            return self.paramwise_cfg.get('embedding_decay_mult', 1.0)
        return 1.0
