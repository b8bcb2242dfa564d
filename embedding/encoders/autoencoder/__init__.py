"""The autoencoder of the feature means."""
