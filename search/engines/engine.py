"""What an engine is: where collections are kept, and how they are published and rolled back."""

import contextlib
import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from search.engines.collection import Collection
from search.engines.comparing import Results, changed_results, is_alike, known_backgrounds
from search.engines.patience import patience
from search.engines.reading_back import FAULTS, find_fault
from search.errors import InvalidPoints, NoCollection, PublishError, SearchError, ServerUnreachable
from search.fields import FIELDS, KIND, RESULTS, fits
from search.points import Description, Points, name_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Status:
    """What is published.

    `location` is a directory or the URL of a server, `current` the collection that searches see,
    and `previous` those that were current before, latest first; `rollback` returns to the first.
    """

    location: str
    current: Description | None
    previous: tuple[Description, ...]


class Engine(ABC):
    """Where the collections of a deployment are kept.

    An engine is a context manager that closes its connections. `search.connect` makes one. Its
    `collection` is the deployment: the name of the pointer to the current collection, and the
    beginning of the names of all its collections. A publisher locks the file `lock`.
    """

    collection: str
    lock: Path

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:  # noqa: B027 - an engine may have nothing to close
        """Close what the engine holds open; it opens it again when it is used."""

    # What each engine does in its own way.

    @property
    @abstractmethod
    def location(self) -> str:
        """Where the collections are, for a person to read."""

    @abstractmethod
    def names(self) -> list[str]:
        """Return the names of this deployment's collections, complete or not."""

    @abstractmethod
    def unfinished(self) -> list[str]:
        """Return the names of collections that a publication began and never served."""

    @abstractmethod
    def is_taken(self, name: str) -> bool:
        """Whether anything has this name here, of this deployment or not."""

    @abstractmethod
    def history(self) -> list[str]:
        """Return the names of the current collection, and of those before it that are kept."""

    @abstractmethod
    def describe(self, name: str) -> Description:
        """Return what a complete collection says about itself."""

    @abstractmethod
    def open(self, name: str | None = None) -> Collection:
        """Open a collection for searching, by default the current one, or raise `NoCollection`."""

    @abstractmethod
    def build(self, description: Description, points: Points) -> None:
        """Write a collection under a name that is free; searches do not see it."""

    @abstractmethod
    def change(self, description: Description, points: Points) -> list[int] | None:
        """Make the collection of that name hold these points, while it is searched.

        Only the difference is written. A change that was interrupted is completed by the next one.
        Returns the rows of the points that were written. If it is better to build a new collection,
        nothing is changed and None is returned.
        """

    @abstractmethod
    def note(self, description: Description) -> None:
        """Rewrite what a collection says about itself; its points stay as they are."""

    @abstractmethod
    def write_results(self, name: str, results: Results) -> None:
        """Write fields of performances of a collection, while it is searched; None removes one."""

    @abstractmethod
    def serve(self, history: Sequence[str]) -> None:
        """Make the first name current for every searcher at once, and remember the others."""

    @abstractmethod
    def drop(self, name: str) -> None:
        """Remove a collection, complete or not."""

    # What a user does with any engine.

    def publish(
        self,
        points: Points,
        bundle: str,
        *,
        keep: int = 2,
        timeout: float = 600.0,
        origin: dict[str, Any] | None = None,
    ) -> Description:
        """Make points the current collection, once all of them read back as they were written.

        Searches see the old collection until the new one is complete. A new collection always gets
        a name of its own, so the current one is never overwritten, and a publication that fails or
        is killed leaves it current. If the same content is current already, only a new `origin` is
        written.

        On a server, the current collection is changed in place if little differs. Searches then see
        one performance after the other change, and `rollback` returns to the collection before this
        one, not to its earlier state. The next publication completes a change that was killed.

        Parameters
        ----------
        points : Points
            All performances of the collection.
        bundle : str
            Id of the bundle that embedded them.
        keep : int, at least 1
            Number of collections to keep, including the current one.
        timeout : float
            Seconds to wait for another publisher to finish.
        origin : dict, optional
            What the publisher notes about where the points came from, as JSON.

        Returns
        -------
        Description
            Of the collection that is current now.

        Raises
        ------
        PublishError
            If another publisher does not finish, or the new collection does not read back.
        SearchError
            If the engine cannot be asked or written. Searches see what they saw before.
        """
        new = points.describe(bundle, self.collection, origin)
        return self.publish_described(new, points, keep=keep, timeout=timeout)

    def publish_described(
        self,
        new: Description,
        points: Points,
        *,
        keep: int = 2,
        timeout: float = 600.0,
        thorough: bool = False,
    ) -> Description:
        """Publish points under a description that exists already, as `publish` does.

        With `thorough`, nothing is changed in place, and every performance is read back.
        """
        if keep < 1:
            raise ValueError(
                f"keep={keep} would leave nothing to search: keep at least 1 collection."
            )
        with self.publishing(timeout):
            history = self.history()
            known = self._describe_all(history)
            current = next((each for each in known.values() if each.content == new.content), None)
            written: Sequence[int] | None = ()
            is_changeable = bool(history) and is_alike(known.get(history[0]), new)
            if current is None and is_changeable and not thorough:
                current = replace(new, name=history[0], hidden=known[history[0]].hidden)
                written = self.change(current, points)
            if current is not None and written is not None:
                fault = self._find_fault(current, points, thorough=thorough, written=written)
                if fault is None:
                    if current.origin != new.origin:
                        current = replace(current, origin=new.origin)
                        self.note(current)
                    return self._serve(current, known, history, keep)
                logger.warning("%s is built again under another name: %s", current.name, fault)
                del known[current.name]
            built = self._build(new, points, thorough)
            return self._serve(built, known, history, keep)

    def rollback(self, name: str | None = None, *, timeout: float = 600.0) -> Description:
        """Make a collection that is kept current again, by default the one before.

        A second call without a name goes forward again. `status` lists what is kept. What was added
        to the current collection in place stays in that collection.

        Raises
        ------
        PublishError
            If it is not kept, if no other is, or if another publisher takes more than `timeout` s.
        """
        with self.publishing(timeout):
            history = self.history()
            chosen = name or "".join(history[1:2])
            if chosen not in history:
                kept = f"{self.location} keeps {', '.join(history) or 'nothing yet'}"
                wish = "other collection to go back to" if name is None else f"collection {name}"
                raise PublishError(f"There is no {wish}: {kept}.")
            description = self.open(chosen).description
            self.serve([chosen, *(other for other in history if other != chosen)])
            logger.info("%s is current again", description.name)
            return description

    def annotate(self, results: Results, bundle: str, *, timeout: float = 600.0) -> int:
        """Write results of an evaluation into the collections that are kept, if `bundle` made them.

        Results are about distances, which are those of one bundle. Performances that a collection
        does not hold are skipped, and so are values that it has already. A later publication does
        not carry the results over.

        Parameters
        ----------
        results : mapping of str to mapping
            By track id, values of the fields in `search.fields.RESULTS`; None removes a value.
        bundle : str
            Id of the bundle that was evaluated.
        timeout : float
            Seconds to wait for a publisher to finish.

        Returns
        -------
        int
            Number of performances that were written, over all collections.

        Raises
        ------
        InvalidPoints
            If a field is not a result of an evaluation, or cannot hold its value.
        PublishError
            If a publisher does not finish.
        """
        for track_id, values in results.items():
            for field, value in values.items():
                if field not in RESULTS or not (value is None or fits(FIELDS[field], value)):
                    kind = KIND[FIELDS[field]] if field in RESULTS else "not a result"
                    raise InvalidPoints(
                        f"{field} of {track_id} cannot be {value!r}, because it is {kind}."
                    )
        if not self.history():
            return 0  # without making a lock in an empty place
        written = 0
        with self.publishing(timeout):
            for name in self.history():
                if self.describe(name).bundle == bundle:
                    changed = changed_results(results, self.open(name))
                    if changed:
                        self.write_results(name, changed)
                        logger.info("wrote results of %d performances into %s", len(changed), name)
                    written += len(changed)
        return written

    def status(self) -> Status:
        """Return what is published."""
        while True:
            history = self.history()
            try:
                described = [self.describe(name) for name in history]
            except FAULTS:
                if self.history() == history:
                    raise
                continue  # a publisher dropped a collection meanwhile
            current = described[0] if described else None
            return Status(self.location, current, tuple(described[1:]))

    @contextlib.contextmanager
    def publishing(self, timeout: float) -> Iterator[None]:
        """Be the only publisher. A process that dies releases the lock.

        Raises a `PublishError` if another publisher does not finish in `timeout` seconds, or if
        nothing can be written.
        """
        from filelock import FileLock, Timeout  # importing it takes longer than a search

        try:
            self.lock.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(self.lock, timeout=timeout), patience():
                yield
        except Timeout as error:
            raise PublishError(
                f"Another process has been publishing for {timeout:g} s (it holds {self.lock}): "
                "wait for it to finish, or end it, and publish again."
            ) from error
        except SearchError:
            raise  # some are also OSErrors, and are sentences already
        except OSError as error:
            raise PublishError(
                f"{self.location} cannot be written ({error}): searches see what they saw before, "
                "so correct this and publish again."
            ) from error

    # The steps of a publication.

    def _describe_all(self, history: Sequence[str]) -> dict[str, Description]:
        """Describe the collections that are kept, by name, without those that are damaged."""
        known = {}
        for name in history:
            with contextlib.suppress(*FAULTS):
                known[name] = self.describe(name)
        return known

    def _find_fault(self, description: Description, points: Points, **how: Any) -> str | None:
        try:
            return find_fault(self.open(description.name), description, points, **how)
        except FAULTS as error:
            return f"it cannot be read back ({error})"

    def _build(self, new: Description, points: Points, thorough: bool) -> Description:
        """Build a collection under a name that nothing else has, and read it back."""
        for left in self.unfinished():
            self.drop(left)
        new = replace(new, name=self._free_name(new))
        logger.info("building %s", new.name)
        if points.sequences is not None and not points.has_backgrounds:
            with contextlib.suppress(NoCollection, *FAULTS):
                points.backgrounds(known_backgrounds(self.open(), points))
        if not points.are_copied:
            new = replace(new, hidden=points.hidden())
        try:
            self.build(new, points)
            fault = self._find_fault(new, points, thorough=thorough, is_new=True)
            if fault is not None:
                raise PublishError(
                    f"{new.name} was not published, because {fault}: searches see the collection "
                    "that is current, so check the storage and publish again."
                )
        except SearchError as error:
            # If the server cannot be reached, the next publication drops it.
            if not isinstance(error, ServerUnreachable):
                with contextlib.suppress(SearchError):
                    self.drop(new.name)
            raise
        return new

    def _free_name(self, new: Description) -> str:
        name = first = name_of(self.collection, new.bundle, new.content)
        number = 1
        while self.is_taken(name):
            number += 1
            name = f"{first}-{number}"
        return name

    def _serve(
        self, new: Description, known: Iterable[str], history: Sequence[str], keep: int
    ) -> Description:
        """Make a complete collection current, and drop those that are no longer kept."""
        kept = [new.name, *(name for name in known if name != new.name)][:keep]
        if kept != history:
            self.serve(kept)
            logger.debug("%s is current", new.name)
        try:
            for name in self.names():
                if name not in kept:
                    self.drop(name)
        except SearchError as error:
            logger.warning("old collections are left for the next publication to drop: %s", error)
        return new
