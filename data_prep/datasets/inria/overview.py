"""One picture of all crops: their content, their split, and why each window was taken."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from data_prep.datasets.inria.crops import FEW_SHOT, split_of
from lale_mmseg.files import save_png

#: Side of a thumbnail, thumbnails in a row, and the space around them, in pixels.
SIDE, COLUMNS, GAP, TEXT = 320, 6, 14, 44
#: RGB of each split's frame, of the outline of buildings, and of text.
FRAMES = {'train': (70, 110, 190), 'val': (230, 140, 20), 'test': (40, 150, 80)}
_OUTLINE = (255, 40, 200)
_INK, _WARNING, _PAPER = (30, 30, 30), (200, 20, 20), (255, 255, 255)


def write_overview(out: Path, markers: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Draws all crops of a prepared folder, split by split.

    Args:
        out: The folder.
        markers: Markers of the tiles.
        path: PNG file to write.
    """
    order = {split: number for number, split in enumerate(FRAMES)}
    tiles = sorted(markers, key=lambda tile: order[split_of(FEW_SHOT, tile)])  # stable, so by number within a split
    rows: list[list[str]] = []
    for split in FRAMES:
        members = [tile for tile in tiles if split_of(FEW_SHOT, tile) == split]
        rows += [members[start : start + COLUMNS] for start in range(0, len(members), COLUMNS)]
    width = GAP + COLUMNS * (SIDE + GAP)
    canvas = Image.new('RGB', (width, 2 * GAP + 30 + len(rows) * (SIDE + TEXT + GAP)), _PAPER)
    draw = ImageDraw.Draw(canvas)
    draw.text((GAP, GAP), _title(markers), _INK, _font(20))
    for number, row in enumerate(rows):
        for column, tile in enumerate(row):
            left, top = GAP + column * (SIDE + GAP), 2 * GAP + 30 + number * (SIDE + TEXT + GAP)
            _draw_crop(canvas, draw, out, tile, markers[tile], left, top)
    save_png(path, np.asarray(canvas))


def _title(markers: Mapping[str, Mapping[str, Any]]) -> str:
    settings = next(iter(markers.values()))['settings']
    return (
        f'{len(markers)} crops of {settings["size"]}x{settings["size"]} pixels; outlines: buildings; centre windows '
        f'are moved where less than {100 * settings["min_share"]:g} % is building'
    )


def _draw_crop(
    canvas: Image.Image, draw: ImageDraw.ImageDraw, out: Path, tile: str, marker: Mapping[str, Any], left: int, top: int
) -> None:
    split = split_of(FEW_SHOT, tile)
    canvas.paste(Image.fromarray(thumbnail(out, tile)), (left, top))
    draw.rectangle((left - 3, top - 3, left + SIDE + 2, top + SIDE + 2), outline=FRAMES[split], width=3)
    draw.text((left, top + SIDE + 5), f'{tile}  {split}', FRAMES[split], _font(16))
    share = f'{100 * marker["share"]:.1f} % building'
    enough = marker['share'] >= marker['settings']['min_share']
    place = f'{share}, {marker["reason"]}, x {marker["x"]} y {marker["y"]}'
    draw.text((left, top + SIDE + 24), place, _INK if enough else _WARNING, _font(14))


def thumbnail(out: Path, tile: str) -> np.ndarray:
    """(SIDE, SIDE, 3) uint8 RGB picture of a crop with the outlines of its buildings."""
    image = np.asarray(Image.open(out / 'crops' / 'images' / f'{tile}.jpg').convert('RGB'))
    mask = np.asarray(Image.open(out / 'crops' / 'masks' / f'{tile}.png').convert('L'))
    # Outlined at twice the size, so that thin roofs and the gaps between them stay separate.
    roofs = cv2.resize(mask, (2 * SIDE, 2 * SIDE), interpolation=cv2.INTER_AREA) >= 128
    outlines, _ = cv2.findContours(roofs.view(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    large = cv2.resize(image, (2 * SIDE, 2 * SIDE), interpolation=cv2.INTER_AREA)
    cv2.drawContours(large, outlines, -1, _OUTLINE, 2)
    return cv2.resize(large, (SIDE, SIDE), interpolation=cv2.INTER_AREA)


@lru_cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    # matplotlib ships DejaVu Sans, so the picture is the same on every machine.
    from matplotlib import get_data_path

    return ImageFont.truetype(str(Path(get_data_path()) / 'fonts' / 'ttf' / 'DejaVuSans.ttf'), size)
