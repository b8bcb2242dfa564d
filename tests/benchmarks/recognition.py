"""How often `identify` names altered copies of the sample's performances, and passages of them.

    COVERS_HOME=.demo/covers PYTHONPATH=tests python -m benchmarks.recognition

asks the collection that `make demo` publishes. Each query is a copy of a performance that has
versions. The performance itself is left out of the answer, so its versions must be found. Features
are altered, not sound: a detuned copy has each chroma bin shared with its neighbour, and a noisy
one has noise with a tenth of the energy of its chroma.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeAlias

import joblib
import numpy as np
from rich.table import Table

import search
from embedding import bundle as bundles
from embedding.data.frame_rate import parse_frame_rate
from embedding.data.hdf5 import read_arrays
from embedding.performance import embed
from search.matches import Identification

SAMPLE = Path(__file__).resolve().parents[2] / "sample"
RATE = parse_frame_rate("44100/4096")
CHROMA = ("hpcp", "crema")

Arrays: TypeAlias = dict[str, np.ndarray]
Alteration: TypeAlias = Callable[[Arrays, np.random.Generator], Arrays]


def cut(seconds: float, arrays: Arrays, rng: np.random.Generator) -> Arrays:
    """Keep a passage at a random place."""
    length = min(len(arrays[name]) for name in CHROMA)
    kept = min(round(seconds * RATE), length)
    start = int(rng.integers(length - kept + 1))
    return {name: array[start : start + kept] for name, array in arrays.items()}


def detuned(cents: float, arrays: Arrays, _: np.random.Generator) -> Arrays:
    """Raise all pitches."""
    whole, share = divmod(cents / 100, 1)
    turned = {name: np.roll(array, int(whole), axis=1) for name, array in arrays.items()}
    return {
        name: (1 - share) * array + share * np.roll(array, 1, axis=1)
        for name, array in turned.items()
    }


def noisy(decibels: float, arrays: Arrays, rng: np.random.Generator) -> Arrays:
    """Add the absolute values of Gaussian noise."""
    made = {}
    for name, array in arrays.items():
        level = np.sqrt((array**2).mean() / 10 ** (decibels / 10))
        made[name] = array + level * np.abs(rng.standard_normal(array.shape))
    return made


def then(*steps: Alteration) -> Alteration:
    """Alter in several steps."""

    def alter(arrays: Arrays, rng: np.random.Generator) -> Arrays:
        for step in steps:
            arrays = step(arrays, rng)
        return arrays

    return alter


ALTERATIONS: dict[str, Alteration] = {
    "as it is": then(),
    "a passage of 60 s": partial(cut, 60),
    "a passage of 30 s": partial(cut, 30),
    "a passage of 20 s": partial(cut, 20),
    "25 cents flat": partial(detuned, -25),
    "25 cents sharp": partial(detuned, 25),
    "50 cents sharp": partial(detuned, 50),
    "a semitone sharp": partial(detuned, 100),
    "noise at 10 dB": partial(noisy, 10),
    "30 s, a semitone and 25 cents sharp, noise": then(
        partial(cut, 30), partial(detuned, 125), partial(noisy, 10)
    ),
}


def read(track_id: str, work_id: str) -> Arrays:
    """Read the chroma of a performance of the sample."""
    (path,) = SAMPLE.glob(f"*_single_files/{work_id}/{track_id}.h5")
    arrays = read_arrays(path, CHROMA, ()).arrays
    turned = (array if array.shape[1] == 12 else array.T for array in arrays.values())
    return dict(zip(arrays, turned, strict=True))


def ask(searcher: search.Searcher, query: search.Query, without: Sequence[str]) -> Identification:
    """Ask `identify` for a query, as if the collection lacked some performances."""
    where = {"track_id": search.none_of([*without])}
    return searcher.identify(query, where=where)


def measure(count: int, seed: int) -> Table:
    """Ask `count` queries for each alteration."""
    searcher = search.Searcher()
    pretrained = bundles.load("pretrained")
    works = {
        stored.payload["track_id"]: stored.payload["work_id"]
        for stored in searcher.engine.open().everything()
    }
    sizes = Counter(works.values())
    rng = np.random.default_rng(seed)
    queries = sorted(track_id for track_id, work_id in works.items() if sizes[work_id] > 1)
    drawn = [str(each) for each in rng.permutation(queries)[:count]]

    def identify(alter: Alteration, i: int) -> tuple[bool, bool, float]:
        track_id, draw = drawn[i], np.random.default_rng([seed, i])
        arrays = alter(read(track_id, works[track_id]), draw)
        query = search.Query(*embed(arrays, pretrained, frame_rate=RATE))
        found = ask(searcher, query, [track_id])
        work = works[track_id]
        first = found.works[0].work_id if found.works else None
        named = None if found.work is None else found.work.work_id
        probability = sum(each.probability for each in found.works if each.work_id == work)
        return first == work, named not in (work, None), probability

    table = Table("query", "right work first", "median probability of it", "wrongly named")
    with ThreadPoolExecutor(joblib.cpu_count()) as threads:
        for name, alter in ALTERATIONS.items():
            answers = [*threads.map(partial(identify, alter), range(len(drawn)))]
            first, wrong, probability = (np.array(column) for column in zip(*answers, strict=True))
            shares = f"{first.mean():.0%}", f"{np.median(probability):.2f}", f"{wrong.mean():.0%}"
            table.add_row(name, *shares)
    return table
