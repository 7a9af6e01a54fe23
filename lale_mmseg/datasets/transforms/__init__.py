"""Transforms that mmsegmentation lacks."""

from .augment import SeededAlbu
from .draws import SeedDraw
from .edges import LaplacianEdges, label_edges
from .loading import LoadBands, LoadBinaryLabels, LoadLabels, LoadPaletteMask

__all__ = [
    'LaplacianEdges',
    'LoadBands',
    'LoadBinaryLabels',
    'LoadLabels',
    'LoadPaletteMask',
    'SeedDraw',
    'SeededAlbu',
    'label_edges',
]
