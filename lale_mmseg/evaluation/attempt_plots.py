"""Charts that set trainings side by side, as PNG: over the number of tiles, over the epochs, and image by image."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from textwrap import fill
from typing import Any

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from .plots import DPI, save_figure

#: Colours of attempts, in turn (Okabe and Ito: safe for colour blind readers); then other dashes.
COLORS = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9', '#000000')
_DASHES = ('-', '--', ':')
#: Colours of single seeds, lighter than the mean.
_MEAN = '#0072B2'
_SEED = '#D55E00'
#: Side of a picture in inches, and its longest side in pixels.
_CELL = 2.5
_LONGEST_SIDE = 512
#: Letters of a line above a picture, and of names that stand three in a row.
_LINE = 26
#: Letters of a line along the height of a chart.
_AXIS = 48
_SHORT = 36


@dataclass(frozen=True)
class Curve:
    """A training over its epochs.

    Attributes:
        label: Its name.
        scores: Validation IoU in percent by epoch.
        losses: Training loss by epoch.
        group: The attempt that it is of, where it is one of several with other seeds.
    """

    label: str
    scores: Mapping[int, float]
    losses: Mapping[int, float]
    group: str | None = None


@dataclass(frozen=True)
class Row:
    """One image and what the attempts made of it.

    Attributes:
        name: Of the image.
        image: (H, W, 3) uint8 array, RGB.
        truth: (H, W, 3) uint8 array, RGB: the image with the labels over it.
        predictions: The same of each attempt, by label; attempts may be missing.
        scores: IoU of the image in percent by label, where it is known; None where the truth has no building.
    """

    name: str
    image: np.ndarray
    truth: np.ndarray
    predictions: Mapping[str, np.ndarray]
    scores: Mapping[str, float | None] = field(default_factory=dict)


def plot_budget(points: Mapping[int, Mapping[int, float]], path: str | PathLike[str], title: str, score: str) -> None:
    """Draws a score against the number of tiles: each seed a dot, their mean a line, the spread a bar.

    Args:
        points: Score in percent by seed, by number of tiles.
        path: PNG file to write.
        title: Heading.
        score: What the score is, such as 'IoU of building'.

    Raises:
        ValueError: There is nothing to draw.
    """
    if not points or not all(points.values()):
        raise ValueError('no scores to draw')
    counts = sorted(points)
    means = [float(np.mean([*points[count].values()])) for count in counts]
    # One seed has no spread.
    spreads = [
        float(np.std([*points[count].values()], ddof=1)) if len(points[count]) > 1 else np.nan for count in counts
    ]
    figure = Figure(figsize=(6.4, 4.4), dpi=DPI, layout='constrained')
    axes = figure.add_subplot()
    axes.errorbar(
        counts, means, spreads, color=_MEAN, linewidth=1.8, marker='D', markersize=5, capsize=5, zorder=2,
        label=f'mean and standard deviation (n - 1) of {_number_of_seeds(points)}',
    )  # fmt: skip
    # Seeds of equal scores stand beside each other, not on one spot.
    seeds = sorted({seed for scores in points.values() for seed in scores})
    width = 0.012 * max(counts[-1] - counts[0], 1)
    for place, seed in enumerate(seeds):
        shift = (place - (len(seeds) - 1) / 2) * width
        present = [count for count in counts if seed in points[count]]
        axes.plot(
            [count + shift for count in present], [points[count][seed] for count in present], 'o', color=_SEED,
            markersize=5, markeredgecolor='white', markeredgewidth=0.6, zorder=3,
            label='one seed' if not place else None,
        )  # fmt: skip
    for count, mean in zip(counts, means, strict=True):
        axes.annotate(f'{mean:.1f}', (count, mean), (8, -11), textcoords='offset points', fontsize=9, color=_MEAN)
    axes.xaxis.set_major_locator(FixedLocator(counts))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.margins(x=0.09, y=0.15)
    axes.set_xlabel('Training tiles')
    axes.set_ylabel(fill(f'Best validation {score} (%)', _AXIS))
    axes.set_title(title, fontsize=10)
    axes.legend(frameon=False, loc='lower right')
    _grid(axes)
    save_figure(figure, path)


def _number_of_seeds(points: Mapping[int, Mapping[int, float]]) -> str:
    numbers = sorted({len(scores) for scores in points.values()})
    if len(numbers) > 1:
        return f'{numbers[0]} to {numbers[-1]} seeds'
    return '1 seed' if numbers == [1] else f'{numbers[0]} seeds'


def plot_convergence(
    curves: Sequence[Curve], path: str | PathLike[str], losses: str, score: str = 'IoU of building'
) -> None:
    """Draws the validation score and training loss by epoch, the best epoch of each training marked.

    Trainings of one attempt have its colour, and one entry in the legend: mean and standard deviation of their best.

    Args:
        curves: The trainings; attempts are in the legend in the order of their first ones.
        path: PNG file to write.
        losses: What the training losses are the sum of, such as 'loss_bce + loss_dice'; stands at their axis.
        score: Name of the score, in percent.

    Raises:
        ValueError: No attempt was validated.
    """
    if not any(curve.scores for curve in curves):
        raise ValueError('no validation scores to draw')
    groups: dict[str, list[Curve]] = {}
    for curve in curves:
        groups.setdefault(curve.label if curve.group is None else curve.group, []).append(curve)
    figure = Figure(figsize=(11.6, 4.6), dpi=DPI, layout='constrained')
    left, right = figure.subplots(1, 2)
    for place, (name, members) in enumerate(groups.items()):
        dashes = _DASHES[place // len(COLORS) % len(_DASHES)]
        width = 1.7 if len(members) == 1 else 1.1
        style: dict[str, Any] = dict(color=COLORS[place % len(COLORS)], linestyle=dashes, linewidth=width)
        left.plot([], [], label=_legend(name, members), **style)
        for curve in members:
            marker = 'o' if max(len(curve.scores), len(curve.losses)) == 1 else None
            if curve.scores:
                best = _best_epoch(curve)
                star = dict(color=style['color'], markeredgecolor='white', markersize=14, zorder=3)
                left.plot([*curve.scores], [*curve.scores.values()], marker=marker, **style)
                left.plot(best, curve.scores[best], '*', **star)
            right.plot([*curve.losses], [*curve.losses.values()], marker=marker, **style)
    left.set_ylabel(f'Validation {score} (%)')
    left.set_title('Validation (star: best epoch)')
    right.set_ylabel(f'Training loss ({losses})')
    right.set_title('Training')
    for axes in (left, right):
        axes.set_xlabel('Epoch')
        axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
        axes.margins(x=0.02)
        _grid(axes)
    columns = 3 if max(map(len, groups)) <= _SHORT else 2
    figure.legend(loc='outside lower center', ncols=min(columns, len(groups)), frameon=False, fontsize=9)
    save_figure(figure, path)


def _best_epoch(curve: Curve) -> int:
    return max(curve.scores, key=lambda epoch: curve.scores[epoch])


def _legend(name: str, members: Sequence[Curve]) -> str:
    """Name of an attempt with its best score, or the mean of those of its seeds."""
    best = [curve.scores[_best_epoch(curve)] for curve in members if curve.scores]
    if not best:
        return f'{name}: not validated'
    if len(best) == 1:
        return f'{name}: {best[0]:.1f} at {_best_epoch(next(curve for curve in members if curve.scores))}'
    return f'{name}: {np.mean(best):.1f} ± {np.std(best, ddof=1):.1f}, {len(best)} seeds'


def draw_predictions(rows: Sequence[Row], labels: Sequence[str], path: str | PathLike[str], title: str) -> None:
    """Draws images as rows; image, truth and the prediction of each attempt as columns, with the IoU of the image.

    Args:
        rows: The images; where an attempt has no prediction of one, its place says so.
        labels: The attempts, in order.
        path: PNG file to write.
        title: Heading.

    Raises:
        ValueError: There are no rows.
    """
    if not rows:
        raise ValueError('no images to draw')
    columns = 2 + len(labels)
    figure = Figure(figsize=(_CELL * columns + 0.4, (_CELL + 0.3) * len(rows) + 0.7), dpi=DPI, layout='constrained')
    figure.suptitle(title, fontsize=11)
    cells = figure.subplots(len(rows), columns, squeeze=False)
    for line, row in zip(cells, rows, strict=True):
        pictures = [row.image, row.truth, *(row.predictions.get(label) for label in labels)]
        for axes, picture in zip(line, pictures, strict=True):
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set_color('#cccccc')
            if picture is None:
                axes.set_box_aspect(row.image.shape[0] / row.image.shape[1])
                axes.text(0.5, 0.5, 'not drawn\nby this attempt', ha='center', va='center', color='#777777', fontsize=9)
            else:
                axes.imshow(_small(picture), interpolation='antialiased')
        line[0].set_ylabel(row.name, fontsize=9)
        best = max((score for score in row.scores.values() if score is not None), default=None)
        for axes, label in zip(line[2:], labels, strict=True):
            if label not in row.predictions or label not in row.scores:
                continue
            score = row.scores[label]
            axes.set_xlabel(
                'no building' if score is None else f'IoU {score:.1f}',
                fontsize=10,
                fontweight='bold' if score is not None and score == best else 'normal',
            )
    for axes, heading in zip(cells[0], ['image', 'truth', *labels], strict=True):
        axes.set_title(_wrapped(heading), fontsize=10)
    save_figure(figure, path)


def _wrapped(label: str) -> str:
    """A name in lines of at most 26 letters where it can be broken, as names of configs are long."""
    lines = ['']
    for piece in re.split(r'(?<=[_\-\s])', label):
        if lines[-1] and len(lines[-1]) + len(piece) > _LINE:
            lines.append('')
        lines[-1] += piece
    return '\n'.join(lines)


def _small(picture: np.ndarray) -> np.ndarray:
    """A picture of at most 512 pixels a side."""
    factor = _LONGEST_SIDE / max(picture.shape[:2])
    if factor >= 1:
        return picture
    size = (max(1, round(picture.shape[1] * factor)), max(1, round(picture.shape[0] * factor)))
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)


def _grid(axes: Axes) -> None:
    axes.grid(color='#dddddd', linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[['top', 'right']].set_visible(False)
