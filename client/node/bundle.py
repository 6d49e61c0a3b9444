"""Flower sends a bundle with each run. Ours carries no code, and none would run here: it is read, never unpacked.

That another bundle is refused besides, with a reason, tells both sides that the coordinator tried."""

import io
import tomllib
import zipfile
from pathlib import PurePosixPath

from common.errors import FednotesError

COMPONENT = "client.app:app"
_TEXTS = {".toml", ".md", ".json"}
_MOST_BYTES = 20_000_000  # all members, unpacked; Flower allows 10 MiB zipped


def check_bundle(content: bytes) -> None:
    """Raises FednotesError `bundle-has-code` and `bundle-not-ours`."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as bundle:
            members = [member for member in bundle.infolist() if not member.is_dir()]
            if sum(member.file_size for member in members) > _MOST_BYTES:
                raise _not_ours("it is larger than text can be")
            for member in members:
                _check_member(bundle, member)
            settings = tomllib.loads(_text(bundle, bundle.getinfo("pyproject.toml")) or "")
    except FednotesError:
        raise
    except Exception as error:  # zipfile and its decompressors raise many
        raise _not_ours(f"it cannot be read ({type(error).__name__})") from None
    try:
        component = settings["tool"]["flwr"]["app"]["components"]["clientapp"]
    except (KeyError, TypeError):
        component = None
    if component != COMPONENT:
        raise _not_ours("it names another component for sites")


def _check_member(bundle: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    path = PurePosixPath(member.filename)
    known = path.suffix in _TEXTS or path.name == "LICENSE" or path.parts[0] == ".info"
    text = _text(bundle, member) if known else None
    if text is None or text.startswith("#!") or "\0" in text:
        raise FednotesError(
            "bundle-has-code",
            f"The run's bundle carries {str(path)[:100]!r}, which is no text of ours. It was not unpacked.",
            "Ask the coordinator why: its bundle is to hold no code.",
        )


def _text(bundle: zipfile.ZipFile, member: zipfile.ZipInfo) -> str | None:
    """A member's text; None where it is none. What its header says of its size is not believed."""
    with bundle.open(member) as file:
        content = file.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        return None
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _not_ours(why: str) -> FednotesError:
    return FednotesError(
        "bundle-not-ours",
        f"The run's bundle is not that of Fednotes: {why}.",
        "Ask the coordinator which app it runs.",
    )
