"""Charts that compare training runs, as PNG: scores over epochs, over the number of tiles, and image by image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from textwrap import fill

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from .overlay import overlay
from .plots import DPI, save_figure

#: Colours of groups, in turn (Okabe and Ito: safe for colour blind readers); then other dashes.
COLORS = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9', '#000000')
_DASHES = ('-', '--', ':')
#: Background unpainted; found yellow, false red, missed blue.
_FINDINGS = ((0, 0, 0), (255, 214, 0), (230, 0, 0), (0, 60, 255))
_UNPAINTED = 255
#: Side of a picture in inches.
_CELL = 2.5


@dataclass(frozen=True)
class RunCurves:
    """Curves of one run; each series is indexed by epoch or iteration.

    Attributes:
        group: Runs of one group, which differ in their seed, share a colour and an entry in the legend.
        scores: Validation score in percent.
        losses: Training loss.
    """

    group: str
    scores: pd.Series
    losses: pd.Series


@dataclass(frozen=True)
class Picture:
    """A cell of `draw_grid`: an (H, W, 3) uint8 RGB array and the text below it."""

    image: np.ndarray
    caption: str = ''


def plot_run_curves(
    runs: Sequence[RunCurves], path: str | PathLike[str], score: str, loss: str, steps: tuple[str, str]
) -> None:
    """Draws validation scores and training losses of runs; a star marks the best validation of each.

    Args:
        runs: The runs, those of one group in any place.
        path: PNG file to write.
        score: Name of the score, such as 'mIoU'.
        loss: What the losses are the sum of, such as 'loss_bce + loss_dice'.
        steps: Names of the axes of scores and losses, such as 'Epoch' and 'Iteration'.
    """
    groups: dict[str, list[RunCurves]] = {}
    for run in runs:
        groups.setdefault(run.group, []).append(run)
    figure = Figure(figsize=(11.6, 4.6), dpi=DPI, layout='constrained')
    left, right = figure.subplots(1, 2)
    for place, (name, members) in enumerate(groups.items()):
        color, dashes = COLORS[place % len(COLORS)], _DASHES[place // len(COLORS) % len(_DASHES)]
        best = [run.scores.max() for run in members]
        spread = f' ± {np.std(best, ddof=1):.1f}, {len(best)} seeds' if len(best) > 1 else ''
        left.plot([], [], color=color, linestyle=dashes, label=f'{name}: {np.mean(best):.1f}{spread}')
        for run in members:
            left.plot(run.scores.index, run.scores, color=color, linestyle=dashes, linewidth=1.3)
            left.plot(run.scores.idxmax(), run.scores.max(), '*', color=color, markeredgecolor='white', markersize=14)
            right.plot(run.losses.index, run.losses, color=color, linestyle=dashes, linewidth=1.3)
    left.set(title='Validation (star: best)', ylabel=f'Validation {score} (%)', xlabel=steps[0])
    right.set(title='Training', ylabel=f'Training loss ({loss})', xlabel=steps[1])
    for axes in (left, right):
        axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
        _grid(axes)
    figure.legend(loc='outside lower center', ncols=min(3, len(groups)), frameon=False, fontsize=9)
    save_figure(figure, path)


def plot_budget(scores: pd.DataFrame, path: str | PathLike[str], title: str, score: str) -> None:
    """Draws a score against the number of training tiles: each seed a dot, mean and standard deviation a line.

    Args:
        scores: One row per run with the columns `tiles`, `seed` and `score`.
        path: PNG file to write.
        title: Heading.
        score: Name of the score, such as 'IoU of building'.
    """
    spread = scores.groupby('tiles')['score'].agg(['mean', 'std'])
    figure = Figure(figsize=(6.4, 4.4), dpi=DPI, layout='constrained')
    axes = figure.add_subplot()
    axes.errorbar(
        spread.index, spread['mean'], spread['std'], color=COLORS[0], linewidth=1.8, marker='D', capsize=5,
        label=f'mean and standard deviation, {scores["seed"].nunique()} seed(s)',
    )  # fmt: skip
    # Seeds with equal scores are drawn side by side, not on top of each other.
    width = 0.012 * max(spread.index[-1] - spread.index[0], 1)
    shift = (scores['seed'].rank(method='dense') - (scores['seed'].nunique() + 1) / 2) * width
    axes.plot(
        scores['tiles'] + shift, scores['score'], 'o', color=COLORS[1], markersize=5, markeredgecolor='white',
        label='one seed', zorder=3,
    )  # fmt: skip
    for count, mean in spread['mean'].items():
        axes.annotate(f'{mean:.1f}', (count, mean), (8, -11), textcoords='offset points', fontsize=9, color=COLORS[0])
    axes.xaxis.set_major_locator(FixedLocator(list(spread.index)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.margins(x=0.09, y=0.15)
    axes.set(xlabel='Training tiles', ylabel=fill(f'Best validation {score} (%)', 48))
    axes.set_title(title, fontsize=10)
    axes.legend(frameon=False, loc='lower right')
    _grid(axes)
    save_figure(figure, path)


def draw_grid(
    rows: Mapping[str, Sequence[Picture | None]], headings: Sequence[str], path: str | PathLike[str], title: str
) -> None:
    """Draws pictures as a table.

    Args:
        rows: Pictures by the name of the row, one for each heading; None leaves a cell empty.
        headings: Names of the columns.
        path: PNG file to write.
        title: Heading.
    """
    size = (_CELL * len(headings) + 0.4, (_CELL + 0.3) * len(rows) + 0.7)
    figure = Figure(figsize=size, dpi=DPI, layout='constrained')
    figure.suptitle(title, fontsize=11)
    cells = figure.subplots(len(rows), len(headings), squeeze=False)
    for line, (name, pictures) in zip(cells, rows.items(), strict=True):
        line[0].set_ylabel(name, fontsize=9)
        for axes, picture in zip(line, pictures, strict=True):
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_color('#cccccc')
            if picture is None:
                axes.text(0.5, 0.5, 'not drawn', ha='center', va='center', color='#777777', fontsize=9)
            else:
                axes.imshow(picture.image, interpolation='antialiased')
                axes.set_xlabel(picture.caption, fontsize=10)
    for axes, heading in zip(cells[0], headings, strict=True):
        # Names of configs have no spaces to break lines at.
        axes.set_title(fill(heading.replace('_', '_ '), 26).replace('_ ', '_'), fontsize=10)
    save_figure(figure, path)


def paint_findings(image: np.ndarray, pred: np.ndarray, label: np.ndarray, ignore_index: int = 255) -> np.ndarray:
    """Paints class 1 of a two-class prediction over its image: found yellow, false red, missed blue.

    Args:
        image: (H, W, 3) uint8 array, RGB.
        pred: (H, W) predicted class indexes.
        label: (H, W) class indexes.
        ignore_index: Label of pixels that are not painted.

    Returns:
        (H, W, 3) uint8 array, RGB.
    """
    found, wanted = pred == 1, label == 1
    kinds = np.full(label.shape, _UNPAINTED, np.uint8)
    kinds[found & wanted] = 1
    kinds[found & ~wanted & (label != ignore_index)] = 2
    kinds[~found & wanted] = 3
    # Roofs may be as bright as the colours, so these cover more of the image than usual.
    return overlay(image, kinds, _FINDINGS, alpha=0.6)


def _grid(axes: Axes) -> None:
    axes.grid(color='#dddddd', linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[['top', 'right']].set_visible(False)
