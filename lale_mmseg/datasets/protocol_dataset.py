"""What data sets of tiles have in common whose splits follow from a published protocol."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.logging import MMLogger
from mmseg.datasets import BaseSegDataset

from ..errors import ConfigError, DataError
from ..metainfo.layout import index_by_stem
from .held_out import require_open
from .image_io import compare_headers

SPLITS = ('train', 'val', 'test')
UNITS = ('windows', 'tiles')


class ProtocolDataset(BaseSegDataset):
    """Files of a prepared folder that belong to the tiles of a split, by the tile in their names.

    So one prepared folder serves every protocol, and no window of a validation or test tile can get into training.
    `metainfo['source']` says what it is of: `city`, `protocol` (its name), `split`, `clean` (whether validation tiles
    were taken out of the training tiles) and `labels` ('full' or 'eroded'), which a subclass hands over; when the files
    are listed, `tiles`, those of the samples, and `missing_tiles` of the split.

    A subclass sets the following before it calls `super().__init__`, which lists the files.

    Attributes:
        city: Data set as `Protocol.splits` has it, such as 'potsdam'.
        tiles: Tiles of the split.
        split: 'train', 'val' or 'test'.
        held_out: Whether the split is read only while a test runs; known without reading files.
        unit: What a file has: 'windows', whole 'tiles', or another part of a tile, such as 'crops'.
        label_kind: 'full' or 'eroded' labels.
        image_dir: Folder of the images below `data_root`.
        label_dir: Folder of the labels below `data_root`.
        missing_tiles: What a tile of the split without any file means: 'error', or 'skip' to go on without it.
        header_checks: Number of pairs, evenly spread, whose headers are compared at the start.
        counts: File of the pixels of each class below `data_root`, the field in it that has the tiles, and the field
            of a tile that has its pixels by class, in the order of `METAINFO['classes']`.
        prepare_hint: How to make the data, for messages.
    """

    city: str
    tiles: tuple[str, ...]
    split: str
    held_out: bool = False
    unit: str
    label_kind: str
    image_dir: str
    label_dir: str
    missing_tiles: str
    header_checks: int
    counts: tuple[str, str, str]
    prepare_hint: str

    @abstractmethod
    def tile_of(self, stem: str) -> str | None:
        """The tile that a file belongs to, from its name without suffix; None if it names none."""

    @abstractmethod
    def where(self) -> str:
        """Split, data set and protocol, for messages."""

    @property
    def source_tiles(self) -> frozenset[str]:
        """The tiles of this split, such as 'potsdam/2_10': those of training and evaluation must not meet.

        With `indices`, those of the samples that are left, for which the files are listed; of a held-out split all.
        """
        tiles = self.tiles if self.held_out else self._tiles_left()
        return frozenset(f'{self.city}/{tile}' for tile in tiles)

    def full_init(self) -> None:
        """Lists the files; with `indices`, `metainfo['source']` then has the tiles of the samples that are left."""
        if self._fully_initialized:
            return
        super().full_init()
        if self._indices is not None:
            images = (self.get_data_info(index)['img_path'] for index in range(len(self)))
            left = {self.tile_of(Path(image).stem) for image in images}
            self._metainfo['source']['tiles'] = [tile for tile in self.tiles if tile in left]

    def class_pixels(self) -> np.ndarray:
        """Pixels of each class in the tiles of this split, (C,) int64, as `counts` has them.

        With `indices`, in the tiles of the samples that are left; a tile counts whole, however few of its windows are.

        Raises:
            ConfigError: The split is held out, and no test runs.
            DataError: The file is missing, or lacks a tile or the labels of this split.
        """
        self._require_open()
        name, field, of_tile = self.counts
        path = Path(self.data_root) / name
        left = self._tiles_left()
        try:
            counted = json.loads(path.read_text(encoding='utf-8'))[field]
            tiles = [tile for tile in left if tile in counted or self.missing_tiles == 'error']
            pixels = np.array([counted[tile][of_tile] for tile in tiles], np.int64)
        except OSError as error:
            raise DataError(f'{path}: cannot be read ({error.strerror}); {self.prepare_hint}') from None
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f'{path}: has no pixel counts of {error} for {self.label_kind} labels, split {self.split!r}; '
                f'{self.prepare_hint}'
            ) from None
        return pixels.reshape(-1, len(self.METAINFO['classes'])).sum(axis=0)[: len(self.metainfo['classes'])]

    def check_root(self, data_root: str | None) -> None:
        """Raises DataError unless there is such a folder."""
        if data_root is None:
            raise DataError(f'{type(self).__name__}: data_root is not set: {self.prepare_hint}')
        if not Path(data_root).is_dir():
            raise DataError(f'data_root {data_root!r} does not exist: {self.prepare_hint}')

    def list_pairs(self) -> list[tuple[Path, Path]]:
        """Images and labels of the split's tiles, by name, after a look at the headers.

        Raises:
            ConfigError: The split is held out, and no test runs.
            DataError: Files are missing, doubled or of unequal size, or a tile of the split has none.
        """
        self._require_open()
        images, labels = (self._files_of_tiles(folder) for folder in (self.image_dir, self.label_dir))
        lonely = sorted(set(images) - set(labels))
        if lonely:
            raise DataError(
                f'{Path(self.data_root) / self.label_dir}: no label for {len(lonely)} of {len(images)} images of '
                f'{self.image_dir}, the first is {lonely[0]!r}'
            )
        found = {self.tile_of(stem) for stem in images}
        missing = [tile for tile in self.tiles if tile not in found]
        message = (
            f'{Path(self.data_root) / self.image_dir}: no file of {len(missing)} of {len(self.tiles)} tiles of '
            f'{self.where()}: {", ".join(missing)}'
        )
        if missing and (self.missing_tiles == 'error' or not images):
            hint = '' if not images else "; to go on without them, set missing_tiles='skip' in the dataset's config"
            raise DataError(f'{message}; {self.prepare_hint}{hint}')
        if missing:
            MMLogger.get_current_instance().warning(f'left out: {message}')
        pairs = [(images[stem], labels[stem]) for stem in sorted(images)]
        compare_headers(pairs, self.header_checks)
        self._metainfo['source'].update(tiles=[tile for tile in self.tiles if tile in found], missing_tiles=missing)
        return pairs

    def _files_of_tiles(self, name: str) -> dict[str, Path]:
        """Files of a folder that belong to the split, by stem."""
        folder = Path(self.data_root) / name
        if not folder.is_dir():
            raise DataError(
                f'{folder}: no such folder; {self.where()} needs it ({self.label_kind} labels): {self.prepare_hint}'
            )
        files: dict[str, Path] = {}
        for path in index_by_stem(folder).values():
            if self.tile_of(path.stem) in self.tiles:
                if path.stem in files:
                    raise DataError(f'{files[path.stem]} and {path} have the same name; take one folder of them')
                files[path.stem] = path
        return files

    def _tiles_left(self) -> Sequence[str]:
        """Tiles of the split, of those that `indices` leaves where it is set; only then the files are listed."""
        if self._indices is None:
            return self.tiles
        self.full_init()
        return self._metainfo['source']['tiles']

    def _require_open(self) -> None:
        if self.held_out:
            require_open(f'{type(self).__name__}: {self.where()}')


def require(name: str, value: object, known: Sequence | Mapping[Any, Any]) -> None:
    """Raises ConfigError unless an argument has one of the known values."""
    if value not in known:
        raise ConfigError(f'{name}={value!r}: must be one of {", ".join(repr(each) for each in known)}')
