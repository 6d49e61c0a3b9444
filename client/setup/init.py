"""`fednotes site init`: a site's folder from the coordinator's kit. All of it, or nothing."""

import secrets
from dataclasses import dataclass
from pathlib import Path

from client.approval import KEY_REPLY
from client.node.keys import make_key
from client.notes.read import read_notes
from client.notes.source import NotesSource
from client.setup.site_file import site_toml
from client.site import SITE_FILE, Coordinator, Policy, SiteConfig, open_site_file
from common.errors import InputError
from common.files import explained, new_folder, write_text
from common.kit import Kit, answer, write_answer

KEY_FILE, CA_FILE, CACHE = "site.key", "ca.crt", "cache"


@dataclass(frozen=True)
class Wish:
    """What a person decides about a new site."""

    notes: NotesSource
    public: NotesSource | None
    policy: Policy


def make_site(kit: Kit, wish: Wish, folder: Path) -> Path:
    """Make the folder of a site; returns the file that is to be sent to the coordinator.

    The first note of each source is read, so that a wrong column is refused here. Sources that are files are named by
    their whole paths.

    Raises:
        InputError: `out-exists`; as `read_notes`.
        MachineError: as `new_folder`.
    """
    refuse_occupied(folder)
    wish = Wish(_whole_path(wish.notes), wish.public and _whole_path(wish.public), wish.policy)
    for source in filter(None, (wish.notes, wish.public)):
        next(read_notes(source), None)
    config = SiteConfig(
        name=kit.name,
        split_key=secrets.token_hex(32),
        cache=Path(CACHE),
        notes=wish.notes,
        public=wish.public,
        policy=wish.policy,
        coordinator=Coordinator(address=kit.address, ca=Path(CA_FILE), key=Path(KEY_FILE)),
    )
    with new_folder(folder) as scratch:
        scratch.chmod(0o700)
        write_text(scratch / CA_FILE, kit.ca)
        write_answer(scratch / KEY_REPLY.format(kit.name), answer(kit, make_key(scratch / KEY_FILE)))
        (scratch / SITE_FILE).touch(0o600)
        (scratch / SITE_FILE).write_text(site_toml(config), encoding="utf-8")
        open_site_file(scratch / SITE_FILE)  # what was just written can be read
    return folder / KEY_REPLY.format(kit.name)


def refuse_occupied(folder: Path) -> None:
    """Raises InputError `out-exists`."""
    with explained(folder):
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise InputError("out-exists", f"{folder} is there already.", "Name a new or empty folder with --to.")


def _whole_path(source: NotesSource) -> NotesSource:
    """A site's folder is somewhere else than where the command was given."""
    if source.is_database:
        return source
    return source.model_copy(update={"source": str(Path(source.source).absolute())})
