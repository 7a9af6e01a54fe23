"""One set of predictions under all ISPRS protocols: `python tools/analysis/compare_protocols.py PREDICTIONS DATA_ROOT`.

Scores are comparable within one protocol only. This tool shows how far the protocols alone move them: the same
predictions of the same tiles, with the labels that each protocol tests on, the pixels that it counts and the classes
that it averages.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.progress import track

from lale_mmseg.cli.common import run_command
from lale_mmseg.datasets.image_io import decode_label_image, read_bytes
from lale_mmseg.errors import ConfigError, DataError
from lale_mmseg.evaluation import EvaluationReport, confusion_matrix
from lale_mmseg.evaluation.boundary import COUNTS, boundary_counts, check_tolerance, has_boundaries, pixels_of
from lale_mmseg.evaluation.confusion import protocol_rules
from lale_mmseg.evaluation.plots import plot_bars
from lale_mmseg.evaluation.report import BoundaryResult
from lale_mmseg.files import write_atomic
from lale_mmseg.metainfo import IGNORE_INDEX, Palette, isprs
from lale_mmseg.metainfo.palette import decode_values
from lale_mmseg.metainfo.protocol import Protocol

CLASSES = isprs.CLASSES
SUFFIXES = ('.png', '.tif', '.tiff')
#: Kinds of labels and their folders in the data root.
LABELS = {'full': 'tiles/labels_full', 'eroded': 'tiles/labels_eroded'}
#: File names of whole tiles, as prepared or as published; the group is the tile.
_NAMES = {
    'potsdam': re.compile(r'(?:top_potsdam_)?(\d+_\d+)(?:_(?:RGBIR|RGB|IRRG))?(?:_label)?(?:_noBoundary)?'),
    'vaihingen': re.compile(r'(?:top_mosaic_09cm_)?area(\d+)(?:_label)?(?:_noBoundary)?'),
}
_SCORES = ('mIoU', 'mF1', 'OA', 'mBF1', 'mBIoU')

#: Sums over tiles by kind of labels and by the classes that a protocol leaves out of the labels.
Counts = dict[str, np.ndarray]


def parse_args() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description='Scores one set of predictions under every ISPRS protocol.')
    parser.add_argument(
        'predictions',
        type=Path,
        help='folder with one PNG or TIFF per whole tile, as tools/test.py --out or tools/predict.py writes them',
    )
    parser.add_argument('data_root', type=Path, help='prepared dataset with tiles/labels_full and tiles/labels_eroded')
    parser.add_argument('--dataset', choices=tuple(isprs.TILES), required=True)
    parser.add_argument('--tiles', nargs='+', metavar='TILE', help='only these, such as 2_13 3_13 or 11 15')
    parser.add_argument(
        '--boundary-tolerance', type=int, default=3, metavar='PIXELS', help='distance of matching boundaries (3)'
    )
    parser.add_argument('--no-boundary', action='store_true', help='leave boundary scores out')
    parser.add_argument('--out', type=Path, metavar='DIR', help='folder for protocols.json and protocols.png')
    return parser.parse_args()


def find_predictions(folder: Path, dataset: str, wanted: Sequence[str] | None) -> dict[str, Path]:
    """Prediction files by tile. Overlays of tools/predict.py are skipped, and so is a TIFF beside a PNG of its stem.

    Raises:
        DataError: There are none, a name is not that of a tile, or two files are of one tile.
        ConfigError: A wanted tile has no prediction.
    """
    paths = [path for path in sorted(folder.glob('*')) if path.suffix.lower() in SUFFIXES and path.name[0] != '.']
    pngs = {path.stem for path in paths if path.suffix.lower() == '.png'}
    found: dict[str, Path] = {}
    for path in paths:
        is_png = path.suffix.lower() == '.png'
        if (is_png and path.stem.endswith('_overlay')) or (not is_png and path.stem in pngs):
            continue
        match = _NAMES[dataset].fullmatch(path.stem)
        if match is None or match[1] not in isprs.TILES[dataset]:
            example = f'{isprs.tile_stem(dataset, isprs.TILES[dataset][0])}.png'
            raise DataError(f'{path}: expected the name of a whole {dataset} tile, such as {example}')
        if match[1] in found:
            raise DataError(f'{found[match[1]]} and {path.name} are both of tile {match[1]}; keep one of them')
        found[match[1]] = path
    if not found:
        raise DataError(f'{folder}: no predictions ({", ".join(SUFFIXES)}) in this folder')
    missing = [tile for tile in wanted or [] if tile not in found]
    if missing:
        raise ConfigError(f'--tiles {" ".join(missing)}: no such predictions; there are {" ".join(found)}')
    return {tile: found[tile] for tile in isprs.TILES[dataset] if tile in (wanted or found)}


def find_labels(root: Path, dataset: str, tiles: Sequence[str]) -> dict[str, dict[str, Path]]:
    """Label files by kind and tile, without kinds that have none of the tiles.

    Raises:
        DataError: A kind has labels of some of the tiles only, or there are no labels at all.
    """
    labels: dict[str, dict[str, Path]] = {}
    for kind, folder in LABELS.items():
        names = {tile: f'{root / folder / isprs.tile_stem(dataset, tile)}' for tile in tiles}
        files = {
            tile: Path(name + suffix)
            for tile, name in names.items()
            for suffix in SUFFIXES
            if Path(name + suffix).is_file()
        }
        lacking = [tile for tile in tiles if tile not in files]
        if files and lacking:
            raise DataError(f'{root / folder}: no label of tile {" ".join(lacking)}; choose tiles with --tiles')
        if files:
            labels[kind] = files
    if not labels:
        raise DataError(f'{root}: no labels of these tiles in {" or ".join(LABELS.values())}')
    return labels


def read_map(path: Path, palette: Palette) -> np.ndarray:
    """(H, W) uint8 class indexes of an image of indexes or of the colours of a palette."""
    values = decode_label_image(read_bytes(path), str(path))
    if values.ndim == 3:
        return palette.decode(values, source=str(path))
    labels = {label: label for label in (*range(len(CLASSES)), IGNORE_INDEX)}
    return decode_values(values, labels, CLASSES, source=str(path))


def count_tiles(
    predictions: Mapping[str, Path], labels: Mapping[str, Mapping[str, Path]], tolerance: int | None
) -> tuple[Counts, dict[tuple[int, ...], np.ndarray]]:
    """Sums over tiles, one of which is in memory at a time.

    Returns:
        (6, 6) confusion matrices by kind of labels; and boundary counts (6, 6) on full labels, by the classes that a
        protocol leaves out of the labels (boundaries of eroded labels are ignored by definition).
    """
    size = len(CLASSES)
    matrices = {kind: np.zeros((size, size), np.int64) for kind in labels}
    rules = {left_out(protocol) for protocol in isprs.PROTOCOLS if protocol.test_labels == 'full'}
    boundaries = {rule: np.zeros((size, len(COUNTS)), np.int64) for rule in rules if tolerance is not None}
    for tile, path in track(predictions.items(), 'tiles', console=Console(stderr=True), total=len(predictions)):
        pred = read_map(path, isprs.palette_of('full'))
        if pred.max() >= size:
            raise DataError(f'{path}: value {pred.max()} is not a class; classes are 0 to {size - 1}')
        for kind, files in labels.items():
            label = read_map(files[tile], isprs.palette_of(kind))
            if label.shape != pred.shape:
                raise DataError(
                    f'{path}: (height, width) is {pred.shape}, that of its label {files[tile]} {label.shape}'
                )
            matrices[kind] += confusion_matrix(pred, label, size, source=str(files[tile])).numpy()
            for rule, counts in boundaries.items() if kind == 'full' else ():
                ignored = pixels_of(label, [IGNORE_INDEX, *rule])
                counts += boundary_counts(pred, label, size, tolerance or 0, ignored)
    return matrices, boundaries


def left_out(protocol: Protocol) -> tuple[int, ...]:
    """Indexes of the classes that a protocol leaves out of the labels."""
    return protocol_rules(protocol, CLASSES).left_out_labels


def report_of(protocol: Protocol, matrix: np.ndarray, boundary: np.ndarray | None, args: Any) -> EvaluationReport:
    """Scores under a protocol; DataError if it leaves nothing to score."""
    rules = protocol_rules(protocol, CLASSES)
    shown = protocol.test_labels == 'full' and boundary is not None and has_boundaries(boundary, rules.averaged)
    report = EvaluationReport(
        classes=CLASSES,
        palette=isprs.COLORS,
        matrix=matrix,
        num_images=len(args.tiles),
        ignore_index=IGNORE_INDEX,
        rules=rules,
        protocol=protocol,
        boundary=BoundaryResult(args.boundary_tolerance, boundary) if shown and boundary is not None else None,
    )
    report.metrics()
    return report


def tiles_of(protocol: Protocol, args: argparse.Namespace) -> dict[str, Any]:
    """Which of the scored tiles are test and training tiles of a protocol."""
    if args.dataset not in protocol.splits:
        return dict(rule_only=True, test_tiles=None, missing_test_tiles=[], training_tiles=[])
    split = protocol.split(args.dataset)
    return dict(
        rule_only=False,
        test_tiles=sum(tile in split.test for tile in args.tiles),
        missing_test_tiles=[tile for tile in split.test if tile not in args.tiles],
        training_tiles=[tile for tile in args.tiles if tile in split.train],
    )


def table_of(reports: Mapping[str, EvaluationReport], rows: Mapping[str, Mapping[str, Any]]) -> str:
    """The protocols side by side; IoU by class on the right."""
    lines = {}
    for letter, report in reports.items():
        metrics, test = report.metrics(), rows[letter]['test_tiles']
        line = dict(protocol=rows[letter]['protocol']['name'], labels=rows[letter]['protocol']['labels'])
        line |= {
            'test tiles': 'rule only' if test is None else f'{test} of {test + len(rows[letter]["missing_test_tiles"])}'
        }
        names = {name: name for name in (*_SCORES, 'dropped')} | {f'IoU/{name}': name for name in CLASSES}
        lines[letter] = line | {shown: metrics.get(name) for name, shown in names.items()}
    table = pd.DataFrame(lines).T.dropna(axis='columns', how='all')
    # Numbers must not be cut off, whatever the width of the terminal.
    return table.map(
        lambda cell: cell if isinstance(cell, str) else '-' if pd.isna(cell) else f'{cell:.2f}'
    ).to_string()


def notes_of(rows: Mapping[str, Mapping[str, Any]], args: argparse.Namespace) -> list[str]:
    """What the table does not show."""
    lines = []
    for letter, row in rows.items():
        name = f'{letter} {row["protocol"]["name"]}'
        if row['rule_only']:
            lines.append(f'{name}: rule only, the protocol defines no tiles of {args.dataset}')
        if row['missing_test_tiles']:
            lines.append(f'{name}: not all of its test tiles; missing {" ".join(row["missing_test_tiles"])}')
        if row['training_tiles']:
            lines.append(f'{name}: its training tiles are among the scored ones: {" ".join(row["training_tiles"])}')
    if any(row['boundary'] for row in rows.values()):
        lines.append(f'mBF1, mBIoU: boundaries within {args.boundary_tolerance} pixel(s), on full labels only')
    if any(row['dropped'] for row in rows.values()):
        lines.append('dropped: pixels of scored classes excluded because clutter is predicted there, which flatters')
    return lines


def main() -> None:
    """Scores, prints and, with --out, writes."""
    args = parse_args()
    tolerance = None if args.no_boundary else args.boundary_tolerance
    if tolerance is not None:
        check_tolerance(tolerance)
    predictions = find_predictions(args.predictions, args.dataset, args.tiles)
    args.tiles = list(predictions)
    labels = find_labels(args.data_root, args.dataset, args.tiles)
    matrices, boundaries = count_tiles(predictions, labels, tolerance)
    scored = {p.letter: p for p in isprs.PROTOCOLS if p.test_labels in matrices}
    reports = {
        letter: report_of(protocol, matrices[protocol.test_labels], boundaries.get(left_out(protocol)), args)
        for letter, protocol in scored.items()
    }
    rows = {letter: {**report.to_dict(), **tiles_of(scored[letter], args)} for letter, report in reports.items()}
    notes = notes_of(rows, args)
    not_scored = {p.letter: f'no {p.test_labels} labels' for p in isprs.PROTOCOLS if p.letter not in scored}
    notes += [f'{letter}: not scored, {reason}' for letter, reason in not_scored.items()]
    print('the same predictions under each protocol, in percent\n' + table_of(reports, rows))
    print('\n'.join(notes))
    if args.out:
        content = dict(
            dataset=args.dataset,
            predictions=str(args.predictions),
            data_root=str(args.data_root),
            tiles=args.tiles,
            boundary_tolerance=tolerance,
            protocols=rows,
            not_scored=not_scored,
            notes=notes,
        )
        groups = {
            f'{letter}\n{row["protocol"]["name"]}, {row["protocol"]["labels"]}': {
                name: row['summary'][name] for name in _SCORES if name in row['summary']
            }
            for letter, row in rows.items()
        }
        plot_bars(groups, args.out / 'protocols.png', f'{args.dataset}: {len(args.tiles)} tile(s), same predictions')
        write_atomic(args.out / 'protocols.json', json.dumps(content, indent=1, allow_nan=False) + '\n')
        print(f'written: {args.out / "protocols.json"}, {args.out / "protocols.png"}')


if __name__ == '__main__':
    run_command(main)
