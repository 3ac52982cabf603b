"""ParityMNIST on real images: every fine-tuning that the two figures of the network ask about.

The controlled experiment of "RL's Razor" (Shenfeld, Pari, Agrawal, arXiv:2509.04259, section 3): a network that
classifies garments and knows parity a little is fine-tuned on parity, where every digit of the right parity is correct,
by nine methods at many learning rates. Some start from a second kind of base, whose parity labels were skewed inside
the correct answers. Embedded data: 5,000 MNIST digits, 4,000 Fashion-MNIST garments. This is no figure of its own;
`parity_law` and `parity_razor` draw it.

About two and a half minutes on two cores.
"""

import math
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from experiments.harness import UserError, bounded, checked_run
from rlrazor.methods import GRPO, ORACLE_SFT, SFT_1, plus_kl
from rlrazor.sweeps import Grid, grid, rows_by_name, sweep
from rlrazor.tasks import images, parity

SKEWED_METHODS = (SFT_1, ORACLE_SFT, GRPO, plus_kl(GRPO))


@dataclass(frozen=True)
class Config:
    """Data, bases, learning rates and lengths; `as_in_the_paper` is the paper's grid, for the full data."""

    rates: tuple[float, ...] = bounded(
        tuple(np.geomspace(1e-5, 1e-3, 8).round(8).tolist()), at_least=1e-9, at_most=1.0, min_length=2
    )
    """Peak learning rates of the fine-tuning."""
    num_seeds: int = bounded(3, at_most=1000)
    """Bases of each kind, each with its own fine-tunings."""
    cosine: tuple[bool, ...] = (False,)
    """Learning rate schedules: whether it falls along a cosine after the warmup."""
    epochs: tuple[int, ...] = bounded((6,), at_most=1000)
    """Passes over the digits."""
    num_checkpoints: int = bounded(4, at_most=1000)
    """Evaluations of each fine-tuning after that of its base."""
    batch_size: int = bounded(64, at_most=60000)
    """Images of an update."""
    group_size: int = bounded(8, at_least=2, at_most=1000)
    """Answers to each image in GRPO and REINFORCE."""
    beta: float = bounded(0.1, at_least=0.0, at_most=1e3)
    """Coefficient of the KL penalty."""
    num_pretrain: int = bounded(500, at_most=60000)
    """Images of each task in the joint pretraining."""
    pretrain_steps: int = bounded(80, at_most=100000)
    """Updates of the joint pretraining; five passes."""
    pretrain_rate: float = bounded(1e-3, at_least=1e-9, at_most=1.0)
    """Its learning rate."""
    skew: float = bounded(1.0, above=0.0, at_most=100.0)
    """Skew of the parity labels in the pretraining of the second kind of base."""
    teacher_rate: float = bounded(2e-4, at_least=1e-9, at_most=1.0)
    """Learning rate of the GRPO run that is distilled."""
    num_test: int = bounded(1000, at_least=11, at_most=10000)
    """Held-out images of each task."""
    fisher_images: int = bounded(256, at_most=10000)
    """Held-out garments that the Fisher information averages over."""
    aligned_images: int = bounded(500, at_least=11, at_most=10000)
    """Held-out digits whose neighbors the CKNNA compares."""
    accuracy: float = bounded(0.93, above=0.0, below=1.0)
    """Parity accuracy at which methods are compared."""
    later_accuracy: float = bounded(0.96, above=0.0, below=1.0)
    """Parity accuracy at which the ordering is compared again."""
    early_gain: float = bounded(0.03, above=0.0, below=1.0)
    """Gain in success rate up to which a fine-tuning has only begun."""
    late_gain: float = bounded(0.06, above=0.0, below=1.0)
    """Gain in success rate from which on the networks must have left the frontier."""
    seed: int = bounded(0, at_least=0)
    """Of the random keys."""
    chunk_size: int = 39
    """Fine-tunings between two entries in `checkpoints`."""
    data_dir: str = ""
    """Folder with the full data, mnist/ and fashion-mnist/; the embedded images unless given."""
    checkpoints: str = ""
    """Folder in which finished chunks of the sweep are kept, to resume from."""

    def __post_init__(self) -> None:
        """Levels and sizes are in order."""
        for small, large in (
            ("accuracy", "later_accuracy"),
            ("early_gain", "late_gain"),
            ("fisher_images", "num_test"),
            ("aligned_images", "num_test"),
        ):
            low, high = getattr(self, small), getattr(self, large)
            if low > high:
                raise UserError(f"{small} must be at most {large} {high:g}, got {low:g}")

    @classmethod
    def quick(cls) -> "Config":
        """Three rates, one seed, two passes."""
        return cls(
            rates=(1.2e-4, 4e-4, 1e-3),
            num_seeds=1,
            epochs=(2,),
            num_checkpoints=3,
            num_test=300,
            aligned_images=300,
            accuracy=0.91,
            later_accuracy=0.94,
        )

    @classmethod
    def as_in_the_paper(cls, data_dir: str) -> "Config":
        """Its 15 rates, two schedules and one or two passes over 60,000 digits: some two hours on two cores."""
        rates = tuple(np.geomspace(3e-6, 1e-3, 15).tolist())
        return cls(
            rates=rates, cosine=(False, True), epochs=(1, 2), num_checkpoints=5, num_test=10000, data_dir=data_dir
        )


