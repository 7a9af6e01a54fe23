"""Which tiles the weights of a checkpoint have seen in training, over all runs that led to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.config import Config
from mmengine.logging import MMLogger

from .splits import scenes_of

#: Entry of a checkpoint's `meta`.
KEY = 'seen_tiles'
#: Names of tiles by city, or whatever a data set says its tiles are of.
SeenTiles = dict[str, list[str]]
#: Tiles that a message names.
_SHOWN = 8


def merged(*parts: Mapping[str, Any]) -> SeenTiles:
    """All tiles of the parts by city, each once, in order of their names."""
    tiles: dict[str, set[str]] = {}
    for part in parts:
        for city, names in part.items():
            tiles.setdefault(str(city), set()).update(str(name) for name in names)
    return {city: sorted(tiles[city]) for city in sorted(tiles)}


def tiles_of_dataset(dataset: Any) -> SeenTiles:
    """Tiles of a built dataset and of those inside wrappers; datasets that say nothing of tiles have none."""
    inner = [*getattr(dataset, 'datasets', ()), *([dataset.dataset] if hasattr(dataset, 'dataset') else ())]
    if inner:
        return merged(*map(tiles_of_dataset, inner))
    return _tiles_of_source((getattr(dataset, 'metainfo', None) or {}).get('source'))


def seen_by_checkpoint(checkpoint: Mapping[str, Any]) -> SeenTiles:
    """Tiles that a checkpoint says it has seen; older ones name those of their last training alone."""
    meta = checkpoint.get('meta') or {}
    found = meta.get(KEY)
    last = _tiles_of_source((meta.get('dataset_meta') or {}).get('source'))
    return merged(found if isinstance(found, Mapping) else {}, last)


def report_seen_tiles(seen: Mapping[str, Any], tested: Mapping[str, Any]) -> None:
    """Warns where a checkpoint was trained on tiles that are scored now.

    Args:
        seen: Tiles that it has seen, by city.
        tested: Tiles that are scored, by city.
    """
    count = sum(len(tiles) for tiles in tested.values())
    both = [tile for city, tiles in tested.items() for tile in tiles if tile in (seen.get(city) or ())]
    if both:
        MMLogger.get_current_instance().warning(
            f'{len(both)} of {count} tested tiles were training tiles of this checkpoint, or of one that it was '
            f'started from: {_named(both)}; its scores on them say nothing about other tiles'
        )


def report_seen_before_training(seen: Mapping[str, Any], cfg: Config) -> None:
    """Warns where training starts from weights that have seen tiles of val or test, by the splits of the config."""
    names = {f'{city}/{tile}' for city, tiles in seen.items() for tile in tiles}
    for phase in ('val', 'test'):
        both = sorted(names & scenes_of(cfg, phase)) if names else []
        if both:
            MMLogger.get_current_instance().warning(
                f'LEAKAGE: training starts from weights that were trained on {len(both)} tiles of {phase}_dataloader: '
                f'{_named(both)}; scores on them say nothing about other tiles. Start from weights that have not seen '
                'them, or evaluate on other tiles'
            )


def _tiles_of_source(source: Any) -> SeenTiles:
    if not isinstance(source, Mapping) or not source.get('tiles') or 'city' not in source:
        return {}
    return merged({source['city']: source['tiles']})


def _named(tiles: list[str]) -> str:
    return ', '.join(tiles[:_SHOWN]) + (' ...' if len(tiles) > _SHOWN else '')
