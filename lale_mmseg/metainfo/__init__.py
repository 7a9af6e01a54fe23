"""Classes, palettes, label values and splits of every dataset; imports neither torch nor mmseg."""

from .palette import IGNORE_INDEX, Palette

__all__ = ['IGNORE_INDEX', 'Palette']
