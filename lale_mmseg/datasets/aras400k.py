"""ARAS400k: Sentinel-2 land cover, real and synthetic."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from mmseg.registry import DATASETS

from ..errors import DataError
from ..metainfo import Palette
from ..metainfo import aras400k as meta
from ..metainfo.layout import Pair, find_layout, list_pairs
from .palette_dataset import PaletteDataset

if TYPE_CHECKING:
    from .parquet import ParquetShards

_IMAGE_COLUMN = 'image'
_MASK_COLUMN = 'conditioning_image'  # the masks condition the generator of the synthetic part


@DATASETS.register_module()
class ARAS400kDataset(PaletteDataset):
    """ARAS400k (arXiv 2603.09625): 100,240 real and 300,000 synthetic pairs of 256x256 pixels at 10 m.

    Images are Sentinel-2 RGB, masks are ESA WorldCover 2021 in RGB colours: 0 tree, 1 shrub, 2 grass, 3 crop,
    4 built-up, 5 barren, 6 water; black means no data and is ignored. The published formats are read as they are:
    folders `{train,val,test,synth}/images` and `/masks`, or parquet shards `{split}*.parquet` in `data_root` or
    `data_root/data`.

    Args:
        data_root: Folder of the dataset.
        split: 'train', 'val' or 'test' of the real part.
        parts: Fraction of each part to use: `dict(real=1.0, synthetic=0.25)` is all real pairs and a quarter of the
            synthetic ones. A fraction selects a fixed random subset (smaller subsets are contained in larger ones);
            above 1, pairs repeat: 2.5 is every pair twice and half of them once more. Synthetic pairs are for training
            only.
        parts_seed: Seed of the selection.
        storage: 'folders', 'parquet', or 'auto' to use folders if they exist and parquet shards otherwise.
        synthetic_split: Name of the folder or shards of the synthetic part.
        unknown, class_map: See `PaletteDataset`.
        header_checks: See `PaletteDataset`; for folders only.
        pipeline, test_mode, indices, serialize_data, lazy_init: See `PaletteDataset`.

    Raises:
        DataError: See `PaletteDataset`; also if `parts` names an unknown part or selects nothing.
    """

    METAINFO = dict(classes=meta.CLASSES, palette=[list(color) for color in meta.COLORS])

    prepare_hint = (
        'make it with "python data_prep/aras400k.py archives ZIP_FOLDER OUT" from the published archives, or try '
        '"python data_prep/make_toy.py OUT" for a small made-up set'
    )

    def __init__(
        self,
        data_root: str | None = None,
        split: str = 'train',
        parts: Mapping[str, float] = dict(real=1.0),
        parts_seed: int = 0,
        storage: Literal['auto', 'folders', 'parquet'] = 'auto',
        synthetic_split: str = 'synth',
        pipeline: Sequence[dict | Callable] = (),
        unknown: Literal['error', 'ignore'] = 'error',
        class_map: Mapping[str, str | None] | None = None,
        header_checks: int = 1000,
        test_mode: bool = False,
        indices: int | Sequence[int] | None = None,
        serialize_data: bool = True,
        lazy_init: bool = False,
    ) -> None:
        unknown_parts = sorted(set(parts) - {'real', 'synthetic'})
        if unknown_parts:
            raise DataError(f"parts={dict(parts)}: unknown part {unknown_parts[0]!r}; use 'real' and 'synthetic'")
        if parts.get('synthetic', 0) > 0 and split != 'train':
            raise DataError(f"parts={dict(parts)}: synthetic pairs are for split 'train' only, not {split!r}")
        self.parts = dict(parts)
        self.parts_seed = parts_seed
        self.storage = storage
        self.synthetic_split = synthetic_split
        self._shards: dict[str, ParquetShards] = {}
        super().__init__(
            data_root=data_root,
            split=split,
            pipeline=pipeline,
            unknown=unknown,
            class_map=class_map,
            header_checks=header_checks,
            test_mode=test_mode,
            indices=indices,
            serialize_data=serialize_data,
            lazy_init=lazy_init,
        )

    def load_palette(self, root: Path, classes_file: str, ignore_colors: Sequence[Sequence[int]]) -> Palette:
        """Returns the published classes and colours."""
        return Palette(meta.CLASSES, meta.COLORS, [meta.NO_DATA_COLOR])

    def load_data_list(self) -> list[dict]:
        """Returns the data infos of the selected pairs, real ones first."""
        data_list: list[dict] = []
        for part, fraction in self.parts.items():
            split = self.split if part == 'real' else self.synthetic_split
            # A part that is not used may be missing.
            infos = self._part_infos(split) if fraction > 0 else []
            data_list.extend(infos[index] for index in choose_fraction(len(infos), fraction, self.parts_seed))
        if not data_list:
            raise DataError(f'{self.data_root}: parts={self.parts} selects no pair of split {self.split!r}')
        return data_list

    def get_data_info(self, idx: int) -> dict:
        """Returns the data info of one sample, with its encoded images if they are in a shard."""
        info = super().get_data_info(idx)
        if 'shard_split' in info:
            info['img_bytes'], info['mask_bytes'] = self._shards[info['shard_split']][info['row']]
        return info

    def _part_infos(self, split: str) -> list[dict]:
        root = Path(self.data_root)
        shards = sorted([*root.glob(f'{split}*.parquet'), *root.glob(f'data/{split}*.parquet')])
        has_folder = (root / split / self.image_dir).is_dir()
        if self.storage == 'folders' or (self.storage == 'auto' and (has_folder or not shards)):
            return self.pair_infos(self._folder_pairs(split))
        if not shards:
            raise DataError(f'{root}: no {split}*.parquet in it or in data/: {self.prepare_hint}')
        from .parquet import ParquetShards  # only here, so that folders can do without pyarrow

        rows = self._shards[split] = ParquetShards(shards, (_IMAGE_COLUMN, _MASK_COLUMN))
        return [
            dict(
                img_path=f'{split}.parquet/{name}.png',
                seg_map_path=f'{rows.describe(row)}, column {_MASK_COLUMN}',
                reduce_zero_label=False,
                row=row,
                shard_split=split,
            )
            for row, name in enumerate(rows.names)
        ]

    def _folder_pairs(self, split: str) -> list[Pair]:
        try:
            return list_pairs(find_layout(Path(self.data_root), split, self.image_dir, self.mask_dir))
        except DataError as error:
            raise DataError(f'{error}; {self.prepare_hint}') from None


def choose_fraction(count: int, fraction: float, seed: int) -> list[int]:
    """Selects `fraction` of `count` items and returns their indexes in ascending order.

    The whole part of the fraction repeats all items; the rest is a random choice that depends only on `count` and
    `seed`, so a smaller fraction is contained in a larger one.
    """
    whole, rest = divmod(fraction, 1)
    order = np.random.default_rng(seed).permutation(count)
    return sorted([*range(count)] * int(whole) + order[: round(rest * count)].tolist())
