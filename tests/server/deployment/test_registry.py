"""Who may take part, as the coordinator's folder has it."""

import json
import threading
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from common.errors import InputError, MachineError
from common.kit import KeyReply, answer, read_kit
from server.deployment.config import Server
from server.deployment.control import pem
from server.deployment.registry import accept, invite, load_registry, remove
from server.deployment.setup import initialise


@pytest.fixture
def server(tmp_path: Path) -> Server:
    return initialise(tmp_path / "c", "trial", "fed.example.org:8443", None, 9092, None)


def reply(server: Server, name: str, key: ec.EllipticCurvePrivateKey) -> KeyReply:
    return answer(read_kit(server.kits / f"{name}.zip"), key)


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP384R1())


def refused(code: str, call: object, *arguments: object) -> None:
    with pytest.raises(InputError) as caught:
        call(*arguments)  # type: ignore[operator]
    assert caught.value.code == code


def test_a_site_is_invited_and_registered(server: Server) -> None:
    kit = invite(server, "north")
    assert read_kit(server.kits / "north.zip") == kit
    assert kit.address == "fed.example.org:8443" and kit.ca == server.ca.read_text()
    assert load_registry(server).sites["north"].public_key == ""
    good = reply(server, "north", new_key())
    accept(server, "north", good)
    accept(server, "north", good)  # twice is fine
    assert load_registry(server).sites["north"].public_key == good.public_key


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/b", "A", "a b", "-a", "a-", "å", "a\n", "a" * 41, "con.zip"]
)
def test_an_unsafe_name_is_refused(server: Server, name: str) -> None:
    refused("site-name-invalid", invite, server, name)
    assert load_registry(server).sites == {} and list(server.kits.iterdir()) == []


def test_only_the_newest_kit_can_be_answered(server: Server) -> None:
    invite(server, "north")
    old = reply(server, "north", new_key())
    invite(server, "north")  # it was lost
    refused("key-reply-invalid", accept, server, "north", old)
    accept(server, "north", reply(server, "north", new_key()))
    refused("site-exists", invite, server, "north")
    refused("site-exists", accept, server, "north", reply(server, "north", new_key()))


def test_a_key_that_another_site_has_is_refused(server: Server) -> None:
    key = new_key()
    for name in ("north", "south"):
        invite(server, name)
    accept(server, "north", reply(server, "north", key))
    refused("key-taken", accept, server, "south", reply(server, "south", key))
    commented = reply(server, "south", key)
    commented = commented.model_copy(update={"public_key": f"{commented.public_key} somebody@somewhere"})
    refused("key-taken", accept, server, "south", commented)
    refused("key-reply-invalid", accept, server, "south", reply(server, "north", new_key()))


def test_a_key_that_is_spelt_otherwise_is_the_same_key(server: Server) -> None:
    """The last digit of its base64 has bits to spare, which readers ignore."""
    key = new_key()
    for name in ("north", "south"):
        invite(server, name)
    accept(server, "north", reply(server, "north", key))
    other = reply(server, "south", key)
    stem, last = other.public_key.removesuffix("==")[:-1], other.public_key[-3]
    spelt = f"{stem}{chr(ord(last) + 1)}=="
    assert pem(spelt) == pem(other.public_key) and spelt != other.public_key
    refused("key-taken", accept, server, "south", other.model_copy(update={"public_key": spelt}))
    remove(server, "north")
    refused("key-taken", accept, server, "south", other.model_copy(update={"public_key": spelt}))


def test_a_removed_key_is_refused_for_ever(server: Server) -> None:
    key = new_key()
    invite(server, "north")
    accept(server, "north", reply(server, "north", key))
    remove(server, "north")
    assert not (server.kits / "north.zip").exists()
    refused("site-unknown", remove, server, "north")
    refused("site-unknown", accept, server, "north", KeyReply(name="north", public_key="", signature="00"))
    for name in ("north", "other"):
        invite(server, name)
        refused("key-taken", accept, server, name, reply(server, name, key))
    accept(server, "north", reply(server, "north", new_key()))


def test_many_at_a_time_lose_nothing(server: Server) -> None:
    threads = [threading.Thread(target=invite, args=(server, f"site-{number}")) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(load_registry(server).sites) == 20


def test_a_damaged_registry_is_never_taken_for_an_empty_one(server: Server) -> None:
    whole = server.sites.read_text()
    for content in ("", "{", "[]", json.dumps({"format": 2}), whole.replace('"sites"', '"site"')):
        server.sites.write_text(content)
        with pytest.raises(MachineError) as caught:
            load_registry(server)
        assert caught.value.code == "registry-damaged"
        assert server.sites.read_text() == content
    server.sites.unlink()
    with pytest.raises(MachineError):
        load_registry(server)
