"""Who may take part: `sites.json`, from which the SuperLink's own list is made.

A site is first invited, by a kit, and takes part once its key is registered. A key that was removed is never taken
again: Flower refuses it, too.
"""

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from common.errors import InputError, MachineError
from common.files import explained, write_text
from common.kit import KeyReply, Kit, check_answer, site_name, write_kit
from server.deployment.config import Server


class Entry(BaseModel):
    """A site. `public_key` (OpenSSH, without a comment) is empty until its answer has come."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    challenge: str
    invited: str
    public_key: str = ""
    registered: str = ""


class Registry(BaseModel):
    """The contents of `sites.json`. `removed` maps keys that are refused for ever to the names they had."""

    model_config = ConfigDict(extra="forbid")

    format: Literal[1] = 1
    sites: dict[str, Entry] = {}
    removed: dict[str, str] = {}


def load_registry(server: Server) -> Registry:
    """Read `sites.json`. Raises MachineError `registry-damaged`: an empty one would throw every site out."""
    path = server.sites
    try:
        return Registry.model_validate_json(path.read_bytes())
    except OSError as error:
        reason = error.strerror or str(error)
    except ValidationError as error:
        reason = f"{error.errors(include_url=False)[0]['msg']}"
    raise MachineError("registry-damaged", f"{path} cannot be used: {reason}.", "Put it back from a backup.")


def invite(server: Server, name: str) -> Kit:
    """Add a site, and write its kit to `kits/NAME.zip`; again for one that has not answered yet.

    Raises InputError: `site-name-invalid`, or `site-exists` for one that has a key.
    """
    try:
        site_name(name)
    except ValueError as error:
        raise InputError(
            "site-name-invalid", f"{name!r} cannot be a site's name: {error}.", "Choose another."
        ) from None
    config = server.config()
    with _changed(server) as registry:
        known = registry.sites.get(name)
        if known and known.public_key:
            message = f"The site {name} is registered, with its key."
            raise InputError(
                "site-exists", message, f"To give it a new key: `fednotes server remove-site` {name} first."
            )
        kit = Kit(name=name, address=config.address, challenge=secrets.token_hex(32), ca=server.ca.read_text("utf-8"))
        registry.sites[name] = Entry(challenge=kit.challenge, invited=_now())
        with explained(server.kits):
            write_kit(server.kits / f"{name}.zip", kit)
    return kit


def accept(server: Server, name: str, reply: KeyReply) -> None:
    """Register the key of an invited site. The same answer twice is fine.

    Raises InputError: `site-unknown`, `key-reply-invalid`, `site-exists`, or `key-taken` for a key that another site
    has, or that was removed.
    """
    with _changed(server) as registry:
        entry = _known(registry, name)
        key = check_answer(reply, name, entry.challenge)
        if entry.public_key == key:
            return
        if entry.public_key:
            message = f"The site {name} is registered with another key."
            raise InputError(
                "site-exists", message, f"To give it a new key: `fednotes server remove-site` {name} first."
            )
        if key in registry.removed:
            raise InputError("key-taken", f"This key was removed, with the site {registry.removed[key]}.", _NEW_KEY)
        if holder := next((other for other, one in registry.sites.items() if one.public_key == key), None):
            raise InputError("key-taken", f"The site {holder} has this key.", _NEW_KEY)
        registry.sites[name] = entry.model_copy(update={"public_key": key, "registered": _now()})


def remove(server: Server, name: str) -> None:
    """Forget a site, and refuse its key from now on. Raises InputError `site-unknown`."""
    with _changed(server) as registry:
        entry = _known(registry, name)
        del registry.sites[name]
        if entry.public_key:
            registry.removed[entry.public_key] = name
    (server.kits / f"{name}.zip").unlink(missing_ok=True)


_NEW_KEY = "Let the site make a new key."


def _known(registry: Registry, name: str) -> Entry:
    entry = registry.sites.get(name)
    if entry is None:
        known = ", ".join(sorted(registry.sites)) or "none"
        raise InputError("site-unknown", f"There is no site {name!r}; there are: {known}.", "Correct the name.")
    return entry


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@contextlib.contextmanager
def locked(server: Server) -> Iterator[None]:
    """For whoever changes the registry, or the SuperLink's list by it: one at a time."""
    with explained(server.sites):
        lock = os.open(server.folder / "sites.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


@contextlib.contextmanager
def _changed(server: Server) -> Iterator[Registry]:
    """The registry, written back if nothing was raised."""
    with locked(server):
        registry = load_registry(server)
        yield registry
        write_text(server.sites, registry.model_dump_json(indent=2) + "\n")
