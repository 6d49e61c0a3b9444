"""The site that a command line describes: that of a `site.toml`, or one made up around a file of notes."""

from pathlib import Path

import typer
from click.core import ParameterSource
from pydantic import ValidationError

from client.notes import options
from client.notes.split import seeded_key
from client.site import Site, SiteConfig, open_site_file
from client.tasks import Task
from common.errors import InputError

_OF_A_FILE = ("query", "skip_bad")  # beside the columns: flags that say of a file what a site.toml says itself


def given_site(ctx: typer.Context, notes: str, seed: int, tasks: list[Task] | None = None) -> Site:
    """The site of the notes that `--notes` names, with `tasks` beside its own.

    The split of a file without a `site.toml` is keyed by `seed`, as in a simulation.

    Args:
        ctx: of a command with the flags of `client.notes.options`.

    Raises:
        InputError: `usage`, or as `open_site_file` and `notes_source`.
    """
    from client.notes.store import default_cache

    tasks, cache = tasks or [], ctx.params["cache"]
    if not notes.endswith(".toml"):
        source = options.notes_source(notes, ctx.params["query"], options.columns(ctx), ctx.params["skip_bad"])
        name = "database" if source.is_database else Path(notes).name[:100]
        config = SiteConfig(
            name=name, split_key=seeded_key(seed).hex(), cache=cache or default_cache(), notes=source, tasks=tasks
        )
        return Site(config, Path())
    of_a_file = [name for name in ctx.params if name.endswith("_column") or name in _OF_A_FILE]
    if said := [name for name in of_a_file if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE]:
        flags = ", ".join("--" + name.replace("_", "-") for name in said)
        raise InputError("usage", f"{flags}: a site.toml says that itself.", "Leave it out, or name the file of notes.")
    config = open_site_file(Path(notes))
    if twice := {task.name for task in tasks} & {task.name for task in config.tasks}:
        raise InputError(
            "usage", f"{notes} has a task {', '.join(sorted(twice))} of its own.", "Give yours another name."
        )
    changed = {"tasks": [*config.tasks, *tasks]} | ({"cache": cache.absolute()} if cache else {})
    return Site(config.model_copy(update=changed), Path(notes).parent)


def parse_tasks(given: list[str]) -> list[Task]:
    """The tasks of `--task NAME=COLUMN`. Raises InputError."""
    tasks: list[Task] = []
    for text in given:
        name, _, column = text.partition("=")
        try:
            tasks.append(Task(name=name.strip(), label=column.strip()))
        except ValidationError:
            raise InputError(
                "usage",
                f"--task {text}: it is not NAME=COLUMN, with a name of lower-case letters, digits and hyphens.",
                "For example --task severity=harm_grade.",
            ) from None
        if [task.name for task in tasks].count(tasks[-1].name) > 1:
            raise InputError("usage", f"Two tasks have the name {tasks[-1].name}.", "Give each a name of its own.")
    return tasks
