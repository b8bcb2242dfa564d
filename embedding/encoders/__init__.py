"""Encoders: what turns the features of a performance into its vector."""
