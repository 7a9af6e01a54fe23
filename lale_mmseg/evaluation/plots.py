"""Charts of evaluations and training runs as PNG, drawn without matplotlib's global state."""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from ..files import write_atomic

#: Scores in the validation panel, in this order, with their colours (Okabe and Ito, safe for colour-blind readers).
VAL_SCORES = {'mF1': '#0072B2', 'mIoU': '#D55E00', 'OA': '#009E73'}

#: Colours of bars side by side, from the same palette.
BAR_COLORS = ('#D55E00', '#0072B2', '#009E73', '#CC79A7', '#E69F00')

#: Dots per inch of all charts.
DPI = 130
_LOSS_COLOR = '#0072B2'
_VAL_LOSS_COLOR = '#CC79A7'
#: Prefix of names with `log_with_hierarchy` of mmengine's LogProcessor.
_PHASE = re.compile(r'^(train|val)/')


@dataclass
class Curves:
    """Log of a run, in order of steps.

    Attributes:
        train: Entries by iteration, each with `loss` and possibly `lr` and `epoch`.
        val: Entries by iteration or, if `val_by_epoch`, by epoch; possibly with `loss`.
        val_by_epoch: Whether validation was logged by epoch.
    """

    train: dict[int, dict] = field(default_factory=dict)
    val: dict[int, dict] = field(default_factory=dict)
    val_by_epoch: bool = False

    def val_losses(self) -> dict[int, float]:
        """Returns validation losses by iteration, without epochs that training did not log."""
        losses = {step: entry['loss'] for step, entry in self.val.items() if _is_number(entry.get('loss'))}
        if not self.val_by_epoch:
            return losses
        ends = {entry['epoch']: step for step, entry in self.train.items() if _is_number(entry.get('epoch'))}
        return {ends[epoch]: loss for epoch, loss in losses.items() if epoch in ends}


