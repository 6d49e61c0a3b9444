"""A TLS proxy between sites and gateway that writes down every byte in plain: what somebody would see who had broken
TLS at the coordinator's door."""

import asyncio
import contextlib
import gzip
import socket
import ssl
import threading
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Talk:
    """One connection, both ways."""

    up: bytearray = field(default_factory=bytearray)
    down: bytearray = field(default_factory=bytearray)


@dataclass(frozen=True)
class Exchange:
    """One call of a site, its bodies whole and decompressed."""

    path: str
    request: bytes
    answer: bytes


class RecordingProxy:
    """Listens on `port` of the loopback from the moment it is made; passes everything on once it is started."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.talks: list[Talk] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)

    def start(self, upstream: int, certificate: Path, key: Path, ca: Path) -> None:
        """Show the coordinator's certificate to sites, and speak TLS with the gateway at `upstream`."""
        inside = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        inside.load_cert_chain(certificate, key)
        outside = ssl.create_default_context(cafile=str(ca))

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            talk = Talk()
            self.talks.append(talk)
            with contextlib.suppress(OSError, asyncio.CancelledError):
                there = await asyncio.open_connection("localhost", upstream, ssl=outside)
                ways = [_pass(reader, there[1], talk.up), _pass(there[0], writer, talk.down)]
                await asyncio.gather(*ways)
            for one in (writer, *([there[1]] if "there" in locals() else [])):
                one.close()

        self._thread.start()
        server = asyncio.start_server(serve, sock=self._listener, ssl=inside)
        asyncio.run_coroutine_threadsafe(server, self._loop).result(10)

    def end(self) -> None:
        async def cancel() -> None:
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(cancel(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._listener.close()

    def raw(self, way: str) -> bytes:
        """All bytes of one way, "up" or "down"."""
        return b"\n".join(bytes(getattr(talk, way)) for talk in self.talks)

    def exchanges(self) -> list[Exchange]:
        """All calls that were answered. A call that a kill cut off is in `raw` alone."""
        found = []
        for talk in list(self.talks):
            requests, answers = _messages(bytes(talk.up)), _messages(bytes(talk.down))
            for (first, request), (_, answer) in zip(requests, answers, strict=False):
                found.append(Exchange(first.split(b" ")[1].decode(), request, answer))
        return found


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, kept: bytearray) -> None:
    with contextlib.suppress(OSError):
        while piece := await reader.read(65536):
            kept += piece
            writer.write(piece)
            await writer.drain()
    writer.close()


def _messages(stream: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(first line, body) of each HTTP/1.1 message of one way of a connection."""
    at = 0
    while (end := stream.find(b"\r\n\r\n", at)) >= 0:
        first, *lines = stream[at:end].split(b"\r\n")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
        at = end + 4
        if headers.get(b"transfer-encoding") == b"chunked":
            body = bytearray()
            while True:
                line_end = stream.find(b"\r\n", at)
                if line_end < 0:
                    return
                size = int(stream[at:line_end].split(b";")[0], 16)
                body += stream[line_end + 2 : line_end + 2 + size]
                at = line_end + 2 + size + 2
                if not size:
                    break
        else:
            size = int(headers.get(b"content-length", b"0"))
            if at + size > len(stream):
                return
            body = bytearray(stream[at : at + size])
            at += size
        yield first, _decompressed(bytes(body), headers.get(b"content-encoding", b""))


def _decompressed(body: bytes, encoding: bytes) -> bytes:
    match encoding:
        case b"gzip":
            return gzip.decompress(body)
        case b"deflate":
            return zlib.decompress(body)
        case b"":
            return body
    raise AssertionError(f"a body is encoded as {encoding!r}, which the search cannot read")
