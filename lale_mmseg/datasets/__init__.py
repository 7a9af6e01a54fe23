"""Datasets, their samplers and transforms; importing this package registers all of them."""

from . import transforms
from .aras400k import ARAS400kDataset
from .inria import InriaDataset
from .isprs import ISPRSProtocolDataset
from .palette_dataset import PaletteDataset
from .samplers import BlockShuffleSampler, ReplacementSampler

__all__ = [
    'ARAS400kDataset',
    'BlockShuffleSampler',
    'ISPRSProtocolDataset',
    'InriaDataset',
    'PaletteDataset',
    'ReplacementSampler',
    'transforms',
]
