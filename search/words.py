"""Words of titles and names, so that a filter can ask for some of them.

A point holds the words of its texts, such as "artist:bach", in a field of its own. So all engines
find the same, whatever they make of a text themselves.
"""

import re
import unicodedata
from collections.abc import Mapping

#: Fields whose words can be asked for.
TEXTS = ("title", "artist", "work_title", "work_artist")

#: The field of a payload that holds their words.
WORDS = "words"

#: A letter of a script that does not part its words, or letters and digits in a row.
WORD = re.compile("[\u3041-\u30ff\u3400-\u9fff]|[^\\W_\u3041-\u30ff\u3400-\u9fff]+")


def words(text: str) -> list[str]:
    """Return the different words of a text, without case, accents and apostrophes.

    >>> words("Beyoncé: Don't Hurt Yourself (don't!)")
    ['beyonce', 'dont', 'hurt', 'yourself']
    """
    text = re.sub("['’]", "", text)
    if not text.isascii():
        decomposed = unicodedata.normalize("NFKD", text)
        bare = "".join(each for each in decomposed if not unicodedata.combining(each))
        text = unicodedata.normalize("NFKC", bare)
    return [*dict.fromkeys(WORD.findall(text.casefold()))]


def words_of(payload: Mapping[str, object], fields: tuple[str, ...] = TEXTS) -> list[str]:
    """Return the words of some fields, each with its field.

    >>> words_of({"title": "Air", "artist": "J. S. Bach"})
    ['title:air', 'artist:j', 'artist:s', 'artist:bach']
    """
    return [f"{field}:{word}" for field in fields for word in words(str(payload.get(field) or ""))]
