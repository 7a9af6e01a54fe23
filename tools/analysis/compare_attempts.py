"""Attempts side by side, from their work dirs alone: `python tools/analysis/compare_attempts.py WORK_DIR... --out DIR`.

Attempts are sorted by validation, which is what they may be chosen by; the test is shown beside it, with the number of
times that it was read.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import _cli
from _attempt_data import data_lines, published_fault
from _attempt_pictures import absent, folder_of, rows_of
from _attempts import PUBLISHED, SCORES, Attempt, labels_of, read_attempt
from _recipes import GROUPS, compared, difference_lines, differences, own_to_attempts
from _runs import score_of, training_losses
from mmengine.registry import init_default_scope
from rich.console import Console
from rich.table import Table

import lale_mmseg.register  # noqa: F401
from lale_mmseg.errors import ConfigError, InputError
from lale_mmseg.evaluation.attempt_plots import Curve, draw_predictions, plot_convergence
from lale_mmseg.files import write_atomic

_WIDTH = 190
_DASH = '-'
_SOURCE = 'published'


def parse_args() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description='Sets trainings side by side: scores, curves, predictions.')
    parser.add_argument('work_dirs', nargs='+', metavar='WORK_DIR', help='work dirs of tools/train.py')
    parser.add_argument('--labels', nargs='+', metavar='NAME', help='names of the attempts (default: of the folders)')
    parser.add_argument('--out', required=True, metavar='DIR', help='folder for the tables and pictures')
    parser.add_argument('--baseline', metavar='NAME', help='show the gain in validation IoU over this attempt')
    parser.add_argument('--published', action='store_true', help='add the published figures of few-shot roofs')
    parser.add_argument(
        '--pictures', choices=('val', 'test'), default='val', help='images of which split to draw (default: val)'
    )
    parser.add_argument('--rows', type=int, default=6, metavar='N', help='images to draw at most (default: 6)')
    return parser.parse_args()


def read_all(args: argparse.Namespace) -> list[Attempt]:
    """The attempts, the best on validation first.

    Raises:
        ConfigError: Labels or baseline do not fit.
        DataError: A work dir lacks a file.
    """
    folders = [Path(folder) for folder in args.work_dirs]
    labels = labels_of(folders, args.labels)
    if args.baseline is not None and args.baseline not in labels:
        raise ConfigError(f'--baseline {args.baseline}: no such attempt; there are {", ".join(labels)}')
    attempts = [read_attempt(folder, label) for folder, label in zip(folders, labels, strict=True)]
    return sorted(attempts, key=lambda attempt: -attempt.val_iou)


def header(baseline: str | None) -> list[str]:
    """Names of the columns."""
    gain = [f'VAL gain over {baseline}'] if baseline is not None else []
    scores = [f'{split} {name}' for split in ('VAL', 'TEST') for name in ('IoU', 'F1', 'OA')]
    rest = ['params M', 'trained M', 'epochs', 'best epoch', 's/epoch', 'memory MB']
    return ['attempt', 'start', *scores[:3], *gain, *scores[3:], 'test reads', *rest]


def cells(attempt: Attempt, baseline: Attempt | None) -> list[str]:
    """A row of the table."""
    row = attempt.to_dict()
    test = attempt.test or {}
    millions = [row[name] for name in ('parameters', 'trainable_parameters')]
    return [
        attempt.label,
        row['start'],
        *(_number(row['val'][name]) for name in SCORES),
        *([] if baseline is None else [f'{attempt.val_iou - baseline.val_iou:+.2f}']),
        *(_number(test.get(name)) for name in SCORES),
        reads_of(attempt),
        *(_DASH if value is None else f'{value / 1e6:.2f}' for value in millions),
        str(row['epochs']),
        str(row['best_epoch']),
        _number(row['epoch_time_s'], 1),
        _number(row['memory_mb'], 0),
    ]


def reads_of(attempt: Attempt) -> str:
    """How often the test was read; an exclamation mark where it was more than once."""
    if attempt.reads is None:
        return _DASH if attempt.test is None else '?'
    return f'{attempt.reads}!' if attempt.reads > 1 else str(attempt.reads)


def published_cells(columns: Sequence[str]) -> list[list[str]]:
    """Rows of the published attempts, in the columns of the table."""
    rows = []
    for name, val_iou, test_iou, test_f1 in PUBLISHED:
        known = {
            'attempt': f'[{_SOURCE}] {name}',
            'VAL IoU': _number(val_iou, 1),
            'TEST IoU': _number(test_iou, 1),
            'TEST F1': _number(test_f1, 1),
        }
        rows.append([known.get(column, _DASH) for column in columns])
    return rows


def notes_of(attempts: Sequence[Attempt], found: Any, own: Any, published: bool) -> list[str]:
    """What the table does not say."""
    lines = ['VAL: best epoch, by which attempts are sorted and may be chosen; TEST: not to be chosen by; in percent']
    for attempt in attempts:
        lines += [f'{attempt.label}: {note}' for note in attempt.notes]
        if attempt.reads is not None and attempt.reads > 1:
            lines.append(f'{attempt.label}: ! its held-out test was read {attempt.reads} times: scores are optimistic')
        if attempt.reads is None and attempt.test is not None:
            lines.append(f'{attempt.label}: ? no ledger of test reads, as its test split is not a held-out one')
    if published:
        lines.append(
            f'[{_SOURCE}]: figures of the authors of few-shot roofs under their recipe, not measured here; comparable '
            'with attempts under the protocol few-shot only'
        )
    kinds = {attempt.rows[-1].get('memory_kind') for attempt in attempts} - {None}
    if kinds:
        named = dict(gpu='tensors on the GPU', process='the whole process, on a CPU')
        lines.append('memory: ' + ' or '.join(named.get(kind, kind) for kind in sorted(kinds)) + ', at most')
    if len(kinds) > 1:
        lines.append('memory and times are of different kinds of machines: not to be compared')
    differing = difference_lines(found)
    if differing:
        lines.append('RECIPES DIFFER, so the attempts differ in more than their networks:')
        lines += [f'  {line}' for line in differing]
    elif len(attempts) > 1:
        groups = compared([attempt.config for attempt in attempts])
        kept = [group for group in groups if group != GROUPS[0] or not differing_data(attempts)]
        lines.append('recipes agree in: ' + '; '.join(kept))
    if own:
        lines.append('part of the attempts, as configs/buildings defines them:')
        lines += [f'  {line}' for line in difference_lines(own)]
    return lines


def differing_data(attempts: Sequence[Attempt]) -> list[str]:
    """Where attempts were not validated, or not tested, on the same images and labels."""
    return [
        *data_lines('validation', {attempt.label: attempt.val_data for attempt in attempts}),
        *data_lines('test', {attempt.label: attempt.test_data for attempt in attempts}),
    ]


def warning_of(lines: Sequence[str]) -> list[str]:
    """What stands above a table whose rows are of different data."""
    if not lines:
        return []
    return ['NOT COMPARABLE: the scores are of different data, so the order of the rows says nothing', *lines]


def check_published(attempts: Sequence[Attempt]) -> None:
    """Raises ConfigError where the published figures would stand beside scores of other data."""
    for attempt in attempts:
        fault = published_fault(attempt.val_data)
        if fault is not None:
            raise ConfigError(f'--published: {attempt.label} ({attempt.folder}) {fault}')


def markdown(
    columns: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str], warning: Sequence[str]
) -> str:
    """The table and its notes as Markdown."""
    safe = [[cell.replace('|', '\\|') for cell in row] for row in [columns, *rows]]
    above = ['**' + line + '**' if not place else f'- {line}' for place, line in enumerate(warning)]
    if above:
        above = [above[0], '', *above[1:], '']
    lines = ['# Attempts', '', *above, f'| {" | ".join(safe[0])} |', f'|---|---|{"---:|" * (len(columns) - 2)}']
    lines += [f'| {" | ".join(row)} |' for row in safe[1:]]
    listed = [f'  - {line.strip()}' if line.startswith('  ') else f'- {line}' for line in notes]
    return '\n'.join([*lines, '', *listed]) + '\n'


def table_of(columns: Sequence[str], rows: Sequence[Sequence[str]], own: int) -> Table:
    """The table for the console; published rows stand apart."""
    table = Table(box=None, pad_edge=False)
    for place, column in enumerate(columns):
        split, _, score = column.partition(' ')
        title = f'{split}\n{score}' if split in ('VAL', 'TEST') else f'\n{column}'
        table.add_column(title, justify='right' if place > 1 else 'left', no_wrap=place > 0, overflow='fold')
    for place, row in enumerate(rows):
        if place == own:
            table.add_row()
        table.add_row(*(cell.replace('[', '\\[') for cell in row))
    return table


def draw(attempts: Sequence[Attempt], args: argparse.Namespace, out: Path) -> list[Path]:
    """Writes the pictures, and says what there is none of; the files that were written."""
    losses, loss_label = training_losses([attempt.rows for attempt in attempts])
    curves = [
        Curve(
            attempt.label,
            scores=_known({int(row['epoch']): score_of(row) for row in attempt.rows}),
            losses=of_attempt,
        )
        for attempt, of_attempt in zip(attempts, losses, strict=True)
    ]
    written = [out / 'convergence.png']
    plot_convergence(curves, written[0], loss_label)
    # A test that is left out of the table is left out here as well.
    shown = [attempt for attempt in attempts if args.pictures == 'val' or attempt.test is not None]
    places = {attempt.label: folder_of(attempt.folder, args.pictures) for attempt in shown}
    folders = {label: folder for label, (folder, _) in places.items()}
    rows = rows_of(folders, args.rows)
    target = out / 'predictions.png'
    if rows:
        draw_predictions(rows, [*folders], target, title_of({label: when for label, (_, when) in places.items()}))
        written.append(target)
    else:
        target.unlink(missing_ok=True)
        print(f'no predictions.png: none of the work dirs has images, labels and predictions in {args.pictures}/')
    for line in absent(folders, rows):
        print(line)
    return written


def title_of(kinds: Mapping[str, str]) -> str:
    """Heading of the pictures, from what those of each attempt are of."""
    names: dict[str, list[str]] = {}
    for label, kind in kinds.items():
        names.setdefault(kind, []).append(label)
    if len(names) == 1:
        when = next(iter(names)) + ('' if 'test' in names else ' of each attempt')
    else:
        when = '; '.join(f'{kind} of {", ".join(labels)}' for kind, labels in names.items())
    return f'{when}\nbuilding: found yellow, false red, missed blue'


def _known(points: dict[int, float | None]) -> dict[int, float]:
    return {epoch: value for epoch, value in points.items() if value is not None}


def main() -> None:
    """Reads, prints and writes."""
    args = parse_args()
    if args.rows < 1:
        raise InputError(f'--rows {args.rows}: 1 or more is due')
    init_default_scope('mmseg')
    attempts = read_all(args)
    baseline = next((attempt for attempt in attempts if attempt.label == args.baseline), None)
    if args.published:
        check_published(attempts)
    configs = {attempt.label: attempt.config for attempt in attempts}
    found, own = own_to_attempts(configs, differences(configs))
    data = differing_data(attempts)
    warning = warning_of(data)
    columns = header(args.baseline)
    rows = [cells(attempt, baseline) for attempt in attempts]
    if args.published:
        rows += published_cells(columns)
    notes = notes_of(attempts, found, own, args.published)
    for line in warning:
        print(line)
    Console(width=_WIDTH, highlight=False).print(table_of(columns, rows, len(attempts)))
    for line in notes:
        print(line)
    out = Path(args.out)
    content = dict(
        sorted_by='validation IoU of the best epoch',
        comparable=not data,
        data_differences=data,
        baseline=args.baseline,
        attempts=[attempt.to_dict() for attempt in attempts],
        published=[
            dict(name=name, val_iou=val, test_iou=test, test_f1=f1, source='authors of few-shot roofs')
            for name, val, test, f1 in (PUBLISHED if args.published else ())
        ],
        differences=found,
        part_of_attempts=own,
        notes=notes,
    )
    write_atomic(out / 'attempts.json', json.dumps(content, indent=1, allow_nan=False) + '\n')
    write_atomic(out / 'attempts.md', markdown(columns, rows, notes, warning))
    written = [out / 'attempts.json', out / 'attempts.md', *draw(attempts, args, out)]
    print('written: ' + ', '.join(map(str, written)))


def _number(value: float | None, digits: int = 2) -> str:
    return _DASH if value is None else f'{value:.{digits}f}'


if __name__ == '__main__':
    _cli.run(main)
