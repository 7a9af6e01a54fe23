"""Scores of semantic segmentation, and the reports and pictures of an evaluation."""

from .confusion import ClassScores, class_scores, confusion_matrix, summary
from .loss_metric import LogitsLossMetric
from .report import EvaluationReport
from .segmentation_metric import SegmentationMetric
from .tiles import TileScores

__all__ = [
    'ClassScores',
    'EvaluationReport',
    'LogitsLossMetric',
    'SegmentationMetric',
    'TileScores',
    'class_scores',
    'confusion_matrix',
    'summary',
]
