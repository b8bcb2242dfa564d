"""All encoders that can be trained.

To add an encoder, write a subclass of `Encoder` in a module of its own (or in a folder, if
Lightning trains it), and add a line to `ENCODERS`. Bundles, training, the comparison and the
command line find it by its name.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from embedding.encoders.encoder import Encoder

#: For each name, where the class is, and what it does in a few words.
ENCODERS = {
    "means": ("means.Means", "the baseline, standardised feature means"),
    "autoencoder": ("autoencoder.encoder.Autoencoder", "reconstructs feature means"),
    "conv-autoencoder": ("conv_autoencoder.encoder.ConvAutoencoder", "reconstructs chroma"),
    "descriptors": ("descriptors.Descriptors", "moments of chroma, without labels"),
    "version": ("version.encoder.VersionEncoder", "finds covers, learns from labelled works"),
}


def check_name(name: str) -> None:
    """Raise ValueError if there is no encoder of this name."""
    if name not in ENCODERS:
        raise ValueError(f"There is no encoder {name!r}: choose from {', '.join(ENCODERS)}.")


def encoder_class(name: str) -> type[Encoder]:
    """Import the class of an encoder. Only making a network imports torch."""
    module, _, class_name = ENCODERS[name][0].rpartition(".")
    found: type[Encoder] = getattr(import_module(f"embedding.encoders.{module}"), class_name)
    return found
