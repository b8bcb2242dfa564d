"""Raw features -> a feature store: one row and one chroma sequence per performance."""
