"""Whether a tile that is on record was made from the files that are there now, with the settings of this run."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data_prep._isprs_plan import Request, TilePlan
from data_prep._isprs_source import SourceFile, describe_kind, read_chunks
from data_prep._progress import progress_bar
from lale_mmseg.errors import DataError

_SHOWN = 3


def sha256_of(file: SourceFile) -> str:
    """SHA-256 sum of a source file, as hexadecimal digits."""
    digest = hashlib.sha256()
    for chunk in read_chunks(file):
        digest.update(chunk)
    return digest.hexdigest()


def compare_tiles(
    plans: Sequence[TilePlan], request: Request, states: Mapping[str, Sequence[Mapping[str, Any]]]
) -> dict[str, list[list[str]]]:
    """What differs, in words, between tiles on record and what this run would make them from.

    A file whose name, size and mark are on record is the same; one of equal size, such as a copy with another time of
    change, is read, and is the same if its SHA-256 sum is on record. Kinds of labels that only one side has are no
    difference: they can be added, or stay.

    Args:
        plans: Tiles of this run.
        request: What is asked for.
        states: For each tile that is on record, entries of the manifest to compare with.

    Returns:
        For each tile of `states`, a list for each of its entries; empty where nothing differs.
    """
    unsure = {
        (plan.stem, kind): file
        for plan in plans
        for state in states.get(plan.stem, ())
        for kind, file in plan.files.items()
        if not _setting_differences(state, request) and _may_be_a_copy(state, plan, kind)
    }
    sums = {}
    if unsure:
        with progress_bar('comparing files with those used before', len(unsure)) as advance:
            for key, file in unsure.items():
                sums[key] = sha256_of(file)
                advance(1)
    return {
        plan.stem: [
            [*_setting_differences(state, request), *_file_differences(state, plan, sums)]
            for state in states[plan.stem]
        ]
        for plan in plans
        if plan.stem in states
    }


def require_equal_settings(out: Path, entries: Mapping[str, Mapping[str, Any]], request: Request) -> None:
    """Checks that finished tiles which this run leaves alone have its settings: one folder is one data set.

    Args:
        out: The data folder.
        entries: Manifest entries of those tiles, by the start of their files' names.
        request: What is asked for.

    Raises:
        DataError: Windows, bands or masks differ.
    """
    differing = {}
    for stem, entry in entries.items():
        before = entry['source']
        words = [
            f'{_option(name, before.get(name))} (now {_option(name, request.settings[name])})'
            for name in ('size', 'stride', 'bands', 'masks')
            if before.get(name) != request.settings[name]
        ]
        if words:
            differing[stem] = words
    if differing:
        raise DataError(
            f'{out}: has {refusal(differing)}, which this run does not make again, and a folder holds tiles of one '
            'setting; choose another folder, or remake all: --overwrite, with these tiles in --tiles or none'
        )


def refusal(differing: Mapping[str, Sequence[str]]) -> str:
    """One sentence on the tiles that cannot be continued: what differs, by the start of their files' names."""
    groups: dict[str, list[str]] = {}
    for stem, words in differing.items():
        groups.setdefault(' and '.join(words), []).append(stem)
    shown = [f'{_names(stems)} made with {words}' for words, stems in list(groups.items())[:_SHOWN]]
    left = sum(len(stems) for stems in list(groups.values())[_SHOWN:])
    return '; '.join(shown) + (f'; {left} more tiles differ too' if left else '')


def _names(stems: Sequence[str]) -> str:
    more = f' and {len(stems) - _SHOWN} more' if len(stems) > _SHOWN else ''
    return f'{"tile" if len(stems) == 1 else "tiles"} {", ".join(stems[:_SHOWN])}{more}'


def _setting_differences(state: Mapping[str, Any], request: Request) -> list[str]:
    found = []
    for name, now in request.settings.items():
        before = state['source'].get(name)
        if before != now and not (name == 'max_distance' and _same_colors(state, now)):
            found.append(f'{_option(name, before)} (now {_option(name, now)})')
    return found


def _option(name: str, value: Any) -> str:
    if name != 'max_distance':
        return f'--{name} {value}'
    return 'no --tolerant' if value is None else f'--tolerant --max-distance {value:g}'


def _same_colors(state: Mapping[str, Any], limit: float | None) -> bool:
    """Whether the labels would become the same with another largest distance: no colour that was taken is beyond it."""
    counts = state.get('labels')
    return counts is not None and all(
        not kind['snapped'] or (limit is not None and kind['largest_distance'] <= limit) for kind in counts.values()
    )


def _file_differences(state: Mapping[str, Any], plan: TilePlan, sums: Mapping[tuple[str, str], str]) -> list[str]:
    found = []
    for kind in plan.files:
        before, (name, size, mark) = state['source']['files'].get(kind), plan.record(kind)
        if before is None or before == [name, size, mark]:
            continue
        what = f'{describe_kind(kind)} file'
        if before[1] != size:
            found.append(f'another {what}: {before[0]} of {before[1]:,} bytes (now {name} of {size:,} bytes)')
        elif sums.get((plan.stem, kind)) != state.get('sha256', {}).get(kind, ''):
            found.append(f'other content of its {what} {name}')
    return found


def _may_be_a_copy(state: Mapping[str, Any], plan: TilePlan, kind: str) -> bool:
    before, now = state['source']['files'].get(kind), plan.record(kind)
    return before is not None and before != now and before[1] == now[1] and kind in state.get('sha256', {})
