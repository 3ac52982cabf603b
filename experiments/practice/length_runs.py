"""Expected gradients of three ways to average over tokens, and the trainings they make, for `length_bias`."""

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
from experiments.harness import UserError, bounded, checked_run
from rlrazor.sweeps import of_each
from rlrazor.training import train

GO, RIGHT, WRONG = range(3)  # tokens
ANSWER, TOTAL, TOKEN = "mean of each answer", "sum over a constant", "mean over all tokens"
# The mean over a group of weight x advantage x log-probability of the answer: lengths of the group -> weights.
WEIGHTS: dict[str, Callable[[Any], Any]] = {
    ANSWER: lambda length: 1 / length,
    TOTAL: lambda length: jnp.full_like(length, 1 / 3),
    TOKEN: lambda length: jnp.ones_like(length) / length.mean(-1, keepdims=True),
}


@dataclass(frozen=True)
class Config:
    """Answers that go on, or stop right or wrong, and the groups of a training."""

    max_length: int = bounded(6, at_least=2, at_most=12)
    """Most tokens of an answer."""
    go_on: float = bounded(0.6, above=0, below=1)
    """Probability of going on after a token."""
    successes: tuple[float, ...] = bounded(
        (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95),
        above=0,
        below=1,
        min_length=2,
    )
    """Success rates at which gradients are compared, increasing."""
    start: float = bounded(0.3, above=0, below=1)
    """Success rate from which is trained; one of them."""
    compared: float = bounded(0.8, above=0, below=1)
    """Success rate at which trainings are compared."""
    group_size: int = bounded(4, at_least=2, at_most=6)
    """Answers of a group."""
    rate: float = bounded(1.0, above=0, at_most=10)
    """Learning rate."""
    num_steps: int = bounded(1500, at_least=100, at_most=1_000_000)
    """Exact expected gradient steps."""
    num_groups: int = bounded(200_000, at_least=1000, at_most=2_000_000)
    """Sampled groups in a Monte Carlo estimate."""
    seed: int = bounded(0, at_least=0)
    """Of the groups."""

    def __post_init__(self) -> None:
        """Success rates increase; the start and a half are among them."""
        if [*self.successes] != sorted({*self.successes}):
            raise UserError(f"successes must increase, got {self.successes}")
        if not {self.start, 0.5} <= {*self.successes}:
            raise UserError(f"start {self.start:g} and 0.5 must be among successes {self.successes}")
        if self.compared <= self.start:
            raise UserError(f"compared must be above start {self.start:g}, got {self.compared:g}")

    @classmethod
    def quick(cls) -> "Config":
        """Shorter answers, smaller groups, larger steps."""
        return cls(max_length=4, successes=(0.3, 0.5, 0.9), group_size=3, rate=4.0, num_steps=400, num_groups=20_000)


class Lengths(NamedTuple):
    """Expected tokens of answers."""

    all: Float[Array, "..."]
    right: Float[Array, "..."]  # of those that are right
    wrong: Float[Array, "..."]


class Results(NamedTuple):
    """How fast lengths change, and where trainings go."""

    speed: dict[str, Lengths]  # [averages][successes], at the first step
    sampled: dict[str, Lengths]  # from sampled groups, at the start alone
    error: dict[str, Lengths]  # standard errors
    ratio_gap: Float[Array, ""]  # between the gradients of GSPO's ratio and of the mean of each answer, on own samples
    ratio_gap_old: Float[Array, ""]  # the same on an older policy's
    path: dict[str, Lengths]  # [steps]
    success: dict[str, Float[Array, " steps"]]

    def length_at(self, average: str, level: float) -> Lengths:
        """Lengths where a training reaches a success rate."""
        along, success = self.path[average], jnp.asarray(self.success[average])
        return Lengths(*(rz.value_at_crossing(success, jnp.asarray(x), level) for x in along))


class World(NamedTuple):
    """Answers as outcomes."""

    automaton: rz.Automaton
    answers: Int[Array, "answers horizon"]
    length: Float[Array, " answers"]
    right: Float[Array, " answers"]

    def log_policy(self, logits: Float[Array, "states tokens"]) -> Float[Array, " answers"]:
        """Log-probabilities of answers, of a policy of tokens."""
        found: Float[Array, " answers"] = rz.answer_log_prob(self.automaton, jax.nn.log_softmax(logits), self.answers)
        return found

    def lengths(self, logits: Float[Array, "states tokens"]) -> Lengths:
        """Expected lengths."""
        chance = jnp.exp(self.log_policy(logits))
        by_kind = ((chance * kind @ self.length) / (chance @ kind) for kind in (self.right, 1 - self.right))
        return Lengths(chance @ self.length, *by_kind)


def world_of(max_length: int) -> World:
    """State t has seen t tokens; in the last one an answer cannot go on."""
    over = max_length
    table = np.full((max_length + 1, 3), over)
    table[: max_length - 1, GO] = np.arange(1, max_length)
    automaton = rz.automaton(jnp.array(table), jnp.arange(max_length + 1) == over)
    answers = rz.all_answers(automaton, max_length)
    ends = (answers != GO).argmax(1)
    last = answers[np.arange(len(answers)), ends]
    kept = last != GO  # going on in the last state is impossible
    return World(
        automaton,
        jnp.asarray(answers[kept]),
        jnp.asarray(ends[kept] + 1.0),
        jnp.asarray((last[kept] == RIGHT).astype(float)),
    )


