"""Prepared folders: what is finished is known from markers, so a run continues where the last one stopped.

A dataset is made in units, such as the windows cut from one image. Each unit has a marker, `OUT/markers/NAME.json`,
with a hash of its settings and source files, the names of its files, and counts. The marker is written last. A unit
whose marker has the expected hash and whose files exist is skipped; any other unit is made again from the start.
"""

from __future__ import annotations

import fnmatch
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lale_mmseg.errors import InputError
from lale_mmseg.files import TEMPORARY, hash_json, write_json

MANIFEST = 'manifest.json'
MARKERS = 'markers'
LOCK = f'{MARKERS}/.lock'


@dataclass(frozen=True)
class Unit:
    """A part of a dataset that is made as a whole.

    Attributes:
        name: Name of its marker.
        settings: Settings that all units of a folder share, such as the window size.
        source: Everything else that determines the files, such as the identity of source files.
        patterns: Glob patterns, relative to the folder, of all files that the unit may have. Files of an interrupted
            run are found by them.
        group: Units of one group replace each other: those that the source no longer has are removed. By default each
            unit is a group of its own.
    """

    name: str
    settings: Mapping[str, Any]
    source: Mapping[str, Any]
    patterns: tuple[str, ...] = ()
    group: str = ''

    @property
    def hash(self) -> str:
        """Hash of settings and source."""
        return hash_json([self.settings, self.source])


@dataclass
class Output:
    """Files and facts collected while a unit is made."""

    root: Path
    files: dict[str, list[str]] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    def path(self, name: str) -> Path:
        """Path of a file of the unit, given relative to the prepared folder."""
        folder, _, file = name.rpartition('/')
        self.files.setdefault(folder, []).append(file)
        return self.root / name


