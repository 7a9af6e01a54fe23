"""The ledger of held-out tests: who read a held-out split, when, with which config and checkpoint.

A line is added before the split is read, so a test that failed later is in it, too. It stands in the work dir, beside
the checkpoint and in the data folder: neither another work dir nor a copy of the checkpoint hides an earlier read of
the same attempt.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.logging import MMLogger

from ..errors import CheckpointError, ConfigError, InputError
from ..locks import lock

LEDGER_NAME = 'test_ledger.jsonl'
#: Fields of a config that make the attempt, beside the segmentor.
_OF_THE_ATTEMPT = (
    *['train_dataloader', 'optim_wrapper', 'param_scheduler', 'train_cfg', 'randomness', 'augmentation'],
    *['binary_class', 'custom_hooks', 'data_preprocessor'],
)
#: What is not of the attempt, however deep it lies there: the machine, and how is predicted.
_LEFT_OUT = (
    *['data_root', 'num_workers', 'persistent_workers', 'pin_memory', 'prefetch_factor', 'cache_cfg', 'test_cfg'],
)
_CHUNK = 1 << 20
#: Between the splits of one read; no name of a split has it.
_SEPARATOR = ', '


@dataclass(frozen=True)
class HeldOutRead:
    """A read of a held-out split: its number, from 1, and the SHA-256 of the checkpoint in hexadecimal."""

    number: int
    digest: str


@dataclass(frozen=True)
class _Ledgers:
    """Files to write.

    Attributes:
        own: Those of the work dir and of the checkpoint's folder; without them nothing is read.
        shared: Those of data folders; one that cannot be written is passed over.
    """

    own: tuple[Path, ...]
    shared: tuple[Path, ...]


def note_test(
    cfg: Config,
    checkpoint: str,
    work_dir: str | Path,
    splits: Sequence[str],
    data_roots: Iterable[str | Path] = (),
    attempt: str | None = None,
) -> HeldOutRead:
    """Adds a line to the ledgers of the work dir, the checkpoint's folder and the data, and warns of earlier reads.

    Earlier reads are their lines of a split of these with the same config or the same weights, each once. How many
    reads are of other attempts is logged. On several processes the main one writes, and all of them get its result.

    Args:
        cfg: Config of the run.
        checkpoint: File that is tested.
        work_dir: Folder of the run.
        splits: What is read, such as 'inria test (few-shot)'.
        data_roots: Folders of the data that are read.
        attempt: `config_hash` of the training, if its checkpoint says it; by default that of `cfg`.

    Returns:
        The read.

    Raises:
        CheckpointError: The checkpoint is no local file.
        InputError: A ledger cannot be written or read, other than that of a data folder.
    """
    outcome: list[Any] = [None]
    if is_main_process():
        try:
            outcome = [_note(cfg, Path(checkpoint).expanduser(), Path(work_dir), splits, data_roots, attempt)]
        except InputError as error:
            outcome = [error]
    broadcast_object_list(outcome)
    if isinstance(outcome[0], InputError):
        raise outcome[0]
    return outcome[0]


def config_hash(cfg: Config) -> str:
    """SHA-256, in hexadecimal, of what makes an attempt: its network, and how it is trained.

    What is of the run or of the machine (folders, workers), of the evaluation or of how is predicted takes no part.
    """
    content = {name: cfg.get(name) for name in _OF_THE_ATTEMPT}
    content['model'] = cfg.model if 'model' in cfg else None
    return hashlib.sha256(json.dumps(_plain(content), sort_keys=True, default=repr).encode()).hexdigest()


def _plain(node: Any) -> Any:
    """A part of a config as plain data, without what is not of the attempt."""
    if isinstance(node, Mapping):
        return {name: _plain(value) for name, value in node.items() if name not in _LEFT_OUT}
    return [_plain(value) for value in node] if isinstance(node, (list, tuple)) else node


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


def _note(
    cfg: Config,
    checkpoint: Path,
    work_dir: Path,
    splits: Sequence[str],
    data_roots: Iterable[str | Path],
    attempt: str | None,
) -> HeldOutRead:
    if not checkpoint.is_file():
        raise CheckpointError(f'{checkpoint}: no such file; a held-out split is tested from a local checkpoint')
    entry: dict[str, Any] = dict(
        date=datetime.now(timezone.utc).isoformat(),
        config=Path(cfg.filename).name if cfg.filename else None,
        config_hash=attempt or config_hash(cfg),
        checkpoint=str(checkpoint.resolve()),
        checkpoint_digest=file_digest(checkpoint),
        split=_SEPARATOR.join(splits),
    )
    ledgers = _ledgers(checkpoint, work_dir, data_roots)
    try:
        with _locked(ledgers) as paths:
            earlier, others = _earlier((*ledgers.own, *ledgers.shared), entry)
            entry['read'] = len(earlier) + 1
            for path in paths:
                _append(path, json.dumps(entry))
    except OSError as error:
        raise ConfigError(
            f'{error.filename or ledgers.own[0]}: the ledger of held-out tests cannot be written ({error.strerror}), '
            f'so {entry["split"]} is not read; choose another --work-dir, or make the file writable'
        ) from None
    _report(entry, earlier, others, paths)
    return HeldOutRead(entry['read'], entry['checkpoint_digest'])


def _ledgers(checkpoint: Path, work_dir: Path, data_roots: Iterable[str | Path]) -> _Ledgers:
    """Files to write: those of the work dir, of the checkpoint's folder unless it is read-only, and of the data."""
    beside = checkpoint.resolve().parent
    own = [work_dir.resolve() / LEDGER_NAME]
    # A ledger that is there must be added to: that it is read-only is an error.
    if beside / LEDGER_NAME not in own and (os.access(beside, os.W_OK) or (beside / LEDGER_NAME).exists()):
        own.append(beside / LEDGER_NAME)
    elif beside / LEDGER_NAME not in own:
        MMLogger.get_current_instance().info(
            f'{beside}, where the checkpoint is, cannot be written: this read is not noted there'
        )
    shared = dict.fromkeys(Path(root).expanduser().resolve() / LEDGER_NAME for root in data_roots)
    return _Ledgers(tuple(own), tuple(path for path in shared if path not in own))


