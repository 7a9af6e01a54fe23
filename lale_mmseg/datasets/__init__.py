"""Datasets and their transforms; importing this package registers all of them."""

from . import transforms
from .aras400k import ARAS400kDataset
from .palette_dataset import PaletteDataset

__all__ = ['ARAS400kDataset', 'PaletteDataset', 'transforms']
