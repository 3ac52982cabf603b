"""Trainings of a walker under one of two rules, which `navigation`, `dip_and_recovery` and `drift_order` draw.

A network that follows either rule, see `rlrazor.tasks.navigation`, is fine-tuned under the first by every method; some
go on for long, and some begin with imitation and go on with rewards. This is no figure of its own. Everything is
float64: the paths of these trainings then agree on all processors to twelve digits.

About 90 seconds on two cores.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

import rlrazor as rz
from experiments.harness import UserError, bounded, checked_run
from rlrazor.methods import DFT, EXACT_RL, GRPO, ORACLE_SFT, REINFORCE, SFT, UNIFORM_SFT, plus_replay
from rlrazor.sweeps import rows_by_name
from rlrazor.tasks import navigation
from rlrazor.tasks.navigation import Measures
from rlrazor.training import log_steps

REPLAY = plus_replay(SFT)
METHODS = (SFT, REPLAY, UNIFORM_SFT, ORACLE_SFT, DFT, EXACT_RL, REINFORCE, GRPO)
LONG = (SFT, EXACT_RL, GRPO)
TRAINED, OTHER = 0, 1  # the rules


@dataclass(frozen=True)
class Config:
    """The city, the bases, and the lengths and rates of training."""

    num_styles: int = bounded(16, at_most=1000)
    """Words of style, which no verifier reads."""
    num_turns: int = bounded(3, at_most=20)
    """Of each route."""
    num_train: int = bounded(1000, at_most=100_000)
    """Routes of training; as published."""
    num_test: int = bounded(100, at_most=100_000)
    """Held-out routes in the same city."""
    width: int = bounded(128, at_most=4096)
    """Of both hidden layers."""
    unsure: float = bounded(0.25, above=0, below=1)
    """Probability that the base is taught to spread over the actions of the rule's list."""
    pretrain_steps: int = bounded(3000, at_most=1_000_000)
    """Updates of the pretraining, by Adam."""
    pretrain_batch: int = bounded(256, at_most=100_000)
    """States of each."""
    rate: float = bounded(0.04, above=0, at_most=10)
    """Learning rate of SGD with momentum 0.9."""
    batch_size: int = bounded(128, at_most=100_000)
    """States of an update."""
    group_size: int = bounded(8, at_least=2, at_most=1000)
    """Answers to each state, of the methods that sample."""
    replay_share: float = bounded(0.1, above=0, below=1)
    """Share of the other rule in the prompts of SFT with replay."""
    num_steps: int = bounded(1600, at_most=1_000_000)
    """Updates of every method."""
    num_seeds: int = bounded(8, at_least=2, at_most=1000)
    """Bases, and trainings from each."""
    long_steps: int = bounded(6000, at_most=10_000_000)
    """Updates of the long trainings."""
    long_seeds: int = bounded(3, at_most=1000)
    """Bases of the long trainings and of those that begin with SFT."""
    sft_steps: tuple[int, ...] = bounded((10, 30, 100, 300, 1000, 1600), at_most=1_000_000, min_length=2)
    """Updates of SFT after which GRPO takes over, increasing."""
    rescue_steps: int = bounded(1000, at_most=1_000_000)
    """Updates of GRPO then."""
    num_records: int = bounded(16, at_least=6, at_most=1000)
    """Times at which a walker is measured, the start not counted."""
    matched: tuple[float, ...] = bounded((0.9, 0.95, 0.98), above=0, below=1)
    """Accuracies under the trained rule at which methods are compared."""
    mastered: float = bounded(0.99, above=0, below=1)
    """Accuracy under the trained rule that every method must reach."""
    forgotten: float = bounded(0.15, above=0, below=1)
    """Accuracy under the other rule below which it is forgotten."""
    kept: float = bounded(0.85, above=0, below=1)
    """Accuracy under the other rule above which it is kept."""
    alike: float = bounded(0.03, above=0, below=1)
    """Distance of accuracies within which two methods end alike."""
    num_resamples: int = bounded(1000, at_least=20, at_most=100_000)
    """Bootstrap resamples of the seeds."""
    seed: int = bounded(0, at_least=0)
    """Of everything."""

    def __post_init__(self) -> None:
        """There are as many bases as trainings ask for, and lengths increase."""
        if self.long_seeds > self.num_seeds:
            raise UserError(f"long_seeds must be at most num_seeds {self.num_seeds}, got {self.long_seeds}")
        if list(self.sft_steps) != sorted(set(self.sft_steps)):
            raise UserError(f"sft_steps must increase, got {self.sft_steps}")
        if self.forgotten >= self.kept:
            raise UserError(f"forgotten must be below kept {self.kept:g}, got {self.forgotten:g}")
        for name in ("num_steps", "long_steps", "rescue_steps"):
            if getattr(self, name) < self.num_records:
                raise UserError(f"{name} must be at least num_records {self.num_records}, got {getattr(self, name)}")

    @classmethod
    def quick(cls) -> "Config":
        """Small networks, two seeds, short trainings."""
        return cls(
            num_train=500,
            num_test=40,
            width=64,
            pretrain_steps=1500,
            pretrain_batch=64,
            batch_size=64,
            num_steps=450,
            num_seeds=2,
            long_steps=600,
            long_seeds=1,
            sft_steps=(10, 450),
            rescue_steps=100,
            num_records=6,
            matched=(0.9,),
            mastered=0.85,
            forgotten=0.35,
            kept=0.55,
            alike=0.12,
            num_resamples=50,
        )


