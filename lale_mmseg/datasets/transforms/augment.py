"""Augmentation with albumentations, reproducible under mmengine's seeds."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
from albumentations import ImageOnlyTransform
from mmseg.datasets.transforms import Albu
from mmseg.registry import TRANSFORMS

from ...errors import DataError


@TRANSFORMS.register_module()
class SeededAlbu(Albu):
    """mmsegmentation's albumentations wrapper, seeded, for any number of bands, keeping `img_shape` true.

    albumentations 2 draws from generators of its own, which neither `randomness.seed` nor the seeds of data workers
    reach; here each call is seeded from numpy's global state, which they do reach. Transforms that work on colour
    get RGB when the image has three bands.

    All maps of `seg_fields`, such as the edges of LaplacianEdges, move with the image as `gt_seg_map` does: as masks,
    whose values are never mixed.

    Args:
        transforms: Configs of albumentations transforms, `type` being the class name.

    Raises:
        DataError: A transform of values, such as RandomBrightnessContrast, meets an image that is not 8-bit.
    """

    def __init__(self, transforms: list[dict]) -> None:
        super().__init__(transforms=transforms)
        self._color_transforms = [t.__class__.__name__ for t in _leaves(self.aug) if isinstance(t, ImageOnlyTransform)]

    def transform(self, results: dict) -> dict:
        """Augments `img`, `gt_seg_map` and the other maps of `seg_fields` alike."""
        if self._color_transforms and results['img'].dtype != np.uint8:
            source, found = results.get('img_path', 'image'), results['img'].dtype
            raise DataError(
                f'{source}: values of {found}, but {self._color_transforms[0]} '
                'works on 8-bit images (or values from 0 to 1) and would clip them; take it out of the pipeline'
            )
        # Names of maps here and in albumentations, some of whose transforms look at the target called `mask`.
        fields = {'gt_seg_map', *results.get('seg_fields', [])}
        names = {field: 'mask' if field == 'gt_seg_map' else field for field in sorted(fields)}
        names = {field: name for field, name in names.items() if results.get(field) is not None}
        self.aug.add_targets({name: 'mask' for name in names.values() if name != 'mask'})
        inputs = {'image': results['img'], **{name: results[field] for field, name in names.items()}}
        is_color = results['img'].shape[2] == 3
        if is_color:
            inputs['image'] = np.ascontiguousarray(results['img'][..., ::-1])
        # One generator for all: `set_random_seed` would give each transform the same first draw, and flips that always
        # come together.
        seed = int(np.random.randint(2**31))  # noqa: NPY002 (the state that data workers are seeded with)
        self.aug.set_random_state(np.random.default_rng(seed), random.Random(seed))
        outputs = self.aug(**inputs)
        image = outputs['image']
        results['img'] = np.ascontiguousarray(image[..., ::-1] if is_color else image)
        results['img_shape'] = results['img'].shape[:2]
        for field, name in names.items():
            results[field] = np.ascontiguousarray(outputs[name])
        return results


def _leaves(transform: Any) -> Iterator[Any]:
    """Single transforms inside compositions."""
    if hasattr(transform, 'transforms'):
        for inner in transform.transforms:
            yield from _leaves(inner)
    else:
        yield transform
