"""What all commands share: common options, one line for an error, class shares, shortened lists."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

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


def number(kind: type[int] | type[float], least: float, most: float = math.inf) -> Callable[[str], float]:
    """Type of a command line option: a number of a kind, from `least` to `most`."""

    def convert(text: str) -> float:
        value = kind(text)
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f'{value:g}: expected {least:g} to {most:g}')
        return value

    convert.__name__ = kind.__name__  # argparse names it in its own errors
    return convert


def add_common_options(parser: argparse.ArgumentParser, source: str, workers: str) -> None:
    """Adds SOURCE, OUT, --workers and --overwrite.

    Args:
        parser: A command of a preparation script.
        source: What SOURCE is.
        workers: What --workers counts, 'threads' or 'processes'.
    """
    parser.add_argument('source', type=Path, metavar='SOURCE', help=source)
    parser.add_argument('out', type=Path, metavar='OUT', help='folder to write to')
    parser.add_argument(
        '--workers', type=number(int, 1), metavar='N', help=f'number of {workers} (default: one per CPU)'
    )
    parser.add_argument(
        '--overwrite', action='store_true', help='make finished data again, and replace data of another source'
    )


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
