"""The site's key: ECDSA P-384 in OpenSSH's form, made here, readable by its owner alone; it never travels."""

import os
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from common.errors import InputError
from common.files import explained, new_file

PrivateKey = ec.EllipticCurvePrivateKey


def make_key(path: Path) -> PrivateKey:
    """Make a private key and keep it in `path`, mode 0600. Raises InputError `key-exists`: none is ever replaced."""
    if path.exists():
        raise InputError(
            "key-exists", f"{path} is there already.", "Use it, or move it away: the coordinator knows it."
        )
    key = ec.generate_private_key(ec.SECP384R1())
    content = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    with explained(path), new_file(path) as scratch:
        with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(content)
        scratch.chmod(0o600)  # what a killed process left may have another mode
    return key


def public_text(key: PrivateKey) -> str:
    """The public half, as Flower registers it: one line in OpenSSH's form."""
    public = key.public_key()
    return public.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()


def load_key(path: Path) -> PrivateKey:
    """Raises InputError `key-unreadable`, or `key-permissions` where others than the owner may read it."""
    try:
        mode, content = path.stat().st_mode, path.read_bytes()
    except OSError as error:
        raise InputError(
            "key-unreadable",
            f"The site's key {path} cannot be read: {error.strerror}.",
            "Name it in site.toml, or make one from the coordinator's kit.",
        ) from None
    if mode & 0o077:
        raise InputError(
            "key-permissions",
            f"Others may read the site's key {path} (mode {mode & 0o777:04o}).",
            f"chmod 600 {path}, and if anybody may have read it, make a new one.",
        )
    try:
        key = serialization.load_ssh_private_key(content, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, PrivateKey) or not isinstance(key.curve, ec.SECP384R1):
        raise InputError(
            "key-unreadable",
            f"{path} holds no ECDSA P-384 private key in OpenSSH's form without a passphrase.",
            "Make one from the coordinator's kit.",
        )
    return key
