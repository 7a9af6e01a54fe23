"""Files that are whole or absent, and the manifest that says where each part of a data folder came from."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from data_prep._names import some_of
from lale_mmseg.errors import DataError, InputError

MANIFEST = 'manifest.json'
_SUFFIX = '.part'
#: Parts that a message names.
_SHOWN = 5


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Gives a temporary name beside `path`; the file gets its own name when the block ends without an error."""
    temporary = path.with_name(f'.{path.name}.{os.getpid()}{_SUFFIX}')
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise DataError(f'{path}: cannot be written ({error.strerror or error})') from None
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a file that is never half there under its own name."""
    with whole_file(path) as temporary:
        temporary.write_bytes(data)


def write_if_missing(path: Path, data: bytes) -> bool:
    """Writes a file unless it is there; says whether it did."""
    if path.exists():
        return False
    write_bytes(path, data)
    return True


def write_json(path: Path, value: Any) -> None:
    """Writes indented JSON in one piece."""
    write_bytes(path, (json.dumps(value, indent=2) + '\n').encode())


def remove_leftovers(folder: Path) -> None:
    """Removes temporary files that a killed run left below `folder`."""
    for path in folder.rglob(f'.*{_SUFFIX}'):
        path.unlink()


def is_leftover(path: Path) -> bool:
    """Whether `remove_leftovers` would remove a file."""
    return path.name.startswith('.') and path.name.endswith(_SUFFIX)


@contextmanager
def only_run(out: str | Path) -> Iterator[None]:
    """Keeps other processes from a data folder: each would write the manifest without what the others noted.

    A file beside the folder is locked; the kernel frees it when the process ends, also one that is killed.

    Raises:
        InputError: Another process prepares the folder.
    """
    folder = Path(out).resolve()
    # A folder that cannot be made is told by what is written next.
    with suppress(OSError):
        folder.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(folder.parent, os.W_OK):
        yield
        return
    path = folder.with_name(f'.{folder.name}.lock')
    try:
        with FileLock(path, timeout=0):
            yield
    except Timeout:
        raise InputError(
            f'{out}: another process prepares this folder; wait until it ends, or choose another folder'
        ) from None


def walk_files(folder: Path, skips: Callable[[str], bool]) -> Iterator[Path]:
    """Files below a folder in the order of their names, then those behind links to folders; each folder once.

    Where links lead to a folder and to one inside it, the former goes first: the files then have their whole paths.
    Links to the folder itself, or to one above it, are passed over.

    Args:
        folder: Where to begin.
        skips: Whether folders of a name are left out.
    """
    top, seen, waiting = folder.resolve(), set(), [folder]
    while waiting:
        waiting.sort(key=lambda link: len(link.resolve().parts), reverse=True)
        for at, folders, files in os.walk(waiting.pop()):
            here, real = Path(at), os.path.realpath(at)
            kept = sorted(name for name in folders if not skips(name)) if real not in seen else []
            waiting += [here / name for name in kept if (here / name).is_symlink() and not _is_above(here / name, top)]
            folders[:] = [name for name in kept if not (here / name).is_symlink()]
            if real not in seen:
                yield from (here / name for name in sorted(files))
            seen.add(real)


def _is_above(link: Path, folder: Path) -> bool:
    return folder.is_relative_to(link.resolve())


class Manifest:
    """`manifest.json` of a data folder: for each part its source, whether it is finished, and what it holds.

    Args:
        out: The data folder; made if missing.
        kind: What makes the parts, for example 'archives'.
        parts: Names of the parts that this run writes.
        owned: Patterns of the files and folders below `out` that belong to a part; `{part}` stands for its name.
        overwrite: Remove what another source left of these parts, instead of raising.

    Raises:
        InputError: `out` has files of its own, or parts from another source, and `overwrite` is off.
    """

    def __init__(
        self,
        out: Path,
        kind: str,
        parts: Sequence[str],
        owned: Sequence[str] = ('{part}',),
        overwrite: bool = False,
    ) -> None:
        self.out = out
        self.kind = kind
        self.current = tuple(parts)
        self.overwrite = overwrite
        self.owned = tuple(owned)
        self._path = out / MANIFEST
        self.parts: dict[str, dict[str, Any]] = {}
        #: What a script keeps beside the parts.
        self.notes: dict[str, Any] = {}
        self._is_clean = False
        if out.exists() and not out.is_dir():
            raise InputError(f'{out}: a folder is due, this is a file')
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f'{out}: the folder cannot be made ({error.strerror})') from None
        if self._path.exists():
            self._read()
            other = {name: entry['kind'] for name, entry in self.parts.items() if entry['kind'] != kind}
            if other and not overwrite:
                raise InputError(
                    f'{out}: holds parts from another source ({_by_kind(other)}), this run makes {kind!r}; '
                    'choose another folder, or --overwrite to replace the parts of this run'
                )
        # A run that was killed while it wrote its first manifest has left a temporary file alone.
        elif not overwrite and not all(is_leftover(path) for path in out.iterdir()):
            raise InputError(
                f'{out}: is not empty and has no {MANIFEST}; choose a new folder, or --overwrite to replace '
                f'{some_of(parts)} in it'
            )

    def begin(self, part: str, source: dict[str, Any]) -> dict[str, Any]:
        """Starts or continues a part.

        Args:
            part: Name of the part.
            source: What the part is made from; a part is continued only if this is equal to what is on record.

        Returns:
            The part's entry; `entry['complete']` says if there is nothing left to do.

        Raises:
            InputError: The part exists and came from something else.
        """
        self.check(part, source)
        if not self._is_clean:
            # Once for all parts: going through a large folder takes seconds.
            remove_leftovers(self.out)
            self._is_clean = True
        entry = self.parts.get(part)
        if entry is not None and self._is_from(entry, source):
            return entry
        self.remove(part)
        entry = dict(kind=self.kind, source=source, complete=False)
        self.parts[part] = entry
        self.save()
        return entry

    def check(self, part: str, source: dict[str, Any]) -> None:
        """Raises InputError where `begin` would."""
        entry = self.parts.get(part)
        if self.overwrite or (entry is not None and self._is_from(entry, source)):
            return
        if entry is not None or self._owned(part):
            came = 'is not of this program'
            if entry is not None:
                before, now = _differing(entry['source'], source)
                came = f'was made from {entry["kind"]} with {before}, not with {now}'
            raise InputError(
                f'{self.out}: part {part!r} is there already and {came}; choose another folder, or --overwrite to '
                'remove and remake this part'
            )

    def remove(self, part: str) -> None:
        """Removes the files of a part and forgets it, in memory; `save` makes that last."""
        for path in self._owned(part):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        self.parts.pop(part, None)

    def save(self) -> None:
        """Writes the manifest."""
        write_json(self._path, dict(parts=self.parts, **({'notes': self.notes} if self.notes else {})))

    def discard(self) -> None:
        """Removes the manifest."""
        self._path.unlink(missing_ok=True)

    def _is_from(self, entry: dict[str, Any], source: dict[str, Any]) -> bool:
        return (entry['kind'], entry['source']) == (self.kind, source)

    def _owned(self, part: str) -> list[Path]:
        return sorted(path for pattern in self.owned for path in self.out.glob(pattern.format(part=part)))

    def _read(self) -> None:
        content = read_manifest(self.out)
        self.parts, self.notes = content['parts'], content.get('notes', {})


def _by_kind(kinds: dict[str, str]) -> str:
    """'archives: train, val; toy: test' from the kind of each part; of many parts some are named."""
    groups: dict[str, list[str]] = {}
    for part, kind in kinds.items():
        groups.setdefault(kind, []).append(part)
    return '; '.join(f'{kind}: {some_of(parts, _SHOWN)}' for kind, parts in groups.items())


def _differing(before: dict[str, Any], now: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Two sources without what is equal in both, at any depth."""
    kept: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
    for key in dict.fromkeys([*before, *now]):
        pair = before.get(key), now.get(key)
        if pair[0] == pair[1]:
            continue
        if isinstance(pair[0], dict) and isinstance(pair[1], dict):
            pair = _differing(pair[0], pair[1])
        for side, source, value in zip(kept, (before, now), pair, strict=True):
            if key in source:
                side[key] = value
    return kept


def read_manifest(folder: Path) -> dict[str, Any]:
    """Content of the manifest of a data folder: its parts, and notes if a script keeps any.

    Raises:
        DataError: The file is not one.
    """
    path = folder / MANIFEST
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
        parts = content['parts']
        if all(isinstance(entry, dict) and {'kind', 'source', 'complete'} <= set(entry) for entry in parts.values()):
            return content
    except (ValueError, KeyError, AttributeError, TypeError):
        pass
    raise DataError(f'{path}: not a manifest of this program; remove it, or choose another folder')
