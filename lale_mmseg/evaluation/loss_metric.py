"""Losses of a validation, from the logits that a network leaves in its results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.evaluator import BaseMetric
from mmseg.registry import METRICS, MODELS

from ..errors import ConfigError, DataError
from ..metainfo import IGNORE_INDEX


@METRICS.register_module()
class LogitsLossMetric(BaseMetric):
    """Losses of each image at its original size, averaged over images.

    The result has each loss by its name (`loss_bce`, `loss_dice`), weighted as in training, and their sum as `loss`.
    A loss over the batch, as Dice, is one over the image here. Images that a distributed sampler repeats are not
    counted.

    Args:
        losses: Configs of losses, as `loss_decode` of a head takes them; by LALERunner those of the config's head.
        ignore_index: Label of pixels that take no part.
        prefix: Put before each name of the result, with a slash.

    Raises:
        ConfigError: `losses` is empty, two losses have one name, or results have no logits of each class.
        DataError: An image has no label.
    """

    # An empty prefix is a decision, None would be warned about.
    default_prefix = ''

    def __init__(
        self,
        losses: Sequence[Mapping[str, Any]] | None = None,
        ignore_index: int = IGNORE_INDEX,
        prefix: str | None = None,
    ) -> None:
        super().__init__(prefix=prefix)
        self.losses: dict[str, Any] = {}
        for position, config in enumerate(losses or ()):
            loss = MODELS.build(dict(config))
            name = getattr(loss, 'loss_name', '')
            if not name.startswith('loss_') or name in self.losses:
                raise ConfigError(
                    f'losses.{position}.loss_name is {name!r}: names begin with loss_, and each loss has its own; '
                    f'before it are {", ".join(self.losses) or "none"}'
                )
            self.losses[name] = loss
        if not self.losses:
            raise ConfigError('losses is empty; give the losses of the head (model.decode_head.loss_decode)')
        self.ignore_index = ignore_index

    @torch.no_grad()
    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Computes the losses of a batch, image by image.

        Args:
            data_batch: Not used.
            data_samples: Dicts with `seg_logits`, whose `data` is (C, H, W), and `gt_sem_seg`, (1, H, W).
        """
        for sample in data_samples:
            path = str(sample.get('img_path') or 'image')
            if sample.get('seg_logits') is None:
                raise ConfigError(
                    f'{path}: its result has no seg_logits to compute losses from; set model.test_cfg.keep_logits=True '
                    '(a sliding window keeps none by default), or leave LogitsLossMetric out'
                )
            if sample.get('gt_sem_seg') is None:
                raise DataError(f'{path}: has no label (gt_sem_seg), so it has no loss')
            logits = sample['seg_logits']['data'][None].float()  # (1, C, H, W)
            label = sample['gt_sem_seg']['data'].to(logits.device).long()  # (1, H, W)
            if logits.shape[1] == 1:
                raise ConfigError(
                    f'{path}: heads of one channel leave probabilities, not logits; losses need a head with an output '
                    'for each class (model.decode_head.out_channels)'
                )
            if logits.shape[2:] != label.shape[1:]:
                raise DataError(
                    f'{path}: logits are {tuple(logits.shape[2:])}, the label is {tuple(label.shape[1:])} (height, '
                    'width); they must be equal'
                )
            values = {
                name: float(loss.to(logits.device)(logits, label, ignore_index=self.ignore_index))
                for name, loss in self.losses.items()
            }
            self.results.append(values)

    def compute_metrics(self, results: list[dict[str, float]]) -> dict[str, float]:
        """Means over images.

        Args:
            results: Losses of each image.

        Raises:
            DataError: There is no image.
        """
        if not results:
            raise DataError('no image was validated, so there is no loss')
        means = {name: sum(values[name] for values in results) / len(results) for name in self.losses}
        return {**means, 'loss': sum(means.values())}
