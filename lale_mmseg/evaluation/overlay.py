"""Overlays of classes on images, drawn with OpenCV and Pillow in milliseconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

__all__ = ['overlay', 'panel', 'to_display']

#: Range of the longer side of a picture in a panel, in pixels; images are scaled to fit.
MAX_SIDE = 1024
MIN_SIDE = 256
#: With more classes than this, the legend names only those in the picture.
MAX_LEGEND = 24

_GAP = 12
_BACKGROUND = (255, 255, 255)
_INK = (32, 32, 32)
_FRAME = (150, 150, 150)

Palette = Sequence[Sequence[int]]


def to_display(image: np.ndarray, bgr: bool = False) -> np.ndarray:
    """Converts an image of any type and number of bands to an RGB picture.

    Args:
        image: (H, W) or (H, W, bands). 8-bit RGB and grey images stay as they are. Of any other image the first three
            bands (the first alone if there are one or two) are stretched, each from its 2nd to its 98th percentile;
            NaN and infinity become black.
        bgr: Whether images of three bands are in BGR order, as mmsegmentation loads them.

    Returns:
        (H, W, 3) uint8 array, RGB.
    """
    if image.ndim == 2:
        image = image[..., None]
    bands = image.shape[2]
    if bgr and bands == 3:
        image = image[..., ::-1]
    if image.dtype != np.uint8 or bands not in (1, 3):
        kept = 3 if bands >= 3 else 1
        image = np.stack([_stretch(image[..., band]) for band in range(kept)], axis=-1)
    return np.ascontiguousarray(np.broadcast_to(image, (*image.shape[:2], 3)))


def overlay(image: np.ndarray, labels: np.ndarray, palette: Palette, alpha: float = 0.5) -> np.ndarray:
    """Paints classes over an image.

    Args:
        image: (H, W, 3) uint8 array, RGB.
        labels: (H, W) class indexes; pixels with any other value stay unpainted.
        palette: (r, g, b) of each class.
        alpha: Weight of the class colour, 0 (image alone) to 1 (colour alone).

    Returns:
        (H, W, 3) uint8 array, RGB.
    """
    colors = np.asarray(palette, np.uint8).reshape(-1, 3)
    table = np.zeros((len(colors) + 1, 3), np.uint8)
    table[:-1] = colors
    painted = (labels >= 0) & (labels < len(colors))
    color = table.take(np.where(painted, labels, len(colors)), axis=0)
    mixed = cv2.addWeighted(color, alpha, image, 1 - alpha, 0)
    return cv2.copyTo(mixed, painted.view(np.uint8), image.copy())


def panel(
    name: str,
    image: np.ndarray,
    maps: Mapping[str, np.ndarray],
    classes: Sequence[str],
    palette: Palette,
    alpha: float = 0.5,
) -> np.ndarray:
    """Draws an image and overlays of its class maps side by side, with titles and a legend of class colours below.

    Args:
        name: Name of the image.
        image: (H, W) or (H, W, bands); see `to_display`.
        maps: (H, W) class indexes by title, such as 'Ground truth' and 'Prediction'.
        classes: Name of each class.
        palette: (r, g, b) of each class.
        alpha: See `overlay`.

    Returns:
        (height, width, 3) uint8 array, RGB.
    """
    shown, resized = _fit(to_display(image), *maps.values())
    titles = ['Image', *maps]
    pictures = [shown, *(overlay(shown, labels, palette, alpha) for labels in resized)]

    font = _font(15)
    cell_height, width = shown.shape[:2]
    cell_width = max(width, *(int(font.getlength(title)) + 2 for title in titles))
    total_width = _GAP + len(pictures) * (cell_width + _GAP)
    top = 58
    entries = _legend_entries(resized, classes, palette)
    places, legend_height = _place_legend([name for name, _ in entries], total_width)
    legend_top = top + cell_height + _GAP

    canvas = Image.new('RGB', (total_width, legend_top + legend_height), _BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    draw.text((_GAP, top - 33), _shortened(name, font, total_width - 2 * _GAP), _INK, font, anchor='ls')
    for position, (title, picture) in enumerate(zip(titles, pictures, strict=True)):
        left = _GAP + position * (cell_width + _GAP)
        draw.text((left, top - 7), title, _INK, font, anchor='ls')
        canvas.paste(Image.fromarray(picture), (left, top))
    for (name, color), (x, y) in zip(entries, places, strict=True):
        draw.rectangle((x, legend_top + y, x + 15, legend_top + y + 15), color, _FRAME)
        draw.text((x + 22, legend_top + y + 13), name, _INK, _font(14), anchor='ls')
    return np.asarray(canvas).copy()


def _shortened(name: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """The end of a name that fits; the ends of file names tell them apart."""
    while len(name) > 1 and font.getlength(name) > width:
        name = '…' + name[2:]
    return name


def _stretch(band: np.ndarray) -> np.ndarray:
    """Stretches a band linearly to 8 bits, from its 2nd to its 98th percentile."""
    band = band.astype(np.float32)
    finite = np.isfinite(band)
    # Every 7th value is enough for two percentiles and saves sorting time; a prime step follows no pattern.
    values = band[finite]
    values = values[::7] if values.size > 1 << 18 else values
    low, high = np.percentile(values, (2, 98)) if values.size else (0.0, 0.0)
    if high <= low:
        return np.where(finite & (band > low), 255, 0).astype(np.uint8)
    scaled = np.where(finite, (band - low) * (255 / (high - low)), 0)
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


def _fit(image: np.ndarray, *labels: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """Scales a picture and its labels so that the longer side is from MIN_SIDE to MAX_SIDE."""
    height, width = image.shape[:2]
    longer = max(height, width)
    if MIN_SIDE <= longer <= MAX_SIDE:
        return image, list(labels)
    if longer > MAX_SIDE:
        size = (max(1, round(width * MAX_SIDE / longer)), max(1, round(height * MAX_SIDE / longer)))
        interpolation = cv2.INTER_AREA
    else:
        # Integer factors and nearest neighbour keep the pixels of small images visible.
        factor = -(-MIN_SIDE // longer)
        size = (width * factor, height * factor)
        interpolation = cv2.INTER_NEAREST
    narrow = (label if label.dtype == np.uint8 else label.astype(np.int16) for label in labels)
    resized = [cv2.resize(label, size, interpolation=cv2.INTER_NEAREST) for label in narrow]
    return cv2.resize(image, size, interpolation=interpolation), resized


def _legend_entries(
    shown: Sequence[np.ndarray], classes: Sequence[str], palette: Palette
) -> list[tuple[str, tuple[int, int, int]]]:
    wanted = set(range(len(classes)))
    if len(classes) > MAX_LEGEND:
        wanted &= {int(value) for labels in shown for value in np.unique(labels)}
    return [
        (name, (int(color[0]), int(color[1]), int(color[2])))
        for index, (name, color) in enumerate(zip(classes, palette, strict=True))
        if index in wanted
    ]


def _place_legend(names: Sequence[str], width: int) -> tuple[list[tuple[int, int]], int]:
    """Returns the top left corner of each entry, wrapped to `width`, and the height of the legend."""
    font = _font(14)
    places = []
    x, y = _GAP, 0
    for name in names:
        length = 22 + int(font.getlength(name)) + 18
        if x > _GAP and x + length - 18 > width - _GAP:
            x, y = _GAP, y + 24
        places.append((x, y))
        x += length
    return places, y + 16 + _GAP if places else 0


@lru_cache(maxsize=4)
def _font(size: int) -> ImageFont.FreeTypeFont:
    # matplotlib ships DejaVu Sans: the same on every machine, with letters of most scripts.
    from matplotlib import get_data_path

    return ImageFont.truetype(str(Path(get_data_path()) / 'fonts' / 'ttf' / 'DejaVuSans.ttf'), size)
