"""The embedded engine: Qdrant's own, in this process, with collections as directories."""

from search.engines.embedded.engine import Embedded

__all__ = ["Embedded"]
