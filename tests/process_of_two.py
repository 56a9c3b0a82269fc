"""One of the processes that test_distributed.py starts: it trains, and writes down what it saw."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import torch
from gantrt.errors import UsageError
from gantrt_training import families
from gantrt_training.data import Batches, Data
from gantrt_training.devices import open_fabric
from gantrt_training.distributed import World
from gantrt_training.family import list_families, load_family
from gantrt_training.randomness import seed_everything, seed_of_process
from gantrt_training.recipe import Recipe, make_recipe
from gantrt_training.run import Run
from gantrt_training.step import Training, upload
from gantrt_training.trainer import restore

FAMILIES = [*list_families(), "tiny_paired", "tiny_unpaired"]
SMALL: dict[str, dict[str, Any]] = {
    "pix2pix": {"size": 32, "ngf": 4, "ndf": 4, "dropout": 0.0},
    "cyclegan": {"size": 16, "ngf": 4, "ndf": 4, "n_blocks": 1, "d_layers": 2},
    "discogan": {"size": 16, "ngf": 4, "ndf": 4, "fm_weight": 0.0},  # which matches means over a batch
    "ugatit": {"size": 32, "ngf": 4, "ndf": 4, "n_blocks": 1, "light": True},
    "tiny_paired": {"dropout": 0.0},
    "tiny_unpaired": {"pool_size": 0},
}
STEPS = 3


def recipe(folder: Path, family: str, **changes: Any) -> Recipe:
    pictures = "pairs" if load_family(family).paired else "sides"
    return make_recipe(family, folder / pictures, "paper", SMALL[family] | changes)


def start(made: Recipe, world: World | None = None) -> tuple[Training, Batches]:
    family, config = made.load_family(), made.config
    fabric = open_fabric("cpu", "fp32")
    data = Data(Path(made.data), (config.channels_a, config.channels_b), made.preparation(), paired=family.paired)
    share = (world.rank, world.size) if world else (0, 1)
    batches = Batches(data, config.batch * made.accumulate, 0, 0, share)
    seed_everything(0)
    how = {"accumulate": made.accumulate, "ema": made.ema, "sync_batchnorm": made.sync_batchnorm}
    training = Training(family, config, batches.steps_per_epoch, fabric, **how)
    if world and world.rank:
        seed_everything(seed_of_process(0, world.rank))
    return training, batches


def steps(training: Training, batches: Batches, count: int = STEPS) -> list[dict[str, float]]:
    """The losses of each."""
    curve = []
    for step in range(training.done, training.done + count):
        training.step(*(upload(side, training.fabric.device) for side in batches.load(step)))
        curve.append(training.losses.take())
    return curve


def gradients(training: Training) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in training.nets.named_parameters() if p.grad is not None}


def weights(training: Training) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in training.nets.state_dict().items()}


def observe(training: Training, batches: Batches) -> dict[str, Any]:
    curve = steps(training, batches, 1)
    seen = {"gradients": gradients(training)}
    return seen | {"curve": curve + steps(training, batches), "weights": weights(training)}


def resumed(folder: Path, family: str, world: World) -> dict[str, Any]:
    """Weights after 2 + 2 steps, without and with a checkpoint between them."""
    changes = {"dropout": 0.5} if family == "tiny_paired" else {"pool_size": 2}
    made = recipe(folder, family, ema=0.9, **changes)
    through, batches = start(made, world)
    run = Run(folder / f"run_{family}", made, through, batches.data, 100)
    steps(through, batches, 2)
    run.save()
    run.close()
    drawn = torch.get_rng_state()
    steps(through, batches, 2)
    again, batches = start(made, world)
    restore(again, folder / f"run_{family}")
    same_draws = torch.equal(drawn, torch.get_rng_state())
    steps(again, batches, 2)
    pools = [[pool.state_dict()["images"] for pool in training.pools.values()] for training in (through, again)]
    return {"through": weights(through), "again": weights(again), "pools": pools, "same_draws": same_draws}


def agree(world: World) -> dict[str, Any]:
    """What the messages between processes come to."""
    mine = [torch.full(shape, float(world.rank + n)) for n, shape in enumerate([(2, 3), (1,), (5,)])]
    world.average(mine)

    def refuse() -> None:
        raise UsageError("only the first tried")

    try:
        world.first(refuse)
    except UsageError as error:
        refused = str(error)
    return {
        "average": [tensor.unique().tolist() for tensor in mine],
        "any": [world.any(False), world.any(world.rank == 1)],
        "gather": world.gather({"rank": world.rank, "x": [torch.tensor(world.rank)]}),
        "first": world.first(lambda: world.rank),
        "refused": refused,
    }


def main(folder: Path) -> None:
    families.__path__.append(str(Path(__file__).parent / "tiny_families"))  # type: ignore[attr-defined]
    torch.set_num_threads(1)
    world = World(open_fabric("cpu", "fp32"))
    seen: dict[str, Any] = {"agree": agree(world)}
    for family in FAMILIES:
        made = recipe(folder, family, batch=2, sync_batchnorm=True)
        seen[family] = observe(*start(made, world))
        if family in ("cyclegan", "ugatit"):
            seen[f"{family}_accumulated"] = observe(*start(recipe(folder, family, batch=1, accumulate=2), world))
    for family in ("tiny_paired", "tiny_unpaired"):
        seen[f"{family}_resumed"] = resumed(folder, family, world)
    torch.save(seen, folder / f"seen_{world.rank}.pt")
    world.leave()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
