"""Who is let in, and what a site is told where it is not."""

import shutil
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from fleet import Link, NodeProcess, coordinator, free_port, wait_for, write_certificates
from flwr.app import ConfigRecord, Message, RecordDict

from client.node.connection import Connection
from client.node.keys import load_key, make_key
from client.node.parcel import pack
from client.node.session import Session, open_session
from common.errors import FednotesError


def connected(link: Link, folder: Path, ca: Path | None = None, address: str = "") -> str:
    """The code with which a site is refused; empty where it is let in."""
    folder.mkdir(exist_ok=True)
    with open_session(folder) as session:
        return _connected(link, folder, session, ca, address)


def _connected(link: Link, folder: Path, session: Session, ca: Path | None, address: str) -> str:
    key, content = load_key(folder / "site.key"), (ca or link.ca).read_bytes()
    try:
        with Connection(address or link.address, content, key, session, threading.Event()):
            return ""
    except FednotesError as error:
        assert error.next_step
        return error.code


def test_a_registered_key_is_let_in_and_another_is_not(link: Link, tmp_path: Path) -> None:
    coordinator(link, tmp_path / "known")
    assert connected(link, tmp_path / "known") == ""
    assert connected(link, tmp_path / "known") == ""  # it had left in order
    (tmp_path / "unknown").mkdir()
    make_key(tmp_path / "unknown" / "site.key")
    assert connected(link, tmp_path / "unknown") == "not-registered"


def test_a_copy_of_a_site_is_refused_while_the_site_is_online(
    link: Link, node_site: Callable[..., Path], start_node: Callable[[Path], NodeProcess], tmp_path: Path
) -> None:
    folder = node_site(section=coordinator(link, tmp_path / "key"))
    node = start_node(folder)
    node.online()
    shutil.copytree(folder / "node", tmp_path / "copy" / "node")
    shutil.copy(tmp_path / "key" / "site.key", tmp_path / "copy" / "site.key")
    assert connected(link, tmp_path / "copy") == "key-in-use"
    node.process.kill()
    node.process.wait()
    assert connected(link, tmp_path / "copy") == "key-in-use"  # only the site itself knows that its node is dead
    node.start()
    wait_for(lambda: node.log.count("connected to") == 2, 10)


def test_a_reply_arrives_though_the_answers_to_its_upload_were_lost(
    link: Link, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The coordinator has handed it out by then, and waits for what is missing: it must come in the same upload."""
    own = coordinator(link, tmp_path / "site")
    with link.run() as run, open_session(tmp_path / "site") as session:
        key, ca = load_key(tmp_path / "site" / "site.key"), link.ca.read_bytes()
        with Connection(link.address, ca, key, session, threading.Event()) as connection:
            pushed: list[str] = []
            to_coordinator = connection._client.PushObject

            def push(request: Any) -> Any:
                answer = to_coordinator(request)
                pushed.append(request.object_id)
                if len(pushed) <= 2:
                    time.sleep(1.0)  # while the reply is handed out
                    raise httpx.RemoteProtocolError("cut off")
                return answer

            monkeypatch.setattr(connection._client, "PushObject", push)
            name = run.push_messages([Message(RecordDict(), connection.number, "query")])[0]
            asked = wait_for(connection.receive)
            content = RecordDict({f"part {number}": ConfigRecord({"number": number}) for number in range(8)})
            sending = threading.Thread(target=connection.send, args=(pack(Message(content, reply_to=asked.header)),))
            sending.start()
            reply = run.reply(name, 40)
            sending.join(20)
    assert own and not reply.has_error() and reply.content == content and not sending.is_alive()


def test_one_folder_has_one_node(link: Link, tmp_path: Path) -> None:
    coordinator(link, tmp_path / "site")
    with open_session(tmp_path / "site"):
        with pytest.raises(FednotesError) as caught:
            connected(link, tmp_path / "site")
        assert caught.value.code == "already-running"


def test_another_authority_is_not_trusted(link: Link, tmp_path: Path) -> None:
    coordinator(link, tmp_path / "site")
    write_certificates(tmp_path / "other")
    assert connected(link, tmp_path / "site", ca=tmp_path / "other" / "ca.crt") == "coordinator-certificate"
    (tmp_path / "no.crt").write_text("no certificate")
    assert connected(link, tmp_path / "site", ca=tmp_path / "no.crt") == "ca-unreadable"


def test_an_expired_certificate_is_refused(tmp_path: Path) -> None:
    expired = Link(tmp_path / "expired", days=-1)
    try:
        (tmp_path / "site").mkdir()
        make_key(tmp_path / "site" / "site.key")
        assert connected(expired, tmp_path / "site") == "coordinator-certificate"
    finally:
        expired.end()


def test_an_address_where_nobody_or_somebody_else_listens(link: Link, tmp_path: Path) -> None:
    coordinator(link, tmp_path / "site")
    assert connected(link, tmp_path / "site", address=f"127.0.0.1:{free_port()}") == "coordinator-unreachable"
    with socket.create_server(("127.0.0.1", 0)) as server:  # speaks no TLS

        def reject() -> None:
            peer, _ = server.accept()
            with peer:
                peer.recv(1000)
                peer.sendall(b"SSH-2.0-something\r\n")

        threading.Thread(target=reject, daemon=True).start()
        address = f"127.0.0.1:{server.getsockname()[1]}"
        assert connected(link, tmp_path / "site", address=address) == "coordinator-certificate"
