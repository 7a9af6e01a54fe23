"""Transforms that mmsegmentation lacks."""

from .augment import SeededAlbu
from .loading import LoadBands, LoadPaletteMask

__all__ = ['LoadBands', 'LoadPaletteMask', 'SeededAlbu']
