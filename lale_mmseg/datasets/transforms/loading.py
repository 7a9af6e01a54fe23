"""Transforms that load images of any number of bands, and masks of class colours or class indexes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np
from mmcv.transforms import BaseTransform
from mmseg.registry import TRANSFORMS

from ...metainfo import IGNORE_INDEX, inria
from ...metainfo.palette import decode_values
from ..image_io import check_mask_size, decode_image, decode_label_image, read_bytes


@TRANSFORMS.register_module()
class LoadBands(BaseTransform):
    """Loads an image with any number of bands (PNG, JPEG, WebP, BMP, GeoTIFF) from a file or from a shard's bytes.

    Required keys: `img_path`; optional `img_bytes`. Added keys: `img` (H, W, bands), `img_shape`, `ori_shape`.

    Args:
        bands: Bands to load, counted from 1, in this order; `mean` and `std` of the data preprocessor follow it, with
            `bgr_to_rgb=False`. The default is described in `decode_image`: BGR for 8-bit pictures.
    """

    def __init__(self, bands: Sequence[int] | None = None) -> None:
        self.bands = None if bands is None else tuple(bands)

    def transform(self, results: dict) -> dict:
        """Loads the image of `results`."""
        source = str(results['img_path'])
        content = results.pop('img_bytes', None) or read_bytes(source)
        results['img'] = decode_image(content, source, self.bands)
        results['img_shape'] = results['ori_shape'] = results['img'].shape[:2]
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(bands={self.bands})'


class _LoadMask(BaseTransform):
    """Loads a mask, checks its size, and stores its class indexes as `gt_seg_map` (H, W) uint8."""

    def transform(self, results: dict) -> dict:
        """Loads the mask of `results`, if it has one; its size must be that of the image."""
        if results.get('seg_map_path') is None:  # mmseg's `inference_model` passes images alone
            return results
        results['gt_seg_map'] = self.read(results)
        results['seg_fields'].append('gt_seg_map')
        return results

    def read(self, results: dict) -> np.ndarray:
        """(H, W) uint8 class indexes of the mask of `results`, whose image need not be loaded."""
        source = str(results['seg_map_path'])
        content = results.pop('mask_bytes', None) or read_bytes(source)
        values = decode_label_image(content, source)
        if 'ori_shape' in results:
            check_mask_size(source, values.shape[:2], results['img_path'], results['ori_shape'])
        labels = self.to_labels(values, results, source)
        label_map = results.get('label_map')
        if label_map:
            table = np.arange(256, dtype=np.uint8)
            table[list(label_map)] = list(label_map.values())
            labels = table[labels]
        return labels

    @abstractmethod
    def to_labels(self, values: np.ndarray, results: dict, source: str) -> np.ndarray:
        """(H, W) class indexes of a decoded mask, (H, W) or (H, W, 3) in RGB order."""

    def __repr__(self) -> str:
        return f'{type(self).__name__}()'


@TRANSFORMS.register_module()
class LoadPaletteMask(_LoadMask):
    """Loads a mask of colours or of values, as the palette of the dataset says, and converts it to class indexes.

    Required keys: `seg_map_path`, `palette`, `unknown` and `label_map` (from the dataset), `ori_shape`, `seg_fields`;
    optional `mask_bytes`. Added key: `gt_seg_map` (H, W) uint8, after the replacements in `label_map`.
    """

    def to_labels(self, values: np.ndarray, results: dict, source: str) -> np.ndarray:
        """Decodes colours or values with the palette of the dataset."""
        return results['palette'].decode(values, unknown=results['unknown'], source=source)


@TRANSFORMS.register_module()
class LoadLabels(_LoadMask):
    """Loads a mask of class indexes, or of class colours if the file has three channels.

    Required keys: `seg_map_path`, `palette`, `unknown`, `label_map` and `reduce_zero_label` (from the dataset),
    `ori_shape`, `seg_fields`. Added key: `gt_seg_map` (H, W) uint8.

    Index masks have 8 bits and one channel; every value must be a class or the ignore index 255. With
    `reduce_zero_label` they count from 1, and 0 is ignored (mmsegmentation's converters for Potsdam and Vaihingen).
    `label_map` then replaces classes, for example with 255 for a class that is not trained.
    """

    def to_labels(self, values: np.ndarray, results: dict, source: str) -> np.ndarray:
        """Decodes colours, or checks indexes."""
        palette = results['palette']
        if values.ndim == 3:
            return palette.decode(values, unknown=results['unknown'], source=source)
        first = int(bool(results['reduce_zero_label']))
        labels = {first + label: label for label in range(palette.num_classes)}
        ignored = dict.fromkeys([*range(first), IGNORE_INDEX], IGNORE_INDEX)
        return decode_values(values, labels | ignored, palette.classes, source=source)


@TRANSFORMS.register_module()
class LoadBinaryLabels(_LoadMask):
    """Loads a mask of one class with pixel values 0 and 255 (Inria), which become 0 and 1.

    Required keys: `seg_map_path`, `ori_shape`, `seg_fields`. Added key: `gt_seg_map` (H, W) uint8. No value is ignored:
    any other one, such as those that JPEG compression or resizing produces at boundaries, is an error.
    """

    def to_labels(self, values: np.ndarray, results: dict, source: str) -> np.ndarray:
        """Converts 0 and 255 to class indexes."""
        return inria.PALETTE.decode(values, source=source)
