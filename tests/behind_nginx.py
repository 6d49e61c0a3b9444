"""Debian's nginx with the configuration that `fednotes server templates` writes, checked by nginx itself."""

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.deployment.config import Server
from server.deployment.production import write_templates


@contextlib.contextmanager
def nginx(server: Server, folder: Path, port: int) -> Iterator[None]:
    """Over a coordinator's SuperLink, on a port of the loopback; skips the test where there is none."""
    if shutil.which("nginx") is None:
        pytest.skip("nginx is not installed (Debian: apt-get install nginx)")
    ours, whole = next(path for path in write_templates(server, folder) if path.suffix == ".conf"), folder / "all.conf"
    config = server.config()
    listen = config.listen or f"0.0.0.0:{config.address.rpartition(':')[2]}"
    text = ours.read_text()
    assert text.count(f"listen {listen} ssl") == 1
    ours.write_text(text.replace(f"listen {listen} ssl", f"listen 127.0.0.1:{port} ssl"))
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in kinds)
    whole.write_text(f"daemon off;\npid {folder}/pid;\nevents {{}}\nhttp {{\n{paths}include {ours};\n}}\n")
    command = ["nginx", "-c", str(whole), "-e", str(folder / "error.log")]
    tested = subprocess.run([*command, "-t"], capture_output=True, text=True, timeout=20, check=False)
    assert tested.returncode == 0, tested.stderr
    assert "warn" not in tested.stderr, tested.stderr
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait(10)
