"""Reproducible augmentation: albumentations under mmengine's seeds, and one seed for each draw of a sample."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np
from albumentations import ImageOnlyTransform
from mmcv.transforms import BaseTransform
from mmseg.datasets.transforms import Albu
from mmseg.registry import TRANSFORMS

from ...errors import ConfigError, DataError
from ..samplers import Draw
from .presets import PRESETS


@TRANSFORMS.register_module()
class SeedDraw(BaseTransform):
    """Seeds `random` and numpy's global state from the draw of the sample, for all random transforms that follow.

    mmengine seeds data workers when they start: with the same number in each epoch, unless workers persist, and again
    after a resume, which therefore repeats the augmentation of the first epochs. After this transform, the
    augmentation of a sample depends only on its draw. Put it first in the pipeline. Without data workers it seeds the
    training process itself.

    Required key: `sample_idx`, which mmengine's datasets set.

    Raises:
        ConfigError: The sampler does not give each draw a seed, or a dataset wrapper that looks up indexes in a table,
            such as ClassBalancedDataset, has dropped it.
    """

    def transform(self, results: dict) -> dict:
        """Seeds the generators; `results` are returned unchanged."""
        draw = results.get('sample_idx')
        if not isinstance(draw, Draw):
            raise ConfigError(
                f'SeedDraw: sample {draw} has no seed. Use ReplacementSampler in this dataloader, and no dataset '
                'wrapper that looks up indexes in a table (ClassBalancedDataset does; ConcatDataset and RepeatDataset '
                'keep the seed), or remove SeedDraw from the pipeline'
            )
        random.seed(draw.seed)
        np.random.seed(draw.seed)  # noqa: NPY002 (the state that transforms draw from)
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}()'


@TRANSFORMS.register_module()
class SeededAlbu(Albu):
    """mmsegmentation's albumentations wrapper, with seeds, for any number of bands, with a correct `img_shape`.

    albumentations 2 has its own random generators, which neither `randomness.seed` nor the seeds of data workers
    reach; here each call is seeded from numpy's global state, which they do reach. Images with three bands are passed
    as RGB, as colour transforms expect.

    All maps in `seg_fields`, such as the edges from LabelEdges, are transformed like `gt_seg_map`: as masks, whose
    values are never mixed.

    Args:
        transforms: Name of a preset ('light', 'medium', 'heavy' or 'extreme'), or configs of albumentations transforms
            with the class name as `type`. By default the config's top-level `augmentation`.

    Raises:
        ConfigError: `transforms` is not set, there is no preset of that name, or albumentations has no such transform
            or argument.
        DataError: A transform of values, such as RandomBrightnessContrast, gets an image that is not 8-bit.
    """

    def __init__(self, transforms: str | Sequence[dict] | None = None) -> None:
        if transforms is None or (isinstance(transforms, str) and transforms not in PRESETS):
            raise ConfigError(
                f"SeededAlbu: transforms={transforms!r}; set it, or the config's top-level augmentation, to "
                f'{", ".join(map(repr, PRESETS))} or a list of albumentations transforms'
            )
        super().__init__(transforms=list(PRESETS[transforms] if isinstance(transforms, str) else transforms))
        self._color_transforms = [t.__class__.__name__ for t in _leaves(self.aug) if isinstance(t, ImageOnlyTransform)]

    def albu_builder(self, cfg: dict) -> Any:
        """Builds one transform or a composition; arguments that albumentations only warns about are errors."""
        try:
            built = super().albu_builder(cfg)
        except ConfigError:  # from a transform inside a composition
            raise
        except (AttributeError, TypeError, ValueError) as error:
            raise ConfigError(f'SeededAlbu: {cfg["type"]}: {" ".join(str(error).split())}') from None
        if getattr(built, 'invalid_args', None):
            raise ConfigError(f'SeededAlbu: {cfg["type"]} has no argument {built.invalid_args[0]!r}')
        return built

    def transform(self, results: dict) -> dict:
        """Augments `img`, `gt_seg_map` and the other maps in `seg_fields` alike."""
        if self._color_transforms and results['img'].dtype != np.uint8:
            source, found = results.get('img_path', 'image'), results['img'].dtype
            raise DataError(
                f'{source}: values of {found}, but {self._color_transforms[0]} '
                'works on 8-bit images (or values from 0 to 1) and would clip them; take it out of the pipeline'
            )
        # Names of maps here and in albumentations, where some transforms look for the target called `mask`.
        fields = {'gt_seg_map', *results.get('seg_fields', [])}
        names = {field: 'mask' if field == 'gt_seg_map' else field for field in sorted(fields)}
        names = {field: name for field, name in names.items() if results.get(field) is not None}
        self.aug.add_targets({name: 'mask' for name in names.values() if name != 'mask'})
        inputs = {'image': results['img'], **{name: results[field] for field, name in names.items()}}
        is_color = results['img'].shape[2] == 3
        if is_color:
            inputs['image'] = _reversed_bands(results['img'])
        # One generator for all transforms: `set_random_seed` would give each of them the same first draw, so that
        # two flips would always occur together.
        seed = int(np.random.randint(2**31))  # noqa: NPY002 (the state that data workers are seeded with)
        self.aug.set_random_state(np.random.default_rng(seed), random.Random(seed))
        outputs = self.aug(**inputs)
        image = outputs['image']
        results['img'] = _reversed_bands(image) if is_color else np.ascontiguousarray(image)
        results['img_shape'] = results['img'].shape[:2]
        for field, name in names.items():
            results[field] = np.ascontiguousarray(outputs[name])
        return results


def _reversed_bands(image: np.ndarray) -> np.ndarray:
    """Reverses the bands of an (H, W, 3) image; much faster than copying numpy's reversed view."""
    return cv2.merge(cv2.split(image)[::-1])


def _leaves(transform: Any) -> Iterator[Any]:
    """Yields the single transforms inside compositions."""
    if hasattr(transform, 'transforms'):
        for inner in transform.transforms:
            yield from _leaves(inner)
    else:
        yield transform
