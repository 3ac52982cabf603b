"""One prompt, answers that share features, and DPO with an NLL anchor on one pair: does the chosen answer lose?

logits = bias + U h. Which of the three is trained is a matter of learning rates: the bias alone is a softmax table,
h alone is a network with a frozen head, h and U a network with a free one. Answer 0 is chosen and answer 1 rejected,
and the policy starts at its reference. In continuous time log policy moves by the kernel of the logits,
K = rate_bias 1 + rate_h U Uᵀ + rate_U |h|² 1, as `rlrazor.displacement` says.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key

from rlrazor._numerics import normal
from rlrazor.objectives import Displacement, displacement, dpo_nll_loss
from rlrazor.policies import softmax_policy
from rlrazor.training import train_at

CHOSEN, REJECTED = 0, 1
Number = float | Float[Array, ""]


class Params(NamedTuple):
    """Parameters of the policy, or a learning rate for each.

    Attributes:
        bias: of every answer, `[outcomes]`.
        hidden: h, the features of the prompt, `[features]`.
        features: U, those of the answers, `[outcomes, features]`.
    """

    bias: Any
    hidden: Any
    features: Any


TABLE, FROZEN_HEAD, FREE_HEAD = Params(1.0, 0.0, 0.0), Params(0.0, 1.0, 0.0), Params(0.0, 1.0, 1.0)


class Path(NamedTuple):
    """A training on one pair.

    Attributes:
        params: along the path, leaves `[steps, ...]`.
        log_policy: there, `[steps, outcomes]`.
        push: -∂loss / ∂gap of DPO, beta σ(-beta gap), `[steps]`.
        rates: of the chosen answer's log-probability under either loss, `[steps]`.
    """

    params: Params
    log_policy: Float[Array, "steps outcomes"]
    push: Float[Array, " steps"]
    rates: Displacement


def random_params(key: Key[Array, ""], num_outcomes: int, num_features: int, scale: Number) -> Params:
    """Features of normal numbers: answers of squared length one in the mean, h so that logits have a deviation `scale`.

    Args:
        key: randomness.
        num_outcomes: answers, static.
        num_features: static.
        scale: standard deviation of the logits.

    Returns:
        The `Params`, with a bias of zero.

    Example:
        >>> import jax
        >>> random_params(jax.random.key(0), 5, 3, 1.0).features.shape
        (5, 3)
    """
    hidden_key, features_key = jax.random.split(key)
    features = normal(features_key, (num_outcomes, num_features)) / jnp.sqrt(float(num_features))
    return Params(jnp.zeros(num_outcomes), scale * jax.random.normal(hidden_key, (num_features,)), features)


def policy_of(params: Params) -> Float[Array, " outcomes"]:
    """The policy softmax(bias + U h).

    Args:
        params: the parameters.

    Returns:
        Log-probabilities, `[outcomes]`.

    Example:
        >>> import jax.numpy as jnp
        >>> jnp.exp(policy_of(Params(jnp.zeros(2), jnp.ones(3), jnp.zeros((2, 3))))).tolist()
        [0.5, 0.5]
    """
    return softmax_policy(params.bias + params.features @ params.hidden)


def rates_of(params: Params, rates: Params) -> Displacement:
    """How fast the chosen answer's log-probability moves under either loss.

    Args:
        params: the parameters.
        rates: learning rate of each.

    Returns:
        The `Displacement`.

    Example:
        >>> import jax
        >>> params = random_params(jax.random.key(0), 5, 3, 1.0)
        >>> bool(rates_of(params, TABLE).preference > 0)
        True
    """
    gram, one = params.features @ params.features.T, jnp.eye(len(params.bias))
    kernel = rates.hidden * gram + (rates.bias + rates.features * (params.hidden @ params.hidden)) * one
    return displacement(policy_of(params), kernel, CHOSEN, REJECTED)


def pair_loss(params: Params, log_ref: Float[Array, " outcomes"], beta: Number, alpha: Number) -> Float[Array, ""]:
    """DPO with an NLL anchor on the pair, whose answers have one token.

    Args:
        params: the parameters.
        log_ref: reference, `[outcomes]`.
        beta: KL coefficient of DPO.
        alpha: weight of the NLL term.

    Returns:
        Loss, a scalar.

    Example:
        >>> import jax
        >>> params = random_params(jax.random.key(0), 5, 3, 1.0)
        >>> print(f"{pair_loss(params, policy_of(params), 1.0, 0.0):.4f}")
        0.6931
    """
    log_policy = policy_of(params)
    ratio = log_policy - log_ref
    chosen, rejected = slice(CHOSEN, CHOSEN + 1), slice(REJECTED, REJECTED + 1)
    return dpo_nll_loss(ratio[chosen], ratio[rejected], log_policy[chosen], jnp.ones(1), beta, alpha)


def fine_tune(
    params: Params, rates: Params, beta: Number, alpha: Number, rate: Number, steps: Int[Array, " steps"]
) -> Path:
    """Gradient descent on the pair from the reference.

    Args:
        params: of the reference.
        rates: learning rate of each parameter, in units of `rate`.
        beta: KL coefficient of DPO.
        alpha: weight of the NLL term.
        rate: learning rate.
        steps: numbers of updates after which to record, increasing, `[steps]`.

    Returns:
        The `Path`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> params = random_params(jax.random.key(0), 5, 3, 1.0)
        >>> path = fine_tune(params, TABLE, 1.0, 0.0, 0.1, jnp.array([0, 100]))
        >>> bool(path.log_policy[1, CHOSEN] > path.log_policy[0, CHOSEN])
        True
    """
    log_ref = policy_of(params)

    def gradient(current: Params, key: Any, step: Any) -> Params:
        slope = jax.grad(pair_loss)(current, log_ref, beta, alpha)
        scaled: Params = jax.tree.map(lambda speed, x: speed * x, rates, slope)
        return scaled

    path = train_at(gradient, params, optax.sgd(rate), jax.random.key(0), steps)
    log_policy = jax.vmap(policy_of)(path)
    log_ratio = log_policy - log_ref[None]
    push = beta * jax.nn.sigmoid(-beta * (log_ratio[:, CHOSEN] - log_ratio[:, REJECTED]))
    return Path(path, log_policy, push, jax.vmap(lambda row: rates_of(row, rates))(path))


def measured_rate(
    params: Params, log_ref: Float[Array, " outcomes"], rates: Params, beta: Number, alpha: Number, step: Number
) -> Float[Array, ""]:
    """How fast the chosen answer's log-probability moves in a small step of gradient descent, by central differences.

    Args:
        params: where the step starts.
        log_ref: reference, `[outcomes]`.
        rates: learning rate of each parameter.
        beta: KL coefficient of DPO.
        alpha: weight of the NLL term.
        step: size of the step.

    Returns:
        Nats a unit of time, a scalar.

    Example:
        >>> import jax
        >>> params = random_params(jax.random.key(0), 5, 3, 1.0)
        >>> found = measured_rate(params, policy_of(params), TABLE, 1.0, 0.0, 1e-5)
        >>> print(f"{found / (0.5 * rates_of(params, TABLE).preference):.6f}")
        1.000000
    """
    slope = jax.grad(pair_loss)(params, log_ref, beta, alpha)

    def after(size: Number) -> Float[Array, ""]:
        moved = jax.tree.map(lambda x, speed, g: x - size * speed * g, params, rates, slope)
        return policy_of(moved)[CHOSEN]

    return (after(step) - after(-step)) / (2 * step)
