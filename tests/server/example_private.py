"""A summary of a study that trained privately, for the tests of what shows one."""

from typing import Literal

from example_summary import example_summary

from common.results import PrivacySpent, Round, SiteFacts, SiteRound, Summary

UNITS = [412, 633, 287, 1204]
CAP, DELTA = 8.0, 1e-5


def private_summary(
    rounds: int = 8,
    released: bool = True,
    losses: bool = True,
    cap: float | None = CAP,
    unit: Literal["patient", "note"] = "patient",
    objective: str = "mlm",
) -> Summary:
    """A site is left out of every fourth round (3, 7).

    Args:
        released: the sites' policies release counts and held-out losses, as those of a simulation do.
        losses: the training loss leaves the site, with noise.
        cap: the plan's epsilon; None: it gives the noise.
    """
    summary = example_summary(rounds=rounds, objective=objective)
    level = "noise multiplier 1.1" if cap is None else f"epsilon at most {cap:g}"
    return summary.model_copy(
        update={
            "privacy": f"differential privacy for each {unit}: {level} at delta {DELTA:g}",
            "epsilon_cap": cap,
            "sites": [_facts(site, UNITS[i], released) for i, site in enumerate(summary.sites)],
            "rounds": [_round(round_, rounds, released, losses, unit) for round_ in summary.rounds],
            "left_out_sites": {},
        }
    )


def _facts(facts: SiteFacts, units: int, released: bool) -> SiteFacts:
    if released:
        return facts.model_copy(update={"units": units})
    none = dict.fromkeys(("train", "dev", "test", "set_aside", "tokens", "whole", "shortened", "too_short"), 0)
    return facts.model_copy(update=none | {"units": units})


def _round(round_: Round, rounds: int, released: bool, losses: bool, unit: Literal["patient", "note"]) -> Round:
    sites = [_site(site, i, round_.number / rounds, losses, unit) for i, site in enumerate(round_.sites)]
    return round_.model_copy(update={"sites": sites, "held_out": round_.held_out if released else {}})


def _site(did: SiteRound, i: int, share: float, losses: bool, unit: Literal["patient", "note"]) -> SiteRound:
    if did.state == "left-out":
        return did
    spent = PrivacySpent(
        unit=unit,
        units=UNITS[i],
        noise_multiplier=1.1 - 0.06 * i,
        sample_rate=16 / UNITS[i],
        steps=did.steps,
        epsilon=(7.98 - 0.05 * i) * (0.25 + 0.75 * share**0.6),
        delta=DELTA,
    )
    none = dict.fromkeys(("notes", "tokens", "seconds"), 0)
    loss = did.loss if losses else None
    return did.model_copy(update=none | {"parts": {}, "loss": loss, "privacy": spent})
