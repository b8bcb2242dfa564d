"""Similarity search for cover songs: prepare, publish, search and measure features of songs."""

import sys
from collections.abc import Callable
from importlib.metadata import version
from io import TextIOWrapper
from typing import Annotated

import typer

from flows import KNOWN_FAILURES, sentence_of
from flows.cli import measures, operations, questions, stages
from flows.cli.ids import AskingCommand
from flows.cli.interrupting import interruptible
from flows.cli.printing import visible

app = typer.Typer(
    name="covers",
    help=__doc__,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

#: All commands, by their heading in `covers --help`. A command has the name of its function.
COMMANDS: dict[str, list[Callable[..., None]]] = {
    "Prepare and publish": [
        stages.pipeline,
        stages.extract,
        stages.aggregate,
        stages.train,
        stages.embed,
        stages.publish,
        stages.add,
        stages.demo,
    ],
    "Ask": [
        questions.similar,
        questions.works,
        questions.identify,
        questions.same_work,
        questions.distance,
        questions.duplicates,
    ],
    "Measure": [measures.evaluate, measures.compare, measures.cluster],
    "Operate": [
        operations.status,
        operations.rollback,
        operations.copy,
        operations.gc,
        operations.serve,
    ],
}

for heading, commands in COMMANDS.items():
    for command in commands:
        kind = AskingCommand if heading == "Ask" else None
        app.command(rich_help_panel=heading, cls=kind)(command)


def print_version(asked: bool) -> None:
    """Print the version and exit."""
    if asked:
        sys.stdout.write(f"covers {version('covers')}\n")
        raise typer.Exit


@app.callback(help=__doc__)
def root(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=print_version, is_eager=True),
    ] = False,
) -> None:
    """Take the options that belong to no command."""


def main() -> None:
    """Run the command line. A known failure is one sentence on stderr, with exit code 1."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a terminal may lack characters of a title
            stream.reconfigure(errors="backslashreplace")
    try:
        with interruptible():
            app()
    except KNOWN_FAILURES as error:
        sys.stderr.write(f"covers: {visible(sentence_of(error))}\n")
        sys.exit(1)
