"""ARAS400k: Sentinel-2 land cover, real and synthetic."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from mmseg.registry import DATASETS

from ..errors import DataError
from ..metainfo import Palette
from ..metainfo import aras400k as meta
from ..metainfo.layout import Pair, find_layout, list_pairs
from .palette_dataset import PaletteDataset
from .parquet import ParquetShards

_MASK_COLUMN = 'conditioning_image'  # the masks condition the generator of the synthetic part
_IMAGE_COLUMN = 'image'


@DATASETS.register_module()
class ARAS400kDataset(PaletteDataset):
    """ARAS400k (arXiv 2603.09625): 100,240 real and 300,000 synthetic pairs of 256x256 pixels at 10 m.

    Images are Sentinel-2 RGB, masks ESA WorldCover 2021 in RGB colours: 0 tree, 1 shrub, 2 grass, 3 crop, 4 built-up,
    5 barren, 6 water; black is no data and ignored. Read as published: folders `{train,val,test,synth}/images` and
    `/masks`, or parquet shards `{split}*.parquet` in `data_root` or in `data_root/data`.

    Args:
        data_root: Folder of the data set.
        split: 'train', 'val' or 'test' of the real part.
        parts: How much of each part to use: `dict(real=1.0, synthetic=0.25)` is all real pairs and a quarter of the
            synthetic ones. A fraction takes a fixed random choice (a smaller one is contained in a larger one); above
            1, pairs repeat: 2.5 is every pair twice and half of them once more. Synthetic pairs join training only.
        parts_seed: Seed of that choice.
        storage: 'folders', 'parquet', or 'auto' for what is there, folders first.
        synthetic_split: Name of the folder or shards of the synthetic part.
        unknown: As of `PaletteDataset`.
        header_checks: As of `PaletteDataset`; folders only.
        pipeline, test_mode, indices, serialize_data, lazy_init: As of `PaletteDataset`.

    Raises:
        DataError: As of `PaletteDataset`; or `parts` names an unknown part, is negative or selects nothing.
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
        header_checks: int = 1000,
        test_mode: bool = False,
        indices: int | Sequence[int] | None = None,
        serialize_data: bool = True,
        lazy_init: bool = False,
    ) -> None:
        _check_parts(parts, split)
        if storage not in ('auto', 'folders', 'parquet'):
            raise DataError(f"storage={storage!r}: must be 'auto', 'folders' or 'parquet'")
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
            header_checks=header_checks,
            test_mode=test_mode,
            indices=indices,
            serialize_data=serialize_data,
            lazy_init=lazy_init,
        )

    def load_palette(self, root: Path, classes_file: str, ignore_colors: Sequence[Sequence[int]]) -> Palette:
        """The published classes and colours."""
        return Palette(meta.CLASSES, meta.COLORS, [meta.NO_DATA_COLOR])

    def load_data_list(self) -> list[dict]:
        """Data infos of the parts in their proportions, real ones first."""
        data_list: list[dict] = []
        for part, fraction in self.parts.items():
            split = self.split if part == 'real' else self.synthetic_split
            infos = self._part_infos(split) if fraction > 0 else []
            data_list.extend(infos[index] for index in choose_fraction(len(infos), fraction, self.parts_seed))
        if not data_list:
            raise DataError(f'{self.data_root}: parts={self.parts} selects no pair of split {self.split!r}')
        return data_list

    def get_data_info(self, idx: int) -> dict:
        """Data info of one sample; with its bytes if it lies in a shard."""
        info = super().get_data_info(idx)
        if 'shard_split' in info:
            shards = self._shards[info['shard_split']]
            info['img_bytes'], info['mask_bytes'] = shards[info['row']]
        return info

    def _part_infos(self, split: str) -> list[dict]:
        root = Path(self.data_root)
        shards = sorted([*root.glob(f'{split}*.parquet'), *root.glob(f'data/{split}*.parquet')])
        has_folder = (root / split / self.image_dir).is_dir()
        if self.storage == 'folders' or (self.storage == 'auto' and (has_folder or not shards)):
            pairs = self._folder_pairs(split)
            self._compare_headers(pairs)
            return [_info(str(pair.image), str(pair.mask)) for pair in pairs]
        if not shards:
            raise DataError(f'{root}: no {split}*.parquet in it or in data/: {self.prepare_hint}')
        rows = self._shards[split] = ParquetShards(shards, (_IMAGE_COLUMN, _MASK_COLUMN))
        return [
            _info(f'{split}.parquet/{name}.png', f'{rows.describe(row)}, column {_MASK_COLUMN}', row, split)
            for row, name in enumerate(rows.names)
        ]

    def _folder_pairs(self, split: str) -> list[Pair]:
        try:
            return list_pairs(find_layout(Path(self.data_root), split, self.image_dir, self.mask_dir))
        except DataError as error:
            raise DataError(f'{error}; {self.prepare_hint}') from None


def choose_fraction(count: int, fraction: float, seed: int) -> list[int]:
    """Indexes that make up `fraction` of `count` items, in ascending order.

    Whole parts of the fraction repeat all items; the rest is a random choice that depends on `count` and `seed`
    alone, so a smaller fraction is contained in a larger one.
    """
    whole, rest = divmod(fraction, 1)
    order = np.random.default_rng(seed).permutation(count)
    chosen = [*range(count)] * int(whole) + order[: round(rest * count)].tolist()
    return sorted(chosen)


def _info(image: str, mask: str, row: int | None = None, split: str | None = None) -> dict:
    info = dict(img_path=image, seg_map_path=mask, reduce_zero_label=False, label_map=None)
    return info if row is None else {**info, 'row': row, 'shard_split': split}


def _check_parts(parts: Mapping[str, float], split: str) -> None:
    unknown = set(parts) - {'real', 'synthetic'}
    if unknown:
        raise DataError(f"parts={dict(parts)}: unknown part {sorted(unknown)[0]!r}; known are 'real' and 'synthetic'")
    if any(fraction < 0 for fraction in parts.values()):
        raise DataError(f'parts={dict(parts)}: fractions must be 0 or more')
    if parts.get('synthetic', 0) > 0 and split != 'train':
        raise DataError(f'parts={dict(parts)}: synthetic pairs join split train only, not {split!r}')
