"""Computing over a long recording in parts, so that memory does not grow with its length."""

from collections.abc import Callable

import numpy as np

#: Five minutes, and half a minute before and after them, at 44100/4096 frames per second.
PART_FRAMES = 3230
MARGIN_FRAMES = 323


def in_parts(function: Callable[[np.ndarray], np.ndarray], frames: np.ndarray) -> np.ndarray:
    """Apply a function to frames, time first, part by part.

    The function keeps the number of frames. Its result for a frame may depend on the frames around
    it, of which it is given half a minute on each side.
    """
    results = []
    for start in range(0, len(frames), PART_FRAMES):
        first = max(start - MARGIN_FRAMES, 0)
        result = function(frames[first : start + PART_FRAMES + MARGIN_FRAMES])
        results.append(result[start - first : start - first + PART_FRAMES])
    return np.concatenate(results)
