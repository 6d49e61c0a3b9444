"""`fednotes server`: a coordinator's folder, its sites, and what runs there."""

import json
import os
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from common.errors import InputError, MachineError

app = typer.Typer(
    help="Coordinate a federation of real sites: set it up, add sites, run it, see what is wrong.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)

Folder = Annotated[Path, typer.Argument(help="The coordinator's folder, with its server.toml.")]
Name = Annotated[str, typer.Argument(help="The site's name: a-z, 0-9 and -.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Certificate = Annotated[Path | None, typer.Option(help="The certificate, with those between it and the authority.")]
Key = Annotated[Path | None, typer.Option(help="The certificate's key.")]
Authority = Annotated[Path | None, typer.Option(help="The authority that sites are to trust.")]

_INIT = """
Examples:

    fednotes server init trial --address fed.example.org:8443 --name "Nordic trial"

    fednotes server init trial --address fed.example.org:8443 --certificate fed.pem --key fed.key --ca trust.pem

Exit codes: 0 made, 2 wrong input, 3 the folder cannot be written.
"""
_ADD = """
Examples:

    fednotes server add-site trial north

    fednotes server add-site trial north --key north.key.json

Exit codes: 0 done, 2 wrong input, 3 the registry is damaged.
"""
_REMOVE = """
Example:

    fednotes server remove-site trial north

Exit codes: 0 done, 2 there is no such site, 3 the registry is damaged.
"""
_SITES = """
Examples:

    fednotes server sites trial

    fednotes server sites trial --json

Exit codes: 0 printed, 2 wrong input, 3 the registry is damaged.
"""
_START = """
Examples:

    fednotes server start trial

    fednotes server start trial --json

Exit codes: 0 ended by a signal, 2 wrong input, 3 it runs already, or a port is taken.
"""
_CHECK = """
Examples:

    fednotes server check trial

    fednotes server check trial --json

Exit codes: 0 no error (there may be warnings), 2 wrong input, 3 at least one error.
"""
_RENEW = """
Examples:

    fednotes server renew trial

    fednotes server renew trial --certificate fed.pem --key fed.key --ca trust.pem

Exit codes: 0 renewed, 2 wrong input, 3 the folder cannot be written.
"""
_TEMPLATES = """
Example:

    fednotes server templates trial --to deployment

Exit codes: 0 written, 2 wrong input, 3 the folder cannot be written.
"""


@app.callback()
def private() -> None:
    # Whatever these commands write, keys and logs alike, is for this user only.
    os.umask(0o077)


@app.command("init", epilog=_INIT)
def init_command(
    folder: Annotated[Path, typer.Argument(help="A new folder for the coordinator.")],
    address: Annotated[str, typer.Option(help="Where sites reach it: host:port.")],
    name: Annotated[str, typer.Option(help="What the federation is called.")] = "fednotes",
    listen: Annotated[str | None, typer.Option(help="Where the gateway listens; every network, by default.")] = None,
    flower_port: Annotated[int, typer.Option(help="A port on 127.0.0.1 for Flower.", min=1, max=65535)] = 9092,
    certificate: Certificate = None,
    key: Key = None,
    ca: Authority = None,
    as_json: Json = False,
) -> None:
    """Make a coordinator's folder: settings, certificates, secrets, an empty list of sites.

    Without --certificate, --key and --ca the coordinator becomes its own authority; sites get it in their kits.
    """
    from server.deployment.setup import initialise

    initialise(folder, name, address, listen, flower_port, _foreign(certificate, key, ca))
    if as_json:
        print(json.dumps({"folder": str(folder), "address": address}))
        return
    print(f"Made {folder}, for this user only. Sites will reach it at {address}.")
    print(f"Next: `fednotes server add-site {folder} NAME` for each site, then `fednotes server start {folder}`.")


@app.command("renew", epilog=_RENEW)
def renew_command(
    folder: Folder, certificate: Certificate = None, key: Key = None, ca: Authority = None, as_json: Json = False
) -> None:
    """Renew the gateway's certificate, for the address that server.toml says.

    The coordinator's own authority stays, and so do the sites' kits. With a certificate by another authority than
    before, each site needs the authority's file.
    """
    from server.deployment.certificates import adopt, expiry, renew
    from server.deployment.config import Server

    server, foreign = Server(folder), _foreign(certificate, key, ca)
    if foreign:
        adopt(server, server.config(), *foreign)
    else:
        renew(server, server.config())
    until = expiry(server.certificate)
    if as_json:
        print(json.dumps({"valid_until": until.isoformat()}))
    else:
        print(f"Renewed until {until:%Y-%m-%d}. It is used from the next `fednotes server start` on.")


@app.command("add-site", epilog=_ADD)
def add_site_command(
    folder: Folder,
    name: Name,
    key: Annotated[Path | None, typer.Option(help="The site's answer, NAME.key.json.")] = None,
    as_json: Json = False,
) -> None:
    """Add a site: first its kit is written, which you give to the site; then, with --key, its answer is registered.

    The key in the answer is the site's public one; it proves that the site holds the private one, and got this kit.
    Make sure that the answer comes from the site, for instance by telephone: whoever answers is taken for it.
    """
    from server.deployment.config import Server
    from server.deployment.registry import accept, invite

    server = Server(folder)
    if key is None:
        from common.kit import fingerprints

        invite(server, name)
        kit = server.kits / f"{name}.zip"
        authority = fingerprints(server.ca.read_text("utf-8"))
        said = [f"Wrote {kit}. Give it to the site; it answers with {name}.key.json.", _answer_next(folder, name)]
        said.append("The site sees this fingerprint of our authority; compare it by telephone:")
        said += [f"  {one}" for one in authority]
        _done(as_json, {"site": name, "kit": str(kit), "fingerprints": authority}, said)
        return
    from common.kit import read_answer

    accept(server, name, read_answer(key))
    known = _synchronised(server)
    said = [f"{name} is registered." if known else f"{name} is registered, and known once the coordinator runs."]
    _done(as_json, {"site": name, "registered": True, "superlink_knows": known}, said)


@app.command("remove-site", epilog=_REMOVE)
def remove_site_command(folder: Folder, name: Name, as_json: Json = False) -> None:
    """Remove a site: it is thrown out at once, and its key is refused for ever. It may come back with a new key."""
    from server.deployment.config import Server
    from server.deployment.registry import remove

    server = Server(folder)
    remove(server, name)
    known = _synchronised(server)
    said = [f"{name} is removed." if known else f"{name} is removed, and refused once the coordinator runs."]
    _done(as_json, {"site": name, "removed": True, "superlink_knows": known}, said)


@app.command("sites", epilog=_SITES)
def sites_command(folder: Folder, as_json: Json = False) -> None:
    """List the sites: invited or registered, online or not, and since when."""
    from server.deployment.check import site_states
    from server.deployment.config import Server

    states, runs = site_states(Server(folder))
    if as_json:
        rows = [{"site": one.name, "state": one.state, "since": _iso(one.since), "node": one.node} for one in states]
        print(json.dumps({"running": runs, "sites": rows}, indent=2))
        return
    if not states:
        print(f"There are no sites. Add one: `fednotes server add-site {folder} NAME`.")
        return
    table = Table(box=None, pad_edge=False)
    for column in ("site", "state", "since (UTC)"):
        table.add_column(column)
    for one in states:
        table.add_row(one.name, one.state, f"{one.since:%Y-%m-%d %H:%M}" if one.since else "")
    Console().print(table)
    if not runs:
        print("The coordinator does not run, so nothing is known of who is online.")


@app.command("start", epilog=_START)
def start_command(folder: Folder, as_json: Json = False) -> None:
    """Run the coordinator until it is told to stop: the SuperLink, its executor, and the gateway.

    What ends is started again. Ctrl-C or SIGTERM ends all of it; studies under way can be resumed.
    """
    from server.deployment.config import Server
    from server.deployment.processes import start

    server = Server(folder)
    config = server.config()
    facts = {
        "sites connect to": config.address,
        "the gateway listens on": config.listen or "nothing: a reverse proxy takes its place",
        "the SuperLink, inside": f"127.0.0.1:{config.flower_port}",
        "logs": str(server.logs),
    }
    if as_json:
        print(json.dumps({"event": "starting", "time": _now(), **facts}), flush=True)
    else:
        for what, value in facts.items():
            print(f"{what:<23} {value}", flush=True)

    def say(line: str) -> None:
        text = json.dumps({"event": "said", "time": _now(), "text": line}) if as_json else f"{_now()} {line}"
        print(text, flush=True)

    start(server, say)


@app.command("check", epilog=_CHECK)
def check_command(folder: Folder, as_json: Json = False) -> None:
    """Say what is wrong before a study does: certificates, clock, ports, secrets, disk, sites, database, versions."""
    from server.deployment.check import check
    from server.deployment.config import Server

    findings = check(Server(folder))
    if as_json:
        print(json.dumps([vars(one) for one in findings], indent=2))
    else:
        console = Console(highlight=False, soft_wrap=True, markup=False)
        for one in findings:
            console.print(f"{one.level:<7} {one.what:<12} {one.text}")
            if one.fix:
                console.print(f"{'':<20} {one.fix}")
    if any(one.level == "error" for one in findings):
        raise typer.Exit(MachineError.exit_code)


@app.command("templates", epilog=_TEMPLATES)
def templates_command(
    folder: Folder,
    to: Annotated[Path, typer.Option(help="A folder for the files.")],
    as_json: Json = False,
) -> None:
    """Write systemd units, an nginx configuration and a compose file, filled in for this coordinator.

    They are to be read and installed by whoever runs the machine; nothing is installed.
    """
    from server.deployment.config import Server
    from server.deployment.production import write_templates

    files = write_templates(Server(folder), to)
    said = [f"Wrote {file}" for file in files]
    _done(as_json, {"files": [str(file) for file in files]}, said)


def _foreign(certificate: Path | None, key: Path | None, ca: Path | None) -> tuple[Path, Path, Path] | None:
    given = [path for path in (certificate, key, ca) if path]
    if not given:
        return None
    if not (certificate and key and ca):
        raise InputError("usage", "Of --certificate, --key and --ca only some were given.", "Give all three.")
    return certificate, key, ca


def _synchronised(server: Any) -> bool:
    """Tell the SuperLink at once, where it runs. Returns whether it knows."""
    from common.supervisor import running

    if running(server.state) is None:
        return False
    from server.deployment.control import synchronise

    try:
        synchronise(server)
    except MachineError as error:
        if error.code != "superlink-unreachable":
            raise
        return False
    return True


def _answer_next(folder: Path, name: str) -> str:
    return f"Then: `fednotes server add-site {folder} {name} --key {name}.key.json`."


def _done(as_json: bool, facts: dict[str, Any], said: list[str]) -> None:
    print(json.dumps(facts) if as_json else "\n".join(said))


def _iso(time: datetime | None) -> str | None:
    return time.isoformat(timespec="seconds") if time else None


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")
