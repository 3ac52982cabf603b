"""Two tasks under every regulariser and strength: the runs of `strengths`."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from experiments.harness import bounded, checked_run
from rlrazor.tasks.two_tasks import Outcome, Recipe, World, fine_tune, make_world
from rlrazor.training import log_steps

PENALTY, FORWARD, BONUS = "KL penalty", "forward KL penalty", "entropy bonus"
PRETRAINING, REPLAY, STOP = "pretraining gradients", "replay of right answers", "early stop"
PREFERENCES, ANCHORED = "DPO, its beta", "DPO + NLL, its alpha"
FRONTIER, KNOWS_GOLD = "oracle: gold + old task", "KL penalty, gold reward"
RECIPES: dict[str, Callable[[Any], Recipe]] = {
    PENALTY: lambda s: Recipe(proxy=1.0, reverse_kl=s),
    FORWARD: lambda s: Recipe(proxy=1.0, forward_kl=s),
    BONUS: lambda s: Recipe(proxy=1.0, entropy=s),
    PRETRAINING: lambda s: Recipe(proxy=1.0, pretraining=s),
    REPLAY: lambda s: Recipe(proxy=1.0, replay=s),
    PREFERENCES: lambda s: Recipe(dpo=1 / jnp.maximum(s, 0.01), dpo_beta=jnp.maximum(s, 0.01)),
    ANCHORED: lambda s: Recipe(dpo=10.0, dpo_beta=0.1, nll=s),
    FRONTIER: lambda s: Recipe(gold=1.0, pretraining=s),
    KNOWS_GOLD: lambda s: Recipe(gold=1.0, reverse_kl=s),
}
NAMES = (PENALTY, FORWARD, BONUS, PRETRAINING, REPLAY, PREFERENCES, ANCHORED, STOP)


@dataclass(frozen=True)
class Config:
    """A world of two tasks, the strengths, and how long is trained."""

    num_prompts: int = bounded(10, at_least=2, at_most=1000)
    """Prompts of either task."""
    num_features: int = bounded(6, at_least=2, at_most=1000)
    """Features of the old prompts."""
    num_outcomes: int = bounded(8, at_least=3, at_most=1000)
    """Answers to each prompt."""
    overlap: float = bounded(1.0, above=0, at_most=1)
    """Share of the new prompts' squared length in the old prompts' features."""
    noise: float = bounded(2.0, at_least=0, at_most=100)
    """Standard deviation of the proxy's error; the gold reward's is 1."""
    noisy: float = bounded(0.4, at_least=0, at_most=1)
    """Share of answers with an error."""
    num_strengths: int = bounded(16, at_least=6, at_most=1000)
    """Strengths of a regulariser: 0, and others log-spaced from 0.01 to 1000."""
    rate: float = bounded(2.0, above=0, at_most=10)
    """Learning rate."""
    num_steps: int = bounded(2000, at_least=100, at_most=1_000_000)
    """Updates of a training."""
    level: float = bounded(0.45, above=0, below=1)
    """Gold reward at which regularisers are compared, as a share of what a training without any gains."""
    num_worlds: int = bounded(6, at_least=2, at_most=1000)
    """Worlds; the first is the one that is drawn."""
    seed: int = bounded(1, at_least=0)
    """Of the first world; others have the following ones."""

    @classmethod
    def quick(cls) -> "Config":
        """Fewer strengths, worlds and updates, which are larger."""
        return cls(num_strengths=7, rate=5.0, num_steps=200, num_worlds=2)

    @property
    def strengths(self) -> Float[np.ndarray, " strengths"]:
        """From none to as good as infinite."""
        return np.append(0.0, np.geomspace(0.01, 1000, self.num_strengths - 1))


class Results(NamedTuple):
    """What is learned and lost under each regulariser and strength, and along the training without any."""

    shared: dict[str, Outcome]  # [worlds, strengths], early stop [worlds, steps]
    unshared: dict[str, Outcome]  # the same, one world, where new prompts have features of their own

    def lost_at(self, name: str, config: Config, *, shared: bool = True) -> Float[np.ndarray, " worlds"]:
        """The least that is lost of the old task where the curve crosses the level of its world; NaN if it does not."""
        found = self.shared if shared else self.unshared
        levels = config.level * np.asarray(found[PENALTY].gold)[:, 0]
        curves = zip(np.asarray(found[name].gold), np.asarray(found[name].lost), levels, strict=True)
        return np.array([first_crossing(*curve) for curve in curves])

    def undercut(self, envelope: str) -> float:
        """By how many nats some training loses less than the envelope at its gold reward."""
        gaps = []
        for world, (gold, lost) in enumerate(zip(self.shared[envelope].gold, self.shared[envelope].lost, strict=True)):
            order = np.argsort(gold)
            for curve in (self.shared[name] for name in NAMES):
                edge = np.interp(curve.gold[world], gold[order], lost[order], left=0.0)
                gaps.append((edge - curve.lost[world]).max())
        return float(max(gaps))


def first_crossing(gold: Any, lost: Any, level: float) -> float:
    """The least loss where a curve crosses a gold reward, between two of its points."""
    (before,) = np.nonzero((gold[:-1] - level) * (gold[1:] - level) <= 0)
    part = (level - gold[before]) / (gold[before + 1] - gold[before])
    crossings = lost[before] + part * (lost[before + 1] - lost[before])
    return float(crossings.min()) if crossings.size else np.nan


@checked_run
def run(config: Config) -> Results:
    """Every recipe at every strength, in worlds with shared features and in one without."""
    steps, strengths = jnp.asarray(log_steps(config.num_steps, 60)), jnp.asarray(config.strengths)
    seeds = config.seed + np.append(np.arange(config.num_worlds), 0)
    overlaps = np.append(np.full(config.num_worlds, config.overlap), 0.0)
    sizes = config.num_prompts, config.num_features, config.num_outcomes
    worlds = worlds_of(seeds, overlaps, config.noise, config.noisy, *sizes)
    found = outcomes(worlds, strengths, config.rate, steps)
    shared, unshared = (
        jax.tree.map(lambda leaf, rows=rows: leaf[rows], found) for rows in (slice(-1), slice(-1, None))
    )
    return Results(shared, unshared)


@partial(jax.jit, static_argnums=(4, 5, 6))
def worlds_of(
    seeds: Int[Array, " worlds"],
    overlaps: Float[Array, " worlds"],
    noise: Float[Array, ""],
    noisy: Float[Array, ""],
    num_prompts: int,
    num_features: int,
    num_outcomes: int,
) -> World:
    """A world for each seed."""
    sizes: Any = {"num_prompts": num_prompts, "num_features": num_features, "num_outcomes": num_outcomes}

    def of(seed: Int[Array, ""], overlap: Float[Array, ""]) -> World:
        return make_world(jax.random.key(seed), overlap, noise, noisy, **sizes)

    return jax.vmap(of)(seeds, overlaps)


def outcomes(
    worlds: World, strengths: Float[Array, " strengths"], rate: float, steps: Int[Array, " steps"]
) -> dict[str, Outcome]:
    """Where every training ends in every world, and the whole path of the one without a regulariser."""
    apart: World = jax.tree.map(np.asarray, worlds)
    each = [
        trainings(jax.tree.map(lambda leaf, row=row: leaf[row], apart), strengths, rate, steps)
        for row in range(len(worlds.gold))
    ]
    found: dict[str, Outcome] = jax.tree.map(lambda *leaves: np.stack(leaves), *each)
    return found


@jax.jit
def trainings(
    world: World, strengths: Float[Array, " strengths"], rate: Float[Array, ""], steps: Int[Array, " steps"]
) -> dict[str, Outcome]:
    """The same in one world."""
    paths = {
        name: jax.vmap(lambda s, of=of: fine_tune(world, of(s), rate, steps))(strengths) for name, of in RECIPES.items()
    }
    ends: dict[str, Outcome] = jax.tree.map(lambda leaf: leaf[:, -1], paths)
    return ends | {STOP: jax.tree.map(lambda leaf: leaf[0], paths[PENALTY])}
