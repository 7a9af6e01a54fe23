"""Attempts side by side, from their work dirs alone: `python tools/analysis/compare_attempts.py WORK_DIR... --out DIR`.

Attempts are sorted by validation, which is what they may be chosen by; the test is shown beside it, with the number of
times that it was read. Work dirs whose configs are equal but for the seed are one attempt, with its mean and spread.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import _cli
from _attempt_data import data_lines, published_fault
from _attempt_pictures import absent, folder_of, rows_of
from _attempt_tables import PUBLISHED, SOURCE, Scores, for_console, markdown, of_attempts, of_groups
from _attempts import Attempt, labels_of, read_attempt
from _recipes import GROUPS, compared, difference_lines, differences, own_to_attempts
from _runs import score_of, training_losses
from _seeds import Group, grouped, have_equal_seeds, repeated_seeds
from mmengine.registry import init_default_scope
from rich.console import Console

import lale_mmseg.register  # noqa: F401
from lale_mmseg.errors import ConfigError, DataError, InputError
from lale_mmseg.evaluation.attempt_plots import Curve, draw_predictions, plot_convergence
from lale_mmseg.files import write_atomic

_WIDTH = 190
_NOT_COMPARABLE = 'NOT COMPARABLE: the scores are of different or unknown data, so the order of the rows says nothing'


def parse_args() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description='Sets trainings side by side: scores, curves, predictions.')
    parser.add_argument('work_dirs', nargs='+', metavar='WORK_DIR', help='work dirs of tools/train.py')
    parser.add_argument('--labels', nargs='+', metavar='NAME', help='names of the attempts (default: of the folders)')
    parser.add_argument('--out', required=True, metavar='DIR', help='folder for the tables and pictures')
    parser.add_argument('--baseline', metavar='NAME', help='show the gain in validation IoU over this attempt')
    parser.add_argument('--published', action='store_true', help='add the published figures of few-shot roofs')
    parser.add_argument(
        '--pictures', choices=('val', 'test'), default='val', help='images of which split to draw (default: val)'
    )
    parser.add_argument('--rows', type=int, default=6, metavar='N', help='images to draw at most (default: 6)')
    return parser.parse_args()


def read_all(args: argparse.Namespace) -> list[Attempt]:
    """The attempts, the best on validation first.

    Raises:
        ConfigError: Labels do not fit.
        DataError: A work dir lacks a file.
    """
    folders = [Path(folder) for folder in args.work_dirs]
    labels = labels_of(folders, args.labels)
    attempts = [read_attempt(folder, label) for folder, label in zip(folders, labels, strict=True)]
    return sorted(attempts, key=lambda attempt: -attempt.val_iou)


def find_baseline(name: str | None, attempts: Sequence[Attempt], groups: Sequence[Group]) -> Attempt | Group | None:
    """The attempt, or the training, that gains are counted from.

    Raises:
        ConfigError: There is none of that name.
    """
    if name is None:
        return None
    known: dict[str, Attempt | Group] = {attempt.label: attempt for attempt in attempts}
    known |= {group.label: group for group in groups}
    if name not in known:
        raise ConfigError(f'--baseline {name}: no such attempt; there are {", ".join(sorted(known))}')
    return known[name]


def notes_of(attempts: Sequence[Attempt], groups: Sequence[Group], found: Any, own: Any, published: bool) -> list[str]:
    """What the tables do not say."""
    lines = ['VAL: best epoch, by which attempts are sorted and may be chosen; TEST: not to be chosen by; in percent']
    lines += seed_lines(groups)
    lines += [
        f'{labels}: one config and one seed, so no mean is taken over them' for labels in repeated_seeds(attempts)
    ]
    notes: dict[str, list[str]] = {}
    for attempt in attempts:
        for note in [*attempt.notes, *read_notes(attempt)]:
            notes.setdefault(note, []).append(attempt.label)
    lines += [f'{", ".join(labels)}: {note}' for note, labels in notes.items()]
    if published:
        lines.append(
            f'{SOURCE}: figures of the authors of few-shot roofs under their recipe, not measured here; comparable '
            'with attempts under the protocol few-shot only'
        )
    kinds = {attempt.rows[-1].get('memory_kind') for attempt in attempts} - {None}
    if kinds:
        named = dict(gpu='tensors on the GPU', process='the whole process, on a CPU')
        lines.append('memory: ' + ' or '.join(named.get(kind, kind) for kind in sorted(kinds)) + ', at most')
    if len(kinds) > 1:
        lines.append('memory and times are of different kinds of machines: not to be compared')
    differing = difference_lines(found)
    if differing:
        lines.append('RECIPES DIFFER, so the attempts differ in more than their networks:')
        lines += [f'  {line}' for line in differing]
    elif len(attempts) > 1:
        agreed = compared([attempt.config for attempt in attempts])
        left_out = {GROUPS[0]} if differing_data(attempts) else set()
        left_out |= {'seed'} if have_equal_seeds(groups) else set()
        kept = [group for group in agreed if group not in left_out]
        lines.append('recipes agree in: ' + '; '.join(kept))
    if own:
        lines.append('part of the attempts, as configs/buildings defines them:')
        lines += [f'  {line}' for line in difference_lines(own)]
    return lines


def seed_lines(groups: Sequence[Group]) -> list[str]:
    """What the means over seeds are, and of how many."""
    if not any(len(group.seeds) > 1 for group in groups):
        return []
    lines = ['seeds: work dirs of one config; mean and standard deviation (n - 1) over them']
    lines += [
        f'{group.label}: no mean of the tests, which were not predicted in one way'
        for group in groups
        if len(group.predicted) > 1
    ]
    if not have_equal_seeds(groups):
        lines.append('attempts were not trained with the same seeds: means over fewer are less certain')
    return lines


def read_notes(attempt: Attempt) -> list[str]:
    """What the number of test reads means."""
    if attempt.reads is None:
        return [] if attempt.test is None else ['? no ledger of test reads, as its test split is not a held-out one']
    return [f'! its held-out test was read {attempt.reads} times: scores are optimistic'] if attempt.reads > 1 else []


def differing_data(attempts: Sequence[Attempt]) -> list[str]:
    """Where attempts were not validated, or not tested, on the same images and labels."""
    return [
        *data_lines('validation', {attempt.label: attempt.val_data for attempt in attempts}),
        *data_lines('test', {attempt.label: attempt.test_data for attempt in attempts if attempt.test is not None}),
    ]


def check_published(attempts: Sequence[Attempt]) -> None:
    """Raises ConfigError where the published figures would stand beside scores of other data."""
    for attempt in attempts:
        faults = [published_fault(attempt.val_data, 'val')]
        faults += [published_fault(attempt.test_data, 'test')] if attempt.test is not None else []
        for fault in faults:
            if fault is not None:
                raise ConfigError(f'--published: {attempt.label} ({attempt.folder}) {fault}')


def draw(attempts: Sequence[Attempt], groups: Sequence[Group], args: argparse.Namespace, out: Path) -> list[Path]:
    """Writes the pictures, and says what there is none of; the files that were written."""
    losses, loss_label = training_losses([attempt.rows for attempt in attempts])
    group_of = {attempt.label: group.label for group in groups for attempt in group.attempts}
    curves = [
        Curve(
            attempt.label,
            scores=_known({int(row['epoch']): score_of(row) for row in attempt.rows}),
            losses=of_attempt,
            group=group_of[attempt.label],
        )
        for attempt, of_attempt in zip(attempts, losses, strict=True)
    ]
    written = [out / 'convergence.png']
    names = {attempt.val_data.score_name for attempt in attempts if attempt.val_data is not None}
    plot_convergence(curves, written[0], loss_label, names.pop() if len(names) == 1 else 'mIoU')
    return [*written, *draw_rows(groups, args, out)]


def draw_rows(groups: Sequence[Group], args: argparse.Namespace, out: Path) -> list[Path]:
    """Writes the predictions of one training of each attempt, whose seed is not chosen by its score."""
    drawn = {group.label: group.attempts[0] for group in groups}
    # A test that is left out of the table is left out here as well.
    shown = {label: one for label, one in drawn.items() if args.pictures == 'val' or one.test is not None}
    places = {label: folder_of(one.folder, args.pictures) for label, one in shown.items()}
    folders = {label: folder for label, (folder, _) in places.items()}
    target = out / 'predictions.png'
    target.unlink(missing_ok=True)  # that of an earlier comparison
    classes = {one.val_data.classes for one in shown.values() if one.val_data is not None}
    if any(len(names) > 2 for names in classes):
        print('no predictions.png: it shows one class against the rest, and there are more than two classes')
        return []
    try:
        rows = rows_of(folders, args.rows)
    except DataError as error:
        print(f'no predictions.png: {error}')
        return []
    if not rows:
        print(f'no predictions.png: none of the work dirs has images, labels and predictions in {args.pictures}/')
        return []
    for line in absent(folders, rows):
        print(line)
    title = title_of({label: when for label, (_, when) in places.items()}, next(iter(classes), ('', 'class 1'))[-1])
    if any(len(group.seeds) > 1 for group in groups):
        title = f'first seed of each attempt, {title}'
    draw_predictions(rows, [*folders], target, title)
    return [target]


def title_of(kinds: Mapping[str, str], name: str) -> str:
    """Heading of the pictures of a class, from what those of each attempt are of."""
    names: dict[str, list[str]] = {}
    for label, kind in kinds.items():
        names.setdefault(kind, []).append(label)
    if len(names) == 1:
        when = next(iter(names)) + ('' if 'test' in names else ' of each attempt')
    else:
        when = '; '.join(f'{kind} of {", ".join(labels)}' for kind, labels in names.items())
    return f'{when}\n{name}: found yellow, false red, missed blue'


def _known(points: dict[int, float | None]) -> dict[int, float]:
    return {epoch: value for epoch, value in points.items() if value is not None}


def report(tables: Mapping[str, Scores], notes: Sequence[str], warning: Sequence[str]) -> str:
    """All of it as Markdown."""
    above = ['**' + line + '**' if not place else f'- {line}' for place, line in enumerate(warning)]
    lines = ['# Attempts', '', *([above[0], '', *above[1:], ''] if above else [])]
    for heading, table in tables.items():
        lines += [*([f'## {heading}', ''] if len(tables) > 1 else []), *markdown(table), '']
    lines += [f'  - {line.strip()}' if line.startswith('  ') else f'- {line}' for line in notes]
    return '\n'.join(lines) + '\n'


def main() -> None:
    """Reads, prints and writes."""
    args = parse_args()
    if args.rows < 1:
        raise InputError(f'--rows {args.rows}: 1 or more is due')
    init_default_scope('mmseg')
    attempts = read_all(args)
    groups = grouped(attempts)
    baseline = find_baseline(args.baseline, attempts, groups)
    if args.published:
        check_published(attempts)
    configs = {attempt.label: attempt.config for attempt in attempts}
    found, own = own_to_attempts(configs, differences(configs))
    if have_equal_seeds(groups):
        found.pop('seed', None)
    data = differing_data(attempts)
    warning = [_NOT_COMPARABLE, *data] if data else []
    tables = {}
    if any(len(group.seeds) > 1 for group in groups):
        tables['Over seeds'] = of_groups(groups, baseline, args.published)
    tables['Trainings'] = of_attempts(attempts, baseline, args.published and not tables)
    notes = notes_of(attempts, groups, found, own, args.published)
    for line in warning:
        print(line)
    for table in tables.values():
        Console(width=_WIDTH, highlight=False).print(for_console(table))
        print()
    for line in notes:
        print(line)
    out = Path(args.out)
    content = dict(
        sorted_by='validation IoU of the best epoch',
        comparable=not data,
        data_differences=data,
        baseline=args.baseline,
        attempts=[attempt.to_dict() for attempt in attempts],
        over_seeds=[group.to_dict() for group in groups],
        published=[
            dict(name=name, val_iou=val, test_iou=test, test_f1=f1, source='authors of few-shot roofs')
            for name, val, test, f1 in (PUBLISHED if args.published else ())
        ],
        differences=found,
        part_of_attempts=own,
        notes=notes,
    )
    write_atomic(out / 'attempts.json', json.dumps(content, indent=1, allow_nan=False) + '\n')
    write_atomic(out / 'attempts.md', report(tables, notes, warning))
    written = [out / 'attempts.json', out / 'attempts.md', *draw(attempts, groups, args, out)]
    print('written: ' + ', '.join(map(str, written)))


if __name__ == '__main__':
    _cli.run(main)
