"""One set of predictions under all protocols: `python tools/analysis/compare_protocols.py PREDICTIONS DATA_ROOT`.

Numbers are comparable inside one protocol only. This shows how far the protocols alone move them: the same predictions
of the same tiles, with the labels that each protocol tests on, the pixels that it counts and the classes that it
averages.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import _cli

from lale_mmseg.datasets.image_io import checked_indexes, decode_label_image, read_bytes
from lale_mmseg.errors import ConfigError, DataError
from lale_mmseg.evaluation import EvaluationReport, confusion_matrix
from lale_mmseg.evaluation.boundary import COUNTS, boundary_counts, check_tolerance, has_boundaries, pixels_of
from lale_mmseg.evaluation.confusion import protocol_rules
from lale_mmseg.evaluation.plots import plot_bars
from lale_mmseg.evaluation.report import BoundaryResult
from lale_mmseg.files import write_atomic
from lale_mmseg.metainfo import IGNORE_INDEX, Palette, isprs
from lale_mmseg.metainfo.protocol import Protocol

CLASSES = isprs.CLASSES
PROTOCOLS = {protocol.name: protocol for protocol in isprs.PROTOCOLS}
SUFFIXES = ('.png', '.tif', '.tiff')
#: Kinds of labels, and their folders in the data root.
LABELS = {'full': 'tiles/labels_full', 'eroded': 'tiles/labels_eroded'}
#: Names of files that hold a whole tile, as prepared or as published; the group is the tile.
_NAMES = {
    'potsdam': re.compile(r'(?:top_potsdam_)?(\d+_\d+)(?:_(?:RGBIR|RGB|IRRG))?(?:_label)?(?:_noBoundary)?'),
    'vaihingen': re.compile(r'(?:top_mosaic_09cm_)?area(\d+)(?:_label)?(?:_noBoundary)?'),
}
_WINDOW = re.compile(r'_\d+_\d+_\d+_\d+$')
_TABLE_WIDTH = 160
_BARS = ('mIoU', 'mF1', 'OA', 'mBF1', 'mBIoU')


@dataclass
class Counts:
    """Pixels of all tiles with one kind of labels.

    Attributes:
        matrix: (6, 6) confusion matrix.
        boundaries: (6, 6) counts of boundaries, by the classes that are left out of the labels.
    """

    matrix: np.ndarray
    boundaries: dict[tuple[int, ...], np.ndarray] = field(default_factory=dict)


@dataclass
class Row:
    """One protocol's scores, and which of its tiles they are of."""

    protocol: Protocol
    report: EvaluationReport
    test: int | None
    missing: list[str]
    trained: list[str]

    def to_dict(self) -> dict[str, Any]:
        """As in the JSON file; `test_tiles` is None where the protocol states no tiles of the data set."""
        return dict(
            **self.report.to_dict(),
            rule_only=self.test is None,
            test_tiles=self.test,
            missing_test_tiles=self.missing,
            training_tiles=self.trained,
        )


def parse_args() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description='Scores one set of predictions under every ISPRS protocol.')
    parser.add_argument(
        'predictions',
        help='folder of predictions, one PNG or TIFF a whole tile, as tools/test.py --out or tools/predict.py writes',
    )
    parser.add_argument('data_root', help='prepared data set with tiles/labels_full and tiles/labels_eroded')
    parser.add_argument('--dataset', choices=tuple(isprs.TILES), required=True)
    parser.add_argument('--tiles', nargs='+', metavar='TILE', help='only these, such as 2_13 3_13 or 11 15')
    parser.add_argument(
        '--boundary-tolerance',
        type=int,
        default=3,
        metavar='PIXELS',
        help='distance within which boundaries match (default: 3)',
    )
    parser.add_argument('--no-boundary', action='store_true', help='leave boundary scores out')
    parser.add_argument('--out', metavar='DIR', help='folder for protocols.json and protocols.png')
    return parser.parse_args()


