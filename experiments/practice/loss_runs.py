"""k1, k2, k3 in the reward or as a loss: gradients, ends and noise, for `kl_in_the_loss`."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

import rlrazor as rz
from experiments.harness import bounded, checked_run
from rlrazor.sweeps import of_each

Loss = Callable[..., Float[Array, ""]]
ESTIMATORS = {"k1": rz.k1, "k2": rz.k2, "k3": rz.k3, "k3 turned": lambda x, ref: rz.k3(ref, x)}
PLACEMENTS: dict[str, Callable[[Any], Loss]] = {  # of (log_prob, log_prob_ref, log_prob_behavior)
    "in reward": lambda k: lambda x, ref, old: rz.reinforce_loss(x, -k(x, ref)),
    "as loss": lambda k: lambda x, ref, old: k(x, ref).mean(),
    "off-policy": lambda k: lambda x, ref, old: k(x, ref).mean(),
    "with ratio": lambda k: lambda x, ref, old: (jnp.exp(x - old) * k(x, ref)).mean(),
    "ratio held": lambda k: lambda x, ref, old: (jax.lax.stop_gradient(jnp.exp(x - old)) * k(x, ref)).mean(),
}
OWN = ("in reward", "as loss")  # samples of the policy itself
RATE = 0.5  # of natural gradient steps
# What a loss leads to when it is added to the reward with a coefficient: an optimum, and beta as that has it.
OPTIMA = {"k2": (rz.REVERSE_KL, 1.0), "k3": (rz.FORWARD_KL, 1.0), "k3 turned": (rz.CHI2, 0.5)}


@dataclass(frozen=True)
class Config:
    """A reference and a reward over a few answers, coefficients of the penalty, and a rare answer."""

    num_outcomes: int = bounded(10, at_least=3, at_most=200)
    """Answers."""
    num_policies: int = bounded(8, at_least=3, at_most=1000)
    """Random policies at which gradients are compared."""
    num_betas: int = bounded(25, at_least=3, at_most=1000)
    """Coefficients on the closed forms."""
    betas: tuple[float, ...] = bounded((0.1, 0.2, 0.5, 1.0, 2.0), at_least=0.05, at_most=10, min_length=1)
    """Coefficients that trainings have."""
    num_steps: int = bounded(4000, at_least=100, at_most=1_000_000)
    """Natural gradient steps of a training."""
    likely: float = bounded(0.01, above=0, below=1)
    """Probability that the policy gives a rare token."""
    rare: float = bounded(1e-4, above=0, below=1)
    """Probability that the reference gives it."""
    seed: int = bounded(3, at_least=0)
    """Of reference, reward and policies."""

    @classmethod
    def quick(cls) -> "Config":
        """Fewer coefficients and steps."""
        return cls(num_betas=11, betas=(0.5, 2.0), num_steps=1000)


class Results(NamedTuple):
    """Gradients, ends of trainings, and noise."""

    gradients: dict[str, dict[str, Float[Array, "policies outcomes"]]]  # [placement][estimator]
    known: dict[str, Float[Array, "policies outcomes"]]
    ends: dict[str, Float[Array, "betas outcomes"]]  # log-policies at which trainings with a loss end
    optima: dict[str, Float[Array, "betas outcomes"]]
    trained: dict[str, Float[Array, " betas"]]  # KL(policy || ref) of the ends
    betas: Float[Array, " line"]
    curves: dict[str, Float[Array, " line"]]  # that of the optima
    unpenalised: Float[Array, ""]  # that of the best answer alone
    drift: Float[Array, " policies"]  # of the policies that are tilted away
    noise: dict[str, dict[str, Float[Array, " policies"]]]  # of one sample's gradient
    ratio: Float[Array, " ratios"]  # policy / ref of a sampled answer, up to that of the rare token
    weights: dict[str, Float[Array, " ratios"]]  # on its score, as a loss

    def cosine(self, placement: str, estimator: str, name: str) -> float:
        """The cosine of a placement's gradient with that of a known objective, the least over the policies."""
        a, b = np.asarray(self.gradients[placement][estimator]), np.asarray(self.known[name])
        return float(np.min((a * b).sum(-1) / (np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1))))

    def size(self, placement: str, estimator: str) -> float:
        """The largest gradient over the policies."""
        return float(np.linalg.norm(self.gradients[placement][estimator], axis=-1).max())

    def rare(self, estimator: str) -> float:
        """The weight on the score of the rare token."""
        return float(self.weights[estimator][-1])

    def apart(self, estimator: str, optimum: str) -> float:
        """The largest difference in probability between where trainings with a loss end, and an optimum."""
        return float(np.abs(np.exp(self.ends[estimator]) - np.exp(self.optima[optimum])).max())


@checked_run
def run(config: Config) -> Results:
    """Gradients at random policies, flows to their ends, and noise along a tilt."""
    sizes = config.num_outcomes, config.num_policies, config.num_betas, config.num_steps
    log_ratio = np.log(config.likely / config.rare)
    found: Results = everything(jax.random.key(config.seed), jnp.array(config.betas), log_ratio, sizes)
    return found


