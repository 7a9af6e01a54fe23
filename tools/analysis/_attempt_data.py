"""What attempts were validated and tested on: whether their scores are of the same pixels, labels and classes."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from _runs import short

from lale_mmseg.errors import DataError

#: What the published attempts were validated, and tested, on.
_PUBLISHED_IMAGES, _PUBLISHED_SIDE = 6, 1024
#: Fields of metrics.json that say what was counted, and how messages call them.
_SCORING = {'score_classes': 'averaged classes', 'ignore_index': 'ignored label'}
_SHOWN = 3


@dataclass(frozen=True)
class SplitData:
    """What a validation or a test was of.

    Attributes:
        kind: Data set and protocol as metrics.json names them, or the type of the data set in the config.
        classes: Their names.
        num_images: Images.
        num_pixels: Pixels that were scored.
        tiles: (pixels labelled as the scored class, pixels) of each tile; empty where the metric keeps no tiles.
        scoring: What was counted and averaged, by the words of messages.
        published: Whether the data are those of the published few-shot protocol; None where they do not say.
        missing: Tiles of the split that were not there.
    """

    kind: dict[str, Any]
    classes: tuple[str, ...]
    num_images: int | None
    num_pixels: int | None
    tiles: dict[str, tuple[int, int]] = field(default_factory=dict)
    scoring: dict[str, Any] = field(default_factory=dict)
    published: bool | None = None
    missing: tuple[str, ...] = ()

    @property
    def score_name(self) -> str:
        """What mIoU of these data is: the IoU of one class, or the mean over some."""
        classes: list[str] = self.scoring.get('averaged classes') or []
        return f'IoU of {classes[0]}' if len(classes) == 1 else 'mIoU'


def read_split(folder: Path, config: Mapping[str, Any], phase: str) -> SplitData | None:
    """What the scores in `val/` or `test/` of a work dir are of; None where there are none.

    Raises:
        DataError: metrics.json or per_tile.csv cannot be read.
    """
    path = folder / 'metrics.json'
    if not path.is_file():
        return None
    dataset = (config.get(f'{phase}_dataloader') or {}).get('dataset') or {}
    while isinstance(dataset.get('dataset'), Mapping):
        dataset = dataset['dataset']
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
        source = content.get('source') or {}
        kind = {'data set': source.get('city') or dataset.get('type'), 'protocol': source.get('protocol')}
        return SplitData(
            kind,
            classes=tuple(content.get('classes') or ()),
            num_images=content.get('num_images'),
            num_pixels=content.get('num_pixels'),
            tiles=_tiles(folder),
            scoring={words: content[name] for name, words in _SCORING.items() if name in content},
            published=source.get('published'),
            missing=tuple(source.get('missing_tiles') or ()),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f'{path}: not the scores of a {phase} ({type(error).__name__}: {error})') from None


def _tiles(folder: Path) -> dict[str, tuple[int, int]]:
    path = folder / 'per_tile.csv'
    if not path.is_file():
        return {}
    try:
        with path.open(encoding='utf-8', newline='') as file:
            return {row['tile']: (int(row['label_pixels']), int(row['pixels'])) for row in csv.DictReader(file)}
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f'{path}: not the scores of tiles ({type(error).__name__}: {error})') from None


def data_lines(split: str, found: Mapping[str, SplitData | None]) -> list[str]:
    """Where the data of attempts differ, the most fundamental first; empty where they do not.

    Args:
        split: Such as 'validation'.
        found: By label; None where it is not known.
    """
    unknown = [label for label, data in found.items() if data is None]
    known = {label: data for label, data in found.items() if data is not None}
    lines = []
    if unknown and len(found) > 1:
        lines.append(f'{split} data are not known, as there is no metrics.json of them: {", ".join(unknown)}')
    for name in ('data set', 'protocol'):
        lines += _unequal(f'{split} data differ: {name}', {label: data.kind[name] for label, data in known.items()})
    lines += _unequal(
        f'{split} data differ: classes', {label: ', '.join(data.classes) for label, data in known.items()}
    )
    named = {label: data for label, data in known.items() if data.tiles}
    names = {label: ' '.join(sorted(data.tiles)) for label, data in named.items()}
    other_images = _unequal(f'{split} data differ: images', {label: short(text) for label, text in names.items()})
    if not other_images and len({*names.values()}) > 1:
        other_images = [f'{split} data differ: images']
    lines += other_images
    for what in ('num_images', 'num_pixels'):
        lines += _unequal(f'{split} data differ: {what}', {label: getattr(data, what) for label, data in known.items()})
    for what in _SCORING.values():
        lines += _unequal(
            f'{split} scores differ: {what}', {label: _text(data.scoring.get(what)) for label, data in known.items()}
        )
    return lines + _other_labels(split, named)


def shared_images(one: SplitData | None, other: SplitData | None) -> list[str]:
    """Images of two splits that have one name, and as many pixels of the scored class in their labels."""
    if one is None or other is None:
        return []
    return [name for name, counts in one.tiles.items() if counts[0] and other.tiles.get(name) == counts]


def _other_labels(split: str, named: Mapping[str, SplitData]) -> list[str]:
    """Tiles of one name that have other labels, the first few."""
    lines = []
    for tile in dict.fromkeys(tile for data in named.values() for tile in data.tiles):
        counts = {label: data.tiles[tile] for label, data in named.items() if tile in data.tiles}
        if len({*counts.values()}) > 1:
            shown = {label: f'{building} of {pixels} pixels' for label, (building, pixels) in counts.items()}
            lines += _unequal(f'{split} data differ: building in the labels of {tile}', shown)
    rest = len(lines) - _SHOWN
    return [*lines[:_SHOWN], f'{split} data differ: labels of {rest} more tiles'] if rest > 0 else lines


def _unequal(what: str, values: Mapping[str, Any]) -> list[str]:
    by_value: dict[str, list[str]] = {}
    for label, value in values.items():
        by_value.setdefault('unknown' if value is None else str(value), []).append(label)
    if len(by_value) < 2:
        return []
    return [f'{what}: ' + '; '.join(f'{value} ({", ".join(labels)})' for value, labels in by_value.items())]


def _text(value: Any) -> Any:
    return ', '.join(map(str, value)) if isinstance(value, list) else value


def published_fault(data: SplitData | None, split: str) -> str | None:
    """Why the published figures do not belong beside scores of these data, None if they do.

    Args:
        data: What was scored.
        split: 'val' or 'test'.
    """
    count, side = _PUBLISHED_IMAGES, _PUBLISHED_SIDE
    due = f'{count} crops of {side}x{side} pixels of inria under the protocol few-shot'
    done = 'validated' if split == 'val' else 'tested'
    if data is None:
        return f'has no {split}/metrics.json that says what it was {done} on; {due} are due'
    if (data.kind['data set'], data.kind['protocol']) != ('inria', 'few-shot'):
        return f'was {done} on {data.kind["data set"]}, protocol {data.kind["protocol"] or "none"}; {due} are due'
    if (data.num_images, data.num_pixels) != (count, count * side**2):
        return f'was {done} on {data.num_images} images of {data.num_pixels} pixels in all; {due} are due'
    if any(size != side**2 for _, size in data.tiles.values()):
        return f'was {done} on images of other sizes; {due} are due'
    if data.published is False:
        return f'was {done} on crops that were prepared otherwise than the published ones (manifest.json says how)'
    return None
