"""The configuration of a bundle for a model whose vectors were made elsewhere."""

import re
from dataclasses import dataclass

#: The encoder's name in a bundle whose vectors were made elsewhere.
IMPORTED = "imported"

#: Characters of a model's name that the id of its bundle shows, at most.
MAX_NAME_LENGTH = 40


@dataclass(frozen=True)
class ImportedConfig:
    """Which model made the vectors.

    A model without a name is known by its file, as two such files may be from two models.
    """

    model: str
    dimension: int  # components of a vector
    file: str | None = None  # the path of the file of vectors, if the model has no name

    def __post_init__(self) -> None:
        if not self.model or self.dimension < 1:
            raise ValueError(f"{self.model!r} with {self.dimension} components is not a model")

    @property
    def name(self) -> str:
        """The model's name, in letters, digits, - and _."""
        return re.sub(r"[^A-Za-z0-9_]+", "-", self.model).strip("-")[:MAX_NAME_LENGTH] or "model"
