"""The site's line to the coordinator: Flower's fleet API, and nothing else of Flower's node.

This file, `failures.py` and `parcel.py` are the only ones that use Flower's internals. Flower's own node drops a reply
whose sending fails; here a call is tried again through outages for as long as its run goes on.
"""

import contextlib
import hashlib
import logging
import ssl
import threading
import time
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Any, Self

import httpx
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.fab_pb2 import GetFabRequest
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    DeactivateNodeRequest,
    PullMessagesRequest,
    PushMessagesRequest,
    PushMessagesResponse,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.node_pb2 import Node
from flwr.proto.run_pb2 import GetRunRequest
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.supercore.inflatable.inflatable_protobuf_utils import (
    make_confirm_message_received_fn_protobuf,
    make_pull_object_fn_protobuf,
    make_push_object_fn_protobuf,
)
from flwr.supercore.inflatable.inflatable_utils import (
    ObjectPullError,
    ObjectPushError,
    pull_objects,
    push_object_contents_from_iterable,
)
from flwr.supercore.interceptors.http.runtime_version import RuntimeVersionHttpInterceptor
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from client.node.failures import (
    NotAllowedError,
    RunEndedError,
    StoppedError,
    Versions,
    key_in_use,
    no_answer,
    no_certificate,
    not_registered,
    refused,
)
from client.node.keys import PrivateKey
from client.node.parcel import Parcel
from client.node.session import Session
from common.errors import FednotesError

log = logging.getLogger("fednotes.node")

# Two intervals after its last heartbeat a node is given up, and with it the message that it works on: they are long,
# so that an outage of three minutes costs nothing. A killed node need not wait for it (see `session.py`).
INTERVAL, BEAT = 120.0, 15.0  # seconds: what is asked for, and how often we really send one
_OFFLINE = 2.0  # seconds; the ServerApp looks three times a second
_LONGEST_WAIT = 15.0  # seconds between two attempts
_OUTAGES = {"coordinator-unreachable", "coordinator-certificate"}


