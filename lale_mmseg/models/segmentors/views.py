"""The symmetries of a square, as views of image batches that can be undone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor


@dataclass(frozen=True)
class View:
    """Rows and columns exchanged or not, then each of them reversed or not.

    Attributes:
        transpose: Whether rows become columns; height and width change places.
        flips: Axes that are reversed after that: -2 (upside down), -1 (left to right).
    """

    transpose: bool = False
    flips: tuple[int, ...] = ()

    def apply(self, x: Tensor) -> Tensor:
        """(..., H, W) -> the view, (..., W, H) where it is transposed; the memory format of a batch stays."""
        return _reversed(_transposed(x) if self.transpose else x, self.flips)

    def undo(self, x: Tensor) -> Tensor:
        """The inverse of `apply`."""
        x = _reversed(x, self.flips)
        return _transposed(x) if self.transpose else x


_FLIPS: Sequence[tuple[int, ...]] = ((), (-1,), (-2,), (-2, -1))
#: Views by the name that a config gives: the image itself; with its mirror images left to right and upside down; all
#: eight symmetries of the square: rotations by 0, 90, 180 and 270 degrees, each also mirrored.
VIEWS: dict[str, tuple[View, ...]] = {
    'none': (View(),),
    'flips': (View(), View(flips=(-1,)), View(flips=(-2,))),
    'd4': tuple(View(transpose, flips) for transpose, flips in product((False, True), _FLIPS)),
}


def _reversed(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    return x.flip(axes) if axes else x


def _transposed(x: Tensor) -> Tensor:
    turned = x.transpose(-1, -2)
    if x.ndim != 4:
        return turned.contiguous()
    channels_last = x.is_contiguous(memory_format=torch.channels_last)
    return turned.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
