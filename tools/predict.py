"""Predicts images with a checkpoint alone: `python tools/predict.py CHECKPOINT IMAGES...`.

For each image two files are written: STEM.png with the class indexes (8-bit grey) and STEM_overlay.png to look at. A
georeferenced image also gets STEM.tif, the class indexes in its coordinates with the class colours.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path

import _cli
import numpy as np
import rasterio
import torch
from rasterio.errors import NotGeoreferencedWarning, RasterioIOError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

import lale_mmseg.register  # noqa: F401
from lale_mmseg.compat import keep_freed_memory
from lale_mmseg.datasets.image_io import decode_image, read_bytes, read_size
from lale_mmseg.errors import DataError, InputError
from lale_mmseg.evaluation.overlay import overlay, to_display
from lale_mmseg.files import save_png
from lale_mmseg.inference import Predictor
from lale_mmseg.inference.windows import num_windows
from lale_mmseg.metainfo.layout import IMAGE_SUFFIXES


def parse_args() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description='Predicts images with a checkpoint; no config is needed.')
    parser.add_argument('checkpoint', help='checkpoint written by tools/train.py')
    parser.add_argument('images', nargs='+', metavar='IMAGES', help='image files, or folders of images')
    parser.add_argument('--out-dir', default='predictions', help='folder for the results (default: %(default)s)')
    parser.add_argument('--device', help='such as cpu or cuda:0 (default: a GPU if there is one)')
    parser.add_argument('--tile', type=int, default=1024, help='side of the windows of large images, in pixels')
    parser.add_argument('--overlap', type=int, default=128, help='overlap of the windows, in pixels')
    parser.add_argument('--opacity', type=float, default=0.5, help='of the class colours in overlays, 0 to 1')
    parser.add_argument('--trust-checkpoint', action='store_true', help='as of tools/test.py')
    return parser.parse_args()


def find_images(names: list[str]) -> list[Path]:
    """Image files that the names stand for.

    Raises:
        DataError: A name is neither file nor folder, a folder has no image, or two images have the same stem.
    """
    found: list[Path] = []
    for name in names:
        path = Path(name)
        if path.is_dir():
            inside = sorted(file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)
            if not inside:
                raise DataError(f'{path}: no image in this folder; images end in {", ".join(IMAGE_SUFFIXES)}')
            found.extend(inside)
        elif path.is_file():
            found.append(path)
        else:
            raise DataError(f'{path}: no such file or folder')
    stems: dict[str, Path] = {}
    for path in found:
        if path.stem in stems:
            raise DataError(f'{stems[path.stem]} and {path} have the same stem, so would their results')
        stems[path.stem] = path
    return found


def require_no_overlap(images: list[Path], out_dir: Path) -> None:
    """Raises InputError if a result would be written over an input."""
    inputs = {path.resolve() for path in images}
    for path in images:
        for target in result_paths(path, out_dir):
            if target.resolve() in inputs:
                raise InputError(f'--out-dir {out_dir}: {target} is one of the images and would be overwritten')


def result_paths(image: Path, out_dir: Path) -> tuple[Path, Path, Path]:
    """Where index map, overlay and georeferenced index map of an image go."""
    return out_dir / f'{image.stem}.png', out_dir / f'{image.stem}_overlay.png', out_dir / f'{image.stem}.tif'


def predict_image(predictor: Predictor, path: Path, args: argparse.Namespace, progress: Progress, task: int) -> None:
    """Predicts one image and writes its files."""
    image = decode_image(read_bytes(path), str(path), predictor.bands)
    labels = predictor.predict(image, args.tile, args.overlap, on_tile=lambda: progress.advance(task))  # type: ignore
    is_bgr = predictor.bands is None and image.shape[2] == 3 and image.dtype == np.uint8
    shown = to_display(image[..., ::-1] if is_bgr else image)
    index_path, overlay_path, raster_path = result_paths(path, Path(args.out_dir))
    save_png(index_path, labels)
    save_png(overlay_path, overlay(shown, labels, predictor.palette, args.opacity))
    write_geotiff(path, labels, predictor.palette, raster_path)


def write_geotiff(source: Path, labels: np.ndarray, palette: list[list[int]], target: Path) -> bool:
    """Writes class indexes in the coordinates of `source`; returns False where it has none."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', NotGeoreferencedWarning)
        try:
            with rasterio.open(source) as dataset:
                crs, transform = dataset.crs, dataset.transform
        except RasterioIOError:
            return False
    if crs is None and transform.is_identity:  # a world file gives a place without a reference system
        return False
    temporary = target.with_name(f'.{target.name}.part')
    profile = dict(driver='GTiff', dtype='uint8', count=1, crs=crs, transform=transform, compress='deflate')
    try:
        with rasterio.open(temporary, 'w', height=labels.shape[0], width=labels.shape[1], **profile) as dataset:
            dataset.write(labels, 1)
            dataset.write_colormap(1, {index: (*color, 255) for index, color in enumerate(palette)})
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    return True


def main() -> int:
    """Predicts; an image that cannot be read is reported at the end and does not stop the others."""
    args = parse_args()
    if not 0 <= args.opacity <= 1:
        raise InputError(f'--opacity {args.opacity}: 0 to 1 is due')
    if args.tile < 32 or not 0 <= args.overlap < args.tile:
        raise InputError(f'--tile {args.tile} --overlap {args.overlap}: a tile of 32 or more, an overlap below it')
    images = find_images(args.images)
    require_no_overlap(images, Path(args.out_dir))
    device = args.device or ('cuda:0' if torch.cuda.is_available() else 'cpu')
    if device == 'cpu':
        keep_freed_memory()
    predictor = Predictor.from_checkpoint(args.checkpoint, device, args.trust_checkpoint)
    console = Console(stderr=True)
    if predictor.other_steps:
        steps = ', '.join(predictor.other_steps)
        console.print(f'note: images are predicted as they are; the test pipeline of the config also has {steps}')
    columns = (TextColumn('predicting'), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    failed: list[str] = []
    with Progress(*columns, console=console) as progress:
        sizes = [_size_or_none(path) for path in images]
        total = sum(num_windows(*size, args.tile, args.overlap) for size in sizes if size is not None)
        task = progress.add_task('predicting', total=total)
        for path in images:
            try:
                predict_image(predictor, path, args, progress, task)
            except DataError as error:
                failed.append(str(error))
    print(f'{len(images) - len(failed)} of {len(images)} images predicted, results in {args.out_dir}')
    print('classes: ' + ', '.join(f'{index} {name}' for index, name in enumerate(predictor.classes)))
    for message in failed:
        print(f'error: {message}', file=sys.stderr)
    return 1 if failed else 0


def _size_or_none(path: Path) -> tuple[int, int] | None:
    try:
        return read_size(path)
    except DataError:
        return None  # reported when it is predicted


if __name__ == '__main__':
    _cli.run(main)
