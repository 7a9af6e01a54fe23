"""Scores of semantic segmentation, and the pictures of an evaluation."""

from .confusion import ClassScores, class_scores, confusion_matrix, summary
from .report import EvaluationReport
from .segmentation_metric import SegmentationMetric

__all__ = ['ClassScores', 'EvaluationReport', 'SegmentationMetric', 'class_scores', 'confusion_matrix', 'summary']
