"""Inria Aerial Image Labeling under its own protocol and under that of few-shot roofs."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from mmseg.registry import DATASETS

from ..errors import ConfigError
from ..metainfo import inria
from ..metainfo.protocols import find_protocol
from .protocol_dataset import SPLITS, UNITS, ProtocolDataset, require

FULL, FEW_SHOT = (protocol.name for protocol in inria.PROTOCOLS)
_MANIFEST = 'manifest.json'


@DATASETS.register_module()
class InriaDataset(ProtocolDataset):
    """Buildings in 180 tiles of 5000x5000 pixels, RGB, 30 cm: 36 each of austin, chicago, kitsap, tyrol-w and vienna.

    Classes: 0 background, 1 building. Labels on disk are 0 and 255; `LoadBinaryLabels` turns them into indexes.

    The split of a file follows from the tile in its name, so no window of a validation tile can get into training.
    Layout, as `data_prep/inria.py` writes it; the first three belong to protocol 'full', `crops/` to 'few-shot'::

        data_root/
          windows/{images,masks}/TILE_X0_Y0_X1_Y1.png      for training
          tiles/{images,masks}/TILE.tif                    whole, for validation
          manifest.json                                    pixels of each class, for `class_weight='data'`
          crops/images/TILE.jpg  crops/masks/TILE.png      one 1024x1024 crop per tile, for all splits

    The test split of 'few-shot' is held out (see `engine.held_out`). 'full' has no test split here, as its labels are
    not published.

    `metainfo` has `tile_pattern`, a regular expression whose groups `tile` and `city` match the file names, and the
    `source` of `ProtocolDataset`; for crops also `published`: whether they were cut as the protocol was published,
    from the manifest (None if it does not state it).

    Citation: Maggiori et al., Can semantic labeling methods generalize to any city? The Inria Aerial Image Labeling
    benchmark, IGARSS 2017, https://project.inria.fr/aerialimagelabeling/.

    Args:
        data_root: Folder of the dataset; filled in from the config's top-level `data_root` if left out.
        protocol: 'full' or 'few-shot' ('E' or 'F').
        split: 'train', 'val' or, under 'few-shot', 'test'.
        unit: 'windows' or 'tiles' under 'full'; by default windows in training and whole tiles otherwise, where each
            pixel is scored once (windows may overlap). Crops have no other unit.
        image_dir: Folder of the images below `data_root`; as above by default.
        label_dir: Folder of the labels below `data_root`; as above by default.
        missing_tiles: 'error' if a tile of the split without any file is an error, 'skip' to continue without it.
        header_checks: See `PaletteDataset`.
        pipeline: Transforms, beginning with `LoadBands` and `LoadBinaryLabels`.
        test_mode, indices, serialize_data, lazy_init: See `PaletteDataset`.

    Raises:
        ConfigError: An argument is not one of the known values, the protocol is not defined for Inria, `unit` is
            given for crops, or the labels of the split are not published.
        DataError: Files are missing, empty, duplicated or of unequal size; names them.
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
        found = find_protocol(protocol)
        if not getattr(found.split(inria.DATASET), split):
            raise ConfigError(
                f'split={split!r} of {inria.DATASET} under protocol {found.name!r}: its labels are not published; '
                "score split='val' here, and predict the hidden cities with tools/analysis/inria_submission.py"
            )
        if found.name == FEW_SHOT and unit is not None:
            raise ConfigError(f'unit={unit!r}: protocol {FEW_SHOT!r} has one crop per tile; leave `unit` out')
        default_unit = 'windows' if split == 'train' else 'tiles'
        folder = 'crops' if found.name == FEW_SHOT else unit or default_unit
        super().__init__(
            benchmark=inria.DATASET,
            protocol=found,
            split=split,
            clean=False,
            data_root=data_root,
            unit=folder,
            image_dir=image_dir or f'{folder}/images',
            label_dir=label_dir or f'{folder}/masks',
            missing_tiles=missing_tiles,
            header_checks=header_checks,
            counts=(_MANIFEST, 'parts', 'pixels'),
            prepare_hint=f'prepare it with "python data_prep/inria.py {found.name} SOURCE OUT"',
            pipeline=list(pipeline),
            test_mode=test_mode,
            indices=indices,
            serialize_data=serialize_data,
            lazy_init=lazy_init,
        )

    def load_data_list(self) -> list[dict]:
        """Data infos of mmengine for the files of the split's tiles, sorted by name."""
        pairs = self.list_pairs()
        manifest = Path(self.data_root) / _MANIFEST
        if self.protocol.name == FEW_SHOT and manifest.is_file():
            notes = json.loads(manifest.read_text(encoding='utf-8')).get('notes') or {}
            self._metainfo['source']['published'] = notes.get('published')
        return [
            dict(img_path=str(image), seg_map_path=str(label), reduce_zero_label=False, label_map=None)
            for image, label in pairs
        ]

    def get_data_info(self, idx: int) -> dict:
        """Data info of one sample, with the fields that `LoadBinaryLabels` reads."""
        return {**super().get_data_info(idx), 'seg_fields': []}

    def tile_of(self, stem: str) -> str | None:
        """Tile of a prepared file."""
        return inria.tile_of(stem)
