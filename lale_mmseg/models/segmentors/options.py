"""What `test_cfg` of `SlidingEncoderDecoder` may hold, checked."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from ...errors import ConfigError
from .views import VIEWS

MODES = ('whole', 'slide')


@dataclass(frozen=True)
class SlidingOptions:
    """How a segmentor is tested; the fields are the keys of `test_cfg`.

    Attributes:
        mode: 'whole' for images in one piece, 'slide' for overlapping windows.
        crop_size: (height, width) of the windows, in pixels; for 'slide', as the next three.
        stride: (rows, columns) from one window to the next, in pixels; at most `crop_size`.
        batch_size: Windows that go through the network at once.
        keep_logits: Whether results have `seg_logits`; without them no array of all pixels and classes is made.
        views: Symmetries of the image that are averaged, a name of `VIEWS`.
        scales: Factors of the image's sides that are averaged.
    """

    mode: str = 'whole'
    crop_size: tuple[int, int] | None = None
    stride: tuple[int, int] | None = None
    batch_size: int = 1
    keep_logits: bool = False
    views: str = 'none'
    scales: tuple[float, ...] = (1.0,)

    @property
    def augmented(self) -> bool:
        """Whether anything but the image itself is predicted; probabilities are averaged then, else logits."""
        return self.views != 'none' or self.scales != (1.0,)

    @classmethod
    def parse(cls, values: Mapping[str, Any] | None, field: str = 'model.test_cfg') -> SlidingOptions:
        """Reads and checks a `test_cfg`.

        Args:
            values: The `test_cfg`.
            field: Its name, for messages.

        Raises:
            ConfigError: A key is unknown, or a value cannot be used; names key, value and what would be right.
        """
        values = dict(values or {})
        check_names(values, field)
        found = cls(**values)
        _require(found.mode in MODES, field, 'mode', found.mode, f'one of {", ".join(MODES)} is due')
        _require(found.views in VIEWS, field, 'views', found.views, f'one of {", ".join(VIEWS)} is due')
        _require(_is_count(found.batch_size), field, 'batch_size', found.batch_size, 'a whole number from 1 is due')
        _require(isinstance(found.keep_logits, bool), field, 'keep_logits', found.keep_logits, 'True or False is due')
        scales = found.scales
        good = isinstance(scales, Sequence) and not isinstance(scales, str) and len(scales) > 0
        good = good and all(isinstance(scale, int | float) and 0 < scale < float('inf') for scale in scales)
        _require(good, field, 'scales', scales, 'one or more numbers above 0 are due, such as (0.75, 1.0, 1.25)')
        _require(len(set(scales)) == len(scales), field, 'scales', scales, 'each number once is due')
        pairs: dict[str, Any] = {}
        for name in ('crop_size', 'stride'):
            pair = getattr(found, name)
            if found.mode == 'slide' or pair is not None:
                good = isinstance(pair, Sequence) and len(pair) == 2 and all(_is_count(side) for side in pair)
                hint = '(height, width) in pixels is due' if name == 'crop_size' else '(rows, columns) in pixels is due'
                _require(good, field, name, pair, hint)
                pairs[name] = (int(pair[0]), int(pair[1]))
        if len(pairs) == 2:
            good = all(step <= side for step, side in zip(pairs['stride'], pairs['crop_size'], strict=True))
            hint = f'at most crop_size={pairs["crop_size"]} is due, or pixels between the windows are never predicted'
            _require(good, field, 'stride', pairs['stride'], hint)
        return cls(**{**values, **pairs, 'scales': tuple(float(scale) for scale in scales)})


def check_names(names: Iterable[str], field: str) -> None:
    """Raises ConfigError if a key is none of `SlidingOptions`."""
    known = [option.name for option in fields(SlidingOptions)]
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f'did you mean {near[0]!r}? ' if near else ''
            raise ConfigError(f'{field}: unknown field {name!r}; {hint}known are {", ".join(known)}')


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _require(good: bool, field: str, name: str, value: Any, hint: str) -> None:
    if not good:
        raise ConfigError(f'{field}.{name} is {value!r}: {hint}')
