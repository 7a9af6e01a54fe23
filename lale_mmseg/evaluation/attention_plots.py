"""Pictures of what attention looks at, as PNG: weights laid over the image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Patch

from .plots import DPI, save_figure

#: A legend of more tokens than this names those alone that most pixels listen to.
MAX_LEGEND = 24

_MARK = '#00e5ff'
#: Sides of a picture in a grid, in inches.
_TILE = 2.1
_LARGE_TILE = 3.0
_LONGEST_SIDE = 512


@dataclass(frozen=True)
class Backdrop:
    """The image that weights are laid over, in grey, so that all colour is attention.

    Attributes:
        image: (H, W, 3) uint8 array, RGB.
        input_hw: Height and width of the network's input, which may be padded below and to the right.
        alpha: Opacity of the weights, 0 to 1.
    """

    image: np.ndarray
    input_hw: tuple[int, int]
    alpha: float = 0.7

    def draw(self, axes: Axes) -> None:
        """Draws the image alone, in grey."""
        height, width = self.image.shape[:2]
        # The eye's weights of red, green and blue; every n-th pixel is enough for a small picture.
        step = max(1, max(height, width) // _LONGEST_SIDE)
        grey = self.image[::step, ::step] @ np.array([0.299, 0.587, 0.114])
        # Little contrast: light and dark of the image must not be taken for light and dark of the colour scale.
        axes.imshow(grey, cmap='gray', vmin=-110, vmax=365, extent=(0, width, height, 0), interpolation='antialiased')
        axes.set_xlim(0, width)
        axes.set_ylim(height, 0)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)

    def draw_in_color(self, axes: Axes) -> None:
        """Draws the image as it is."""
        self.draw(axes)
        height, width = self.image.shape[:2]
        axes.imshow(self.image, extent=(0, width, height, 0), interpolation='antialiased')
        axes.set_title('image', fontsize=10)

    def lay_heat(self, axes: Axes, cells: np.ndarray, highest: float) -> AxesImage:
        """Draws the image and weights (h, w) of the network's input over it, from 0 to `highest`."""
        levels = np.linspace(0, 1, 256)
        colors = matplotlib.colormaps['inferno'](levels)
        # Low weights leave the image to be seen, high ones cover it.
        colors[:, 3] = self.alpha * (0.5 + 0.5 * levels)
        return self._lay(axes, cells, ListedColormap(colors), (0, highest or 1.0))

    def lay_numbers(self, axes: Axes, cells: np.ndarray, colors: np.ndarray) -> AxesImage:
        """Draws the image and numbers (h, w) of the network's input over it, each in its colour of (M, 3)."""
        opaque = np.full((len(colors), 1), self.alpha)
        return self._lay(axes, cells, ListedColormap(np.hstack([colors, opaque])), (-0.5, len(colors) - 0.5))

    def _lay(self, axes: Axes, cells: np.ndarray, cmap: ListedColormap, limits: tuple[float, float]) -> AxesImage:
        self.draw(axes)
        height, width = self.image.shape[:2]
        extent = (0, self.input_hw[1], self.input_hw[0], 0)
        low, high = limits
        picture = axes.imshow(cells, cmap=cmap, vmin=low, vmax=high, extent=extent, interpolation='nearest')
        axes.set_xlim(0, width)
        axes.set_ylim(height, 0)
        return picture


def plot_tokens(
    backdrop: Backdrop, maps: np.ndarray, notes: Sequence[str], title: str, path: str | PathLike[str]
) -> None:
    """Draws what each meta token looks at, one overlay a token, each from 0 to its own highest weight.

    Args:
        backdrop: The image.
        maps: (M, h, w) weights.
        notes: A line for each token, written below its number.
        title: Heading.
        path: PNG file to write.
    """
    tokens = len(maps)
    aspect = backdrop.image.shape[1] / backdrop.image.shape[0]
    columns = min(max(1, math.ceil(math.sqrt(tokens / aspect))), tokens, 12)
    rows = math.ceil(tokens / columns)
    figure, grid = _grid(backdrop, rows, columns, _TILE)
    picture = None
    for token, axes in enumerate(grid):
        if token == tokens:
            backdrop.draw_in_color(axes)  # there is room
        if token >= tokens:
            axes.set_axis_off()
            continue
        cells = maps[token] / max(float(maps[token].max()), 1e-30)
        picture = backdrop.lay_heat(axes, cells, 1.0)
        axes.set_title(f'{token}', fontsize=11, fontweight='bold', loc='left', pad=3)
        axes.set_title(notes[token], fontsize=8.5, loc='right', pad=3)
    _colorbar(figure, picture, grid, 'weight / highest weight of the token')
    figure.suptitle(title, fontsize=11)
    save_figure(figure, path)


