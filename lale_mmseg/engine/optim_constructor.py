"""Learning rate and weight decay by module type and parameter name, for any norm."""

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
#: Class names of norms: LayerNorm, RMSNorm2d, SyncBatchNorm, ... They have no common base class; on CPUs mmengine
#: converts SyncBatchNorm to `BatchNormXd`.
_NORM = re.compile(r'Norm(\dd|Xd)?$')


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class GroupedOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """mmengine's default constructor with these differences.

    * Every module whose class name ends in `Norm`, `Norm1d`, `Norm2d`, `Norm3d` or `NormXd` is a norm; mmengine only
      knows torch's own.
    * `norm_decay_mult` and `embedding_decay_mult` also apply where a key of `custom_keys` matches, unless that key has
      its own `decay_mult`; mmengine ignores them there.
    * Keys that match no parameter, and unknown options, are errors.
    * Parameters with equal settings share a group, which the optimizer updates at once.

    Options of `paramwise_cfg`, all optional:

    * `norm_decay_mult`: Factor of the weight decay of norms.
    * `embedding_decay_mult`: Factor of the weight decay of `nn.Embedding`.
    * `custom_keys`: Maps a part of a parameter name to `dict(lr_mult=..., decay_mult=...)`; the longest match is used.

    Raises:
        ConfigError: An option or factor is unknown, a key matches no parameter, or the optimizer has no `lr` or
            `weight_decay` to multiply.
    """

    def _validate_cfg(self) -> None:
        self._require_known('optim_wrapper.paramwise_cfg', self.paramwise_cfg, _OPTIONS)
        for key, multipliers in self.paramwise_cfg.get('custom_keys', {}).items():
            self._require_known(f'optim_wrapper.paramwise_cfg.custom_keys.{key}', multipliers, _MULTIPLIERS)
        if self.paramwise_cfg and (self.base_lr is None or self.base_wd is None):
            raise ConfigError(
                f'optim_wrapper.optimizer has lr={self.base_lr} and weight_decay={self.base_wd}; paramwise_cfg '
                'multiplies them, so set both'
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
        """Adds all trainable parameters of a network to `params`, with one group for each pair of settings.

        Args:
            params: List of groups, changed in place.
            module: The network.
            prefix: Name of the network, a prefix of its parameter names.
            is_dcn_module: Unused; part of the parent's interface.
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
                # The longest key wins; among equally long ones the alphabetically first, as in mmengine.
                chosen = keys[min(found, key=lambda key: (-len(key), key))] if found else {}
                settings = (chosen.get('lr_mult', 1.0), chosen.get('decay_mult', self._decay_of_kind(part)))
                groups.setdefault(settings, []).append(parameter)
        unmatched = [key for key in keys if not matched[key]]
        if unmatched:
            raise ConfigError(
                f'optim_wrapper.paramwise_cfg.custom_keys: no parameter name contains {unmatched[0]!r}; the parts of '
                f'the model are {", ".join(name for name, _ in module.named_children())}'
            )
        logger = MMLogger.get_current_instance()
        for (lr_mult, decay_mult), members in groups.items():
            group = dict(params=members, lr=self.base_lr * lr_mult, weight_decay=self.base_wd * decay_mult)
            logger.info(f'{len(members)} parameters: lr {group["lr"]:g}, weight decay {group["weight_decay"]:g}')
            params.append(group)

    def _decay_of_kind(self, module: nn.Module) -> float:
        """Weight decay factor of a module's own parameters."""
        if _NORM.search(type(module).__name__):
            return self.paramwise_cfg.get('norm_decay_mult', 1.0)
        if isinstance(module, nn.Embedding):
            return self.paramwise_cfg.get('embedding_decay_mult', 1.0)
        return 1.0
