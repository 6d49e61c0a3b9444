"""Who may take part, asked of a running coordinator by nodes as Flower has them."""

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from deployed import Connect, Running, free_port, registered
from flwr.proto.fleet_pb2 import RegisterNodeFleetRequest
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from name_spy import OURS

from common.errors import MachineError, StudyError
from common.supervisor import QUIET
from server.deployment import certificates
from server.deployment.certificates import Issued
from server.deployment.check import check, site_states
from server.deployment.config import make_config
from server.deployment.control import Control, synchronise
from server.deployment.registry import remove
from server.deployment.setup import initialise


def test_a_registered_site_is_seen_online_with_its_name(coordinator: Running, connect: Connect) -> None:
    key = registered(coordinator.server, "north")
    states = {one.name: one for one in site_states(coordinator.server)[0]}
    assert states["north"].state == "never seen"
    node = connect(key).activate()
    states = {one.name: one for one in site_states(coordinator.server)[0]}
    assert states["north"].state == "online" and states["north"].node == node
    since = states["north"].since
    assert since and datetime.now(UTC) - since < timedelta(minutes=1)
    with Control(coordinator.server) as control:
        assert public_key_to_bytes(key.public_key()) in [one.key for one in control.nodes() if one.name == "north"]
    texts = [one.text for one in check(coordinator.server) if one.what == "site"]
    assert any(text.startswith("north: online since") for text in texts)


def test_an_unregistered_key_is_refused(coordinator: Running, connect: Connect) -> None:
    with pytest.raises(httpx.HTTPStatusError) as caught:
        connect(ec.generate_private_key(ec.SECP384R1())).activate()
    assert 400 <= caught.value.response.status_code < 500


def test_a_stranger_cannot_register_itself(coordinator: Running, connect: Connect) -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    request = RegisterNodeFleetRequest(public_key=public_key_to_bytes(key.public_key()))
    with pytest.raises(httpx.HTTPStatusError) as caught:
        connect(key).client.RegisterNode(request)
    assert caught.value.response.status_code == 403


def test_a_node_without_a_key_is_refused(coordinator: Running, connect: Connect) -> None:
    key = registered(coordinator.server, "keyless")
    with pytest.raises(httpx.HTTPStatusError) as caught:  # though the key that it names is registered
        connect(key, signed=False).activate()
    assert caught.value.response.status_code == 401
    node = connect(key).activate()
    with pytest.raises(httpx.HTTPStatusError) as caught:
        connect(key, signed=False).pull(node)
    assert caught.value.response.status_code == 401


def test_a_site_cannot_speak_for_another(coordinator: Running, connect: Connect) -> None:
    one, other = registered(coordinator.server, "speaks"), registered(coordinator.server, "spoken-for")
    node = connect(other).activate()
    with pytest.raises(httpx.HTTPStatusError) as caught:
        connect(one).pull(node)
    assert caught.value.response.status_code == 401


def test_a_second_node_with_the_same_key_is_refused(coordinator: Running, connect: Connect) -> None:
    key = registered(coordinator.server, "twice")
    first = connect(key)
    node = first.activate()
    with pytest.raises(httpx.HTTPStatusError):
        connect(key).activate()
    assert first.pull(node) == 0


def test_a_removed_site_is_out_at_once_and_for_good(coordinator: Running, connect: Connect) -> None:
    key = registered(coordinator.server, "leaver")
    site = connect(key)
    node = site.activate()
    remove(coordinator.server, "leaver")
    assert synchronise(coordinator.server) == ([], ["leaver"])
    for again in (lambda: site.pull(node), site.activate, connect(key).activate):
        with pytest.raises(httpx.HTTPStatusError):
            again()
    newer = connect(registered(coordinator.server, "leaver"))  # with a new key it may come back
    assert newer.pull(newer.activate()) == 0


