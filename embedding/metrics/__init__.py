"""Measures of an embedding, computed from vectors, distances and works."""
