"""Decode heads, one per file."""

from .lale_head import LALEHead

__all__ = ['LALEHead']
