"""Overlapping windows that cover an image of any size, each responsible for its own part."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class Window:
    """What to read, and which part of it to keep; slices of rows and columns of the image."""

    rows: slice
    columns: slice
    keep_rows: slice
    keep_columns: slice

    @property
    def kept(self) -> tuple[slice, slice]:
        """The part to keep, counted from the window's own corner."""
        return _shifted(self.keep_rows, self.rows.start), _shifted(self.keep_columns, self.columns.start)


def windows(height: int, width: int, size: int, overlap: int) -> Iterator[Window]:
    """Windows in row order; the kept parts cover every pixel exactly once.

    Windows are at most `size` pixels a side and overlap by at least `overlap`; the last of each row and column ends
    at the border, so nothing is padded. Neighbours meet in the middle of their overlap, where both see the most of
    their surroundings.

    Args:
        height: Of the image, in pixels.
        width: Of the image, in pixels.
        size: Side of the windows, in pixels.
        overlap: Lowest overlap of neighbours, in pixels; less than `size`.

    Raises:
        ValueError: `size` is below 1, or `overlap` not from 0 to `size` - 1.
    """
    if size < 1 or not 0 <= overlap < size:
        raise ValueError(f'size={size}, overlap={overlap}: size must be 1 or more, overlap from 0 to size - 1')
    columns = list(_spans(width, size, overlap))
    for rows, keep_rows in _spans(height, size, overlap):
        for span, keep in columns:
            yield Window(rows, span, keep_rows, keep)


def num_windows(height: int, width: int, size: int, overlap: int) -> int:
    """Number of windows that `windows` gives."""
    return sum(1 for _ in _spans(height, size, overlap)) * sum(1 for _ in _spans(width, size, overlap))


def _spans(length: int, size: int, overlap: int) -> Iterator[tuple[slice, slice]]:
    """(what to read, what to keep) along one axis."""
    if length <= size:
        yield slice(0, length), slice(0, length)
        return
    starts = [*range(0, length - size, size - overlap), length - size]
    # Where neighbours meet: half way between the end of one and the start of the next.
    cuts = [0, *((left + size + right) // 2 for left, right in pairwise(starts)), length]
    for position, start in enumerate(starts):
        yield slice(start, start + size), slice(cuts[position], cuts[position + 1])


def _shifted(part: slice, by: int) -> slice:
    return slice(part.start - by, part.stop - by)
