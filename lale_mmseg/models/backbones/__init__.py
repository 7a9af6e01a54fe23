"""Backbones, one family per file."""

from .lale import LALE

__all__ = ['LALE']