class Results(NamedTuple):
    """Walkers at every record; the scores are those of held-out routes.

    Attributes:
        steps: updates after which the methods are measured, `[records]`.
        trained: by method, `[seeds, records, ...]`.
        long_steps: updates after which the long trainings are measured, `[records]`.
        long: by method, `[long_seeds, records, ...]`.
        rescued: GRPO after SFT of each length, at its start and at its end, `[lengths, long_seeds, 2, ...]`.
    """

    steps: Int[np.ndarray, " records"]
    trained: dict[str, Measures]
    long_steps: Int[np.ndarray, " records"]
    long: dict[str, Measures]
    rescued: Measures

    def accuracy(self, method: str, rule: int) -> Float[np.ndarray, "seeds records"]:
        """The published accuracy per step."""
        return np.asarray(self.trained[method].scores.per_step[..., rule])

    def final(self, method: str, rule: int = OTHER) -> Float[np.ndarray, " seeds"]:
        """The same at the end."""
        return self.accuracy(method, rule)[:, -1]

    def interval(self, config: Config, method: str, rule: int = OTHER) -> rz.Estimate:
        """Its mean over seeds, with a 95% interval."""
        final = jnp.asarray(self.final(method, rule))
        found: rz.Estimate = rz.mean_interval(final, jax.random.key(0), num_resamples=config.num_resamples)
        return found


@checked_run
def run(config: Config) -> Results:
    """All trainings in one sweep."""
    of_world, of_bases, of_runs = jax.random.split(jax.random.key(config.seed), 3)
    world = navigation.make_world(
        of_world,
        num_styles=config.num_styles,
        num_turns=config.num_turns,
        num_train=config.num_train,
        num_test=config.num_test,
    )
    size = navigation.network_size(world, config.width)
    unsure, leaks = jnp.array(config.unsure), jnp.zeros(config.num_seeds)
    lengths = {"num_steps": config.pretrain_steps, "batch_size": config.pretrain_batch}
    bases = navigation.pretrain_many(world, size, of_bases, unsure, leaks, **lengths)
    rows = [*methods(config), *long_ones(config), *rescues(config)]
    replay = np.array([row.replay for row in rows])
    settings = navigation.settings(
        [row.method for row in rows],
        of_runs,
        optimizer=navigation.MOMENTUM,
        rate=config.rate,
        record=np.stack([row.record for row in rows]),
        base=np.array([row.base for row in rows]),
        prompts=np.stack([1 - replay, replay], axis=-1),
        sft_steps=np.array([row.sft_steps for row in rows]),
    )
    sizes = {"batch_size": config.batch_size, "group_size": config.group_size}
    return in_order(config, navigation.fine_tune_many(world, size, bases, settings, **sizes))


class Row(NamedTuple):
    """One training, in Python numbers."""

    method: str
    base: int
    record: Int[np.ndarray, " records"]
    replay: float = 0.0
    sft_steps: int = 0


def methods(config: Config) -> list[Row]:
    """Every method from every base."""
    steps = log_steps(config.num_steps, config.num_records)
    shares = {REPLAY: config.replay_share}
    return [
        Row(SFT if method == REPLAY else method, base, steps, shares.get(method, 0.0))
        for method in METHODS
        for base in range(config.num_seeds)
    ]


def long_ones(config: Config) -> list[Row]:
    """Some methods for long."""
    steps = log_steps(config.long_steps, config.num_records)
    return [Row(method, base, steps) for method in LONG for base in range(config.long_seeds)]


def rescues(config: Config) -> list[Row]:
    """GRPO after SFT of each length."""
    steps = log_steps(config.rescue_steps, config.num_records)
    return [
        Row(GRPO, base, steps, sft_steps=before) for before in config.sft_steps for base in range(config.long_seeds)
    ]


def in_order(config: Config, measures: Measures) -> Results:
    """The measures of all trainings, `[runs, records, ...]`, under their names."""
    seeds, few = config.num_seeds, config.long_seeds

    def part(start: int, shape: tuple[int, ...]) -> Measures:
        stop = start + math.prod(shape)
        found: Measures = jax.tree.map(lambda leaf: leaf[start:stop].reshape(*shape, *leaf.shape[1:]), measures)
        return found

    first, second = len(METHODS) * seeds, len(METHODS) * seeds + len(LONG) * few
    rescued = part(second, (len(config.sft_steps), few))
    return Results(
        steps=log_steps(config.num_steps, config.num_records),
        trained=rows_by_name(METHODS, part(0, (len(METHODS), seeds))),
        long_steps=log_steps(config.long_steps, config.num_records),
        long=rows_by_name(LONG, part(first, (len(LONG), few))),
        rescued=jax.tree.map(lambda leaf: leaf[:, :, [0, -1]], rescued),
    )
