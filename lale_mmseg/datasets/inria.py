"""Inria Aerial Image Labeling under its own protocol, and under that of few-shot roofs."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from mmseg.registry import DATASETS

from ..errors import ConfigError, DataError
from ..metainfo import IGNORE_INDEX, inria
from ..metainfo.protocols import find_protocol
from .protocol_dataset import SPLITS, UNITS, ProtocolDataset, require

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
    and `source` with city ('inria'), protocol, split, kind of labels, tiles and missing tiles; for crops also
    `published`: whether they are those of the published protocol, as the manifest says (None where it does not).

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
        self._check_protocol(Path(str(data_root)))
        self.missing_tiles = missing_tiles
        self.header_checks = header_checks
        self.counts = (_MANIFEST, 'parts', 'pixels')
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

    def load_data_list(self) -> list[dict]:
        """Data infos of mmengine for the files of the split's tiles, by name, after a look at the headers."""
        pairs = self.list_pairs()
        if self.protocol.name == FEW_SHOT:
            notes = _read_manifest(Path(self.data_root) / _MANIFEST).get('notes') or {}
            self._metainfo['source']['published'] = notes.get('published')
        return [
            dict(img_path=str(image), seg_map_path=str(label), reduce_zero_label=False, label_map=None)
            for image, label in pairs
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
        found = prepared_for(root, above=0) | prepared_for(root / self.image_dir, root / self.label_dir)
        for folder, protocols in found.items():
            others = protocols - {self.protocol.name}
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


def prepared_for(*folders: Path, above: int = _ABOVE) -> dict[Path, set[str]]:
    """Folders that `data_prep/inria.py` made, with the protocols that it prepared their tiles for.

    Args:
        folders: Folders of files, each of which may be one or lie in one; links are followed, too.
        above: How deep.

    Raises:
        DataError: A manifest cannot be read.
    """
    starts = [start for folder in folders for start in (folder.absolute(), folder.resolve())]
    places = dict.fromkeys(place for start in starts for place in (start, *list(start.parents)[:above]))
    found = {place: _protocols_of(place / _MANIFEST) for place in places}
    return {folder: protocols for folder, protocols in found.items() if protocols}


def _protocols_of(manifest: Path) -> set[str]:
    """Protocols that a manifest says its tiles were prepared for; none without one, or where it is of other data."""
    parts = _read_manifest(manifest).get('parts')
    entries = parts.values() if isinstance(parts, dict) else ()
    kinds = {str(entry.get('kind')) for entry in entries if isinstance(entry, dict)}
    return {kind.removeprefix(_KIND) for kind in kinds if kind.startswith(_KIND)}


def _read_manifest(path: Path) -> dict[str, Any]:
    """What a manifest says; nothing without one.

    Raises:
        DataError: It cannot be read.
    """
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError) as error:
        raise DataError(
            f'{path}: cannot be read ({error}), so the protocol of the folder is not known; prepare it again'
        ) from None
    return content if isinstance(content, dict) else {}