@contextmanager
def _locked(ledgers: _Ledgers) -> Iterator[list[Path]]:
    """Holds the ledgers for this process and gives those that can be written: two tests at once get two numbers."""
    files, held = [], []
    try:
        # In one order everywhere: processes that lock several never wait for each other.
        for path in sorted((*ledgers.own, *ledgers.shared)):
            try:
                if path in ledgers.own:
                    path.parent.mkdir(parents=True, exist_ok=True)
                files.append(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644))
            except OSError as error:
                if path in ledgers.own:
                    raise
                MMLogger.get_current_instance().info(
                    f'{path} cannot be written ({error.strerror}): this read is not noted there'
                )
                continue
            held.append(path)
            # Without locks lines are still added in one piece, but two tests at once may get one number.
            lock(files[-1])
        yield held
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


def _earlier(paths: Iterable[Path], entry: dict) -> tuple[list[dict], int]:
    """Earlier reads of the attempt by date, one that stands in several ledgers once; and the number of other reads."""
    split = set(entry['split'].split(_SEPARATOR))
    reads = [one for one in _lines(paths).values() if split & set(str(one.get('split')).split(_SEPARATOR))]
    earlier = [one for one in reads if _same_attempt(one, entry)]
    return sorted(earlier, key=lambda one: str(one.get('date'))), len(reads) - len(earlier)


def _lines(paths: Iterable[Path]) -> dict[str, dict]:
    """Lines of ledgers by their content; one that cannot be read has none, as none is added to it either."""
    found: dict[str, dict] = {}
    for path in paths:
        try:
            entries, damaged = read_ledger(path)
        except OSError:
            continue
        if damaged:
            MMLogger.get_current_instance().warning(f'{path}: {damaged} damaged line(s) are passed over')
        found.update({json.dumps(entry, sort_keys=True): entry for entry in entries})
    return found


def _same_attempt(one: dict, other: dict) -> bool:
    return any(one.get(key) == other.get(key) for key in ('config_hash', 'checkpoint_digest'))


def _report(entry: dict, earlier: Sequence[dict], others: int, paths: Sequence[Path]) -> None:
    logger = MMLogger.get_current_instance()
    where = ', '.join(str(path) for path in paths)
    if others:
        logger.info(f'{others} read(s) of {entry["split"]} by other attempts stand in the ledgers')
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
