"""What sites said, opened: the messages that went up, put together from the calls that carried them."""

from flwr.app import Message
from flwr.common.serde import message_from_proto
from flwr.proto.fleet_pb2 import PushMessagesRequest
from flwr.proto.message_pb2 import PushObjectRequest
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from recording_proxy import Exchange

from client.node.parcel import Parcel, unpack


def spoken(exchanges: list[Exchange]) -> list[Message]:
    """Every message that a site sent whole, once."""
    objects: dict[str, bytes] = {}
    for one in exchanges:
        if one.path == "/v1/fleet/push-object":
            pushed = PushObjectRequest.FromString(one.request)
            objects[pushed.object_id] = pushed.object_content
    found: dict[str, Message] = {}
    for one in exchanges:
        if one.path != "/v1/fleet/push-messages":
            continue
        request = PushMessagesRequest.FromString(one.request)
        for header, tree in zip(request.messages_list, request.message_object_trees, strict=True):
            parts = {part.object_id for part in iterate_object_tree(tree)}
            if parts <= objects.keys():
                parcel = Parcel(message_from_proto(header), tree, {part: objects[part] for part in parts})
                found[tree.object_id] = unpack(parcel)
    return list(found.values())