def plot_listening(
    backdrop: Backdrop, winners: np.ndarray, shares: Sequence[float], title: str, path: str | PathLike[str]
) -> None:
    """Draws which meta token each pixel looks at most, beside the image.

    Args:
        backdrop: The image.
        winners: (h, w) numbers of tokens.
        shares: Share of pixels of each token, M of them.
        title: Heading.
        path: PNG file to write.
    """
    tokens = len(shares)
    colors = token_colors(tokens)
    figure, (plain, axes) = _grid(backdrop, 1, 2, 1.4 * _LARGE_TILE)
    backdrop.draw_in_color(plain)
    backdrop.lay_numbers(axes, winners, colors)
    axes.set_title('the token that each pixel looks at most', fontsize=10)
    order = sorted((token for token in range(tokens) if shares[token]), key=lambda token: -shares[token])
    entries = [
        Patch(color=colors[token], label=f'{token}   {_percent(shares[token])} of pixels')
        for token in order[:MAX_LEGEND]
    ]
    silent = tokens - len(order)
    note = (
        f"{silent} of {tokens} tokens\nare no pixel's first" if silent else f'all {tokens} tokens\nare first somewhere'
    )
    if len(order) > MAX_LEGEND:
        note = f'{len(order) - MAX_LEGEND} more tokens, ' + note
    legend = axes.legend(
        handles=entries,
        loc='center left',
        bbox_to_anchor=(1.02, 0.5),
        frameon=False,
        fontsize=9,
        title=f'token\n({note})',
    )
    legend.get_title().set_fontsize(9)
    figure.suptitle(title, fontsize=11)
    save_figure(figure, path)


def plot_pyramid(
    backdrop: Backdrop,
    rows: Sequence[tuple[str, Sequence[np.ndarray], tuple[int, int] | None]],
    title: str,
    path: str | PathLike[str],
) -> None:
    """Draws how much each cell of a pooling pyramid is looked at.

    Args:
        backdrop: The image.
        rows: (label, maps of the pyramid (h, w) in multiples of the equal share of all their cells, row and column of a
            pixel to mark or None); each row has a colour scale of its own, shared by its maps.
        title: Heading.
        path: PNG file to write.
    """
    columns = max(len(maps) for _, maps, _ in rows)
    figure, grid = _grid(backdrop, len(rows), columns, _TILE * 1.25)
    cells = sum(part.size for part in rows[0][1])
    for number, (label, maps, mark) in enumerate(rows):
        highest = max(float(part.max()) for part in maps)
        picture = None
        line = grid[number * columns : (number + 1) * columns]
        for axes, part in zip(line, maps, strict=False):
            picture = backdrop.lay_heat(axes, part, highest)
            height, width = part.shape
            axes.set_title(
                f'pooled to {height}x{width}: {_percent(float(part.sum()) / cells)}\n'
                f'of the attention, {_percent(part.size / cells)} of the keys',
                fontsize=8.5,
                pad=3,
            )
            if mark is not None:
                _mark(axes, mark)
        line[0].set_ylabel(label, fontsize=9.5)
        _colorbar(figure, picture, line, 'weight, x equal share')
    figure.suptitle(title, fontsize=11)
    save_figure(figure, path)


def plot_pixel(
    backdrop: Backdrop, cells: np.ndarray, pixel: tuple[int, int], title: str, path: str | PathLike[str]
) -> None:
    """Draws what one pixel looks at, beside the image.

    Args:
        backdrop: The image.
        cells: (h, w) weights in multiples of the equal share of all cells.
        pixel: Row and column of the pixel in the image.
        title: Heading.
        path: PNG file to write.
    """
    figure, (plain, axes) = _grid(backdrop, 1, 2, 1.4 * _LARGE_TILE)
    backdrop.draw_in_color(plain)
    picture = backdrop.lay_heat(axes, cells, float(cells.max()))
    axes.set_title('what the marked pixel looks at', fontsize=10)
    for each in (plain, axes):
        _mark(each, pixel)
    _colorbar(figure, picture, [axes], 'weight, x equal share')
    figure.suptitle(title, fontsize=11)
    save_figure(figure, path)


def token_colors(tokens: int) -> np.ndarray:
    """A colour for each token (tokens, 3), as different as that many can be."""
    if tokens <= 20:
        order = [*range(0, 20, 2), *range(1, 20, 2)]  # strong ones first, then their pale neighbours
        return matplotlib.colormaps['tab20'](order[:tokens])[:, :3]
    return matplotlib.colormaps['turbo'](np.linspace(0, 1, tokens))[:, :3]


def _grid(backdrop: Backdrop, rows: int, columns: int, tile: float) -> tuple[Figure, list[Axes]]:
    """A figure of equal pictures; the longer side of each is `tile` inches."""
    height, width = backdrop.image.shape[:2]
    longer = max(height, width)
    tall, wide = tile * max(height / longer, 0.2), tile * max(width / longer, 0.35)
    size = (columns * (wide + 0.12) + 1.2, rows * (tall + 0.4) + 0.6)
    figure = Figure(figsize=size, dpi=DPI, layout='constrained')
    return figure, list(figure.subplots(rows, columns, squeeze=False).flat)


def _colorbar(figure: Figure, picture: AxesImage | None, axes: Sequence[Axes], label: str) -> None:
    assert picture is not None
    bar = figure.colorbar(picture, ax=axes, fraction=0.03, pad=0.015, aspect=30)
    bar.set_label(label, fontsize=9)
    bar.ax.tick_params(labelsize=8)
    bar.outline.set_visible(False)
    bar.ax.set_facecolor('#707070')  # colours that let the image through are seen over a middling grey of it


def _mark(axes: Axes, pixel: tuple[int, int]) -> None:
    row, column = pixel
    axes.plot(column + 0.5, row + 0.5, marker='+', markersize=13, markeredgewidth=3.4, color='black')
    axes.plot(column + 0.5, row + 0.5, marker='+', markersize=11, markeredgewidth=1.6, color=_MARK)


def _percent(share: float) -> str:
    if 0 < share < 0.0005:
        return '<0.1 %'
    return f'{100 * share:.1f} %' if share < 0.0995 else f'{100 * share:.0f} %'
