"""Distillation into a student that remembers less than its teacher, for `distillation`."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key

import rlrazor as rz
from experiments.harness import bounded, checked_run
from rlrazor.methods import SFT
from rlrazor.sweeps import rows_by_name
from rlrazor.tasks import languages
from rlrazor.training import train_at

OFFLINE, DAGGER, ON_POLICY, WHOLE = "offline", "DAgger", "on-policy distillation", "reverse KL of answers"
CELLS = (SFT, OFFLINE, DAGGER, ON_POLICY, WHOLE)
TRAINED = CELLS[:-1]  # with sampled prefixes, which are not differentiated


@dataclass(frozen=True)
class Config:
    """Answers, a teacher that remembers two tokens, and a student that remembers one."""

    vocabulary: int = bounded(4, at_least=2, at_most=6)
    """Tokens to choose from."""
    horizon: int = bounded(8, at_least=3, at_most=256)
    """Tokens of an answer."""
    beta: float = bounded(0.5, above=0, at_most=100)
    """KL coefficient of the teacher, which is paid for tokens that equal the one before the last."""
    num_steps: int = bounded(4000, at_least=500, at_most=100_000)
    """Steps of a training on exact gradients."""
    num_weights: int = bounded(17, at_least=3, at_most=200)
    """Weights of the two KL divergences on the curve between their optima."""
    rates: tuple[float, ...] = bounded((0.003, 0.01, 0.03, 0.1, 0.3), above=0, at_most=10, min_length=2)
    """Learning rates of Adam on sampled prefixes, increasing."""
    num_prompts: int = bounded(8, at_most=1000)
    """Answers that prefixes are taken from, in an update."""
    num_seeds: int = bounded(6, at_least=2, at_most=1000)
    """Trainings on sampled prefixes at each rate."""
    num_updates: int = bounded(4000, at_least=500, at_most=100_000)
    """Updates of each."""
    level: float = bounded(4.0, above=0)
    """Expected reward at which drifts are compared."""
    seed: int = bounded(1, at_least=0)
    """Of the base and of the prefixes."""

    @classmethod
    def quick(cls) -> "Config":
        """Fewer weights, rates, seeds and updates."""
        return cls(num_steps=3000, num_weights=5, rates=(0.01, 0.3), num_seeds=2, num_updates=1000)


class World(NamedTuple):
    """The automaton that remembers two tokens, and what is paid."""

    automaton: rz.Automaton
    last: Int[Array, " states"]  # what a student sees of a state: 0 at the start, else 1 + the last token
    reward: Float[Array, "states tokens"]


class Place(NamedTuple):
    """Where a student is."""

    forward: Float[Array, "..."]  # KL(teacher || student) of answers
    reverse: Float[Array, "..."]  # KL(student || teacher)
    reward: Float[Array, "..."]
    drift: Float[Array, "..."]  # KL(base || student)


class Gap(NamedTuple):
    """Largest difference of two gradients at the base, over the larger one."""

    forward: Float[Array, " cells"]  # from the gradient of KL(teacher || student)
    reverse: Float[Array, " cells"]  # from that of KL(student || teacher)


class Results(NamedTuple):
    """Ends, paths and trainings."""

    base: Place
    teacher: Place
    paths: dict[str, Place]  # [checkpoints]
    curve: Place  # students that minimise (1 - w) KL(teacher || student) + w KL(student || teacher)
    able: dict[str, Place]  # ends of students that remember what the teacher does
    gap: Gap
    sampled: dict[str, Place]  # [rates, seeds], mean over the last quarter


def world_of(vocabulary: int) -> World:
    """Paid is a token that equals the one before the last."""
    automaton = languages.ngram("abcdef"[:vocabulary], order=2).world
    table, tokens = np.asarray(automaton.next_state), np.arange(vocabulary)
    last, before = np.zeros(len(table), int), np.zeros(len(table), int)
    last[table] = 1 + tokens
    before[table] = last[:, None]
    return World(automaton, jnp.asarray(last), jnp.asarray(before[:, None] == 1 + tokens, float))


@checked_run
def run(config: Config) -> Results:
    """Exact trainings, and sampled ones."""
    key, beta = jax.random.key(config.seed), jnp.asarray(config.beta)
    base = jax.random.normal(key, (config.vocabulary + 1, config.vocabulary))
    world, weights = world_of(config.vocabulary), jnp.asarray(np.linspace(0, 1, config.num_weights))
    checkpoints = np.unique(np.append(0, np.geomspace(1, config.num_steps, 60).astype(int)))
    exact = trainings(world, base, beta, weights, jnp.asarray(checkpoints), config.horizon)
    late = np.linspace(0.75, 1, 25) * config.num_updates
    keys, sizes = jax.random.split(jax.random.fold_in(key, 1), config.num_seeds), (config.horizon, config.num_prompts)
    sampled = samplings(keys, world, base, beta, jnp.array(config.rates), jnp.asarray(late.astype(int)), sizes)
    return Results(**exact, sampled=sampled)


def student(world: World, logits: Float[Array, "seen tokens"]) -> Float[Array, "states tokens"]:
    """The policy that sees the last token alone."""
    return jax.nn.log_softmax(logits)[world.last]


def teacher_of(world: World, base: Any, beta: Any, horizon: int) -> Float[Array, "horizon states tokens"]:
    """The best that a KL penalty allows."""
    found: Float[Array, "horizon states tokens"] = rz.tilt_tokens(
        world.automaton, student(world, base), world.reward, beta, horizon
    ).log_policy
    return found


def losses(log_student: Any, log_teacher: Any, by_student: Any, by_teacher: Any) -> Float[Array, " cells"]:
    """The loss of each cell: token KLs, weighted by how often each author's prefixes end in each state."""
    log_student = jnp.broadcast_to(log_student, log_teacher.shape)
    forward, reverse = rz.kl_divergence(log_teacher, log_student), rz.kl_divergence(log_student, log_teacher)
    taken = jax.lax.stop_gradient(by_student)
    pairs = (by_teacher, forward), (by_teacher, reverse), (taken, forward), (taken, reverse), (by_student, reverse)
    return jnp.stack([(visits * kl).sum() for visits, kl in pairs])


