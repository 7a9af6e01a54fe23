"""Symmetries of the square, applied to batches of images and undone on their predictions."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor


@dataclass(frozen=True)
class View:
    """An optional transposition followed by flips.

    Attributes:
        transpose: Whether rows and columns are swapped.
        flips: Axes to flip after that: -2 (upside down), -1 (left to right).
    """

    transpose: bool = False
    flips: tuple[int, ...] = ()

    def apply(self, x: Tensor) -> Tensor:
        """Maps (..., H, W) to the view, (..., W, H) if it is transposed; keeps the memory format of a batch."""
        return _flipped(_transposed(x) if self.transpose else x, self.flips)

    def undo(self, x: Tensor) -> Tensor:
        """The inverse of `apply`."""
        x = _flipped(x, self.flips)
        return _transposed(x) if self.transpose else x


#: Views by the name that a config gives. 'hflip' suits photographs, which have an up and a down; 'd4', all rotations by
#: 90 degrees and their mirror images, suits views from above.
VIEWS: dict[str, tuple[View, ...]] = {
    'none': (View(),),
    'hflip': (View(), View(flips=(-1,))),
    'flips': (View(), View(flips=(-1,)), View(flips=(-2,))),
    'd4': tuple(View(transpose, flips) for transpose, flips in product((False, True), ((), (-1,), (-2,), (-2, -1)))),
}


def _flipped(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    return x.flip(axes) if axes else x


def _transposed(x: Tensor) -> Tensor:
    turned = x.transpose(-1, -2)
    if x.ndim != 4:
        return turned.contiguous()
    # A transposed channels-last batch is contiguous in neither format, and convolutions would convert it each time.
    channels_last = x.is_contiguous(memory_format=torch.channels_last)
    return turned.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
