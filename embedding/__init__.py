"""Files -> vectors: features, encoders, bundles and metrics; knows no Qdrant and no Prefect."""