def find_predictions(folder: Path, dataset: str, wanted: list[str] | None) -> dict[str, Path]:
    """Prediction files by tile, in the order of the data set's tiles.

    Of what tools/predict.py writes for a tile the PNG of its classes is taken: overlays are skipped, and so is a TIFF
    beside a PNG of the same stem.

    Raises:
        DataError: The folder has none, a name is not that of a tile, two files are of one tile, or a wanted tile is
            missing.
        ConfigError: A wanted tile is not one of the data set.
    """
    if not folder.is_dir():
        raise DataError(f'{folder}: no such folder of predictions')
    found: dict[str, Path] = {}
    paths = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in SUFFIXES and path.name[0] != '.']
    pngs = {path.stem for path in paths if path.suffix.lower() == '.png'}
    for path in paths:
        is_png = path.suffix.lower() == '.png'
        if (is_png and path.stem.endswith('_overlay')) or (not is_png and path.stem in pngs):
            continue
        tile = tile_of_file(path, dataset)
        if tile in found:
            raise DataError(f'{found[tile]} and {path.name} are both of tile {tile}; one prediction a tile is due')
        found[tile] = path
    if not found:
        raise DataError(f'{folder}: no predictions ({", ".join(SUFFIXES)}) in it')
    strangers = [tile for tile in wanted or [] if tile not in isprs.TILES[dataset]]
    if strangers:
        raise ConfigError(f'--tiles {strangers[0]}: {dataset} has no such tile; known: {_names(isprs.TILES[dataset])}')
    missing = [tile for tile in wanted or [] if tile not in found]
    if missing:
        raise DataError(f'{folder}: no prediction of tile {_names(missing)} (--tiles); there are {_names(found)}')
    return {tile: found[tile] for tile in isprs.TILES[dataset] if tile in (wanted or found)}


def tile_of_file(path: Path, dataset: str) -> str:
    """The tile that a file is named after.

    Raises:
        DataError: It is none of the data set, or only a window of one.
    """
    match = _NAMES[dataset].fullmatch(path.stem)
    if match and match.group(1) in isprs.TILES[dataset]:
        return match.group(1)
    if _WINDOW.search(path.stem):
        raise DataError(
            f'{path}: a window by its name; whole tiles are due: test on the whole tiles of the data set, with the '
            'sliding window of the config'
        )
    example = f'{isprs.tile_stem(dataset, isprs.TILES[dataset][0])}.png'
    raise DataError(
        f'{path}: its name is not that of a {dataset} tile (such as {example}); known tiles: '
        f'{_names(isprs.TILES[dataset])}'
    )


def find_labels(root: Path, dataset: str, tiles: list[str]) -> tuple[dict[str, dict[str, Path]], dict[str, str]]:
    """Label files by kind and tile; and why a kind is not there.

    Raises:
        DataError: There is no kind of labels, or one that some of the tiles lack.
    """
    labels: dict[str, dict[str, Path]] = {}
    absent: dict[str, str] = {}
    for kind, folder in LABELS.items():
        candidates = {
            tile: [root / folder / f'{isprs.tile_stem(dataset, tile)}{suffix}' for suffix in SUFFIXES] for tile in tiles
        }
        there = {tile: [path for path in paths if path.is_file()] for tile, paths in candidates.items()}
        lacking = [tile for tile, paths in there.items() if not paths]
        if len(lacking) == len(tiles):
            absent[kind] = f'{root / folder} has no labels of these tiles'
        elif lacking:
            raise DataError(
                f'{root / folder}: no label of tile {_names(lacking)}; all protocols are to score the same tiles. '
                'Prepare the labels, or choose tiles that have them with --tiles'
            )
        else:
            labels[kind] = {tile: paths[0] for tile, paths in there.items()}
    if not labels:
        raise DataError('no protocol can be scored: ' + '; '.join(absent.values()))
    return labels, absent


def read_label(path: Path) -> np.ndarray:
    """(H, W) uint8 classes and 255 for ignored pixels, of an index or ISPRS-coloured image."""
    values = decode_label_image(read_bytes(path), str(path))
    if values.ndim == 3:
        return isprs.PALETTE.decode(values, source=str(path))
    return checked_indexes(values, CLASSES, from_one=False, source=str(path))


