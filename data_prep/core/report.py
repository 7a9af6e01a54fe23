"""What the commands print: class shares, shortened lists, and one line for an error."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from rich.console import Console
from rich.table import Table

from lale_mmseg.errors import InputError


def run_main(main: Callable[[], int]) -> int:
    """Runs a command; bad input and failed file operations become one line on stderr and exit status 2."""
    try:
        return main()
    except (InputError, OSError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print('interrupted; run the same command again to continue', file=sys.stderr)
        return 130


def some_of(names: Sequence[str], shown: int = 8) -> str:
    """Joins names by commas; of more than `shown`, the first ones and 'and N more'."""
    more = f' and {len(names) - shown} more' if len(names) > shown else ''
    return ', '.join(names[:shown]) + more


def summary(pairs: int, classes: Sequence[str], pixels: np.ndarray) -> dict:
    """Number of pairs, pixels of each class, and their share of all labelled pixels in percent."""
    total = max(int(pixels.sum()), 1)
    return dict(
        pairs=pairs,
        pixels={name: int(count) for name, count in zip(classes, pixels, strict=True)},
        class_shares={name: round(100 * int(count) / total, 3) for name, count in zip(classes, pixels, strict=True)},
    )


def print_table(title: str, classes: Sequence[str], parts: Mapping[str, Mapping], unit: str = 'pairs') -> None:
    """Prints one row per part.

    Args:
        title: Heading.
        classes: Class names in index order.
        parts: The `summary` of each part.
        unit: Heading of the column with the number of pairs.
    """
    table = Table(title=title)
    table.add_column('part')
    table.add_column(unit, justify='right')
    for name in classes:
        table.add_column(f'{name} %', justify='right')
    for part, entry in parts.items():
        shares = [f'{entry["class_shares"][name]:.2f}' for name in classes]
        table.add_row(part, f'{entry["pairs"]:,}', *shares)
    table_console(len(classes)).print(table)


def table_console(columns: int) -> Console:
    """Console for tables of about `columns` numbers."""
    console = Console()
    # A pipe or log file has no width: the default of 80 columns would cut numbers off.
    return console if console.is_terminal else Console(width=max(60 + 14 * columns, 140))
