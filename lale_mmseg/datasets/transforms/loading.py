"""Transforms that load images of any number of bands, and masks of class colours or class indexes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from mmcv.transforms import BaseTransform
from mmseg.registry import TRANSFORMS

from ...errors import DataError
from ...metainfo.inria import LABEL_VALUES
from ..image_io import checked_indexes, decode_image, decode_label_image, decode_rgb_mask, read_bytes
from ..pair_checks import check_mask_size


@TRANSFORMS.register_module()
class LoadBands(BaseTransform):
    """Loads an image of any number of bands (PNG, JPEG, WebP, BMP, GeoTIFF) from its file or from a shard's bytes.

    Required keys: `img_path`; optional `img_bytes`. Added keys: `img` (H, W, bands), `img_shape`, `ori_shape`.

    Args:
        bands: Numbers of the bands to take, counting from 1, in the order wanted; `mean` and `std` of the data
            preprocessor follow it, with `bgr_to_rgb=False`. Without it, a PNG, JPEG, WebP or BMP comes as three 8-bit
            bands in BGR order, as mmsegmentation expects, a TIFF of three 8-bit bands, too, and any other TIFF with
            all its bands in the file's order.
    """

    def __init__(self, bands: Sequence[int] | None = None) -> None:
        self.bands = None if bands is None else tuple(bands)

    def transform(self, results: dict) -> dict:
        """Loads the image of `results`."""
        source = str(results['img_path'])
        content = results.pop('img_bytes', None) or read_bytes(source)
        image = decode_image(content, source, self.bands)
        results['img'] = image
        results['img_shape'] = results['ori_shape'] = image.shape[:2]
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(bands={self.bands})'


def _mapped(labels: np.ndarray, label_map: Mapping[int, int] | None) -> np.ndarray:
    """Labels (H, W) uint8 after replacing those that `label_map` names, all at once."""
    if not label_map:
        return labels
    table = np.arange(256, dtype=np.uint8)
    for label, replacement in label_map.items():
        table[label] = replacement
    return table[labels]


@TRANSFORMS.register_module()
class LoadPaletteMask(BaseTransform):
    """Loads an RGB mask and turns its colours into class indexes.

    Required keys: `seg_map_path`, `palette`, `unknown` and `label_map` (from the dataset), `img_shape`, `seg_fields`;
    optional `mask_bytes`. Added key: `gt_seg_map` (H, W) uint8, in which `label_map` gave classes another index.
    """

    def transform(self, results: dict) -> dict:
        """Loads the mask of `results`, if it names one; its size must be that of the image."""
        if results.get('seg_map_path') is None:  # inference on images alone
            return results
        source = str(results['seg_map_path'])
        content = results.pop('mask_bytes', None) or read_bytes(source)
        rgb = decode_rgb_mask(content, source)
        check_mask_size(source, rgb.shape[:2], results['img_path'], results['img_shape'])
        labels = results['palette'].decode(rgb, unknown=results['unknown'], source=source)
        results['gt_seg_map'] = _mapped(labels, results.get('label_map'))
        results['seg_fields'].append('gt_seg_map')
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}()'


@TRANSFORMS.register_module()
class LoadLabels(BaseTransform):
    """Loads a mask of class indexes, or of class colours where the file has three channels.

    Required keys: `seg_map_path`, `palette`, `unknown`, `label_map` and `reduce_zero_label` (from the dataset),
    `ori_shape`, `seg_fields`. Added key: `gt_seg_map` (H, W) uint8.

    Index masks are taken at their word: 8 bits, one channel, every value a class or the ignore index 255. With
    `reduce_zero_label` they count from 1, and 0 is ignored (mmsegmentation's converters for Potsdam and Vaihingen).
    `label_map` then gives classes another index, for example 255 for one that is not trained.
    """

    def transform(self, results: dict) -> dict:
        """Loads the mask of `results`, if it names one; its size must be that of the image."""
        if results.get('seg_map_path') is None:  # inference on images alone
            return results
        source, palette = str(results['seg_map_path']), results['palette']
        values = decode_label_image(read_bytes(source), source)
        check_mask_size(source, values.shape[:2], results['img_path'], results['ori_shape'])
        if values.ndim == 3:
            labels = palette.decode(values, unknown=results['unknown'], source=source)
        else:
            labels = checked_indexes(values, palette.classes, bool(results['reduce_zero_label']), source)
        results['gt_seg_map'] = _mapped(labels, results.get('label_map'))
        results['seg_fields'].append('gt_seg_map')
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}()'


@TRANSFORMS.register_module()
class LoadBinaryLabels(BaseTransform):
    """Loads a mask of one class against all else, whose pixels are 0 and 255 (Inria): they become 0 and 1.

    Required keys: `seg_map_path`, `ori_shape`, `seg_fields`. Added key: `gt_seg_map` (H, W) uint8. There is no ignored
    value: any other one, such as those that a JPEG or a resized mask has at boundaries, is an error.
    """

    def transform(self, results: dict) -> dict:
        """Loads the mask of `results`, if it names one; its size must be that of the image."""
        if results.get('seg_map_path') is None:  # inference on images alone
            return results
        source = str(results['seg_map_path'])
        values = decode_label_image(read_bytes(source), source)
        if values.ndim != 2:
            raise DataError(f'{source}: a mask of one band with values 0 and 255 is due, found {values.shape[2]} bands')
        check_mask_size(source, values.shape, results['img_path'], results['ori_shape'])
        results['gt_seg_map'] = binary_labels(values, source)
        results['seg_fields'].append('gt_seg_map')
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}()'


def binary_labels(values: np.ndarray, source: str = 'mask') -> np.ndarray:
    """(H, W) uint8 class indexes 0 and 1 of a mask of 0 and 255.

    Raises:
        DataError: There is another value; names the first such pixel.
    """
    off, on = LABEL_VALUES
    labels = (values == on).view(np.uint8)
    strange = values != off
    strange &= values != on
    if strange.any():
        row, column = np.unravel_index(int(strange.argmax()), strange.shape)
        raise DataError(
            f'{source}: label {values[row, column]} at row {row}, column {column} is neither {off} nor {on} '
            f'({int(strange.sum())} such pixels); {off} is background, {on} building'
        )
    return labels
