"""A Flower message as bytes: how it travels, to the coordinator and to the worker.

The node never opens what a message holds: it hands a model of 500 MB through without a copy of it in arrays.
"""

from dataclasses import dataclass
from multiprocessing.connection import Connection as Pipe

from flwr.app import Message
from flwr.app.message.message import remove_content_from_message
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents


@dataclass(frozen=True)
class Parcel:
    """`header`: the message without its content; `tree` names the objects of its content, `objects` holds them."""

    header: Message
    tree: ObjectTree
    objects: dict[str, bytes]


def pack(message: Message) -> Parcel:
    """Packed twice, a message is the same parcel: the coordinator takes a second one for the first, sent again."""
    with no_object_id_recompute():
        message.metadata.__dict__["_message_id"] = message.object_id
        objects = {name: part.deflate() for name, part in get_all_nested_objects(message).items()}
        return Parcel(remove_content_from_message(message), get_object_tree(message), objects)


def unpack(parcel: Parcel) -> Message:
    """The message; the parcel is empty after that. Raises ValueError and KeyError where it is malformed."""
    message = inflate_object_from_contents(parcel.tree.object_id, parcel.objects)
    if not isinstance(message, Message):
        raise ValueError("not a message")
    message.metadata.__dict__["_message_id"] = parcel.tree.object_id
    return message


def header_bytes(header: Message) -> bytes:
    return message_to_proto(header).SerializeToString(deterministic=True)


def read_header(content: bytes) -> Message:
    """Raises ValueError."""
    try:
        return message_from_proto(ProtoMessage.FromString(content))
    except Exception:  # protobuf's own, which has no types
        raise ValueError("not the header of a message") from None


def send_parcel(pipe: "Pipe", parcel: Parcel) -> None:
    """Object by object, so that all of them together are never copied."""
    pipe.send_bytes(header_bytes(parcel.header))
    pipe.send_bytes(parcel.tree.SerializeToString())
    pipe.send(list(parcel.objects))
    for content in parcel.objects.values():
        pipe.send_bytes(content)


def receive_parcel(pipe: "Pipe") -> Parcel:
    """Raises EOFError where the other end is gone."""
    header = read_header(pipe.recv_bytes())
    tree = ObjectTree.FromString(pipe.recv_bytes())
    return Parcel(header, tree, {name: pipe.recv_bytes() for name in pipe.recv()})
