"""Land cover of a generated scene.

Elevation and moisture are smooth random fields. Lakes and rivers lie on low ground, forest on wet ground, bare land on
high and dry ground; parcels with straight borders lie on flat land, with settlements beside them. All lengths are in
pixels of 10 m, so a larger scene shows more land, not larger objects.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np

from lale_mmseg.metainfo import aras400k

TREE, SHRUB, GRASS, CROP, BUILT, BARREN, WATER = range(len(aras400k.CLASSES))


@dataclass
class Layout:
    """Land cover of a scene of H x W pixels.

    Attributes:
        labels: (H, W) uint8 class indexes of ARAS400k.
        elevation: (H, W) float32, with about zero mean and unit variance.
        parcels: (H, W) int64 number of the parcel of each pixel, from 0.
        towns: (H, W) int64 number of the settlement of each built-up pixel, from 0.
        roads: (H, W) bool, roads outside settlements.
    """

    labels: np.ndarray
    elevation: np.ndarray
    parcels: np.ndarray
    towns: np.ndarray
    roads: np.ndarray


def smooth_noise(rng: np.random.Generator, size: int, scale: float, octaves: int = 1) -> np.ndarray:
    """Smooth random field: cubic interpolation of random grids; each octave has half the spacing and amplitude.

    Args:
        rng: Source of randomness.
        size: Side of the field in pixels.
        scale: Distance of the grid points of the first octave, in pixels.
        octaves: Number of grids.

    Returns:
        (size, size) float32 array with zero mean and unit variance over many draws.
    """
    field = np.zeros((size, size), np.float32)
    power = 0.0
    for octave in range(octaves):
        step = max(scale / 2**octave, 1.0)
        side = int(np.ceil(size / step)) + 3
        grid = rng.standard_normal((side, side)).astype(np.float32)
        zoomed = cv2.resize(grid, None, fx=step, fy=step, interpolation=cv2.INTER_CUBIC)
        top, left = rng.integers(int(step), max(int(2 * step), int(step) + 1), 2)
        weight = 0.5**octave
        field += weight * zoomed[top : top + size, left : left + size]
        # Interpolation averages neighbouring grid points, which leaves about 0.6 of the variance.
        power += 0.6 * weight**2
    return field / np.float32(np.sqrt(power))


def rotated_grid(size: int, angle: float) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates (u, v) of each pixel along and across `angle` (radians), each (size, size) float32."""
    rows, columns = np.mgrid[0:size, 0:size].astype(np.float32)
    cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return cosine * columns + sine * rows, cosine * rows - sine * columns


def jittered_cells(
    rng: np.random.Generator, u: np.ndarray, v: np.ndarray, jitter: float = 0.35
) -> tuple[np.ndarray, np.ndarray]:
    """Voronoi cells of one random point in each unit square of the plane (u, v).

    Args:
        rng: Source of randomness.
        u: (H, W) coordinates, in units of the spacing of the points.
        v: (H, W) coordinates.
        jitter: Largest offset of a point from the middle of its square, up to 0.5.

    Returns:
        (H, W) int64 cell numbers and (H, W) float32 distances to the point of the cell.
    """
    column, row = np.floor(u).astype(np.int64), np.floor(v).astype(np.int64)
    column0, row0 = int(column.min()) - 1, int(row.min()) - 1
    columns, rows = int(column.max()) - column0 + 2, int(row.max()) - row0 + 2
    points = 0.5 + rng.uniform(-jitter, jitter, (rows, columns, 2)).astype(np.float32)
    best = np.full(u.shape, np.inf, np.float32)
    cells = np.zeros(u.shape, np.int64)
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            r, c = row + down - row0, column + right - column0
            point = points[r, c]
            distance = (column + right + point[..., 0] - u) ** 2 + (row + down + point[..., 1] - v) ** 2
            closer = distance < best
            best[closer] = distance[closer]
            cells[closer] = (r * columns + c)[closer]
    return cells, np.sqrt(best)


def make_layout(rng: np.random.Generator, size: int) -> Layout:
    """Draws the land cover of one scene of size x size pixels."""
    elevation = smooth_noise(rng, size, 110, octaves=4)
    moisture = smooth_noise(rng, size, 90, octaves=3) + np.float32(rng.normal(0, 0.5))
    river = _river(rng, elevation) if rng.random() < 0.5 else np.zeros((size, size), bool)
    # The ground falls towards a river.
    from_river = cv2.distanceTransform((~river).astype(np.uint8), cv2.DIST_L2, 5) if river.any() else None
    if from_river is not None:
        valley = np.exp(-((from_river / 30) ** 2))
        elevation = np.asarray(elevation - valley, np.float32)
        moisture = np.asarray(moisture + 0.6 * valley, np.float32)

    labels = _natural_cover(rng, elevation, moisture)
    parcels = _parcels(rng, size)
    _sow(rng, labels, parcels, elevation)
    lake_level = np.float32(rng.uniform(-1.9, -0.9))
    water = river | (cv2.GaussianBlur(elevation, (0, 0), 3) < lake_level)
    towns, roads = _settle(rng, water, elevation)
    labels[towns >= 0] = BUILT
    labels[water] = WATER
    labels[roads] = BUILT
    _absorb_specks(labels)
    return Layout(labels, elevation, parcels, np.maximum(towns, 0), roads)


def _absorb_specks(labels: np.ndarray, min_area: int = 60) -> None:
    """Assigns areas of fewer than `min_area` pixels to the class that surrounds them."""
    present = np.unique(labels)
    specks = np.zeros(labels.shape, bool)
    for label in present:
        _, areas, stats, _ = cv2.connectedComponentsWithStats((labels == label).astype(np.uint8), connectivity=4)
        small = stats[:, cv2.CC_STAT_AREA] < min_area
        small[0] = False
        specks |= small[areas]
    around = [cv2.blur(((labels == label) & ~specks).astype(np.float32), (15, 15)) for label in present]
    labels[specks] = present[np.argmax(around, 0)][specks]


