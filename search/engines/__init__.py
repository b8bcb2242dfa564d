"""Engines: where collections are kept, and how they are built and asked."""
