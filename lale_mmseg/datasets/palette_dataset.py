"""Custom datasets: images with RGB masks and a table of classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS

from ..errors import ConfigError, DataError
from ..metainfo import IGNORE_INDEX, Palette
from ..metainfo.layout import Pair, find_layout, list_pairs
from .image_io import compare_headers

#: Name of class 0 when one class is separated from all others.
BACKGROUND = 'background'


@DATASETS.register_module()
class PaletteDataset(BaseSegDataset):
    """Images with RGB masks, and a table that gives each class a colour.

    Layout::

        data_root/
          classes.csv            index,name,r,g,b: one row per class, indexes 0, 1, 2, ... in order
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
        ignore_colors: Colours of pixels to ignore.
        binary_class: Class to separate from all others: its label becomes 1, all other classes become 0, 'background';
            ignored pixels stay ignored. By default the config's top-level `binary_class`.
        header_checks: Number of pairs, evenly spaced, whose headers are checked at the start, so that unreadable images
            and masks of the wrong size show before training; `data_prep/verify.py` checks every pixel of all pairs.
        test_mode: Whether the dataset is used for evaluation; see `mmengine.dataset.BaseDataset`.
        indices: Use only the first n or these samples; see `mmengine.dataset.BaseDataset`.
        serialize_data: Share one serialized list among workers; see `mmengine.dataset.BaseDataset`.
        lazy_init: Read the classes but not the list of files; see `mmengine.dataset.BaseDataset`.

    Raises:
        ConfigError: `binary_class` is not a class of the table.
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
        # Masks are decoded with the whole table even if one class is separated, so unknown colours are still found.
        self.palette = self.load_palette(Path(data_root), classes_file, ignore_colors)
        self.binary_class = binary_class
        shown = self.palette if binary_class is None else binary_palette(self.palette, binary_class)
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
        label_map = None
        if self.binary_class is not None:
            label_map = {label: int(name == self.binary_class) for label, name in enumerate(self.palette.classes)}
        return [
            dict(img_path=str(pair.image), seg_map_path=str(pair.mask), reduce_zero_label=False, label_map=label_map)
            for pair in pairs
        ]

    def get_data_info(self, idx: int) -> dict:
        """Returns the data info of one sample, with the keys that `LoadPaletteMask` needs."""
        info = super().get_data_info(idx)
        return {**info, 'seg_fields': [], 'palette': self.palette, 'unknown': self.unknown}


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