def plot_confusion(
    matrix: np.ndarray, classes: Sequence[str], path: str | PathLike[str], title: str = 'Confusion matrix'
) -> None:
    """Draws a confusion matrix as a heat map, each row in percent of its label pixels.

    Args:
        matrix: (C, C) pixel counts; row = label, column = prediction. Rows without pixels stay empty.
        classes: Name of each class.
        path: PNG file to write.
        title: Heading.
    """
    matrix = np.asarray(matrix)
    count = len(classes)
    pixels = matrix.sum(axis=1)
    shares = np.full(matrix.shape, np.nan)
    np.divide(100.0 * matrix, pixels[:, None], out=shares, where=pixels[:, None] > 0)

    side = min(max(0.62 * count, 3.2), 16)
    figure = Figure(figsize=(side + 2.6, side + 1.7), dpi=DPI, layout='constrained')
    axes = figure.add_subplot()
    picture = axes.imshow(shares, cmap='Blues', vmin=0, vmax=100)
    axes.set_facecolor('#f2f2f2')
    axes.set_xticks(range(count), classes, rotation=45, ha='right', rotation_mode='anchor')
    total = max(int(pixels.sum()), 1)
    axes.set_yticks(
        range(count), [f'{name}  ({_percent(100 * n / total)} %)' for name, n in zip(classes, pixels, strict=True)]
    )
    axes.set_xlabel('Prediction')
    axes.set_ylabel('Label (share of pixels)')
    axes.set_title(title)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xticks(np.arange(count + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(count + 1) - 0.5, minor=True)
    axes.grid(which='minor', color='white', linewidth=1.2)
    axes.tick_params(which='minor', length=0)
    font = 9 if count <= 12 else 7.5
    if count <= 26:
        for row, column in np.argwhere(~np.isnan(shares)):
            value = shares[row, column]
            color = 'white' if value > 55 else '#222222'
            axes.text(column, row, _percent(value), ha='center', va='center', fontsize=font, color=color)
    bar = figure.colorbar(picture, ax=axes, fraction=0.045, pad=0.03)
    bar.set_label('% of the label pixels of the class')
    bar.outline.set_visible(False)
    save_figure(figure, path)


def plot_bars(groups: dict[str, dict[str, float]], path: str | PathLike[str], title: str) -> None:
    """Draws scores in percent as groups of bars.

    Args:
        groups: Scores by name for each group, at most five different names; a group may lack some.
        path: PNG file to write.
        title: Heading.
    """
    names = list(dict.fromkeys(name for scores in groups.values() for name in scores))
    figure = Figure(figsize=(max(1.8 * len(groups) + 1.5, 5), 4.4), dpi=DPI, layout='constrained')
    axes = figure.add_subplot()
    width = 0.8 / max(len(names), 1)
    for place, (name, color) in enumerate(zip(names, BAR_COLORS[: len(names)], strict=True)):
        present = [(at, scores[name]) for at, scores in enumerate(groups.values()) if name in scores]
        left = [at + (place - (len(names) - 1) / 2) * width for at, _ in present]
        bars = axes.bar(left, [value for _, value in present], 0.92 * width, color=color, label=name)
        axes.bar_label(bars, fmt='%.1f', fontsize=8, padding=2)
    _style(axes)
    axes.grid(visible=False, axis='x')
    axes.set_xticks(range(len(groups)), list(groups))
    axes.set_ylim(0, 108)
    axes.set_ylabel('Score (%)')
    axes.set_title(title)
    figure.legend(loc='outside lower center', ncols=len(names), frameon=False)
    save_figure(figure, path)


def plot_curves(scalars_files: Sequence[Path], path: str | PathLike[str]) -> bool:
    """Draws loss, learning rate and validation scores of a run.

    Args:
        scalars_files: `scalars.json` files of mmengine's LocalVisBackend, oldest first; one for each start of the run.
        path: PNG file to write.

    Returns:
        Whether there was anything to draw; otherwise no file is written.
    """
    curves = read_curves(scalars_files)
    losses = {step: entry['loss'] for step, entry in curves.train.items() if _is_number(entry.get('loss'))}
    scores = {
        name: {step: entry[name] for step, entry in curves.val.items() if _is_number(entry.get(name))}
        for name in VAL_SCORES
    }
    scores = {name: points for name, points in scores.items() if points}
    if not losses and not scores:
        return False
    columns = bool(losses) + bool(scores)
    figure = Figure(figsize=(6.2 * columns, 4.4), dpi=DPI, layout='constrained')
    grid = figure.add_gridspec(2, columns, height_ratios=(3, 1))
    if losses:
        rates = {step: entry['lr'] for step, entry in curves.train.items() if _is_number(entry.get('lr'))}
        loss_axes = figure.add_subplot(grid[0, 0] if rates else grid[:, 0])
        _draw_loss(loss_axes, losses, curves.val_losses())
        lowest = loss_axes
        if rates:
            lowest = figure.add_subplot(grid[1, 0], sharex=loss_axes)
            loss_axes.tick_params(labelbottom=False)
            _draw_rate(lowest, rates)
        lowest.set_xlabel('Iteration')
    if scores:
        axes = figure.add_subplot(grid[:, columns - 1])
        _draw_scores(axes, scores)
        axes.set_xlabel('Epoch' if curves.val_by_epoch else 'Iteration')
    save_figure(figure, path)
    return True


def read_curves(scalars_files: Sequence[Path]) -> Curves:
    """Merges the logs of a run that was started several times.

    From its first step on, a later file replaces the entries of earlier ones, since a resumed run goes back to its
    checkpoint. Missing files, and lines that are not JSON (a log cut off by a crash), are skipped.
    """
    curves = Curves()
    for file in scalars_files:
        entries = _read_lines(Path(file))
        val = {int(entry['step']): entry for entry in entries if any(name in entry for name in VAL_SCORES)}
        # Validations may have a loss as well, so scores distinguish them.
        train = {
            int(entry['step']): entry
            for entry in entries
            if 'loss' in entry and not any(name in entry for name in VAL_SCORES)
        }
        epochs = [entry['epoch'] for entry in train.values() if _is_number(entry.get('epoch'))]
        # mmengine logs epochs only in runs by epoch; there validations usually count epochs as well.
        if epochs and val:
            curves.val_by_epoch = max(val) <= max(epochs)
        if train:
            first = min(train)
            first_val = epochs[0] if epochs and curves.val_by_epoch else first
            curves.train = {step: entry for step, entry in curves.train.items() if step < first}
            curves.val = {step: entry for step, entry in curves.val.items() if step < first_val}
        curves.train.update(train)
        curves.val.update(val)
    curves.train = dict(sorted(curves.train.items()))
    curves.val = dict(sorted(curves.val.items()))
    return curves


def _read_lines(file: Path) -> list[dict]:
    if not file.is_file():
        return []
    entries = []
    for line in file.read_text(encoding='utf-8', errors='replace').splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and _is_number(entry.get('step')):
            entries.append({_PHASE.sub('', name): value for name, value in entry.items()})
    return entries


def _draw_loss(axes: Axes, losses: dict[int, float], val_losses: dict[int, float]) -> None:
    steps, values = list(losses), np.array(list(losses.values()), np.float64)
    if len(steps) >= 10:
        axes.plot(steps, values, color=_LOSS_COLOR, alpha=0.3, linewidth=0.9, label='logged')
        axes.plot(steps, _smooth(values), color=_LOSS_COLOR, linewidth=1.8, label='smoothed')
    else:
        axes.plot(steps, values, color=_LOSS_COLOR, linewidth=1.8, marker='o', markersize=4, label='training')
    if val_losses:
        points = [*val_losses], [*val_losses.values()]
        axes.plot(*points, color=_VAL_LOSS_COLOR, linewidth=1.8, marker='o', markersize=3.5, label='validation')
    if len(steps) >= 10 or val_losses:
        axes.legend(frameon=False)
    axes.set_ylabel('Loss' if val_losses else 'Training loss')
    axes.set_title('Training')
    positive = values[values > 0]
    # On a linear axis a loss that spans more than a decade hides its end.
    if len(positive) == len(values) and positive.max() > 10 * positive.min():
        axes.set_yscale('log')
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter('{x:g}')
        axes.yaxis.set_minor_locator(NullLocator())
    _style(axes)


def _draw_rate(axes: Axes, rates: dict[int, float]) -> None:
    axes.plot(
        list(rates), list(rates.values()), color='#555555', linewidth=1.4, marker='o' if len(rates) == 1 else None
    )
    axes.set_ylabel('Learning\nrate')
    axes.ticklabel_format(axis='y', style='sci', scilimits=(0, 0))
    axes.set_ylim(0, 1.1 * max(rates.values()) or 1)
    _style(axes)


def _draw_scores(axes: Axes, scores: dict[str, dict[int, float]]) -> None:
    for name, points in scores.items():
        steps, values = list(points), list(points.values())
        best = int(np.argmax(values))
        label = f'{name}: best {values[best]:.2f} at {steps[best]}'
        axes.plot(steps, values, color=VAL_SCORES[name], linewidth=1.8, marker='o', markersize=3.5, label=label)
        axes.plot(
            steps[best], values[best], 'o', color='white', markeredgecolor=VAL_SCORES[name], markersize=8, zorder=3
        )
    axes.set_ylabel('Score (%)')
    axes.set_title('Validation')
    axes.legend(frameon=False)
    _style(axes)


def _style(axes: Axes) -> None:
    axes.grid(color='#dddddd', linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[['top', 'right']].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True))
    axes.margins(x=0.02)


def _smooth(values: np.ndarray) -> np.ndarray:
    """Returns the mean over a centred window of about a twentieth of the values; it shrinks at both ends."""
    import pandas as pd

    window = 2 * max(1, len(values) // 40) + 1
    return pd.Series(values).rolling(window, center=True, min_periods=1).mean().to_numpy()


def _percent(value: float) -> str:
    """Formats with one decimal; small values become '<0.1', so that they differ from 0."""
    if value == 0:
        return '0'
    if value < 0.05:
        return '<0.1'
    return f'{value:.1f}' if value < 99.95 else '100'


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def save_figure(figure: Figure, path: str | PathLike[str]) -> None:
    """Writes a figure as PNG, cropped to its content; the file is complete or absent."""
    content = io.BytesIO()
    figure.savefig(content, format='png', bbox_inches='tight', pad_inches=0.15)
    write_atomic(path, content.getvalue())
