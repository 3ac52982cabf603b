"""Exact flows in the two-mode world, and the released updates, over the slow factor: the run that `what_decides` draws.

Chen, Razin, Narasimhan, Chen, arXiv:2510.18874, simulation of section 3. About 30 seconds on two cores.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from experiments.harness import UserError, bounded, check_sum, checked_run
from rlrazor.flows import log_times
from rlrazor.tasks import two_mode
from rlrazor.tasks.two_mode import (
    DIRECTIONS,
    FORWARD,
    NEW_MODE,
    REVERSE,
    TARGETS,
    Flow,
    Mixture,
    Progress,
    Scalar,
    Setting,
    Stop,
)


@dataclass(frozen=True)
class Config:
    """The released world and constants, and the grid of what decides."""

    gain: float = bounded(0.9, above=0.0, at_most=1.0)
    """New-mode overlap gained at which flows and runs are compared."""
    slow_factor: float = bounded(0.005, at_least=0.0)
    """The released slow factor of the old mode; the controls are at the nearest of those below."""
    slow_factors: tuple[float, ...] = bounded((0.0, *np.geomspace(1e-3, 1.0, 16).round(6).tolist()), at_least=0.0)
    """Slow factors of the exact flows; 1, where rates are equal, is among them."""
    sampled_factors: tuple[float, ...] = bounded((0.0, 0.005, 0.05, 1.0), at_least=0.0)
    """Slow factors of the sampled runs; 1 is among them."""
    target_weights: tuple[float, ...] = bounded((0.75, 0.25), above=0.0, length=2)
    """Weights of the target's old and new mode; sum to 1."""
    target_means: tuple[float, ...] = bounded((-3.0, 3.5), length=2)
    """Means of the target's modes."""
    target_scales: tuple[float, ...] = bounded((1.0, 0.7), at_least=0.1, length=2)
    """Standard deviations of the target's modes."""
    start_weights: tuple[float, ...] = bounded((0.75, 0.25), above=0.0, length=2)
    """Weights of the start's old and new mode; sum to 1."""
    start_means: tuple[float, ...] = bounded((-3.5, 0.5), length=2)
    """Means of the start's modes."""
    start_scales: tuple[float, ...] = bounded((1.0, 0.7), at_least=0.1, length=2)
    """Standard deviations of the start's modes."""
    reach: float = bounded(8.0, above=0.0, at_most=50.0)
    """Overlaps are integrated from minus this to this."""
    grid_points: int = bounded(500, at_least=100, at_most=10_000)
    """Points of that grid."""
    outcome_reach: float = bounded(14.0, above=0.0, at_most=50.0)
    """The exact policies live on an evenly spaced grid from minus this to this."""
    num_outcomes: int = bounded(500, at_least=100, at_most=10_000)
    """Points of that grid."""
    first_time: float = bounded(1e-2, above=0.0)
    """The first time saved of an exact flow after its start."""
    end_time: float = bounded(20000.0, above=0.0)
    """When exact flows give up (learning rate times steps)."""
    num_times: int = bounded(601, at_least=3, at_most=100_000)
    """Saved times of an exact flow, log-spaced."""
    num_seeds: int = bounded(20, at_most=5000)
    """Sampled runs at each of their slow factors."""
    num_samples: int = bounded(1000, at_most=100_000)
    """Samples per update."""
    num_steps: int = bounded(200, at_most=100_000)
    """Updates of a sampled run."""
    forward_rate: float = bounded(0.15, above=0.0)
    """Learning rate of sampled SFT."""
    reverse_rate: float = bounded(0.01, above=0.0)
    """Learning rate of sampled RL."""
    beta: float = bounded(0.1, above=0.0)
    """Offset of sampled RL's reward, -log beta."""
    floor: float = bounded(1e-12, at_least=0.0)
    """Smallest density ratio inside that reward's logarithm."""
    num_frames: int = bounded(31, at_least=2, at_most=1000)
    """Frames of the animation."""
    seed: int = bounded(1, at_least=0)
    """Of the random keys."""

    def __post_init__(self) -> None:
        """Mixtures that the grids hold, and equal rates among the slow factors."""
        check_sum("target_weights", self.target_weights)
        check_sum("start_weights", self.start_weights)
        if not max(map(abs, (*self.target_means, *self.start_means))) < min(self.reach, self.outcome_reach):
            raise UserError("target_means and start_means must lie within reach and outcome_reach")
        for name in ("slow_factors", "sampled_factors"):
            if 1.0 not in getattr(self, name):
                raise UserError(f"{name} must hold 1.0, got {getattr(self, name)}")
        if not self.first_time < self.end_time:
            raise UserError(f"end_time must be above first_time {self.first_time:g}, got {self.end_time:g}")

    @classmethod
    def quick(cls) -> "Config":
        """Few seeds, few slow factors."""
        return cls(num_seeds=6, slow_factors=(0.0, 0.005, 0.1, 1.0), end_time=4000.0, num_frames=7)


class Sweep(NamedTuple):
    """Exact flows over the slow factor; drops are NaN where the gain is never reached."""

    drop: Float[Array, " factors"]
    arrived: Bool[Array, " factors"]
    last_gain: Float[Array, " factors"]  # where the flow stops or gives up
    last_params: Mixture  # [factors]


class EqualRates(NamedTuple):
    """An exact flow at slow factor 1, frame by frame at equal gains, to where it stops or gives up."""

    progress: Progress  # [frames]
    density: Float[Array, "frames points"]


