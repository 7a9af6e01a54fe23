"""Segmentors: what happens around backbone and heads, and how large images are tested."""

from .sliding import SlidingEncoderDecoder
from .smp_encoder import SMPEncoder
from .smp_segmentor import SMPSegmentor

__all__ = ['SMPEncoder', 'SMPSegmentor', 'SlidingEncoderDecoder']