def _natural_cover(rng: np.random.Generator, elevation: np.ndarray, moisture: np.ndarray) -> np.ndarray:
    """(H, W) uint8 labels: forest on wet, shrub on dry, bare land on high and dry ground, grass elsewhere."""
    size = len(elevation)
    patches = [1.1 * smooth_noise(rng, size, 56, octaves=2) for _ in range(4)]
    scores = {
        TREE: 0.8 * moisture + 0.1 * elevation + patches[0],
        SHRUB: -0.4 * moisture + patches[1] + 0.25,
        GRASS: 0.2 * moisture - 0.3 * elevation + patches[2] + 0.1,
        BARREN: -0.7 * moisture + 0.5 * elevation + patches[3] - 0.1,
    }
    blurred = [cv2.GaussianBlur(score, (0, 0), 3) for score in scores.values()]
    return np.array(list(scores), np.uint8)[np.argmax(blurred, 0)]


def _parcels(rng: np.random.Generator, size: int) -> np.ndarray:
    """(H, W) int64 numbers of parcels: stretched Voronoi cells, rows of them along one direction."""
    u, v = rotated_grid(size, rng.uniform(0, np.pi))
    length, width = rng.uniform(40, 64), rng.uniform(24, 38)
    cells, _ = jittered_cells(rng, u / length, v / width, jitter=0.22)
    return np.unique(cells, return_inverse=True)[1].reshape(cells.shape)


def _sow(rng: np.random.Generator, labels: np.ndarray, parcels: np.ndarray, elevation: np.ndarray) -> None:
    """Turns whole parcels on low, even ground into crop, and a few of them into grass (meadows)."""
    size = len(labels)
    suitable = 1.2 * smooth_noise(rng, size, 100) - 0.5 * np.abs(elevation)
    area = np.bincount(parcels.ravel())
    value = np.bincount(parcels.ravel(), suitable.ravel()) / area
    farmed = value > np.quantile(value, rng.uniform(0.45, 1.0))
    meadow = farmed & (rng.random(len(area)) < 0.12)
    labels[farmed[parcels]] = CROP
    labels[meadow[parcels]] = GRASS


def _river(rng: np.random.Generator, elevation: np.ndarray) -> np.ndarray:
    """(H, W) bool: a river from one edge to the other that turns towards lower ground at each step."""
    size = len(elevation)
    smooth = cv2.GaussianBlur(elevation, (0, 0), 6)
    start = np.array([rng.uniform(0.2, 0.8) * size, -8.0])
    step, course = 6.0, [start]
    heading = rng.uniform(-0.4, 0.4)
    turns = np.linspace(-0.5, 0.5, 7)
    while -16 <= course[-1][1] < size + 8 and -16 <= course[-1][0] < size + 16 and len(course) < size:
        angles = np.clip(heading + turns, -1.2, 1.2)
        ahead = course[-1] + 2.5 * step * np.stack([np.sin(angles), np.cos(angles)], 1)
        row, column = np.clip(ahead, 0, size - 1).astype(int).T
        cost = smooth[row, column] + 0.25 * turns**2 + rng.normal(0, 0.08, len(turns))
        heading = angles[int(np.argmin(cost))]
        course.append(course[-1] + step * np.array([np.sin(heading), np.cos(heading)]))
    points = np.array(course)[:, ::-1].astype(np.float32)
    canvas = np.zeros((size, size), np.uint8)
    width = int(rng.integers(9, 18))
    cv2.polylines(canvas, [np.round(points).astype(np.int32)], False, 1, width)
    # The river flows from west to east; rotate it by a random number of right angles.
    return np.rot90(canvas, int(rng.integers(4))).astype(bool).copy()


def _settle(rng: np.random.Generator, water: np.ndarray, elevation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Settlements on dry, even land, and roads between them.

    Returns:
        (H, W) int64 number of the settlement or -1, and (H, W) bool roads.
    """
    size = len(water)
    towns = np.full((size, size), -1, np.int64)
    roads = np.zeros((size, size), bool)
    land = cv2.distanceTransform(np.pad(~water, 1, constant_values=True).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
    expected = max(2.6 * (size / 256) ** 2, 0.8)
    rows, columns = np.mgrid[0:size, 0:size].astype(np.float32)
    centres: list[tuple[int, int]] = []
    for number in range(int(rng.poisson(expected))):
        candidates = rng.integers(0, size, (6, 2))
        score = np.minimum(land[candidates[:, 0], candidates[:, 1]], 20) / 10
        score -= np.abs(elevation[candidates[:, 0], candidates[:, 1]])
        row, column = (int(value) for value in candidates[int(np.argmax(score))])
        radius = min(rng.uniform(20, 46), size / 3)
        stretch = rng.uniform(0.7, 1.4)
        distance = np.hypot((rows - row) * stretch, columns - column) / radius
        towns[distance + 0.22 * smooth_noise(rng, size, 22, octaves=2) < 0.9] = number
        centres.append((column, row))
    towns[water] = -1
    for first, second in pairwise(centres):
        canvas = np.zeros((size, size), np.uint8)
        cv2.line(canvas, first, second, 1, int(rng.integers(4, 7)))
        road = canvas.astype(bool)
        # Roads may cross a river, but not run through a lake.
        if rng.random() < 0.6 and water[road].mean() < 0.2:
            roads |= road
    return towns, roads
