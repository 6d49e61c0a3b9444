"""Canaries: synthetic notes with a secret number in a context that stands nowhere else. Half of them are planted, half
held back.

They are drawn from the site's own secret, under the name of the run: nobody outside the site can foretell them, the
site needs not keep them, and no note has any part in them. Words come from the tokeniser's vocabulary, which is public.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from client.noise import SecretStream
from common.errors import FednotesError
from common.plan import CANARY_LENGTH, StudyPlan
from common.plan_sections import Declutr

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DIGITS = 6
_SHORTEST_WORD, _FEWEST_WORDS = 4, 20


@dataclass(frozen=True, eq=False)
class Canary:
    """A note. `ids` and `word_starts` [t] without special tokens; `places` [DIGITS] of the secret in them, and `secret`
    [DIGITS], the digits themselves."""

    ids: np.ndarray
    word_starts: np.ndarray
    places: np.ndarray
    secret: np.ndarray


@dataclass(frozen=True, eq=False)
class Canaries:
    """`digit_ids` [10] are the tokens of the digits 0 to 9 in a secret; `name` is of this very set (hex)."""

    planted: list[Canary]
    controls: list[Canary]
    digit_ids: np.ndarray
    name: str


def make_canaries(plan: StudyPlan, tokenizer: "PreTrainedTokenizerBase", secret: bytes, run: str) -> Canaries:
    """The canaries of a run at a site; the same whenever they are asked for.

    Args:
        secret: the site's 32 bytes (client/ledger.py).
        run: its id (hex).

    Raises:
        FednotesError: `no-digits`.
    """
    stream = SecretStream(secret, f"canaries/{run}")
    name = stream.integers(2).tobytes().hex()
    words = _words(tokenizer)
    longest = plan.encoder.max_length - 2
    shortest = CANARY_LENGTH - 2
    if isinstance(plan.objective, Declutr):  # it leaves shorter notes out
        shortest = max(shortest, 2 * plan.objective.anchors * plan.objective.min_span)
        longest = max(longest, shortest + 8)
    digit_ids = _digit_ids(tokenizer)
    found = [_canary(tokenizer, words, stream, shortest, longest) for _ in range(plan.canaries)]
    half = plan.canaries // 2
    return Canaries(found[:half], found[half:], digit_ids, name)


def _canary(
    tokenizer: "PreTrainedTokenizerBase", words: list[str], stream: SecretStream, shortest: int, longest: int
) -> Canary:
    secret = (stream.integers(DIGITS) % np.uint64(10)).astype(np.int64)
    context = [words[number % len(words)] for number in stream.integers(shortest).tolist()]
    read = tokenizer(" ".join(context), add_special_tokens=False, verbose=False).encodings[0]
    sizes = np.cumsum(np.bincount(read.word_ids))  # in tokens, of so many words
    rest = len(_encoded(tokenizer, [context[0]], secret).ids) - int(sizes[0])
    fitting = int(np.searchsorted(rest + sizes, longest, side="right"))
    enough = int(np.searchsorted(rest + sizes, shortest)) + 1
    return _encoded(tokenizer, context[: min(fitting, enough)], secret)


def _encoded(tokenizer: "PreTrainedTokenizerBase", context: list[str], secret: np.ndarray) -> Canary:
    """The digits stand last, each a word of its own, so that a tokeniser does not melt them."""
    start = " ".join([*context, ": "])
    text = start + " ".join(map(str, secret.tolist()))
    encoding = tokenizer(text, add_special_tokens=False).encodings[0]
    places = [encoding.char_to_token(len(start) + 2 * i) for i in range(len(secret))]
    word_of = np.array(encoding.word_ids, dtype=np.float64)
    starts = np.diff(word_of, prepend=np.nan) != 0
    return Canary(np.array(encoding.ids, dtype=np.int64), starts, np.array(places, dtype=np.int64), secret)


def _digit_ids(tokenizer: "PreTrainedTokenizerBase") -> np.ndarray:
    one = _encoded(tokenizer, [], np.arange(10))
    ids = one.ids[one.places]
    if len(set(ids.tolist())) < 10:
        raise FednotesError(
            "no-digits", "The tokeniser of the base has no token for each digit.", "Plan release.canaries = 0."
        )
    return ids


def _words(tokenizer: "PreTrainedTokenizerBase") -> list[str]:
    """Of the vocabulary, in an order that is the same everywhere."""
    plain = {token.lstrip("\u0120\u2581") for token in tokenizer.get_vocab()}  # marks of a space before a word
    words = sorted(word for word in plain if word.isascii() and word.isalpha() and word.islower())
    long = [word for word in words if len(word) >= _SHORTEST_WORD]
    return long if len(long) >= _FEWEST_WORDS else words or ["note"]
