"""Quarantine: a site that failed twice in a row is not asked for a while, so that it does not cost the others a wait.

How long follows from the record of the rounds alone, and so is the same after a run is resumed.
"""

from collections.abc import Sequence

from common.results import Round

RESTS = "it rests after failing"  # begins the reason of a round in which a site was not asked
_PATIENCE, _LONGEST = 2, 8


def rest(rounds: Sequence[Round], site: str) -> int:
    """Rounds that a site is still to be left alone: after the second failure in a row 1, then 2, 4, and 8 each time."""
    failures, left = 0, 0
    for one in rounds:
        did = next((s for s in one.sites if s.site == site), None)
        if did is None:
            continue
        if did.state == "returned":
            failures, left = 0, 0
        elif did.reason.startswith(RESTS):
            left -= 1
        else:
            failures += 1
            left = min(_LONGEST, 2 ** (failures - _PATIENCE)) if failures >= _PATIENCE else 0
    return max(0, left)