class Connection:
    """An activated node, for as long as it is entered.

    Args:
        address: the coordinator's, "host:port".
        ca: PEM of the authority that signed its certificate; no other is trusted.
        session: where the node's number and the message in hand are kept.
        stop: ends waiting for a coordinator that is away.
    """

    def __init__(self, address: str, ca: bytes, key: PrivateKey, session: Session, stop: threading.Event) -> None:
        self.address = address
        self._public = public_key_to_bytes(key.public_key())
        self._session, self._stop, self._left = session, stop, threading.Event()
        self._client = FleetHttpClient(
            f"https://{address}",
            interceptors=[
                RuntimeVersionHttpInterceptor("SuperNode"),
                NodeAuthHttpInterceptor(key, key.public_key()),
                Versions(),
            ],
            verify=trusting(ca),
        )
        self._node = Node()
        self._heart = threading.Thread(target=self._beat, name="heartbeats", daemon=True)

    def __enter__(self) -> Self:
        """Raises MachineError `not-registered`, `key-in-use`, `clock-differs`, and as every call does:
        `coordinator-unreachable`, `coordinator-certificate`, `coordinator-version`."""
        try:
            self._activate()
        except BaseException:
            self._client.close()
            raise
        self._heart.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._left.set()
        self._client._client.timeout = httpx.Timeout(5.0)  # whoever stops us does not wait for long
        with contextlib.suppress(FednotesError, RunEndedError, NotAllowedError):
            self._call(self._client.DeactivateNode, DeactivateNodeRequest(node_id=self.number))
        self._client.close()

    @property
    def number(self) -> int:
        """The node's at the coordinator."""
        return int(self._node.node_id)

    def receive(self) -> Parcel | None:
        """The next message, whole; None where there is none. It is ours alone from here on: it is not sent twice."""
        found = self._call(self._client.PullMessages, PullMessagesRequest(node=self._node))
        if not found.messages_list:
            return None
        header, tree = message_from_proto(found.messages_list[0]), found.message_object_trees[0]
        self._session.claim(header)
        run = header.metadata.run_id
        pull = make_pull_object_fn_protobuf(partial(self._insist, self._client.PullObject), self._node, run)
        confirm = make_confirm_message_received_fn_protobuf(
            partial(self._insist, self._client.ConfirmMessageReceived), self._node, run
        )
        try:
            objects = pull_objects(list(dict.fromkeys(part.object_id for part in iterate_object_tree(tree))), pull)
            confirm(tree.object_id)
        except (RunEndedError, ObjectPullError) as error:
            log.info("a message of run %d is dropped: %s", run, error or "the run has ended")
            self._session.answered()
            return None
        return Parcel(header, tree, objects)

    def send(self, reply: Parcel, seconds: float = 0.0) -> bool:
        """Send a reply, through outages. False where its run has ended, or its time is over.

        `seconds`: how long it was worked on, for the coordinator's statistics.
        """
        run, over = reply.header.metadata.run_id, reply.header.metadata.created_at + reply.header.metadata.ttl
        request = PushMessagesRequest(
            node=self._node,
            messages_list=[message_to_proto(reply.header)],
            message_object_trees=[reply.tree],
            clientapp_runtime_list=[seconds],
        )
        try:
            while time.time() < over:
                said = self._insist(self._client.PushMessages, request)
                if self._upload(reply, run, said):
                    return True
                log.warning("the upload of a reply to run %d was cut off; it begins again", run)
                self._stop.wait(1.0)
            return False
        except RunEndedError:
            return False
        finally:
            self._session.answered()

    def _upload(self, reply: Parcel, run: int, said: PushMessagesResponse) -> bool:
        """Send the objects that the coordinator asks for; whether it took all.

        It refuses all when the upload expired in an outage; and one whose answer alone was lost, when that comes again.
        The others are sent nevertheless: the reply may be handed out by then, and nothing more is asked for.
        """
        refused: list[str] = []
        push = make_push_object_fn_protobuf(
            partial(self._insist, self._client.PushObject), self._node, run, said.session_id
        )

        def push_or_go_on(name: str, content: bytes) -> None:
            try:
                push(name, content)
            except ObjectPushError:
                refused.append(name)

        objects = ((name, reply.objects[name]) for name in said.objects_to_push)
        push_object_contents_from_iterable(objects, push_or_go_on)
        return not refused

    def running(self, run: int) -> bool:
        """Whether a run goes on. Raises MachineError where the coordinator does not say."""
        try:
            self._call(self._client.GetRun, GetRunRequest(node=self._node, run_id=run))
        except RunEndedError:
            return False
        return True

    def bundle(self, run: int) -> bytes:
        """The zip that Flower would run here; it is only looked at. Raises RunEndedError."""
        name = self._insist(self._client.GetRun, GetRunRequest(node=self._node, run_id=run)).run.fab_hash
        request = GetFabRequest(node=self._node, hash_str=name, run_id=run)
        content = self._insist(self._client.GetFab, request).fab.content
        return content if hashlib.sha256(content).hexdigest() == name else b""

    def _activate(self) -> None:
        if (dead := self._session.predecessor) is not None:
            with contextlib.suppress(NotAllowedError):  # it is signed off already
                self._retire(dead)
                if self._session.unanswered() is None:
                    # It may have died with a message that it had not written down: who asked has to see it offline.
                    self._stop.wait(_OFFLINE)
        request = ActivateNodeRequest(public_key=self._public, heartbeat_interval=INTERVAL)
        try:
            self._node = Node(node_id=self._call(self._client.ActivateNode, request).node_id)
        except NotAllowedError:
            raise self._refusal() from None
        self._session.connected(self.number)

    def _retire(self, number: int) -> None:
        try:
            self._call(self._client.DeactivateNode, DeactivateNodeRequest(node_id=number))
        except FednotesError as error:
            if error.code != "not-registered":  # the key is another one now
                raise

    def _refusal(self) -> FednotesError:
        """Flower has one answer for a key that it does not know and for one that is in use. A node that was here before
        can tell: with its number a registered key gets another refusal."""
        known = self._session.number
        if known is not None:
            try:
                self._call(self._client.GetRun, GetRunRequest(node=Node(node_id=known), run_id=0))
            except RunEndedError:
                return key_in_use(self.address)
            except FednotesError as error:
                if error.code != "not-registered":
                    return error
        return not_registered(self.address)

    def _beat(self) -> None:
        request = SendNodeHeartbeatRequest(node=self._node, heartbeat_interval=INTERVAL)
        while not self._left.wait(BEAT):
            with contextlib.suppress(FednotesError, RunEndedError, NotAllowedError):  # the next call will tell
                self._call(self._client.SendNodeHeartbeat, request)

    def _insist(self, call: Callable[[Any], Any], request: Any) -> Any:
        """Call, through outages. Raises RunEndedError, StoppedError, and MachineError for what waiting does not
        mend."""
        wait = 0.5
        while True:
            try:
                return self._call(call, request)
            except FednotesError as error:
                if error.code not in _OUTAGES:
                    raise
                log.warning("%s Trying again in %g s.", error.message, wait)
            if self._stop.wait(wait):
                raise StoppedError
            wait = min(2 * wait, _LONGEST_WAIT)

    def _call(self, call: Callable[[Any], Any], request: Any) -> Any:
        """One attempt, its failures as ours."""
        try:
            return call(request)
        except httpx.HTTPStatusError as error:
            raise refused(self.address, error.response) from None
        except (httpx.TransportError, ValueError) as error:
            raise no_answer(self.address, error) from None


def trusting(ca: bytes) -> ssl.SSLContext:
    """TLS that accepts what this authority signed, for the right host. Raises InputError `ca-unreadable`."""
    try:
        return ssl.create_default_context(cadata=ca.decode("ascii"))
    except (ssl.SSLError, ValueError):
        raise no_certificate() from None