@partial(jax.jit, static_argnames="sizes")
def everything(
    key: Key[Array, ""], betas: Float[Array, " betas"], rare: Float[Array, ""], sizes: tuple[int, int, int, int]
) -> Results:
    """All of it in one program; `rare` is the log-ratio of the rare token."""
    num_outcomes, num_policies, num_betas, num_steps = sizes
    keys = jax.random.split(key, 3)
    log_ref, log_old = jax.nn.log_softmax(jax.random.normal(keys[0], (2, num_outcomes)))
    reward = jax.random.uniform(keys[1], (num_outcomes,))
    policies = jax.nn.log_softmax(jax.random.normal(keys[2], (num_policies, num_outcomes)))
    along, line = rz.tilt(log_ref, reward, jnp.geomspace(10.0, 0.05, num_betas)), jnp.geomspace(0.05, 10.0, num_betas)

    def gradients(placement: str) -> dict[str, Float[Array, "policies outcomes"]]:
        behavior = None if placement in OWN else log_old
        data = log_ref, log_old
        return of_each(
            ESTIMATORS,
            lambda k: slopes(rz.expected_loss(PLACEMENTS[placement](k), *data, behavior=behavior), policies),
        )

    def noises(placement: str) -> dict[str, Float[Array, " policies"]]:
        return of_each(ESTIMATORS, lambda k: noise(PLACEMENTS[placement](k), along, log_ref))

    def end(name: str) -> Float[Array, "betas outcomes"]:
        penalty = rz.expected_loss(lambda x, ref: ESTIMATORS[name](x, ref).mean(), log_ref)
        return trained(penalty, log_ref, reward, betas, num_steps)

    ends = {name: end(name) for name in OPTIMA}
    optima = {name: optimum(name, log_ref, reward, jnp.concatenate([betas, line])) for name in OPTIMA}
    log_ratio = jnp.linspace(-rare, rare, 201)
    return Results(
        gradients={placement: gradients(placement) for placement in PLACEMENTS},
        known={name: slopes(of, policies) for name, of in rz.known_objectives(log_ref).items()},
        ends=ends,
        optima={name: found[: len(betas)] for name, found in optima.items()},
        trained={name: rz.kl_divergence(log_policy, log_ref[None]) for name, log_policy in ends.items()},
        betas=line,
        curves={name: rz.kl_divergence(found[len(betas) :], log_ref[None]) for name, found in optima.items()},
        unpenalised=-log_ref[reward.argmax()],
        drift=rz.kl_divergence(along, log_ref[None]),
        noise={placement: noises(placement) for placement in OWN},
        ratio=jnp.exp(log_ratio),
        weights=of_each(ESTIMATORS, lambda k: weight(k, log_ratio)),
    )


def weight(estimator: Any, log_ratio: Float[Array, " ratios"]) -> Float[Array, " ratios"]:
    """What multiplies the score of a sample in the gradient of an estimator as a loss."""
    gradient: Float[Array, " ratios"] = jax.grad(lambda x: estimator(x, jnp.zeros_like(x)).sum())(log_ratio)
    return gradient


def slopes(objective: Any, policies: Float[Array, "policies outcomes"]) -> Float[Array, "policies outcomes"]:
    """Gradients in the logits."""
    gradient = jax.vmap(jax.grad(lambda logits: objective(jax.nn.log_softmax(logits))))
    found: Float[Array, "policies outcomes"] = gradient(policies)
    return found


def trained(
    penalty: Any,
    log_ref: Float[Array, " outcomes"],
    reward: Float[Array, " outcomes"],
    betas: Float[Array, " betas"],
    num_steps: int,
) -> Float[Array, "betas outcomes"]:
    """Where natural gradient steps on -E[reward] + beta penalty lead from the reference.

    A gradient g in the logits sums to zero, so the natural one is g / policy, up to a shift of all logits.
    """

    def end(beta: Float[Array, ""]) -> Float[Array, " outcomes"]:
        def loss(logits: Float[Array, " outcomes"]) -> Float[Array, ""]:
            log_policy = jax.nn.log_softmax(logits)
            penalized: Float[Array, ""] = beta * penalty(log_policy) - rz.expected_reward(log_policy, reward)
            return penalized

        def step(log_policy: Float[Array, " outcomes"], _: None) -> tuple[Float[Array, " outcomes"], None]:
            return jax.nn.log_softmax(log_policy - RATE * jax.grad(loss)(log_policy) / jnp.exp(log_policy)), None

        last: Float[Array, " outcomes"] = jax.lax.scan(step, log_ref, None, num_steps)[0]
        return last

    found: Float[Array, "betas outcomes"] = jax.vmap(end)(betas)
    return found


def optimum(
    name: str, log_ref: Float[Array, " outcomes"], reward: Float[Array, " outcomes"], betas: Float[Array, " betas"]
) -> Float[Array, "betas outcomes"]:
    """The closed form of the end of a training with a loss."""
    divergence, part = OPTIMA[name]
    return rz.regularized_optimum(log_ref[None], reward[None], part * betas, divergence=divergence)


def noise(
    loss: Loss, policies: Float[Array, "policies outcomes"], log_ref: Float[Array, " outcomes"]
) -> Float[Array, " policies"]:
    """The root mean squared distance of one sample's gradient from the mean."""

    def of(log_policy: Float[Array, " outcomes"]) -> Float[Array, ""]:
        return jnp.trace(rz.gradient_moments(loss, log_policy, log_ref, log_ref).covariance)

    traces: Float[Array, " policies"] = jax.vmap(of)(policies)
    return jnp.sqrt(traces)
