"""When is forgetting a function of drift? Every training that the two figures of the forgetting law ask about.

Every method descends its exact expected gradient in several random worlds, see `rlrazor.tasks.shared_features`. This is
no figure of its own; `law` and `law_limits` draw it. About 30 seconds on two cores.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

import rlrazor as rz
from experiments.harness import UserError, bounded, checked_run
from rlrazor.methods import SFT_1, plus_kl
from rlrazor.tasks.shared_features import METHODS, Checkpoint, fine_tune, first_prompts, make_world, new_task

FORWARD, REVERSE, OLD_FORWARD = "forward drift", "reverse drift", "forward drift, old inputs"
QUADRATIC, ISOTONIC, RANK = "quadratic", "isotonic", "rank"
PREDICTORS: dict[str, Callable[[Checkpoint], Array]] = {
    FORWARD: lambda points: points.drift.forward,
    REVERSE: lambda points: points.drift.reverse,
    OLD_FORWARD: lambda points: points.old_drift.forward,
}
FITS = {QUADRATIC: rz.quadratic_r2, ISOTONIC: rz.isotonic_r2, RANK: rz.rank_correlation}

Points = Float[Array, "*settings worlds checkpoints"]
Statistic = Callable[..., Float[Array, ""]]


@dataclass(frozen=True)
class Config:
    """The worlds, the methods, the overlaps and the lengths of training."""

    num_prompts: int = bounded(128, at_most=10_000)
    """Prompts of either task."""
    num_features: int = bounded(16, at_least=2, at_most=1000)
    """Features that old inputs use, and as many that only new inputs use."""
    num_outcomes: int = bounded(10, at_least=2, at_most=1000)
    """Answers to a prompt."""
    num_correct: int = bounded(5, at_most=999)
    """How many of them are correct on the new task."""
    scale: float = bounded(3.0, above=0, at_most=100)
    """Standard deviation of the base's weights."""
    teacher_scale: float = bounded(3.0, above=0, at_most=100)
    """Standard deviation of the logits of the teacher, who is then conditioned on being correct."""
    overlaps: tuple[float, ...] = bounded((0.0, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0), at_least=0, at_most=1, min_length=3)
    """Squared cosine between a new input and its part in the old inputs' features."""
    coverages: tuple[int, ...] = bounded((2, 4, 8, 16, 32, 64, 128), min_length=2)
    """Numbers of new prompts trained on, at full overlap."""
    horizons: tuple[int, ...] = bounded((10, 20, 30, 60, 120, 240), at_most=100_000, min_length=2)
    """Updates after which training ends, at full overlap."""
    horizon: int = bounded(30, at_most=100_000)
    """The same where overlaps and coverages are compared."""
    rate: float = bounded(10.0, above=0, at_most=1e4)
    """Learning rate, of the mean loss over prompts."""
    grpo_penalty: float = bounded(0.1, at_least=0, at_most=1e3)
    """Coefficient of the KL penalty beside GRPO."""
    sft_penalty: float = bounded(0.5, at_least=0, at_most=1e3)
    """Coefficient of the KL penalty beside SFT."""
    group_size: int = bounded(8, at_least=2, at_most=1000)
    """GRPO's group."""
    num_worlds: int = bounded(8, at_least=2, at_most=1000)
    """Random worlds."""
    num_checkpoints: int = bounded(5, at_most=1000)
    """Evaluated checkpoints of a training, evenly spaced."""
    num_answers: int = bounded(2000, at_most=10**9)
    """Test answers from which forgetting is measured, as in practice."""
    num_resamples: int = bounded(400, at_least=20, at_most=100_000)
    """Bootstrap resamples of the worlds."""
    seed: int = bounded(0, at_least=0)
    """Of the worlds and of the bootstrap."""
    answers_seed: int = bounded(0, at_least=0)
    """Of the test answers, which NumPy draws: JAX would draw others than the published ones."""

    def __post_init__(self) -> None:
        """What is compared is there: no and full overlap, few and all prompts, and every checkpoint of a horizon."""
        for name in ("overlaps", "coverages", "horizons"):
            values = getattr(self, name)
            if list(values) != sorted(set(values)):
                raise UserError(f"{name} must increase, got {values}")
        if self.overlaps and (self.overlaps[0] != 0 or self.overlaps[-1] != 1):
            raise UserError(f"overlaps must start at 0 and end at 1, got {self.overlaps}")
        if self.num_correct >= self.num_outcomes:
            raise UserError(f"num_correct must be below num_outcomes {self.num_outcomes}, got {self.num_correct}")
        for name, horizons in (("horizon", (self.horizon,)), ("horizons", self.horizons)):
            if self.num_checkpoints > 0 and any(horizon % self.num_checkpoints for horizon in horizons):
                raise UserError(f"{name} must be divisible by num_checkpoints {self.num_checkpoints}, got {horizons}")
        if self.coverages and not (self.coverages[0] < self.num_features and self.coverages[-1] == self.num_prompts):
            raise UserError(
                f"coverages must start below num_features {self.num_features} and end at num_prompts "
                f"{self.num_prompts}, got {self.coverages}"
            )

    @classmethod
    def quick(cls) -> "Config":
        """Fewer worlds, overlaps, coverages and horizons."""
        return cls(
            overlaps=(0.0, 0.01, 0.1, 1.0),
            coverages=(4, 32, 128),
            horizons=(10, 30, 120),
            num_worlds=4,
            num_resamples=100,
        )


