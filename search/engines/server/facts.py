"""What a collection on a server says about itself, in its metadata."""

import json
from dataclasses import asdict, dataclass
from typing import Any, Self

from search.points import Description


@dataclass(frozen=True)
class Facts:
    """The facts of a collection.

    `mean_background` is the mean over all its sequences, `built` the number of performances that it
    was built with, and `changed` the number that were written or deleted since.
    """

    description: Description
    mean_background: float
    built: int = 0
    changed: int = 0

    @classmethod
    def from_metadata(cls, metadata: dict[str, Any]) -> Self:
        """Read metadata; raise a KeyError, TypeError or ValueError if they are not understood."""
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
