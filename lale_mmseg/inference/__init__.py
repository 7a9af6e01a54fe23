"""Predicting images of any size with a trained network."""

from .predictor import Predictor

__all__ = ['Predictor']
