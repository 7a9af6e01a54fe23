"""Anyone's images with RGB masks and a table of classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS

from ..errors import ConfigError, DataError
from ..metainfo import IGNORE_INDEX, Palette
from ..metainfo.layout import Pair, find_layout, list_pairs
from .pair_checks import compare_headers

#: Name of everything else where one class is told from it.
BACKGROUND = 'background'


@DATASETS.register_module()
class PaletteDataset(BaseSegDataset):
    """Images with RGB masks, and a table that gives each class a colour.

    Layout::

        data_root/
          classes.csv            index,name,r,g,b: one row a class, indexes 0, 1, 2, ... in order
          images/  masks/        equal stems; PNG, JPEG, WebP, BMP or (Geo)TIFF
          train.txt val.txt ...  stems, one a line; or folders instead: train/images, train/masks, or
                                 images/train, masks/train

    Args:
        data_root: Folder of the data set; configs may leave it to their top-level `data_root`.
        split: Name of the text file or folder of the split.
        pipeline: Transforms; `LoadBands` and `LoadPaletteMask` come first.
        classes_file: Table of classes, relative to `data_root`.
        image_dir: Name of the image folder.
        mask_dir: Name of the mask folder.
        unknown: What a colour outside the table means: 'error', or 'ignore' to leave its pixels out.
        ignore_colors: Colours of pixels to leave out by agreement.
        binary_class: Name of a class to tell from everything else: labels become 1 for it and 0, 'background', for all
            other classes; ignored pixels stay ignored. Configs may leave it to their top-level `binary_class`.
        header_checks: Number of pairs, evenly spread, whose headers are compared at the start, so that unreadable
            images and masks of another size show before training; `data_prep/verify.py` checks every pixel of all.
        test_mode: Whether this is for evaluation; as of mmengine.
        indices: Use only the first n or these samples; as of mmengine.
        serialize_data: Share one serialized list among workers; as of mmengine.
        lazy_init: Read the classes but not the list of files; as of mmengine.

    Raises:
        ConfigError: `binary_class` is no class of the table.
        DataError: Something of the data is missing, empty, doubled or misaligned; names it.
    """

    #: How to get the data, for the message when they are missing.
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
        if unknown not in ('error', 'ignore'):
            raise DataError(f"unknown={unknown!r}: must be 'error' or 'ignore'")
        if data_root is None:
            raise DataError(f'{type(self).__name__}: data_root is not set: {self.prepare_hint}')
        if not Path(data_root).is_dir():
            raise DataError(f'data_root {data_root!r} does not exist: {self.prepare_hint}')
        self.split = split
        self.image_dir = image_dir
        self.mask_dir = mask_dir
        self.unknown = unknown
        self.header_checks = header_checks
        # Masks are read by the whole table, so that an unknown colour shows whatever the class.
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
        """The table of classes and colours of this data set."""
        return Palette.from_csv(root / classes_file, ignore_colors)

    def list_pairs(self) -> list[Pair]:
        """Images and masks of the split, in a fixed order."""
        layout = find_layout(Path(self.data_root), self.split, self.image_dir, self.mask_dir)
        return list_pairs(layout)

    def load_data_list(self) -> list[dict]:
        """Data infos of mmengine, one for each pair, after a look at the headers."""
        pairs = self.list_pairs()
        self._compare_headers(pairs)
        return [
            dict(img_path=str(pair.image), seg_map_path=str(pair.mask), reduce_zero_label=False, label_map=self._labels)
            for pair in pairs
        ]

    def get_data_info(self, idx: int) -> dict:
        """Data info of one sample, with what `LoadPaletteMask` needs."""
        info = super().get_data_info(idx)
        return {**info, 'seg_fields': [], 'palette': self.palette, 'unknown': self.unknown}

    @property
    def _labels(self) -> dict[int, int] | None:
        """New label of each class of the table; None where they stay."""
        if self.binary_class is None:
            return None
        return {label: int(name == self.binary_class) for label, name in enumerate(self.palette.classes)}

    def _compare_headers(self, pairs: Sequence[Pair]) -> None:
        compare_headers([(pair.image, pair.mask) for pair in pairs if pair.mask is not None], self.header_checks)


def binary_palette(palette: Palette, binary_class: str) -> Palette:
    """Names and colours of 0, everything else, and 1, the class `binary_class` of a palette, in its colour.

    Everything else is black, so that an overlay darkens it and the class stands out; white if the class is dark itself.

    Raises:
        ConfigError: There is no such class, or it is called 'background'.
    """
    known = ', '.join(repr(name) for name in palette.classes)
    if binary_class not in palette.classes:
        raise ConfigError(f'binary_class={binary_class!r}: no class is called so; known are {known}')
    if binary_class == BACKGROUND:
        raise ConfigError(f'binary_class={binary_class!r}: everything else is called so; name another class of {known}')
    color = palette.colors[palette.classes.index(binary_class)]
    background = (0, 0, 0) if max(color) >= 64 else (255, 255, 255)
    return Palette((BACKGROUND, binary_class), (background, color))