class Results(NamedTuple):
    """The world as densities; flows by target and direction; sampled drops by direction."""

    grid: Float[Array, " points"]
    start: Float[Array, " points"]
    targets: dict[str, Float[Array, " points"]]
    start_overlap: Float[Array, ""]  # with the old mode: what there is to lose
    sweeps: dict[str, dict[str, Sweep]]
    equal_rates: dict[str, dict[str, EqualRates]]
    sampled: dict[str, Float[Array, "factors seeds"]]  # drop at the gain, NaN if never

    def arrived(self, target: str) -> str:
        """How many flows have the gain."""
        flags = np.concatenate([self.sweeps[target][direction].arrived for direction in DIRECTIONS])
        return f"{flags.sum()} of {flags.size} flows"

    def lost(self, config: Config, target: str) -> list[tuple[str, float, Sweep]]:
        """Every flow that never has the gain: its direction, its slow factor, and where it ends."""
        return [
            (direction, factor, jax.tree.map(lambda leaf, row=row: leaf[row], self.sweeps[target][direction]))
            for direction in DIRECTIONS
            for row, factor in enumerate(config.slow_factors)
            if not self.sweeps[target][direction].arrived[row]
        ]

    def drops(self, config: Config, factor: float) -> dict[str, float]:
        """Drops at the gain of the exact flows to the new mode only, at one of their slow factors."""
        row = config.slow_factors.index(factor)
        return {direction: float(self.sweeps[NEW_MODE][direction].drop[row]) for direction in DIRECTIONS}

    def least_sampled(self, config: Config, factor: float) -> float:
        """Smaller of the directions' mean sampled drops, NaN unless every run has the gain."""
        row = config.sampled_factors.index(factor)
        return float(np.min([self.sampled[direction][row].mean() for direction in DIRECTIONS]))


@checked_run
def run(config: Config) -> Results:
    """The exact flows to both targets, and the released updates, over their slow factors."""
    target = (config.target_weights, config.target_means, config.target_scales)
    start = (config.start_weights, config.start_means, config.start_scales)
    setting = two_mode.bimodal_setting(*target, *start, reach=config.reach, num_points=config.grid_points)
    outcomes = jnp.linspace(-config.outcome_reach, config.outcome_reach, config.num_outcomes)
    log_targets = jax.jit(two_mode.log_targets)(setting, outcomes)
    times = log_times(config.first_time, config.end_time, config.num_times)
    factors, gains = jnp.array(config.slow_factors), jnp.linspace(0.0, config.gain, config.num_frames)
    flows = {name: exact_sweep(setting, log_targets[name], outcomes, times, factors, config.gain) for name in TARGETS}
    row, spacing, grid = config.slow_factors.index(1.0), outcomes[1] - outcomes[0], setting.grid

    def sweep(flow: Flow) -> Sweep:
        last = jax.tree.map(lambda leaf: leaf[:, -1], (flow.progress.gain, flow.path))
        return Sweep(flow.drop, flow.arrived, *last)

    @jax.jit
    def equal_rates(flow: Flow) -> EqualRates:
        frames = two_mode.at_gains(jax.tree.map(lambda leaf: leaf[row], flow), gains)
        return EqualRates(frames.progress, jax.vmap(two_mode.density, (0, None))(frames.params, grid))

    return Results(
        grid=grid,
        start=two_mode.density(setting.init, grid),
        targets={name: jnp.interp(grid, outcomes, jnp.exp(log_targets[name]) / spacing) for name in TARGETS},
        start_overlap=two_mode.overlaps(setting.init, setting).old,
        sweeps={name: {kl: sweep(flows[name][kl]) for kl in DIRECTIONS} for name in TARGETS},
        equal_rates={name: {kl: equal_rates(flows[name][kl]) for kl in DIRECTIONS} for name in TARGETS},
        sampled={kl: sampled_drops(config, setting, kl) for kl in DIRECTIONS},
    )


@jax.jit
def exact_sweep(
    setting: Setting,
    log_target: Float[Array, " outcomes"],
    outcomes: Float[Array, " outcomes"],
    times: Float[Array, " times"],
    factors: Float[Array, " factors"],
    gain: Scalar,
) -> dict[str, Flow]:
    """Both flows at every slow factor, in turn; leaves `[factors, ...]`."""

    def flows(factor: Float[Array, ""]) -> dict[str, Flow]:
        return two_mode.exact_flows(setting, log_target, outcomes, times, slow_factor=factor, gain=gain)

    swept: dict[str, Flow] = jax.lax.map(flows, factors)
    return swept


def sampled_drops(config: Config, setting: Setting, direction: str) -> Float[Array, "factors seeds"]:
    """The released updates at every one of their slow factors, with the same keys."""
    keys = jax.random.split(jax.random.key(config.seed), config.num_seeds)

    def drops(factor: float) -> Float[Array, " seeds"]:
        runs = two_mode.sampled_runs(
            setting,
            keys,
            direction=direction,
            learning_rate={FORWARD: config.forward_rate, REVERSE: config.reverse_rate}[direction],
            slow_factor=factor,
            num_steps=config.num_steps,
            num_samples=config.num_samples,
            beta=config.beta,
            floor=config.floor,
        )
        stop: Stop = two_mode.first_stop(runs.progress, config.gain)
        return stop.drop

    return jnp.stack([drops(factor) for factor in config.sampled_factors])
