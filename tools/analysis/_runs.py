"""What work dirs of trainings hold: rows of diagnostics.jsonl, the best epoch, configs side by side."""

from __future__ import annotations

import math
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


def score_of(row: Mapping[str, Any], name: str = 'mIoU') -> float | None:
    """A validation score of a row in percent, None where it was not validated."""
    value = (row.get('val') or {}).get(name)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def best_of(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The row of the highest validation mIoU, the first of equals; None if none was validated."""
    validated = [row for row in rows if score_of(row) is not None]
    return max(validated, key=lambda row: score_of(row) or 0.0, default=None)


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
