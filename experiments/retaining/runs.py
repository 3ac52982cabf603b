"""The released simulation of "Retaining by Doing", every seed: the run that `published` draws.

Chen, Razin, Narasimhan, Chen, arXiv:2510.18874, simulation of section 3. About 45 seconds on two cores.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array

from experiments.harness import UserError, bounded, check_sum, checked_run
from rlrazor.tasks import two_mode
from rlrazor.tasks.two_mode import FORWARD, REVERSE, TRAINER, Run, Seeds, Setting

BI, UNI = "bi-modal", "uni-modal"


class Kind(NamedTuple):
    """A kind of run: where, towards which KL, how fast and how long."""

    setting: str
    direction: str
    rate: float
    num_steps: int

    @property
    def trainer(self) -> str:
        """What the paper calls whoever trains so."""
        return TRAINER[self.direction]

    @property
    def label(self) -> str:
        """Who trains, and the rate."""
        return f"{self.trainer}, rate {self.rate:g}"

    @property
    def title(self) -> str:
        """Where, who and the rate."""
        return f"{self.setting.capitalize()}, {self.label}"


class Kinds(NamedTuple):
    """Every kind of run."""

    bi_sft: Kind
    bi_slow_sft: Kind
    bi_rl: Kind
    uni_sft: Kind
    uni_rl: Kind


@dataclass(frozen=True)
class Config:
    """The published constants."""

    num_seeds: int = bounded(200, at_most=5000)
    """Sampled runs of every kind."""
    num_samples: int = bounded(1000, at_most=100_000)
    """Samples per update."""
    bi_steps: int = bounded(200, at_most=100_000)
    """Updates in the bi-modal setting."""
    uni_steps: int = bounded(1000, at_most=100_000)
    """Updates in the uni-modal setting."""
    bi_forward_rate: float = bounded(0.15, above=0.0)
    """Learning rate of SFT, bi-modal."""
    bi_forward_low_rate: float = bounded(0.01, above=0.0)
    """The lower learning rate of SFT, bi-modal."""
    bi_reverse_rate: float = bounded(0.01, above=0.0)
    """Learning rate of RL, bi-modal."""
    uni_forward_rate: float = bounded(0.05, above=0.0)
    """Learning rate of SFT, uni-modal."""
    uni_reverse_rate: float = bounded(0.005, above=0.0)
    """Learning rate of RL, uni-modal."""
    slow_factor: float = bounded(0.005, at_least=0.0)
    """Multiplies the steps of the old mode's weight, mean and scale."""
    beta: float = bounded(0.1, above=0.0)
    """Offset of the reward, -log beta."""
    floor: float = bounded(1e-12, at_least=0.0)
    """Smallest density ratio inside the reward's logarithm."""
    gain: float = bounded(0.9, above=0.0, at_most=1.0)
    """New-mode overlap gained at which runs are compared."""
    target_weights: tuple[float, ...] = bounded((0.75, 0.25), above=0.0, length=2)
    """Weights of the target's old and new mode; sum to 1."""
    target_means: tuple[float, ...] = bounded((-3.0, 3.5), length=2)
    """Means of the target's modes."""
    target_scales: tuple[float, ...] = bounded((1.0, 0.7), at_least=0.1, length=2)
    """Standard deviations of the target's modes."""
    bi_weights: tuple[float, ...] = bounded((0.75, 0.25), above=0.0, length=2)
    """Weights of the bi-modal start's old and new mode; sum to 1."""
    bi_means: tuple[float, ...] = bounded((-3.5, 0.5), length=2)
    """Means of the bi-modal start."""
    bi_scales: tuple[float, ...] = bounded((1.0, 0.7), at_least=0.1, length=2)
    """Standard deviations of the bi-modal start."""
    uni_mean: float = -3.5
    """Mean of the uni-modal start."""
    uni_scale: float = bounded(1.0, at_least=0.1)
    """Standard deviation of the uni-modal start."""
    bi_reach: float = bounded(8.0, above=0.0, at_most=50.0)
    """The bi-modal overlaps are integrated from minus this to this."""
    uni_reach: float = bounded(10.0, above=0.0, at_most=50.0)
    """The uni-modal overlaps are integrated from minus this to this."""
    grid_points: int = bounded(500, at_least=100, at_most=100_000)
    """Points of either grid."""
    saved_every: int = 5
    """Updates between two saved states of a sampled run."""
    num_frames: int = bounded(5, at_least=2, at_most=1000)
    """Densities drawn of a run, from the start to where it has the gain."""
    seed: int = bounded(0, at_least=0)
    """Of the random keys."""

    def __post_init__(self) -> None:
        """Mixtures, whose modes both grids hold."""
        check_sum("target_weights", self.target_weights)
        check_sum("bi_weights", self.bi_weights)
        if not max(map(abs, self.target_means)) < min(self.bi_reach, self.uni_reach):
            raise UserError(f"target_means {self.target_means} must lie within bi_reach and uni_reach")

    @classmethod
    def quick(cls) -> "Config":
        """Few seeds."""
        return cls(num_seeds=6)

    def kinds(self) -> "Kinds":
        """The published kinds of run."""
        return Kinds(
            bi_sft=Kind(BI, FORWARD, self.bi_forward_rate, self.bi_steps),
            bi_slow_sft=Kind(BI, FORWARD, self.bi_forward_low_rate, self.bi_steps),
            bi_rl=Kind(BI, REVERSE, self.bi_reverse_rate, self.bi_steps),
            uni_sft=Kind(UNI, FORWARD, self.uni_forward_rate, self.uni_steps),
            uni_rl=Kind(UNI, REVERSE, self.uni_reverse_rate, self.uni_steps),
        )


