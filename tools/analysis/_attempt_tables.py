"""Tables of attempts: for the console, and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from _attempts import SCORES, Attempt
from _seeds import Group
from rich.table import Table

#: The five attempts of the few-shot roofs protocol as published: name, val IoU, test IoU, test F1, in percent.
PUBLISHED = (
    ('U-Net from scratch', 73.5, 75.7, 86.1),
    ('U-Net, ResNet-34 (ImageNet)', 76.5, 79.6, 88.6),
    ('DeepLabV3+, ResNet-34 (ImageNet)', 77.2, 80.2, 89.0),
    ('frozen SAM ViT-B, conv decoder', 69.0, 64.6, 78.3),
    ('frozen SAM ViT-B, U-Net decoder', 74.0, 75.8, 86.2),
)
_DASH = '-'
#: How rows of published figures are marked.
SOURCE = '[published]'


@dataclass(frozen=True)
class Scores:
    """A table: its columns, the rows of attempts, and those of published figures, which stand apart."""

    columns: list[str]
    rows: list[list[str]]
    published: list[list[str]] = field(default_factory=list)


def of_attempts(attempts: Sequence[Attempt], baseline: Attempt | Group | None, published: bool) -> Scores:
    """One row a training."""
    rest = ['params M', 'trained M', 'epochs', 'best epoch', 's/epoch', 'memory MB']
    columns = ['attempt', 'start', *_score_columns(baseline), 'test reads', *rest]
    rows = [_cells(attempt, baseline) for attempt in attempts]
    return Scores(columns, rows, _published_cells(columns) if published else [])


def of_groups(groups: Sequence[Group], baseline: Attempt | Group | None, published: bool) -> Scores:
    """One row an attempt: mean and standard deviation over its seeds."""
    rows = []
    for group in groups:
        spreads = group.spreads()
        val, test = ([_mean_and_spread(spreads[split][name]) for name in SCORES] for split in ('val', 'test'))
        seeds = ' '.join('?' if seed is None else str(seed) for seed in group.seeds)
        again = any((attempt.reads or 0) > 1 for attempt in group.attempts)
        test = [f'{cell}!' if again and cell != _DASH else cell for cell in test]
        rows.append([group.label, seeds, *val, *_gain(group, baseline), *test])
    columns = ['attempt', 'seeds', *_score_columns(baseline)]
    return Scores(columns, rows, _published_cells(columns) if published else [])


def markdown(table: Scores) -> list[str]:
    """Lines of the table in Markdown."""
    rows = [[cell.replace('|', '\\|') for cell in row] for row in [table.columns, *table.rows, *table.published]]
    lines = [f'| {" | ".join(row)} |' for row in rows]
    return [lines[0], f'|---|---|{"---:|" * (len(table.columns) - 2)}', *lines[1:]]


def for_console(table: Scores) -> Table:
    """The table for the console; published rows stand apart."""
    shown = Table(box=None, pad_edge=False)
    for place, column in enumerate(table.columns):
        split, _, score = column.partition(' ')
        title = f'{split}\n{score}' if split in ('VAL', 'TEST') else f'\n{column}'
        shown.add_column(title, justify='right' if place > 1 else 'left', no_wrap=place > 0, overflow='fold')
    for rows in (table.rows, table.published):
        if rows is table.published and rows:
            shown.add_row()
        for row in rows:
            shown.add_row(*(cell.replace('[', '\\[') for cell in row))
    return shown


def _score_columns(baseline: Attempt | Group | None) -> list[str]:
    scores = [f'{split} {name}' for split in ('VAL', 'TEST') for name in ('IoU', 'F1', 'OA')]
    gain = [] if baseline is None else [f'VAL gain over {baseline.label}']
    return [*scores[:3], *gain, *scores[3:]]


def _gain(row: Attempt | Group, baseline: Attempt | Group | None) -> list[str]:
    return [] if baseline is None else [f'{row.val_iou - baseline.val_iou:+.2f}']


def _cells(attempt: Attempt, baseline: Attempt | Group | None) -> list[str]:
    row = attempt.to_dict()
    test = attempt.test or {}
    millions = [row[name] for name in ('parameters', 'trainable_parameters')]
    return [
        attempt.label,
        row['start'],
        *(_number(row['val'][name]) for name in SCORES),
        *_gain(attempt, baseline),
        *(_number(test.get(name)) for name in SCORES),
        _reads_of(attempt),
        *(_DASH if value is None else f'{value / 1e6:.2f}' for value in millions),
        str(row['epochs']),
        str(row['best_epoch']),
        _number(row['epoch_time_s'], 1),
        _number(row['memory_mb'], 0),
    ]


def _reads_of(attempt: Attempt) -> str:
    """How often the test was read; an exclamation mark where it was more than once."""
    if attempt.reads is None:
        return _DASH if attempt.test is None else '?'
    return f'{attempt.reads}!' if attempt.reads > 1 else str(attempt.reads)


def _published_cells(columns: Sequence[str]) -> list[list[str]]:
    """Rows of the published attempts, in the columns of a table."""
    rows = []
    for name, val_iou, test_iou, test_f1 in PUBLISHED:
        known = {
            'attempt': f'{SOURCE} {name}',
            'VAL IoU': _number(val_iou, 1),
            'TEST IoU': _number(test_iou, 1),
            'TEST F1': _number(test_f1, 1),
        }
        rows.append([known.get(column, _DASH) for column in columns])
    return rows


def _number(value: float | None, digits: int = 2) -> str:
    return _DASH if value is None else f'{value:.{digits}f}'


def _mean_and_spread(found: tuple[float, float | None] | None) -> str:
    if found is None:
        return _DASH
    mean, spread = found
    return _number(mean) if spread is None else f'{mean:.2f} ± {spread:.2f}'
