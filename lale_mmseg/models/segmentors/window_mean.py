"""Where the windows of an image lie, and the mean of what they say, kept only for rows that windows can still change.

The placement is that of mmsegmentation's slide mode: windows in row order at multiples of the stride, the last of each
row and column moved back to end at the border.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Window:
    """A part of an image, in pixels from its upper left corner."""

    top: int
    left: int
    height: int
    width: int

    @property
    def rows(self) -> slice:
        """Rows of the image."""
        return slice(self.top, self.top + self.height)

    @property
    def columns(self) -> slice:
        """Columns of the image."""
        return slice(self.left, self.left + self.width)


class WindowGrid:
    """Windows that cover an image.

    Args:
        size: (height, width) of the image.
        crop_size: (height, width) of the windows; an image that is smaller has windows of its own size.
        stride: (rows, columns) from one window to the next, at most `crop_size`.
    """

    def __init__(self, size: tuple[int, int], crop_size: tuple[int, int], stride: tuple[int, int]) -> None:
        self.size = size
        self.window_size = (min(crop_size[0], size[0]), min(crop_size[1], size[1]))
        self.tops, self.lefts = (_starts(*axis) for axis in zip(size, crop_size, stride, strict=True))

    def __len__(self) -> int:
        return len(self.tops) * len(self.lefts)

    def __iter__(self) -> Iterator[Window]:
        """Windows in row order."""
        for top in self.tops:
            for left in self.lefts:
                yield Window(top, left, *self.window_size)

    def cover(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Number of windows over each row (H, 1) and over each column (W,); that over a pixel is their product."""
        counts = []
        for length, side, starts in zip(self.size, self.window_size, (self.tops, self.lefts), strict=True):
            count = torch.zeros(length)
            for start in starts:
                count[start : start + side] += 1
            counts.append(count.to(device))
        return counts[0][:, None], counts[1]


def _starts(length: int, side: int, step: int) -> list[int]:
    if length <= side:
        return [0]
    return [*range(0, length - side, step), length - side]


class WindowMean:
    """The mean of windows that come in row order.

    Rows above a window of the next row are complete. Without `keep` they become classes at once and their scores are
    dropped, so that memory is that of one row of windows.

    Args:
        grid: The windows of the image.
        classify: From scores (C, rows, W) to classes (rows, W).
        keep: Whether all scores stay, in `scores`, instead of the classes in `classes`.
    """

    def __init__(self, grid: WindowGrid, classify: Callable[[Tensor], Tensor], keep: bool) -> None:
        self.grid = grid
        self.classify = classify
        self.keep = keep
        #: (C, H, W) mean scores, with `keep` and after the last window.
        self.scores: Tensor | None = None
        #: (H, W) classes, without `keep` and after the last window.
        self.classes: Tensor | None = None
        self._sums: Tensor | None = None  # of the rows from _top on
        self._cover: tuple[Tensor, Tensor] | None = None
        self._top = 0
        self._complete = 0
        self._added = 0

    def add(self, window: Window, scores: Tensor) -> None:
        """Takes the scores (C, h, w) of the next window of the grid; they are not changed."""
        if self._sums is None:
            self._sums = self._empty_sums(scores)
            self._cover = self.grid.cover(scores.device)
        if window.top > self._complete:
            self._complete_rows(window.top)
        self._sums[:, window.top - self._top : window.top - self._top + window.height, window.columns] += scores
        self._added += 1
        if self._added == len(self.grid):
            self._complete_rows(self.grid.size[0])
            self.scores = self._sums if self.keep else None
            self._sums = None

    def _empty_sums(self, scores: Tensor) -> Tensor:
        """Zeros in the memory format of the scores: adding across formats is several times slower."""
        channels, height, width = scores.shape[0], self.grid.window_size[0], self.grid.size[1]
        shape = (channels, self.grid.size[0] if self.keep else height, width)
        dtype = torch.promote_types(scores.dtype, torch.float32)
        with torch.inference_mode(False):  # results that a caller may change
            if channels > 1 and scores.stride(0) == 1:
                return scores.new_zeros((*shape[1:], channels), dtype=dtype).permute(2, 0, 1)
            return scores.new_zeros(shape, dtype=dtype)

    def _complete_rows(self, end: int) -> None:
        """Divides the rows from the last complete one to `end`, and without `keep` makes classes of them."""
        assert self._sums is not None
        assert self._cover is not None
        rows = self._sums[:, self._complete - self._top : end - self._top]
        if len(self.grid) > 1:
            over_rows, over_columns = self._cover
            rows /= over_rows[self._complete : end] * over_columns
        if not self.keep:
            found = self.classify(rows)
            if self.classes is None:
                with torch.inference_mode(False):
                    self.classes = found.new_empty(self.grid.size)
            self.classes[self._complete : end] = found
            if end < self.grid.size[0]:
                self._move_up(end - self._top)
                self._top = end
        self._complete = end

    def _move_up(self, by: int) -> None:
        """Drops the first `by` rows of the sums: those below move up, and zeros follow."""
        assert self._sums is not None
        height = self._sums.shape[1]
        for row in range(by, height, by):  # pieces of at most `by` rows: source and target do not overlap
            piece = self._sums[:, row : row + by]
            self._sums[:, row - by : row - by + piece.shape[1]].copy_(piece)
        self._sums[:, height - by :].zero_()
