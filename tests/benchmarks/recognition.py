"""How often `identify` names the work of an altered copy, a passage or a medley.

    COVERS_HOME=.demo/covers PYTHONPATH=tests python -m benchmarks.recognition

asks a collection of the sample, as `make demo` publishes it. A query of features is a copy of a
performance that has versions. The performance itself is left out of the answer, so a version must
be found. A detuned copy has each chroma bin shared with its neighbour, and a noisy one has noise
with a tenth of the energy of its chroma. A query of sound is one of the sample's recordings, none
of which is in the collection; for those of other works, the right answer is that there is none.
"""

import argparse
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import joblib
import numpy as np
import soundfile
from rich.console import Console
from rich.table import Table
from scipy.signal import resample_poly

import search
from embedding import bundle as bundles
from embedding.audio.rate import SAMPLE_RATE
from embedding.audio.recording import decode
from embedding.data.frame_rate import parse_frame_rate
from embedding.data.hdf5 import read_arrays
from embedding.performance import embed

SAMPLE = Path(__file__).resolve().parents[2] / "sample"
RATE = parse_frame_rate("44100/4096")
CHROMA = ("hpcp", "crema")

#: Works of the collection, by the beginning of the names of their recordings.
RECORDED = {
    "devils_dream": "W_2971",
    "haste_to_the_wedding": "W_58643",
    "rakes_of_mallow": "W_11321",
}

Arrays: TypeAlias = dict[str, np.ndarray]
Alteration: TypeAlias = Callable[[Any, np.random.Generator], Any]


def cut(seconds: float, arrays: Arrays, rng: np.random.Generator) -> Arrays:
    """Keep a passage at a random place."""
    length = min(len(arrays[name]) for name in CHROMA)
    kept = min(round(seconds * RATE), length)
    start = int(rng.integers(length - kept + 1))
    return {name: array[start : start + kept] for name, array in arrays.items()}


def detuned(cents: float, arrays: Arrays, _: np.random.Generator) -> Arrays:
    """Raise all pitches."""
    whole, part = divmod(cents / 100, 1)
    turned = {name: np.roll(array, int(whole), axis=1) for name, array in arrays.items()}
    return {
        name: (1 - part) * array + part * np.roll(array, 1, axis=1)
        for name, array in turned.items()
    }


def noisy(decibels: float, arrays: Arrays, rng: np.random.Generator) -> Arrays:
    """Add the absolute values of Gaussian noise."""
    made = {}
    for name, array in arrays.items():
        level = np.sqrt((array**2).mean() / 10 ** (decibels / 10))
        made[name] = array + level * np.abs(rng.standard_normal(array.shape))
    return made


