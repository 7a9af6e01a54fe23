"""ISPRS Potsdam and Vaihingen: classes, colours, tiles, and the published protocols of evaluation.

The two benchmarks of the ISPRS 2D semantic labelling contest: true orthophotos of 5 cm (Potsdam, 38 tiles) and 9 cm
(Vaihingen, 33 tiles), with labels in full and with their boundaries eroded ("noBoundary").
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from .palette import IGNORE_INDEX, Palette
from .protocol import Protocol, Split

#: In index order; clutter is background and everything else.
CLASSES = ('impervious_surface', 'building', 'low_vegetation', 'tree', 'car', 'clutter')
#: RGB of each class in the published labels, in class order.
COLORS = ((255, 255, 255), (0, 0, 255), (0, 255, 255), (0, 255, 0), (255, 255, 0), (255, 0, 0))
#: RGB of boundary pixels in the eroded labels; they are ignored.
BOUNDARY_COLOR = (0, 0, 0)
CLUTTER = 'clutter'

#: The published labels: boundary pixels, which only eroded labels have, are ignored.
_VALUES = range(len(CLASSES))
PALETTE = Palette(CLASSES, COLORS, (BOUNDARY_COLOR,), values=_VALUES, ignore_values=(IGNORE_INDEX,))
_FULL_PALETTE = Palette(CLASSES, COLORS, values=_VALUES)

#: Side of every Potsdam tile, in pixels; those of Vaihingen differ.
POTSDAM_TILE_SIZE = 6000


def _tiles(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_POTSDAM_24 = _tiles(
    '2_10 2_11 2_12 3_10 3_11 3_12 4_10 4_11 4_12 5_10 5_11 5_12 6_7 6_8 6_9 6_10 6_11 6_12 7_7 7_8 7_9 7_10 7_11 7_12'
)
_POTSDAM_14 = _tiles('2_13 2_14 3_13 3_14 4_13 4_14 4_15 5_13 5_14 5_15 6_13 6_14 6_15 7_13')
_VAIHINGEN_16 = _tiles('1 3 5 7 11 13 15 17 21 23 26 28 30 32 34 37')
_VAIHINGEN_17 = _tiles('2 4 6 8 10 12 14 16 20 22 24 27 29 31 33 35 38')
_VAIHINGEN_5 = _tiles('11 15 28 30 34')

#: All tiles with labels, by dataset.
TILES: dict[str, tuple[str, ...]] = {
    'potsdam': _POTSDAM_24 + _POTSDAM_14,
    'vaihingen': tuple(sorted(_VAIHINGEN_16 + _VAIHINGEN_17, key=int)),
}

_STEMS = {'potsdam': re.compile(r'\d+_\d+'), 'vaihingen': re.compile(r'area(\d+)')}


def palette_of(kind: str) -> Palette:
    """Palette of 'full' labels, or of 'eroded' ones, in which boundary pixels are ignored."""
    return _FULL_PALETTE if kind == 'full' else PALETTE


def tile_stem(dataset: str, tile: str) -> str:
    """Start of the names of a tile's prepared files: '2_10' of Potsdam, 'area1' of Vaihingen."""
    return f'area{tile}' if dataset == 'vaihingen' else tile


def tile_of(dataset: str, stem: str) -> str | None:
    """Tile of a prepared file from its stem, such as `2_10_0_0_512_512`; None if it names no tile."""
    match = re.match(rf'(?:{_STEMS[dataset].pattern})(?![0-9])', stem)
    if match is None:
        return None
    tile = match.group(1) if dataset == 'vaihingen' else match.group()
    return tile if tile in TILES[dataset] else None


def _without(tiles: tuple[str, ...], *left_out: str) -> tuple[str, ...]:
    return tuple(tile for tile in tiles if tile not in left_out)


def _clean(split: Split, tile: str) -> Split:
    """A split whose validation tile comes from its training tiles."""
    return Split(_without(split.train, tile), (tile,), split.test)


# 7_10 has known errors in its labels; GeoSeg does not use it.
_GEOSEG: Mapping[str, Split] = {
    'potsdam': Split(_without(_POTSDAM_24, '2_10', '7_10'), ('2_10',), _POTSDAM_14),
    'vaihingen': Split(_without(_VAIHINGEN_16, '30'), ('30',), _VAIHINGEN_17),
}
_MMSEG: Mapping[str, Split] = {
    'potsdam': Split(_POTSDAM_24, _POTSDAM_14, _POTSDAM_14),
    'vaihingen': Split(_VAIHINGEN_16, _VAIHINGEN_17, _VAIHINGEN_17),
}
_MMSEG_CLEAN = {name: _clean(_MMSEG[name], tile) for name, tile in (('potsdam', '2_10'), ('vaihingen', '30'))}
_BOUNDARY: Mapping[str, Split] = {
    'vaihingen': Split(_without(TILES['vaihingen'], *_VAIHINGEN_5), _VAIHINGEN_5, _VAIHINGEN_5)
}

_FIVE = CLASSES[:-1]

PROTOCOLS = (
    Protocol(
        name='geoseg',
        letter='A',
        title='GeoSeg, UNetFormer',
        splits=_GEOSEG,
        clean_splits=_GEOSEG,
        train_labels='full',
        test_labels='eroded',
        classes=CLASSES,
        averaged=_FIVE,
        left_out_labels=(),
        left_out_predictions=(),
        summary='trained on full labels, tested on eroded ones; six classes in one matrix, so clutter predicted as '
        'another class, or another class as clutter, is an error; mIoU and mF1 over five classes, OA over six',
    ),
    Protocol(
        name='mmseg',
        letter='B',
        title='mmsegmentation',
        splits=_MMSEG,
        clean_splits=_MMSEG_CLEAN,
        train_labels='eroded',
        test_labels='eroded',
        classes=CLASSES,
        averaged=CLASSES,
        left_out_labels=(),
        left_out_predictions=(),
        summary='trained and tested on eroded labels; clutter is a sixth class; mIoU, mF1 and OA over six classes',
    ),
    Protocol(
        name='rsp',
        letter='C',
        title='RSP, LeMeViT',
        splits=_MMSEG,
        clean_splits=_MMSEG_CLEAN,
        train_labels='full',
        test_labels='full',
        classes=_FIVE,
        averaged=_FIVE,
        left_out_labels=(CLUTTER,),
        left_out_predictions=(),
        summary='trained and tested on full labels; networks have five outputs, and pixels labelled clutter are '
        'ignored (clutter that a network of six outputs predicts elsewhere is an error); mIoU, mF1 and OA over '
        'five classes',
    ),
    Protocol(
        name='boundary',
        letter='D',
        title='light boundary network (UED, BES, SFM)',
        splits=_BOUNDARY,
        clean_splits={'vaihingen': _clean(_BOUNDARY['vaihingen'], '7')},
        train_labels='full',
        test_labels='full',
        classes=CLASSES,
        averaged=_FIVE,
        left_out_labels=(CLUTTER,),
        left_out_predictions=(CLUTTER,),
        summary='trained and tested on full labels; clutter is trained and not scored: pixels that are labelled or '
        'predicted clutter are left out; mIoU, mF1 and OA over five classes',
    ),
)
