"""Hooks that mmengine and mmsegmentation lack."""

from .buffers import BroadcastBuffersHook
from .checkpoint_data import PlainCheckpointHook
from .report import ReportHook

__all__ = ['BroadcastBuffersHook', 'PlainCheckpointHook', 'ReportHook']
