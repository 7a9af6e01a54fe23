"""Segmentors: what happens around backbone and heads, and how large images are tested."""

from .sliding import SlidingEncoderDecoder

__all__ = ['SlidingEncoderDecoder']
