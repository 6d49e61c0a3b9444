"""Whether the coordinator can be reached: its name, its certificate, its health, and its clock."""

import socket
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from client.setup.finding import Finding

_SECONDS = 10.0
_SHORT_DATE = 30  # days before its end that a certificate is warned of
# The coordinator takes a signature that is at most 5 s early and 305 s late; its `Date` is in whole seconds.
_EARLY, _LATE, _MARGIN = 5.0, 305.0, 2.0
_FIX_CLOCK = "Let this machine set its clock by the network (chrony, systemd-timesyncd)."


def reach(address: str, ca: Path) -> Iterator[Finding]:
    """The findings; the later ones only where the earlier are well."""
    host, _, port = address.rpartition(":")
    try:
        socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
    except OSError:
        yield Finding("name", "error", f"{host} is not known here.", "Ask your network's people, or for a new kit.")
        return
    yield Finding("name", "ok", f"{host} is known")
    try:
        context = ssl.create_default_context(cafile=str(ca))
    except OSError:
        yield Finding("certificate", "error", f"{ca} holds no certificate.", "Put the kit's ca.crt back.")
        return
    import httpx

    try:
        with (
            httpx.Client(verify=context, timeout=_SECONDS) as client,
            client.stream("GET", f"https://{address}/health") as answer,
        ):
            tls: Any = answer.extensions["network_stream"].get_extra_info("ssl_object")
            shown = tls.getpeercert() if tls else {}
            status, said = answer.status_code, answer.headers.get("date")
    except httpx.HTTPError as error:
        text = f"{address} does not answer: {type(error).__name__}."
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            fix = "It is another server, or its certificate is over: ask the coordinator, by telephone."
            yield Finding("certificate", "error", f"{address} shows a certificate that {ca} does not vouch for.", fix)
        else:
            yield Finding("coordinator", "error", text, "Is it started? Does the firewall let connections out to it?")
        return
    if status == 200:
        yield Finding("coordinator", "ok", f"{address} is well")
    else:
        yield Finding("coordinator", "error", f"{address} answers with HTTP status {status}.", "Ask the coordinator.")
    yield _certificate(shown)
    yield _clock(said)


def _certificate(shown: dict[str, Any]) -> Finding:
    if "notAfter" not in shown:
        return Finding("certificate", "warning", "Its end is not known.", "Ask the coordinator.")
    end = datetime.fromtimestamp(ssl.cert_time_to_seconds(shown["notAfter"]), UTC)
    days = (end - datetime.now(UTC)).days
    text = f"valid until {end:%Y-%m-%d}, {days:,} days"
    if days < _SHORT_DATE:
        return Finding("certificate", "warning", text, "Remind the coordinator to renew it.")
    return Finding("certificate", "ok", text)


def _clock(said: str | None) -> Finding:
    """By the coordinator's own clock, whichever of the two is right."""
    try:
        theirs = parsedate_to_datetime(said or "")
    except ValueError:
        return Finding("clock", "warning", "The coordinator does not say what time it is.", _FIX_CLOCK)
    ahead = (datetime.now(UTC) - theirs).total_seconds()
    text = f"{abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} the coordinator"
    if ahead > _EARLY + _MARGIN or ahead < -_LATE + _MARGIN:
        return Finding("clock", "error", f"{text}: it would refuse this site.", _FIX_CLOCK)
    if ahead > _MARGIN or ahead < -_LATE / 2:
        return Finding("clock", "warning", text, _FIX_CLOCK)
    return Finding("clock", "ok", text)
