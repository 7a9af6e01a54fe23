"""Scores of each tile and each city of a dataset, and their means over tiles.

A pooled score sums the pixels of all tiles first; the mean over tiles gives every tile the same weight, as studies on
few tiles report it. The two differ, so both are reported under names of their own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from prettytable import PrettyTable

from ..errors import DataError
from .confusion import ScoringRules, class_scores, counted_matrix

if TYPE_CHECKING:
    import pandas as pd

#: Tiles that get a scalar of their own in the flat result; more would flood the log.
_MAX_SCALARS = 64
#: Tiles that the printed report names.
_WORST = 3


@dataclass(frozen=True, eq=False)
class TileScores:
    """Confusion matrices by tile, and the scores computed from them.

    IoU and F1 of a tile are means over the scored classes that occur in its labels or predictions: for two classes
    over the last scored class alone, such as building. A tile without any of them has no IoU and no F1, and is in no
    mean. One where a class is predicted and not labelled has IoU 0 for it.

    Attributes:
        matrices: (C, C) int64 pixel counts by tile, in natural order of names.
        cities: City by tile; tiles of no known city are left out.
        classes: Names of the C classes.
        rules: Which classes are averaged and which pixels are excluded.
    """

    matrices: Mapping[str, np.ndarray]
    cities: Mapping[str, str]
    classes: tuple[str, ...]
    rules: ScoringRules

    @property
    def scored(self) -> tuple[int, ...]:
        """Indexes of the classes that tiles are scored by."""
        return self.rules.averaged if len(self.classes) > 2 else self.rules.averaged[-1:]

    @cached_property
    def per_tile(self) -> pd.DataFrame:
        """One row per tile: city, IoU, F1, OA in percent (NaN where undefined), and pixel counts.

        Where several classes are scored, each has a column `IoU/<class>`, too.
        """
        import pandas as pd  # where tables are made, since it delays the start of every tool

        rows = {tile: {'city': self.cities.get(tile)} | self._scores(m) for tile, m in self.matrices.items()}
        return pd.DataFrame.from_dict(rows, orient='index').rename_axis('tile')

    @cached_property
    def per_city(self) -> pd.DataFrame:
        """One row per city, from the summed pixels of its tiles; no rows if tiles have no cities."""
        import pandas as pd

        rows = {}
        for city in dict.fromkeys(self.cities.values()):
            own = [matrix for tile, matrix in self.matrices.items() if self.cities.get(tile) == city]
            rows[city] = {'tiles': len(own)} | self._scores(np.sum(own, axis=0))
        columns = ['tiles', 'IoU', 'F1', 'OA', 'label_pixels', 'predicted_pixels', 'pixels']
        return pd.DataFrame.from_dict(rows, orient='index', columns=columns).rename_axis('city')

    @property
    def ranked(self) -> pd.Series:
        """IoU of the tiles that have one, the lowest first."""
        return self.per_tile['IoU'].astype(float).dropna().sort_values(kind='stable')

    def metrics(self) -> dict[str, float]:
        """`mean_tile_IoU`, `mean_tile_F1`, `worst_tile_IoU`; scores of each city; `tile_IoU/<tile>` of few tiles."""
        values: dict[str, float] = {}
        ranked = self.ranked
        if len(ranked):
            values['mean_tile_IoU'] = float(ranked.mean())
            values['mean_tile_F1'] = float(self.per_tile['F1'].astype(float).mean())
            values['worst_tile_IoU'] = float(ranked.iloc[0])
        for city, row in self.per_city[['IoU', 'F1', 'OA']].iterrows():
            values |= {f'{name}_city/{city}': float(value) for name, value in row.items() if not np.isnan(value)}
        if len(self.matrices) <= _MAX_SCALARS:
            own = ranked.reindex([tile for tile in self.matrices if tile in ranked])
            values |= {f'tile_IoU/{tile}': float(value) for tile, value in own.items()}
        return values

    def text_lines(self) -> list[str]:
        """A table of cities, the means over tiles and the worst tiles."""
        lines = []
        names = ', '.join(self.classes[index] for index in self.scored)
        if len(self.per_city):
            table = PrettyTable(['city', 'tiles', 'IoU', 'F1', 'OA'], align='r')
            table.align['city'] = 'l'
            for city, row in self.per_city.iterrows():
                cells = ('-' if np.isnan(row[name]) else f'{row[name]:.2f}' for name in ('IoU', 'F1', 'OA'))
                table.add_row([city, int(row['tiles']), *cells])
            lines.append(table.get_string())
        ranked = self.ranked
        if len(ranked):
            values = self.metrics()
            worst = ', '.join(f'{tile} {iou:.2f}' for tile, iou in ranked.iloc[:_WORST].items())
            lines.append(
                f'mean over {len(ranked)} tiles ({names}): IoU {values["mean_tile_IoU"]:.2f}, '
                f'F1 {values["mean_tile_F1"]:.2f}; worst tiles by IoU: {worst}'
            )
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Entries of metrics.json: `tile_classes`, `tiles`, `cities` and the means over tiles."""
        values = self.metrics()
        means = {name: values.get(name) for name in ('mean_tile_IoU', 'mean_tile_F1', 'worst_tile_IoU')}
        return {
            'tile_classes': [self.classes[index] for index in self.scored],
            'tiles': plain_rows(self.per_tile),
            'cities': plain_rows(self.per_city),
            **means,
        }

    def _scores(self, matrix: np.ndarray) -> dict[str, Any]:
        counted = counted_matrix(matrix, self.rules)
        scores = class_scores(counted)
        kept = [index for index in self.scored if not scores.absent[index]]
        pixels = int(counted.sum())
        own = self.scored if len(self.scored) > 1 else ()
        return dict(
            IoU=float(scores.iou[kept].mean()) if kept else np.nan,
            F1=float(scores.f1[kept].mean()) if kept else np.nan,
            OA=100 * int(np.trace(counted)) / pixels if pixels else np.nan,
            label_pixels=int(counted[list(self.scored)].sum()),
            predicted_pixels=int(counted[:, list(self.scored)].sum()),
            pixels=pixels,
        ) | {f'IoU/{self.classes[k]}': float(scores.iou[k]) if k in kept else np.nan for k in own}


