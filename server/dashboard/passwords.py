"""The dashboard's password: one line in a file, by scrypt; the password itself is kept nowhere."""

import base64
import hashlib
import hmac
import secrets
import stat
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from common.errors import InputError
from common.files import explained, new_file

SHORTEST, LONGEST = 12, 1024  # characters
_N, _R, _P = 2**16, 8, 1  # 64 MiB and about a quarter of a second a guess
_MOST_MEMORY = 256 * 2**20


@dataclass(frozen=True)
class Password:
    """What a password is checked against."""

    n: int
    r: int
    p: int
    salt: bytes
    digest: bytes

    def matches(self, password: str) -> bool:
        """Takes as long for a wrong password as for the right one. Uses 64 MiB: check one at a time."""
        return hmac.compare_digest(self.digest, _digest(password, self.salt, self.n, self.r, self.p))


def write_password(password: str, path: Path) -> None:
    """Keep the hash of `password` in a file of this user alone. Raises InputError `password-length`."""
    if not SHORTEST <= len(password) <= LONGEST:
        message = f"The password has {len(password)} characters; it must have {SHORTEST} to {LONGEST}."
        raise InputError("password-length", message, "Choose a longer one: four words that go together nowhere do.")
    salt = secrets.token_bytes(16)
    coded = [base64.b64encode(part).decode() for part in (salt, _digest(password, salt, _N, _R, _P))]
    with new_file(path) as scratch, explained(path):
        scratch.unlink(missing_ok=True)
        scratch.touch(0o600, exist_ok=False)
        scratch.write_text("$".join(["scrypt", str(_N), str(_R), str(_P), *coded]) + "\n")


def read_password(path: Path) -> Password:
    """Raises InputError `password-unreadable`, or `password-exposed` where other users may read or write it."""
    make = f"Make it: fednotes dashboard password {path}"
    try:
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            message = f"Other users of this machine may read or write {path}."
            raise InputError("password-exposed", message, f"Set the password anew, and: chmod 600 {path}")
        kind, n, r, p, salt, digest = path.read_text("ascii").strip().split("$")
        found = Password(int(n), int(r), int(p), *(base64.b64decode(one, validate=True) for one in (salt, digest)))
        if kind != "scrypt" or len(found.digest) != 64 or len(found.salt) < 16 or found.n < 2**14:
            raise ValueError
        found.matches("")  # parameters that cannot be computed are found now
    except OSError as error:
        raise InputError("password-unreadable", f"{path} cannot be read: {error.strerror}.", make) from None
    except ValueError:
        raise InputError("password-unreadable", f"{path} holds no hash of a password.", make) from None
    return found


def _digest(password: str, salt: bytes, n: int, r: int, p: int) -> bytes:
    # two keyboards may send one letter in two ways
    same = unicodedata.normalize("NFKC", password).encode()
    return hashlib.scrypt(same, salt=salt, n=n, r=r, p=p, maxmem=_MOST_MEMORY, dklen=64)
