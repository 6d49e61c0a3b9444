"""A kit and its answer, and everything that is not one."""

import io
import json
import os
import stat
import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import NameOID

from common.errors import InputError
from common.kit import (
    CA_FILE,
    KIT_FILE,
    KeyReply,
    Kit,
    answer,
    check_answer,
    fingerprints,
    read_answer,
    read_kit,
    write_answer,
    write_kit,
)

CHALLENGE = "5a" * 32


def authority() -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a test")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    signed = builder.not_valid_before(now).not_valid_after(now + timedelta(days=1)).sign(key, hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM).decode()


@pytest.fixture(scope="module")
def ca() -> str:
    return authority()


@pytest.fixture
def kit(ca: str) -> Kit:
    return Kit(name="north", address="fed.example.org:8443", challenge=CHALLENGE, ca=ca)


def archive(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for name, content in members.items():
            made.writestr(name, content)
    return path


def members(kit: Kit, tmp_path: Path) -> dict[str, bytes]:
    write_kit(tmp_path / "good.zip", kit)
    with zipfile.ZipFile(tmp_path / "good.zip") as made:
        return {name: made.read(name) for name in made.namelist()}


def refused(path: Path) -> InputError:
    with pytest.raises(InputError) as caught:
        read_kit(path)
    return caught.value


def test_a_kit_comes_back_as_it_was(kit: Kit, tmp_path: Path) -> None:
    write_kit(tmp_path / "north.zip", kit)
    assert read_kit(tmp_path / "north.zip") == kit
    assert stat.S_IMODE((tmp_path / "north.zip").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("format", 2),
        ("name", "../north"),
        ("name", "North"),
        ("name", ""),
        ("address", "fed.example.org"),
        ("address", "fed.example.org:0"),
        ("address", "fed.example.org:70000"),
        ("address", "https://fed.example.org:8443"),
        ("address", "a b:8443"),
        ("challenge", "5a"),
        ("command", "rm -r /"),
    ],
)
def test_a_kit_with_a_wrong_value_is_refused(key: str, value: object, kit: Kit, tmp_path: Path) -> None:
    import tomli_w

    content = kit.model_dump(exclude={"ca"}) | {key: value}
    path = archive(tmp_path / "k.zip", {KIT_FILE: tomli_w.dumps(content).encode(), CA_FILE: kit.ca.encode()})
    error = refused(path)
    assert error.code == "kit-invalid" and key in error.message


def test_unknown_members_and_traversal_are_refused(kit: Kit, tmp_path: Path) -> None:
    good = members(kit, tmp_path)
    for name in ("../../site.toml", "/etc/passwd", "client/app.py", "kit.toml/x"):
        assert refused(archive(tmp_path / "k.zip", {**good, name: b"x"})).code == "kit-invalid"
    assert refused(archive(tmp_path / "k.zip", {KIT_FILE: good[KIT_FILE]})).code == "kit-invalid"
    assert not (tmp_path.parent / "site.toml").exists()


def test_a_certificate_that_is_none_or_a_private_key_is_refused(kit: Kit, tmp_path: Path) -> None:
    good = members(kit, tmp_path)
    key = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    for content in (b"", b"hello", key, good[CA_FILE] + key, b"\xff\xfe"):
        assert refused(archive(tmp_path / "k.zip", {**good, CA_FILE: content})).code == "kit-invalid"


def test_a_zip_bomb_is_not_unpacked(kit: Kit, tmp_path: Path) -> None:
    good = members(kit, tmp_path)
    path = archive(tmp_path / "bomb.zip", {**good, CA_FILE: b"\0" * 50_000_000})
    assert path.stat().st_size < 100_000
    assert "larger" in refused(path).message

    content = bytearray(path.read_bytes())  # the sizes in its headers say that it is small
    for place in range(len(content) - 4):
        if content[place : place + 4] == (50_000_000).to_bytes(4, "little"):
            content[place : place + 4] = (1000).to_bytes(4, "little")
    (tmp_path / "lie.zip").write_bytes(content)
    assert refused(tmp_path / "lie.zip").code == "kit-invalid"