def plain_rows(table: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """A table as {row name: {column: value}} of JSON types; NaN becomes None."""
    import pandas as pd

    return {
        str(name): {column: None if pd.isna(value) else value for column, value in row.items()}
        for name, row in table.to_dict(orient='index').items()
    }


def group_by_tile(
    images: Sequence[tuple[str, np.ndarray]], pattern: re.Pattern[str] | None
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Sums the confusion matrices of images by tile.

    Args:
        images: (path, (C, C) matrix) of each image.
        pattern: Matches the stem of an image, with a group `tile` and optionally a group `city`; without a pattern
            every image is a tile of its own, named by its stem (by its path where stems repeat).

    Returns:
        Matrices by tile in natural order (austin2 before austin10), and cities by tile.
    """
    matrices: dict[str, np.ndarray] = {}
    cities: dict[str, str] = {}
    stems = [Path(path).stem for path, _ in images]
    unique = len(set(stems)) == len(stems)
    for (path, matrix), stem in zip(images, stems, strict=True):
        tile, city = stem if unique else path, None
        if pattern is not None:
            tile, city = tile_of(path, pattern)
        if city:
            cities[tile] = city
        matrices[tile] = matrices[tile] + matrix if tile in matrices else matrix
    order = sorted(matrices, key=natural_key)
    return {tile: matrices[tile] for tile in order}, {tile: cities[tile] for tile in order if tile in cities}


def tile_of(path: str, pattern: re.Pattern[str]) -> tuple[str, str | None]:
    """Tile and city of an image, from the stem of its file.

    Raises:
        DataError: The name does not match the pattern.
    """
    match = pattern.fullmatch(Path(path).stem)
    if match is None:
        raise DataError(f'{path}: the file name does not match tile_pattern {pattern.pattern!r}')
    return match['tile'], match.groupdict().get('city')


def natural_key(name: str) -> list[tuple[int, str]]:
    """Sort key that puts austin2 before austin10."""
    return [(int(part), '') if part.isdigit() else (-1, part) for part in re.split(r'(\d+)', name) if part]
