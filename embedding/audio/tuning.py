"""How far a recording is from concert pitch, as tapes and old discs often are.

The chroma of a recording between two keys is smeared over neighbouring pitch classes, so it matches
nothing. So the reference pitch is raised or lowered by a third of a semitone where that fits
better; what is left, up to 17 cents, is harmless.
"""

import numpy as np

#: Thirds of a semitone by which the reference pitch may be moved.
OFFSETS = (0, 1, -1)

#: The energy in tune with a moved reference has to be higher by this factor. Notes between 20 and
#: 80 cents from concert pitch reach it.
MARGIN = 1.3


def reference(offset: int) -> float:
    """Return the frequency of A4 in Hz for an offset."""
    return float(440 * 2 ** (offset / 36))


def offset_of(octave: np.ndarray) -> int:
    """Return the offset, one of `OFFSETS`, that most of the energy is in tune with.

    `octave`, shape=(T, 36), is a constant-Q spectrum in three bins per semitone, from C, with its
    octaves added up.
    """
    # A bin in tune has more energy than its neighbours.
    energy = (octave.astype(np.float64) ** 2).sum(axis=0).reshape(12, 3).sum(axis=0)
    best = int(energy.argmax())
    return OFFSETS[best] if energy[best] > MARGIN * energy[0] else 0
