"""`fednotes server` as a person uses it: each command in a process of its own, and what it says when it cannot."""

import json
import os
import shutil
import socket
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import ec
from deployed import Running, fednotes, free_port

from common.errors import InputError, MachineError
from common.kit import answer, read_kit, write_answer
from common.supervisor import QUIET
from server.deployment.check import check
from server.deployment.config import SERVER_FILE, Server, make_config
from server.deployment.processes import check_ports, children
from server.deployment.production import write_templates
from server.deployment.setup import initialise
from server.deployment.superlink import compact


def new(tmp_path: Path, name: str = "c", **other: str) -> Server:
    port = free_port()
    return initialise(
        tmp_path / name, "trial", other.get("address", f"localhost:{port}"), f"127.0.0.1:{port}", free_port(), None
    )


def error(done: "subprocess.CompletedProcess[str]") -> tuple[str, int]:
    return json.loads(done.stdout)["error"]["code"], done.returncode


def test_a_coordinator_is_made_and_gets_a_site_by_commands(tmp_path: Path) -> None:
    folder = tmp_path / "trial"
    done = fednotes("server", "init", folder, "--address", "fed.example.org:8443", "--name", "Nordic trial")
    assert done.returncode == 0, done.stderr
    assert "fed.example.org:8443" in done.stdout and "add-site" in done.stdout
    assert all(stat.S_IMODE(path.stat().st_mode) & 0o077 == 0 for path in folder.rglob("*"))

    done = fednotes("server", "add-site", folder, "north", "--json")
    kit = Path(json.loads(done.stdout)["kit"])
    write_answer(tmp_path / "north.key.json", answer(read_kit(kit), ec.generate_private_key(ec.SECP384R1())))
    done = fednotes("server", "add-site", folder, "north", "--key", tmp_path / "north.key.json")
    assert done.returncode == 0 and "registered" in done.stdout

    listed = json.loads(fednotes("server", "sites", folder, "--json").stdout)
    assert listed["running"] is False
    assert [(one["site"], one["state"]) for one in listed["sites"]] == [("north", "registered")]
    assert fednotes("server", "remove-site", folder, "north").returncode == 0
    assert error(fednotes("server", "remove-site", folder, "north", "--json")) == ("site-unknown", 2)
    assert error(fednotes("server", "init", folder, "--address", "a:1", "--json")) == ("out-exists", 2)


def test_settings_can_be_read_again_with_their_comments(tmp_path: Path) -> None:
    server = new(tmp_path)
    text = (server.folder / SERVER_FILE).read_text()
    assert text.count("# ") > 10 and server.config().text() == text
    (server.folder / SERVER_FILE).write_text(text.replace("connections = 64", "connections = 8"))
    assert server.config().gateway.connections == 8


@pytest.mark.parametrize(
    "address",
    ["fed.example.org", "fed.example.org:0", "https://fed.example.org:8443", "a b:1", "x:99999", 'a":1', ":8443"],
)
def test_a_wrong_address_is_refused(address: str) -> None:
    with pytest.raises(InputError) as caught:
        make_config("a", address, None, 1)
    assert caught.value.code == "server-invalid" and "address" in caught.value.message


def test_settings_that_cannot_be_are_refused_all_at_once(tmp_path: Path) -> None:
    server = new(tmp_path)
    text = (server.folder / SERVER_FILE).read_text()
    wrong = text.replace('name = "trial"', 'name = "a\\"b"\ncolour = "red"').replace("body_mib = 16", "body_mib = 1")
    (server.folder / SERVER_FILE).write_text(wrong.replace('listen = "127.0.0.1', 'listen = "example.org'))
    with pytest.raises(InputError) as caught:
        server.config()
    assert all(word in caught.value.message for word in ("name", "colour", "body_mib", "listen"))
    (server.folder / SERVER_FILE).write_text("name =")
    with pytest.raises(InputError, match="not TOML"):
        server.config()
    assert error(fednotes("server", "check", tmp_path, "--json")) == ("server-missing", 2)


def test_wrong_certificates_leave_no_folder_behind(tmp_path: Path) -> None:
    words = ("server", "init", tmp_path / "t", "--address", "a.org:1", "--json", "--certificate", tmp_path / "none")
    assert error(fednotes(*words)) == ("usage", 2)
    assert error(fednotes(*words, "--key", tmp_path / "none", "--ca", tmp_path / "none")) == (
        "certificate-unreadable",
        2,
    )
    assert not (tmp_path / "t").exists()


def test_a_second_start_is_refused_and_the_first_goes_on(coordinator: Running) -> None:
    done = fednotes("server", "start", coordinator.server.folder)
    assert done.returncode == 3 and "already-running" in done.stderr
    assert coordinator.process.poll() is None


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    server = new(tmp_path)
    listener = server.config().listener
    assert listener
    with socket.create_server(listener):
        done = fednotes("server", "start", server.folder)
        assert done.returncode == 3 and "port-taken" in done.stderr and str(listener[1]) in done.stderr
        assert any(one.level == "error" and str(listener[1]) in one.text for one in check(server))
    assert listener[1] in check_ports(server)


def test_an_address_that_is_not_this_machines_is_named(tmp_path: Path) -> None:
    server = initialise(tmp_path / "c", "a", "localhost:8443", "192.0.2.7:8443", free_port(), None)
    with pytest.raises(InputError) as caught:
        check_ports(server)
    assert caught.value.code == "address-foreign" and "192.0.2.7" in caught.value.message


