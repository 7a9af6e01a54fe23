"""Pictures of attention weights over the image, as PNG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, ListedColormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Patch

from .plots import DPI, save_figure

#: Maximum number of tokens in a legend.
MAX_LEGEND = 24
#: Longer sides of a picture in a grid, in inches.
_TILE, _LARGE_TILE = 2.1, 4.2


@dataclass(frozen=True)
class Backdrop:
    """The image that weights are drawn over, in grey, so that all colour is attention.

    Attributes:
        image: (H, W, 3) uint8 array, RGB.
        input_hw: Height and width of the network's input, which may be padded at the bottom and on the right.
        alpha: Opacity of the weights, 0 to 1.
    """

    image: np.ndarray
    input_hw: tuple[int, int]
    alpha: float = 0.7

    def show(self, axes: Axes, title: str = 'image', mark: tuple[int, int] | None = None) -> None:
        """Draws the image alone, in colour."""
        self._finish(axes, self.image, dict(), title, mark)

    def lay(
        self,
        axes: Axes,
        cells: np.ndarray,
        title: str,
        cmap: Colormap | None = None,
        limits: tuple[float, float] = (0, 1),
        mark: tuple[int, int] | None = None,
    ) -> AxesImage:
        """Draws values (h, w) of cells of the network's input over the grey image, by default as a heat map."""
        grey = self.image @ np.array([0.299, 0.587, 0.114])
        # Low contrast, so that the brightness of the image is not mistaken for that of the colour scale.
        self._finish(axes, grey, dict(cmap='gray', vmin=-110, vmax=365), title, mark)
        picture = axes.imshow(
            cells,
            cmap=_heat(self.alpha) if cmap is None else cmap,
            vmin=limits[0],
            vmax=limits[1],
            extent=(0, self.input_hw[1], self.input_hw[0], 0),
            interpolation='nearest',
        )
        height, width = self.image.shape[:2]
        axes.set(xlim=(0, width), ylim=(height, 0))  # crops the padding of the input
        return picture

    def _finish(self, axes: Axes, image: np.ndarray, style: dict, title: str, mark: tuple[int, int] | None) -> None:
        height, width = self.image.shape[:2]
        step = max(1, max(height, width) // 512)  # more pixels than the picture has would only cost time
        axes.imshow(image[::step, ::step], extent=(0, width, height, 0), interpolation='antialiased', **style)
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        axes.set_title(title, fontsize=9, pad=3)
        if mark is not None:
            for size, edge, color in ((13, 3.4, 'black'), (11, 1.6, '#00e5ff')):
                position = (mark[1] + 0.5, mark[0] + 0.5)
                axes.plot(*position, marker='+', ms=size, mew=edge, color=color, zorder=3)


def plot_tokens(
    backdrop: Backdrop, maps: np.ndarray, notes: Sequence[str], title: str, path: str | PathLike[str]
) -> None:
    """Draws what each meta token attends to, one overlay per token, each from 0 to its own highest weight.

    Args:
        backdrop: The image.
        maps: (M, h, w) weights.
        notes: A line for each token, next to its number.
        title: Heading.
        path: PNG file to write.
    """
    tokens = len(maps)
    aspect = backdrop.image.shape[1] / backdrop.image.shape[0]
    columns = min(max(1, math.ceil(math.sqrt(tokens / aspect))), tokens, 12)
    figure, grid = _grid(backdrop, math.ceil(tokens / columns), columns, _TILE)
    for token, axes in enumerate(grid[:tokens]):
        cells = maps[token] / max(float(maps[token].max()), 1e-30)
        picture = backdrop.lay(axes, cells, f'{token}: {notes[token]}')
    for axes in grid[tokens:]:
        axes.set_axis_off()
    _colorbar(figure, picture, grid, 'weight / highest weight of the token')
    _save(figure, title, path)


def plot_listening(
    backdrop: Backdrop, winners: np.ndarray, shares: Sequence[float], title: str, path: str | PathLike[str]
) -> None:
    """Draws which meta token each pixel attends to most, next to the image.

    Args:
        backdrop: The image.
        winners: (h, w) indices of tokens.
        shares: Share of pixels of each of the M tokens.
        title: Heading.
        path: PNG file to write.
    """
    tokens = len(shares)
    colors = token_colors(tokens)
    figure, (plain, axes) = _grid(backdrop, 1, 2, _LARGE_TILE)
    backdrop.show(plain)
    opaque = ListedColormap(np.hstack([colors, np.full((tokens, 1), backdrop.alpha)]))
    backdrop.lay(axes, winners, 'token with the highest weight', opaque, (-0.5, tokens - 0.5))
    used = sorted((token for token in range(tokens) if shares[token]), key=lambda token: -shares[token])
    entries = [Patch(color=colors[token], label=f'{token}   {shares[token]:.1%} of pixels') for token in used]
    heading = f'token ({len(used)} of {tokens} are first somewhere)'
    axes.legend(
        handles=entries[:MAX_LEGEND],
        loc='center left',
        bbox_to_anchor=(1.02, 0.5),
        frameon=False,
        fontsize=9,
        title=heading,
        title_fontsize=9,
    )
    _save(figure, title, path)


def plot_pyramid(
    backdrop: Backdrop,
    rows: Sequence[tuple[str, Sequence[np.ndarray], tuple[int, int] | None]],
    title: str,
    path: str | PathLike[str],
) -> None:
    """Draws how much attention each cell of a pooling pyramid gets.

    Args:
        backdrop: The image.
        rows: (label, levels of the pyramid (h, w) in multiples of the mean weight, row and column of a pixel to mark or
            None); each row has its own colour scale.
        title: Heading.
        path: PNG file to write.
    """
    columns = len(rows[0][1])
    figure, grid = _grid(backdrop, len(rows), columns, _TILE * 1.25)
    cells = sum(level.size for level in rows[0][1])
    for number, (label, levels, mark) in enumerate(rows):
        limits = (0, max(float(level.max()) for level in levels) or 1.0)
        line = grid[number * columns : (number + 1) * columns]
        for axes, level in zip(line, levels, strict=True):
            height, width = level.shape
            shares = f'{level.sum() / cells:.1%} of attention, {level.size / cells:.1%} of keys'
            picture = backdrop.lay(axes, level, f'pooled to {height}x{width}\n{shares}', limits=limits, mark=mark)
        line[0].set_ylabel(label, fontsize=9.5)
        _colorbar(figure, picture, line, 'weight / mean weight')
    _save(figure, title, path)


def plot_pixel(
    backdrop: Backdrop, cells: np.ndarray, pixel: tuple[int, int], title: str, path: str | PathLike[str]
) -> None:
    """Draws what one pixel attends to, next to the image.

    Args:
        backdrop: The image.
        cells: (h, w) weights in multiples of their mean.
        pixel: Row and column of the pixel in the image.
        title: Heading.
        path: PNG file to write.
    """
    figure, (plain, axes) = _grid(backdrop, 1, 2, _LARGE_TILE)
    backdrop.show(plain, mark=pixel)
    limits = (0, float(cells.max()))
    picture = backdrop.lay(axes, cells, 'attention of the marked pixel', limits=limits, mark=pixel)
    _colorbar(figure, picture, [axes], 'weight / mean weight')
    _save(figure, title, path)


def token_colors(tokens: int) -> np.ndarray:
    """Distinct colours for tokens, (tokens, 3)."""
    if tokens <= 20:
        order = [*range(0, 20, 2), *range(1, 20, 2)]  # saturated colours first, then their pale variants
        return matplotlib.colormaps['tab20'](order[:tokens])[:, :3]
    return matplotlib.colormaps['turbo'](np.linspace(0, 1, tokens))[:, :3]


def _heat(alpha: float) -> ListedColormap:
    """A heat map whose low weights leave the image visible."""
    levels = np.linspace(0, 1, 256)
    colors = matplotlib.colormaps['inferno'](levels)
    colors[:, 3] = alpha * (0.5 + 0.5 * levels)
    return ListedColormap(colors)


def _grid(backdrop: Backdrop, rows: int, columns: int, tile: float) -> tuple[Figure, list[Axes]]:
    """A figure of equal pictures whose longer side is `tile` inches."""
    height, width = backdrop.image.shape[:2]
    tall, wide = (tile * max(side / max(height, width), 0.35) for side in (height, width))
    size = (columns * (wide + 0.12) + 1.2, rows * (tall + 0.4) + 0.6)
    figure = Figure(figsize=size, dpi=DPI, layout='constrained')
    return figure, list(figure.subplots(rows, columns, squeeze=False).flat)


def _colorbar(figure: Figure, picture: AxesImage, axes: Sequence[Axes], label: str) -> None:
    bar = figure.colorbar(picture, ax=axes, fraction=0.03, pad=0.015, aspect=30)
    bar.set_label(label, fontsize=9)
    bar.ax.tick_params(labelsize=8)
    bar.ax.set_facecolor('#707070')  # translucent colours appear over a medium grey of the image


def _save(figure: Figure, title: str, path: str | PathLike[str]) -> None:
    figure.suptitle(title, fontsize=11)
    save_figure(figure, path)
