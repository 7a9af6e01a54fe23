"""The ledger of held-out tests: who read a held-out split, when, with which config and checkpoint.

A line is added before the split is read, so a test that failed later is in it, too. It stands in the work dir and
beside the checkpoint: another work dir does not hide an earlier read of the same attempt.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.logging import MMLogger

from ..errors import CheckpointError, ConfigError, InputError

LEDGER_NAME = 'test_ledger.jsonl'
#: Fields of a config that are of the run and not of the attempt.
_OF_THE_RUN = ('work_dir', 'experiment_name', 'load_from', 'resume', 'launcher', 'trust_checkpoint')
_CHUNK = 1 << 20


def note_test(cfg: Config, checkpoint: str, work_dir: str | Path, splits: Sequence[str]) -> int:
    """Adds a line to the ledgers of the work dir and of the checkpoint's folder, and warns of earlier reads.

    On several processes the main one writes, and all of them get its result.

    Args:
        cfg: Config of the run.
        checkpoint: File that is tested.
        work_dir: Folder of the run.
        splits: What is read, such as 'inria test (few-shot)'.

    Returns:
        The number of this read: 1 for the first.

    Raises:
        CheckpointError: The checkpoint is no local file.
        InputError: A ledger cannot be written or read.
    """
    outcome: list[Any] = [None]
    if is_main_process():
        try:
            outcome = [_note(cfg, Path(checkpoint).expanduser(), Path(work_dir), splits)]
        except InputError as error:
            outcome = [error]
    broadcast_object_list(outcome)
    if isinstance(outcome[0], InputError):
        raise outcome[0]
    return outcome[0]


def config_hash(cfg: Config) -> str:
    """SHA-256 of a config's text without what is of the run (work dir, checkpoint, launcher), in hexadecimal."""
    content = {name: value for name, value in cfg.to_dict().items() if name not in _OF_THE_RUN}
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=repr).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file in hexadecimal, read in pieces."""
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while piece := file.read(_CHUNK):
            digest.update(piece)
    return digest.hexdigest()


def read_ledger(path: Path) -> tuple[list[dict], int]:
    """Lines of a ledger, and how many are damaged (a run that was killed while it wrote one); none without a file."""
    if not path.is_file():
        return [], 0
    entries, damaged = [], 0
    for line in path.read_text(encoding='utf-8', errors='replace').splitlines():
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except ValueError:
            entry = None
        if isinstance(entry, dict):
            entries.append(entry)
        else:
            damaged += 1
    return entries, damaged


def _note(cfg: Config, checkpoint: Path, work_dir: Path, splits: Sequence[str]) -> int:
    if not checkpoint.is_file():
        raise CheckpointError(f'{checkpoint}: no such file; a held-out split is tested from a local checkpoint')
    entry: dict[str, Any] = dict(
        date=datetime.now(timezone.utc).isoformat(),
        config=Path(cfg.filename).name if cfg.filename else None,
        config_hash=config_hash(cfg),
        checkpoint=str(checkpoint.resolve()),
        checkpoint_digest=file_digest(checkpoint),
        split=', '.join(splits),
    )
    paths = _ledgers(checkpoint, work_dir)
    try:
        with _locked(paths):
            earlier = _earlier(paths)
            entry['read'] = len(earlier) + 1
            for path in paths:
                _append(path, json.dumps(entry))
    except OSError as error:
        raise ConfigError(
            f'{error.filename or paths[0]}: the ledger of held-out tests cannot be written ({error.strerror}), so '
            f'{entry["split"]} is not read; choose another --work-dir, or make the file writable'
        ) from None
    _report(entry, earlier, paths)
    return entry['read']


def _ledgers(checkpoint: Path, work_dir: Path) -> list[Path]:
    """Files to write: that of the work dir, and that beside the checkpoint unless the folder is read-only."""
    beside = checkpoint.resolve().parent
    folders = [work_dir.resolve()]
    # A ledger that is there must be added to: that it is read-only is an error.
    if beside != folders[0] and (os.access(beside, os.W_OK) or (beside / LEDGER_NAME).exists()):
        folders.append(beside)
    # In one order everywhere: processes that lock both never wait for each other.
    return sorted(folder / LEDGER_NAME for folder in folders)


@contextmanager
def _locked(paths: Sequence[Path]) -> Iterator[None]:
    """Holds the ledgers for this process: two tests at once get different numbers."""
    files = []
    try:
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
            files.append(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644))
            # Some network file systems have no locks; lines are still added in one piece there.
            with suppress(OSError):
                fcntl.flock(files[-1], fcntl.LOCK_EX)
        yield
    finally:
        for file in files:
            os.close(file)


def _append(path: Path, line: str) -> None:
    """Adds a line in one write, after the end of a torn one."""
    content = path.read_bytes()
    start = '\n' if content and not content.endswith(b'\n') else ''
    data = f'{start}{line}\n'.encode()
    file = os.open(path, os.O_WRONLY | os.O_APPEND)
    try:
        if os.write(file, data) != len(data):
            raise OSError(28, 'the disk is full', str(path))
        os.fsync(file)
    finally:
        os.close(file)


def _earlier(paths: Sequence[Path]) -> list[dict]:
    """Earlier reads of the attempt by date; one that stands in both ledgers counts once."""
    found: dict[str, dict] = {}
    for path in paths:
        entries, damaged = read_ledger(path)
        if damaged:
            MMLogger.get_current_instance().warning(f'{path}: {damaged} damaged line(s) are passed over')
        found.update({json.dumps(entry, sort_keys=True): entry for entry in entries})
    return sorted(found.values(), key=lambda entry: str(entry.get('date')))


def _report(entry: dict, earlier: Sequence[dict], paths: Sequence[Path]) -> None:
    logger = MMLogger.get_current_instance()
    where = ' and '.join(str(path) for path in paths)
    if not earlier:
        logger.info(f'first read of {entry["split"]} by this attempt, noted in {where}')
        return
    lines = []
    for one in earlier:
        same_config, same_weights = (one.get(key) == entry[key] for key in ('config_hash', 'checkpoint_digest'))
        lines.append(
            f'  {one.get("date")}: {one.get("split")}, {one.get("config")} ({"same" if same_config else "OTHER"} '
            f'config), {one.get("checkpoint")} ({"same" if same_weights else "OTHER"} weights)'
        )
    logger.warning(
        f'HELD-OUT TEST READ AGAIN: this is read {entry["read"]} of {entry["split"]}, which is to be read once, after '
        'all tuning; scores that are chosen from several reads are optimistic. Earlier reads:\n'
        + '\n'.join(lines)
        + f'\nnoted in {where}; metrics.json says source.test_read = {entry["read"]}'
    )
