"""Make the recordings of `sample/recordings`: five tunes, each in two arrangements.

Run it as `python docs/sample_recordings.py sample/recordings`. It needs music21 10 and pretty_midi
0.2 from PyPI, and the programs fluidsynth and ffmpeg with the soundfont FluidR3 (on Debian the
package `fluid-soundfont-gm`).
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import music21
import pretty_midi

SOUNDFONT = Path("/usr/share/sounds/sf2/FluidR3_GM.sf2")

ONEILL, RYAN = "O'Neill's Music of Ireland", "Ryan's Mammoth Collection"

#: Title, name of the files, and the two printings: file and number in music21's corpus.
TUNES = [
    (
        "Devil's Dream",
        "devils_dream",
        (ONEILL, "oneills1850/1556-1624.abc", 1564),
        (RYAN, "ryansMammoth/DevilsDreamReel.abc", None),
    ),
    (
        "Haste to the Wedding",
        "haste_to_the_wedding",
        (ONEILL, "oneills1850/0981-1000.abc", 987),
        (RYAN, "ryansMammoth/HasteToTheWeddingJig.abc", None),
    ),
    (
        "The Rakes of Mallow",
        "rakes_of_mallow",
        (ONEILL, "oneills1850/1801-1850.abc", 1814),
        (ONEILL, "oneills1850/1801-1850.abc", 1814),
    ),
    (
        "The Flowers of Edinburgh",
        "flowers_of_edinburgh",
        (ONEILL, "oneills1850/1701-1780.abc", 1746),
        (RYAN, "ryansMammoth/FlowersOfEdinburgReel.abc", None),
    ),
    (
        "Off She Goes",
        "off_she_goes",
        (ONEILL, "oneills1850/0900-0950.abc", 914),
        (RYAN, "ryansMammoth/OffSheGoesJig.abc", None),
    ),
]

#: A recording has at most this number of bars: each part of a tune twice.
BARS = 32

#: Triads of a major key by their degree in semitones, the usual ones first.
TRIADS = {0: (0, 4, 7), 7: (7, 11, 2), 5: (5, 9, 0), 9: (9, 0, 4), 2: (2, 5, 9)}


@dataclass(frozen=True)
class Arrangement:
    """How a tune is played. Programs are those of General MIDI."""

    name: str
    lead: int
    chords: int
    bass: int | None
    drums: bool
    bars_per_minute: float
    ornaments: bool  # grace notes on long notes
    intro: bool  # two bars of chords


FLUTE = Arrangement("flute and guitar", 73, 24, None, False, 48, True, False)
BAND = Arrangement("fiddle band", 40, 0, 32, True, 58, False, True)
PIPE = Arrangement("clarinet and harp", 71, 46, None, False, 45, True, True)
REEDS = Arrangement("accordion and piano", 21, 0, 32, False, 62, False, False)

#: Arrangement and transposition of each tune's two recordings.
PLAYED = [
    ((FLUTE, 0), (BAND, -4)),
    ((PIPE, 3), (REEDS, -2)),
    ((FLUTE, 5), (REEDS, -3)),
    ((PIPE, -2), (BAND, 2)),
    ((FLUTE, -5), (BAND, 1)),
]


@dataclass(frozen=True)
class Tune:
    """The notes of a printed tune, in quarter notes from its first full bar."""

    notes: list[tuple[float, float, int]]  # start, length, pitch
    tonic: int
    bar: float
    length: float


def read(source: str, number: int | None) -> Tune:
    """Read a tune, with its repeats."""
    score = music21.corpus.parse(source, number=number)
    part = score.parts[0].expandRepeats()
    meter = part.recurse().getElementsByClass(music21.meter.TimeSignature).first()
    key = part.recurse().getElementsByClass(music21.key.Key).first()
    bar = meter.barDuration.quarterLength
    first = next(m for m in part.getElementsByClass("Measure") if m.duration.quarterLength >= bar)
    start = first.offset
    notes = [
        (float(note.offset - start), float(note.quarterLength), note.pitch.midi)
        for note in part.flatten().notes
        if note.quarterLength > 0 and note.isNote
    ]
    notes = [note for note in notes if note[0] < BARS * (bar / 2 if bar == 6 else bar)]
    length = max(begin + lasting for begin, lasting, _ in notes)
    # A bar in C| is printed in 2/4 elsewhere, with notes half as long; 12/8 has two bars of 6/8.
    scale = 0.5 if bar == 4 else 1.0
    notes = [(begin * scale, lasting * scale, pitch) for begin, lasting, pitch in notes]
    return Tune(
        notes, key.tonic.pitchClass, float(bar) / (2 if bar in (4, 6) else 1), length * scale
    )


def harmony(tune: Tune) -> list[tuple[float, int]]:
    """Choose a triad for each half bar: the one that most of the melody belongs to."""
    found = []
    start, half = 0.0, tune.bar / 2
    while start < tune.length - 1e-6:
        weights = dict.fromkeys(range(12), 0.0)
        for begin, lasting, pitch in tune.notes:
            common = min(begin + lasting, start + half) - max(begin, start)
            if common > 0:
                on_the_beat = 1.5 if abs(begin - start) < 1e-6 else 1.0
                weights[(pitch - tune.tonic) % 12] += common * on_the_beat
        score = {d: sum(weights[p] for p in triad) for d, triad in TRIADS.items()}
        found.append(
            (start, max(score, key=lambda d: (round(score[d], 6), -list(TRIADS).index(d))))
        )
        start += half
    return found


def play(tune: Tune, arrangement: Arrangement, transposed: int, path: Path) -> float:
    """Write a MIDI file with a tune in an arrangement, once through; return its seconds."""
    midi = pretty_midi.PrettyMIDI()
    lead, chords, bass = (
        pretty_midi.Instrument(program or 0)
        for program in (arrangement.lead, arrangement.chords, arrangement.bass)
    )
    drums = pretty_midi.Instrument(0, is_drum=True)
    second = 60 / (arrangement.bars_per_minute * tune.bar)  # of a quarter note
    lead_in = 2 * tune.bar if arrangement.intro else -min(0.0, tune.notes[0][0])

    def add(part, start: float, length: float, pitch: int, velocity: int) -> None:
        begin = (start + lead_in) * second
        part.notes.append(
            pretty_midi.Note(velocity, pitch, max(begin, 0), begin + 0.95 * length * second)
        )

    for number, (begin, length, pitch) in enumerate(tune.notes):
        sounding = pitch + transposed
        accent = 104 if begin % (tune.bar / 2) < 1e-6 else 90
        grace = 0.12 if arrangement.ornaments and length >= 0.5 and number % 2 == 0 else 0.0
        if grace:
            add(lead, begin, grace, sounding + 2, accent - 20)
        add(lead, begin + grace, length - grace, sounding, accent)
    chosen = harmony(tune)
    if arrangement.intro:
        chosen = [(-2 * tune.bar + i * tune.bar / 2, (0, 0, 7, 0)[i]) for i in range(4)] + chosen
    for start, degree in chosen:
        root = 48 + (tune.tonic + transposed + degree) % 12
        pitches = [48 + (tune.tonic + transposed + p) % 12 for p in TRIADS[degree]]
        half = tune.bar / 2
        if arrangement.bass is None:  # broken chords
            for i, pitch in enumerate([root, *sorted(pitches)[1:]]):
                add(chords, start + i * half / 3, half / 2, pitch + (12 if i else 0), 62)
        else:
            add(bass, start, half * 0.5, root - 12, 84)
            for pitch in pitches:
                add(chords, start + half / 2, half * 0.4, pitch + 12, 58)
        if arrangement.drums:
            add(drums, start, 0.1, 36, 70)
            add(drums, start + half / 2, 0.1, 38, 50)
    used = [lead, chords, *([bass] if arrangement.bass else []), *([drums] if drums.notes else [])]
    midi.instruments.extend(used)
    midi.write(str(path))
    return float(midi.get_end_time())


def record(midi: Path, seconds: float, tags: dict[str, str], path: Path) -> None:
    """Play a MIDI file into an Opus file of about 28 kbit/s."""
    with tempfile.TemporaryDirectory() as scratch:
        wave = Path(scratch) / "played.wav"
        played = ["fluidsynth", "-ni", "-q", "-g", "0.7", "-r", "48000", "-F", wave]
        subprocess.run([*played, SOUNDFONT, midi], check=True)  # noqa: S603
        encoded = ["ffmpeg", "-y", "-v", "error", "-i", wave, "-ac", "1", "-c:a", "libopus"]
        named = [part for name, text in tags.items() for part in ("-metadata", f"{name}={text}")]
        fixed = ["-b:a", "20k", "-fflags", "+bitexact", "-flags:a", "+bitexact"]
        subprocess.run([*encoded, "-t", str(seconds + 1), *fixed, *named, path], check=True)  # noqa: S603


def main(directory: Path) -> None:
    """Write all recordings."""
    directory.mkdir(parents=True, exist_ok=True)
    for (title, name, *printings), played in zip(TUNES, PLAYED, strict=True):
        for (_, source, number), (arrangement, transposed) in zip(printings, played, strict=True):
            path = directory / f"{name}_{arrangement.name.split()[0]}.opus"
            with tempfile.TemporaryDirectory() as scratch:
                midi = Path(scratch) / "tune.mid"
                seconds = play(read(source, number), arrangement, transposed, midi)
                record(midi, seconds, {"title": title, "artist": arrangement.name}, path)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
