"""From images of any size to classes, with a trained network: in tools, in evaluation, in your own code."""

from .loops import PredictionTestLoop, PredictionValLoop
from .options import TestOptions, apply_tta
from .predictor import Predictor, to_tensor

__all__ = ['PredictionTestLoop', 'PredictionValLoop', 'Predictor', 'TestOptions', 'apply_tta', 'to_tensor']
