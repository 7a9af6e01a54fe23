"""Transforms that mmsegmentation lacks."""

from .augment import SeededAlbu
from .edges import LaplacianEdges, label_edges
from .loading import LoadBands, LoadLabels, LoadPaletteMask

__all__ = ['LaplacianEdges', 'LoadBands', 'LoadLabels', 'LoadPaletteMask', 'SeededAlbu', 'label_edges']
