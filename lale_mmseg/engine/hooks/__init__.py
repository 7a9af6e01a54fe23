"""Hooks that mmengine and mmsegmentation lack."""

from .buffers import BroadcastBuffersHook
from .checkpoint_data import PlainCheckpointHook
from .diagnostics import EpochDiagnosticsHook
from .early_stopping import LALEEarlyStopping
from .epoch_seed import EpochSeedHook
from .freeze import FreezeBackboneHook
from .report import ReportHook
from .resumed_validation import ResumedValidationHook

__all__ = [
    'BroadcastBuffersHook',
    'EpochDiagnosticsHook',
    'EpochSeedHook',
    'FreezeBackboneHook',
    'LALEEarlyStopping',
    'PlainCheckpointHook',
    'ReportHook',
    'ResumedValidationHook',
]
