"""Optima over answers made of tokens, and gradients of losses of tokens, for `sequences`."""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

import rlrazor as rz
from experiments.harness import UserError, bounded, checked_run
from rlrazor.tasks.languages import brackets

LOSSES = {"k2": rz.k2, "k3": rz.k3}


@dataclass(frozen=True)
class Config:
    """A language of brackets, a reward for deep ones, and how far it is tilted."""

    max_depth: int = bounded(6, at_least=3, at_most=100)
    """Brackets that may be open at once."""
    end: float = bounded(0.05, above=0, below=1)
    """Probability that an answer ends where it may."""
    deep: int = bounded(1, at_least=0, at_most=99)
    """Depth from which on an opening bracket is paid for."""
    beta: float = bounded(1.0, above=0, at_most=100)
    """KL coefficient of the optimum."""
    horizons: tuple[int, ...] = bounded((4, 8, 16, 32, 64, 128, 256), at_least=2, at_most=1000, min_length=2)
    """Most tokens of an answer, increasing and even."""
    enumerable: int = bounded(10, at_least=2, at_most=12)
    """Horizon up to which answers are enumerated."""
    num_samples: int = bounded(20_000, at_least=1000, at_most=1_000_000)
    """Answers in a Monte Carlo estimate."""
    strengths: tuple[float, ...] = bounded((0.1, 0.2, 0.4, 0.8, 1.2, 1.6, 2.0), above=0, at_most=10, min_length=2)
    """How far policies are moved whose gradients are compared, increasing."""
    gradient_horizon: int = bounded(64, at_least=2, at_most=1000)
    """Horizon of that comparison."""
    seed: int = bounded(0, at_least=0)
    """Of the samples."""

    def __post_init__(self) -> None:
        """Horizons are even, so that balanced answers may fill them; both lists increase."""
        for name in ("horizons", "strengths"):
            values = getattr(self, name)
            if [*values] != sorted({*values}):
                raise UserError(f"{name} must increase, got {values}")
        if self.deep >= self.max_depth:
            raise UserError(f"deep must be below max_depth {self.max_depth}, got {self.deep}")

    @classmethod
    def quick(cls) -> "Config":
        """Shorter answers, fewer samples."""
        return cls(horizons=(4, 8, 32), enumerable=8, num_samples=4000, strengths=(0.2, 0.8, 2.0), gradient_horizon=16)


class Answers(NamedTuple):
    """The optimum at one horizon."""

    value: Float[Array, ""]  # beta log Z
    reward: Float[Array, ""]
    kl: Float[Array, ""]  # of answers, by dynamic programming
    length: Float[Array, ""]  # expected tokens
    first: Float[Array, ""]  # KL of the first token
    sampled: Float[Array, ""]  # mean of k1 over sampled answers
    error: Float[Array, ""]  # its standard error
    opening: Float[Array, " horizon"]  # probability of "(" at depth 1, by step


class Gradients(NamedTuple):
    """Gradients in the logits of a policy of tokens, one for all steps."""

    tokens: dict[str, Float[Array, "strengths states tokens"]]  # of the losses of tokens, samples held fixed
    kl: Float[Array, "strengths states tokens"]  # of KL(policy || ref) of answers
    back: Float[Array, "strengths states tokens"]  # of KL(ref || policy)
    drift: Float[Array, " strengths"]  # KL(policy || ref) of answers


class Results(NamedTuple):
    """Optima by horizon, the KL by enumeration, and gradients with and without an effect on later states."""

    optima: dict[str, Answers]
    enumerated: Float[Array, ""]
    by_tokens: Float[Array, ""]  # dynamic programming at the same horizon
    gradients: Gradients
    stateless: Gradients  # tokens that lead nowhere

    def missing(self, loss: str, *, back: bool = False, stateless: bool = False) -> Float[np.ndarray, " strengths"]:
        """How far the gradient of a loss of tokens is from that of a KL of answers, over the size of the latter."""
        found = self.stateless if stateless else self.gradients
        wanted = np.asarray(found.back if back else found.kl)
        gap = np.asarray(found.tokens[loss]) - wanted
        share: Float[np.ndarray, " strengths"] = np.linalg.norm(gap, axis=(1, 2)) / np.linalg.norm(wanted, axis=(1, 2))
        return share


