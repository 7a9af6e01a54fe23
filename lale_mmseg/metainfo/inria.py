"""Inria Aerial Image Labeling: classes, cities, tiles, and the two protocols that score its buildings.

Orthophotos of 30 cm with building labels (Maggiori et al., Can semantic labeling methods generalize to any city?,
IGARSS 2017): 36 tiles of 5000x5000 pixels of each of five cities with labels, and as many of five other cities whose
labels are not published.
"""

from __future__ import annotations

import re
from dataclasses import replace

from .palette import Palette
from .protocol import Protocol, Split

#: Cities with published labels.
CITIES = ('austin', 'chicago', 'kitsap', 'tyrol-w', 'vienna')
#: Test cities, whose labels only the benchmark's server has.
HIDDEN_CITIES = ('bellingham', 'bloomington', 'innsbruck', 'sfo', 'tyrol-e')
TILES_PER_CITY = 36
#: In index order.
CLASSES = ('background', 'building')
#: RGB of each class in pictures. Light grey keeps the ground readable under an overlay, which black would darken; blue
#: differs from red tiles, grey sheet metal and trees.
COLORS = ((200, 200, 200), (20, 80, 255))
#: Values of the classes in the published labels, in index order.
LABEL_VALUES = (0, 255)
#: How masks store the classes; every other value is an error.
PALETTE = Palette(CLASSES, COLORS, values=LABEL_VALUES, rgb=False)
#: Side of every tile, in pixels.
TILE_SIZE = 5000

#: Name of the dataset in `splits` of a protocol.
DATASET = 'inria'
#: Pattern of a file's stem: `austin12`, or `austin12_0_512_512_1024` of a window of it (x0, y0, x1, y1).
TILE_PATTERN = (
    rf'(?P<tile>(?P<city>{"|".join(CITIES + HIDDEN_CITIES)})(?:[1-9]|[12][0-9]|3[0-6]))'
    r'(?:_.*)?$'  # the name ends, or goes on with `_`: austin1 is neither austin12 nor austin1b
)
_STEM = re.compile(TILE_PATTERN)


def tiles_of(city: str) -> tuple[str, ...]:
    """The 36 tiles of a city by number, such as 'austin1'."""
    return tuple(f'{city}{number}' for number in range(1, TILES_PER_CITY + 1))


#: All tiles with labels, by city and number.
TILES = tuple(tile for city in CITIES for tile in tiles_of(city))
#: All tiles without labels.
HIDDEN_TILES = tuple(tile for city in HIDDEN_CITIES for tile in tiles_of(city))


def tile_of(stem: str) -> str | None:
    """Tile of a file from its stem, such as `austin12_0_512_512_1024`; None if it names no tile."""
    match = _STEM.match(stem)
    return None if match is None else match['tile']


def city_of(tile: str) -> str:
    """City of a tile.

    Raises:
        KeyError: Not the name of a tile.
    """
    match = _STEM.match(tile)
    if match is None or match['tile'] != tile:
        raise KeyError(tile)
    return match['city']


def _numbered(city: str, *numbers: int) -> tuple[str, ...]:
    return tuple(f'{city}{number}' for number in numbers)


_FULL_VAL = tuple(tile for city in CITIES for tile in _numbered(city, 1, 2, 3, 4, 5))
_FULL = {DATASET: Split(tuple(tile for tile in TILES if tile not in _FULL_VAL), _FULL_VAL, ())}

_FEW_VAL = _numbered('austin', 1, 6, 11, 16, 21, 26)
_FEW_TEST = _numbered('austin', 31, 32, 33, 34, 35, 36)
_FEW = {
    DATASET: Split(tuple(tile for tile in tiles_of('austin') if tile not in _FEW_VAL + _FEW_TEST), _FEW_VAL, _FEW_TEST)
}

_PROTOCOL = Protocol(
    name='full',
    letter='E',
    title='Inria Aerial Image Labeling',
    splits=_FULL,
    clean_splits=_FULL,
    train_labels='full',
    test_labels='full',
    classes=CLASSES,
    averaged=('building',),
    left_out_labels=(),
    left_out_predictions=(),
    summary='tiles 1 to 5 of each of five cities are validation, the other 155 training; the labels of the test, five '
    'other cities, are not published; mIoU and mF1 are those of building, OA is the share of correct pixels',
)
PROTOCOLS = (
    _PROTOCOL,
    replace(
        _PROTOCOL,
        name='few-shot',
        letter='F',
        title='few-shot roofs',
        splits=_FEW,
        clean_splits=_FEW,
        held_out=('test',),
        summary='one crop of 1024x1024 of each tile of Austin: 24 to train, 6 to validate, 6 to test, read once '
        'after all tuning; mIoU and mF1 are those of building, OA is the share of correct pixels',
    ),
)
