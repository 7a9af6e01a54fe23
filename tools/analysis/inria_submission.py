"""Masks of Inria's hidden tiles: `python tools/analysis/inria_submission.py CONFIG CHECKPOINT --images DIR --out DIR`.

Writes one 8-bit TIFF of 0 and 255 for each of the 180 tiles of the five hidden cities, as the benchmark takes them. The
network predicts as in tools/test.py: the test pipeline of the config, and logits averaged over sliding windows.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import _cli
import numpy as np
import torch
from _submission_tiles import (
    SUMMARY,
    Check,
    Manifest,
    SourceTile,
    check_submission,
    find_tiles,
    named,
    tile_names,
    write_mask,
    write_zip,
)
from lale_mmseg.engine.ledger import file_digest
from mmengine.config import Config, ConfigDict
from mmengine.dataset import Compose
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from train import leave_out_pretrained

import lale_mmseg.register  # noqa: F401
from lale_mmseg.compat import keep_freed_memory
from lale_mmseg.engine.checkpoint import DESCRIPTION_KEY, description_of, load_weights, read_checkpoint, rename_weights
from lale_mmseg.engine.config import complete_config, decode_heads, leaf_datasets
from lale_mmseg.errors import CheckpointError, ConfigError, DataError, InputError
from lale_mmseg.files import write_atomic
from lale_mmseg.inference import Predictor, TestOptions, apply_tta
from lale_mmseg.metainfo import inria

#: Steps of a test pipeline that read labels, which hidden tiles do not have.
LABEL_STEPS = ('LoadBinaryLabels', 'LoadLabels', 'LoadPaletteMask', 'LoadAnnotations')
#: Side of the crops of the few-shot roofs protocol: windows of networks whose config names no training size.
_CROP = 1024


def parse_args() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description='Predicts the hidden tiles of the Inria benchmark.')
    parser.add_argument('config', help='config file of the network')
    parser.add_argument('checkpoint', help='its checkpoint, written by tools/train.py')
    parser.add_argument('--images', required=True, metavar='DIR', help='AerialImageDataset/test/images')
    parser.add_argument('--out', required=True, metavar='DIR', help='folder for the masks, manifest and summary')
    parser.add_argument('--cities', nargs='+', metavar='CITY', help=f'only these: {", ".join(inria.HIDDEN_CITIES)}')
    parser.add_argument('--limit', type=int, metavar='N', help='predict at most N more tiles, then stop')
    parser.add_argument('--partial', action='store_true', help='go on where tiles are missing')
    parser.add_argument('--overwrite', action='store_true', help='predict finished tiles anew, too, and replace them')
    parser.add_argument('--window', type=int, metavar='PIXELS', help='side of the windows (default: of the config)')
    parser.add_argument('--stride', type=int, metavar='PIXELS', help='steps between windows (default: of the config)')
    parser.add_argument('--tta', action='store_true', help='average over views of each window (tta_cfg of the config)')
    parser.add_argument('--device', help='such as cpu or cuda:0 (default: a GPU if there is one)')
    parser.add_argument('--zip', metavar='FILE', help='archive of the 180 masks, once all are there')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=_cli.OverrideAction,
        default={},
        metavar='KEY=VALUE',
        help='as of tools/test.py',
    )
    parser.add_argument('--trust-checkpoint', action='store_true', help='as of tools/test.py')
    parser.set_defaults(work_dir=None, launcher='none', local_rank=0)
    return parser.parse_args()


def check_options(args: argparse.Namespace) -> None:
    """Raises InputError where an option cannot be used."""
    for city in args.cities or ():
        if city not in inria.HIDDEN_CITIES:
            raise InputError(f'--cities {city}: the hidden cities are {", ".join(inria.HIDDEN_CITIES)}')
    for name in ('limit', 'window', 'stride'):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise InputError(f'--{name} {value}: a whole number from 1 is due')
    if Path(args.out).resolve() == Path(args.images).resolve():
        raise InputError(f'--out {args.out}: is the folder of the images, whose files have the names of the masks')
    if args.zip and Path(args.zip).is_dir():
        raise InputError(f'--zip {args.zip}: is a folder; the name of a file in it is due')
    if args.device is not None:
        try:
            torch.empty(0, device=args.device)
        except (RuntimeError, AssertionError) as error:
            raise InputError(f'--device {args.device}: cannot be used ({str(error).splitlines()[0]})') from None


def check_archive(args: argparse.Namespace, chosen: int) -> None:
    """Raises InputError where an archive is asked for of fewer tiles than the benchmark takes."""
    total = len(tile_names())
    if args.zip and (chosen < total or args.limit is not None):
        found = f'{chosen} of {total} are chosen' if chosen < total else f'--limit {args.limit} may leave some out'
        raise InputError(
            f'--zip {args.zip}: the benchmark takes all {total} tiles only, {found}; leave --zip out, or --partial, '
            '--cities and --limit (finished tiles are not predicted again)'
        )


def sliding_config(cfg: Config, args: argparse.Namespace) -> ConfigDict:
    """The model of a config in slide mode; the config stays as it is.

    Windows are those of `test_cfg` if it slides. Otherwise they have the size of the training crops, or 1024, and
    overlap by a quarter.

    Raises:
        ConfigError: Windows or views cannot be used.
    """
    cfg = copy.deepcopy(cfg)
    if args.tta:
        apply_tta(cfg)
    model = ConfigDict(cfg.model)
    test_cfg = dict(model.get('test_cfg') or {})
    given = test_cfg if test_cfg.get('mode') == 'slide' else {}
    if args.window is not None:
        window = (args.window, args.window)
        stride = (_overlapping(args.window),) * 2
    else:
        window = given.get('crop_size') or training_size(cfg)
        stride = given.get('stride') or tuple(_overlapping(side) for side in window)
    if args.stride is not None:
        stride = (args.stride, args.stride)
    test_cfg.update(mode='slide', crop_size=tuple(window), stride=tuple(stride), keep_logits=False)
    TestOptions.parse(test_cfg)
    model.test_cfg = ConfigDict(test_cfg)
    return model


def training_size(cfg: Config) -> tuple[int, int]:
    """(height, width) of the crops that a config trains on; 1024 a side if it crops nothing."""
    for _, dataset in leaf_datasets(cfg, 'train'):
        sizes = [step['crop_size'] for step in dataset.get('pipeline') or () if step.get('crop_size')]
        if sizes:
            size = sizes[-1]
            return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
    return (_CROP, _CROP)


def _overlapping(side: int) -> int:
    """Steps at which windows overlap by a quarter."""
    return max(1, side * 3 // 4)


def test_pipeline(cfg: Config) -> list[dict[str, Any]]:
    """The test pipeline of a config without the steps that read labels.

    Raises:
        ConfigError: There is none.
    """
    for phase in ('test', 'val'):
        for _, dataset in leaf_datasets(cfg, phase):
            if dataset.get('pipeline'):
                steps = [dict(step) for step in dataset['pipeline']]
                return [step for step in steps if str(step.get('type')).rpartition('.')[2] not in LABEL_STEPS]
    raise ConfigError('the config has no test_dataloader and no val_dataloader with a pipeline to load images by')


def build_model(cfg: Config, args: argparse.Namespace, device: str) -> Predictor:
    """The network of a config with the weights of a checkpoint, for evaluation.

    Raises:
        CheckpointError: It cannot be read, does not fit, or is of other classes than background and building.
        ConfigError: The config has other classes or cannot be built.
    """
    checkpoint = read_checkpoint(args.checkpoint, trust=args.trust_checkpoint)
    if DESCRIPTION_KEY in checkpoint:
        classes = description_of(checkpoint, args.checkpoint).classes
        if classes != tuple(inria.CLASSES):
            raise CheckpointError(
                f'{args.checkpoint}: was trained for the classes {", ".join(classes)}; a submission needs '
                f'{", ".join(inria.CLASSES)}, in this order'
            )
    for path, head in decode_heads(cfg):
        if head.get('num_classes') is None:
            head['num_classes'] = len(inria.CLASSES)
        if head['num_classes'] != len(inria.CLASSES):
            raise ConfigError(
                f'{path}.num_classes is {head["num_classes"]}; a submission needs {len(inria.CLASSES)}: '
                f'{", ".join(inria.CLASSES)}'
            )
    # Weights follow from the checkpoint: those that training starts from need not be on this machine.
    config = sliding_config(complete_config(cfg), args)
    leave_out_pretrained(config)
    model = revert_sync_batchnorm(MODELS.build(config))
    load_weights(model, rename_weights(checkpoint['state_dict'], [(r'^module\.', '')]), args.checkpoint)
    if getattr(model.data_preprocessor, 'channels_last', False):
        model = model.to(memory_format=torch.channels_last)
    return Predictor(model.to(device).eval())


def made_by(cfg: Config, predictor: Predictor, args: argparse.Namespace) -> dict[str, Any]:
    """What the masks depend on, for the manifest."""
    options = predictor.options
    network = json.dumps(dict(model=cfg.model, pipeline=test_pipeline(cfg)), default=str, sort_keys=True)
    return dict(
        checkpoint=file_digest(Path(args.checkpoint).expanduser()),
        network=hashlib.sha256(network.encode()).hexdigest(),
        window=options.crop_size,
        stride=options.steps,
        views=options.views,
        scales=options.scales,
    )


def predict(
    predictor: Predictor, load: Callable, tile: SourceTile, progress: Callable[[int], object] | None = None
) -> np.ndarray:
    """Classes of a tile, (H, W) uint8, as a test loop of the same network gives them.

    Raises:
        DataError: The image cannot be read.
    """
    packed = load(dict(img_path=str(tile.path), seg_fields=[], reduce_zero_label=False, label_map=None))
    sample = predictor(dict(inputs=[packed['inputs']], data_samples=[packed['data_samples']]), progress)[0]
    labels = sample.pred_sem_seg.data[0].to(torch.uint8).cpu().numpy()
    if labels.shape != (inria.TILE_SIZE, inria.TILE_SIZE):
        raise ConfigError(f'{tile.path}: the network gave {labels.shape[0]} x {labels.shape[1]} pixels')
    return labels


def predict_tiles(predictor: Predictor, load: Callable, tiles: Sequence[SourceTile], manifest: Manifest) -> list[str]:
    """Predicts and writes tiles; returns the errors of those that could not be read."""
    failed: list[str] = []
    windows = len(predictor.grid((inria.TILE_SIZE, inria.TILE_SIZE)))
    columns = (TextColumn('{task.description}'), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as progress:
        task = progress.add_task('predicting', total=len(tiles) * windows)
        for done, tile in enumerate(tiles):
            progress.update(task, description=f'{tile.name}, tile {done + 1} of {len(tiles)}')
            try:
                labels = predict(predictor, load, tile, lambda count: progress.advance(task, count))
            except DataError as error:
                failed.append(str(error))
            else:
                with manifest.updated():
                    digest = write_mask(tile.path, labels, manifest.out / f'{tile.name}.tif')
                    manifest.finish(tile, digest, 100 * float((labels == 1).mean()))
            progress.update(task, completed=(done + 1) * windows)
    return failed


def table_of(check: Check) -> Table:
    """Share of building by city."""
    table = Table(title='building, percent of the pixels', title_justify='left', box=None, pad_edge=False)
    table.add_column('city')
    for column in ('tiles', 'mean', 'lowest tile', 'highest tile'):
        table.add_column(column, justify='right')
    for city, row in check.by_city().items():
        shares = [f'{row[name]:.2f}' for name in ('building', 'lowest', 'highest')]
        table.add_row(city, f'{row["tiles"]} of {inria.TILES_PER_CITY}', *shares)
    return table


def conclude(args: argparse.Namespace, failed: Sequence[str], manifest: Manifest) -> int:
    """Checks the folder, prints and writes the summary, and packs the archive if asked to; the exit status."""
    out = Path(args.out)
    check = check_submission(out)
    with manifest.updated():
        outdated = manifest.outdated()
        if outdated:
            check.faults.append(
                f'{out}: {len(outdated)} tiles are of another checkpoint or other settings, or still to be replaced: '
                f'{named(outdated)}'
            )
        content = dict(
            complete=check.complete,
            made_by=manifest.made_by,
            cities=check.by_city(),
            tiles=check.building,
            missing=check.missing,
            faults=check.faults,
        )
        write_atomic(out / SUMMARY, json.dumps(content, indent=1) + '\n')
    Console(width=100, highlight=False).print(table_of(check))
    for message in [*failed, *check.faults]:
        print(f'error: {message}', file=sys.stderr)
    total = len(tile_names())
    if check.complete:
        print(f'{out}: complete, {total} tiles of {inria.TILE_SIZE} x {inria.TILE_SIZE} pixels, values 0 and 255')
    elif check.missing:
        print(f'{out}: no submission yet, {len(check.missing)} of {total} tiles missing: {named(check.missing)}')
    if args.zip and check.complete:
        write_zip(out, Path(args.zip))
        print(f'written: {args.zip}')
    elif args.zip:
        print(f'error: --zip {args.zip}: not written, the benchmark takes all {total} tiles only', file=sys.stderr)
    return 1 if failed or check.faults or (args.zip and not check.complete) else 0


def main() -> int:
    """Predicts what is not finished, then checks all."""
    args = parse_args()
    check_options(args)
    cfg = _cli.load_config(args)
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    tiles = find_tiles(Path(args.images), args.cities, args.partial)
    check_archive(args, len(tiles))
    device = args.device or ('cuda:0' if torch.cuda.is_available() else 'cpu')
    if device == 'cpu':
        keep_freed_memory()
    predictor = build_model(cfg, args, device)
    load = Compose(test_pipeline(cfg))
    manifest = Manifest(Path(args.out), made_by(cfg, predictor, args), args.overwrite)
    finished = sum(manifest.is_finished(tile) for tile in tiles)
    todo = manifest.choose(tiles, args.overwrite, args.limit)
    window, stride = predictor.options.crop_size, predictor.options.steps
    print(
        f'{finished} of {len(tiles)} tiles finished before, {len(todo)} to predict; windows of {window[0]} x '
        f'{window[1]} pixels every {stride[0]} x {stride[1]}, on {device}'
    )
    failed = predict_tiles(predictor, load, todo, manifest)
    return conclude(args, failed, manifest)


if __name__ == '__main__':
    _cli.run(main)
