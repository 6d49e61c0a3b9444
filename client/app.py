"""The Flower ClientApp: thin handlers. What a site keeps in memory between messages is one `Worker`.

A handler never lets an exception out: Flower would send its text to the coordinator. The site's own log gets the
details; only a code leaves.
"""

import dataclasses
import functools
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

import torch
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from client.admission import admitted
from client.approval import approved
from client.device import pick_device, release_memory
from client.evaluation.round_space import round_space
from client.heads import load_heads, save_heads
from client.leaving import plain_receipt, train_receipt
from client.memorisation.check import check_memorisation
from client.memorisation.planted import with_canaries
from client.notes.store import NoteStore
from client.objectives import Objective, make_objective
from client.objectives.usage import round_steps
from client.policy import check_policy
from client.private_round import Terms, private_round
from client.receipt import write_receipt
from client.received import held, keep_received
from client.site import Site, SiteConfig, open_site
from client.training import check_finite, held_out_loss, held_out_rows, site_key, train, usable
from client.units import count_units
from common import memorisation, messages, scores
from common.encoder import Encoder, load_encoder, load_tokenizer
from common.errors import FednotesError
from common.plan import StudyPlan
from common.plan_sections import Trainable
from common.trainable import train_only
from common.wire import up

log = logging.getLogger("fednotes.site")
app = ClientApp()

SITE_FOLDER = "site-folder"  # key of Flower's node config


# Called with (site, steps done, steps of the round) as local training goes on; an engine in this process may set it.
def on_step(site: str, done: int, steps: int) -> None: ...


class Worker:
    """One model in memory, reused over rounds and, in a simulation, over sites."""

    def __init__(self, base: str, seed: int, trainable: Trainable, lora_rank: int) -> None:
        self.encoder: Encoder = load_encoder(base, seed)
        self.base_digest = self.encoder.body_digest()
        train_only(self.encoder, trainable, lora_rank, seed)
        # A fresh head is the same at every site, for it is drawn from the study's seed: this is where sites start.
        self.initial = {name: p.detach().clone() for name, p in self.encoder.tensors().items()}
        cast(torch.nn.Module, self.encoder.model).to(pick_device())

    def load(self, request: messages.Request, objective: Objective, site: Path) -> None:
        """The objective's head; shared tensors from the message; the rest as this site left it, or as it starts."""
        objective.attach(self.encoder)
        private = self.encoder.private(request.plan.federation.share)
        if private and not load_heads(site, request.run, request.round, self.encoder):
            self.encoder.load({name: self.initial[name] for name in private if name in self.initial})
        self.encoder.load(request.arrays)


def worker(plan: StudyPlan) -> Worker:
    """The model that stays in memory, as long as plans ask for the same."""
    return _worker(plan.encoder.base, plan.study.seed, plan.training.trainable, plan.training.lora_rank)


@functools.lru_cache(maxsize=1)
def _worker(base: str, seed: int, trainable: Trainable, lora_rank: int) -> Worker:
    return Worker(base, seed, trainable, lora_rank)


@functools.lru_cache(maxsize=256)
def _notes(folder: Path, config: str, base: str) -> NoteStore:
    return Site(SiteConfig.model_validate_json(config), folder).notes(load_tokenizer(base))


def _opened(context: Context, plan: StudyPlan) -> tuple[Site, NoteStore]:
    """The site and its notes: the only way to them from a message.

    `site.toml` is read at every message, so that a policy that was tightened holds for the next. Nothing of the notes
    is opened for a plan that the policy or nobody's approval lets in.
    """
    site = open_site(_folder(context))
    check_policy(site, plan, None)
    approved(site, plan)
    return site, _notes(site.folder, site.config.model_dump_json(exclude={"policy"}), plan.encoder.base)


def _request(message: Message, context: Context) -> messages.Request:
    return messages.read_request(message, functools.partial(held, _folder(context)))


def _folder(context: Context) -> Path:
    return Path(str(context.node_config[SITE_FOLDER]))


def _guarded(handler: Callable[[Message, Context], Message]) -> Callable[[Message, Context], Message]:
    """Turn any exception into an error reply that carries a code and nothing else."""

    @functools.wraps(handler)
    def guarded(message: Message, context: Context) -> Message:
        try:
            return handler(message, context)
        except FednotesError as error:
            log.error("%s: %s", error.code, error)
            return messages.error_reply(error.code, message)
        except MemoryError:
            log.exception("out of memory")
            return messages.error_reply("out-of-memory", message)
        except Exception:
            log.exception("the round failed")
            return messages.error_reply("internal-error", message)

    return guarded


@app.query()
@_guarded
def describe(message: Message, context: Context) -> Message:
    """Who this site is and what it brings. Raises, as a code, "too-few-notes" below the site's own floor."""
    plan = messages.read_plan(message)
    site, notes = _opened(context, plan)
    facts, _ = admitted(site, notes, plan)
    messages.check_base(message, worker(plan).base_digest)
    said = facts.model_dump(exclude={"name"}, exclude_none=True)
    write_receipt(site.folder, plain_receipt("describe", plan, messages.read_run(message), 0, said))
    return messages.facts_reply(facts, message)


