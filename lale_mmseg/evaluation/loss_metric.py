"""Validation losses, computed from the logits in the results of a network."""

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
    Losses over a batch, such as Dice, are computed per image here. Needs `model.test_cfg.keep_logits=True`.

    Args:
        losses: Configs of losses, as in `loss_decode` of a head; the runner fills in those of the config's head.
        ignore_index: Label of pixels that are not counted.
        prefix: Put before each name of the result, with a slash.

    Raises:
        ConfigError: `losses` is empty, two losses share a name, or the results have no logits.
        DataError: An image has no label.
    """

    # An empty prefix is intended; mmengine warns about None.
    default_prefix = ''

    def __init__(
        self,
        losses: Sequence[Mapping[str, Any]] | None = None,
        ignore_index: int = IGNORE_INDEX,
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device='gpu', prefix=prefix)
        built = [MODELS.build(dict(config)) for config in losses or ()]
        self.losses = {loss.loss_name: loss for loss in built}
        if not built or len(self.losses) < len(built):
            names = ', '.join(loss.loss_name for loss in built) or 'empty'
            raise ConfigError(f'LogitsLossMetric.losses: expected losses with different `loss_name`, got {names}')
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
                    f'{path}: the result has no seg_logits to compute losses from; set model.test_cfg.keep_logits=True '
                    'or remove LogitsLossMetric from the evaluators'
                )
            if sample.get('gt_sem_seg') is None:
                raise DataError(f'{path}: no label (gt_sem_seg) to compute losses from')
            logits = sample['seg_logits']['data'][None].float()  # (1, C, H, W)
            if logits.shape[1] == 1:
                # mmsegmentation stores probabilities for heads with one output channel.
                raise ConfigError(
                    f'{path}: LogitsLossMetric needs a head with one output per class (model.decode_head.out_channels)'
                )
            label = sample['gt_sem_seg']['data'].to(logits.device).long()  # (1, H, W)
            self.results.append(
                {
                    name: float(loss.to(logits.device)(logits, label, ignore_index=self.ignore_index))
                    for name, loss in self.losses.items()
                }
            )

    def compute_metrics(self, results: list[dict[str, float]]) -> dict[str, float]:
        """Means over images, and their sum as `loss`."""
        means = {name: sum(values[name] for values in results) / len(results) for name in self.losses}
        return {**means, 'loss': sum(means.values())}
