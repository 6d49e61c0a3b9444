"""Somebody who looks at a page without a browser: what NiceGUI's script and ours do, but for the drawing."""

import ast
import asyncio
import re
import time
import uuid
from urllib.parse import urlencode

import httpx
import socketio
from dashboards import SECTION


class Viewer:
    """Opens the page, listens, and fetches the sections that it hears of."""

    def __init__(self) -> None:
        self.seen = 0.0
        self._busy = asyncio.Lock()
        self._socket = socketio.AsyncClient(reconnection=False)

    async def open(self, address: str, text: str) -> None:
        """Notes when a section that it hears of holds `text`, or did when it came."""
        place = address.partition("/study")[0]
        self._client = httpx.AsyncClient(base_url=place, trust_env=False, timeout=60)
        page = (await self._client.get(address)).text
        for section in SECTION.findall(page):
            await self._client.get(section)
        query = re.search(r"query: (\{.*?\}),\n", page)
        assert query

        async def heard(message: object) -> None:
            async with self._busy:
                await fetched(message)

        async def fetched(message: object) -> None:
            for section in SECTION.findall(str(message)):
                answer = await self._client.get(section)
                if answer.status_code == 200 and text in answer.text:
                    self.seen = self.seen or time.time()

        self._socket.on("update", heard)
        told = ast.literal_eval(query[1]) | {
            "implicit_handshake": "true",
            "tab_id": uuid.uuid4().hex,
            "document_id": "1",
        }
        await self._socket.connect(
            f"{place}?{urlencode(told)}",
            socketio_path="/_nicegui_ws/socket.io",
            transports=["websocket"],
        )

    async def close(self) -> None:
        await self._socket.disconnect()
        async with self._busy:  # what is being fetched comes to its end
            await self._client.aclose()