def test_an_expired_certificate_and_another_authority_are_refused(
    coordinator: Running, connect: Connect, tmp_path: Path
) -> None:
    """A gateway on a certificate that ran out an hour ago; and ours, asked by a site with another authority."""
    port = free_port()
    server = initialise(tmp_path / "c", "old", f"localhost:{port}", f"127.0.0.1:{port}", free_port(), None)
    key = serialization.load_pem_private_key((server.certificates / "ca.key").read_bytes(), None)
    authority = Issued(x509.load_pem_x509_certificate(server.ca.read_bytes()), key)  # type: ignore[arg-type]
    then = datetime.now(UTC) - timedelta(days=2)
    old = certificates._issue("localhost", ["localhost"], authority, then, days=1)
    certificates._write(server.certificate, server.key, old)
    command = [sys.executable, "-m", "server.deployment.gateway", str(server.folder)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            stranger, ca = ec.generate_private_key(ec.SECP384R1()), server.ca.read_bytes()
            site, reason = connect(stranger, address=f"localhost:{port}", ca=ca), ""
            for _ in range(100):
                try:
                    site.activate()
                except httpx.ConnectError as error:
                    reason = str(error)
                if "CERTIFICATE" in reason:
                    break
                time.sleep(0.1)
            assert "certificate has expired" in reason
        finally:
            process.kill()
    assert [one.level for one in check(server) if one.what == "certificate"] == ["error"]
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        connect(stranger, ca=ca).activate()


def test_flowers_own_node_is_refused_without_a_registered_key(coordinator: Running, tmp_path: Path) -> None:
    key = tmp_path / "key"
    secret = ec.generate_private_key(ec.SECP384R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    key.write_bytes(secret)
    command = [
        str(Path(sys.executable).with_name("flower-supernode")),
        *("--superlink", coordinator.address),
        *("--root-certificates", str(coordinator.server.ca)),
        *("--port", str(free_port())),
        *("--auth-supernode-private-key", str(key)),
        *("--max-retries", "0"),
    ]
    environment = QUIET | {"FLWR_HOME": str(tmp_path), "PATH": str(Path(sys.executable).parent)}
    said = tmp_path / "said.txt"
    with said.open("wb") as out:  # a pipe would be held open by what it has started
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=out, start_new_session=True)
    try:
        assert process.wait(60) != 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert "Failed to activate SuperNode" in said.read_text()


def test_a_run_starts_and_its_end_is_told(coordinator: Running, tmp_path: Path) -> None:
    """One whose folder holds no plan fails; one that is stopped at once is stopped."""
    with Control(coordinator.server) as control:
        failing = control.start_run(tmp_path / "no-such-run")
        deadline = time.monotonic() + 60
        while not (status := control.run_status(failing)).finished and time.monotonic() < deadline:
            time.sleep(0.3)
        assert status.status == "failed" and "no-such-run" in status.details
        assert not control.stop_run(failing)
        stopped = control.start_run(tmp_path / "no-such-run")
        assert control.stop_run(stopped)
        assert control.run_status(stopped).status == "stopped"
        for method in (control.run_status, control.stop_run):
            with pytest.raises(StudyError) as caught:
                method(12345)
            assert caught.value.code == "flower-run-unknown"


def test_a_call_waits_for_another_s_write(coordinator: Running, connect: Connect) -> None:
    """Longer than the five seconds after which Flower's own SuperLink gives it up, and the study's run with it."""
    site = connect(registered(coordinator.server, "patient"))
    node = site.activate()
    with contextlib.closing(sqlite3.connect(coordinator.server.database, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        answered: list[int] = []
        asking = threading.Thread(target=lambda: answered.append(site.pull(node)))
        asking.start()
        asking.join(6.5)
        assert not answered and asking.is_alive()  # it waits
        writer.execute("ROLLBACK")
        asking.join(10)
    assert answered == [0]


def test_without_a_superlink_the_reason_is_told(tmp_path: Path) -> None:
    server = initialise(tmp_path / "c", "a", "localhost:8443", None, free_port(), None)
    with Control(server) as control, pytest.raises(MachineError) as caught:
        control.nodes()
    assert caught.value.code == "superlink-unreachable"


def test_only_configured_names_are_looked_up(coordinator: Running) -> None:
    """By none of the processes, from the start of the coordinator on; of a whole study see tests/deployment."""
    found = set(coordinator.names.names())
    assert found and found <= OURS
    assert make_config("a", "localhost:1", None, 1).host == "localhost"
