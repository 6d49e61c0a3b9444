"""How a site and the coordinator get to know each other: the kit goes out, the answer with the site's key comes back.

A kit holds where the coordinator is, the certificate by which the site knows it, and a challenge. The site makes its
key itself and signs the challenge; the private key never travels. Both files pass by hand, not over the network.
"""

import io
import re
import tomllib
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from common.errors import InputError
from common.files import explained, new_file

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

KIT_FILE, CA_FILE = "kit.toml", "ca.crt"
_MOST_BYTES = 100_000  # of a member, unpacked; the two together have some 2,000
_PURPOSE = b"fednotes site key\0"
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?")
_HOST = re.compile(r"(?=.{1,253}:)[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?:(\d{1,5})")
_AGAIN = "Ask the coordinator for a new kit."


class Kit(BaseModel):
    """What a site needs to find and to know its coordinator.

    `address` is "host:port", `challenge` 32 random bytes in hex, `ca` the PEM of the authority that signed the
    coordinator's certificate.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    name: str
    address: str
    challenge: str = Field(pattern=r"^[0-9a-f]{64}$")
    ca: str = Field(max_length=_MOST_BYTES)

    @field_validator("name")
    @classmethod
    def _safe(cls, value: str) -> str:
        return site_name(value)

    @field_validator("address")
    @classmethod
    def _host_and_port(cls, value: str) -> str:
        return host_and_port(value)

    @field_validator("ca")
    @classmethod
    def _certificate(cls, value: str) -> str:
        from cryptography.x509 import load_pem_x509_certificates

        load_pem_x509_certificates(value.encode())  # raises ValueError
        if "PRIVATE KEY" in value:
            raise ValueError("it holds a private key")
        return value


class KeyReply(BaseModel):
    """A site's answer to its kit: its public key (OpenSSH), and the signature (hex) of name and challenge by it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(max_length=40)
    public_key: str = Field(max_length=1000)
    signature: str = Field(pattern=r"^([0-9a-f]{2}){1,200}$")


def site_name(value: str) -> str:
    """A name that is safe as a file's, in a URL and in a table. Raises ValueError."""
    if not _NAME.fullmatch(value):
        raise ValueError("a site's name has 1 to 40 of a-z, 0-9 and -, and begins and ends with a letter or digit")
    return value


def host_and_port(value: str) -> str:
    """An address such as "fed.example.org:8443". Raises ValueError."""
    found = _HOST.fullmatch(value)
    if not found or not 0 < int(found[1]) < 65536:
        raise ValueError("an address is host:port, such as fed.example.org:8443")
    return value


def fingerprints(ca: str) -> list[str]:
    """SHA-256 of every certificate of an authority's file (PEM), as two people can read them to each other: the site
    trusts each, so that none may be left out."""
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.x509 import load_pem_x509_certificates

    return [one.fingerprint(SHA256()).hex(":").upper() for one in load_pem_x509_certificates(ca.encode())]


def write_kit(path: Path, kit: Kit) -> None:
    """Write a kit as a zip of two files. It is no secret, but only its site should answer it."""
    with new_file(path) as scratch:
        scratch.touch(mode=0o600)
        with zipfile.ZipFile(scratch, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(KIT_FILE, tomli_w.dumps(kit.model_dump(exclude={"ca"})))
            archive.writestr(CA_FILE, kit.ca)


def read_kit(path: Path) -> Kit:
    """Read a kit. Raises InputError `kit-unreadable` or `kit-invalid`; nothing of it is unpacked to disk."""
    try:
        with path.open("rb") as file:
            content = file.read(2 * _MOST_BYTES + 1)
    except OSError as error:
        raise InputError(
            "kit-unreadable", f"The kit {path} cannot be read: {error.strerror}.", "Give its zip."
        ) from None
    if len(content) > 2 * _MOST_BYTES:
        raise _invalid(path, "it is larger than a kit can be")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if sorted(archive.namelist()) != sorted((KIT_FILE, CA_FILE)):
                raise _invalid(path, f"it holds something else than {KIT_FILE} and {CA_FILE}")
            text, ca = (_member(archive, name, path) for name in (KIT_FILE, CA_FILE))
        return Kit.model_validate(tomllib.loads(text) | {"ca": ca})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise _invalid(path, f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, ValueError, OSError) as error:
        raise _invalid(path, str(error) or type(error).__name__) from None


def _member(archive: zipfile.ZipFile, name: str, path: Path) -> str:
    """A member's text. What its header says of its size is not believed: no more than allowed is unpacked."""
    if archive.getinfo(name).compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise _invalid(path, f"{name} is compressed in another way than a kit")
    with archive.open(name) as member:
        content = member.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise _invalid(path, f"{name} is larger than it can be")
    return content.decode("utf-8")


def _invalid(path: Path, reason: str) -> InputError:
    return InputError("kit-invalid", f"{path} is no kit: {reason}.", _AGAIN)


def answer(kit: Kit, private_key: "EllipticCurvePrivateKey") -> KeyReply:
    """A site's answer to its kit, by its own ECDSA key."""
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    public = private_key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    signature = private_key.sign(_signed(kit.name, kit.challenge), ec.ECDSA(hashes.SHA384()))
    return KeyReply(name=kit.name, public_key=public.decode(), signature=signature.hex())


def check_answer(reply: KeyReply, name: str, challenge: str) -> str:
    """Check that an answer is this site's, to this challenge, by a P-384 key that the answerer holds.

    Returns the key in OpenSSH's form, as there is but one for a key: without a comment, its base64 written anew.
    Raises InputError `key-reply-invalid`.
    """
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    if reply.name != name:
        raise _refused(f"is of {reply.name!r}, not of {name!r}")
    try:
        key = serialization.load_ssh_public_key(reply.public_key.encode())
    except (ValueError, UnsupportedAlgorithm):
        raise _refused("holds no public key in OpenSSH's form") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise _refused("holds a key that is not ECDSA P-384")
    try:
        key.verify(bytes.fromhex(reply.signature), _signed(name, challenge), ec.ECDSA(hashes.SHA384()))
    except InvalidSignature:
        raise _refused("is not signed for this kit by the key that it holds") from None
    return key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()


def read_answer(path: Path) -> KeyReply:
    """Read `NAME.key.json`. Raises InputError `key-reply-unreadable` or `key-reply-invalid`."""
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES)
    except OSError as error:
        said = f"The answer {path} cannot be read: {error.strerror}."
        raise InputError("key-reply-unreadable", said, "Give the file that the site made.") from None
    try:
        return KeyReply.model_validate_json(content)
    except ValidationError:
        raise _refused("is not of the form that a site writes") from None


def write_answer(path: Path, reply: KeyReply) -> None:
    """Write `NAME.key.json`, which the site sends to the coordinator. It holds no secret."""
    with explained(path), new_file(path) as scratch:
        scratch.write_text(reply.model_dump_json(indent=2) + "\n", encoding="utf-8")


def _signed(name: str, challenge: str) -> bytes:
    return _PURPOSE + name.encode() + b"\0" + bytes.fromhex(challenge)


def _refused(why: str) -> InputError:
    return InputError("key-reply-invalid", f"The answer {why}.", "Ask the site for the answer to its newest kit.")
