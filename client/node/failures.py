"""What can go wrong between a site and its coordinator, as errors that a person can act on."""

import ssl
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx
from flwr.supercore.constant import VERSION_INCOMPATIBILITY_MESSAGE_METADATA_KEY
from flwr.supercore.error import ApiErrorCode, FlowerError
from flwr.supercore.protobuf.client import ProtobufCall, ProtobufRequestContext

from common.errors import InputError, MachineError

_RUN_OVER = {
    ApiErrorCode.FLEET_RUN_STATUS_NOT_ALLOWED,
    ApiErrorCode.FLEET_GET_RUN_FAILED,
    ApiErrorCode.FLEET_GET_FAB_FAILED,
}


class RunEndedError(Exception):
    """The run of a message has ended, or was stopped: nobody waits for the reply."""


class StoppedError(Exception):
    """The node was told to stop while a call was to be tried again."""


class NotAllowedError(Exception):
    """The coordinator's state does not allow the call."""


class Versions:
    """Sees what comes before Flower's own check does, which would end the process."""

    def intercept(self, context: ProtobufRequestContext, call_next: ProtobufCall) -> httpx.Response:
        response = call_next(context)
        said = FlowerError.from_json(response.text) if response.is_error else None
        if response.headers.get(VERSION_INCOMPATIBILITY_MESSAGE_METADATA_KEY) or (
            said and said.code == ApiErrorCode.RUNTIME_VERSION_INCOMPATIBLE
        ):
            raise MachineError(
                "coordinator-version",
                "The coordinator runs another version of Flower than this site.",
                "Install the same version of Fednotes on both.",
            )
        return response


def refused(address: str, response: httpx.Response) -> Exception:
    """What an answer with an error means."""
    said = FlowerError.from_json(response.text)
    if response.status_code == httpx.codes.UNAUTHORIZED:
        return _wrong_clock(response) or not_registered(address)
    if said and said.code in _RUN_OVER:
        return RunEndedError()
    if said and response.status_code == httpx.codes.PRECONDITION_FAILED:
        return NotAllowedError()
    return MachineError(
        "coordinator-unreachable",
        f"{address} answers with HTTP status {response.status_code}.",
        "If that stays so, ask the coordinator.",
    )


def no_certificate() -> InputError:
    return InputError(
        "ca-unreadable", "The coordinator's ca.crt holds no certificate.", "Ask the coordinator for a new kit."
    )


def key_in_use(address: str) -> MachineError:
    return MachineError(
        "key-in-use",
        f"A node with this site's key is online at {address}.",
        "Stop that one. If it was killed, its place is free four minutes later; this one tries again.",
    )


def not_registered(address: str) -> MachineError:
    return MachineError(
        "not-registered",
        f"{address} does not let this site in: its key is not registered there, or another node uses it.",
        "Send the coordinator the answer to its kit; the node tries again by itself.",
    )


def _wrong_clock(response: httpx.Response) -> MachineError | None:
    """Signatures hold for a few minutes: with a wrong clock none does."""
    try:
        theirs = parsedate_to_datetime(response.headers["date"])
    except (KeyError, ValueError):
        return None
    seconds = (datetime.now(UTC) - theirs).total_seconds()
    if -300 < seconds < 4:
        return None
    return MachineError(
        "clock-differs",
        f"The clock of this machine is {abs(seconds):.0f} s {'ahead of' if seconds > 0 else 'behind'} the "
        "coordinator's, which refuses its signatures.",
        "Set it, best by NTP.",
    )


def no_answer(address: str, error: Exception) -> MachineError:
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLError):
        cause = cause.__cause__ or cause.__context__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return MachineError(
            "coordinator-certificate",
            f"The certificate of {address} is not accepted: {cause.verify_message}.",
            "Compare its address and ca.crt with the kit; if they are right, tell the coordinator.",
        )
    if cause is not None:
        return MachineError(
            "coordinator-certificate",
            f"{address} does not speak TLS as it should.",
            "Compare the address with the kit; something between may tamper with the connection.",
        )
    return MachineError(
        "coordinator-unreachable",
        f"{address} does not answer ({type(error).__name__}).",
        "Compare the address with the kit; the firewall must let this machine connect to it.",
    )
