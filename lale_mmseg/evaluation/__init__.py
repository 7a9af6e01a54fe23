"""Scores of semantic segmentation, and the pictures of an evaluation."""

from .confusion import ClassScores, class_scores, confusion_matrix, summary
from .loss_metric import LogitsLossMetric
from .report import EvaluationReport
from .segmentation_metric import SegmentationMetric
from .tile_metric import TileSegmentationMetric
from .tile_report import TileReport

__all__ = [
    'ClassScores',
    'EvaluationReport',
    'LogitsLossMetric',
    'SegmentationMetric',
    'TileReport',
    'TileSegmentationMetric',
    'class_scores',
    'confusion_matrix',
    'summary',
]