class Sizes(NamedTuple):
    """The shape of a world."""

    num_prompts: int
    num_features: int
    num_outcomes: int
    num_correct: int


class Numbers(NamedTuple):
    """What is the same in all trainings; see `Config`."""

    scale: float
    teacher_scale: float
    rate: float
    grpo_penalty: float
    sft_penalty: float


class Setting(NamedTuple):
    """What differs between trainings of one method in one world."""

    overlap: Float[Array, "*settings"]
    coverage: Float[Array, "*settings"]
    horizon: Int[Array, "*settings"]


class Results(NamedTuple):
    """Trainings by method, and how well a drift says what was forgotten by all of them together."""

    trainings: dict[str, Checkpoint]  # at every overlap
    measured: dict[str, Points]  # forgetting there, from finitely many answers
    exact_r2: rz.Estimate  # quadratic, forward drift and exact forgetting, at every overlap
    measured_r2: rz.Estimate  # the same with measured forgetting
    fits: dict[str, dict[str, rz.Estimate]]  # by fit and predictor, exact forgetting, at full overlap
    unshared: dict[str, rz.Estimate]  # by fit, forward drift and measured forgetting, without overlap
    coverage_r2: rz.Estimate  # quadratic, forward drift, at every coverage
    horizon_r2: dict[str, rz.Estimate]  # quadratic, by predictor, at every horizon
    longest: dict[str, Checkpoint]  # of the longest horizon
    success: dict[str, Float[Array, " horizons"]]  # at the end of every horizon, mean over worlds

    def all_drift(self, overlap: int) -> Float[np.ndarray, " points"]:
        """Forward drift of all methods at an overlap, by its place."""
        return np.concatenate([self.trainings[method].drift.forward[overlap].ravel() for method in METHODS])

    def all_forgetting(self, overlap: int) -> Float[np.ndarray, " points"]:
        """Exact forgetting of all methods at an overlap, by its place."""
        return np.concatenate([self.trainings[method].forgetting[overlap].ravel() for method in METHODS])

    def rates(self, horizon: int) -> Float[np.ndarray, " methods"]:
        """Success rates of all methods at the end of a horizon, by its place."""
        return np.array([self.success[method][horizon] for method in METHODS])


@checked_run
def run(config: Config) -> Results:
    """Short trainings at every overlap and coverage, long ones at full overlap, then the fits."""
    trained = trainings_of(config)
    at_overlap, at_coverage, at_horizon = trained.overlaps, trained.coverages, trained.horizons
    measured = measured_forgetting(config, at_overlap)
    all_measured = jnp.stack([measured[method] for method in METHODS], axis=2)
    drifts = {name: together(at_overlap, predictor) for name, predictor in PREDICTORS.items()}
    forgetting, forward, none, full = together(at_overlap, lost), drifts[FORWARD], 0, len(config.overlaps) - 1
    fit, fit_row = partial(estimates, config), partial(estimate, config)
    return Results(
        trainings=at_overlap,
        measured=measured,
        exact_r2=fit(rz.quadratic_r2, forward, forgetting),
        measured_r2=fit(rz.quadratic_r2, forward, all_measured),
        fits={
            name: {predictor: fit_row(statistic, drift[full], forgetting[full]) for predictor, drift in drifts.items()}
            for name, statistic in FITS.items()
        },
        unshared={name: fit_row(statistic, forward[none], all_measured[none]) for name, statistic in FITS.items()},
        coverage_r2=fit(rz.quadratic_r2, together(at_coverage, PREDICTORS[FORWARD]), together(at_coverage, lost)),
        horizon_r2={
            name: fit(rz.quadratic_r2, together(at_horizon, PREDICTORS[name]), together(at_horizon, lost))
            for name in (FORWARD, REVERSE)
        },
        longest=jax.tree.map(lambda leaf: leaf[-1], at_horizon),
        success={method: points.success[..., -1].mean(-1) for method, points in at_horizon.items()},
    )


class Sweeps(NamedTuple):
    """Every method along each axis, with leaves `[settings, worlds, checkpoints]`."""

    overlaps: dict[str, Checkpoint]
    coverages: dict[str, Checkpoint]
    horizons: dict[str, Checkpoint]


