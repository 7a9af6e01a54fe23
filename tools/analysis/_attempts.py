"""What the work dirs of attempts hold."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _attempt_data import SplitData, read_split, shared_images
from _recipes import changes, hooks_of, start_of
from _runs import DIAGNOSTICS, best_of, read_diagnostics, score_of
from lale_mmseg.engine.ledger import LEDGER_NAME, read_ledger
from lale_mmseg.engine.tested import describe_test
from mmengine.config import Config
from mmengine.hooks import EarlyStoppingHook
from mmseg.registry import HOOKS

from lale_mmseg.errors import ConfigError, DataError
from lale_mmseg.evaluation.plots import read_curves
from lale_mmseg.models.segmentors.views import VIEWS

SCORES = ('mIoU', 'mF1', 'OA')
_SHOWN = 5


@dataclass(frozen=True)
class Attempt:
    """One work dir.

    Attributes:
        label: Name in tables and pictures.
        folder: The work dir.
        config: The config of its last training start, as plain data.
        rows: Rows of its diagnostics by epoch.
        best: The row of the best validation IoU.
        test: Scores of its test in percent, or None.
        test_run: What was tested and how (`run` of its metrics.json), or None where that is not known.
        reads: How often its held-out test split was read; None where no ledger was kept.
        notes: What is to be said of it.
        val_data: What it was validated on, or None where that is not known.
        test_data: What it was tested on.
    """

    label: str
    folder: Path
    config: dict[str, Any]
    rows: list[dict[str, Any]]
    best: Mapping[str, Any]
    test: dict[str, float] | None
    test_run: dict[str, Any] | None
    reads: int | None
    notes: list[str]
    val_data: SplitData | None = None
    test_data: SplitData | None = None

    @property
    def val_iou(self) -> float:
        """Validation IoU of the best epoch, in percent."""
        return score_of(self.best) or 0.0

    def to_dict(self) -> dict[str, Any]:
        """The row of the table as plain data."""
        last = self.rows[-1]
        times = [row['epoch_time_s'] for row in self.rows if row.get('epoch_time_s') is not None]
        memory = [row['memory_mb'] for row in self.rows if row.get('memory_mb') is not None]
        worst = self.best.get('worst_tile') or {}
        return dict(
            label=self.label,
            start=start_of(self.config),
            work_dir=str(self.folder),
            val={name: score_of(self.best, name) for name in SCORES},
            val_worst_tile=worst or None,
            test=self.test,
            test_run=self.test_run,
            test_reads=self.reads,
            parameters=last.get('parameters'),
            trainable_parameters=last.get('trainable_parameters'),
            epochs=int(last['epoch']),
            best_epoch=int(self.best['epoch']),
            epoch_time_s=statistics.median(times) if times else None,
            memory_mb=max(memory) if memory else None,
            notes=self.notes,
        )


def read_attempt(folder: Path, label: str) -> Attempt:
    """Reads a work dir.

    Raises:
        DataError: It, its config copy, its diagnostics or a validation is missing, or a file is damaged; names the
            file.
    """
    if not folder.is_dir():
        raise DataError(f'{folder}: no such work dir')
    configs = read_configs(folder)
    _settle_start(configs)
    config = configs[-1]
    rows = read_diagnostics(folder)
    for one in configs:
        one['processes'] = (rows[-1].get('processes') if rows else None) or 1
    if not rows:
        raise DataError(f'{folder / DIAGNOSTICS}: has no epoch yet; the training has not come that far')
    best = best_of(rows)
    if best is None:
        raise DataError(f'{folder / DIAGNOSTICS}: none of its {len(rows)} epochs was validated (no val.mIoU)')
    notes: list[str] = []
    if not _ended(config, rows):
        done, due = int(rows[-1]['epoch']), config['train_cfg']['max_epochs']
        notes.append(f'unfinished: {done} of {due} epochs, and it was not due to stop early')
    changed = changes(configs)
    if changed:
        notes.append(f'trained in {len(configs)} starts whose recipes differ in {", ".join(changed[:_SHOWN])}')
    test, test_run = _test_scores(folder, notes)
    outdated = None if test is None else _outdated(test_run, rows)
    if outdated is not None:
        notes.append(f'TEST is left out: test/metrics.json {outdated}, so it is of an earlier training')
        test, test_run = None, None
    if test is not None:
        notes += _test_notes(test_run, config, best)
    val_data = read_split(folder / 'val', config, 'val')
    test_data = read_split(folder / 'test', config, 'test') if test is not None else None
    if val_data is not None and val_data.missing:
        notes.append(f'validated without the tiles {", ".join(val_data.missing)}')
    if val_data is not None and val_data.published is False:
        notes.append('validated on crops that were prepared otherwise than the published ones')
    both = shared_images(val_data, test_data)
    if both:
        notes.append(f'TEST has {len(both)} images of VAL, by name and labels: {", ".join(both[:_SHOWN])}')
    return Attempt(
        label, folder, config, rows, best, test, test_run, _reads(folder, test_run), notes, val_data, test_data
    )


def read_configs(folder: Path) -> list[dict[str, Any]]:
    """The configs that a work dir was trained with, by start, as plain data; one if it was started once.

    Each start of a training leaves a copy beside its log. That in the work dir itself is of the last start of any tool,
    so a test with other overrides replaces it; it is taken where there is no log.

    Raises:
        DataError: There is none, several without a log that says which was trained, or one that cannot be read.
    """
    logged = _logged(folder)
    if logged:
        return [_load(path) for path in logged]
    files = sorted(folder.glob('*.py'))
    if not files:
        raise DataError(f'{folder}/*.py: no copy of the config; tools/train.py leaves one when a training starts')
    if len(files) > 1:
        raise DataError(
            f'{folder}: {len(files)} configs ({", ".join(file.name for file in files)}) and no log of a training '
            '(DATE_TIME/vis_data) that says which was trained'
        )
    return [_load(files[0])]


def _logged(folder: Path) -> list[Path]:
    """Configs beside the logs of the starts that trained, by date, from the last one that went on from nothing."""
    found: list[Path] = []
    for path in sorted(folder.glob('*/vis_data/config.py')):
        epochs = _logged_epochs(path.with_name('scalars.json'))
        if epochs is None:
            continue
        if min(epochs, default=1) <= 1 and _load(path).get('resume') is not True:
            found = []
        found.append(path)
    return found


def _logged_epochs(path: Path) -> list[int] | None:
    """Epochs that a log has training losses of, none of them where it counts iterations; None without losses."""
    losses = read_curves([path]).train
    if not losses:
        return None
    found = []
    for line in path.read_text(encoding='utf-8', errors='replace').splitlines():
        try:
            row = json.loads(line)
        except ValueError:  # cut off by a crash
            continue
        if isinstance(row, dict) and isinstance(row.get('epoch'), int) and 'train/loss' in row:
            found.append(row['epoch'])
    return found


def _outdated(run: Mapping[str, Any] | None, rows: Sequence[Mapping[str, Any]]) -> str | None:
    """Why a test cannot be of the training that the rows are of; None if it can."""
    start, epoch, iteration = ((run or {}).get(name) for name in ('start', 'epoch', 'iter'))
    if epoch is None:
        return None
    row = next((row for row in rows if row['epoch'] == epoch), None)
    if row is None:
        return f'is of epoch {epoch}, the training has {rows[-1]["epoch"]}'
    if None not in (iteration, row.get('iter')) and iteration != row['iter']:
        return f'is of iteration {iteration} at epoch {epoch}, the training has {row["iter"]} there'
    starts = row.get('starts')
    if start is not None and starts and start not in starts:
        return f'is of epoch {epoch} as {start} trained it, the row of that epoch is of {", ".join(starts)}'
    return None


def _settle_start(configs: Sequence[dict[str, Any]]) -> None:
    """Gives starts that went on with the training of the first its initial weights and its seed.

    Such a start may name its checkpoint in `load_from`, and goes on with the seed that is in it, whatever its config
    says.
    """
    for config in configs[1:]:
        config['load_from'] = configs[0].get('load_from')
        if 'randomness' in configs[0]:
            config['randomness'] = configs[0]['randomness']


def _load(path: Path) -> dict[str, Any]:
    try:
        return Config.fromfile(path, import_custom_modules=False).to_dict()
    except Exception as error:  # a config is Python, so anything may come of a damaged one
        raise DataError(f'{path}: not a usable config ({type(error).__name__}: {error})') from None


def _test_scores(folder: Path, notes: list[str]) -> tuple[dict[str, float] | None, dict[str, Any] | None]:
    """Scores of the test, and its `run`; adds to the notes."""
    path = folder / 'test' / 'metrics.json'
    if not path.is_file():
        return None, None
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
        scores = {name: float(content['summary'][name]) for name in SCORES}
        source = dict(content.get('source') or {})
        run = None if content.get('run') is None else dict(content['run'])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f'{path}: not the scores of a test ({type(error).__name__}: {error})') from None
    split = source.get('split') or (run or {}).get('split')
    if split not in (None, 'test'):
        notes.append(f'test/metrics.json is of split {split!r}, so it is no test')
        return None, None
    if source.get('missing_tiles'):
        notes.append(f'tested without the tiles {", ".join(source["missing_tiles"])}')
    return scores, run


def _test_notes(run: Mapping[str, Any] | None, config: Mapping[str, Any], best: Mapping[str, Any]) -> list[str]:
    """Where the test is of another checkpoint, or predicted otherwise, than the validation beside it."""
    if run is None:
        return ['TEST: its metrics.json does not say of which checkpoint it is']
    notes = []
    key, name = ('epoch', 'epoch') if run.get('epoch') is not None else ('iter', 'iteration')
    if run.get(key) is None:
        what = run.get('checkpoint') or 'a network without checkpoint'
        notes.append(f'TEST is of {what}, whose epoch is not known; VAL of epoch {best["epoch"]}')
    elif run[key] != best.get(key):
        notes.append(f'TEST is of {name} {run[key]}, VAL of {name} {best.get(key)}')
    validated = describe_test(Config(dict(config)), None, None, None)
    views, of_val = run.get('views'), validated['views']
    if views is not None and of_val is not None and views != of_val:
        notes.append(f'TEST {_averaged(views)}' + ('' if of_val == 'none' else f', VAL {_averaged(of_val)}'))
    if None not in (run.get('mode'), validated['mode']) and run['mode'] != validated['mode']:
        notes.append(f'TEST in {run["mode"]} mode, VAL in {validated["mode"]} mode')
    return notes


def _averaged(views: str) -> str:
    if views == 'none':
        return 'without views'
    return f'with {views} views' if views in VIEWS else f'averaged over {views}'


def _reads(folder: Path, run: Mapping[str, Any] | None) -> int | None:
    """How often the attempt that was tested read the test; the ledger of a work dir may have reads of others, too."""
    path = folder / LEDGER_NAME
    if not path.is_file():
        return None
    entries, damaged = read_ledger(path)
    digest = (run or {}).get('digest')
    attempts = {entry.get('config_hash') for entry in entries if digest in (None, entry.get('checkpoint_digest'))}
    # The number in a line counts reads from other work dirs, too; a damaged line was a read, and is not in it.
    same = [entry for entry in entries if entry.get('config_hash') in attempts]
    return max((entry['read'] for entry in same if isinstance(entry.get('read'), int)), default=0) + damaged


def _ended(config: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a training came to its end: its last epoch, or the validation at which its own rule stops it."""
    max_epochs = (config.get('train_cfg') or {}).get('max_epochs')
    if not max_epochs or int(rows[-1]['epoch']) >= max_epochs:
        return True
    kinds = [hook for hook in hooks_of(config) if 'EarlyStopping' in str(hook.get('type'))]
    built = [HOOKS.build({key: value for key, value in hook.items() if key != 'priority'}) for hook in kinds]
    return any(_stopped(hook, rows) for hook in built)


def _stopped(hook: EarlyStoppingHook, rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a rule of early stopping, shown all validations in turn, stops at the last epoch."""
    stops = False
    for row in rows:
        scores = row.get('val') or {}
        # Epochs with a frozen encoder are not counted, as they are not in the training.
        if hook.monitor not in scores or int(row['epoch']) <= getattr(hook, 'begin', 0):
            stops = False
            continue
        score = scores[hook.monitor]
        stops = hook._check_stop_condition(math.nan if score is None else float(score))[0]
    return stops


def labels_of(folders: Sequence[Path], given: Sequence[str] | None) -> list[str]:
    """Names of the attempts: those given, or the names of the folders.

    Raises:
        ConfigError: They are too few, too many or not unique.
    """
    if given is not None and len(given) != len(folders):
        raise ConfigError(f'--labels: {len(given)} labels for {len(folders)} work dirs')
    labels = list(given) if given is not None else [folder.resolve().name for folder in folders]
    twice = [label for label in labels if labels.count(label) > 1]
    if twice:
        raise ConfigError(f'two attempts are called {twice[0]!r}; name them with --labels')
    return labels
