"""Download the features of Da-TACOS that covers reads, and state their frame rate.

Needs the extra `da-tacos`. The archives take some 350 GB while they are unpacked.

    python docs/download_da_tacos.py da-tacos
"""

import sys
from pathlib import Path

FEATURES = ["cens", "crema", "hpcp", "madmom", "mfcc"]


def download(directory: Path) -> None:
    """Download both subsets into a directory; what is there already is not downloaded again."""
    import mirdata

    archives = [
        f"{subset}_{feature}" for subset in ("benchmark", "coveranalysis") for feature in FEATURES
    ]
    mirdata.initialize("da_tacos", data_home=str(directory)).download(["metadata", *archives])
    (directory / "dataset.json").write_text('{"frame_rate": "44100/512"}\n', encoding="utf-8")


if __name__ == "__main__":
    download(Path(sys.argv[1]))