class Simulation(NamedTuple):
    """A kind of run: its seeds, and the recursion for infinitely many samples."""

    seeds: Seeds
    recursion: Run

    @property
    def drop(self) -> float:
        """Mean drop at the gain, NaN unless every seed has it."""
        return float(self.seeds.stop.drop.mean())

    @property
    def arrived(self) -> str:
        """How many seeds have the gain."""
        drops = self.seeds.stop.drop
        return f"{np.isfinite(drops).sum()} of {drops.size} seeds"


class Simulations(NamedTuple):
    """Every kind of run."""

    bi_sft: Simulation
    bi_slow_sft: Simulation
    bi_rl: Simulation
    uni_sft: Simulation
    uni_rl: Simulation


class Results(NamedTuple):
    """The settings, the runs, and RL without its hidden constants."""

    settings: dict[str, Setting]
    runs: Simulations
    no_floor: Run  # the recursion of uni-modal RL without the floor
    no_offset: Run  # the recursion of bi-modal RL without the offset: beta = 1


@checked_run
def run(config: Config) -> Results:
    """Every kind of run, sampled and for infinitely many samples."""
    target = (config.target_weights, config.target_means, config.target_scales)
    bi, uni = (config.bi_weights, config.bi_means, config.bi_scales), (config.uni_mean, config.uni_scale)
    settings = {
        BI: two_mode.bimodal_setting(*target, *bi, reach=config.bi_reach, num_points=config.grid_points),
        UNI: two_mode.unimodal_setting(*target, *uni, reach=config.uni_reach, num_points=config.grid_points),
    }
    kinds = config.kinds()
    keys = jax.random.split(jax.random.key(config.seed), (len(kinds), config.num_seeds))

    def recursion(kind: Kind, *, beta: float = config.beta, floor: float = config.floor) -> Run:
        predicted: Run = two_mode.predicted_run(
            settings[kind.setting],
            direction=kind.direction,
            learning_rate=kind.rate,
            slow_factor=config.slow_factor,
            num_steps=kind.num_steps,
            beta=beta,
            floor=floor,
        )
        return predicted

    def simulation(kind: Kind, run_keys: Array) -> Simulation:
        sampled = two_mode.sampled_runs(
            settings[kind.setting],
            run_keys,
            direction=kind.direction,
            learning_rate=kind.rate,
            slow_factor=config.slow_factor,
            num_steps=kind.num_steps,
            num_samples=config.num_samples,
            beta=config.beta,
            floor=config.floor,
        )
        kept = two_mode.summary(sampled, config.gain, every=config.saved_every, num_frames=config.num_frames)
        return Simulation(kept, recursion(kind))

    return Results(
        settings=settings,
        runs=Simulations(*(simulation(kind, run_keys) for kind, run_keys in zip(kinds, keys, strict=True))),
        no_floor=recursion(kinds.uni_rl, floor=0.0),
        no_offset=recursion(kinds.bi_rl, beta=1.0),
    )
