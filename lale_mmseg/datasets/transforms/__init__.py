"""Transforms that mmsegmentation does not have."""

from .augment import SeedDraw, SeededAlbu
from .edges import LabelEdges, label_edges
from .loading import LoadBands, LoadBinaryLabels, LoadLabels, LoadPaletteMask

__all__ = [
    'LabelEdges',
    'LoadBands',
    'LoadBinaryLabels',
    'LoadLabels',
    'LoadPaletteMask',
    'SeedDraw',
    'SeededAlbu',
    'label_edges',
]
