"""Seeds the augmentation of each draw."""

from __future__ import annotations

import random

import numpy as np
from mmcv.transforms import BaseTransform
from mmseg.registry import TRANSFORMS

from ...errors import ConfigError
from ..samplers import Draw


@TRANSFORMS.register_module()
class SeedDraw(BaseTransform):
    """Seeds `random` and numpy's global state for all random transforms behind it, from the draw of the sample.

    mmengine seeds a data worker when the worker starts: with the same number at the start of each epoch, unless
    workers persist, and again after a resume, which so repeats the augmentation of the first epochs. Behind this
    transform, what happens to a sample is a function of its draw alone. Its place is first in the pipeline; without
    data workers it seeds the training process itself.

    Required key: `sample_idx`, which mmengine's datasets set.

    Raises:
        ConfigError: The sample comes from a sampler that does not give each draw a seed, or through a wrapper that
            looks up indexes in a table of its own, such as ClassBalancedDataset, where the seed is lost.
    """

    def transform(self, results: dict) -> dict:
        """Seeds; `results` stay as they are."""
        draw = results.get('sample_idx')
        if not isinstance(draw, Draw):
            raise ConfigError(
                f'SeedDraw: sample {draw} comes without a seed: either the sampler of this dataloader is not '
                "dict(type='ReplacementSampler'), or a wrapper around the dataset looks indexes up in a table of its "
                'own, where seeds are lost (ClassBalancedDataset does, ConcatDataset and RepeatDataset do not). Change '
                'that, or take SeedDraw out of the pipeline'
            )
        random.seed(draw.seed)
        np.random.seed(draw.seed)  # noqa: NPY002 (the state that transforms draw from)
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}()'
