"""The convolutional autoencoder of chroma sequences."""
