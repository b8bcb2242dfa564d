"""Pictures in the Prefect UI."""

import base64
from collections.abc import Iterable
from pathlib import Path

from prefect.artifacts import create_image_artifact


def show_figures(figures: Iterable[Path]) -> None:
    """Make an artifact that contains the picture for each file."""
    for figure in figures:
        picture = base64.b64encode(figure.read_bytes()).decode()
        create_image_artifact(
            f"data:image/png;base64,{picture}",
            key=figure.stem.replace("_", "-"),
            description=str(figure),
        )
