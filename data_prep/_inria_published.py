"""Whether prepared crops are those of the published few-shot protocol, and how they differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from data_prep._inria_crops import STEP
from data_prep._inria_layout import FEW_SHOT, split_of
from data_prep._names import some_of
from lale_mmseg.metainfo import inria

#: Settings of the published crops, by their name in the manifest, and how a message calls them.
SIZE, MIN_SHARE, QUALITY = 1024, 0.05, 90
_DUE = {
    'size': ('crops of', SIZE),
    'min_share': ('a share of building of', MIN_SHARE),
    'quality': ('JPEG quality', QUALITY),
    'step': ('windows in steps of', STEP),
}
_SPLITS = ('train', 'val', 'test')


def departures(parts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """In what crops are not the published ones; empty where they are.

    Args:
        parts: Entries of the manifest of crops, by tile; only finished tiles count.
    """
    made = {tile: entry['source'] for tile, entry in parts.items() if entry['complete']}
    found = []
    for name, (words, due) in _DUE.items():
        others = sorted({source[name] for source in made.values() if source.get(name, due) != due})
        if others:
            found.append(f'{words} {", ".join(f"{value:g}" for value in others)} ({due:g} is due)')
    whole = f'{inria.TILE_SIZE}x{inria.TILE_SIZE}'
    sizes = {'x'.join(map(str, parts[tile]['tile_size'])) for tile in made} - {whole}
    if sizes:
        found.append(f'tiles of {", ".join(sorted(sizes))} ({whole} is due)')
    by_hand = [tile for tile, source in made.items() if source.get('nudge') is not None]
    if by_hand:
        found.append(f'windows chosen by hand in {some_of(by_hand)}')
    lacking = [tile for tile in inria.tiles_of('austin') if tile not in made]
    if lacking:
        by_split = (f'{sum(split_of(FEW_SHOT, tile) == split for tile in lacking)} of {split}' for split in _SPLITS)
        words = ', '.join(words for words in by_split if not words.startswith('0 '))
        found.append(f'{len(lacking)} of {inria.TILES_PER_CITY} tiles are missing ({words})')
    return found


def unpublished(parts: Mapping[str, Mapping[str, Any]]) -> str | None:
    """The sentence that says so; None for the published crops."""
    found = departures(parts)
    return f'not the published few-shot protocol: {"; ".join(found)}' if found else None
