"""A new task with a noisy reward and an old one that shares features with it, and every regulariser on one scale.

The world is that of `rlrazor.tasks.shared_features`, but for its rewards: on new prompts answers have a gold reward of
normal numbers, and what is trained on is a proxy, gold plus noise on some of the answers. On old prompts the base's
likeliest answer is right. A `Recipe` says how much of each term the loss has.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key

from rlrazor._numerics import normal, uniform
from rlrazor.divergences import entropy, kl_divergence
from rlrazor.objectives import bradley_terry_pairs, dpo_loss, expected_reward, sft_loss
from rlrazor.policies import linear_softmax_policy
from rlrazor.tasks import shared_features
from rlrazor.training import train_at

Number = float | Float[Array, ""]
Weights = Float[Array, "features outcomes"]
Rewards = Float[Array, "prompts outcomes"]


class World(NamedTuple):
    """Two tasks and two rewards.

    Attributes:
        inputs: of both tasks, and the base's weights.
        gold: what is wanted on new prompts, `[prompts, outcomes]`.
        proxy: what is rewarded, `[prompts, outcomes]`.
    """

    inputs: shared_features.World
    gold: Rewards
    proxy: Rewards


class Recipe(NamedTuple):
    """The coefficient of each term of a loss, a number; None is no such term, and costs nothing.

    Attributes:
        proxy: of -E[proxy] on new prompts.
        gold: of -E[gold], which only an oracle has.
        dpo: of the DPO loss on all pairs of the base's answers, preferences by the proxy.
        dpo_beta: DPO's beta.
        reverse_kl: of KL(policy || base) on new prompts, the KL penalty.
        forward_kl: of KL(base || policy) on new prompts.
        entropy: of -H(policy) on new prompts, the entropy bonus.
        nll: of the negative log-likelihood of chosen answers, the NLL anchor.
        pretraining: of the SFT loss on the base's answers to old prompts, pretraining gradients.
        replay: of the SFT loss on right answers to old prompts.
    """

    proxy: Any = None
    gold: Any = None
    dpo: Any = None
    dpo_beta: Any = 1.0
    reverse_kl: Any = None
    forward_kl: Any = None
    entropy: Any = None
    nll: Any = None
    pretraining: Any = None
    replay: Any = None


class Outcome(NamedTuple):
    """What a policy has learned and what it has kept.

    Attributes:
        gold: expected gold reward on new prompts, less the base's, `[...]`.
        proxy: expected proxy reward, less the base's, `[...]`.
        lost: KL(base || policy) on old prompts in nats, what the policy has forgotten of the base's answers, `[...]`.
        drift: KL(policy || base) on new prompts in nats, `[...]`.
    """

    gold: Float[Array, "..."]
    proxy: Float[Array, "..."]
    lost: Float[Array, "..."]
    drift: Float[Array, "..."]


def make_world(
    key: Key[Array, ""],
    overlap: Number,
    noise: Number,
    noisy: Number,
    *,
    num_prompts: int,
    num_features: int,
    num_outcomes: int,
) -> World:
    """A random world, whose base has weights of normal numbers.

    Args:
        key: randomness.
        overlap: of new with old inputs, in [0, 1].
        noise: standard deviation of the proxy's error where it has one; the gold reward's is 1.
        noisy: share of answers with an error.
        num_prompts: prompts of either task, static.
        num_features: features of the old inputs, and as many that only new ones use, static.
        num_outcomes: answers to a prompt, static.

    Returns:
        The `World`.

    Example:
        >>> import jax
        >>> sizes = dict(num_prompts=3, num_features=4, num_outcomes=5)
        >>> make_world(jax.random.key(0), 0.5, 1.0, 0.5, **sizes).proxy.shape
        (3, 5)
    """
    inputs_key, gold_key, noise_key, noisy_key = jax.random.split(key, 4)
    sizes: Any = {"num_prompts": num_prompts, "num_features": num_features, "num_outcomes": num_outcomes}
    inputs = shared_features.make_world(inputs_key, overlap, scale=1.0, teacher_scale=1.0, num_correct=1, **sizes)
    shape = num_prompts, num_outcomes
    gold = normal(gold_key, shape)
    error = jnp.where(uniform(noisy_key, shape) < noisy, noise * normal(noise_key, shape), 0.0)
    return World(inputs, gold, gold + error)


def policies(world: World, weights: Weights) -> tuple[Rewards, Rewards]:
    """The policy on new prompts and on old ones.

    Args:
        world: the world.
        weights: of the policy.

    Returns:
        Log-policies, `[prompts, outcomes]` each.

    Example:
        >>> import jax
        >>> world = make_world(jax.random.key(0), 0.5, 1.0, 0.5, num_prompts=3, num_features=4, num_outcomes=5)
        >>> [log_policy.shape for log_policy in policies(world, world.inputs.weights)]
        [(3, 5), (3, 5)]
    """
    return linear_softmax_policy(weights, world.inputs.new), linear_softmax_policy(weights, world.inputs.old)


def loss_of(recipe: Recipe, world: World, weights: Weights) -> Float[Array, ""]:
    """The loss of a recipe, the mean over prompts, divided by how curved it may be, so that no step overshoots.

    Args:
        recipe: the coefficients.
        world: the world.
        weights: of the policy.

    Returns:
        Loss, a scalar.

    Example:
        >>> import jax
        >>> world = make_world(jax.random.key(0), 0.5, 1.0, 0.5, num_prompts=3, num_features=4, num_outcomes=5)
        >>> print(f"{loss_of(Recipe(reverse_kl=1.0), world, world.inputs.weights):.1f}")
        0.0
    """
    (new, old), (new_base, old_base) = policies(world, weights), policies(world, world.inputs.weights)
    right = jnp.where(shared_features.right_answers(old_base), 0.0, -jnp.inf)
    pairs = bradley_terry_pairs(new_base, world.proxy)
    log_ratio = new - new_base
    sides = log_ratio[:, pairs.chosen], log_ratio[:, pairs.rejected]
    terms: dict[str, Callable[[], Float[Array, " prompts"]]] = {
        "proxy": lambda: -expected_reward(new, world.proxy),
        "gold": lambda: -expected_reward(new, world.gold),
        "dpo": lambda: dpo_loss(*sides, recipe.dpo_beta, pairs.weights),
        "reverse_kl": lambda: kl_divergence(new, new_base),
        "forward_kl": lambda: kl_divergence(new_base, new),
        "entropy": lambda: -entropy(new),
        "nll": lambda: -(pairs.weights * new[:, pairs.chosen]).sum(-1),
        "pretraining": lambda: sft_loss(old, old_base),
        "replay": lambda: sft_loss(old, right),
    }
    curvature = {"proxy": 0, "gold": 0, "dpo": recipe.dpo_beta**2}  # of others 1, as of a KL divergence
    given = {name: c for name, c in recipe._asdict().items() if name in terms and c is not None}
    total = sum((c * terms[name]().mean() for name, c in given.items()), jnp.zeros(()))
    scaled: Float[Array, ""] = total / (1 + sum(c * curvature.get(name, 1) for name, c in given.items()))
    return scaled


def outcome_of(world: World, weights: Weights) -> Outcome:
    """What a policy has learned and kept.

    Args:
        world: the world.
        weights: of the policy.

    Returns:
        The `Outcome`, of scalars.

    Example:
        >>> import jax
        >>> world = make_world(jax.random.key(0), 0.5, 1.0, 0.5, num_prompts=3, num_features=4, num_outcomes=5)
        >>> print(*(f"{x:.1f}" for x in outcome_of(world, world.inputs.weights)))
        0.0 0.0 0.0 0.0
    """
    (new, old), (new_base, old_base) = policies(world, weights), policies(world, world.inputs.weights)
    gold, proxy = (
        (expected_reward(new, reward) - expected_reward(new_base, reward)).mean()
        for reward in (world.gold, world.proxy)
    )
    lost, drift = kl_divergence(old_base, old).mean(), kl_divergence(new, new_base).mean()
    return Outcome(gold, proxy, lost, drift)


def fine_tune(world: World, recipe: Recipe, rate: Number, steps: Int[Array, " steps"]) -> Outcome:
    """Gradient descent on a recipe from the base.

    Args:
        world: the world.
        recipe: the coefficients.
        rate: learning rate.
        steps: numbers of updates after which to look, increasing, `[steps]`.

    Returns:
        The `Outcome`, leaves `[steps]`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> world = make_world(jax.random.key(0), 0.5, 1.0, 0.5, num_prompts=3, num_features=4, num_outcomes=5)
        >>> found = fine_tune(world, Recipe(proxy=1.0), 1.0, jnp.array([0, 100]))
        >>> bool(found.proxy[1] > 0.5)
        True
    """

    def gradient(weights: Any, key: Any, step: Any) -> Any:
        return jax.grad(lambda w: loss_of(recipe, world, w))(weights)

    def record(weights: Any) -> Outcome:
        return outcome_of(world, weights)

    start, never = world.inputs.weights, jax.random.key(0)
    path: Outcome = train_at(gradient, start, optax.sgd(rate), never, steps, record=record)
    return path
