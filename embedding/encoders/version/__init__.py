"""The version encoder: motifs, a projection, and a network."""