def measure(world: World, base: Any, log_teacher: Any, log_student: Any) -> Place:
    """Divergences of answers, and the reward."""
    horizon = len(log_teacher)
    log_student = jnp.broadcast_to(log_student, log_teacher.shape)
    log_base, pay = (jnp.broadcast_to(x, log_teacher.shape) for x in (student(world, base), world.reward))
    pairs = (log_teacher, log_student), (log_student, log_teacher), (log_base, log_student)
    forward, reverse, drift = (rz.sequence_kl(world.automaton, p, q, horizon) for p, q in pairs)
    return Place(forward, reverse, rz.expected_sum(world.automaton, log_student, pay, horizon), drift)


@partial(jax.jit, static_argnames=("horizon",))
def trainings(
    world: World,
    base: Float[Array, "seen tokens"],
    beta: Float[Array, ""],
    weights: Float[Array, " weights"],
    checkpoints: Int[Array, " checkpoints"],
    horizon: int,
) -> dict[str, Any]:
    """Adam with falling rates on exact gradients, from the base."""
    log_teacher = teacher_of(world, base, beta, horizon)
    by_teacher = rz.occupancy(world.automaton, log_teacher, horizon)[:-1]

    def all_losses(log_student: Any) -> Float[Array, " cells"]:
        return losses(log_student, log_teacher, rz.occupancy(world.automaton, log_student, horizon)[:-1], by_teacher)

    def measured(log_student: Any) -> Place:
        return measure(world, base, log_teacher, log_student)

    def follow(policy: Callable[[Any], Any], first: Any, parts: Any) -> Place:
        """Path of a training on a sum of losses."""

        def gradient(params: Any, *_: Any) -> Any:
            return jax.grad(lambda x: parts @ all_losses(policy(x)))(params)

        falling = optax.adam(lambda step: 0.03 * 1e-4 ** (step / checkpoints[-1]))
        path = train_at(gradient, first, falling, jax.random.key(0), checkpoints)
        places: Place = jax.lax.map(lambda x: measured(policy(x)), path)
        return places

    cells = jnp.eye(len(CELLS))
    between = (1 - weights)[:, None] * cells[CELLS.index(SFT)] + weights[:, None] * cells[CELLS.index(WHOLE)]
    paths = jax.vmap(lambda parts: follow(lambda x: student(world, x), base, parts))(jnp.concatenate([cells, between]))
    able = jax.vmap(lambda parts: follow(jax.nn.log_softmax, 0 * log_teacher + student(world, base), parts))(cells)
    ends = jax.tree.map(lambda leaf: leaf[:, -1], (paths, able))

    def kls(logits: Any) -> Any:
        found = measured(student(world, logits))
        return found.forward, found.reverse

    forward, reverse = jax.jacrev(kls)(base)
    slopes = jax.jacrev(lambda x: all_losses(student(world, x)))(base)
    gap = Gap(*(jnp.abs(slopes - true).max((1, 2)) / jnp.abs(true).max() for true in (forward, reverse)))
    return {
        "base": measured(student(world, base)),
        "teacher": measured(log_teacher),
        "paths": rows_by_name(CELLS, jax.tree.map(lambda leaf: leaf[: len(CELLS)], paths)),
        "curve": jax.tree.map(lambda leaf: leaf[len(CELLS) :], ends[0]),
        "able": rows_by_name(CELLS, ends[1]),
        "gap": gap,
    }


@partial(jax.jit, static_argnames=("sizes",))
def samplings(
    keys: Key[Array, " seeds"],
    world: World,
    base: Float[Array, "seen tokens"],
    beta: Float[Array, ""],
    rates: Float[Array, " rates"],
    late: Int[Array, " checkpoints"],
    sizes: tuple[int, int],
) -> dict[str, Place]:
    """Adam at constant rates on the prefixes of sampled answers; means over late updates."""
    horizon, num_prompts = sizes
    log_teacher = teacher_of(world, base, beta, horizon)
    states = jnp.arange(len(world.last))

    def visits(key: Any, log_policy: Any) -> Float[Array, "horizon states"]:
        answers = rz.sample_answers(key, world.automaton, log_policy, horizon, num_prompts)
        passed = rz.states_of(world.automaton, answers)[:, :-1]
        return (passed[..., None] == states).mean(0, dtype=base.dtype)

    def training(cell: Any, rate: Any, key: Any) -> Place:
        def gradient(logits: Any, key: Any, _: Any) -> Any:
            of_student, of_teacher = jax.random.split(key)
            written = visits(of_student, student(world, logits)), visits(of_teacher, log_teacher)
            return jax.grad(lambda x: cell @ losses(student(world, x), log_teacher, *written))(logits)

        path = train_at(gradient, base, optax.adam(rate), key, late)
        places = jax.lax.map(lambda x: measure(world, base, log_teacher, student(world, x)), path)
        return Place(*(leaf.mean() for leaf in places))

    over_seeds = jax.vmap(training, (None, None, 0))
    over_rates = jax.vmap(over_seeds, (None, 0, None))
    found = jax.vmap(over_rates, (0, None, None))(jnp.eye(len(CELLS))[: len(TRAINED)], rates, keys)
    table: dict[str, Place] = rows_by_name(TRAINED, found)
    return table
