"""Predicts images with a checkpoint alone: `python tools/predict.py CHECKPOINT IMAGES...`.

Writes two files for each image: STEM.png with the class indexes (8-bit grey) and STEM_overlay.png to look at. A
georeferenced image also gets STEM.tif, the class indexes in its coordinates with the class colours.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable, Iterator
from glob import escape
from itertools import groupby
from pathlib import Path

import numpy as np
from mmseg.structures import SegDataSample
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ..datasets.image_io import decode_image, read_bytes, read_size
from ..errors import DataError, InputError
from ..evaluation.overlay import panel, to_display
from ..files import atomic_path, save_png
from ..inference import Predictor, to_tensor
from ..metainfo.layout import IMAGE_SUFFIXES
from .common import add_predictor_options, load_predictor, run_command


def parse_args() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description='Predicts images with a checkpoint; no config is needed.')
    parser.add_argument('checkpoint', help='checkpoint written by tools/train.py')
    parser.add_argument('images', nargs='+', metavar='IMAGES', help='image files, or folders of images')
    parser.add_argument('--out-dir', default='predictions', help='folder for the results (default: %(default)s)')
    parser.add_argument(
        '--batch-size', type=int, metavar='N', help='images or windows predicted together (default: that of test_cfg)'
    )
    parser.add_argument('--opacity', type=float, default=0.5, help='of the class colours in overlays, 0 to 1')
    parser.add_argument('--tta', action='store_true', help='average over the views and scales of tta_cfg')
    add_predictor_options(parser)
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
            raise DataError(
                f'{stems[path.stem]} and {path} have the same stem: their results would overwrite each other'
            )
        stems[path.stem] = path
    return found


def require_no_overlap(images: list[Path], out_dir: Path) -> None:
    """Raises InputError if a result would overwrite an input."""
    inputs = {path.resolve() for path in images}
    for path in images:
        for target in result_paths(path, out_dir):
            if target.resolve() in inputs:
                raise InputError(f'--out-dir {out_dir}: {target} is one of the images and would be overwritten')


def result_paths(image: Path, out_dir: Path) -> tuple[Path, Path, Path]:
    """Paths of the index map, the overlay and the georeferenced index map of an image."""
    return out_dir / f'{image.stem}.png', out_dir / f'{image.stem}_overlay.png', out_dir / f'{image.stem}.tif'


def batches(images: list[Path], sizes: list[tuple[int, int] | None], predictor: Predictor) -> Iterator[list[Path]]:
    """Neighbouring images of equal size that fit into one window, `batch_size` at a time; all others one by one."""
    for size, run in groupby(zip(images, sizes, strict=True), key=lambda pair: pair[1]):
        paths = [path for path, _ in run]
        step = predictor.options.batch_size if size is not None and len(predictor.grid(size)) == 1 else 1
        yield from (paths[start : start + step] for start in range(0, len(paths), step))


def predict_batch(
    predictor: Predictor, paths: list[Path], args: argparse.Namespace, progress: Callable[[int], object]
) -> list[str]:
    """Predicts images and writes their files; returns the errors of those that cannot be read or predicted."""
    images, failed = {}, []
    for path in paths:
        try:
            images[path] = decode_image(read_bytes(path), str(path), predictor.bands)
        except DataError as error:
            failed.append(str(error))
    inputs = [to_tensor(image) for image in images.values()]
    samples = [SegDataSample(metainfo=dict(img_path=str(path))) for path in images]
    try:
        samples = predictor(dict(inputs=inputs, data_samples=samples), progress) if images else []
    except DataError as error:  # an image with other bands than the network has
        if len(images) == 1:
            return [*failed, str(error)]
        return [*failed, *(line for path in images for line in predict_batch(predictor, [path], args, progress))]
    for (path, image), sample in zip(images.items(), samples, strict=True):
        labels = sample.pred_sem_seg.data[0].cpu().numpy()
        shown = to_display(image, bgr=predictor.bands is None)
        index_path, overlay_path, raster_path = result_paths(path, Path(args.out_dir))
        save_png(index_path, labels)
        maps = {'Prediction': labels}
        save_png(overlay_path, panel(path.name, shown, maps, predictor.classes, predictor.palette, args.opacity))
        write_geotiff(path, labels, predictor.palette, raster_path)
    return failed


def write_geotiff(source: Path, labels: np.ndarray, palette: list[list[int]], target: Path) -> None:
    """Writes class indexes in the coordinates of `source`, if it has any."""
    if source.suffix.lower() in ('.png', '.jpg', '.jpeg') and not any(source.parent.glob(f'{escape(source.stem)}.*w*')):
        return  # no world file (.pgw, .jgw, .wld), so that rasterio is not needed
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning, RasterioIOError

    with warnings.catch_warnings():
        warnings.simplefilter('ignore', NotGeoreferencedWarning)
        try:
            with rasterio.open(source) as dataset:
                crs, transform = dataset.crs, dataset.transform
        except RasterioIOError:
            return
    if crs is None and transform.is_identity:  # a world file gives a transform without a reference system
        return
    profile = dict(driver='GTiff', dtype='uint8', count=1, crs=crs, transform=transform, compress='deflate')
    size = dict(height=labels.shape[0], width=labels.shape[1])
    with atomic_path(target) as temporary, rasterio.open(temporary, 'w', **size, **profile) as dataset:
        dataset.write(labels, 1)
        dataset.write_colormap(1, {index: (*color, 255) for index, color in enumerate(palette)})


def main() -> int:
    """Predicts; an image that cannot be read is reported at the end and does not stop the others."""
    args = parse_args()
    if not 0 <= args.opacity <= 1:
        raise InputError(f'--opacity {args.opacity}: expected a number from 0 to 1')
    images = find_images(args.images)
    require_no_overlap(images, Path(args.out_dir))
    if args.batch_size is not None:
        args.cfg_options['model.test_cfg.batch_size'] = args.batch_size
    predictor = load_predictor(args, args.tta)
    console = Console(stderr=True)
    if predictor.other_steps:
        steps = ', '.join(predictor.other_steps)
        console.print(f'note: images are predicted as they are; the test pipeline of the config also has {steps}')
    sizes = [size_or_none(path) for path in images]
    columns = (TextColumn('predicting'), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    failed: list[str] = []
    with Progress(*columns, console=console) as progress:
        windows = sum(len(predictor.grid(size)) for size in sizes if size is not None)
        task = progress.add_task('predicting', total=windows)
        for paths in batches(images, sizes, predictor):
            failed += predict_batch(predictor, paths, args, lambda count: progress.advance(task, count))
    print(f'{len(images) - len(failed)} of {len(images)} images predicted, results in {args.out_dir}')
    print('classes: ' + ', '.join(f'{index} {name}' for index, name in enumerate(predictor.classes)))
    for message in failed:
        print(f'error: {message}', file=sys.stderr)
    return 1 if failed else 0


def size_or_none(path: Path) -> tuple[int, int] | None:
    """(height, width) of an image, or None if it cannot be read, which is reported when it is predicted."""
    try:
        return read_size(path)
    except DataError:
        return None


def command() -> None:
    """`lale-predict` and tools/predict.py."""
    run_command(main)
