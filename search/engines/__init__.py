"""Engines, which keep collections: one in this process, and one on a Qdrant server."""
