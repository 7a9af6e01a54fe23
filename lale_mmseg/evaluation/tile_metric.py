"""`SegmentationMetric` that also scores one class in each tile and each city."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dist import all_gather_object
from mmseg.registry import METRICS

from ..errors import ConfigError, DataError
from .report import BoundaryResult, EvaluationReport
from .segmentation_metric import SegmentationMetric, _Counts, _Scored
from .tile_report import TileReport


@METRICS.register_module()
class TileSegmentationMetric(SegmentationMetric):
    """`SegmentationMetric` with IoU, F1 and OA of one class in each tile and each city.

    Windows of a tile are summed before it is scored, and so are the tiles of a city. Counts are exact on any number of
    processes. A tile where neither label nor prediction has the class has no IoU and no F1: it is not the worst tile,
    and not in the mean of tiles. One where the class is predicted and not labelled has IoU 0.

    The result has the names of `SegmentationMetric`, then `tile_IoU_mean`, `worst_tile_IoU` and, where tiles have
    cities, `IoU_city/<city>`, `F1_city/<city>` and `OA_city/<city>`. `report` is a `TileReport`, which also writes
    per_tile.csv and per_city.csv.

    Args:
        class_name: Class that tiles are scored by; the last of the averaged classes by default.
        tile_pattern: Regular expression of the whole name of an image file without suffix, with a group `tile` and
            maybe a group `city`. By default that of the data set (`tile_pattern` of its metainfo); where it has none,
            every image is a tile.
        ignore_index, score_classes, output_dir, pred_dir, prefix, protocol, boundary_tolerance: As of
            `SegmentationMetric`.

    Raises:
        ConfigError: `class_name` is no class of the data set, or `tile_pattern` is no regular expression or has no
            group `tile`.
        DataError: The name of an image does not match the pattern, or an image has no path.
    """

    def __init__(
        self,
        class_name: str | None = None,
        tile_pattern: str | None = None,
        ignore_index: int = 255,
        score_classes: Sequence[str | int] | None = None,
        output_dir: str | None = None,
        pred_dir: str | None = None,
        prefix: str | None = None,
        protocol: str | None = None,
        boundary_tolerance: int | None = None,
    ) -> None:
        super().__init__(
            ignore_index=ignore_index,
            score_classes=score_classes,
            output_dir=output_dir,
            pred_dir=pred_dir,
            prefix=prefix,
            protocol=protocol,
            boundary_tolerance=boundary_tolerance,
        )
        self.class_name = class_name
        self.tile_pattern = None if tile_pattern is None else _compiled(tile_pattern)

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Scores a batch; arguments as of `SegmentationMetric`, and every sample has its `img_path`."""
        self._tile_class(self._classes())  # an unknown class is told before anything is counted
        for data_sample in data_samples:
            self._tile_of(str(data_sample.get('img_path') or ''))
        super().process(data_batch, data_samples)

    def _reset(self) -> None:
        super()._reset()
        #: Counts by (tile, city); without a pattern by (path of the image, None).
        self._tile_counts: dict[tuple[str, str | None], np.ndarray] = {}

    def _count_image(self, scored: _Scored) -> None:
        key = self._tile_of(scored.img_path)
        self._tile_counts[key] = self._tile_counts.get(key, 0) + scored.counts.matrix

    def _report(self, total: _Counts, classes: tuple[str, ...], boundary: BoundaryResult | None) -> TileReport:
        report = super()._report(total, classes, boundary)
        counts = self._all_tile_counts()
        return TileReport(
            **{entry.name: getattr(report, entry.name) for entry in fields(EvaluationReport)},
            tile_class=self._tile_class(classes),
            tile_matrices={tile: matrix for (tile, _), matrix in counts.items()},
            tile_cities={tile: city for tile, city in counts if city is not None},
        )

    def _all_tile_counts(self) -> dict[tuple[str, str | None], np.ndarray]:
        """Counts of all processes by (tile, city), in natural order of names."""
        counts: dict[tuple[str, str | None], np.ndarray] = {}
        for of_rank in all_gather_object(self._tile_counts):
            for key, matrix in of_rank.items():
                counts[key] = counts.get(key, 0) + matrix
        if self._pattern() is None:
            names = _short_names([path for path, _ in counts])
            counts = {(names[path], None): matrix for (path, _), matrix in counts.items()}
        return dict(sorted(counts.items(), key=lambda item: natural_key(item[0][0])))

    def _tile_of(self, img_path: str) -> tuple[str, str | None]:
        if not img_path:
            raise DataError(f'{type(self).__name__}: the data samples have no img_path to know their tiles by')
        pattern = self._pattern()
        if pattern is None:
            return img_path, None
        match = pattern.fullmatch(Path(img_path).stem)
        if match is None:
            raise DataError(
                f'{img_path}: its name does not match tile_pattern {pattern.pattern!r}, so its tile is open'
            )
        groups = match.groupdict()
        return groups['tile'], groups.get('city')

    def _pattern(self) -> re.Pattern[str] | None:
        if self.tile_pattern is not None:
            return self.tile_pattern
        of_data = (self.dataset_meta or {}).get('tile_pattern')
        return None if of_data is None else _compiled(of_data)

    def _tile_class(self, classes: tuple[str, ...]) -> int:
        if self.class_name is None:
            return self._rules(classes).averaged[-1]
        if self.class_name not in classes:
            raise ConfigError(
                f'class_name={self.class_name!r} is not a class of the data set; known: {", ".join(classes)}'
            )
        return classes.index(self.class_name)


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ConfigError(f'tile_pattern={pattern!r} is not a regular expression: {error}') from None
    if 'tile' not in compiled.groupindex:
        raise ConfigError(f'tile_pattern={pattern!r} has no group (?P<tile>...)')
    return compiled


def _short_names(paths: Sequence[str]) -> dict[str, str]:
    """Stems of paths where they differ, else the whole paths."""
    stems = [Path(path).stem for path in paths]
    return dict(zip(paths, stems if len(set(stems)) == len(stems) else paths, strict=True))


def natural_key(name: str) -> list[tuple[int, str]]:
    """Key to sort names by, austin2 before austin10."""
    return [(int(part), '') if part.isdigit() else (-1, part) for part in re.split(r'(\d+)', name) if part]
