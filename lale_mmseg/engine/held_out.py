"""Held-out splits: never trained on or selected by, tested only on request, and every read recorded.

Protocols name the splits that are read once, after all tuning (`Protocol.held_out`). Training and validation refuse
them. A test needs `allow_held_out = True` in the config, and appends one line to `test_ledger.jsonl` in the data root
before it reads the first image, so that a test which fails later is recorded, too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock
from mmengine.config import Config
from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.logging import MMLogger

from ..errors import CheckpointError, ConfigError, InputError
from .config import built_lazily, leaf_datasets

LEDGER_NAME = 'test_ledger.jsonl'
#: Seconds to wait for another process that writes the ledger.
_TIMEOUT = 60


class HeldOutSplit(NamedTuple):
    """A held-out split in a config: path of its dataset, such as 'test_dataloader.dataset', name and data root."""

    path: str
    name: str
    data_root: str


def held_out_splits(cfg: Config, phase: str) -> list[HeldOutSplit]:
    """Held-out splits among the datasets of a phase; no files of theirs are read."""
    found = []
    for path, dataset in leaf_datasets(cfg, phase):
        built = built_lazily(dataset)
        if getattr(built, 'held_out', False):
            source = built.metainfo['source']
            name = f'{source["dataset"]} {source["split"]} ({source["protocol"]})'
            found.append(HeldOutSplit(path, name, built.data_root))
    return found


def check(cfg: Config, phases: tuple[str, ...]) -> None:
    """Refuses held-out splits in training and validation, and in tests unless the config allows them.

    Raises:
        ConfigError: A dataset of 'train' or 'val' is held out, or one of 'test' without `allow_held_out = True`.
    """
    for phase in phases:
        for split in held_out_splits(cfg, phase):
            if phase != 'test':
                raise ConfigError(
                    f"{split.path} is {split.name}, which is held out: train on split='train', select by split='val', "
                    'and read the held-out split with tools/test.py, once, after all tuning'
                )
            if not cfg.get('allow_held_out', False):
                raise ConfigError(
                    f'{split.path} is {split.name}, which is held out and meant to be read once, after all tuning. To '
                    'test on it, pass --cfg-options allow_held_out=True (or set it in the config); the read is '
                    f'recorded in {LEDGER_NAME} of the data root'
                )


def note_read(cfg: Config, run: Mapping[str, Any]) -> int | None:
    """Records the read of the held-out splits that a test is about to read, and warns of earlier ones.

    A read is a repetition if its training config or its weights are those of an earlier read of the same split. In
    distributed runs the main process writes, and all processes get its result.

    Args:
        cfg: Config of the test.
        run: Description of the test from `provenance.describe_test`.

    Returns:
        Number of the read, from 1; None if the test reads no held-out split.

    Raises:
        CheckpointError: The weights do not come from a local checkpoint file.
        ConfigError: The ledger cannot be read or written, so nothing may be read.
    """
    splits = held_out_splits(cfg, 'test')
    if not splits:
        return None
    outcome: list[Any] = [None]
    if is_main_process():
        try:
            outcome[0] = max(_append(split, run) for split in splits)
        except InputError as error:
            outcome[0] = error
    broadcast_object_list(outcome)
    if isinstance(outcome[0], InputError):
        raise outcome[0]
    return outcome[0]


def _append(split: HeldOutSplit, run: Mapping[str, Any]) -> int:
    """Appends one line to the ledger of the split's data root; returns the number of the read."""
    if run['checkpoint_sha256'] is None:
        raise CheckpointError(
            f'{split.path} is {split.name}, which is held out: it is tested from a local checkpoint file, in a process '
            'that does not train, as by "python tools/test.py CONFIG CHECKPOINT"'
        )
    ledger = Path(split.data_root) / LEDGER_NAME
    try:
        # Two tests at once get two numbers.
        with FileLock(ledger.with_name(f'.{LEDGER_NAME}.lock'), timeout=_TIMEOUT):
            lines = ledger.read_text(encoding='utf-8').splitlines() if ledger.is_file() else []
            reads = [entry for entry in map(json.loads, lines) if entry['split'] == split.name]
            earlier = [
                entry for entry in reads if any(entry[key] == run[key] for key in ('config_hash', 'checkpoint_sha256'))
            ]
            entry = dict(
                date=datetime.now(timezone.utc).isoformat(timespec='seconds'),
                **{key: run[key] for key in ('config', 'config_hash', 'checkpoint', 'checkpoint_sha256')},
                split=split.name,
                read=len(earlier) + 1,
            )
            with ledger.open('a', encoding='utf-8') as file:
                file.write(json.dumps(entry) + '\n')
    except OSError as error:
        raise ConfigError(
            f'{ledger}: cannot be written ({error}), so {split.name} is not read; make the data root writable, or '
            'test on a writable copy of it'
        ) from None
    except (ValueError, KeyError) as error:
        raise ConfigError(f'{ledger}: damaged ({error!r}); repair or remove the damaged line') from None
    logger = MMLogger.get_current_instance()
    logger.info(
        f'read {entry["read"]} of {split.name} by this training, recorded in {ledger}; '
        f'{len(reads) - len(earlier)} read(s) by other trainings'
    )
    if earlier:
        logger.warning(
            f'HELD-OUT TEST READ AGAIN: this is read {entry["read"]} of {split.name}, which is meant to be read once, '
            'after all tuning; scores selected from several reads are optimistic. Earlier reads:\n'
            + '\n'.join(f'  {one["date"]}: {one["config"]}, {one["checkpoint"]}' for one in earlier)
        )
    return entry['read']
