"""What the manifest says of each tile before, while and after it is made, and what is undone after an error.

An entry is `complete` when all files that it tells of are there. A tile that is made for the first time, or anew, has
an entry that is not; a finished one that gets more (whole tile, another kind of labels) keeps its entry, and what it is
to become stands in its `next`. Both are written before the tile's first file; by them a killed run is continued.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data_prep._files import MANIFEST, Manifest, remove_leftovers, write_json
from data_prep._isprs_compare import compare_tiles, refusal
from data_prep._isprs_layout import (
    STATISTICS,
    expected_files,
    files_by_folder,
    label_folder,
    statistics,
    tile_files,
    window_names,
)
from data_prep._isprs_plan import Request, TilePlan
from data_prep._isprs_source import IMAGE, LABEL_KINDS
from data_prep._isprs_tiles import Control, TileJob
from lale_mmseg.errors import DataError, InputError
from lale_mmseg.metainfo import isprs

Entry = dict[str, Any]
Names = Mapping[str, set[str]]


class Record:
    """Plans what is to be made of each tile, and keeps the manifest and the class counts while it is made.

    Args:
        manifest: Manifest of the prepared folder.
        request: What is asked for.
    """

    def __init__(self, manifest: Manifest, request: Request) -> None:
        self.manifest = manifest
        self.request = request
        self.out = manifest.out
        remove_leftovers(self.out)
        self._there = tile_files(request.dataset, files_by_folder(self.out))
        # Tiles are made by threads, and each notes its own.
        self._lock = threading.Lock()

    def jobs(
        self, plans: Sequence[TilePlan], sizes: Mapping[str, tuple[int, int]], scratch: Path, control: Control
    ) -> list[TileJob]:
        """The tiles that have files to make; those that have none are noted as finished.

        Args:
            plans: Tiles of this run.
            sizes: (height, width) of each tile.
            scratch: Folder for copies.
            control: Shared by the jobs.

        Raises:
            InputError: A tile was made from other files or with other settings, or its files are not on record, and
                `overwrite` is off.
            DataError: A tile needs more files of a kind of labels that the source has not.
        """
        parts, again = self.manifest.parts, self.manifest.overwrite
        states = {
            plan.stem: [state for state in (parts[plan.stem], parts[plan.stem].get('next')) if state]
            for plan in plans
            if plan.stem in parts and parts[plan.stem]['kind'] == self.manifest.kind
        }
        differing = compare_tiles(plans, self.request, states)
        if not again:
            self._refuse_others(plans, {stem: found[0] for stem, found in differing.items() if found[0]})
        jobs, finished = [], []
        for plan in plans:
            holding = self._holding(plan, states.get(plan.stem, []), differing.get(plan.stem, []))
            target = self._target(plan, sizes[plan.tile], holding)
            todo = self._todo(plan, target, holding)
            undecoded = [kind for kind in plan.labels if kind not in target['labels']]
            if todo or undecoded:
                job = TileJob(plan, target, todo, self.request, self.out, scratch, control, self.begin, self.finish)
                job.earlier, job.replaces = parts.get(plan.stem), not holding
                jobs.append(job)
            else:
                finished.append((plan.stem, target))
        for stem, target in finished:
            self._conclude(stem, target, parts[stem])
        return jobs

    def _refuse_others(self, plans: Sequence[TilePlan], differing: Mapping[str, Sequence[str]]) -> None:
        advice = 'choose another folder, or --overwrite to make what differs again'
        if differing:
            raise InputError(f'{self.out}: has {refusal(differing)}; {advice}')
        for plan in plans:
            if plan.stem not in self.manifest.parts and plan.stem in self._there:
                folder, names = next(iter(self._there[plan.stem].items()))
                raise InputError(
                    f'{self.out}: {folder}/{min(names)} is there, but {MANIFEST} has no tile {plan.stem}; remove its '
                    'files, choose another folder, or --overwrite to replace them'
                )

    def _holding(self, plan: TilePlan, states: Sequence[Entry], differing: Sequence[Sequence[str]]) -> list[Entry]:
        """Entries of a tile, of those on record, that can be continued: none, the entry, or it and its `next`."""
        holding = [state for state, words in zip(states, differing, strict=True) if not words]
        if not states or states[0] not in holding:
            return []
        # What is made again has the labels of this run alone.
        left_over = {kind for state in holding for kind in state['source']['files']} - plan.files.keys()
        return [] if self.manifest.overwrite and left_over else holding

    def _target(self, plan: TilePlan, size: tuple[int, int], holding: Sequence[Entry]) -> Entry:
        """The entry of the finished tile: what is asked for, and what is there or was begun for another protocol."""
        height, width = size
        windows = plan.windows or any(state.get('windows') for state in holding)
        kept = {kind for state in holding if state.get('complete') for kind in state['labels']}
        kinds = [kind for kind in LABEL_KINDS if kind in plan.labels or kind in kept]
        known: dict[str, dict] = {name: {} for name in ('labels', 'sha256')}
        files: dict[str, list] = {}
        for state in holding:
            files |= state['source']['files']
            for name, values in known.items():
                values |= state.get(name, {})
        files |= {kind: plan.record(kind) for kind in plan.files}
        source = dict(self.request.settings, files={kind: files[kind] for kind in (IMAGE, *kinds)})
        names = window_names(plan.stem, height, width, self.request.size, self.request.stride) if windows else []
        return dict(
            kind=self.manifest.kind,
            source=source,
            complete=True,
            size=[height, width],
            windows=len(names),
            whole=plan.whole or any(bool(state.get('whole')) for state in holding),
            labels={kind: known['labels'][kind] for kind in kinds if kind in known['labels']},
            sha256={kind: known['sha256'][kind] for kind in (IMAGE, *kinds) if kind in known['sha256']},
        )

    def _todo(self, plan: TilePlan, target: Entry, holding: Sequence[Entry]) -> dict[str, set[str]]:
        """Names of the files to write, by folder: all but those that an earlier run made of the same source."""
        there = self._there.get(plan.stem, {})
        due = _expected(target, plan.stem)
        if self.manifest.overwrite or not holding:
            trusted: Names = {}
        elif len(holding) == 2 or not holding[0]['complete']:
            trusted = there
        else:
            trusted = _expected(holding[0], plan.stem)
        todo = {
            folder: names - (trusted.get(folder, set()) & there.get(folder, set())) for folder, names in due.items()
        }
        todo = {folder: names for folder, names in todo.items() if names}
        for kind in LABEL_KINDS:
            count = sum(len(names) for folder, names in todo.items() if folder.endswith(f'/{label_folder(kind)}'))
            if count and kind not in plan.files:
                raise DataError(
                    f'{self.out}: tile {plan.tile} has {kind} labels, and {count:,} more files of them are to be made, '
                    f'but {self.request.wanted.file_name(plan.tile, kind)} is not in the source, or left out by '
                    '--labels; add it, or --overwrite to make the tile without'
                )
        return todo

    def begin(self, job: TileJob, made: Entry) -> None:
        """Notes that the first file of a tile is about to be written; only now old files of another source go.

        Args:
            job: The tile.
            made: Its finished entry.
        """
        stem = job.plan.stem
        with self._lock:
            job.begun = True
            self.manifest.notes.pop('last_run', None)
            if job.replaces and stem in self._there:
                # Off the record before they go: after a kill in between, what is left is not taken for the new files.
                self.manifest.parts.pop(stem, None)
                self._save()
                self._remove(self._there[stem])
            if job.replaces or job.earlier is None or not job.earlier['complete']:
                self.manifest.parts[stem] = dict(made, complete=False)
            elif made != job.earlier:
                self.manifest.parts[stem] = dict(job.earlier, next=dict(made, complete=False))
            self._save()
            for folder in job.todo:
                (self.out / folder).mkdir(parents=True, exist_ok=True)

    def finish(self, job: TileJob, made: Entry) -> None:
        """Notes that all files of a tile are written."""
        with self._lock:
            self._conclude(job.plan.stem, made, job.earlier)
            self._save()
            job.finished = True

    def close(self, inputs: list, plans: Sequence[TilePlan]) -> None:
        """Notes that the whole request is done."""
        stems = [plan.stem for plan in plans]
        self.manifest.notes['last_run'] = dict(request=self.request.as_dict(), inputs=inputs, tiles=stems)
        self._save()

    def undo(self, jobs: Sequence[TileJob]) -> None:
        """After an error: removes what was written of tiles that are not whole, and puts their earlier entries back."""
        parts = self.manifest.parts
        for job in jobs:
            stem, earlier = job.plan.stem, None if job.replaces else job.earlier
            if not job.begun or job.finished:
                continue
            kept = _expected(earlier, stem) if earlier is not None and earlier['complete'] else {}
            self._remove({folder: names - kept.get(folder, set()) for folder, names in job.todo.items()})
            parts.pop(stem, None)
            if earlier is not None:
                parts[stem] = earlier
        there = tile_files(self.request.dataset, files_by_folder(self.out))
        for stem in {job.plan.stem for job in jobs} - there.keys():
            if stem in parts and not parts[stem]['complete']:
                del parts[stem]
        if parts:
            self._save()
        else:
            self._clear()

    def _clear(self) -> None:
        """Leaves no trace of a run that has made nothing."""
        self.manifest.discard()
        (self.out / STATISTICS).unlink(missing_ok=True)
        tops = [self.out / folder for folder in files_by_folder(self.out)]
        for folder in (*tops, *{folder.parent for folder in tops}, self.out):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()

    def _conclude(self, stem: str, made: Entry, earlier: Entry | None) -> None:
        """Sets a finished entry, and removes what an earlier run began and what is no part of it."""
        due = _expected(made, stem)
        for state in (earlier, (earlier or {}).get('next')):
            if state is not None:
                begun = _expected(state, stem)
                self._remove({folder: names - due.get(folder, set()) for folder, names in begun.items()})
        self.manifest.parts[stem] = made

    def _remove(self, files: Names) -> None:
        for folder, names in files.items():
            for name in names:
                (self.out / folder / name).unlink(missing_ok=True)

    def _save(self) -> None:
        """Writes the manifest and the class counts of its finished tiles, in the order of the tiles."""
        parts, tiles = self.manifest.parts, isprs.TILES[self.request.dataset]
        order = {isprs.tile_stem(self.request.dataset, tile): number for number, tile in enumerate(tiles)}
        self.manifest.parts = {
            stem: parts[stem] for stem in sorted(parts, key=lambda stem: order.get(stem, len(order)))
        }
        self.manifest.save()
        write_json(self.out / STATISTICS, statistics(self.manifest.parts))


def _expected(entry: Entry, stem: str) -> dict[str, set[str]]:
    """Names of the files of an entry, by folder; an unfinished one of another version of this program tells of none."""
    if 'size' not in entry:
        return {}
    return {folder: set(names) for folder, names in expected_files(entry, stem).items()}
