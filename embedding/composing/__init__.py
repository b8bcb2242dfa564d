"""A generator of works and versions of them, as chroma sequences, to train encoders on."""

from embedding.composing.composing import compose, compose_work
from embedding.composing.config import ComposingConfig

__all__ = ["ComposingConfig", "compose", "compose_work"]
