"""The Flower ServerApp. It finds the plan in the run's folder, which Flower's run config names."""

from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from common.encoder import Encoder, load_encoder
from common.messages import Tensors
from common.plan import StudyPlan, load_plan
from common.trainable import merged, train_only
from server.rounds import Event, Rounds

app = ServerApp()

RUN_FOLDER = "run-folder"  # key of Flower's run config
PLAN_FILE, CHECKPOINTS = "plan.toml", "checkpoints"


# Called as the study goes on; a display in this process may set it.
def on_event(event: Event) -> None: ...


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run all rounds that are still to do. Raises StudyError where the study cannot go on."""
    folder = Path(str(context.run_config[RUN_FOLDER]))
    plan = load_plan(folder / PLAN_FILE)
    Rounds(grid, plan, folder / CHECKPOINTS, lambda: base_tensors(plan), on_event).run()


def base_tensors(plan: StudyPlan) -> Tensors:
    """The shared tensors of the plan's base, before any training."""
    encoder = load_encoder(plan.encoder.base, plan.study.seed)
    train_only(encoder, plan.training.trainable, plan.training.lora_rank, plan.study.seed)
    set_shared_categories(encoder, plan)
    return encoder.shared_arrays(plan.federation.share)


def set_shared_categories(encoder: Encoder, plan: StudyPlan) -> None:
    """Give the encoder the category head that travels, fresh, where the plan has one."""
    encoder.set_categories(plan.shared_categories, shared=True, bias=plan.category_bias)


def plain_tensors(plan: StudyPlan, tensors: Tensors) -> Tensors:
    """Shared tensors as an encoder has them of which all learns: with those that stayed as they were, and adapters
    merged into the weights beside them."""
    if plan.training.trainable == "all":
        return tensors
    whole = load_encoder(plan.encoder.base, plan.study.seed).shared_arrays(plan.federation.share)
    return whole | merged(tensors, whole)