class Results(NamedTuple):
    """Every fine-tuning at every checkpoint, the base first: `[epochs, rates, schedules, seeds, checkpoints + 1]`.

    Attributes:
        uniform: by method, from bases that were pretrained on uniform parity labels.
        skewed: by method, from bases that were pretrained on skewed ones.
    """

    uniform: dict[str, parity.Measures]
    skewed: dict[str, parity.Measures]


@checked_run
def run(config: Config) -> Results:
    """Pretrain the bases, train the teachers, and sweep over everything else."""
    world, key = load_world(config), jax.random.key(config.seed)
    per_epoch = len(world.train.inputs) // config.batch_size
    if min(config.epochs) * per_epoch < config.num_checkpoints:
        raise UserError(f"num_checkpoints must be at most {min(config.epochs) * per_epoch}, one for each update")
    bases = pretrained(config, world, config.epochs[0] * per_epoch, jax.random.fold_in(key, 0))
    uniform, skewed = crossed(config, parity.METHODS), crossed(config, SKEWED_METHODS)
    parts = []
    for epochs in config.epochs:
        settings = all_settings(config, uniform, skewed, jax.random.fold_in(key, epochs))
        num_steps = epochs * per_epoch // config.num_checkpoints * config.num_checkpoints
        try:
            measures = sweep(
                partial(measured, config, world, bases, num_steps),
                settings,
                directory=Path(config.checkpoints) / f"epochs-{epochs}" if config.checkpoints else None,
                chunk_size=config.chunk_size,
                batch_size=1 if jax.default_backend() == "cpu" else 64,
                show_progress=sys.stdout.isatty(),
            )
        except OSError as error:
            raise UserError(f"checkpoints: {error}") from None
        parts.append(on_grids(measures, uniform, skewed))
    results: Results = jax.tree.map(lambda *leaves: np.stack(leaves), *parts)
    return results


def load_world(config: Config) -> parity.World:
    """The images, if there are as many as the config asks for."""
    folder = Path(config.data_dir) if config.data_dir else None
    try:
        digits, garments = images.load_mnist(folder), images.load_fashion(folder)
        world = parity.split_world(digits, garments, num_pretrain=config.num_pretrain, num_test=config.num_test)
    except (FileNotFoundError, ValueError) as error:
        raise UserError(str(error)) from None
    limits = {
        "num_test": min(len(world.test_new.inputs), len(world.test_old.inputs)),
        "batch_size": min(len(world.train.inputs), 2 * config.num_pretrain),
    }
    for name, most in limits.items():
        if getattr(config, name) > most:
            raise UserError(f"{name} must be at most {most}, for there are no more images, got {getattr(config, name)}")
    return world


