"""Custom datasets: images with masks of colours or class values, and a table of classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from mmengine.logging import MMLogger
from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS

from ..errors import ConfigError, DataError
from ..metainfo import IGNORE_INDEX, Palette
from ..metainfo.layout import Pair, find_layout, list_pairs
from .image_io import compare_headers, decode_label_image, read_bytes
from .transforms.loading import LoadPaletteMask

#: Name of class 0 when one class is separated from all others.
BACKGROUND = 'background'


@DATASETS.register_module()
class PaletteDataset(BaseSegDataset):
    """Images with masks, and a table that gives each class a colour and a value.

    Masks are RGB, or have one band with the indexes of the table; the first mask of a split determines the form of all.

    Layout::

        data_root/
          classes.csv            index,name,r,g,b: one row per class; index,name for masks of one band
          images/  masks/        matching stems; PNG, JPEG, WebP, BMP or (Geo)TIFF
          train.txt val.txt ...  one stem per line; or folders instead: train/images, train/masks, or
                                 images/train, masks/train

    Args:
        data_root: Folder of the dataset; by default the config's top-level `data_root`.
        split: Name of the split's text file or folder.
        pipeline: Transforms, beginning with `LoadBands` and `LoadPaletteMask`.
        classes_file: Table of classes, relative to `data_root`.
        image_dir: Name of the image folder.
        mask_dir: Name of the mask folder.
        unknown: How to treat a colour that is not in the table: 'error', or 'ignore' to ignore its pixels.
        ignore_colors: Colours of pixels to ignore; in masks of one band, grey ones are values.
        class_map: New names of classes, by name: classes with the same new name are merged and take the place and
            colour of the first of them, None ignores the pixels of a class, and other classes keep their names. By
            default the config's top-level `class_map`.
        binary_class: Class to separate from all others, after `class_map`: its label becomes 1, all other classes
            become 0, 'background'; ignored pixels stay ignored. By default the config's top-level `binary_class`.
        header_checks: Number of pairs, evenly spaced, whose headers are checked at the start, so that unreadable images
            and masks of the wrong size show before training; `data_prep/verify.py` checks every pixel of all pairs.
        test_mode: Whether the dataset is used for evaluation; see `mmengine.dataset.BaseDataset`.
        indices: Use only the first n or these samples; see `mmengine.dataset.BaseDataset`.
        serialize_data: Share one serialized list among workers; see `mmengine.dataset.BaseDataset`.
        lazy_init: Read the classes but not the list of files; see `mmengine.dataset.BaseDataset`.

    Raises:
        ConfigError: `binary_class` or a name in `class_map` is not a class of the table.
        DataError: A file or folder is missing, empty, duplicated or of the wrong size; the message names it.
    """

    #: How to get the data, for the error when they are missing.
    prepare_hint = 'put images/, masks/, classes.csv and train.txt, val.txt, test.txt there (docs/own_data.md)'

    def __init__(
        self,
        data_root: str | None = None,
        split: str = 'train',
        pipeline: Sequence[dict | Callable] = (),
        classes_file: str = 'classes.csv',
        image_dir: str = 'images',
        mask_dir: str = 'masks',
        unknown: Literal['error', 'ignore'] = 'error',
        ignore_colors: Sequence[Sequence[int]] = (),
        class_map: Mapping[str, str | None] | None = None,
        binary_class: str | None = None,
        header_checks: int = 1000,
        test_mode: bool = False,
        indices: int | Sequence[int] | None = None,
        serialize_data: bool = True,
        lazy_init: bool = False,
    ) -> None:
        if data_root is None:
            raise DataError(f'{type(self).__name__}: data_root is not set: {self.prepare_hint}')
        if not Path(data_root).is_dir():
            raise DataError(f'data_root {data_root!r} does not exist: {self.prepare_hint}')
        self.split = split
        self.image_dir = image_dir
        self.mask_dir = mask_dir
        self.unknown = unknown
        self.header_checks = header_checks
        # Masks are decoded with the whole table, so unknown colours are found; then labels are replaced.
        self.palette = self.load_palette(Path(data_root), classes_file, ignore_colors)
        shown, label_map = map_classes(self.palette, class_map or {})
        if binary_class is not None:
            label_map = {
                old: new if new == IGNORE_INDEX else int(shown.classes[new] == binary_class)
                for old, new in label_map.items()
            }
            shown = binary_palette(shown, binary_class)
        changes = any(old != new for old, new in label_map.items())
        self._new_labels = label_map if changes else None
        super().__init__(
            data_root=str(data_root),
            metainfo=shown.metainfo,
            data_prefix=dict(),
            pipeline=list(pipeline),
            test_mode=test_mode,
            indices=indices,
            serialize_data=serialize_data,
            lazy_init=lazy_init,
            ignore_index=IGNORE_INDEX,
            max_refetch=1,
        )

    def load_palette(self, root: Path, classes_file: str, ignore_colors: Sequence[Sequence[int]]) -> Palette:
        """Returns the classes and colours of this dataset."""
        return Palette.from_csv(root / classes_file, ignore_colors)

    def list_pairs(self) -> list[Pair]:
        """Returns the images and masks of the split in a fixed order."""
        return list_pairs(find_layout(Path(self.data_root), self.split, self.image_dir, self.mask_dir))

    def load_data_list(self) -> list[dict]:
        """Returns one data info per pair, after checking the headers."""
        return self.pair_infos(self.list_pairs())

    def pair_infos(self, pairs: Sequence[Pair]) -> list[dict]:
        """Checks the headers of some pairs and returns the data infos of all."""
        compare_headers([(pair.image, pair.mask) for pair in pairs if pair.mask is not None], self.header_checks)
        if self.palette.rgb and self.palette.values is not None and pairs:
            mask = str(pairs[0].mask)
            self.palette = self.palette.of_form(decode_label_image(read_bytes(mask), mask).ndim == 2)
        return [dict(img_path=str(pair.image), seg_map_path=str(pair.mask), reduce_zero_label=False) for pair in pairs]

    def get_data_info(self, idx: int) -> dict:
        """Returns the data info of one sample, with the keys that `LoadPaletteMask` needs."""
        info = super().get_data_info(idx)
        keys = dict(palette=self.palette, unknown=self.unknown, label_map=self._new_labels)
        return {**info, 'seg_fields': [], **keys}

    @classmethod
    def get_label_map(cls, new_classes: Sequence[str] | None = None) -> None:
        """No map of mmsegmentation, which knows subsets of fixed classes only; `class_map` is applied instead."""
        return None

    def class_pixels(self) -> np.ndarray:
        """Pixels of each class in the masks of the split, (C,) int64, for `class_weight='data'`; decodes all masks.

        Raises:
            DataError: See above; or a mask has an unknown colour or value.
        """
        self.full_init()
        MMLogger.get_current_instance().info(f"class_weight='data': counting the pixels of {len(self)} masks")
        load, counts = LoadPaletteMask(), np.zeros(256, np.int64)
        for index in range(len(self)):
            counts += np.bincount(load.read(self.get_data_info(index)).ravel(), minlength=256)
        return counts[: len(self.metainfo['classes'])]


def map_classes(palette: Palette, class_map: Mapping[str, str | None]) -> tuple[Palette, dict[int, int]]:
    """Renames, merges and leaves out classes, as `class_map` of `PaletteDataset` says.

    Returns:
        Names and colours of the new classes, and the new label of each old one.

    Raises:
        ConfigError: A key is not a class, a value is not a name, or no class is left.
    """
    if not isinstance(class_map, Mapping):
        raise ConfigError(f'class_map is {class_map!r}; expected a dict such as {{"car": "vehicle", "unknown": None}}')
    for name, new in class_map.items():
        if name not in palette.classes:
            raise ConfigError(f'class_map: no class {name!r}; the classes are {", ".join(palette.classes)}')
        if not isinstance(new, str | None):
            raise ConfigError(f'class_map.{name} is {new!r}; expected a class name, or None to ignore the class')
    names = [class_map.get(name, name) for name in palette.classes]
    kept = list(dict.fromkeys(name for name in names if name is not None))
    if not kept:
        raise ConfigError('class_map ignores every class')
    label_map = {old: IGNORE_INDEX if name is None else kept.index(name) for old, name in enumerate(names)}
    return Palette(kept, [palette.colors[names.index(name)] for name in kept]), label_map


def binary_palette(palette: Palette, binary_class: str) -> Palette:
    """Returns the two-class palette of 'background' and `binary_class`, which keeps its colour.

    The background is black, so that overlays darken it and the class stands out, or white if the class itself is dark.

    Raises:
        ConfigError: There is no such class, or it is called 'background'.
    """
    if binary_class not in palette.classes or binary_class == BACKGROUND:
        known = ', '.join(repr(name) for name in palette.classes if name != BACKGROUND)
        raise ConfigError(f'binary_class={binary_class!r}: no such class to separate from the background; use {known}')
    color = palette.colors[palette.classes.index(binary_class)]
    background = (0, 0, 0) if max(color) >= 64 else (255, 255, 255)
    return Palette((BACKGROUND, binary_class), (background, color))
