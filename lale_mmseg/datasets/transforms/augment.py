"""Augmentation with albumentations, reproducible under mmengine's seeds."""

from __future__ import annotations

import difflib
import random
from collections.abc import Iterator, Sequence
from typing import Any

import albumentations
import cv2
import numpy as np
from albumentations import BaseCompose, BasicTransform, ImageOnlyTransform
from mmseg.datasets.transforms import Albu
from mmseg.registry import TRANSFORMS

from ...errors import ConfigError, DataError
from .presets import PRESETS


@TRANSFORMS.register_module()
class SeededAlbu(Albu):
    """mmsegmentation's albumentations wrapper, seeded, for any number of bands, keeping `img_shape` true.

    albumentations 2 draws from generators of its own, which neither `randomness.seed` nor the seeds of data workers
    reach; here each call is seeded from numpy's global state, which they do reach. Transforms that work on colour
    get RGB when the image has three bands.

    All maps of `seg_fields`, such as the edges of LaplacianEdges, move with the image as `gt_seg_map` does: as masks,
    whose values are never mixed.

    Args:
        transforms: Name of a preset ('light', 'medium', 'heavy' or 'extreme'), or configs of albumentations transforms,
            `type` being the class name. Configs may leave it to their top-level `augmentation`.

    Raises:
        ConfigError: `transforms` is not set, there is no preset of that name, or albumentations has no such transform
            or argument.
        DataError: A transform of values, such as RandomBrightnessContrast, meets an image that is not 8-bit.
    """

    def __init__(self, transforms: str | Sequence[dict] | None = None) -> None:
        if transforms is None:
            raise ConfigError(
                "SeededAlbu: transforms is not set; set it, or the config's top-level augmentation, to "
                f'{_names(PRESETS)} or a list of albumentations transforms'
            )
        if isinstance(transforms, str):
            if transforms not in PRESETS:
                raise ConfigError(
                    f'SeededAlbu: no augmentation preset is called {transforms!r}; known are {_names(PRESETS)}'
                )
            transforms = PRESETS[transforms]
        super().__init__(transforms=list(transforms))
        self._color_transforms = [t.__class__.__name__ for t in _leaves(self.aug) if isinstance(t, ImageOnlyTransform)]

    def albu_builder(self, cfg: dict) -> Any:
        """Builds one transform, or a composition of some; what albumentations only warns of is an error."""
        if not isinstance(cfg, dict) or not isinstance(cfg.get('type'), str):
            raise ConfigError(f'SeededAlbu: transforms has {cfg!r}; a dict with the name of a transform as type is due')
        kind = getattr(albumentations, cfg['type'], None)
        if not (isinstance(kind, type) and issubclass(kind, BasicTransform | BaseCompose)):
            near = difflib.get_close_matches(cfg['type'], dir(albumentations), n=1)
            hint = f'; did you mean {near[0]!r}?' if near else ''
            raise ConfigError(f'SeededAlbu: albumentations has no transform {cfg["type"]!r}{hint}')
        try:
            built = super().albu_builder(cfg)
        except ConfigError:
            raise
        except (TypeError, ValueError) as error:
            raise ConfigError(f'SeededAlbu: {cfg["type"]}: {" ".join(str(error).split())}') from None
        if getattr(built, 'invalid_args', None):
            raise ConfigError(f'SeededAlbu: {cfg["type"]} has no argument {built.invalid_args[0]!r}')
        return built

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
            inputs['image'] = _reversed_bands(results['img'])
        # One generator for all: `set_random_seed` would give each transform the same first draw, and flips that always
        # come together.
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
    """(H, W, 3) image with its bands in reverse order; many times faster than numpy's copy of the reversed view."""
    return cv2.merge(cv2.split(image)[::-1])


def _names(presets: dict) -> str:
    return ', '.join(repr(name) for name in presets)


def _leaves(transform: Any) -> Iterator[Any]:
    """Single transforms inside compositions."""
    if hasattr(transform, 'transforms'):
        for inner in transform.transforms:
            yield from _leaves(inner)
    else:
        yield transform
