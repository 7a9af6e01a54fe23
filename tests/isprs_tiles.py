"""Makes ISPRS sources as distributed: synthetic tiles in folders, archives, and archives inside archives."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import from_origin

from lale_mmseg.metainfo import isprs

#: (width, height) of some Vaihingen tiles.
VAIHINGEN_SIZES = {
    '1': (1919, 2569),
    '2': (2428, 2767),
    '3': (2006, 3007),
    '11': (1893, 2566),
    '30': (1934, 2563),
    '34': (1388, 2555),
}
#: Colour of each class in the synthetic images (red, green, blue), and its share.
_GROUND = np.array([(150, 150, 155), (170, 90, 70), (110, 160, 80), (40, 90, 40), (200, 40, 50), (90, 70, 60)])
_SHARES = (0.3, 0.25, 0.2, 0.17, 0.04, 0.04)
_ORTHO = {'rgb': ('2_Ortho_RGB', 'RGB'), 'irrg': ('3_Ortho_IRRG', 'IRRG'), 'rgbir': ('4_Ortho_RGBIR', 'RGBIR')}
#: Pixels on either side of a boundary that eroded labels ignore.
_ERODED = 3


def tile_labels(tile: str, width: int, height: int, block: int = 60) -> np.ndarray:
    """(H, W) uint8 class indexes in blocks; deterministic for each tile."""
    rng = np.random.default_rng(zlib.crc32(tile.encode()))
    coarse = rng.choice(len(_SHARES), (-(-height // block), -(-width // block)), p=_SHARES).astype(np.uint8)
    return np.ascontiguousarray(coarse.repeat(block, 0).repeat(block, 1)[:height, :width])


def erode(labels: np.ndarray) -> np.ndarray:
    """Labels with 255 near the boundary of another class."""
    near = np.zeros(labels.shape, bool)
    for shifted, base in ((np.s_[_ERODED:], np.s_[:-_ERODED]), (np.s_[:, _ERODED:], np.s_[:, :-_ERODED])):
        differs = labels[shifted] != labels[base]
        near[shifted] |= differs
        near[base] |= differs
    return np.where(near, np.uint8(255), labels)


def tile_image(tile: str, labels: np.ndarray, bands: int = 3) -> np.ndarray:
    """(bands, H, W) uint8 image of labels: the colour of each class, with noise."""
    rng = np.random.default_rng(zlib.crc32(tile.encode()) + 1)
    grain = rng.integers(-25, 26, (251, 257))
    tiles = [-(-labels.shape[axis] // grain.shape[axis]) for axis in (0, 1)]
    grain = np.tile(grain, tiles)[: labels.shape[0], : labels.shape[1]].astype(np.int16)
    ground = np.concatenate([_GROUND, 255 - _GROUND[:, :1]], 1).astype(np.int16)
    image = np.empty((bands, *labels.shape), np.uint8)
    for band in range(bands):
        image[band] = np.clip(ground[labels, band] + grain, 0, 255)
    return image


def write_tif(path: Path, values: np.ndarray, georeferenced: bool = False, **options) -> Path:
    """Writes (bands, H, W) values."""
    path.parent.mkdir(parents=True, exist_ok=True)
    profile = dict(driver='GTiff', count=len(values), height=values.shape[1], width=values.shape[2], dtype=values.dtype)
    if georeferenced:
        profile |= dict(crs='EPSG:32633', transform=from_origin(366676.0, 5807000.0, 0.05, 0.05))
    with rasterio.open(path, 'w', **profile | options) as file:
        file.write(values)
    return path


def write_labels(path: Path, labels: np.ndarray, **options) -> Path:
    """Writes labels in the colours of ISPRS, 255 as black."""
    return write_tif(path, isprs.PALETTE.encode(labels).transpose(2, 0, 1), compress='lzw', **options)


def zip_folder(folder: Path, path: Path, keep_top: bool = True, stored: bool = False) -> Path:
    """Packs a folder, with or without its own name at the top."""
    base = folder.parent if keep_top else folder
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED, compresslevel=1) as zipped:
        for file in sorted(folder.rglob('*')):
            if file.is_file():
                zipped.write(file, file.relative_to(base))
    return path


def make_potsdam(
    folder: Path,
    tiles: Sequence[str] = isprs.TILES['potsdam'],
    size: int | tuple[int, int] = isprs.POTSDAM_TILE_SIZE,
    kinds: Sequence[str] = ('full', 'eroded'),
    bands: Sequence[str] = ('rgb',),
    zipped: bool = True,
    nested: bool = True,
) -> Path:
    """Makes a Potsdam source: FOLDER/Potsdam.zip of archives, the archives alone, or their content in folders.

    Args:
        folder: Output folder; created if missing.
        tiles: Such as '2_10'.
        size: Side of the tiles, or (width, height).
        kinds: Kinds of labels.
        bands: Choices of bands.
        zipped: Pack each folder.
        nested: Pack the archives into one.
    """
    width, height = (size, size) if isinstance(size, int) else size
    shipped = folder / 'Potsdam'
    for tile in tiles:
        labels = tile_labels(tile, width, height)
        for name in bands:
            image = tile_image(tile, labels, 4 if name == 'rgbir' else 3)
            if name == 'irrg':
                image = image[[2, 0, 1]]
            top, end = _ORTHO[name]
            write_tif(shipped / top / f'top_potsdam_{tile}_{end}.tif', image, georeferenced=True)
        if 'full' in kinds:
            write_labels(shipped / '5_Labels_all' / f'top_potsdam_{tile}_label.tif', labels)
        if 'eroded' in kinds:
            top = shipped / '5_Labels_all_noBoundary'
            write_labels(top / f'top_potsdam_{tile}_label_noBoundary.tif', erode(labels))
    (shipped / '1_DSM').mkdir()
    (shipped / '1_DSM' / 'dsm_potsdam_02_10.tif').write_bytes(b'never read')
    if zipped:
        for name in sorted(path for path in shipped.iterdir()):
            # As distributed: labels are at the top of their archives, images in a folder.
            zip_folder(name, name.with_suffix('.zip'), keep_top='Labels' not in name.name)
            _remove(name)
        if nested:
            zip_folder(shipped, folder / 'Potsdam.zip', keep_top=True)
            _remove(shipped)
    return folder


def make_vaihingen(
    folder: Path,
    sizes: Mapping[str, tuple[int, int]] = VAIHINGEN_SIZES,
    kinds: Sequence[str] = ('full', 'eroded'),
    zipped: bool = True,
    participants: Sequence[str] = (),
) -> Path:
    """Makes a Vaihingen source: images and labels with equal names in three archives, or in folders of the same names.

    Args:
        folder: Output folder; created if missing.
        sizes: (width, height) of each tile.
        kinds: Kinds of labels.
        zipped: Pack the folders.
        participants: Tiles whose full labels also lie in gts_for_participants/ beside the images.
    """
    main = folder / 'ISPRS_semantic_labeling_Vaihingen'
    complete = {kind: folder / f'{main.name}_ground_truth_{end}COMPLETE' for kind, end in _COMPLETE.items()}
    for tile, (width, height) in sizes.items():
        name = f'top_mosaic_09cm_area{tile}'
        labels = tile_labels(tile, width, height)
        write_tif(main / 'top' / f'{name}.tif', tile_image(tile, labels))
        (main / 'top' / f'{name}.tfw').write_text('0.09\n0\n0\n-0.09\n496000\n5420000\n')
        write_tif(main / 'dsm' / f'dsm_09cm_matching_area{tile}.tif', np.zeros((1, 4, 4), np.float32))
        if 'full' in kinds:
            write_labels(complete['full'] / f'{name}.tif', labels)
        if 'eroded' in kinds:
            write_labels(complete['eroded'] / f'{name}_noBoundary.tif', erode(labels))
        if tile in participants:
            write_labels(main / 'gts_for_participants' / f'{name}.tif', labels)
    if zipped:
        for path in [main, *complete.values()]:
            if path.is_dir():
                # As distributed: nothing above top/, gts_for_participants/ and the labels.
                zip_folder(path, path.with_suffix('.zip'), keep_top=False)
                _remove(path)
    return folder


_COMPLETE = {'full': '', 'eroded': 'eroded_'}


def _remove(folder: Path) -> None:
    for path in sorted(folder.rglob('*'), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()
