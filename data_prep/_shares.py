"""Counts of pairs and pixels of each class, and the table that a script ends with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from rich.console import Console
from rich.table import Table


def shares(pixels: np.ndarray) -> list[float]:
    """Share of each class among the labelled pixels, in percent with three decimals; all 0 where there are none."""
    total = int(pixels.sum())
    return [round(100 * int(count) / total, 3) if total else 0.0 for count in pixels]


def summary(pairs: int, classes: Sequence[str], pixels: np.ndarray) -> dict:
    """What a manifest says of a part: number of pairs, pixels and percent of each class."""
    return dict(
        pairs=pairs,
        pixels=dict(zip(classes, (int(count) for count in pixels), strict=True)),
        class_shares=dict(zip(classes, shares(pixels), strict=True)),
    )


def print_table(title: str, classes: Sequence[str], parts: Mapping[str, Mapping], unit: str = 'pairs') -> None:
    """Prints pairs and class shares (percent of labelled pixels), one row a part.

    Args:
        title: Heading.
        classes: Class names in index order.
        parts: For each part what `summary` returned.
        unit: What pairs are called in the heading.
    """
    table = Table(title=title)
    table.add_column('part')
    table.add_column(unit, justify='right')
    for name in classes:
        table.add_column(f'{name} %', justify='right')
    for part, entry in parts.items():
        row = [f'{entry["class_shares"][name]:.2f}' for name in classes]
        table.add_row(part, f'{entry["pairs"]:,}', *row)
    table_console(len(classes)).print(table)


def table_console(columns: int) -> Console:
    """Standard output for tables: as wide as the terminal, or as about `columns` numbers need."""
    console = Console()
    # A pipe or log has no width of its own: 80 columns would cut the numbers.
    return console if console.is_terminal else Console(width=max(60 + 14 * columns, 140))