def trainings_of(config: Config) -> Sweeps:
    """All trainings, compiled once."""
    keys = jax.random.split(jax.random.key(config.seed), config.num_worlds)
    sizes = Sizes(*(getattr(config, name) for name in Sizes._fields))
    numbers = Numbers(*(getattr(config, name) for name in Numbers._fields))
    full = Setting(jnp.array(1.0), jnp.array(float(config.num_prompts)), jnp.array(config.horizon))

    def sweep(settings: Iterable[Setting]) -> dict[str, Checkpoint]:
        static: dict[str, Any] = {"sizes": sizes, "num_checkpoints": config.num_checkpoints}
        found = [in_worlds(keys, setting, numbers, group_size=config.group_size, **static) for setting in settings]
        stacked: dict[str, Checkpoint] = jax.tree.map(lambda *leaves: jnp.stack(leaves), *found)
        return stacked

    return Sweeps(
        overlaps=sweep(full._replace(overlap=jnp.array(overlap)) for overlap in config.overlaps),
        coverages=sweep(full._replace(coverage=jnp.array(float(count))) for count in config.coverages),
        horizons=sweep(full._replace(horizon=jnp.array(horizon)) for horizon in config.horizons),
    )


@partial(jax.jit, static_argnames=("sizes", "group_size", "num_checkpoints"))
def in_worlds(
    keys: Key[Array, " worlds"],
    setting: Setting,
    numbers: Numbers,
    *,
    sizes: Sizes,
    group_size: int,
    num_checkpoints: int,
) -> dict[str, Checkpoint]:
    """Every method in every world."""
    penalty = dict.fromkeys(METHODS, numbers.grpo_penalty) | {plus_kl(SFT_1): numbers.sft_penalty}
    prompts = first_prompts(setting.coverage, sizes.num_prompts)
    steps = setting.horizon // num_checkpoints * jnp.arange(1, num_checkpoints + 1)

    def in_world(key: Key[Array, ""]) -> dict[str, Checkpoint]:
        shape: dict[str, Any] = sizes._asdict()
        scale, teacher_scale = numbers.scale, numbers.teacher_scale
        world = make_world(key, setting.overlap, scale=scale, teacher_scale=teacher_scale, **shape)
        task = new_task(world, group_size)
        losses = {method: rz.exact_loss(method, task._replace(beta=penalty[method])) for method in METHODS}
        return fine_tune(world, losses, prompts, numbers.rate, steps)

    found: dict[str, Checkpoint] = jax.lax.map(in_world, keys)
    return found


def lost(points: Checkpoint) -> Array:
    """Exact forgetting."""
    return points.forgetting


def together(
    by_method: dict[str, Checkpoint], number: Callable[[Checkpoint], Array]
) -> Float[Array, "settings worlds methods checkpoints"]:
    """A number of all methods, which the fits pool."""
    return jnp.stack([number(by_method[method]) for method in METHODS], axis=2)


def measured_forgetting(config: Config, by_method: dict[str, Checkpoint]) -> dict[str, Points]:
    """Forgetting as two finite tests show it, one of the base and one of the policy."""
    rng = np.random.default_rng(config.answers_seed)
    success = (lambda points: points.base_old_success, lambda points: points.old_success)
    before, after = (rng.binomial(config.num_answers, np.clip(together(by_method, s), 0, 1)) for s in success)
    measured = jnp.moveaxis(jnp.asarray((before - after) / config.num_answers), 2, 0)
    return dict(zip(METHODS, measured, strict=True))


def estimates(
    config: Config, statistic: Statistic, *samples: Float[Array, "rows worlds methods checkpoints"]
) -> rz.Estimate:
    """The statistic of all methods together, with its interval over worlds, for every row of the samples."""
    found = [estimate(config, statistic, *row) for row in zip(*samples, strict=True)]
    stacked: rz.Estimate = jax.tree.map(lambda *leaves: jnp.stack(leaves), *found)
    return stacked


def estimate(config: Config, statistic: Statistic, *samples: Float[Array, "worlds methods checkpoints"]) -> rz.Estimate:
    """The same for a single row."""
    key = jax.random.key(config.seed + 1)
    found: rz.Estimate = interval(key, statistic, *samples, num_resamples=config.num_resamples)
    return found


@partial(jax.jit, static_argnames=("statistic", "num_resamples"))
def interval(
    key: Key[Array, ""],
    statistic: Statistic,
    *samples: Float[Array, "worlds methods checkpoints"],
    num_resamples: int,
) -> rz.Estimate:
    """The statistic and its bootstrap interval over worlds."""

    def flat(*resampled: Float[Array, "worlds methods checkpoints"]) -> Float[Array, ""]:
        return statistic(*(array.ravel() for array in resampled))

    return rz.bootstrap(flat, key, *samples, num_resamples=num_resamples)
