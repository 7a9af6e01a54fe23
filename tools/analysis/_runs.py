"""What work dirs of trainings hold: rows of diagnostics.jsonl, the best epoch, configs side by side."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lale_mmseg.engine.hooks.diagnostics import ROWS_NAME as DIAGNOSTICS
from lale_mmseg.engine.hooks.diagnostics import read_rows
from lale_mmseg.errors import DataError


def read_diagnostics(work_dir: Path) -> list[dict[str, Any]]:
    """Rows of `diagnostics.jsonl` by epoch.

    Raises:
        DataError: The file is missing.
    """
    path = work_dir / DIAGNOSTICS
    if not path.is_file():
        raise DataError(f'{path}: no such file; EpochDiagnosticsHook writes it after the first epoch of a training')
    return read_rows(work_dir)


#: Losses of decode heads by the name that the config gives them; auxiliary heads are no part of a comparison.
_LOSS = re.compile(r'(?:decode(?:_\d+)?\.)?(loss_\w+)')


def score_of(row: Mapping[str, Any], name: str = 'mIoU') -> float | None:
    """A validation score of a row in percent, None where it was not validated."""
    value = (row.get('val') or {}).get(name)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def best_of(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The row of the highest validation mIoU, the first of equals; None if none was validated."""
    validated = [row for row in rows if score_of(row) is not None]
    return max(validated, key=lambda row: score_of(row) or 0.0, default=None)


def training_losses(attempts: Sequence[Sequence[Mapping[str, Any]]]) -> tuple[list[dict[int, float]], str]:
    """Training losses that can be set side by side.

    Args:
        attempts: Rows of diagnostics of each.

    Returns:
        Of each attempt the sum of the losses that all attempts have (by name, whatever the head) by epoch, and which
        these are, such as 'loss_bce + loss_dice'; their totals where they have none in common.
    """
    named = [[(int(row['epoch']), _losses_of(row)) for row in rows] for rows in attempts]
    names = [{name for _, losses in rows for name in losses} for rows in named]
    shared = sorted(set.intersection(*names)) if names else []
    if not shared:
        totals = [{int(row['epoch']): (row.get('train') or {}).get('loss') for row in rows} for rows in attempts]
        known = [{epoch: value for epoch, value in points.items() if value is not None} for points in totals]
        return known, 'all of each attempt'
    sums = [
        {epoch: sum(losses[name] for name in shared) for epoch, losses in rows if set(shared) <= set(losses)}
        for rows in named
    ]
    return sums, ' + '.join(shared)


def _losses_of(row: Mapping[str, Any]) -> dict[str, float]:
    """Losses of the decode heads of an epoch by the last part of their names, heads summed."""
    found: dict[str, float] = {}
    for name, value in (row.get('train') or {}).items():
        match = _LOSS.fullmatch(name)
        if match and value is not None:
            found[match[1]] = found.get(match[1], 0.0) + value
    return found


def flatten(node: Any, path: str = '') -> dict[str, Any]:
    """Leaves of a nested config by dotted path; empty dicts and lists are leaves, too."""
    if isinstance(node, Mapping) and node:
        items: list[tuple[Any, Any]] = list(node.items())
    elif isinstance(node, (list, tuple)) and any(isinstance(item, (Mapping, list, tuple)) for item in node):
        items = list(enumerate(node))
    else:
        return {path: list(node) if isinstance(node, tuple) else node}
    found: dict[str, Any] = {}
    for key, value in items:
        found.update(flatten(value, f'{path}.{key}' if path else str(key)))
    return found


def differing(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Keys of two flat mappings whose values differ, or that one of them lacks."""
    missing = object()
    return [key for key in {**before, **now} if before.get(key, missing) != now.get(key, missing)]


def short(text: str, length: int = 60) -> str:
    """A text, cut off where it is longer."""
    return text if len(text) <= length else f'{text[: length - 3]}...'
