"""The site's key: made once, private, of the one kind that the coordinator takes."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from client.node.keys import load_key, make_key, public_text
from common.errors import InputError


def refused(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        load_key(path)
    return caught.value.code


def test_a_key_is_made_private_and_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "site.key"
    made = make_key(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert public_text(load_key(path)) == public_text(made)
    assert public_text(made).startswith("ecdsa-sha2-nistp384 ")
    assert [file.name for file in tmp_path.iterdir()] == ["site.key"]


def test_a_key_is_never_replaced(tmp_path: Path) -> None:
    make_key(tmp_path / "site.key")
    before = (tmp_path / "site.key").read_bytes()
    with pytest.raises(InputError, match="is there already"):
        make_key(tmp_path / "site.key")
    assert (tmp_path / "site.key").read_bytes() == before


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_key_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    make_key(tmp_path / "site.key")
    (tmp_path / "site.key").chmod(mode)
    assert refused(tmp_path / "site.key") == "key-permissions"


def test_what_is_no_such_key_is_refused(tmp_path: Path) -> None:
    assert refused(tmp_path / "missing.key") == "key-unreadable"
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH)
    other: list[bytes] = [
        b"no key",
        ed25519.Ed25519PrivateKey.generate().private_bytes(*form, serialization.NoEncryption()),
        ec.generate_private_key(ec.SECP256R1()).private_bytes(*form, serialization.NoEncryption()),
    ]
    for content in other:
        path = tmp_path / "site.key"
        path.write_bytes(content)
        path.chmod(0o600)
        assert refused(path) == "key-unreadable"
