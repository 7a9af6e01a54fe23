"""What data sets of tiles have in common whose splits follow from a published protocol."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.logging import MMLogger
from mmseg.datasets import BaseSegDataset

from ..errors import ConfigError, DataError
from ..metainfo.layout import index_by_stem
from .image_io import read_size


class ProtocolDataset(BaseSegDataset):
    """Files of a prepared folder that belong to the tiles of a split, by the tile in their names.

    So one prepared folder serves every protocol, and no window of a validation or test tile can get into training.
    `metainfo['source']` gets the tiles and the missing tiles when the files are listed.

    A subclass sets the following before it calls `super().__init__`, which lists the files.

    Attributes:
        city: Data set as `Protocol.splits` has it, such as 'potsdam'.
        tiles: Tiles of the split.
        split: 'train', 'val' or 'test'.
        label_kind: 'full' or 'eroded' labels.
        image_dir: Folder of the images below `data_root`.
        label_dir: Folder of the labels below `data_root`.
        missing_tiles: What a tile of the split without any file means: 'error', or 'skip' to go on without it.
        header_checks: Number of pairs, evenly spread, whose headers are compared at the start.
        prepare_hint: How to make the data, for messages.
    """

    city: str
    tiles: tuple[str, ...]
    split: str
    label_kind: str
    image_dir: str
    label_dir: str
    missing_tiles: str
    header_checks: int
    prepare_hint: str

    @abstractmethod
    def tile_of(self, stem: str) -> str | None:
        """The tile that a file belongs to, from its name without suffix; None if it names none."""

    @abstractmethod
    def where(self) -> str:
        """Split, data set and protocol, for messages."""

    @property
    def source_tiles(self) -> frozenset[str]:
        """The tiles of this split, such as 'potsdam/2_10': those of training and evaluation must not meet."""
        return frozenset(f'{self.city}/{tile}' for tile in self.tiles)

    def check_root(self, data_root: str | None) -> None:
        """Raises DataError unless there is such a folder."""
        if data_root is None:
            raise DataError(f'{type(self).__name__}: data_root is not set: {self.prepare_hint}')
        if not Path(data_root).is_dir():
            raise DataError(f'data_root {data_root!r} does not exist: {self.prepare_hint}')

    def list_pairs(self) -> list[tuple[Path, Path]]:
        """Images and labels of the split's tiles, by name, after a look at the headers.

        Raises:
            DataError: Files are missing, doubled or of unequal size, or a tile of the split has none.
        """
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
        self._compare_headers(pairs)
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

    def _compare_headers(self, pairs: Sequence[tuple[Path, Path]]) -> None:
        count = min(len(pairs), self.header_checks)
        for index in np.linspace(0, len(pairs) - 1, count).astype(int) if count else ():
            image, label = pairs[index]
            image_size, label_size = read_size(image), read_size(label)
            if image_size != label_size:
                raise DataError(
                    f'{label}: the label has {label_size[0]}x{label_size[1]} pixels (height x width), its image '
                    f'{image} has {image_size[0]}x{image_size[1]}'
                )


def require(name: str, value: object, known: Sequence | Mapping[Any, Any]) -> None:
    """Raises ConfigError unless an argument has one of the known values."""
    if value not in known:
        raise ConfigError(f'{name}={value!r}: must be one of {", ".join(repr(each) for each in known)}')
