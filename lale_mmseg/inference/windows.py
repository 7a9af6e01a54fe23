"""Windows over an image, and the weighted mean of what a network predicts in them.

Windows lie where mmsegmentation's slide mode puts them: in row order at multiples of the stride, the last one of each
row and column moved back so that it ends at the border.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Window:
    """A rectangle in an image, in pixels from the upper left corner."""

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
        crop_size: (height, width) of the windows, cut down to the size of the image.
        stride: (rows, columns) from one window to the next, at most `crop_size`.
        blend: 'mean' weights all pixels of a window equally; 'hann' weights them by sin^2, which falls from 1 in the
            middle to almost 0 at those sides of a window where it has a neighbour.
    """

    def __init__(
        self, size: tuple[int, int], crop_size: tuple[int, int], stride: tuple[int, int], blend: str = 'mean'
    ) -> None:
        self.size = size
        self.window_size = (min(crop_size[0], size[0]), min(crop_size[1], size[1]))
        self.tops, self.lefts = (_starts(*axis) for axis in zip(size, crop_size, stride, strict=True))
        self.blend = blend

    def __len__(self) -> int:
        return len(self.tops) * len(self.lefts)

    def __iter__(self) -> Iterator[Window]:
        """Yields the windows in row order."""
        for top in self.tops:
            for left in self.lefts:
                yield Window(top, left, *self.window_size)

    def weights(self, window: Window) -> tuple[Tensor, Tensor]:
        """Weights of the rows (h, 1) and of the columns (w,) of a window; the weight of a pixel is their product."""
        return self._axis_weights(0, window.top)[:, None], self._axis_weights(1, window.left)

    def cover(self) -> tuple[Tensor, Tensor]:
        """Summed weights over the rows (H, 1) and over the columns (W,) of the image; their product covers a pixel."""
        sums = []
        for axis, starts in enumerate((self.tops, self.lefts)):
            total = torch.zeros(self.size[axis])
            for start in starts:
                total[start : start + self.window_size[axis]] += self._axis_weights(axis, start)
            sums.append(total)
        return sums[0][:, None], sums[1]

    def _axis_weights(self, axis: int, start: int) -> Tensor:
        side, length = self.window_size[axis], self.size[axis]
        weights = torch.ones(side)
        if self.blend == 'hann':
            # Taken at the centres of pixels, so never 0: every pixel is covered even where windows do not overlap.
            hann = torch.sin(math.pi * (torch.arange(side) + 0.5) / side) ** 2
            half = side // 2
            # The half towards a border of the image keeps full weight, as there is no neighbour to fade to.
            if start > 0:
                weights[:half] = hann[:half]
            if start + side < length:
                weights[half:] = hann[half:]
        return weights


def _starts(length: int, side: int, step: int) -> list[int]:
    if length <= side:
        return [0]
    return [*range(0, length - side, step), length - side]


class WindowMean:
    """Weighted mean of the predictions of windows that arrive in row order.

    Rows above the windows of the next row are final. Without `keep` they become classes at once and their scores are
    dropped, so only one row of windows is held in memory.

    Args:
        grid: The windows of the image.
        classify: Maps scores (C, rows, W) to classes (rows, W).
        keep: Whether to keep all scores, in `scores`, instead of classes, in `classes`.
    """

    def __init__(self, grid: WindowGrid, classify: Callable[[Tensor], Tensor], keep: bool) -> None:
        self.grid = grid
        self.classify = classify
        self.keep = keep
        #: (C, H, W) mean scores, with `keep` and after the last window.
        self.scores: Tensor | None = None
        #: (H, W) classes, without `keep` and after the last window.
        self.classes: Tensor | None = None
        self._sums: Tensor | None = None  # (C, rows, W) of the rows from _top on
        self._cover: tuple[Tensor, Tensor] | None = None
        self._top = 0
        self._final = 0  # rows above are final
        self._added = 0

    def add(self, window: Window, scores: Tensor) -> None:
        """Adds the scores (C, h, w) of the next window of the grid."""
        if len(self.grid) == 1:
            self.scores, self.classes = (scores, None) if self.keep else (None, self.classify(scores))
            return
        if self._sums is None:
            self._sums = self._empty_sums(scores)
            over_rows, over_columns = self.grid.cover()
            self._cover = over_rows.to(scores.device), over_columns.to(scores.device)
        if window.top > self._final:
            self._finish_rows(window.top)
        if self.grid.blend == 'hann':
            rows, columns = self.grid.weights(window)
            scores = scores * (rows * columns).to(scores.device)  # (C, h, w) * (h, w)
        self._sums[:, window.top - self._top : window.top - self._top + window.height, window.columns] += scores
        self._added += 1
        if self._added == len(self.grid):
            self._finish_rows(self.grid.size[0])
            self.scores = self._sums if self.keep else None
            self._sums = None

    def _empty_sums(self, scores: Tensor) -> Tensor:
        """Zeros in the memory format of the scores, as adding across formats is several times slower."""
        channels, height, width = scores.shape[0], self.grid.window_size[0], self.grid.size[1]
        shape = (channels, self.grid.size[0] if self.keep else height, width)
        dtype = torch.promote_types(scores.dtype, torch.float32)
        if channels > 1 and scores.stride(0) == 1:
            return scores.new_zeros((*shape[1:], channels), dtype=dtype).permute(2, 0, 1)
        return scores.new_zeros(shape, dtype=dtype)

    def _finish_rows(self, end: int) -> None:
        """Divides the rows from the last final one to `end` by their cover; without `keep` makes classes of them."""
        assert self._sums is not None
        assert self._cover is not None
        rows = self._sums[:, self._final - self._top : end - self._top]
        over_rows, over_columns = self._cover
        rows /= over_rows[self._final : end] * over_columns
        if not self.keep:
            found = self.classify(rows)
            if self.classes is None:
                self.classes = found.new_empty(self.grid.size)
            self.classes[self._final : end] = found
            if end < self.grid.size[0]:
                self._move_up(end - self._top)
                self._top = end
        self._final = end

    def _move_up(self, by: int) -> None:
        """Drops the first `by` rows of the sums, moves the others up and clears what is left below."""
        assert self._sums is not None
        height = self._sums.shape[1]
        for row in range(by, height, by):  # at most `by` rows at once, so that source and target do not overlap
            piece = self._sums[:, row : row + by]
            self._sums[:, row - by : row - by + piece.shape[1]].copy_(piece)
        self._sums[:, height - by :].zero_()
