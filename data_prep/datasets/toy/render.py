"""Satellite image of a generated scene: colour, texture, relief, atmosphere and sensor noise.

Colours of the classes overlap, drift within a scene and shift between scenes. Texture distinguishes the classes:
crowns with shadows (tree), dots on soil (shrub), even (grass), furrows (crop), blocks and streets (built-up), ridges
(barren), flat without relief (water).
"""

from __future__ import annotations

import cv2
import numpy as np

from data_prep.datasets.toy.layout import (
    BARREN,
    BUILT,
    CROP,
    GRASS,
    SHRUB,
    TREE,
    WATER,
    Layout,
    jittered_cells,
    rotated_grid,
    smooth_noise,
)

#: Ends of the colour range of each class, RGB reflectance stretched to 0..255.
TONES = {
    TREE: ((46, 64, 42), (98, 102, 60)),
    SHRUB: ((104, 100, 68), (150, 130, 98)),
    GRASS: ((92, 110, 62), (154, 144, 98)),
    BARREN: ((120, 106, 88), (184, 170, 146)),
    WATER: ((34, 52, 68), (92, 96, 78)),
}
#: Growing, ripe, harvested and ploughed fields.
CROP_TONES = ((66, 92, 46), (104, 120, 62), (150, 146, 84), (160, 142, 102), (122, 98, 74), (86, 76, 60))
ROOF_TONES = ((196, 190, 182), (156, 100, 80), (96, 94, 96), (140, 132, 124), (214, 206, 194))
YARD_TONES = ((104, 104, 78), (128, 116, 96), (84, 94, 62))
STREET_TONE = (112, 108, 106)


def render(rng: np.random.Generator, layout: Layout) -> np.ndarray:
    """Renders the image of a layout.

    Returns:
        (H, W, 3) uint8 array in RGB order.
    """
    labels, size = layout.labels, len(layout.labels)
    sun = rng.uniform(0, 2 * np.pi)
    image = np.zeros((size, size, 3), np.float32)
    draw = {TREE: _trees, SHRUB: _shrubs, GRASS: _grass, BARREN: _barren, WATER: _water}
    for label in np.unique(labels):
        if label == CROP:
            surface = _crops(rng, layout)
        elif label == BUILT:
            surface = _built_up(rng, layout, sun)
        else:
            surface = _tone(rng, size, TONES[int(label)]) * draw[int(label)](rng, size, sun)[..., None]
        # The brightness of each class varies from scene to scene.
        surface *= np.float32(np.exp(rng.normal(0, 0.12)))
        image[labels == label] = surface[labels == label]
    relief = _hillshade(layout.elevation, sun, strength=rng.uniform(2.0, 5.0))
    relief[labels == WATER] = 1
    image *= relief[..., None]
    # A drift of tone over all classes (soil, season), which carries no information about the class.
    image *= np.exp(0.14 * smooth_noise(rng, size, 70, octaves=2))[..., None]
    return _expose(rng, image)


def _tone(rng: np.random.Generator, size: int, ends: tuple[tuple[int, int, int], tuple[int, int, int]]) -> np.ndarray:
    """(H, W, 3) float32 tones between the two ends of a class's range, drifting over the scene."""
    position = rng.uniform(0.1, 0.9) + 0.25 * smooth_noise(rng, size, 48, octaves=2)
    position = np.clip(position, -0.15, 1.15)[..., None].astype(np.float32)
    low, high = (np.array(end, np.float32) for end in ends)
    return low + position * (high - low)


def _shade(height: np.ndarray, sun: float) -> np.ndarray:
    """Slope of a height field towards the sun."""
    down, right = np.gradient(height)
    return (np.cos(sun) * right + np.sin(sun) * down).astype(np.float32)


def _trees(rng: np.random.Generator, size: int, sun: float) -> np.ndarray:
    """Round crowns of 4 to 7 pixels, lit from one side, dark between."""
    u, v = rotated_grid(size, rng.uniform(0, np.pi))
    spacing = rng.uniform(4.5, 6.5)
    cells, distance = jittered_cells(rng, u / spacing, v / spacing, jitter=0.4)
    crown = np.clip(1.25 - 1.6 * distance, 0, 1).astype(np.float32)
    tone = rng.normal(1, 0.16, int(cells.max()) + 1).astype(np.float32)
    return (0.55 + 0.65 * crown * tone[cells]) * (1 + 0.9 * _shade(crown, sun))


def _shrubs(rng: np.random.Generator, size: int, sun: float) -> np.ndarray:
    """Separate dark dots of 3 to 4 pixels on lighter soil."""
    u, v = rotated_grid(size, rng.uniform(0, np.pi))
    spacing = rng.uniform(7.5, 10)
    cells, distance = jittered_cells(rng, u / spacing, v / spacing, jitter=0.35)
    radius = rng.uniform(0.2, 0.34, int(cells.max()) + 1).astype(np.float32)
    dot = np.clip((radius[cells] - distance) * 6, 0, 1)
    return 1.08 - 0.5 * dot + 0.05 * smooth_noise(rng, size, 4)


def _grass(rng: np.random.Generator, size: int, sun: float) -> np.ndarray:
    """Even, with soft, wide variations."""
    return 1 + 0.06 * smooth_noise(rng, size, 26, octaves=2)