@dataclass(frozen=True)
class Prepared:
    """A prepared folder.

    Attributes:
        root: The folder.
        kind: What the folder holds, such as 'isprs-potsdam'.
    """

    root: Path
    kind: str

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Locks the folder against other processes, and creates it.

        Raises:
            InputError: The folder holds something else, or another process is writing to it.
        """
        if self.root.is_dir() and any(self.root.iterdir()) and not (self.root / MARKERS).is_dir():
            raise InputError(f'{self.root}: is not empty and was not made by this command; choose a new folder')
        (self.root / MARKERS).mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.root / LOCK, timeout=0):
                yield
        except Timeout:
            raise InputError(f'{self.root}: another process is preparing this folder; wait until it ends') from None

    def unfinished(self, units: Sequence[Unit]) -> list[Unit]:
        """Units without a matching marker; whether their files still exist is not checked."""
        markers = read_markers(self.root)
        return [unit for unit in units if markers.get(unit.name, {}).get('hash') != unit.hash]

    def missing(self, hashes: Mapping[str, str]) -> list[str]:
        """Names of units without a marker of this hash, or whose files do not all exist."""
        markers, listing = read_markers(self.root), Listing(self.root)
        finished = [name for name, value in hashes.items() if markers.get(name, {}).get('hash') == value]
        return [name for name in hashes if name not in finished or listing.missing(markers[name]['files'])]

    @contextmanager
    def making(self, unit: Unit) -> Iterator[Output]:
        """Removes what an earlier run left of a unit, yields its new output, and writes the marker at the end.

        If the block raises, nothing of the unit remains.
        """
        _remove(self.root, unit.name, unit.patterns)
        output = Output(self.root)
        marker: dict[str, Any] = dict(kind=self.kind, group=unit.group or unit.name, hash=unit.hash)
        marker |= dict(settings=dict(unit.settings), source=dict(unit.source), files=output.files)
        try:
            yield output
            write_json(_marker_path(self.root, unit.name), marker | output.facts)
        except BaseException:
            for folder, names in output.files.items():
                for name in names:
                    (self.root / folder / name).unlink(missing_ok=True)
            raise

    def write_manifest(self, parts: Mapping[str, Any], **notes: Any) -> None:
        """Writes the manifest, a summary of the finished parts for readers of the data."""
        write_json(self.root / MANIFEST, manifest(parts, **notes))

    def unmade(self, units: Sequence[Unit], overwrite: bool = False) -> list[Unit]:
        """Units that have to be made; removes those that they replace. The folder must be locked.

        Args:
            units: Units of this run.
            overwrite: Make all of them again, and remove units of another kind.

        Raises:
            InputError: The folder holds another kind of data, or units with other settings that this run leaves alone.
        """
        markers = read_markers(self.root)
        foreign = {marker['kind'] for marker in markers.values()} - {self.kind}
        if foreign and not overwrite:
            raise InputError(
                f'{self.root}: holds {", ".join(sorted(foreign))} data, this run makes {self.kind}; choose another '
                'folder, or replace the data with --overwrite'
            )
        names = {unit.name: unit for unit in units}
        groups = {unit.group or unit.name for unit in units}
        others = {name: marker for name, marker in markers.items() if name not in names}
        replaced = [name for name in others if others[name]['group'] in groups or others[name]['kind'] != self.kind]
        for name in replaced:
            _remove(self.root, name)
            del others[name]
        self._require_settings(units, others)
        todo = self.missing({unit.name: unit.hash for unit in units})
        return [unit for name, unit in names.items() if overwrite or name in todo]

    def _require_settings(self, units: Sequence[Unit], others: Mapping[str, Mapping[str, Any]]) -> None:
        """Raises InputError if units outside this run have other settings: a folder is one dataset."""
        wanted = {name: value for unit in units for name, value in unit.settings.items()}
        for name, marker in others.items():
            for key, value in marker['settings'].items():
                if value != wanted.get(key, value):
                    raise InputError(
                        f'{self.root}: {name} was made with --{key} {value}, this run has --{key} {wanted[key]} and '
                        'does not include it; choose another folder, or prepare everything with one setting'
                    )


class Listing:
    """Names of the files in a prepared folder; each subfolder is read once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._names: dict[str, set[str]] = {}

    def names(self, folder: str) -> set[str]:
        """Names of the files in a subfolder; empty if it does not exist."""
        if folder not in self._names:
            path = self.root / folder
            self._names[folder] = set(os.listdir(path)) if path.is_dir() else set()
        return self._names[folder]

    def missing(self, files: Mapping[str, Sequence[str]]) -> list[str]:
        """Paths, relative to the prepared folder, of the files in a marker that do not exist."""
        return [
            f'{folder}/{name}' for folder, names in files.items() for name in names if name not in self.names(folder)
        ]


def read_markers(root: Path) -> dict[str, dict[str, Any]]:
    """Markers of a folder by unit name; empty if it has none."""
    paths = sorted((root / MARKERS).glob('*.json'))
    return {path.stem: json.loads(path.read_text(encoding='utf-8')) for path in paths}


def manifest(parts: Mapping[str, Any], **notes: Any) -> dict[str, Any]:
    """Content of a manifest."""
    return dict(parts=dict(parts), **(dict(notes=notes) if notes else {}))


def without_files(marker: Mapping[str, Any]) -> dict[str, Any]:
    """A marker for the manifest, which does not list files."""
    return {name: value for name, value in marker.items() if name not in ('files', 'group')}


def _marker_path(root: Path, name: str) -> Path:
    return root / MARKERS / f'{name}.json'


def _remove(root: Path, name: str, patterns: Sequence[str] = ()) -> None:
    """Removes the marker of a unit, then its files and those that match its patterns."""
    path = _marker_path(root, name)
    files = json.loads(path.read_text(encoding='utf-8'))['files'] if path.exists() else {}
    # The marker goes first: if the process is killed in between, the unit counts as not made.
    path.unlink(missing_ok=True)
    for folder, names in files.items():
        for file in names:
            (root / folder / file).unlink(missing_ok=True)
    for pattern in patterns:
        folder, _, file = pattern.rpartition('/')
        existing = os.listdir(root / folder) if (root / folder).is_dir() else []
        for found in [*fnmatch.filter(existing, file), *fnmatch.filter(existing, f'.{file}*{TEMPORARY}')]:
            (root / folder / found).unlink()
