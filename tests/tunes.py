"""A small synthetic catalogue with chroma sequences, to align."""

import numpy as np
from catalogue import altered, make_points

from search import Calibration, Points
from search.versions.calibration import Logistic

RATE = 44100 / 8192  # frames per second


def make_tune(seed: int, seconds: float = 60, tempo: float = 1.0, up: int = 0) -> np.ndarray:
    """Notes of 0.3 to 1 s: a pitch class and, weaker, its fifth. Shape (F, 2, 12)."""
    rng = np.random.default_rng(seed)
    lengths = rng.uniform(0.3, 1, 400) / tempo
    notes = rng.choice([0, 2, 4, 5, 7, 9, 11], 400)  # of a major scale
    times = np.arange(int(seconds * RATE)) / RATE
    playing = notes[np.searchsorted(np.cumsum(lengths), times)] + up
    frames = np.eye(12)[playing % 12] + 0.4 * np.eye(12)[(playing + 7) % 12]
    return np.stack([frames, frames], axis=1).astype(np.float16)


def noisy(sequence: np.ndarray, seed: int, amount: float = 0.3) -> np.ndarray:
    noise = amount * np.random.default_rng(seed).random(sequence.shape)
    return (sequence * (1 - amount) + noise).astype(np.float16)


# The versions of a work differ in key and tempo. The vectors are random and say nothing.
WORKS, VERSIONS_PER_WORK = 10, 4
EMPTY, SILENT, SHORT = "P_37", "P_38", "P_39"


def make_sequences() -> list[np.ndarray]:
    sequences = []
    for i in range(WORKS * VERSIONS_PER_WORK):
        tempo, up = [1, 1.15, 1 / 1.15][i % 3], i * 5 % 12
        sequences.append(noisy(make_tune(i // VERSIONS_PER_WORK, 40 - i % 7, tempo, up), i))
    sequences[37] = sequences[37][:0]
    sequences[38] = np.zeros_like(sequences[38])
    sequences[39] = sequences[39][:12]
    return sequences


def with_sequences(sequences) -> Points:
    plain = make_points(len(sequences), clique=VERSIONS_PER_WORK)
    by_id = [sequences[int(track_id[2:])] for track_id in plain.track_ids]
    return altered(plain, sequences=by_id, rate=RATE)


POINTS = with_sequences(make_sequences())
SEQUENCE = dict(zip(POINTS.track_ids, POINTS.sequences, strict=True))

#: Versions of these tunes have a relative similarity above 1.6, other pairs below 1.3.
CALIBRATION = Calibration(Logistic((-0.1,), -1.0), Logistic((16.0, 0.0, -0.05, 0.0), -22.0))
CALIBRATED = altered(POINTS, calibration=CALIBRATION)