def test_any_damage_is_a_refusal_and_never_a_traceback(kit: Kit, tmp_path: Path) -> None:
    write_kit(tmp_path / "good.zip", kit)
    whole = (tmp_path / "good.zip").read_bytes()
    path = tmp_path / "k.zip"
    for place in range(0, len(whole), 3):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            assert read_kit(path).name == "north"  # in a byte that means nothing, such as a date
        except InputError as error:
            assert error.code == "kit-invalid"
    for size in (0, 10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        assert refused(path).code == "kit-invalid"
    path.write_bytes(os.urandom(300_000))
    assert "larger" in refused(path).message


def test_an_encrypted_member_is_refused(kit: Kit, tmp_path: Path) -> None:
    write_kit(tmp_path / "good.zip", kit)
    content = bytearray((tmp_path / "good.zip").read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = content.find(signature)
        while place >= 0:
            content[place + offset] |= 1
            place = content.find(signature, place + 1)
    (tmp_path / "k.zip").write_bytes(content)
    assert refused(tmp_path / "k.zip").code == "kit-invalid"


def test_every_authority_of_a_kit_has_its_fingerprint_told(ca: str) -> None:
    """A site trusts all that the file holds: one that was slipped in on the way must not hide behind the first."""
    slipped_in = authority()
    both = Kit(name="north", address="fed.example.org:8443", challenge=CHALLENGE, ca=ca + slipped_in)
    der = [x509.load_pem_x509_certificate(one.encode()).fingerprint(hashes.SHA256()) for one in (ca, slipped_in)]
    assert fingerprints(both.ca) == [one.hex(":").upper() for one in der]
    assert fingerprints(ca) == fingerprints(both.ca)[:1]


def test_a_kit_that_is_not_there(tmp_path: Path) -> None:
    assert refused(tmp_path / "none.zip").code == "kit-unreadable"
    assert refused(tmp_path).code == "kit-unreadable"


def test_an_answer_is_accepted_and_carries_no_private_key(kit: Kit, tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    write_answer(tmp_path / "north.key.json", answer(kit, key))
    reply = read_answer(tmp_path / "north.key.json")
    check_answer(reply, "north", CHALLENGE)
    assert "PRIVATE" not in (tmp_path / "north.key.json").read_text()
    assert reply.public_key.startswith("ecdsa-sha2-nistp384 ")


def test_an_answer_to_something_else_is_refused(kit: Kit) -> None:
    key, other = ec.generate_private_key(ec.SECP384R1()), ec.generate_private_key(ec.SECP384R1())
    good = answer(kit, key)
    small = ec.generate_private_key(ec.SECP256R1())
    edwards = ed25519.Ed25519PrivateKey.generate().public_key()
    form = (serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    cases = [
        (good, "south", CHALLENGE),
        (good, "north", "5b" * 32),
        (good.model_copy(update={"signature": answer(kit, other).signature}), "north", CHALLENGE),
        (good.model_copy(update={"public_key": answer(kit, other).public_key}), "north", CHALLENGE),
        (good.model_copy(update={"signature": "00"}), "north", CHALLENGE),
        (good.model_copy(update={"public_key": "ecdsa-sha2-nistp384 AAAA"}), "north", CHALLENGE),
        (good.model_copy(update={"public_key": ""}), "north", CHALLENGE),
        (good.model_copy(update={"public_key": edwards.public_bytes(*form).decode()}), "north", CHALLENGE),
        (answer(kit, small), "north", CHALLENGE),
    ]
    for reply, name, challenge in cases:
        with pytest.raises(InputError) as caught:
            check_answer(reply, name, challenge)
        assert caught.value.code == "key-reply-invalid"


def test_an_answer_file_of_another_form_is_refused(kit: Kit, tmp_path: Path) -> None:
    path = tmp_path / "north.key.json"
    good = answer(kit, ec.generate_private_key(ec.SECP384R1())).model_dump()
    for content in (b"", b"{", b"\xff", b"[]", json.dumps(good | {"more": 1}).encode(), b" " * 200_000):
        path.write_bytes(content)
        with pytest.raises(InputError, match="form"):
            read_answer(path)
    with pytest.raises(InputError) as caught:
        read_answer(tmp_path / "none.json")
    assert caught.value.code == "key-reply-unreadable"


def test_the_signature_is_over_purpose_name_and_challenge(kit: Kit) -> None:
    """Sites of any version must agree on these bytes."""
    key = ec.generate_private_key(ec.SECP384R1())
    reply: KeyReply = answer(kit, key)
    signed = io.BytesIO(b"fednotes site key\0north\0" + bytes.fromhex(CHALLENGE)).getvalue()
    key.public_key().verify(bytes.fromhex(reply.signature), signed, ec.ECDSA(hashes.SHA384()))
