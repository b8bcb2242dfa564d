"""What a collection on a server says about itself, in its metadata."""

import json
from dataclasses import asdict, dataclass
from typing import Any, Self

from search.points import Description


@dataclass(frozen=True)
class Facts:
    """The facts of a collection.

    Attributes
    ----------
    description : Description
        The description of the collection.
    mean_background : float
        The mean over all sequences of the collection.
    built, changed : int
        Number of performances that the collection was built with, and number of those that were
        written or deleted since.
    """

    description: Description
    mean_background: float
    built: int = 0
    changed: int = 0

    @classmethod
    def from_metadata(cls, metadata: dict[str, Any]) -> Self:
        """Read the metadata of a collection.

        Raises
        ------
        KeyError, TypeError, ValueError
            If this version does not understand them.
        """
        exactly = json.loads(metadata["exactly"])
        return cls(
            Description.from_json(exactly["description"]),
            exactly["mean_background"],
            metadata.get("built", 0),
            metadata.get("changed", 0),
        )

    def as_metadata(self) -> dict[str, Any]:
        """Return the facts as metadata."""
        description = asdict(self.description)
        return {
            "covers": description,
            # Again as text, because a server's JSON may round the last digit of a number.
            "exactly": json.dumps(
                {"description": description, "mean_background": self.mean_background}
            ),
            "built": self.built,
            "changed": self.changed,
        }
