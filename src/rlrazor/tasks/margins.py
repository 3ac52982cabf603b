"""Annotators who say which of two answers is better and how clearly, and the reward that is fitted to what they say.

They prefer y to y' with probability σ(reward(y) - reward(y')), and call the preference the clearer the larger the true
gap is: its level is the number of edges below |gap|. A margin table gives every level its margin.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key

from rlrazor._numerics import log_wright_omega
from rlrazor.objectives import PreferencePairs, bradley_terry_loss
from rlrazor.training import newton_minimum, train_at

Number = float | Float[Array, ""]
Reward = Float[Array, " outcomes"]


def margins_of(
    pairs: PreferencePairs, reward: Reward, edges: Float[Array, " edges"], table: Float[Array, " levels"]
) -> Float[Array, " pairs"]:
    """The margin of every pair, by how clear its preference is.

    Args:
        pairs: of outcomes.
        reward: of the annotators, `[outcomes]`.
        edges: of |gap| between the levels, increasing, `[levels - 1]`.
        table: margin of each level, `[levels]`.

    Returns:
        Margins, `[pairs]`.

    Example:
        >>> import jax.numpy as jnp
        >>> from rlrazor import bradley_terry_pairs
        >>> reward = jnp.array([0.0, 3.0])
        >>> pairs = bradley_terry_pairs(jnp.log(jnp.array([0.5, 0.5])), reward)
        >>> margins_of(pairs, reward, jnp.array([1.0]), jnp.array([0.0, 0.5])).tolist()
        [0.5, 0.5]
    """
    gap = jnp.abs(reward[pairs.chosen] - reward[pairs.rejected])
    return table[jnp.searchsorted(edges, gap)]


def fitted_reward(pairs: PreferencePairs, margins: Float[Array, " pairs"], num_outcomes: int) -> Reward:
    """The reward of least Bradley-Terry loss with margins, by Newton's method; its mean is zero.

    Args:
        pairs: of outcomes, with their weights.
        margins: `[pairs]`.
        num_outcomes: static.

    Returns:
        Reward, `[outcomes]`.

    Example:
        >>> import jax.numpy as jnp
        >>> from rlrazor import bradley_terry_pairs
        >>> pairs = bradley_terry_pairs(jnp.log(jnp.array([0.2, 0.5, 0.3])), jnp.array([1.0, 0.0, -1.0]))
        >>> print(*(f"{r:.4f}" for r in fitted_reward(pairs, jnp.zeros(6), 3)[::2]))
        1.0000 -1.0000
    """

    def loss(reward: Reward) -> Float[Array, ""]:
        return bradley_terry_loss(reward[pairs.chosen], reward[pairs.rejected], margins, pairs.weights)

    return newton_minimum(loss, jnp.zeros(num_outcomes), num_steps=60)


def labelled(pairs: PreferencePairs, num_labels: int, key: Key[Array, ""]) -> PreferencePairs:
    """What annotators said of finitely many pairs: the weights are shares of labels.

    Args:
        pairs: what they would say of all, in the mean.
        num_labels: static.
        key: randomness.

    Returns:
        The `PreferencePairs`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from rlrazor import bradley_terry_pairs
        >>> pairs = bradley_terry_pairs(jnp.log(jnp.array([0.5, 0.5])), jnp.zeros(2))
        >>> float(labelled(pairs, 10, jax.random.key(0)).weights.sum())
        1.0
    """
    drawn = jax.random.categorical(key, jnp.log(pairs.weights), shape=(num_labels,))
    counts = jnp.zeros(pairs.weights.shape[-1:]).at[drawn].add(1.0)
    return pairs._replace(weights=counts / num_labels)


def separable_path(
    num_answers: int, margin: Number, centering: Number, rate: Number, steps: Int[Array, " steps"]
) -> Float[Array, " steps"]:
    """The fitted gap of the best answer over the worst, where annotators always agree, along gradient descent.

    The loss is bradley_terry_loss + centering mean((reward(y+) + reward(y-))²), the centring of TRL's
    `center_rewards_coefficient`. It holds sums, not gaps: on a single pair the gap goes on as if it were not there.

    Args:
        num_answers: ranked answers, of which all pairs are compared, static.
        margin: of every pair.
        centering: its coefficient.
        rate: learning rate, of each pair's loss.
        steps: numbers of updates after which to record, increasing, `[steps]`.

    Returns:
        Gap in nats, `[steps]`.

    Example:
        >>> import jax.numpy as jnp
        >>> gap = separable_path(2, 0.0, 0.0, 0.1, jnp.array([0, 100, 10_000]))
        >>> print(*(f"{x:.2f}" for x in gap))
        0.00 2.91 7.60
    """
    better, worse = np.triu_indices(num_answers, 1)

    def loss(reward: Reward) -> Float[Array, ""]:
        chosen, rejected = reward[better], reward[worse]
        centered = centering * jnp.square(chosen + rejected).mean()
        return len(better) * (bradley_terry_loss(chosen, rejected, jnp.full_like(chosen, margin)) + centered)

    def gradient(reward: Any, key: Any, step: Any) -> Any:
        return jax.grad(loss)(reward)

    path = train_at(gradient, jnp.zeros(num_answers), optax.sgd(rate), jax.random.key(0), steps)
    gap: Float[Array, " steps"] = path[:, 0] - path[:, -1]
    return gap


def separable_gap(margin: Number, time: Float[Array, " times"]) -> Float[Array, " times"]:
    """The fitted gap of a single pair on which annotators always agree: Δ = m + log ω(2 t + e^-m - m).

    Gradient flow of -log σ(Δ - m) on both rewards from zero has e^(Δ - m) + Δ - m = 2 t + e^-m - m, and ω is Wright's:
    the gap grows without bound, like m + log 2 t.

    Args:
        margin: m.
        time: t, rate times steps, `[times]`.

    Returns:
        Δ in nats, `[times]`.

    Example:
        >>> import jax.numpy as jnp
        >>> print(*(f"{x:.2f}" for x in separable_gap(0.0, jnp.array([0.0, 10.0, 1000.0]))))
        0.00 2.90 7.60
    """
    m = jnp.asarray(margin, time.dtype)
    return m + log_wright_omega(2 * time + jnp.exp(-m) - m)