@checked_run
def run(config: Config) -> Results:
    """Optima at each horizon, an enumeration, and gradients."""
    sizes = config.max_depth, config.deep
    key, beta = jax.random.key(config.seed), jnp.asarray(config.beta)
    world, log_ref, reward, _ = spoken = language(*sizes, config.end)
    optima = {f"T = {t}": optimum(key, beta, *spoken, t, config.num_samples) for t in config.horizons}
    answers = jnp.asarray(rz.all_answers(world, config.enumerable))
    enumerated, by_tokens = by_enumeration(answers, *spoken, beta)
    strengths = jnp.array(config.strengths)
    flat = rz.automaton(jnp.zeros((1, 3), int))
    row = jax.nn.log_softmax(jnp.array([[0.3, 0.0, -0.5]]))
    return Results(
        optima,
        enumerated,
        by_tokens,
        gradients(world, log_ref, reward, strengths, config.gradient_horizon),
        gradients(flat, row, jnp.array([[1.0, 0.0, -1.0]]), strengths, config.gradient_horizon),
    )


def language(max_depth: int, deep: int, end: float) -> tuple[rz.Automaton, Any, Any, Any]:
    """(World, base, reward of deep brackets, final reward that forbids what is not balanced)."""
    world, log_ref, _ = brackets(max_depth, end)
    states = np.arange(max_depth + 2)
    reward = np.zeros(log_ref.shape)
    reward[deep:max_depth, 0] = 1.0
    balanced = (states == 0) | (states == max_depth + 1)
    return world, log_ref, jnp.asarray(reward), jnp.asarray(np.where(balanced, 0.0, -np.inf))


@partial(jax.jit, static_argnames=("horizon", "num_samples"))
def optimum(
    key: Key[Array, ""],
    beta: Float[Array, ""],
    world: rz.Automaton,
    log_ref: Any,
    reward: Any,
    final: Any,
    horizon: int,
    num_samples: int,
) -> Answers:
    """The tilt of balanced answers, what it is worth, and its KL by two ways."""
    log_policy, log_z = rz.tilt_tokens(world, log_ref, reward, beta, horizon, final)
    tokens = rz.sample_answers(key, world, log_policy, horizon, num_samples)
    k1 = rz.answer_log_prob(world, log_policy, tokens) - rz.answer_log_prob(world, log_ref, tokens)
    return Answers(
        value=beta * log_z[0, world.start],
        reward=rz.expected_sum(world, log_policy, reward, horizon),
        kl=rz.sequence_kl(world, log_policy, log_ref, horizon),
        length=rz.expected_sum(world, log_policy, jnp.ones_like(reward), horizon),
        first=rz.kl_divergence(log_policy[0, world.start], log_ref[world.start]),
        sampled=k1.mean(),
        error=k1.std(ddof=1) / np.sqrt(num_samples),
        opening=jnp.exp(log_policy[:, 1, 0]),
    )


@jax.jit
def by_enumeration(
    answers: Any, world: rz.Automaton, log_ref: Any, reward: Any, final: Any, beta: Float[Array, ""]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """KL(optimum || ref) as `tilt` of all answers, and by dynamic programming."""
    horizon = answers.shape[-1]
    states = rz.states_of(world, answers)
    counted = ~world.ended[states[:, :-1]]
    paid = jnp.where(counted, reward[states[:, :-1], answers], 0.0).sum(-1) + final[states[:, -1]]
    base = rz.answer_log_prob(world, log_ref, answers)
    log_policy, _ = rz.tilt_tokens(world, log_ref, reward, beta, horizon, final)
    return rz.kl_divergence(rz.tilt(base, paid, beta), base), rz.sequence_kl(world, log_policy, log_ref, horizon)


@partial(jax.jit, static_argnums=4)
def gradients(
    world: rz.Automaton, log_ref: Any, direction: Any, strengths: Float[Array, " strengths"], horizon: int
) -> Gradients:
    """Gradients at policies that are moved along a direction."""

    def at(strength: Float[Array, ""]) -> Gradients:
        logits = jnp.where(log_ref > -jnp.inf, log_ref + strength * direction, -jnp.inf)

        def of(objective: Any) -> Float[Array, "states tokens"]:
            slope: Float[Array, "states tokens"] = jax.grad(lambda x: objective(jax.nn.log_softmax(x)))(logits)
            return slope

        def on_tokens(k: Any) -> Any:
            def loss(log_policy: Any) -> Any:
                possible = log_ref > -jnp.inf
                each = k(jnp.where(possible, log_policy, 0.0), jnp.where(possible, log_ref, 0.0))
                return rz.expected_sum(world, jax.lax.stop_gradient(log_policy), each, horizon)

            return loss

        return Gradients(
            tokens={name: of(on_tokens(k)) for name, k in LOSSES.items()},
            kl=of(lambda log_policy: rz.sequence_kl(world, log_policy, log_ref, horizon)),
            back=of(lambda log_policy: rz.sequence_kl(world, log_ref, log_policy, horizon)),
            drift=rz.sequence_kl(world, jax.nn.log_softmax(logits), log_ref, horizon),
        )

    found: Gradients = jax.lax.map(at, strengths)
    return found
