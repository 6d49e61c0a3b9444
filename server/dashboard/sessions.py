"""Who is logged in, and how fast passwords may be guessed. Kept in memory: with the process, all are logged out."""

import hashlib
import ipaddress
import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass, field

_MOST_SESSIONS, _MOST_ADDRESSES = 1000, 10_000


@dataclass
class Session:
    """`form`: what every form of the session carries, so that no other page can send one. Times: `time.monotonic`."""

    began: float
    seen: float
    form: str = field(default_factory=lambda: secrets.token_urlsafe(24))


class Sessions:
    """By a cookie of 256 random bits. It says nothing and cannot be guessed, so it needs no signature; and unlike a
    signed one it can be taken back."""

    def __init__(self, idle: float, longest: float) -> None:
        """Seconds: without a sign of a person, and in all."""
        self.idle, self.longest = idle, longest
        self._open: OrderedDict[bytes, Session] = OrderedDict()

    def begin(self) -> str:
        """A new cookie. Where there are very many, the oldest session ends."""
        cookie, now = secrets.token_urlsafe(32), time.monotonic()
        self._open[_key(cookie)] = Session(now, now)
        while len(self._open) > _MOST_SESSIONS:
            self._open.popitem(last=False)
        return cookie

    def find(self, cookie: str | None, touch: bool = False) -> Session | None:
        """The session, where it has not ended. `touch`: a person is there."""
        session = self._open.get(_key(cookie)) if cookie else None
        if session is None or cookie is None:
            return None
        now = time.monotonic()
        if now - session.seen > self.idle or now - session.began > self.longest:
            self.end(cookie)
            return None
        if touch:
            session.seen = now
        return session

    def left(self, session: Session) -> tuple[float, bool]:
        """Seconds until it ends, and whether a sign of a person makes it last."""
        now = time.monotonic()
        idle, whole = session.seen + self.idle - now, session.began + self.longest - now
        return min(idle, whole), idle < whole

    def end(self, cookie: str) -> None:
        self._open.pop(_key(cookie), None)


def _key(cookie: str) -> bytes:
    """Found by its hash: how long the search takes tells nothing of the cookies."""
    return hashlib.sha256(cookie.encode()).digest()


class Slowdown:
    """After `free` failures each further one doubles the wait, up to `most` seconds. A day without any forgives all."""

    def __init__(self, free: int, most: float) -> None:
        self._free, self._most = free, most
        self._failed: OrderedDict[str, tuple[int, float]] = OrderedDict()  # -> how often, when last (monotonic)

    def wait(self, name: str) -> float:
        """Seconds before `name` may try again; 0 where it may now."""
        count, last = self._failed.get(name, (0, 0.0))
        if count < self._free:
            return 0.0
        return max(0.0, last + min(self._most, 2.0 ** (count - self._free + 1)) - time.monotonic())

    def failed(self, name: str) -> None:
        count, last = self._failed.pop(name, (0, 0.0))
        now = time.monotonic()
        self._failed[name] = (1 if now - last > 86400 else min(count + 1, 1000), now)
        while len(self._failed) > _MOST_ADDRESSES:  # whoever has very many addresses meets the limit of all
            self._failed.popitem(last=False)

    def succeeded(self, name: str) -> None:
        self._failed.pop(name, None)


def network(address: str) -> str:
    """What counts as one guesser: an IPv4 address, or the 64 bits of an IPv6 one that a household has."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address) and not found.ipv4_mapped:
        return str(ipaddress.ip_network((found, 64), strict=False))
    return str(found)
