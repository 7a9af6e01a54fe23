"""Masks of Inria's hidden tiles: `python tools/analysis/inria_submission.py CHECKPOINT --images DIR --out DIR`.

Writes one 8-bit TIFF of 0 and 255 for each of the 180 tiles of the five hidden cities, and packs them as the benchmark
accepts them. Finished tiles are skipped, so the same command continues an interrupted run, and several processes (one
per GPU, each with its `--cities`) may share the folder.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
import zipfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import rasterio
from rasterio.errors import NotGeoreferencedWarning, RasterioIOError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from lale_mmseg.cli import common
from lale_mmseg.datasets.image_io import decode_image, read_bytes
from lale_mmseg.errors import CheckpointError, ConfigError, DataError
from lale_mmseg.files import atomic_path, file_sha256, hash_json, write_atomic
from lale_mmseg.inference import Predictor, to_tensor
from lale_mmseg.metainfo import inria

#: Tags in each mask: digest of checkpoint and settings, and percent of building.
SETTINGS_TAG, BUILDING_TAG = 'LALE_SETTINGS', 'LALE_BUILDING'


def parse_args() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description='Predicts the hidden tiles of the Inria benchmark.')
    parser.add_argument('checkpoint', help='checkpoint written by tools/train.py')
    parser.add_argument('--images', required=True, type=Path, metavar='DIR', help='AerialImageDataset/test/images')
    parser.add_argument('--out', required=True, type=Path, metavar='DIR', help='folder for the masks and summary.json')
    parser.add_argument('--cities', nargs='+', choices=inria.HIDDEN_CITIES, default=inria.HIDDEN_CITIES, metavar='CITY')
    parser.add_argument('--limit', type=int, metavar='N', help='predict at most N more tiles, then stop')
    parser.add_argument('--overwrite', action='store_true', help='replace masks of another checkpoint or settings')
    parser.add_argument('--zip', type=Path, metavar='FILE', help='archive of the 180 masks, once all are finished')
    parser.add_argument('--tta', action='store_true', help='average over the views and scales of tta_cfg')
    common.add_predictor_options(parser)
    return parser.parse_args()


def load_predictor(args: argparse.Namespace) -> Predictor:
    """The network of the checkpoint; CheckpointError unless its classes are background and building."""
    predictor = common.load_predictor(args, args.tta)
    if predictor.classes != inria.CLASSES:
        raise CheckpointError(
            f'{args.checkpoint}: its classes are {", ".join(predictor.classes)}; a submission needs '
            f'{", ".join(inria.CLASSES)}, in this order'
        )
    return predictor


def tags_of(mask: Path) -> dict[str, str]:
    """Tags of a mask; none if the file is missing.

    Raises:
        DataError: The file is no mask of the right size and type.
    """
    if not mask.is_file():
        return {}
    try:
        with rasterio.open(mask) as dataset:
            form = (dataset.count, dataset.height, dataset.width, dataset.dtypes[0])
            tags = dataset.tags()
    except RasterioIOError as error:
        raise DataError(f'{mask}: not a readable TIFF ({error}); remove it to predict it again') from None
    if form != (1, inria.TILE_SIZE, inria.TILE_SIZE, 'uint8') or BUILDING_TAG not in tags:
        raise DataError(f'{mask}: not a mask written by this tool; choose another --out')
    return tags


def unfinished(args: argparse.Namespace, settings: str) -> list[str]:
    """Tiles to predict: those with an image and without a finished mask.

    Raises:
        ConfigError: A mask was made with another checkpoint or other settings, and `--overwrite` is not given.
        DataError: There is no image at all, or a mask is damaged.
    """
    tiles = [tile for tile in inria.HIDDEN_TILES if inria.city_of(tile) in args.cities]
    missing = [tile for tile in tiles if not (args.images / f'{tile}.tif').is_file()]
    if len(missing) == len(tiles):
        raise DataError(f'--images {args.images}: contains none of the {len(tiles)} tiles, such as {tiles[0]}.tif')
    if missing:
        print(f'{len(missing)} of {len(tiles)} images are missing: {", ".join(missing[:6])}')
    if args.zip is not None:
        # The benchmark accepts all 180 masks only: found out before hours of prediction.
        absent = [tile for tile in inria.HIDDEN_TILES if tile in missing or tile not in tiles]
        absent = [tile for tile in absent if not (args.out / f'{tile}.tif').is_file()]
        if absent or args.limit is not None:
            raise ConfigError(
                f'--zip {args.zip}: the archive needs the masks of all {len(inria.HIDDEN_TILES)} tiles; '
                f'{len(absent)} have no image or are not chosen: {", ".join(absent[:6]) or "--limit is set"}'
            )
    todo = []
    for tile in tiles:
        mask = args.out / f'{tile}.tif'
        found = tags_of(mask).get(SETTINGS_TAG)
        if found not in (None, settings) and not args.overwrite:
            raise ConfigError(
                f'{mask}: made with another checkpoint or other settings; choose another --out, or pass --overwrite to '
                'replace such masks'
            )
        if found != settings and tile not in missing:
            todo.append(tile)
    return todo[: args.limit]


def write_mask(source: Path, labels: np.ndarray, target: Path, settings: str) -> None:
    """Writes the mask of a tile, with the coordinates of its image, under its name only when it is complete.

    Args:
        source: Image of the tile.
        labels: (H, W) class indexes, 1 is building.
        target: TIFF to write: one band of 8 bits, 0 and 255, compressed without loss.
        settings: Digest of checkpoint and settings.
    """
    with rasterio.open(source) as dataset:
        place: dict[str, Any] = dict(crs=dataset.crs, transform=dataset.transform)
    profile = dict(driver='GTiff', dtype='uint8', count=1, compress='lzw', photometric='minisblack', **place)
    with rasterio.MemoryFile() as memory:
        with memory.open(height=labels.shape[0], width=labels.shape[1], **profile) as dataset:
            dataset.write(np.asarray(inria.LABEL_VALUES, np.uint8)[labels], 1)
            dataset.update_tags(**{SETTINGS_TAG: settings, BUILDING_TAG: f'{100 * labels.mean():.4f}'})
        write_atomic(target, bytes(memory.getbuffer()))


def predict_tiles(predictor: Predictor, tiles: list[str], args: argparse.Namespace, settings: str) -> list[str]:
    """Predicts and writes tiles; returns the errors of those that cannot be read."""
    failed = []
    columns = (TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as progress:
        windows = len(predictor.grid((inria.TILE_SIZE, inria.TILE_SIZE)))
        task = progress.add_task('', total=windows * len(tiles))
        for done, tile in enumerate(tiles):
            progress.update(task, completed=windows * done, description=tile)
            source = args.images / f'{tile}.tif'
            try:
                image = decode_image(read_bytes(source), str(source), predictor.bands)
            except DataError as error:
                failed.append(str(error))
                continue
            if image.shape != (inria.TILE_SIZE, inria.TILE_SIZE, 3):
                failed.append(f'{source}: expected {inria.TILE_SIZE} x {inria.TILE_SIZE} x 3 pixels, got {image.shape}')
                continue
            sample = predictor(dict(inputs=[to_tensor(image)]), lambda count: progress.advance(task, count))[0]
            write_mask(source, sample.pred_sem_seg.data[0].cpu().numpy(), args.out / f'{tile}.tif', settings)
    return failed


def summarize(args: argparse.Namespace, settings: str) -> bool:
    """Prints the share of building by city and writes summary.json; returns whether all 180 masks are finished.

    A city whose share is far from that of the others is worth a look at its masks.
    """
    tags = {tile: tags_of(args.out / f'{tile}.tif') for tile in inria.HIDDEN_TILES}
    finished = {tile: float(found[BUILDING_TAG]) for tile, found in tags.items() if found.get(SETTINGS_TAG) == settings}
    missing = [tile for tile in inria.HIDDEN_TILES if tile not in finished]
    shares = pd.Series(finished, dtype=float, name='percent of building')
    cities = shares.groupby([inria.city_of(tile) for tile in finished]).agg(['count', 'mean', 'min', 'max'])
    print(f'percent of building\n{cities.round(2).to_string()}')
    content = dict(settings=settings, cities=cities.to_dict('index'), tiles=finished, missing=missing)
    write_atomic(args.out / 'summary.json', json.dumps(content, indent=1) + '\n')
    print(
        f'{len(finished)} of {len(tags)} masks finished' + (f'; missing: {", ".join(missing[:6])}' if missing else '')
    )
    return not missing


def write_zip(out: Path, target: Path) -> None:
    """Packs the 180 masks without folders; the archive appears under its name only when it is complete."""
    # The masks are compressed already.
    with atomic_path(target) as temporary, zipfile.ZipFile(temporary, 'w', zipfile.ZIP_STORED) as archive:
        for tile in inria.HIDDEN_TILES:
            archive.write(out / f'{tile}.tif', f'{tile}.tif')


def main() -> int:
    """Predicts what is not finished, then summarizes and packs."""
    args = parse_args()
    warnings.simplefilter('ignore', NotGeoreferencedWarning)
    if args.out.resolve() == args.images.resolve():
        raise ConfigError(f'--out {args.out}: is the folder of the images, which have the names of the masks')
    predictor = load_predictor(args)
    options = replace(predictor.options, batch_size=1)  # batches do not change the masks
    settings = hash_json([file_sha256(args.checkpoint), asdict(options)])
    failed = predict_tiles(predictor, unfinished(args, settings), args, settings)
    complete = summarize(args, settings)
    for message in failed:
        print(f'error: {message}', file=sys.stderr)
    if args.zip and complete:
        write_zip(args.out, args.zip)
        print(f'written: {args.zip}')
    elif args.zip:
        print(f'error: --zip {args.zip}: not written, as the benchmark accepts all 180 masks only', file=sys.stderr)
    return 1 if failed or (args.zip and not complete) else 0


if __name__ == '__main__':
    common.run_command(main)
