"""Measurements of encoders, and of what `search` responds with; calibration and promotion."""
