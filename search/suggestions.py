"""What is near a value that a collection does not have."""

from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches

from search.engines.collection import Collection
from search.errors import TrackNotFound
from search.fields import AnyOf, Between, Condition, fields_of
from search.words import TEXTS, WORDS, words, words_of

#: Maximum number of performances that are looked at, and of values that are suggested.
LOOKED_AT, SUGGESTED = 1_000, 3


def unknown_track(collection: Collection, track_id: str) -> TrackNotFound:
    """Say that the collection has no such performance, and which ids are similar."""
    bare = track_id.strip()
    forms = [bare, bare.upper(), bare.lower(), f"P_{bare}", f"p_{bare}", bare.replace("-", "_")]
    tries = [form for form in dict.fromkeys(forms) if form != track_id]
    found = collection.performances(tries)
    close = [form for form, stored in zip(tries, found, strict=True) if stored is not None]
    sample = collection.values("track_id", LOOKED_AT)
    close = close or get_close_matches(track_id, sample, SUGGESTED)
    hint = (
        f"did you mean {' or '.join(close[:SUGGESTED])}?"
        if close
        else f"its ids look like {', '.join(sample[:2])}."
    )
    name = collection.description.name
    return TrackNotFound(f"There is no performance {track_id!r} in {name}: {hint}")


def why_nothing(collection: Collection, conditions: Sequence[Condition]) -> str:
    """Say which condition no performance meets, and what is near it."""
    other = f"No other performance {'meets all conditions' if conditions else 'is there'}."
    return next(_unmet(collection, conditions), other)


def unknown_values(collection: Collection, conditions: Sequence[Condition]) -> list[str]:
    """Say which of several values of a field no performance has, and what is near each."""
    several = [each for each in conditions if isinstance(each, AnyOf) and len(each.values) > 1]
    alone = [AnyOf(each.field, (value,)) for each in several for value in each.values]
    return [*_unmet(collection, alone)]


def _unmet(collection: Collection, conditions: Iterable[Condition]) -> Iterator[str]:
    for condition in conditions:
        if not collection.values("track_id", 1, [condition]):
            asked, hint = _asked(condition), _hint(collection, condition)
            yield f"No performance in {collection.description.name} has {asked}: {hint}."


def _asked(condition: Condition) -> str:
    if isinstance(condition, Between):
        low, high = ("any" if end is None else end for end in (condition.low, condition.high))
        return f"{condition.field} from {low} to {high}"
    if condition.field == WORDS:
        field, _, word = str(condition.values[0]).partition(":")
        return f"the word {word!r} in {field}"
    other = "" if isinstance(condition, AnyOf) else "anything but "
    return f"{other}{condition.field} {' or '.join(map(repr, condition.values))}"


def _hint(collection: Collection, condition: Condition) -> str:
    """Say which values performances have, the nearest ones of a text."""
    field, asked = condition.field, "" if isinstance(condition, Between) else condition.values[0]
    if field == WORDS:
        if not collection.values(WORDS, 1):
            return "an earlier version of covers published it, so publish it again"
        field, _, asked = str(asked).partition(":")
    there = dict.fromkeys(collection.values(field, LOOKED_AT))
    if not there:
        return f"none of those that were looked at has a {field}"
    if fields_of(collection.description.columns)[field] in (int, float):
        return f"it is {min(there)} to {max(there)} in those that were looked at"
    if condition.field == WORDS:
        there = dict.fromkeys(word for text in there for word in words(text))
    near = _near(collection, field, asked, there) if isinstance(asked, str) else []
    kind = "near" if near else "other"
    found = f"{kind} ones are {', '.join(map(repr, (near or [*there])[:SUGGESTED]))}"
    if condition.field == WORDS or field not in TEXTS:
        return found
    return f"{found} (single words are found by {field}~{asked}, in Python by search.contains)"


def _near(collection: Collection, field: str, asked: str, there: Iterable[str]) -> list[str]:
    """Return values with all words of a text, and then values that are spelt alike."""
    wanted = words_of({field: asked}) if field in TEXTS else []
    sharing = collection.values(field, LOOKED_AT, [AnyOf(WORDS, tuple(wanted))]) if wanted else []
    whole = [value for value in sharing if set(wanted) <= set(words_of({field: value}))]
    alike = get_close_matches(asked, dict.fromkeys([*sharing, *there]), SUGGESTED)
    return [*dict.fromkeys([*whole, *alike])]
