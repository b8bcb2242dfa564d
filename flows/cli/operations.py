"""Commands for whoever operates a collection."""

from pathlib import Path
from typing import Annotated

import typer

from flows.cli import options, tables
from flows.cli.printing import show
from flows.cli.running import checking, searcher


def status(home: options.Home = None, as_json: options.AsJson = False) -> None:
    """Show the current collection, what it was made from, and the previous collections."""
    show(searcher(home).status(), as_json, tables.show_status)


def rollback(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[COLLECTION]",
            help="A collection that `covers status` shows; by default the one before.",
        ),
    ] = None,
    home: options.Home = None,
    as_json: options.AsJson = False,
) -> None:
    """Make the collection before, or the one that is named, the current one.

    Run it again to go forward again.
    """
    import search

    engine = search.connect(home=home)
    current = engine.rollback(name).name
    previous = [other for other in engine.history() if other != current]
    show({"collection": current, "previous": previous}, as_json, tables.show_paths)


def copy(
    to: Annotated[
        str | None, typer.Option(help="Copy to this workspace directory or URL of a Qdrant server.")
    ] = None,
    source: Annotated[
        str | None, typer.Option("--from", help="Copy from this directory or URL.")
    ] = None,
    home: options.Home = None,
    as_json: options.AsJson = False,
) -> None:
    """Copy the current collection to another place, or back. The copy answers exactly the same.

    If the other place is a Qdrant server, it is sent $COVERS_COPY_API_KEY.

    Example: covers copy --to backup
    """
    import search

    here = search.connect(home=home)
    if to is not None and source is None:
        copied = search.copy(here, search.connect(to))
    elif source is not None and to is None:
        copied = search.copy(search.connect(source), here)
    else:
        raise ValueError("Give either --to or --from.")
    show({"collection": copied.name}, as_json, tables.show_paths)


def gc(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what would be deleted.")
    ] = False,
    home: options.Home = None,
    as_json: options.AsJson = False,
) -> None:
    """Delete results that neither a collection nor the latest run needs.

    Publishing does this too.
    """
    from flows.retention import prune
    from flows.workspace import Workspace

    found = prune(Workspace.at(home), dry_run=dry_run)
    results = [{"kind": each.kind, "result": str(each.path), "bytes": each.size} for each in found]
    total = sum(each.size for each in found)
    content = {"dry_run": dry_run, "results": results, "bytes": total}
    show(content, as_json, tables.show_unneeded)


def serve(
    data: Annotated[Path, typer.Option(help="Features to publish, as in `covers pipeline`.")],
    train: options.TrainingData = None,
    encoder: options.Encoder = "autoencoder",
    config: options.ConfigFile = None,
    bundle: options.Bundle = None,
    schedule: Annotated[
        list[str] | None,
        typer.Option(
            help='A flow and its cron expression, such as pipeline="0 2 * * *" (the default). '
            "Repeat the option to schedule several flows."
        ),
    ] = None,
    sample: options.Sample = None,
    pool: Annotated[
        str | None,
        typer.Option(
            help="Register the flows for the workers of this work pool, and exit. A missing pool "
            "is created, for `prefect worker start --type process --pool NAME`."
        ),
    ] = None,
    home: options.Home = None,
) -> None:
    """Serve all flows to a Prefect server, which starts them on a schedule or by hand.

    PREFECT_API_URL must be set.

    Example: covers serve --data /data --bundle pretrained
    """
    settings, checks = options.read_config(config), checking(home)
    schedules = dict(options.read_pairs(schedule, "--schedule")) if schedule else None
    checks.check_schedules(schedules or {})
    inputs = checks.check_encoder(encoder, settings, bundle, train)
    checks.check_data(data, train, inputs=inputs)
    from flows import serve as serving

    made = serving.deployments(data, train, encoder, settings, bundle, home, schedules, sample)
    if pool is None:
        serving.serve(made)
    else:
        serving.deploy(made, pool)