def pretrained(config: Config, world: parity.World, num_steps: int, key: Key[Array, ""]) -> parity.Base:
    """Uniform bases, then skewed ones, each with a GRPO teacher; every field has a leading axis."""
    keys = jax.random.split(key, (2, config.num_seeds)).reshape(-1)
    skews = jnp.repeat(jnp.array([0.0, config.skew]), config.num_seeds)
    pretraining = {"num_steps": config.pretrain_steps, "batch_size": config.batch_size}
    sizes = {"batch_size": config.batch_size, "group_size": config.group_size, "num_aligned": config.aligned_images}

    def one(world: parity.World, skew: Float[Array, ""], key: Key[Array, ""]) -> parity.Base:
        params = parity.pretrain(world, skew, key, rate=config.pretrain_rate, **pretraining)
        base = parity.make_base(world, params, num_fisher=config.fisher_images)
        teacher = parity.Setting(
            method=jnp.array(parity.method_index(GRPO)),
            rate=jnp.float32(config.teacher_rate),
            cosine=jnp.array(False),
            beta=jnp.float32(config.beta),
            base=jnp.array(0),
            key=jax.random.fold_in(key, 1),
        )
        alone = jax.tree.map(lambda leaf: leaf[None], base)
        trained = parity.fine_tune(world, alone, teacher, num_steps=num_steps, num_checkpoints=1, **sizes)
        return base._replace(log_teacher=trained.log_train)

    @jax.jit
    def prepare(world: parity.World, skews: Float[Array, " bases"], keys: Key[Array, " bases"]) -> Any:
        return jax.lax.map(lambda setting: one(world, *setting), (skews, keys))

    bases: parity.Base = prepare(world, skews, keys)
    return bases


def crossed(config: Config, methods: tuple[str, ...]) -> Grid:
    """Every method at every rate, schedule and seed."""
    return grid(
        method=np.array([parity.method_index(method) for method in methods], np.int32),
        rate=np.array(config.rates, np.float32),
        cosine=np.array(config.cosine),
        seed=np.arange(config.num_seeds, dtype=np.int32),
    )


def all_settings(config: Config, uniform: Grid, skewed: Grid, key: Key[Array, ""]) -> parity.Setting:
    """The fine-tunings from the uniform bases, then those from the skewed ones, which come after them."""
    second = skewed.settings | {"seed": skewed.settings["seed"] + config.num_seeds}
    both = {name: jnp.concatenate([values, second[name]]) for name, values in uniform.settings.items()}
    count = len(both["seed"])
    return parity.Setting(
        method=both["method"],
        rate=both["rate"],
        cosine=both["cosine"],
        beta=jnp.full(count, config.beta, jnp.float32),
        base=both["seed"],
        key=jax.random.split(key, count),
    )


def measured(
    config: Config, world: parity.World, bases: parity.Base, num_steps: int, setting: parity.Setting
) -> parity.Measures:
    """The measures of one fine-tuning."""
    return parity.fine_tune(
        world,
        bases,
        setting,
        num_steps=num_steps,
        num_checkpoints=config.num_checkpoints,
        batch_size=config.batch_size,
        group_size=config.group_size,
        num_aligned=config.aligned_images,
    ).measures


def on_grids(measures: parity.Measures, uniform: Grid, skewed: Grid) -> Results:
    """The measures by base and method, `[rates, schedules, seeds, checkpoints + 1]`."""
    first = math.prod(uniform.shape)

    def by_method(crossed: Grid, methods: tuple[str, ...], part: slice) -> dict[str, parity.Measures]:
        return rows_by_name(methods, crossed.unflatten(jax.tree.map(lambda leaf: leaf[part], measures)))

    return Results(
        uniform=by_method(uniform, parity.METHODS, slice(first)),
        skewed=by_method(skewed, SKEWED_METHODS, slice(first, None)),
    )
