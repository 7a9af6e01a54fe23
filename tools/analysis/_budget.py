"""The plan of a data budget study: which tiles each run trains on, its folder, and what is known of its result."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from _runs import DIAGNOSTICS, best_of, differing, flatten, read_diagnostics, score_of
from mmengine.config import Config
from mmseg.registry import DATASETS

from lale_mmseg.engine.config import complete_config, leaf_datasets
from lale_mmseg.errors import ConfigError, DataError
from lale_mmseg.files import write_atomic

RECORD = 'budget.json'
#: Fields of a config that do not change what is trained.
_UNIMPORTANT = ('work_dir', 'launcher', 'log_level', 'resume')
_SHOWN = 4


@dataclass(frozen=True)
class Training:
    """The training set of a config: where its `indices` go, and which samples each tile has.

    Attributes:
        path: Dotted path of the dataset in the config.
        tiles: Numbers of the samples by tile, in the order of the dataset.
    """

    path: str
    tiles: dict[str, list[int]]


@dataclass
class Run:
    """One training of the study.

    Attributes:
        count: Number of tiles.
        seed: Of the choice of tiles, and of the training.
        tiles: Their names.
        indices: Numbers of their samples.
        folder: Work dir.
    """

    count: int
    seed: int
    tiles: list[str]
    indices: list[int]
    folder: Path
    error: str | None = None
    result: dict[str, Any] | None = field(default=None)

    @property
    def name(self) -> str:
        """Such as 'tiles-05_seed-0'."""
        return self.folder.name


def training_set(cfg: Config) -> Training:
    """Reads the list of the training set of a config, and nothing else of the data.

    Raises:
        ConfigError: There are several training sets or a list of them, or `indices` is set already.
        DataError: The files are not there, or a name does not match `tile_pattern` of the data set.
    """
    leaves = [*leaf_datasets(complete_config(cfg), 'train')]
    if len(leaves) != 1:
        raise ConfigError(f'train_dataloader has {len(leaves)} datasets; a study of the number of tiles needs one')
    path, config = leaves[0]
    if 'datasets' in path.split('.'):
        raise ConfigError(
            f'{path} stands in a list of datasets, where no child config can reach its indices; give '
            'train_dataloader.dataset the one dataset itself'
        )
    if config.get('indices') is not None:
        raise ConfigError(f'{path}.indices is set already; the study chooses the samples')
    dataset: Any = DATASETS.build({**config, 'pipeline': [], 'lazy_init': False})
    pattern = dataset.metainfo.get('tile_pattern')
    tiles: dict[str, list[int]] = {}
    for index in range(len(dataset)):
        stem = Path(dataset.get_data_info(index)['img_path']).stem
        match = re.fullmatch(pattern, stem) if pattern else None
        if pattern and match is None:
            raise DataError(f'{stem}: its name does not match tile_pattern {pattern!r}, so its tile is open')
        tiles.setdefault(match['tile'] if match else stem, []).append(index)
    return Training(path, tiles)


def plan(training: Training, counts: Sequence[int], seeds: Sequence[int], work_dir: Path) -> list[Run]:
    """The runs, the smallest first; of one seed each larger set of tiles holds the smaller ones.

    Raises:
        ConfigError: A number of tiles is below 1 or above what there is, or given twice.
    """
    names = list(training.tiles)
    for option, values in (('--tiles', counts), ('--seeds', seeds)):
        if len(set(values)) != len(values):
            raise ConfigError(f'{option} {" ".join(map(str, values))}: each number once is due')
    for count in counts:
        if not 1 <= count <= len(names):
            raise ConfigError(f'--tiles {count}: the training set has {len(names)} tiles; 1 to {len(names)} is due')
    if min(seeds) < 0:
        raise ConfigError(f'--seeds {min(seeds)}: 0 or more is due')
    runs = []
    for count in sorted(counts):
        for seed in sorted(seeds):
            order = np.random.default_rng(seed).permutation(len(names))
            chosen = sorted(order[:count].tolist())
            tiles = [names[place] for place in chosen]
            indices = [index for tile in tiles for index in training.tiles[tile]]
            runs.append(Run(count, seed, tiles, indices, work_dir / f'tiles-{count:02d}_seed-{seed}'))
    return runs


def write_config(run: Run, base: Path, path: str) -> Path:
    """Writes the config of a run beside its work dir: a child of the study's config, with its samples.

    Args:
        run: The run.
        base: Config of the study.
        path: Of the dataset, see `Training`.

    Returns:
        Path of the file.
    """
    first, *inner = path.split('.')
    fields: Any = dict(indices=run.indices)
    for key in reversed(inner):
        fields = {key: fields}
    target = run.folder.parent / 'configs' / f'{run.name}.py'
    lines = [f'# {len(run.tiles)} tiles, seed {run.seed}: {" ".join(run.tiles)}', f'_base_ = {str(base.resolve())!r}']
    write_atomic(target, '\n'.join([*lines, f'{first} = {fields!r}']) + '\n')
    return target


def identity(cfg: Config, run: Run, random_init: bool) -> dict[str, Any]:
    """What a run is of: the fields of its config, whether pretrained weights are left out, its tiles and its seed."""
    fields = {key: value for key, value in cfg.to_dict().items() if key not in _UNIMPORTANT}
    return json.loads(
        json.dumps(dict(config=flatten(fields), random_init=random_init, tiles=run.tiles, seed=run.seed), default=str)
    )


def check_folder(run: Run, wanted: Mapping[str, Any]) -> dict[str, Any] | None:
    """The record of a run that was begun before; None where it was not.

    Raises:
        ConfigError: The folder is of another config, of other overrides or tiles, or of something else.
    """
    path = run.folder / RECORD
    if not path.is_file():
        if run.folder.is_dir() and any(run.folder.iterdir()):
            raise ConfigError(f'{run.folder}: has files and no {RECORD}; take another --work-dir')
        return None
    try:
        record = json.loads(path.read_text(encoding='utf-8'))
        before = {**record['run'], **record['run']['config']}
    except (ValueError, KeyError, TypeError):
        raise ConfigError(f'{path}: not a record of this tool; take another --work-dir') from None
    now = {**wanted, **wanted['config']}
    changed = [key for key in differing(before, now) if key != 'config']
    if changed:
        shown = '; '.join(f'{key} {before.get(key)!r}, now {now.get(key)!r}' for key in changed[:_SHOWN])
        more = f' and {len(changed) - _SHOWN} more' if len(changed) > _SHOWN else ''
        raise ConfigError(
            f'{run.folder}: was trained with another config or other overrides ({shown}{more}); take another --work-dir'
        )
    return record


def write_record(run: Run, of: Mapping[str, Any], seconds: float, finished: bool) -> None:
    """Writes `budget.json` of a run.

    Args:
        run: The run.
        of: See `identity`.
        seconds: Time that its trainings took so far, interrupted ones included where they ended in order.
        finished: Whether it ran to its end.
    """
    content = dict(run=of, seconds=seconds, finished=finished)
    write_atomic(run.folder / RECORD, json.dumps(content, indent=1) + '\n')


def result_of(run: Run) -> dict[str, Any]:
    """Best validation IoU of a finished run, its epoch, and the epochs that it ran.

    Raises:
        DataError: `diagnostics.jsonl` is missing or has no validation.
    """
    rows = read_diagnostics(run.folder)
    best = best_of(rows)
    if best is None:
        raise DataError(f'{run.folder / DIAGNOSTICS}: no epoch was validated (no val.mIoU)')
    return dict(IoU=score_of(best), best_epoch=int(best['epoch']), epochs=int(rows[-1]['epoch']))


def score_name(runs: Sequence[Run]) -> str:
    """What the best score is: 'IoU of building', or 'mIoU of water, road' where the validation averages several."""
    for run in runs:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            names = json.loads((run.folder / 'val' / 'metrics.json').read_text(encoding='utf-8'))['score_classes']
            return f'{"IoU" if len(names) == 1 else "mIoU"} of {", ".join(names)}'
    return 'mIoU'


def summarize(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Mean, standard deviation (n - 1), lowest and highest IoU by number of tiles, of the runs that have a result."""
    rows = []
    for count in sorted({run.count for run in runs}):
        results = [run.result for run in runs if run.count == count and run.result is not None]
        scores = [result['IoU'] for result in results]
        if not scores:
            continue
        rows.append(
            dict(
                tiles=count,
                runs=len(scores),
                mean=statistics.fmean(scores),
                std=statistics.stdev(scores) if len(scores) > 1 else None,
                min=min(scores),
                max=max(scores),
                best_epoch=statistics.fmean(result['best_epoch'] for result in results),
            )
        )
    return rows


def config_digest(of: Mapping[str, Any]) -> str:
    """SHA-256 of the config that a run is of, without its tiles and seed."""
    return hashlib.sha256(json.dumps(of['config'], sort_keys=True).encode()).hexdigest()
