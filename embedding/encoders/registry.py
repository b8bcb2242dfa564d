"""All encoders that can be trained.

To add an encoder, write a subclass of `Encoder` in a module of its own (or in a folder, if
Lightning trains it), and add it here. Bundles, training, the comparison and the command line find
it by its name.
"""

from embedding.encoders.autoencoder.encoder import Autoencoder
from embedding.encoders.conv_autoencoder.encoder import ConvAutoencoder
from embedding.encoders.descriptors import Descriptors
from embedding.encoders.encoder import Encoder
from embedding.encoders.means import Means
from embedding.encoders.version.encoder import VersionEncoder

ENCODERS: dict[str, type[Encoder]] = {
    encoder.name: encoder
    for encoder in (Means, Autoencoder, ConvAutoencoder, Descriptors, VersionEncoder)
}
