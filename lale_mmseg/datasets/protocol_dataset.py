"""Base class of datasets of tiles whose splits follow from a published protocol."""

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
from ..metainfo import IGNORE_INDEX
from ..metainfo.layout import index_by_stem
from ..metainfo.protocol import Protocol
from .image_io import compare_headers

SPLITS = ('train', 'val', 'test')
UNITS = ('windows', 'tiles')


class ProtocolDataset(BaseSegDataset):
    """Files of a prepared folder that belong to the tiles of a split.

    The tile follows from the file name, so one prepared folder serves every protocol, and no window of a validation
    or test tile can get into training. `metainfo['source']` describes the data: `dataset`, `protocol` (its name),
    `split`, `clean` (whether validation tiles were taken out of the training tiles) and `labels` ('full' or 'eroded').
    Listing the files adds `tiles`, those of the samples, and `missing_tiles` of the split.

    Args:
        benchmark: Name in `Protocol.splits`, such as 'potsdam'; `dataset` is the key of wrappers in configs.
        protocol: The protocol.
        split: 'train', 'val' or 'test'.
        clean: Use the clean variant of the protocol's splits.
        data_root: Folder of the dataset.
        unit: Content of a file: 'windows', whole 'tiles', or another part of a tile such as 'crops'.
        image_dir: Folder of the images below `data_root`.
        label_dir: Folder of the labels below `data_root`.
        missing_tiles: 'error' if a tile of the split without any file is an error, 'skip' to continue without it.
        header_checks: Number of pairs, evenly spread, whose headers are compared when the files are listed.
        counts: File of pixel counts below `data_root`, the field in it that holds the tiles, and the field of a tile
            that holds its pixels by class, in the order of `METAINFO['classes']`.
        prepare_hint: Command that prepares the data, for error messages.
        metainfo: Further meta information, such as classes.
        kwargs: Arguments of mmseg's `BaseSegDataset`.

    Attributes:
        tiles: Tiles of the split.
        held_out: Whether the protocol holds the split out of training and validation (see `engine.held_out`).
        label_kind: 'full' or 'eroded' labels.
    """

    def __init__(
        self,
        *,
        benchmark: str,
        protocol: Protocol,
        split: str,
        clean: bool,
        data_root: str | None,
        unit: str,
        image_dir: str,
        label_dir: str,
        missing_tiles: str,
        header_checks: int,
        counts: tuple[str, str, str],
        prepare_hint: str,
        metainfo: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if data_root is None:
            raise DataError(f'{type(self).__name__}: data_root is not set: {prepare_hint}')
        if not Path(data_root).is_dir():
            raise DataError(f'data_root {data_root!r} does not exist: {prepare_hint}')
        self.benchmark = benchmark
        self.protocol = protocol
        self.split = split
        self.tiles: tuple[str, ...] = getattr(protocol.split(benchmark, clean), split)
        self.held_out = split in protocol.held_out
        self.label_kind = protocol.train_labels if split == 'train' else protocol.test_labels
        self.unit = unit
        self.image_dir = image_dir
        self.label_dir = label_dir
        self.missing_tiles = missing_tiles
        self.header_checks = header_checks
        self.counts = counts
        self.prepare_hint = prepare_hint
        self.where = f'split {split!r} of {benchmark} under protocol {protocol.name!r}{", clean" if clean else ""}'
        source = dict(dataset=benchmark, protocol=protocol.name, split=split, clean=clean, labels=self.label_kind)
        super().__init__(
            data_root=str(data_root),
            metainfo={**(metainfo or {}), 'source': source},
            data_prefix=dict(),
            ignore_index=IGNORE_INDEX,
            max_refetch=1,
            **kwargs,
        )

    @abstractmethod
    def tile_of(self, stem: str) -> str | None:
        """Tile that a file belongs to, from its name without suffix; None if it names none."""

    @property
    def source_tiles(self) -> frozenset[str]:
        """Tiles of the split, such as 'potsdam/2_10'; with `indices`, those of the remaining samples."""
        return frozenset(f'{self.benchmark}/{tile}' for tile in self._remaining_tiles())

    def full_init(self) -> None:
        """Lists the files; with `indices`, `metainfo['source']` then has the tiles of the remaining samples."""
        if self._fully_initialized:
            return
        super().full_init()
        if self._indices is not None:
            images = (self.get_data_info(index)['img_path'] for index in range(len(self)))
            left = {self.tile_of(Path(image).stem) for image in images}
            self._metainfo['source']['tiles'] = [tile for tile in self.tiles if tile in left]

    def class_pixels(self) -> np.ndarray:
        """Pixels of each class in the tiles of this split, (C,) int64, as prepared in the file of `counts`.

        With `indices`, in the tiles of the remaining samples; a tile counts whole, however few of its windows remain.

        Raises:
            DataError: The file is missing, or lacks a tile or the labels of this split.
        """
        name, field, of_tile = self.counts
        path = Path(self.data_root) / name
        remaining = self._remaining_tiles()
        try:
            counted = json.loads(path.read_text(encoding='utf-8'))[field]
            tiles = [tile for tile in remaining if tile in counted or self.missing_tiles == 'error']
            pixels = np.array([counted[tile][of_tile] for tile in tiles], np.int64)
        except OSError as error:
            raise DataError(f'{path}: cannot be read ({error.strerror}); {self.prepare_hint}') from None
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f'{path}: has no pixel counts of {error} for {self.label_kind} labels, split {self.split!r}; '
                f'{self.prepare_hint}'
            ) from None
        return pixels.reshape(-1, len(self.METAINFO['classes'])).sum(axis=0)[: len(self.metainfo['classes'])]

    def list_pairs(self) -> list[tuple[Path, Path]]:
        """Images and labels of the split's tiles, sorted by name, after a comparison of their headers.

        Raises:
            DataError: Files are missing, duplicated or of unequal size, or a tile of the split has none.
        """
        images, labels = (self._files_of_tiles(folder) for folder in (self.image_dir, self.label_dir))
        unpaired = sorted(set(images) - set(labels))
        if unpaired:
            raise DataError(
                f'{Path(self.data_root) / self.label_dir}: no label for {len(unpaired)} of {len(images)} images of '
                f'{self.image_dir}, the first is {unpaired[0]!r}'
            )
        found = {self.tile_of(stem) for stem in images}
        missing = [tile for tile in self.tiles if tile not in found]
        message = (
            f'{Path(self.data_root) / self.image_dir}: no file of {len(missing)} of {len(self.tiles)} tiles of '
            f'{self.where}: {", ".join(missing)}'
        )
        if missing and (self.missing_tiles == 'error' or not images):
            hint = "; to continue without them, set missing_tiles='skip' in the dataset's config" if images else ''
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
                f'{folder}: no such folder; {self.where} needs it ({self.label_kind} labels): {self.prepare_hint}'
            )
        files: dict[str, Path] = {}
        for path in index_by_stem(folder).values():
            if self.tile_of(path.stem) in self.tiles:
                if path.stem in files:
                    raise DataError(f'{files[path.stem]} and {path} have the same name; keep one of them')
                files[path.stem] = path
        return files

    def _remaining_tiles(self) -> Sequence[str]:
        """Tiles of the split, or of the samples that `indices` selects, for which the files have to be listed."""
        if self._indices is None:
            return self.tiles
        self.full_init()
        return self._metainfo['source']['tiles']


def require(name: str, value: object, known: Sequence | Mapping[Any, Any]) -> None:
    """Raises ConfigError unless an argument has one of the known values."""
    if value not in known:
        raise ConfigError(f'{name}={value!r}: must be one of {", ".join(repr(each) for each in known)}')
