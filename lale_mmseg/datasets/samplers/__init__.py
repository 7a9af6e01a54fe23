"""Orders of samples that mmengine lacks."""

from .block_shuffle import BlockShuffleSampler, block_shuffle
from .replacement import Draw, ReplacementSampler

__all__ = ['BlockShuffleSampler', 'Draw', 'ReplacementSampler', 'block_shuffle']