def _barren(rng: np.random.Generator, size: int, sun: float) -> np.ndarray:
    """Sharp ridges with gullies between them, lit from one side."""
    crests = 1 - np.abs(smooth_noise(rng, size, 18, octaves=3))
    return np.clip(1 + 0.12 * crests + 0.55 * _shade(crests, sun), 0.3, 1.8)


def _water(rng: np.random.Generator, size: int, sun: float) -> np.ndarray:
    """Flat; faint wide streaks."""
    return 1 + 0.03 * smooth_noise(rng, size, 40)


def _crops(rng: np.random.Generator, layout: Layout) -> np.ndarray:
    """(H, W, 3): a tone, a furrow direction, spacing and depth for each parcel, and a dark edge between parcels."""
    parcels, size = layout.parcels, len(layout.parcels)
    count = int(parcels.max()) + 1
    tones = np.array(CROP_TONES, np.float32)[rng.integers(0, len(CROP_TONES), count)]
    tones *= np.exp(rng.normal(0, 0.1, (count, 3))).astype(np.float32)
    # Most furrows follow the long side of the parcels, so few directions meet in one scene.
    angle = (rng.uniform(0, np.pi) + rng.choice([0, np.pi / 2], count) + rng.normal(0, 0.12, count))[parcels]
    period = rng.uniform(4.5, 7.5, count)[parcels]
    depth = rng.uniform(0.14, 0.26, count)[parcels]
    rows, columns = np.mgrid[0:size, 0:size]
    across = np.cos(angle) * rows - np.sin(angle) * columns
    furrows = 1 + depth * np.sin(2 * np.pi * across / period + rng.uniform(0, 6.3, count)[parcels])
    edge = np.zeros((size, size), bool)
    edge[:, 1:] |= parcels[:, 1:] != parcels[:, :-1]
    edge[1:] |= parcels[1:] != parcels[:-1]
    furrows[edge] *= 0.75
    furrows += 0.05 * smooth_noise(rng, size, 12, octaves=2)
    return tones[parcels] * furrows[..., None].astype(np.float32)


def _built_up(rng: np.random.Generator, layout: Layout, sun: float) -> np.ndarray:
    """(H, W, 3): blocks of rectangular roofs with shadows in yards, streets between; each town has its direction."""
    size = len(layout.labels)
    surface = np.zeros((size, size, 3), np.float32)
    for town in np.unique(layout.towns):
        here = layout.towns == town
        surface[here] = _town(rng, size, sun)[here]
    surface[layout.roads] = STREET_TONE
    return surface


def _town(rng: np.random.Generator, size: int, sun: float) -> np.ndarray:
    """(H, W, 3) float32: a plain full of houses along a grid of streets, of which settlements are cut out."""
    u, v = rotated_grid(size, rng.uniform(0, np.pi))
    width, depth = rng.uniform(7, 11), rng.uniform(6, 9)
    column, row = np.floor(u / width).astype(int), np.floor(v / depth).astype(int)
    column, row = column - column.min(), row - row.min()
    house = row * (int(column.max()) + 1) + column
    count = int(house.max()) + 1
    along, across = u / width % 1, v / depth % 1
    side = rng.uniform(0.5, 0.8, (2, count)).astype(np.float32)
    inside = (np.abs(along - 0.5) * 2 < side[0][house]) & (np.abs(across - 0.5) * 2 < side[1][house])
    inside &= (rng.random(count) < 0.88)[house]
    yards = np.array(YARD_TONES, np.float32)[rng.integers(0, len(YARD_TONES), count)][house]
    surface = yards * np.exp(0.12 * smooth_noise(rng, size, 3))[..., None]
    shift = np.array([[1, 0, -1.7 * np.cos(sun)], [0, 1, -1.7 * np.sin(sun)]], np.float32)
    shadow = cv2.warpAffine(inside.astype(np.uint8), shift, (size, size), flags=cv2.INTER_NEAREST).astype(bool)
    surface[shadow] *= 0.5
    roofs = np.array(ROOF_TONES, np.float32)[rng.integers(0, len(ROOF_TONES), count)]
    roofs *= np.exp(rng.normal(0, 0.1, (count, 1))).astype(np.float32)
    surface[inside] = roofs[house][inside]
    every = int(rng.integers(3, 6))
    street = ((column % every == 0) & (along < 0.3)) | ((row % 2 == 0) & (across < 0.3))
    surface[street] = STREET_TONE
    return surface


def _hillshade(elevation: np.ndarray, sun: float, strength: float) -> np.ndarray:
    """(H, W) float32 brightness of the relief, about 1 on flat ground."""
    slope = _shade(cv2.GaussianBlur(elevation, (0, 0), 2), sun)
    return np.clip(1 + strength * slope, 0.55, 1.45)


def _expose(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Sun, haze, optics and sensor of one acquisition: (H, W, 3) float32 to uint8."""
    tint = np.exp(rng.normal(0, 0.07, 3)).astype(np.float32)
    image = image * tint * np.float32(np.exp(rng.normal(0, 0.14)))
    haze = np.float32(rng.uniform(0, 0.28))
    image = (1 - haze) * image + haze * np.array((150, 158, 168), np.float32)
    blurred = cv2.GaussianBlur(image, (0, 0), 0.6)
    noise = rng.normal(0, rng.uniform(2, 5), image.shape)
    return np.asarray(np.clip(np.rint(blurred + noise), 0, 255), np.uint8)
