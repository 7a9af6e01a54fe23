"""Lists of names in messages."""

from __future__ import annotations

from collections.abc import Sequence

_SHOWN = 8


def some_of(names: Sequence[str], shown: int = _SHOWN) -> str:
    """Names with commas; of more than `shown` the first ones 'and N more'."""
    more = f' and {len(names) - shown} more' if len(names) > shown else ''
    return ', '.join(names[:shown]) + more
