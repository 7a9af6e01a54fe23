"""Inria Aerial Image Labeling under its own protocol, and under that of few-shot roofs."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from mmseg.registry import DATASETS

from ..errors import ConfigError, DataError
from ..metainfo import IGNORE_INDEX, inria
from ..metainfo.protocols import find_protocol
from .held_out import require_open
from .protocol_dataset import ProtocolDataset, require

SPLITS = ('train', 'val', 'test')
UNITS = ('windows', 'tiles')
FULL, FEW_SHOT = (protocol.name for protocol in inria.PROTOCOLS)
#: Folder of what each protocol reads, where it does not depend on the split.
_CROPS = 'crops'
_MANIFEST = 'manifest.json'
#: How data_prep/inria.py begins the `kind` of what it makes; the protocol follows.
_KIND = f'{inria.DATASET}-'
#: Folders above one of images or labels that may have the manifest: OUT of OUT/crops/images, and OUT/crops.
_ABOVE = 2


@DATASETS.register_module()
class InriaDataset(ProtocolDataset):
    """Buildings in 180 tiles of 5000x5000 pixels, RGB, 30 cm: 36 each of austin, chicago, kitsap, tyrol-w and vienna.

    Classes: 0 background, 1 building. Labels on disk are 0 and 255; `LoadBinaryLabels` turns them into indexes.

    Which files belong to a split follows from the tile in their names, so no window of a validation tile can get into
    training. Layout, as `data_prep/inria.py` writes it; the first three are of protocol 'full', `crops/` of
    'few-shot'::

        data_root/
          windows/{images,masks}/TILE_X0_Y0_X1_Y1.png      for training
          tiles/{images,masks}/TILE.tif                    whole, for validation
          manifest.json                                    pixels of each class, for `class_weight='data'`
          crops/images/TILE.jpg  crops/masks/TILE.png      one 1024x1024 crop a tile, for all splits

    The test split of 'few-shot' is held out (`held_out`): its files are listed only while a test runs. That of 'full'
    does not exist here, as its labels are not published. A folder that was prepared for one protocol is not read under
    the other: what is held out under 'few-shot' is for training under 'full'.

    `metainfo` has `tile_pattern`, a regular expression whose groups `tile` and `city` are in the names of the files,
    and `source` with city ('inria'), protocol, split, kind of labels, tiles and missing tiles.

    Citation: Maggiori et al., Can semantic labeling methods generalize to any city? The Inria Aerial Image Labeling
    benchmark, IGARSS 2017, https://project.inria.fr/aerialimagelabeling/.

    Args:
        data_root: Folder of the data set; configs may leave it to their top-level `data_root`.
        protocol: 'full' or 'few-shot' ('E' or 'F').
        split: 'train', 'val' or, under 'few-shot', 'test'.
        unit: 'windows' or 'tiles' under 'full'; windows in training and whole tiles otherwise by default. Each pixel
            of a tile is scored once, while windows may overlap. Crops have no other unit.
        image_dir: Folder of the images below `data_root`; as above by default.
        label_dir: Folder of the labels below `data_root`; as above by default.
        missing_tiles: What a tile of the split without any file means: 'error', or 'skip' to go on without it.
        header_checks: As of `PaletteDataset`.
        pipeline: Transforms; `LoadBands` and `LoadBinaryLabels` come first.
        test_mode, indices, serialize_data, lazy_init: As of `PaletteDataset`.

    Attributes:
        held_out: Whether the split is read only while a test runs; known without reading files.

    Raises:
        ConfigError: An argument is not one of the known values, the protocol is not of Inria, `unit` is given for
            crops, the labels of the split are not published, the folder was prepared for the other protocol, or a
            held-out split is listed outside of a test.
        DataError: Files are missing, empty, doubled or of unequal size, or a manifest is damaged; names them.
    """

    METAINFO = dict(
        classes=inria.CLASSES, palette=[list(color) for color in inria.COLORS], tile_pattern=inria.TILE_PATTERN
    )

    def __init__(
        self,
        data_root: str | None = None,
        protocol: str = FULL,
        split: Literal['train', 'val', 'test'] = 'train',
        unit: Literal['windows', 'tiles'] | None = None,
        image_dir: str | None = None,
        label_dir: str | None = None,
        missing_tiles: Literal['error', 'skip'] = 'error',
        header_checks: int = 1000,
        pipeline: Sequence[dict | Callable] = (),
        test_mode: bool = False,
        indices: int | Sequence[int] | None = None,
        serialize_data: bool = True,
        lazy_init: bool = False,
    ) -> None:
        require('split', split, SPLITS)
        require('unit', unit, (None, *UNITS))
        require('missing_tiles', missing_tiles, ('error', 'skip'))
        self.city = inria.DATASET
        self.protocol = find_protocol(protocol)
        self.tiles = getattr(self.protocol.split(self.city), split)
        if not self.tiles:
            raise ConfigError(
                f'split={split!r} of {self.city} under protocol {self.protocol.name!r}: its labels are not published; '
                "score split='val' here, and predict the hidden cities with tools/analysis/inria_submission.py"
            )
        self.split = split
        self.unit = self._unit_of(unit)
        self.held_out = self.protocol.name == FEW_SHOT and split == 'test'
        self.prepare_hint = f'make it with "python data_prep/inria.py {self.protocol.name} SOURCE OUT"'
        self.check_root(data_root)
        self.label_kind = self.protocol.train_labels if split == 'train' else self.protocol.test_labels
        self.image_dir = image_dir or f'{self.unit}/images'
        self.label_dir = label_dir or f'{self.unit}/masks'
        self._check_protocol(Path(str(data_root)).resolve())
        self.missing_tiles = missing_tiles
        self.header_checks = header_checks
        source = dict(city=self.city, protocol=self.protocol.name, split=split, clean=False, labels=self.label_kind)
        super().__init__(
            data_root=str(data_root),
            metainfo=dict(source=source),
            data_prefix=dict(),
            pipeline=list(pipeline),
            test_mode=test_mode,
            indices=indices,
            serialize_data=serialize_data,
            lazy_init=lazy_init,
            ignore_index=IGNORE_INDEX,
            max_refetch=1,
        )

    def class_pixels(self) -> np.ndarray:
        """Pixels of each class in the tiles or crops of this split, (2,) int64, from `manifest.json`.

        Raises:
            ConfigError: The split is held out, and no test runs.
            DataError: The file is missing, or lacks a tile of this split.
        """
        if self.held_out:
            require_open(f'{type(self).__name__}: {self.where()}')
        path = Path(self.data_root) / _MANIFEST
        try:
            parts = json.loads(path.read_text(encoding='utf-8'))['parts']
            tiles = [tile for tile in self.tiles if tile in parts or self.missing_tiles == 'error']
            pixels = np.array([parts[tile]['pixels'] for tile in tiles], np.int64)
        except OSError as error:
            raise DataError(f'{path}: cannot be read ({error.strerror}); {self.prepare_hint}') from None
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f'{path}: has no pixel counts of {error} for split {self.split!r}; {self.prepare_hint}'
            ) from None
        return pixels.reshape(-1, len(inria.CLASSES)).sum(axis=0)

    def load_data_list(self) -> list[dict]:
        """Data infos of mmengine for the files of the split's tiles, by name, after a look at the headers."""
        if self.held_out:
            require_open(f'{type(self).__name__}: {self.where()}')
        return [
            dict(img_path=str(image), seg_map_path=str(label), reduce_zero_label=False, label_map=None)
            for image, label in self.list_pairs()
        ]

    def get_data_info(self, idx: int) -> dict:
        """Data info of one sample, with what `LoadBinaryLabels` needs."""
        return {**super().get_data_info(idx), 'seg_fields': []}

    def tile_of(self, stem: str) -> str | None:
        """Tile of a prepared file."""
        return inria.tile_of(stem)

    def where(self) -> str:
        """Split and protocol, for messages."""
        return f'split {self.split!r} of {self.city} under protocol {self.protocol.name!r}'

    def _check_protocol(self, root: Path) -> None:
        """Raises ConfigError where files to read are of a folder that was prepared for another protocol."""
        folders = {root: None}
        for name in (self.image_dir, self.label_dir):
            folder = (root / name).resolve()
            folders |= dict.fromkeys((folder, *list(folder.parents)[:_ABOVE]))
        for folder in folders:
            others = _prepared_for(folder / _MANIFEST) - {self.protocol.name}
            if others:
                raise ConfigError(
                    f'{type(self).__name__}: protocol={self.protocol.name!r}, but {folder} was prepared for '
                    f'{", ".join(map(repr, sorted(others)))} ({_MANIFEST}), which has other splits; set protocol='
                    f'{sorted(others)[0]!r}, or data_root to a folder that is made with "python data_prep/inria.py '
                    f'{self.protocol.name} SOURCE OUT"'
                )

    def _unit_of(self, unit: str | None) -> str:
        if self.protocol.name == FEW_SHOT:
            if unit is not None:
                raise ConfigError(f'unit={unit!r}: protocol {FEW_SHOT!r} has one crop a tile; leave `unit` out')
            return _CROPS
        return unit or ('windows' if self.split == 'train' else 'tiles')


def _prepared_for(manifest: Path) -> set[str]:
    """Protocols that a manifest says its tiles were prepared for; none without one, or where it is of other data.

    Raises:
        DataError: It cannot be read.
    """
    try:
        content = json.loads(manifest.read_text(encoding='utf-8'))
    except (FileNotFoundError, NotADirectoryError):
        return set()
    except (OSError, ValueError) as error:
        raise DataError(
            f'{manifest}: cannot be read ({error}), so the protocol of the folder is not known; prepare it again'
        ) from None
    parts = content.get('parts') if isinstance(content, dict) else None
    entries = parts.values() if isinstance(parts, dict) else ()
    kinds = {str(entry.get('kind')) for entry in entries if isinstance(entry, dict)}
    return {kind.removeprefix(_KIND) for kind in kinds if kind.startswith(_KIND)}
