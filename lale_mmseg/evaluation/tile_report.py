"""Scores of one class in each tile and each city, beside those of the whole data set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from os import PathLike
from pathlib import Path

import numpy as np
from prettytable import PrettyTable

from ..files import write_atomic
from .confusion import counted_matrix
from .report import EvaluationReport, csv_text

#: Files that `TileReport.write` makes beside those of `EvaluationReport`.
TILE_FILES = ('per_tile.csv', 'per_city.csv')
#: Tiles that the printed report names.
_WORST = 3


@dataclass(frozen=True)
class RegionScore:
    """Scores of one class in a tile or a city, in percent.

    Attributes:
        city: Its city, or None where tiles have none.
        iou: None where neither labels nor predictions have the class.
        f1: As `iou`.
        accuracy: Share of right pixels, of all classes; None where no pixel is labelled.
        label_pixels: Counted pixels that are labelled as the class.
        predicted_pixels: Counted pixels that are predicted as the class.
        pixels: All counted pixels.
    """

    city: str | None
    iou: float | None
    f1: float | None
    accuracy: float | None
    label_pixels: int
    predicted_pixels: int
    pixels: int

    @classmethod
    def of(cls, matrix: np.ndarray, index: int, city: str | None) -> RegionScore:
        """Scores of class `index` from a (C, C) matrix; row = label, column = prediction."""
        labelled, predicted = int(matrix[index].sum()), int(matrix[:, index].sum())
        hits, pixels = int(matrix[index, index]), int(matrix.sum())
        either = labelled + predicted - hits
        return cls(
            city=city,
            iou=100 * hits / either if either else None,
            f1=200 * hits / (labelled + predicted) if either else None,
            accuracy=100 * int(np.trace(matrix)) / pixels if pixels else None,
            label_pixels=labelled,
            predicted_pixels=predicted,
            pixels=pixels,
        )

    def to_dict(self) -> dict:
        """As in metrics.json and in the columns of per_tile.csv."""
        names = ('city', 'IoU', 'F1', 'OA', 'label_pixels', 'predicted_pixels', 'pixels')
        return dict(zip(names, vars(self).values(), strict=True))


@dataclass(frozen=True, eq=False)
class TileReport(EvaluationReport):
    """Scores of one evaluation with those of one class in each tile and each city.

    Attributes:
        tile_class: Index of the class that tiles are scored by.
        tile_matrices: (C, C) int64 pixel counts of each tile, by name.
        tile_cities: City of each tile; tiles without one are left out.
    """

    tile_class: int = 0
    tile_matrices: Mapping[str, np.ndarray] = field(default_factory=dict)
    tile_cities: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def tiles(self) -> dict[str, RegionScore]:
        """Scores of each tile, by name."""
        return {
            tile: RegionScore.of(counted_matrix(matrix, self.rules), self.tile_class, self.tile_cities.get(tile))
            for tile, matrix in self.tile_matrices.items()
        }

    @cached_property
    def cities(self) -> dict[str, RegionScore]:
        """Scores of each city from the summed counts of its tiles, by name."""
        sums: dict[str, np.ndarray] = {}
        for tile, city in self.tile_cities.items():
            sums[city] = sums.get(city, 0) + counted_matrix(self.tile_matrices[tile], self.rules)
        return {city: RegionScore.of(matrix, self.tile_class, city) for city, matrix in sums.items()}

    @property
    def ranked(self) -> list[tuple[str, float]]:
        """(tile, IoU) of the tiles that have an IoU, from the worst."""
        scored = [(tile, score.iou) for tile, score in self.tiles.items() if score.iou is not None]
        return sorted(scored, key=lambda pair: (pair[1], pair[0]))

    @property
    def worst_tile(self) -> tuple[str, float] | None:
        """The tile of the lowest IoU, and its IoU; None where no tile has one."""
        return self.ranked[0] if self.ranked else None

    def metrics(self) -> dict[str, float]:
        """Those of `EvaluationReport`, then the mean IoU of tiles, the worst, and IoU, F1 and OA of each city.

        Names are `tile_IoU_mean`, `worst_tile_IoU`, `IoU_city/<city>`, `F1_city/<city>` and `OA_city/<city>`; what has
        no score is left out.
        """
        values = super().metrics()
        if self.ranked:
            values['tile_IoU_mean'] = sum(iou for _, iou in self.ranked) / len(self.ranked)
            values['worst_tile_IoU'] = self.ranked[0][1]
        for city, score in self.cities.items():
            for name, value in (('IoU', score.iou), ('F1', score.f1), ('OA', score.accuracy)):
                if value is not None:
                    values[f'{name}_city/{city}'] = value
        return values

    def text(self) -> str:
        """The text of `EvaluationReport`, a table of cities, and the worst tiles."""
        name = self.classes[self.tile_class]
        parts = [super().text()]
        if self.cities:
            table = PrettyTable(['city', 'tiles', f'IoU {name}', f'F1 {name}', 'OA'])
            table.align = 'r'
            table.align['city'] = 'l'
            for city, score in self.cities.items():
                shown = ('-' if value is None else f'{value:.2f}' for value in (score.iou, score.f1, score.accuracy))
                table.add_row([city, self._tiles_of(city), *shown])
            parts.append(table.get_string())
        if self.ranked:
            worst = ', '.join(f'{tile} {iou:.2f}' for tile, iou in self.ranked[:_WORST])
            parts.append(f'worst of {len(self.ranked)} tiles by IoU of {name}: {worst}')
        return '\n'.join(parts)

    def to_dict(self) -> dict:
        """That of `EvaluationReport`, with `tile_class`, `tiles`, `cities` and `worst_tile`."""
        worst = self.worst_tile
        return {
            **super().to_dict(),
            'tile_class': self.classes[self.tile_class],
            'tiles': {tile: score.to_dict() for tile, score in self.tiles.items()},
            'cities': {city: self._city_row(city) for city in self.cities},
            'worst_tile': None if worst is None else {'tile': worst[0], 'IoU': worst[1]},
        }

    def write(self, folder: str | PathLike[str]) -> None:
        """Writes the files of `EvaluationReport`, per_tile.csv, and per_city.csv (without rows if there are none)."""
        super().write(folder)
        tile_rows = [dict(tile=tile, **score.to_dict()) for tile, score in self.tiles.items()]
        city_rows = [dict(city=city, **self._city_row(city)) for city in self.cities]
        scores = ['IoU', 'F1', 'OA', 'label_pixels', 'predicted_pixels', 'pixels']
        headers = (['tile', 'city', *scores], ['city', 'tiles', *scores])
        for name, header, rows in zip(TILE_FILES, headers, (tile_rows, city_rows), strict=True):
            table = [header, *([row[column] for column in header] for row in rows)]
            write_atomic(Path(folder) / name, csv_text(table))

    def _tiles_of(self, city: str) -> int:
        return sum(each == city for each in self.tile_cities.values())

    def _city_row(self, city: str) -> dict:
        row = self.cities[city].to_dict()
        del row['city']
        return {'tiles': self._tiles_of(city), **row}
