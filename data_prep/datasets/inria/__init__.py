"""Inria Aerial Image Labeling."""
