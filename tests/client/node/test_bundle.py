"""A bundle is text and names our component, or it is refused."""

import io
import zipfile

import pytest

from client.node.bundle import check_bundle
from common.errors import FednotesError

OURS = '[tool.flwr.app.components]\nserverapp = "server.app:app"\nclientapp = "client.app:app"\n'
GOOD = {"pyproject.toml": OURS, "README.md": "words", "LICENSE": "words", ".info/CONTENT": "pyproject.toml,00,1"}


def bundle(files: dict[str, str | bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return file.getvalue()


def code(content: bytes) -> str:
    with pytest.raises(FednotesError) as caught:
        check_bundle(content)
    return caught.value.code


def test_a_bundle_of_text_passes() -> None:
    check_bundle(bundle(GOOD | {"studies/demo.toml": "", "schema.json": "{}"}))


@pytest.mark.parametrize(
    "member",
    [
        {"client/app.py": "x = 1"},
        {"client/APP.PY": "x = 1"},
        {"module.so": b"\x7fELF"},
        {"run.sh": "true"},
        {"weights.pt": b"\x80\x04"},
        {"nested.zip": b"PK"},
        {"settings.toml": b"\x7fELF\0\0"},
        {"README.md": "#!/bin/sh"},
        {"NOLICENSE": "words"},
    ],
)
def test_a_member_that_could_be_code_is_refused(member: dict[str, str | bytes]) -> None:
    assert code(bundle(GOOD | member)) == "bundle-has-code"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK no zip",
        bundle({"README.md": "words"}),
        bundle(GOOD | {"pyproject.toml": "no = [toml"}),
        bundle(GOOD | {"pyproject.toml": OURS.replace("client.app:app", "evil.app:app")}),
        bundle(GOOD | {"pyproject.toml": "[tool.flwr.app]\ncomponents = 1"}),
        bundle(GOOD | {"big.md": b" " * 30_000_000}),
    ],
    ids=["empty", "no zip", "no pyproject", "no toml", "another component", "no components", "too large"],
)
def test_what_is_not_our_bundle_is_refused(content: bytes) -> None:
    assert code(content) == "bundle-not-ours"
