"""Segmentors: what happens around backbone and heads, and how large images are tested."""

from .sliding import SlidingEncoderDecoder
from .smp import SMPEncoder, SMPHead, SMPSegmentor

__all__ = ['SMPEncoder', 'SMPHead', 'SMPSegmentor', 'SlidingEncoderDecoder']
