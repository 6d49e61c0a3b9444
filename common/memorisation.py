"""The exchange of the memorisation check: after the last round shared tensors go down, and figures or a code come up.

No text, no identifier and no secret is among the figures: they are those of `common.results.Memorisation`, flat.
"""

from collections.abc import Mapping
from typing import Any

from flwr.app import ConfigRecord, Message, RecordDict

from common import messages, wire
from common.messages import CONFIG, BadReply, Tensors
from common.plan import StudyPlan
from common.results import CanaryExposure, Estimate, IdentifierCompletion, Memorisation

ACTION = "memorisation"
KIND = f"query.{ACTION}"  # of the message, as Flower names an action
EXPOSED = "exposure-beyond-policy"
_PARTS = {"canaries": CanaryExposure, "identifiers": IdentifierCompletion}
_VETO = "veto"

Flat = dict[str, float | int | str]


def request_content(plan: StudyPlan, run: str, number: int, arrays: Tensors) -> RecordDict:
    """The shared tensors after round `number`, and whose they are."""
    config = messages.request_config(plan, run)
    config["server-round"] = number
    return RecordDict({messages.ARRAYS: messages.packed(wire.down(arrays, plan.federation.wire)), CONFIG: config})


def figures(found: Memorisation) -> Flat:
    """What leaves the site, by name: `canaries-auc-low`."""
    said: Flat = {_VETO: found.veto} if found.veto else {}
    for part in _PARTS:
        if (figures := getattr(found, part)) is not None:
            said |= _flat(part, figures.model_dump(exclude_none=True))
    return said


def reply(found: Memorisation, message: Message) -> Message:
    return Message(RecordDict({CONFIG: ConfigRecord({**figures(found)})}), reply_to=message)


def read_reply(message: Message, site: str, plan: StudyPlan) -> Memorisation:
    """What a site answers, checked against the plan. An error is an answer, too: a reason, and a veto where the code
    says that nobody at the site agrees any more. Raises BadReply where it is malformed."""
    if message.has_error():
        code = messages.site_code(message)
        reason = f"the site reports {code}" if code else f"it failed (Flower error {message.error.code})"
        return Memorisation(site=site, reason=reason, veto=code if refuses(code) else "")
    try:
        said = dict(message.content.config_records[CONFIG])
        veto = said.pop(_VETO, "")
        if veto not in ("", EXPOSED):
            raise ValueError
        parts: dict[str, Any] = {part: _nested(said, part) for part in _PARTS}
        found = Memorisation(site=site, veto=str(veto), **parts)
        if said or not (found.canaries or found.identifiers):
            raise ValueError
    except (KeyError, TypeError, ValueError):
        raise BadReply("its figures of memorisation are malformed") from None
    if (canaries := found.canaries) and canaries.planted + canaries.controls != plan.canaries:
        raise BadReply(f"it speaks of {canaries.planted + canaries.controls} canaries; the plan has {plan.canaries}")
    return found


def refuses(code: str) -> bool:
    """Whether a site that answers with this code lets no release: the approval of the plan was withdrawn, or the site's
    policy no longer allows it."""
    return code in ("plan-not-approved", "privacy-required", "canaries-required") or code.endswith("-beyond-policy")


def _flat(name: str, value: Any) -> Flat:
    if not isinstance(value, Mapping):
        return {name: value}
    found: Flat = {}
    for key, part in value.items():
        found |= _flat(f"{name}-{key}", part)
    return found


def _nested(said: dict[str, Any], part: str) -> dict[str, Any] | None:
    """Takes the figures of one part out of what a site said."""
    own: dict[str, Any] = {}
    for name in [name for name in said if name.startswith(f"{part}-")]:
        key, _, bound = name.removeprefix(f"{part}-").partition("-")
        value = said.pop(name)
        if bound and bound not in Estimate.model_fields:
            raise ValueError
        if bound:
            own.setdefault(key, {})[bound] = value
        else:
            own[key] = value
    return own or None