def read_prediction(path: Path) -> np.ndarray:
    """(H, W) uint8 classes, of an index or ISPRS-coloured image.

    Raises:
        DataError: A value or colour is not a class.
    """
    values = decode_label_image(read_bytes(path), str(path))
    if values.ndim == 3:
        return Palette(CLASSES, isprs.COLORS).decode(values, source=str(path))
    if values.max() >= len(CLASSES):
        row, column = np.unravel_index(int((values >= len(CLASSES)).argmax()), values.shape)
        known = ', '.join(f'{index} {name}' for index, name in enumerate(CLASSES))
        raise DataError(
            f'{path}: value {values[row, column]} at row {row}, column {column} is not a class; a prediction has one '
            f'for each pixel: {known}'
        )
    return values


def count_tiles(
    predictions: dict[str, Path], labels: dict[str, dict[str, Path]], tolerance: int | None
) -> dict[str, Counts]:
    """Counts by kind of labels, summed over the tiles; one tile is in memory at a time."""
    size = len(CLASSES)
    totals = {kind: Counts(np.zeros((size, size), np.int64)) for kind in labels}
    if tolerance is not None and 'full' in labels:  # the boundaries of eroded labels are ignored
        for rule in {_left_out(protocol) for protocol in PROTOCOLS.values() if protocol.test_labels == 'full'}:
            totals['full'].boundaries[rule] = np.zeros((size, len(COUNTS)), np.int64)
    with progress_bar('tiles', len(predictions)) as advance:
        for tile, path in predictions.items():
            pred = read_prediction(path)
            for kind, total in totals.items():
                source = labels[kind][tile]
                label = read_label(source)
                if label.shape != pred.shape:
                    raise DataError(
                        f'{path}: {pred.shape[0]} x {pred.shape[1]} pixels, but the label {source} has '
                        f'{label.shape[0]} x {label.shape[1]} (height x width)'
                    )
                total.matrix += confusion_matrix(pred, label, size, source=str(source)).numpy()
                for left_out, counts in total.boundaries.items():
                    ignored = pixels_of(label, [IGNORE_INDEX, *left_out])
                    counts += boundary_counts(pred, label, size, int(tolerance or 0), ignored)
            advance()
    return totals


def score(protocol: Protocol, dataset: str, tiles: list[str], counts: dict[str, Counts], tolerance: int | None) -> Row:
    """One row of the table.

    Raises:
        DataError: The protocol leaves nothing to score.
    """
    total, rules = counts[protocol.test_labels], protocol_rules(protocol, CLASSES)
    boundary = total.boundaries.get(rules.left_out_labels)
    result = None
    if boundary is not None and tolerance is not None and has_boundaries(boundary, rules.averaged):
        result = BoundaryResult(tolerance, boundary)
    report = EvaluationReport(
        classes=CLASSES,
        palette=isprs.COLORS,
        matrix=total.matrix,
        num_images=len(tiles),
        ignore_index=IGNORE_INDEX,
        rules=rules,
        protocol=protocol,
        boundary=result,
    )
    report.metrics()  # raises where there is nothing to score
    if dataset not in protocol.splits:
        return Row(protocol, report, None, [], [])
    split = protocol.split(dataset)
    return Row(
        protocol,
        report,
        test=sum(tile in split.test for tile in tiles),
        missing=[tile for tile in split.test if tile not in tiles],
        trained=[tile for tile in tiles if tile in split.train],
    )


def table_of(rows: list[Row], dataset: str) -> Table:
    """The rows side by side."""
    title = 'the same predictions under each protocol, in percent; IoU by class on the right'
    table = Table(title=title, title_justify='left', box=None, pad_edge=False)
    for column in ('', 'protocol', 'labels'):
        table.add_column(column, no_wrap=True)
    boundary = [name for name in ('mBF1', 'mBIoU') if any(name in row.report.summary for row in rows)]
    means = ['mIoU', 'mF1', 'OA', *boundary]
    for column in ('tiles', 'test tiles', *means, 'dropped', *(name.replace('_', ' ') for name in CLASSES)):
        table.add_column(column, justify='right')
    for row in rows:
        metrics = row.report.metrics()
        known = row.protocol.splits.get(dataset)
        table.add_row(
            row.protocol.letter,
            row.protocol.name,
            row.protocol.test_labels,
            str(row.report.num_images),
            'rule only' if known is None else f'{row.test} of {len(known.test)}',
            *(_number(metrics.get(name)) for name in (*means, 'dropped')),
            *(_number(metrics.get(f'IoU/{name}')) for name in CLASSES),
        )
    return table


