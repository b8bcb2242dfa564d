"""Versions of one work: alignment, re-ranking and calibrated probabilities."""
