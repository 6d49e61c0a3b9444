"""`site.toml` as `fednotes site init` writes it: every key that a person may want to change, with a comment."""

from collections.abc import Mapping

import tomli_w

from client.notes.source import NotesSource
from client.site import SiteConfig

_TOP = {
    "name": "The name that the coordinator knows this site by: it is that of the kit.",
    "split_key": "Keys the hash that deals patients to train, dev and test. A secret of this site: it never leaves.",
    "cache": "Prepared notes, with their texts: for this user's eyes alone. It may be deleted at any time.",
    "min_notes": "With fewer training notes the site takes no part.",
}
_COORDINATOR = {
    "address": "Outbound connections go here and nowhere else.",
    "ca": "The authority whose certificates the coordinator may show.",
    "key": "This site's private key. It never leaves.",
    "max_hours_per_message": "Work on one request of the coordinator is ended after this.",
}
_POLICY = {
    "require_approval": "No study whose plan nobody here has approved (fednotes site approve).",
    "objectives": "What may be trained.",
    "max_rounds": "Most rounds that a study may plan.",
    "require_privacy": "No study without differential privacy.",
    "unit": 'What is protected at least: "patient" refuses plans that protect single notes only.',
    "exact_clipping": "Only plans whose privacy holds whatever weights come (privacy.engine = loop); slower.",
    "max_epsilon": "Most that all private studies together may spend of the notes' privacy, by the ledger.",
    "release_embedding_space": "Figures of the embedding space leave where a plan asks for them.",
    "release_scores": "Scores of the encoder on a plan's tasks leave where it asks for them; no class is named.",
    "max_exposure": "No release of an encoder that knows a canary by so many bits (docs/release.md).",
    "release_uncovered": "Exact counts, held-out losses and scores leave private studies, too. For simulations.",
}
_TASKS = """\
# Tasks that encoders are tried on here (fednotes site report); the label column is one, called "label".
# [[tasks]]
# name = "severity"
# label = "the column with the answers"
"""
_HEAD = """\
# What this site has, and what it agrees to. docs/notes.md explains the keys; an edit holds from the next message on.
# It may hold a database's password, and it holds the split key: keep it readable for this user alone.
"""


def site_toml(config: SiteConfig) -> str:
    """The text of the file. Paths stand in it as they do in `config`."""
    values = config.model_dump(mode="json", exclude_none=True)
    assert config.coordinator is not None  # it was made from a kit
    parts = [_HEAD, _commented(values, _TOP)]
    parts.append("# Where the notes are, and what their columns are called.\n" + _source("notes", config.notes))
    if config.public is not None:
        parts.append("# Text that is no secret, for private contrastive training.\n" + _source("public", config.public))
    parts.append(_TASKS)
    parts.append("[coordinator]\n" + _commented(values["coordinator"], _COORDINATOR))
    parts.append("# It can only be stricter than a plan: what goes beyond it is refused.\n[policy]")
    parts.append(_commented(values["policy"], _POLICY))
    return "\n".join(parts)


def _commented(values: Mapping[str, object], comments: Mapping[str, str]) -> str:
    out = []
    for key, words in comments.items():
        out.append(f"# {words}")
        out.append(tomli_w.dumps({key: values[key]}).strip() if key in values else f"# {key} =")
    return "\n".join(out) + "\n"


def _source(section: str, source: NotesSource) -> str:
    return tomli_w.dumps({section: source.model_dump(mode="json", exclude_none=True)})