def passage(seconds: float, signal: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Keep a passage of a recording at a random place."""
    length = round(seconds * SAMPLE_RATE)
    start = int(rng.integers(max(len(signal) - length, 0) + 1))
    return signal[start : start + length]


def faster(cents: float, signal: np.ndarray, _: np.random.Generator) -> np.ndarray:
    """Play a recording faster, so that it is higher."""
    ratio = Fraction(2 ** (-cents / 1200)).limit_denominator(400)
    return np.asarray(resample_poly(signal, ratio.numerator, ratio.denominator))


def hissing(decibels: float, signal: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add white noise to a recording."""
    level = np.sqrt((signal**2).mean() / 10 ** (decibels / 10))
    return np.asarray(signal + level * rng.standard_normal(len(signal)))


def then(*steps: Alteration) -> Alteration:
    """Alter in several steps."""

    def alter(query: Any, rng: np.random.Generator) -> Any:
        for step in steps:
            query = step(query, rng)
        return query

    return alter


OF_FEATURES: dict[str, Alteration] = {
    "as it is": then(),
    "a passage of 60 s": partial(cut, 60),
    "a passage of 30 s": partial(cut, 30),
    "a passage of 20 s": partial(cut, 20),
    "25 cents flat": partial(detuned, -25),
    "25 cents sharp": partial(detuned, 25),
    "50 cents sharp": partial(detuned, 50),
    "a semitone sharp": partial(detuned, 100),
    "noise at 10 dB": partial(noisy, 10),
    "30 s, 125 cents sharp, noise": then(
        partial(cut, 30), partial(detuned, 125), partial(noisy, 10)
    ),
}

OF_SOUND: dict[str, Alteration] = {
    "as it is": then(),
    "a passage of 30 s": partial(passage, 30),
    "a passage of 20 s": partial(passage, 20),
    "25 cents sharp": partial(faster, 25),
    "50 cents sharp": partial(faster, 50),
    "50 cents flat": partial(faster, -50),
    "a semitone sharp": partial(faster, 100),
    "noise at 10 dB": partial(hissing, 10),
}


class Sample:
    """The collection of the sample, the bundle that made it, and the queries."""

    def __init__(self, count: int, seed: int) -> None:
        self.searcher, self.seed = search.Searcher(), seed
        self.bundle = bundles.load("pretrained")
        everything = [stored.payload for stored in self.searcher.engine.open().everything()]
        self.works = {payload["track_id"]: payload["work_id"] for payload in everything}
        sizes = Counter(self.works.values())
        queries = sorted(track_id for track_id, work in self.works.items() if sizes[work] > 1)
        drawn = np.random.default_rng(seed).permutation(queries)[:count]
        self.queries = [str(each) for each in drawn]

    def read(self, track_id: str) -> Arrays:
        """Read the chroma of a performance."""
        (path,) = SAMPLE.glob(f"*_single_files/{self.works[track_id]}/{track_id}.h5")
        arrays = read_arrays(path, CHROMA, ()).arrays
        turned = (array if array.shape[1] == 12 else array.T for array in arrays.values())
        return dict(zip(arrays, turned, strict=True))

    def altered(self, alter: Alteration, i: int) -> tuple[bool, bool, bool, float, bool]:
        """Ask for an altered copy of a performance, and say what is right about the answer."""
        track_id, rng = self.queries[i], np.random.default_rng([self.seed, i])
        work, where = self.works[track_id], {"track_id": search.none_of([track_id])}
        arrays = alter(self.read(track_id), rng)
        query = search.Query(*embed(arrays, self.bundle, frame_rate=RATE))
        found = self.searcher.identify(query, where=where)
        near = self.searcher.similar(query, len(self.works) // 5, where=where)
        named = found.work is not None
        first = bool(found.works) and work in names(found.works[0])
        probability = sum(each.probability for each in found.works if work in names(each))
        is_near = any(match.work_id == work for match in near)
        return first, first and named, named and not first, probability, is_near

    def spliced(self, i: int) -> tuple[bool, bool, bool]:
        """Ask for a medley: is its first work right, are both probable, and is another one?"""
        pair, rng = self.queries[2 * i : 2 * i + 2], np.random.default_rng([self.seed, i])
        first, second = (cut(35, self.read(track_id), rng) for track_id in pair)
        arrays = {name: np.concatenate([first[name], second[name]]) for name in CHROMA}
        query = search.Query(*embed(arrays, self.bundle, frame_rate=RATE))
        found = self.searcher.identify(query, where={"track_id": search.none_of(pair)})
        works = {self.works[track_id] for track_id in pair}
        probable = [names(each) for each in found.works if each.probability > 0.5]
        both = all(any(work in each for each in probable) for work in works)
        return bool(works & names(found.works[0])), both, any(not works & each for each in probable)

    def heard(self, alter: Alteration, path: Path) -> tuple[bool, bool, bool]:
        """Ask for a recording: is its work here, is it named, and is none named?"""
        rng = np.random.default_rng(self.seed)
        signal = np.concatenate([piece.mean(axis=0) for piece in decode(path)])
        with tempfile.TemporaryDirectory() as directory:
            take = Path(directory) / "take.wav"
            soundfile.write(take, alter(signal, rng), SAMPLE_RATE)
            found = self.searcher.identify(search.Query(*embed(take, self.bundle)))
        work = next((RECORDED[tune] for tune in RECORDED if path.stem.startswith(tune)), None)
        named = set() if found.work is None else names(found.work)
        return work is not None, work in named, not named


def names(work: search.Work) -> set[str]:
    """Return the ids of a work and of those that are probably the same."""
    return {work.work_id, *work.same_as}


def tables(sample: Sample) -> Iterator[Table]:
    """Ask all queries, and make a table of each kind."""
    paths = sorted((SAMPLE / "recordings").glob("*.opus"))
    table = Table(f"{len(paths)} recordings", "rightly named", "rightly none", "wrongly named")
    for name, alter in OF_SOUND.items():
        rows = [sample.heard(alter, path) for path in paths]
        known, right, none = (np.array(column) for column in zip(*rows, strict=True))
        table.add_row(
            name,
            f"{(known & right).sum()} of {known.sum()}",
            f"{(~known & none).sum()} of {(~known).sum()}",
            f"{(~right & ~none).sum()} of {len(rows)}",
        )
    yield table
    count = len(sample.queries)
    columns = "right work first", "rightly named", "wrongly named", "its probability (median)"
    table = Table(f"features, {count} queries", *columns, "a version in the nearest fifth")
    with ThreadPoolExecutor(joblib.cpu_count()) as threads:
        for name, alter in OF_FEATURES.items():
            answers = threads.map(partial(sample.altered, alter), range(count))
            *judged, probability, near = zip(*answers, strict=True)
            cells = (*map(share, judged), f"{np.median(probability):.2f}", share(near))
            table.add_row(name, *cells)
        yield table
        medleys = list(threads.map(sample.spliced, range(count // 2)))
    table = Table(f"{len(medleys)} medleys", "one first", "both probable", "another probable")
    table.add_row("35 s of each of two works", *map(share, zip(*medleys, strict=True)))
    yield table


def share(values: Sequence[bool]) -> str:
    """Write a share in per cent."""
    return f"{np.mean(values):.0%}"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--queries", type=int, default=60, help="performances that are altered")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    console = Console(width=140)
    for table in tables(Sample(options.queries, options.seed)):
        console.print(table)


if __name__ == "__main__":
    main()
