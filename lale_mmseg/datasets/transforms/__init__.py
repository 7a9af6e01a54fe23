"""Transforms that mmsegmentation lacks."""

from .augment import SeededAlbu
from .loading import LoadBands, LoadLabels, LoadPaletteMask

__all__ = ['LoadBands', 'LoadLabels', 'LoadPaletteMask', 'SeededAlbu']
