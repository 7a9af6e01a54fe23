"""Segmentors from other libraries."""

from .smp_encoder import SMPEncoder
from .smp_segmentor import SMPSegmentor

__all__ = ['SMPEncoder', 'SMPSegmentor']
