"""Hooks that mmengine and mmsegmentation lack."""

from .attempt import AttemptHook
from .buffers import BroadcastBuffersHook
from .checkpoint_data import PlainCheckpointHook
from .diagnostics import EpochDiagnosticsHook
from .early_stopping import LALEEarlyStopping
from .epoch_seed import EpochSeedHook
from .freeze import FreezeBackboneHook
from .report import ReportHook
from .resumed_validation import ResumedValidationHook
from .seen_tiles import SeenTilesHook

__all__ = [
    'AttemptHook',
    'BroadcastBuffersHook',
    'EpochDiagnosticsHook',
    'EpochSeedHook',
    'FreezeBackboneHook',
    'LALEEarlyStopping',
    'PlainCheckpointHook',
    'ReportHook',
    'ResumedValidationHook',
    'SeenTilesHook',
]
