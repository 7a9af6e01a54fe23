"""Training runs side by side, from their work dirs: `python tools/analysis/compare_runs.py WORK_DIR... --out DIR`.

Runs whose configs differ in nothing but the seed form a group, with mean and standard deviation. Groups are sorted
by validation, the only split to select by; test scores stand beside it for runs that were tested.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from read_runs import Run, data_of, read_run

from lale_mmseg.cli.common import run_command
from lale_mmseg.errors import ConfigError, DataError
from lale_mmseg.evaluation.overlay import overlay
from lale_mmseg.evaluation.run_plots import Picture, RunCurves, draw_grid, paint_findings, plot_run_curves
from lale_mmseg.files import write_atomic
from lale_mmseg.metainfo import IGNORE_INDEX

#: Published results of the few-shot roofs protocol in percent, means over the tiles: name, val IoU, test IoU, test F1.
PUBLISHED = (
    ('U-Net from scratch', 73.5, 75.7, 86.1),
    ('U-Net, ResNet-34 (ImageNet)', 76.5, 79.6, 88.6),
    ('DeepLabV3+, ResNet-34 (ImageNet)', 77.2, 80.2, 89.0),
    ('frozen SAM ViT-B, conv decoder', 69.0, 64.6, 78.3),
    ('frozen SAM ViT-B, U-Net decoder', 74.0, 75.8, 86.2),
)
_PUBLISHED_PIXELS = 6 * 1024**2
#: Config fields that belong to the machine or repeat others; the table shows the seed.
_IGNORED = re.compile(
    r'(work_dir|launcher|log_level|resume|experiment_name|vis_backends|visualizer|env_cfg|custom_imports'
    r'|\w+_pipeline|norm_cfg|act_cfg|randomness\.seed)(\.|$)|.*\b(data_root|num_workers|persistent_workers)$'
)
_SHOWN = 30


def common_monitor(runs: Sequence[Run]) -> str:
    """The validation score that selected the best checkpoint of all runs; 'mIoU' if they differ."""
    monitors = {run.monitor for run in runs}
    return monitors.pop() if len(monitors) == 1 else 'mIoU'


def grouped(runs: Sequence[Run]) -> tuple[dict[str, list[Run]], list[str]]:
    """Runs by group, the best mean validation first; and notes on duplicate seeds, which are not averaged."""
    score = f'val {common_monitor(runs)}'
    members: dict[str, list[Run]] = {}
    notes = []
    for run in runs:
        members.setdefault(run.key, []).append(run)
    groups: dict[str, list[Run]] = {}
    for found in members.values():
        found = sorted(found, key=lambda run: (run.row['seed'] or 0, run.label))
        if len({run.row['seed'] for run in found}) < len(found):
            notes.append(f'duplicate seeds, not averaged: {", ".join(run.label for run in found)}')
            groups |= {run.label: [run] for run in found}
            continue
        # 'unet' of 'unet_seed-0' and 'unet_seed-1'.
        name = re.sub(rf'[ _.=-]*(seed)?[ _.=-]*{found[0].row["seed"]}$', '', found[0].label)
        alone = len(found) == 1 or not name or name in groups
        groups[found[0].label if alone else name] = found
    best = {name: np.mean([run.row[score] for run in found]) for name, found in groups.items()}
    return {name: groups[name] for name in sorted(groups, key=lambda name: -best[name])}, notes


def group_table(groups: Mapping[str, Sequence[Run]], notes: list[str]) -> pd.DataFrame:
    """Mean and standard deviation (n - 1) of every score by group; columns are (score, 'mean' or 'std').

    A group has a score only if all its runs have it, and test scores only if they were predicted the same way.
    """
    frames = {}
    for name, runs in groups.items():
        table = pd.DataFrame([run.row for run in runs])
        table = table[[column for column in table if column.startswith(('val ', 'test '))]].drop(
            columns='test reads', errors='ignore'
        )
        if len({run.row.get('prediction') for run in runs if 'prediction' in run.row}) > 1:
            notes.append(f'{name}: tests were predicted in different ways, so they are not averaged')
            table = table.filter(like='val ')
        table = table.dropna(axis='columns')
        frames[name] = pd.concat({'mean': table.mean(), 'std': table.std()}, axis=1).stack()
    order = list(dict.fromkeys(column for runs in groups.values() for run in runs for column in run.row))
    table = pd.DataFrame(frames).T.rename_axis('group')
    return table.reindex(groups).sort_index(
        axis=1, key=lambda level: level.map({c: i for i, c in enumerate(order)}.get)
    )


def differences(values: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, list[str]]]:
    """Fields whose values differ: {field: {value as JSON: names}}."""
    found: dict[str, dict[str, list[str]]] = {}
    for field in dict.fromkeys(field for fields in values.values() for field in fields):
        names: dict[str, list[str]] = {}
        for name, fields in values.items():
            text = json.dumps(fields[field], default=str) if field in fields else 'not set'
            names.setdefault(text, []).append(name)
        if len(names) > 1:
            found[field] = names
    return found


def flatten(node: Any, path: str = '') -> dict[str, Any]:
    """Leaves of a nested config by dotted path, without fields that belong to the machine."""
    if isinstance(node, Mapping) and node:
        items: list[tuple[Any, Any]] = list(node.items())
    elif isinstance(node, list | tuple) and any(isinstance(item, Mapping | list | tuple) for item in node):
        items = list(enumerate(node))
    else:
        return {} if _IGNORED.match(path) else {path: node}
    found: dict[str, Any] = {}
    for key, value in items:
        found |= flatten(value, f'{path}.{key}'.lstrip('.'))
    return found


def check_published(runs: Sequence[Run]) -> None:
    """Raises ConfigError if published results would be shown beside scores on other data."""
    for run in runs:
        content = run.metrics.get('val') or {}
        source = content.get('source') or {}
        few_shot = source.get('protocol') == 'few-shot' and content.get('num_pixels') == _PUBLISHED_PIXELS
        if not few_shot or source.get('published') is False:
            raise ConfigError(
                f'--published: {run.label} was not validated on the 6 crops of 1024x1024 pixels of the few-shot '
                f'protocol (val/metrics.json: protocol {source.get("protocol")!r}, {content.get("num_pixels")} pixels)'
            )


def picture_rows(groups: Mapping[str, Run], split: str, count: int) -> dict[str, list[Picture | None]]:
    """Image, label and the prediction of each run for the images that most runs kept, those of more classes first.

    Args:
        groups: One run by the name of its column.
        split: 'val' (the best validation, if it was kept) or 'test'.
        count: Number of images at most.

    Raises:
        DataError: Two runs have different labels for one image.
    """
    folders = {}
    for name, run in groups.items():
        best = run.folder / 'val_best'
        folders[name] = best if split == 'val' and (best / 'predictions').is_dir() else run.folder / split
    stems = {name: {path.stem for path in (folder / 'labels').glob('*.png')} for name, folder in folders.items()}
    shared = Counter(stem for found in stems.values() for stem in found)
    labels = {
        stem: _read(next(folders[n] for n in folders if stem in stems[n]) / 'labels' / f'{stem}.png') for stem in shared
    }
    order = sorted(shared, key=lambda stem: (-len(np.unique(labels[stem])), -shared[stem], stem))
    rows: dict[str, list[Picture | None]] = {}
    for stem in order[:count]:
        label = labels[stem]
        row: list[Picture | None] = []
        for name, folder in folders.items():
            if stem not in stems[name]:
                row.append(None)
                continue
            if not np.array_equal(_read(folder / 'labels' / f'{stem}.png'), label):
                raise DataError(f'{folder / "labels" / stem}.png: another label than that of other runs')
            image = _read(folder / 'images' / f'{stem}.jpg')[..., ::-1].copy()
            pred = _read(folder / 'predictions' / f'{stem}.png')
            palette = groups[name].metrics['val' if split == 'val' else 'test']['palette']
            truth = _painted(image, label, label, palette)
            row.append(Picture(_painted(image, pred, label, palette), _caption(pred, label, len(palette))))
        rows[stem] = [Picture(image), Picture(truth), *row]
    return rows


def _painted(image: np.ndarray, pred: np.ndarray, label: np.ndarray, palette: Sequence[Sequence[int]]) -> np.ndarray:
    return paint_findings(image, pred, label) if len(palette) == 2 else overlay(image, pred, palette)


def _caption(pred: np.ndarray, label: np.ndarray, classes: int) -> str:
    """IoU of class 1 for two classes, else the share of correct pixels."""
    counted = label != IGNORE_INDEX
    if classes > 2:
        return f'OA {100 * (pred == label)[counted].mean():.1f}'
    if not (label == 1).any():
        return 'class absent'
    found, wanted = (pred == 1) & counted, label == 1
    return f'IoU {100 * (found & wanted).sum() / (found | wanted).sum():.1f}'


def _read(path: Path) -> np.ndarray:
    return np.asarray(cv2.imread(str(path), cv2.IMREAD_UNCHANGED))


def shown_groups(table: pd.DataFrame, groups: Mapping[str, Sequence[Run]], args: argparse.Namespace) -> pd.DataFrame:
    """The group table as text: mean ± standard deviation; with the gain over a baseline and published rows."""
    columns = [name for name in dict.fromkeys(table.columns.get_level_values(0)) if '/' not in name]
    shown = pd.DataFrame(index=table.index)
    shown['seeds'] = [' '.join(str(run.row['seed']) for run in runs) for runs in groups.values()]
    for name in columns:
        pairs = zip(table[name, 'mean'], table[name, 'std'], strict=True)
        shown[name] = [_number(mean) + ('' if pd.isna(std) else f' ± {std:.2f}') for mean, std in pairs]
    if args.baseline is not None:
        if args.baseline not in table.index:
            raise ConfigError(f'--baseline {args.baseline}: no such group; groups are {", ".join(table.index)}')
        score = f'val {common_monitor([run for runs in groups.values() for run in runs])}'
        gain = table[score, 'mean'] - table[score, 'mean'][args.baseline]
        shown.insert(shown.columns.get_loc(score) + 1, f'gain over {args.baseline}', gain.map('{:+.2f}'.format))
    if args.published:
        for name, *scores in PUBLISHED:
            values = dict(zip(('val mean_tile_IoU', 'test mean_tile_IoU', 'test mean_tile_F1'), scores, strict=True))
            shown.loc[f'[published] {name}'] = [_number(values.get(column), 1) for column in shown]
    return shown.fillna('-')


def _number(value: float | None, digits: int = 2) -> str:
    return '-' if value is None or pd.isna(value) else f'{value:.{digits}f}'


def markdown(table: pd.DataFrame) -> str:
    """A table of text as Markdown, its index first."""
    rows = [[table.index.name or '', *table.columns], ['---'] * (table.shape[1] + 1), *table.reset_index().to_numpy()]
    return '\n'.join(f'| {" | ".join(str(cell) for cell in row)} |' for row in rows) + '\n'


def difference_lines(title: str, found: Mapping[str, Mapping[str, Sequence[str]]]) -> list[str]:
    """The first differing fields in words; those of the network are only counted."""
    shown = {field: names for field, names in found.items() if not field.startswith('model.')}
    lines = [
        f'{title}: {field}: ' + '; '.join(f'{value[:60]} ({", ".join(names)})' for value, names in by_value.items())
        for field, by_value in [*shown.items()][:_SHOWN]
    ]
    rest = len(found) - len(lines)
    return [*lines, f'{title}: {rest} more fields (network and others), all in comparison.json'] if rest else lines


def compare(runs: Sequence[Run], out: Path, args: argparse.Namespace) -> None:
    """Prints the comparison and writes runs.csv, comparison.json, comparison.md, curves.png and overlays.png."""
    groups, notes = grouped(runs)
    table = group_table(groups, notes)
    if args.published:
        check_published(runs)
    first = {name: members[0] for name, members in groups.items()}
    data = {
        split: differences({run.label: data_of(run, split) for run in runs if split == 'val' or split in run.metrics})
        for split in ('val', 'test')
    }
    configs = differences({name: flatten(run.config) for name, run in first.items()})
    data_lines = [line for split, found in data.items() for line in difference_lines(f'{split} data differ', found)]
    if data_lines:
        data_lines.insert(0, 'NOT COMPARABLE: scores are of different or unknown data, so their order means nothing')
    notes += [f'{run.label}: {note}' for run in runs for note in run.notes]
    notes += difference_lines('config', configs)
    shown = shown_groups(table, groups, args)
    ordered = pd.DataFrame([{'group': name, **run.row} for name, members in groups.items() for run in members])
    hidden = [column for column in ordered if column == 'prediction' or column.startswith('test IoU/')]
    single = ordered.drop(columns=hidden).set_index('run')
    single = single.map(lambda cell: '-' if pd.isna(cell) else f'{cell:.2f}' if isinstance(cell, float) else str(cell))
    heading = (
        f'Scores in percent, at the best validation by {common_monitor(runs)}; mean ± standard deviation over seeds.'
    )
    print('\n'.join([*data_lines, heading, shown.to_string(), '', single.to_string(), '', *notes]))
    lines = ['# Comparison', '', *(f'- {line}' for line in data_lines), heading, '', markdown(shown), markdown(single)]
    write_atomic(out / 'comparison.md', '\n'.join([*lines, *(f'- {line}' for line in notes)]) + '\n')
    write_atomic(out / 'runs.csv', ordered.to_csv(index=False))
    means = {name: {f'{score} {kind}': value for (score, kind), value in row.items()} for name, row in table.iterrows()}
    content = dict(
        runs=json.loads(ordered.to_json(orient='records')),
        groups=json.loads(pd.DataFrame(means).to_json()),
        published=PUBLISHED if args.published else [],
        data_differences=data,
        config_differences=configs,
        notes=notes,
    )
    write_atomic(out / 'comparison.json', json.dumps(content, indent=1) + '\n')
    draw(groups, first, out, args)


def draw(groups: Mapping[str, Sequence[Run]], first: Mapping[str, Run], out: Path, args: argparse.Namespace) -> None:
    """Writes curves.png, and overlays.png of the first seed of each group."""
    runs = [run for members in groups.values() for run in members]
    # Networks may have losses of their own: the sum of those that all have is comparable.
    common = set.intersection(*(set(run.losses) for run in runs))
    names = sorted(common - {'loss'}) or ['loss']
    score = common_monitor(runs)
    curves = [
        RunCurves(name, run.val[score].dropna(), run.losses[names].sum(axis=1))
        for name, members in groups.items()
        for run in members
    ]
    steps = ('Epoch' if all(run.by_epoch for run in runs) else 'Iteration', 'Iteration')
    plot_run_curves(curves, out / 'curves.png', score, ' + '.join(names), steps)
    drawn = {name: run for name, run in first.items() if args.pictures in run.metrics}
    try:
        rows = picture_rows(drawn, args.pictures, args.rows)
    except DataError as error:
        print(f'no overlays.png: {error}')
        rows = {}
    written = ['comparison.md', 'comparison.json', 'runs.csv', 'curves.png']
    (out / 'overlays.png').unlink(missing_ok=True)  # that of an earlier comparison
    if rows:
        title = f'{args.pictures}, first seed of each group; two classes: found yellow, false red, missed blue'
        draw_grid(rows, ['image', 'truth', *drawn], out / 'overlays.png', title)
        written.append('overlays.png')
    print('written: ' + ', '.join(str(out / name) for name in written))


def parse_args() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description='Compares training runs: scores, curves, predictions.')
    parser.add_argument('work_dirs', nargs='+', type=Path, metavar='WORK_DIR', help='work dirs of tools/train.py')
    parser.add_argument('--out', required=True, type=Path, metavar='DIR', help='folder for tables and pictures')
    parser.add_argument('--labels', nargs='+', metavar='NAME', help='names of the runs (default: of the work dirs)')
    parser.add_argument('--baseline', metavar='GROUP', help='show the gain in the validation score over this group')
    parser.add_argument('--published', action='store_true', help='add the published results of few-shot roofs')
    parser.add_argument('--pictures', choices=('val', 'test'), default='val', help='split to draw (default: val)')
    parser.add_argument('--rows', type=int, default=6, metavar='N', help='images to draw at most (default: 6)')
    return parser.parse_args()


def main() -> None:
    """Reads, compares, writes."""
    args = parse_args()
    labels = args.labels or [folder.resolve().name for folder in args.work_dirs]
    if len(set(labels)) != len(args.work_dirs) or len(labels) != len(args.work_dirs):
        raise ConfigError(f'--labels: expected {len(args.work_dirs)} different names, got {", ".join(labels)}')
    compare([read_run(*pair) for pair in zip(args.work_dirs, labels, strict=True)], args.out, args)


if __name__ == '__main__':
    run_command(main)
