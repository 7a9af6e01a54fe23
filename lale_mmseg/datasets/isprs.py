"""ISPRS Potsdam and Vaihingen under a published protocol."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from mmseg.registry import DATASETS

from ..metainfo import IGNORE_INDEX, isprs
from ..metainfo.protocols import find_protocol
from .protocol_dataset import SPLITS, UNITS, ProtocolDataset, require


@DATASETS.register_module()
class ISPRSProtocolDataset(ProtocolDataset):
    """Potsdam (38 tiles of 6000x6000, 5 cm) or Vaihingen (33 tiles, 9 cm) with the tiles and labels of a protocol.

    Classes: 0 impervious_surface, 1 building, 2 low_vegetation, 3 tree, 4 car, 5 clutter; 255 is ignored (boundary
    pixels of eroded labels). A protocol that does not train clutter has five classes, and clutter becomes 255.

    The split of a file follows from the tile in its name, so one prepared folder serves every protocol, and no window
    of a validation or test tile can get into training. Layout, as `data_prep/isprs.py` writes it::

        data_root/
          statistics.json                                      pixels of each class, for `class_weight='data'`
          windows/{images,labels_full,labels_eroded}/TILE_X0_Y0_X1_Y1.png     for training
          tiles/{images,labels_full,labels_eroded}/TILE.tif                   for validation and test

    `metainfo['source']` has dataset, protocol, split, clean, kind of labels, tiles and missing tiles, so that saved
    scores state which data they belong to.

    Citation: ISPRS 2D Semantic Labeling Contest, https://www.isprs.org/education/benchmarks/UrbanSemLab/.

    Args:
        data_root: Folder of the dataset; filled in from the config's top-level `data_root` if left out.
        benchmark: 'potsdam' or 'vaihingen'.
        protocol: Name or letter of a protocol of `lale_mmseg.metainfo.protocols`.
        split: 'train', 'val' or 'test'.
        clean: Take validation tiles out of the training tiles where the published protocol validates on its test tiles.
        unit: 'windows' or 'tiles'; by default windows in training and whole tiles otherwise, where each pixel is scored
            once (windows may overlap).
        image_dir: Folder of the images below `data_root`; as above by default.
        label_dir: Folder of the labels below `data_root`; as above, by the labels of the protocol, by default.
        reduce_zero_label: Index masks count from 1 and 0 is ignored, as mmsegmentation's converters write them.
        missing_tiles: 'error' if a tile of the split without any file is an error, 'skip' to continue without it.
        unknown: Treatment of colours outside the palette in RGB labels: 'error' or 'ignore'.
        header_checks: See `PaletteDataset`.
        pipeline: Transforms, beginning with `LoadBands` and `LoadLabels`.
        test_mode, indices, serialize_data, lazy_init: See `PaletteDataset`.

    Raises:
        ConfigError: An argument is not one of the known values, or the protocol is not defined for the benchmark.
        DataError: Files are missing, empty, duplicated or of unequal size; names them.
    """

    METAINFO = dict(classes=isprs.CLASSES, palette=[list(color) for color in isprs.COLORS])

    def __init__(
        self,
        data_root: str | None = None,
        benchmark: Literal['potsdam', 'vaihingen'] = 'potsdam',
        protocol: str = 'geoseg',
        split: Literal['train', 'val', 'test'] = 'train',
        clean: bool = False,
        unit: Literal['windows', 'tiles'] | None = None,
        image_dir: str | None = None,
        label_dir: str | None = None,
        reduce_zero_label: bool = False,
        missing_tiles: Literal['error', 'skip'] = 'error',
        unknown: Literal['error', 'ignore'] = 'error',
        header_checks: int = 1000,
        pipeline: Sequence[dict | Callable] = (),
        test_mode: bool = False,
        indices: int | Sequence[int] | None = None,
        serialize_data: bool = True,
        lazy_init: bool = False,
    ) -> None:
        require('benchmark', benchmark, isprs.TILES)
        require('split', split, SPLITS)
        require('unit', unit, (None, *UNITS))
        require('missing_tiles', missing_tiles, ('error', 'skip'))
        require('unknown', unknown, ('error', 'ignore'))
        found = find_protocol(protocol)
        self.unknown = unknown
        labels = found.train_labels if split == 'train' else found.test_labels
        folder = unit or ('windows' if split == 'train' else 'tiles')
        count = len(found.classes)
        super().__init__(
            benchmark=benchmark,
            protocol=found,
            split=split,
            clean=clean,
            data_root=data_root,
            unit=folder,
            image_dir=image_dir or f'{folder}/images',
            label_dir=label_dir or f'{folder}/labels_{labels}',
            missing_tiles=missing_tiles,
            header_checks=header_checks,
            counts=('statistics.json', 'tiles', labels),
            prepare_hint=f'prepare it with "python data_prep/isprs.py {benchmark} DOWNLOADS OUT"',
            metainfo=dict(classes=isprs.CLASSES[:count], palette=[list(color) for color in isprs.COLORS[:count]]),
            reduce_zero_label=reduce_zero_label,
            pipeline=list(pipeline),
            test_mode=test_mode,
            indices=indices,
            serialize_data=serialize_data,
            lazy_init=lazy_init,
        )

    def load_data_list(self) -> list[dict]:
        """Data infos of mmengine for the files of the split's tiles, sorted by name."""
        label_map = dict.fromkeys(range(len(self.metainfo['classes']), len(isprs.CLASSES)), IGNORE_INDEX)
        return [
            dict(
                img_path=str(image),
                seg_map_path=str(label),
                reduce_zero_label=self.reduce_zero_label,
                label_map=label_map or None,
            )
            for image, label in self.list_pairs()
        ]

    def get_data_info(self, idx: int) -> dict:
        """Data info of one sample, with the fields that `LoadLabels` reads."""
        info = super().get_data_info(idx)
        return {**info, 'seg_fields': [], 'palette': isprs.palette_of(self.label_kind), 'unknown': self.unknown}

    def tile_of(self, stem: str) -> str | None:
        """Tile of a prepared file, or of one written by mmsegmentation's converters."""
        return isprs.tile_of(self.benchmark, stem)
