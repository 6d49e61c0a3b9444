"""The commands of `fednotes site` around a study: init, check, inspect, approve, withdraw, approvals, report, leave."""

import getpass
import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from common.errors import InputError

Folder = Annotated[Path, typer.Argument(help="The site's folder, with its site.toml.")]
Plan = Annotated[Path, typer.Argument(help="The study plan.", metavar="PLAN")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of words.")]
Yes = Annotated[bool, typer.Option("--yes", help="Ask nothing.")]
By = Annotated[
    str | None, typer.Option(help="Who decides (default: the login name).", metavar="NAME", show_default=False)
]

_COLUMNS = "Columns of the notes"
_POLICY = "Policy"
_INIT = """
Examples:

    fednotes site init north.zip --to hospital

    fednotes site init north.zip --to hospital --notes notes.csv --text body --patient subject_id --label ward --yes

    fednotes site init north.zip --to hospital --notes sqlite:///omop.db --query "SELECT * FROM note" --text note_text

Exit codes: 0 done, 2 wrong input, 3 the machine cannot, 130 interrupted; where it is not 0, nothing was made.
"""
_CHECK = """
Examples:

    fednotes site check hospital

    fednotes site check hospital --plan study.toml --json

Exit codes: 0 well, or with warnings; 2 wrong input; 3 an error stands.
"""
_INSPECT = """
Examples:

    fednotes site inspect study.toml hospital

    fednotes site inspect study.toml hospital --json

Exit codes: 0 printed, whatever the policy says of the plan; 2 wrong input; 3 the ledger or the approvals are damaged.
"""
_APPROVE = """
Examples:

    fednotes site approve study.toml hospital --by "Dr Kari Nordmann"

    fednotes site withdraw study.toml hospital

    fednotes site approvals hospital --json

Exit codes: 0 written down, 1 the site's policy refuses the plan, 2 wrong input, 3 the approvals are damaged, 130 not
confirmed.
"""
_REPORT = """
Examples:

    fednotes site report hospital

    fednotes site report hospital --plan study.toml --json

Exit codes: 0 done, 2 nothing was received yet, or no labels, 3 the machine cannot, 130 interrupted (what was trained is
kept).
"""
_LEAVE = """
Examples:

    fednotes site leave hospital

Exit codes: 0 done, 2 wrong input, 3 something could not be removed, 130 not confirmed.
"""


def register(app: typer.Typer) -> None:
    """Add the commands, in the order in which a hospital needs them."""
    app.command("init", epilog=_INIT)(init_command)
    app.command("check", epilog=_CHECK)(check_command)
    app.command("inspect", epilog=_INSPECT)(inspect_command)
    app.command("approve", epilog=_APPROVE)(approve_command)
    app.command("withdraw", epilog=_APPROVE)(withdraw_command)
    app.command("approvals", epilog=_APPROVE)(approvals_command)
    app.command("report", epilog=_REPORT)(report_command)
    app.command("leave", epilog=_LEAVE)(leave_command)


def init_command(
    kit: Annotated[Path, typer.Argument(help="The coordinator's kit, a zip.")],
    to: Annotated[Path, typer.Option(help="The folder to make.", metavar="FOLDER")],
    notes: Annotated[str | None, typer.Option(help="The file of notes, or a database URL.")] = None,
    query: Annotated[str | None, typer.Option(help="SQL that selects the notes of a database.")] = None,
    text: Annotated[
        str | None, typer.Option("--text", "--text-column", help="Text of a note.", rich_help_panel=_COLUMNS)
    ] = None,
    patient: Annotated[
        str | None, typer.Option("--patient", "--patient-column", help="Who it is about.", rich_help_panel=_COLUMNS)
    ] = None,
    category: Annotated[
        str | None, typer.Option("--category", "--category-column", help="Its kind.", rich_help_panel=_COLUMNS)
    ] = None,
    label: Annotated[
        str | None, typer.Option("--label", "--label-column", help="Answer of a task.", rich_help_panel=_COLUMNS)
    ] = None,
    date: Annotated[
        str | None, typer.Option("--date", "--date-column", help="Its date (ISO).", rich_help_panel=_COLUMNS)
    ] = None,
    split: Annotated[
        str | None, typer.Option("--split", "--split-column", help="train, dev or test.", rich_help_panel=_COLUMNS)
    ] = None,
    skip_bad: Annotated[int, typer.Option(help="Leave out up to this many broken rows.", min=0)] = 0,
    public: Annotated[
        str | None, typer.Option(help="File with text that is no secret, for private contrastive training.")
    ] = None,
    require_privacy: Annotated[
        bool | None,
        typer.Option(
            "--require-privacy/--allow-no-privacy",
            help="Whether to refuse studies without differential privacy (default: yes).",
            rich_help_panel=_POLICY,
            show_default=False,
        ),
    ] = None,
    max_epsilon: Annotated[
        float | None,
        typer.Option(
            help="Most that all private studies together may spend (default: 10).",
            rich_help_panel=_POLICY,
            show_default=False,
        ),
    ] = None,
    unit: Annotated[
        str, typer.Option(help="patient, or note: what is protected at least.", rich_help_panel=_POLICY)
    ] = "patient",
    max_rounds: Annotated[
        int | None, typer.Option(help="Most rounds of a study.", min=1, rich_help_panel=_POLICY)
    ] = None,
    release_scores: Annotated[
        bool,
        typer.Option(
            "--release-scores",
            help="Let the coordinator have scores of the encoder on your tasks, where a plan asks for them.",
            rich_help_panel=_POLICY,
        ),
    ] = False,
    yes: Yes = False,
) -> None:
    """Make a site from the coordinator's kit: its key, its site.toml, and the answer to send back.

    What no flag says is asked, where a person is at a terminal; no value of any note is shown. The folder is for this
    user alone. The private key is made here and never leaves.
    """
    from client.notes.options import notes_source
    from client.notes.source import Columns
    from client.setup import wizard
    from client.setup.init import Wish, make_site, refuse_occupied
    from client.site import Policy
    from common.kit import fingerprints, read_kit

    read = read_kit(kit)
    refuse_occupied(to)
    asks = wizard.at_terminal() and not yes
    console = Console()
    _say(console, f"The kit is for {read.name}, of the coordinator at {read.address}. Its authority's fingerprint:")
    for one in fingerprints(read.ca):
        _say(console, f"  {one} (compare it by telephone)")
    if notes is None and not asks:
        raise InputError("usage", "Where are the notes?", "Give --notes, or answer at a terminal.")
    if unit not in ("patient", "note"):
        raise InputError("usage", f"--unit {unit}: it is neither patient nor note.", "Give one of the two.")
    named = {"text": text, "patient": patient, "category": category, "label": label, "date": date, "split": split}
    columns = Columns.model_validate({field: name for field, name in named.items() if name is not None})
    if notes is None:
        notes, query = wizard.ask_source()
    source = notes_source(notes, query, columns, skip_bad)
    if asks and columns == Columns():
        source = wizard.ask_columns(source, console)
    text_source = notes_source(public, None, Columns(), 0) if public else wizard.ask_public() if asks else None
    try:
        policy = Policy.model_validate(
            {
                "require_privacy": True if require_privacy is None else require_privacy,
                "max_epsilon": 10.0 if max_epsilon is None else max_epsilon,
                "unit": unit,
                "max_rounds": max_rounds,
                "release_scores": release_scores,
            }
        )
    except ValueError:
        raise InputError("usage", f"--max-epsilon {max_epsilon} is no bound.", "Give a number above 0.") from None
    if asks and require_privacy is None and max_epsilon is None:
        policy = wizard.ask_policy(policy)
    if asks:
        _confirm(f"Make {to}?", default=True)
    answer = make_site(read, Wish(source, text_source, policy), to)
    _say(console, f"{to} is made, for this user alone. Look at its site.toml: its policy is strict.")
    _say(console, "What to do next:")
    _say(console, f"  1. Send {answer} to the coordinator. It holds no secret; the rest of the folder stays here.")
    _say(console, f"  2. fednotes site check {to}")
    _say(console, f"  3. When a plan comes: fednotes site inspect PLAN {to}, and fednotes site approve PLAN {to};")
    _say(console, f"     then fednotes site start {to}")


def check_command(
    folder: Folder,
    plan: Annotated[Path | None, typer.Option(help="Time the steps of this plan, too, and look at its needs.")] = None,
    as_json: Json = False,
) -> None:
    """Say what would go wrong in a study: notes, disk, memory, key, accounts, coordinator, certificate, clock, speed.

    The only thing that leaves is a look at the coordinator's /health. With --plan some steps are trained on the site's
    own notes and thrown away; their speed is kept in speed.json, for inspect.
    """
    from client.setup.check import check
    from client.setup.show import show_finding
    from common.plan import load_plan

    console, found = Console(), []
    for finding in check(folder, load_plan(plan) if plan else None):
        found.append(finding)
        if not as_json:
            show_finding(finding, console)
    if as_json:
        print(json.dumps([vars(finding) for finding in found], indent=2))
    if any(finding.state == "error" for finding in found):
        sys.exit(3)


def inspect_command(plan: Plan, folder: Folder, as_json: Json = False) -> None:
    """Print what a plan would do here, on one page: work, privacy, what would leave, and what the policy says of it."""
    from client.setup.outlook import look
    from client.setup.show import show_outlook
    from client.site import open_site
    from common.plan import load_plan

    page = look(open_site(folder), load_plan(plan))
    if as_json:
        print(page.model_dump_json(indent=2))
    else:
        show_outlook(page, Console())


def approve_command(plan: Plan, folder: Folder, by: By = None, yes: Yes = False) -> None:
    """Approve a plan: who, when, the plan's hash and the installed package, signed with the site's key.

    The approval holds for this very plan and this very package; another of either asks for a new one. What goes beyond
    the site's policy is refused.
    """
    from client.approval import record
    from client.setup.outlook import look
    from client.setup.show import show_essence
    from client.site import open_site
    from common.errors import FednotesError
    from common.plan import load_plan

    site, study, who = open_site(folder), load_plan(plan), by or getpass.getuser()
    page = look(site, study)
    console = Console()
    show_essence(page, console)
    if page.refusals:
        first = page.refusals[0]
        raise FednotesError(first.code, first.message, first.next_step)
    if page.approval is None and site.config.policy.require_approval:
        _say(console, "It is approved already.")
        return
    if not yes:
        _confirm(f"Approve it as {who}?")
    made = record(site, study, "approved", who)
    _say(console, f"Approved by {made.by}, {made.time}: plan {made.plan_hash}, package {made.package}.")


def withdraw_command(plan: Plan, folder: Folder, by: By = None, yes: Yes = False) -> None:
    """Withdraw the approval of a plan: from the next message on, the site refuses it.

    A round that is being trained is finished. What has left, has left; what the ledger was charged, stays charged.
    """
    from client.approval import record
    from client.site import open_site
    from common.plan import load_plan

    site, study, who = open_site(folder), load_plan(plan), by or getpass.getuser()
    if not yes:
        _confirm(f"Withdraw {study.study.name} ({study.hash()[:12]}) as {who}?")
    made = record(site, study, "withdrawn", who)
    _say(Console(), f"Withdrawn by {made.by}, {made.time}: plan {made.plan_hash}.")


def approvals_command(folder: Folder, as_json: Json = False) -> None:
    """Check the approvals of a site, and print them."""
    from client.approval import approvals
    from client.setup.show import show_approvals
    from client.site import open_site

    found = approvals(open_site(folder))
    if as_json:
        print(json.dumps([one.model_dump() for one in found], indent=2))
    elif found:
        show_approvals(found, Console())
    else:
        print("Nothing was approved here.")


def report_command(
    folder: Folder,
    plan: Annotated[Path | None, typer.Option(help="Of the study with this plan (default: the last).")] = None,
    as_json: Json = False,
) -> None:
    """Say what the site gained: on its own tasks, the shared encoder against training alone, and against none.

    Trains alone first, with the plan and steps of the study; that may take as long as the study did, and goes on where
    it was interrupted. Nothing leaves by this command. report.json has the same.
    """
    from client.setup.report import report
    from client.setup.show import show_report
    from client.site import open_site
    from common.plan import load_plan

    site = open_site(folder)
    console = Console(stderr=True)
    with console.status("Looking for what was received") as status:
        made = report(site, load_plan(plan) if plan else None, status.update)
    if as_json:
        print(made.model_dump_json(indent=2))
    else:
        show_report(made, Console())


def leave_command(folder: Folder, yes: Yes = False) -> None:
    """Leave: stop the node, destroy the site's key, remove what was made of its notes.

    site.toml, the ledger, receipts and approvals stay: what was spent of the notes' privacy stays spent after the
    study, and a later one has to count it. Your notes are not touched.
    """
    from client.site import open_site

    site = open_site(folder)
    if not yes:
        _confirm(f"Destroy the key of {site.name} and remove what was made of its notes?")

    from client.setup.leave import STAYS, leave

    console = Console()
    for place in leave(site, lambda text: _say(console, text)):
        _say(console, f"removed {place}")
    stays: list[str] = [name for name in STAYS if (site.folder / name).exists()]
    _say(console, f"Kept: {', '.join(stays)}. What was spent of the notes' privacy outlives the study: keep them.")
    _say(console, f"Tell the coordinator: fednotes server remove-site DIR {site.name}")


def _confirm(question: str, default: bool = False) -> None:
    """Go on only where a person agrees. Raises InputError `usage` where nobody answers."""
    try:
        agreed = typer.confirm(question, default=default)
    except typer.Abort:
        raise InputError("usage", "Nobody answered.", "Answer at a terminal, or give --yes.") from None
    if not agreed:
        print("Nothing was done.")
        raise typer.Exit(130)


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)