def notes_of(rows: list[Row], not_scored: dict[str, str], dataset: str, tolerance: int | None) -> list[str]:
    """What the table does not say."""
    lines = []
    for row in rows:
        name = f'{row.protocol.letter} {row.protocol.name}'
        if row.test is None:
            lines.append(f'{name}: rule only, the protocol states no tiles of {dataset}')
        if row.missing:
            lines.append(f'{name}: not all of its test tiles; missing {_names(row.missing)}')
        if row.trained:
            lines.append(f'{name}: its training tiles among the scored ones: {_names(row.trained)}')
    lines += [f'{PROTOCOLS[name].letter} {name}: not scored, {reason}' for name, reason in not_scored.items()]
    if rows and not rows[0].report.matrix[:, CLASSES.index(isprs.CLUTTER)].any():
        lines.append('clutter is never predicted: a network of five outputs misses all of it under A and B')
    if tolerance is not None and any(row.report.boundary for row in rows):
        lines.append(f'mBF1, mBIoU: boundaries within {tolerance} pixel(s), on full labels only')
    if any(row.report.rules.left_out_predictions for row in rows):
        lines.append('dropped: pixels of scored classes left out since clutter is predicted there, which flatters')
    return lines


def main() -> None:
    """Scores, prints and, if asked to, writes."""
    args = parse_args()
    tolerance = None if args.no_boundary else args.boundary_tolerance
    if tolerance is not None:
        check_tolerance(tolerance)
    predictions = find_predictions(Path(args.predictions), args.dataset, args.tiles)
    tiles = list(predictions)
    labels, absent = find_labels(Path(args.data_root), args.dataset, tiles)
    counts = count_tiles(predictions, labels, tolerance)
    rows: list[Row] = []
    not_scored: dict[str, str] = {}
    for name, protocol in PROTOCOLS.items():
        if protocol.test_labels in absent:
            not_scored[name] = f'no {protocol.test_labels} labels: {absent[protocol.test_labels]}'
            continue
        try:
            rows.append(score(protocol, args.dataset, tiles, counts, tolerance))
        except DataError as error:
            not_scored[name] = str(error)
    if not rows:
        raise DataError('no protocol can be scored: ' + '; '.join(f'{n}: {why}' for n, why in not_scored.items()))
    notes = notes_of(rows, not_scored, args.dataset, tolerance)
    # Numbers are not to be cut off: a narrow terminal breaks the lines, and a pipe has no width.
    Console(width=_TABLE_WIDTH, highlight=False).print(table_of(rows, args.dataset))
    for line in notes:
        print(line)
    if args.out:
        content = dict(
            dataset=args.dataset,
            predictions=args.predictions,
            data_root=args.data_root,
            tiles=tiles,
            boundary_tolerance=tolerance,
            protocols={row.protocol.letter: row.to_dict() for row in rows},
            not_scored={PROTOCOLS[name].letter: reason for name, reason in not_scored.items()},
            notes=notes,
        )
        groups = {
            f'{row.protocol.letter}\n{row.protocol.name}, {row.protocol.test_labels}': {
                name: row.report.summary[name] for name in _BARS if name in row.report.summary
            }
            for row in rows
        }
        plot_bars(groups, Path(args.out) / 'protocols.png', f'{args.dataset}: {len(tiles)} tile(s), same predictions')
        write_atomic(Path(args.out) / 'protocols.json', json.dumps(content, indent=1, allow_nan=False) + '\n')
        print(f'written: {Path(args.out) / "protocols.json"}, {Path(args.out) / "protocols.png"}')


@contextmanager
def progress_bar(title: str, total: int) -> Iterator[Any]:
    """Shows a bar with the time left on standard error."""
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task(title, total=total)
        yield lambda: progress.advance(task)


def _left_out(protocol: Protocol) -> tuple[int, ...]:
    return protocol_rules(protocol, CLASSES).left_out_labels


def _names(tiles: Any) -> str:
    return ' '.join(tiles)


def _number(value: float | None) -> str:
    return '-' if value is None else f'{value:.2f}'


if __name__ == '__main__':
    _cli.run(main)
