"""How many frames a second a data set has: stated beside the data, or measured from its beats."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from fractions import Fraction
from typing import Any

import numpy as np

logger = logging.getLogger(__name__)

#: CD-rate audio cut into hops of a power of two, as every extractor of these features does.
#: (22,050 Hz with half the hop is the same rate.)
COMMON = {f"44100/{hop}": 44100 / hop for hop in (128, 256, 512, 1024, 2048, 4096, 8192)}

#: A measured rate is believed only if this share of the performances vote for it.
MAJORITY = 2 / 3


def parse_frame_rate(text: str | float) -> float:
    """Read a frame rate, "10.77", "44100/512" or a number, in frames a second.

    Raises
    ------
    ValueError
        If it is no positive finite number or fraction.
    """
    try:
        rate = float(Fraction(text.replace(" ", ""))) if isinstance(text, str) else float(text)
    except (ValueError, TypeError, ZeroDivisionError, OverflowError):
        rate = math.nan
    if isinstance(text, bool) or not (math.isfinite(rate) and rate > 0):
        raise ValueError(
            f"{text!r} is no frame rate: give frames a second as a number or as sample rate over "
            "hop, such as 44100/512"
        )
    return rate


def from_provenance(entries: dict[str, Any]) -> float | None:
    """Frames over seconds of a `provenance.json`, `{track: {"T": frames, "sec": seconds}}`.

    Within 1 % of a common rate it is that rate: the seconds are rounded and every recording ends
    with a frame that is not full.

    Returns None if nothing in it has both.
    """
    lengths = [
        (entry["T"], entry["sec"])
        for entry in entries.values()
        if isinstance(entry, dict)
        and all(isinstance(entry.get(key), int | float) for key in ("T", "sec"))
    ]
    frames, seconds = (sum(column) for column in zip(*lengths, strict=True)) if lengths else (0, 0)
    if not (frames > 0 and seconds > 0):
        return None
    rate = float(frames / seconds)
    nearest = min(COMMON.values(), key=lambda common: abs(math.log(common / rate)))
    return nearest if abs(nearest / rate - 1) < 0.01 else rate


def measure(beats: Iterable[tuple[float, np.ndarray]]) -> float:
    """Find the frame rate at which the beats, counted in frames, go at the tempo, in bpm.

    Each performance votes for the common rate nearest to bpm x (median frames between its beats)
    / 60. A tracker that follows every second beat is off by a factor of two, so one performance
    may well be wrong, which is why they vote.

    Parameters
    ----------
    beats : iterable of (float, np.ndarray of shape (b,))
        A performance's tempo in bpm, and the frames its beats fall on (madmom_features: tempos,
        onsets).

    Returns
    -------
    float
        Frames a second, one of `COMMON`.

    Raises
    ------
    ValueError
        If no performance has a tempo and four beats, or fewer than `MAJORITY` agree.
    """
    rates = list(COMMON.values())
    votes = np.zeros(len(rates), dtype=int)
    for tempo, onsets in beats:
        if len(onsets) < 4:
            continue
        estimate = tempo * float(np.median(np.diff(onsets))) / 60
        if math.isfinite(estimate) and estimate > 0:
            votes[int(np.argmin(np.abs(np.log(np.array(rates) / estimate))))] += 1
    best = int(votes.argmax())
    if votes[best] < max(1, MAJORITY * votes.sum()):
        shares = ", ".join(f"{name} {n}" for name, n in zip(COMMON, votes, strict=True) if n)
        raise ValueError(f"measuring it from the beats is inconclusive ({shares or 'no beats'})")
    logger.warning(
        "measured a frame rate of %s = %.3f a second from the beats of %d performances (%d agree)",
        list(COMMON)[best],
        rates[best],
        votes.sum(),
        votes[best],
    )
    return rates[best]