def test_the_check_of_a_running_coordinator_has_no_error(coordinator: Running) -> None:
    done = fednotes("server", "check", coordinator.server.folder, "--json")
    found = {one["what"]: one for one in json.loads(done.stdout)}
    assert done.returncode == 0, done.stdout
    assert {"certificate", "clock", "secrets", "processes", "address", "disk", "database", "site", "versions"} <= set(
        found
    )
    assert "our certificate" in found["address"]["text"] and "They run" in found["processes"]["text"]


def test_the_check_finds_what_is_wrong(tmp_path: Path) -> None:
    server = new(tmp_path)
    assert [one.what for one in check(server) if one.level != "ok"] == ["site"]  # there are none
    server.key.chmod(0o644)
    server.executor_secret.unlink()
    os.utime(server.sites, (4e9, 4e9))
    found = [(one.what, one.text) for one in check(server) if one.level == "error"]
    assert [what for what, _ in found] == ["clock", "secrets", "secrets"]
    done = fednotes("server", "check", server.folder)
    assert done.returncode == 3 and f"chmod go-rwx {server.key}" in done.stdout
    server.sites.write_text("{")
    server.ca.unlink()
    assert {"certificates", "sites"} <= {one.what for one in check(server) if one.level == "error"}


def test_a_certificate_that_ends_soon_or_is_for_elsewhere_is_found(tmp_path: Path) -> None:
    server = new(tmp_path)
    moved = server.config().text().replace('address = "localhost:', 'address = "elsewhere.invalid:')
    (server.folder / SERVER_FILE).write_text(moved)
    found = {one.what: one for one in check(server)}
    assert found["certificate"].level == "error" and "elsewhere.invalid" in found["certificate"].text
    assert found["address"].level == "warning"  # no name service knows it
    assert fednotes("server", "renew", server.folder).returncode == 0
    assert {one.what: one for one in check(server)}["certificate"].level == "ok"


def test_all_processes_are_quiet_and_know_no_proxy(tmp_path: Path) -> None:
    for child in children(new(tmp_path)):
        assert child.environment.items() >= QUIET.items()
        assert "127.0.0.1" in child.environment["NO_PROXY"].split(",")


def test_without_a_listener_there_is_no_gateway(tmp_path: Path) -> None:
    server = initialise(tmp_path / "c", "a", "fed.example.org:443", "", free_port(), None)
    assert [child.name for child in children(server)] == ["superlink", "sites", "superexec"]
    assert len(check_ports(server)) == 1
    write_templates(server, tmp_path / "t")
    assert "listen 0.0.0.0:443 ssl;" in (tmp_path / "t" / "fednotes-nginx.conf").read_text()


def test_a_database_shrinks(tmp_path: Path) -> None:
    path = tmp_path / "superlink.db"
    assert compact(path) == 0
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA journal_mode = wal")
        database.execute("CREATE TABLE objects (content BLOB)")
        database.executemany("INSERT INTO objects VALUES (?)", [(os.urandom(5_000_000),) for _ in range(14)])
        database.execute("DELETE FROM objects WHERE rowid > 2")
    database.close()
    assert path.stat().st_size > 60_000_000
    assert compact(path) > 50_000_000 and path.stat().st_size < 15_000_000
    assert compact(path) == 0  # nothing worth it is left
    with sqlite3.connect(path) as database:
        assert database.execute("SELECT count(*) FROM objects").fetchone() == (2,)
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(sqlite3.Error):
        compact(path)


def test_templates_are_filled_in(tmp_path: Path) -> None:
    server = new(tmp_path)
    done = fednotes("server", "templates", server.folder, "--to", tmp_path / "t")
    assert done.returncode == 0, done.stderr
    texts = {path.name: path.read_text() for path in (tmp_path / "t").iterdir()}
    assert len(texts) == 4 and not any("{{" in text or "{%" in text for text in texts.values())
    unit = texts["fednotes-coordinator.service"]
    assert f"server start {server.folder}\n" in unit and all(f"Environment={key}=" in unit for key in QUIET)
    service = yaml.safe_load(texts["compose.yaml"])["services"]["coordinator"]
    assert service["volumes"] == [f"{server.folder}:/coordinator"] and service["read_only"] is True
    assert QUIET.items() <= service["environment"].items()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_units_are_accepted_by_systemd(tmp_path: Path) -> None:
    server = new(tmp_path)
    for unit in write_templates(server, tmp_path / "t")[:2]:
        done = subprocess.run(
            ["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0 and unit.name not in done.stderr, done.stderr


def test_a_folder_that_templates_would_misread_is_refused(tmp_path: Path) -> None:
    server = new(tmp_path, name="my trial")
    with pytest.raises(InputError) as caught:
        write_templates(server, tmp_path / "t")
    assert caught.value.code == "path-unsafe"


def test_an_unwritable_place_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises((MachineError, InputError)):
        initialise(tmp_path / "file" / "c", "a", "a.org:1", None, 1, None)


def test_help_is_quick_and_has_examples() -> None:
    for command in ("init", "renew", "add-site", "remove-site", "sites", "start", "check", "templates"):
        from typer.testing import CliRunner

        from server.cli import app

        said = CliRunner().invoke(app, [command, "--help"]).output
        assert "Example" in said and "Exit codes" in said, command
    code = (
        "import sys, server.cli; sys.exit(any(name in sys.modules for name in ('torch', 'flwr', 'numpy', 'uvicorn')))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=30, check=False).returncode == 0
