"""Works that a program composed, to learn from beside the works of the data.

A few hundred works teach an encoder little. Composed works can be had in any number, and they
belong to nobody.
"""

from functools import lru_cache

import numpy as np

from embedding.composing import ComposingConfig, compose
from embedding.encoders.encoder import Samples

#: Versions of a composed work. They differ in tempo, so they need no altered copies.
VERSIONS = 3


@lru_cache(maxsize=1)  # an encoder is fitted, and then refitted
def composed(works: int, seed: int) -> Samples:
    """Compose works; their ids are not ids of any data."""
    if not works:
        return Samples([], np.array([], dtype=str))
    sequences, labels = compose(ComposingConfig(), works=works, versions=VERSIONS, seed=seed)
    ids = np.char.add("composed ", labels)
    return Samples([sequence.astype(np.float16) for sequence in sequences], ids)