def base_logits(success: Float[Array, "..."], go_on: Float[Array, ""], max_length: int) -> Float[Array, "..."]:
    """The logits of a base, whose success rate may differ from token to token, `[states]`."""
    go = jnp.append(jnp.broadcast_to(go_on, (max_length - 1,)), jnp.zeros(2))  # the end is never left
    success = jnp.broadcast_to(success, go.shape)
    return jnp.log(jnp.stack([go, (1 - go) * success, (1 - go) * (1 - success)], axis=-1))


def group_loss(average: Any) -> Callable[..., Float[Array, ""]]:
    """-mean(weight A log policy) over a group, with A the reward less its mean in the group."""

    def loss(log_prob: Any, length: Any, right: Any) -> Any:
        return rz.reinforce_loss(log_prob, average(length) * rz.dr_grpo_advantage(right))

    return loss


@checked_run
def run(config: Config) -> Results:
    """Speeds at every success rate, sampled ones at the start, and trainings."""
    world = world_of(config.max_length)
    sizes = config.group_size, config.num_steps, config.num_groups
    successes, key = jnp.array(config.successes), jax.random.key(config.seed)
    found: Results = everything(key, world, successes, config.start, config.go_on, config.rate, sizes)
    return found


@partial(jax.jit, static_argnames=("sizes",))
def everything(
    key: Key[Array, ""],
    world: World,
    successes: Float[Array, " successes"],
    start: Float[Array, ""],
    go_on: Float[Array, ""],
    rate: Float[Array, ""],
    sizes: tuple[int, int, int],
) -> Results:
    """All of it in one program."""
    group_size, num_steps, num_groups = sizes
    states = len(world.automaton.ended) - 1

    def gradient(average: Any, logits: Any) -> Any:
        objective = rz.expected_loss(group_loss(average), world.length, world.right, group_size=group_size)
        return jax.grad(lambda x: objective(world.log_policy(x)))(logits)

    def speed(average: Any, logits: Any) -> Lengths:
        found: Lengths = jax.jvp(world.lengths, (logits,), (-gradient(average, logits),))[1]
        return found

    def speeds(average: Any) -> Lengths:
        return jax.vmap(lambda p: speed(average, base_logits(p, go_on, states)))(successes)

    first = base_logits(start, go_on, states)
    sampled, error = sampled_speeds(key, world, first, (num_groups, group_size))

    def training(average: Any) -> Any:
        """Logits along exact gradient steps, which have no use for the key."""
        return train(lambda x, _: gradient(average, x), first, optax.sgd(rate), key, num_steps=num_steps)

    path = of_each(WEIGHTS, training)
    return Results(
        speed=of_each(WEIGHTS, speeds),
        sampled=sampled,
        error=error,
        ratio_gap=ratio_gap(world, first, first, group_size),
        ratio_gap_old=ratio_gap(world, first, base_logits(1 - start, go_on, states), group_size),
        path={name: jax.vmap(world.lengths)(logits) for name, logits in path.items()},
        success={name: jnp.exp(jax.vmap(world.log_policy)(logits)) @ world.right for name, logits in path.items()},
    )


def sampled_speeds(
    key: Key[Array, ""], world: World, logits: Any, sizes: tuple[int, int]
) -> tuple[dict[str, Lengths], dict[str, Lengths]]:
    """Means, and their standard errors, of the change of lengths over the gradients of sampled groups."""
    log_policy = world.log_policy(logits)
    groups = rz.inverse_cdf(log_policy, jax.random.uniform(key, sizes))
    slopes = jax.jacrev(world.lengths)(logits)
    scores = jax.jacrev(world.log_policy)(logits)  # [answers, states, tokens]
    effect = Lengths(*(jnp.einsum("ast,st->a", scores, jnp.where(jnp.isfinite(logits), s, 0.0)) for s in slopes))

    def of(average: Any) -> tuple[Lengths, Lengths]:
        weight = average(world.length[groups]) * rz.dr_grpo_advantage(world.right[groups])
        changes = Lengths(*((weight * e[groups]).mean(-1) for e in effect))
        error = Lengths(*(x.std(ddof=1) / np.sqrt(sizes[0]) for x in changes))
        return Lengths(*(x.mean() for x in changes)), error

    found = of_each(WEIGHTS, of)
    return {k: v[0] for k, v in found.items()}, {k: v[1] for k, v in found.items()}


def ratio_gap(world: World, logits: Any, old: Any, group_size: int) -> Float[Array, ""]:
    """Largest difference of the gradients of GSPO's ratio, exp(mean log-ratio of tokens), and of 1/|o| log policy."""
    log_old = world.log_policy(old)

    def gspo(log_prob: Any, length: Any, right: Any, log_prob_old: Any) -> Any:
        return -(jnp.exp((log_prob - log_prob_old) / length) * rz.dr_grpo_advantage(right)).mean()

    def plain(log_prob: Any, length: Any, right: Any, log_prob_old: Any) -> Any:
        return group_loss(WEIGHTS[ANSWER])(log_prob, length, right)

    data = world.length, world.right, log_old
    one, other = (
        jax.grad(
            lambda x, loss=loss: rz.expected_loss(loss, *data, behavior=log_old, group_size=group_size)(
                world.log_policy(x)
            )
        )(logits)
        for loss in (gspo, plain)
    )
    return jnp.abs(one - other).max()
