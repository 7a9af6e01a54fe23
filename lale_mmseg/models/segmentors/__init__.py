"""Segmentors from other libraries."""

from .smp import SMPEncoder, SMPHead, SMPSegmentor

__all__ = ['SMPEncoder', 'SMPHead', 'SMPSegmentor']