@app.train()
@_guarded
def train_round(message: Message, context: Context) -> Message:
    """One round of local training."""
    started = time.perf_counter()
    request = _request(message, context)
    plan = request.plan
    site, notes = _opened(context, plan)
    work = worker(plan)
    objective = make_objective(plan, work.encoder.tokenizer, notes)
    work.load(request, objective, site.folder)
    read = with_canaries(site, notes, request, work.encoder)
    save = functools.partial(save_heads, site.folder, request.run, request.round, work.encoder, plan.federation.share)
    report = functools.partial(on_step, site.name)
    done = None
    if plan.privacy:
        done = private_round(site, notes, read, request, work.encoder, objective, save, report)
        reply, update = done.reply, done.update
    else:
        steps = round_steps(plan, notes.lengths[notes.split_indices("train")])
        trained = train(
            work.encoder,
            objective,
            read,
            plan.training,
            key=site_key(plan.study.seed, site.name),
            first_step=(request.round - 1) * steps,
            steps=steps,
            total_steps=plan.federation.rounds * steps,
            proximal_mu=request.proximal_mu,
            on_step=report,
        )
        check_finite(work.encoder)
        save()
        update = up(work.encoder.shared_arrays(plan.federation.share), request.arrays, plan.federation.wire)
        count = max(1, round(len(usable(objective, notes, "train")) * trained.steps / steps))
        seconds = time.perf_counter() - started
        reply = messages.TrainReply(count, trained.steps, trained.tokens, trained.loss, seconds, trained.parts)
    release_memory()
    write_receipt(site.folder, train_receipt(request, reply, update, done))
    return messages.train_reply(reply, update, message)


@app.evaluate()
@_guarded
def evaluate_round(message: Message, context: Context) -> Message:
    """The held-out loss of the shared weights, with the heads that this site has after the round."""
    request = _request(message, context)
    plan = request.plan
    site, notes = _opened(context, plan)
    if plan.privacy:
        check_policy(site, plan, Terms.of(plan, plan.privacy, count_units(notes, plan.privacy.unit)))
    keep_received(site, request)
    if plan.privacy and not site.config.policy.release_uncovered:
        raise FednotesError("withheld", "A held-out loss is not covered by the study's epsilon.")
    work = worker(plan)
    objective = make_objective(plan, work.encoder.tokenizer, notes)
    after = dataclasses.replace(request, round=request.round + 1)
    work.load(after, objective, site.folder)
    key, most = site_key(plan.study.seed, site.name), plan.evaluation.held_out_notes
    found = held_out_loss(work.encoder, objective, notes, plan.training, key=key, most_notes=most)
    if not found.notes:
        raise FednotesError(
            "no-dev-notes",
            f"{site.name} has no dev notes that the objective can use.",
            "Its held-out loss cannot be computed.",
        )
    space = None
    if plan.evaluation.embedding_space and site.config.policy.release_embedding_space:
        rows = held_out_rows(notes, notes.split_indices("dev"), key, most)
        space = round_space(work.encoder, notes, rows, plan, request.round, site.folder)
    reply = messages.EvaluateReply(found.loss, found.notes, found.tokens, found.parts, space)
    said = {"loss": found.loss, "notes": found.notes, "tokens": found.tokens} | found.parts
    said |= space.model_dump(exclude_none=True) if space else {}
    write_receipt(site.folder, plain_receipt("evaluate", plan, request.run, request.round, said))
    return messages.evaluate_reply(reply, message)


@app.query(memorisation.ACTION)
@_guarded
def check_release(message: Message, context: Context) -> Message:
    """What the final shared weights know by heart, with the MLM head of this site, and whether it lets them go."""
    request = _request(message, context)
    plan = request.plan
    site, notes = _opened(context, plan)
    work = worker(plan)
    objective = make_objective(plan, work.encoder.tokenizer, notes)
    work.load(dataclasses.replace(request, round=request.round + 1), objective, site.folder)
    found = check_memorisation(site, notes, request, work.encoder, objective)
    release_memory()
    said = memorisation.figures(found)
    write_receipt(site.folder, plain_receipt("memorisation", plan, request.run, request.round, said))
    return memorisation.reply(found, message)


@app.query(scores.ACTION)
@_guarded
def release_scores(message: Message, context: Context) -> Message:
    """How the final shared weights do on the plan's tasks, beside what this site has without the others."""
    # Imported here, so that the process that trains has it when it is asked for: and it needs `Worker`.
    from client.scores import released_scores

    request = _request(message, context)
    plan = request.plan
    site, notes = _opened(context, plan)
    _worker.cache_clear()  # training alone has a model of its own, and no round comes after this
    found = released_scores(site, notes, request, functools.partial(on_step, site.name))
    release_memory()
    receipt = plain_receipt("scores", plan, request.run, request.round, scores.figures(found))
    write_receipt(site.folder, receipt)
    return scores.reply(found, message)
