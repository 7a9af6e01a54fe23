"""How a segmentor predicts: the keys of `model.test_cfg`, checked, and test-time augmentation switched on."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from mmengine.config import Config, ConfigDict

from ..errors import ConfigError
from .views import VIEWS

MODES = ('whole', 'slide')
BLENDS = ('mean', 'hann')
#: Keys of `test_cfg` that mmsegmentation's PointHead reads itself.
_POINT_HEAD_KEYS = ('subdivision_steps', 'subdivision_num_points', 'scale_factor')


@dataclass(frozen=True)
class TestOptions:
    """How a segmentor predicts; the fields are the keys of `model.test_cfg`.

    Attributes:
        mode: 'whole' predicts an image in one piece if it has at most `max_pixels`, 'slide' in overlapping windows.
        crop_size: (height, width) of the windows, in pixels.
        stride: (rows, columns) from one window to the next, in pixels; at most `crop_size`. Default: seven eighths of
            `crop_size`.
        batch_size: Number of windows that pass through the network together.
        keep_logits: Whether results have `seg_logits`. Without them no array of all pixels and classes is allocated.
        views: Symmetries of the image to average over, a key of `VIEWS`.
        scales: Factors by which windows are resized, averaged over.
        max_pixels: In 'whole' mode, larger images are predicted in windows.
        blend: How overlapping windows are averaged: 'mean' weights all pixels equally, 'hann' lowers the weight towards
            the borders of a window.
    """

    __test__ = False  # for pytest, which collects classes named Test*

    mode: str = 'whole'
    crop_size: tuple[int, int] = (1024, 1024)
    stride: tuple[int, int] | None = None
    batch_size: int = 1
    keep_logits: bool = False
    views: str = 'none'
    scales: tuple[float, ...] = (1.0,)
    max_pixels: int = 4_000_000
    blend: str = 'mean'

    @property
    def augmented(self) -> bool:
        """Whether several views or scales are predicted; then probabilities are averaged, otherwise logits."""
        return self.views != 'none' or self.scales != (1.0,)

    @property
    def steps(self) -> tuple[int, int]:
        """`stride`, or its default."""
        return self.stride or (max(1, self.crop_size[0] * 7 // 8), max(1, self.crop_size[1] * 7 // 8))

    @classmethod
    def parse(cls, values: Mapping[str, Any] | None, field: str = 'model.test_cfg') -> TestOptions:
        """Checks a `test_cfg`.

        Args:
            values: The `test_cfg`.
            field: Its name in error messages.

        Raises:
            ConfigError: A key is unknown or a value cannot be used; names the key, the value and what was expected.
        """
        values = {name: value for name, value in (values or {}).items() if name not in _POINT_HEAD_KEYS}
        known = [option.name for option in fields(cls)]
        for name in values:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f'did you mean {near[0]!r}? ' if near else ''
                raise ConfigError(f'{field}: unknown key {name!r}; {hint}known keys: {", ".join(known)}')
        options = cls(**values)
        for name, expected in options._violations():
            raise ConfigError(f'{field}.{name} is {getattr(options, name)!r}; expected {expected}')
        # Configs and checkpoints may hold lists.
        pairs = {name: tuple(values[name]) for name in ('crop_size', 'stride') if values.get(name) is not None}
        return cls(**{**values, **pairs, 'scales': tuple(float(scale) for scale in options.scales)})

    def _violations(self) -> list[tuple[str, str]]:
        """(field, what was expected) of every value that cannot be used."""
        stride_fits = self.stride is None or (
            _is_pair(self.stride)
            and _is_pair(self.crop_size)
            and all(step <= side for step, side in zip(self.stride, self.crop_size, strict=True))
        )
        scales_fit = (
            isinstance(self.scales, Sequence)
            and all(isinstance(scale, int | float) and 0 < scale < float('inf') for scale in self.scales)
            and len(set(self.scales)) == len(self.scales) > 0
        )
        rules = [
            ('mode', self.mode in MODES, f'one of {", ".join(MODES)}'),
            ('crop_size', _is_pair(self.crop_size), '(height, width) in pixels'),
            ('stride', stride_fits, f'(rows, columns) in pixels, at most crop_size={self.crop_size}'),
            ('batch_size', _is_count(self.batch_size), 'an integer of at least 1'),
            ('keep_logits', isinstance(self.keep_logits, bool), 'True or False'),
            ('views', self.views in VIEWS, f'one of {", ".join(VIEWS)}'),
            ('scales', scales_fit, 'different numbers above 0, such as (0.75, 1.0, 1.25)'),
            ('max_pixels', _is_count(self.max_pixels), 'an integer of at least 1'),
            ('blend', self.blend in BLENDS, f'one of {", ".join(BLENDS)}'),
        ]
        return [(name, expected) for name, fits, expected in rules if not fits]


def apply_tta(cfg: Config) -> None:
    """Switches on test-time augmentation: merges `tta_cfg` into `model.test_cfg`, in place.

    Without `tta_cfg.views` the predictions of all eight symmetries of the square are averaged.

    Raises:
        ConfigError: `tta_cfg` has an unknown key or an unusable value.
    """
    tta_cfg = {'views': 'd4', **(cfg.get('tta_cfg') or {})}
    TestOptions.parse(tta_cfg, 'tta_cfg')
    cfg.model.test_cfg = ConfigDict({**(cfg.model.get('test_cfg') or {}), **tta_cfg})


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_pair(value: Any) -> bool:
    return isinstance(value, Sequence) and len(value) == 2 and all(_is_count(side) for side in value)
