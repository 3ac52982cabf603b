"""Reference and reward to optimal policy, and back.

The KL-regularised objective E_pi[r] - beta KL(pi || ref) has the exact optimum pi* = ref exp(r/beta) / Z. Everything
here is that one map, its inverse, its limits and the curve it traces. Conventions and errors as in
`rlrazor.divergences`; a reward of `-inf` forbids an outcome. A beta next to the ends of its dtype is at its limit: it
counts as 0 below the smallest normal number, and as inf above the reciprocal of that (in float32, 1.2e-38 and 8.5e37).
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from rlrazor._numerics import (
    ascending,
    bregman,
    expectation,
    gap_to_top,
    increasing_root,
    log_cumulative_sum,
    log_normalize,
    log_sum,
    reciprocal,
    with_derivatives_of,
)
from rlrazor._types import LogProbs, Number, Numbers, Outcomes, PerRow, Policy, Rewards, Scalar
from rlrazor.checks import boolean_array, floating_array, nonnegative, outcome_arrays
from rlrazor.divergences import cross_entropy, kl_divergence

# Up to here log ref + reward / beta is rounded by no more than log ref itself is, which ranges over some nats.
_FEW_NATS = 16.0
Solved = tuple[Float[Array, " outcomes"], Scalar, Scalar, Scalar, Bool[Array, ""]]


class Tilt(NamedTuple):
    """A tilted reference, and where it lies on the reward-KL frontier.

    Attributes:
        log_policy: ref exp(reward / beta) / Z, `[..., outcomes]`.
        beta: the KL coefficient, `[...]`, in [0, inf].
        reward: E_policy[reward], `[...]`.
        kl: KL(policy || ref) in nats, `[...]`.
        converged: whether the requested value was attainable and was met, `[...]`.
    """

    log_policy: Float[Array, "..."]
    beta: Float[Array, "..."]
    reward: Float[Array, "..."]
    kl: Float[Array, "..."]
    converged: Bool[Array, "..."]


class Frontier(NamedTuple):
    """The reward-KL frontier sampled at several beta.

    Attributes:
        beta: the KL coefficients, `[betas]`.
        reward: E_pi[reward] of the optimum at each, `[..., betas]`.
        kl: KL(pi || ref) in nats, `[..., betas]`: the least KL at that reward.
        forward_kl: KL(ref || pi) in nats, `[..., betas]`.
    """

    beta: Float[Array, " betas"]
    reward: Float[Array, "..."]
    kl: Float[Array, "..."]
    forward_kl: Float[Array, "..."]


def log_partition(log_ref: LogProbs, reward: Rewards, beta: Number) -> PerRow:
    """Log-partition function log Z = log Σ ref exp(reward / beta).

    beta log Z is the best attainable value of E_pi[reward] - beta KL(pi || ref). While no reward lies more than
    beta from the mean it is computed as E_ref[x] + log(1 + E_ref[e^y - 1 - y]), where x = reward / beta and
    y = x - E_ref[x], so that beta log Z stays accurate as beta -> inf. Elsewhere it is a sum relative to the best
    reward, or the textbook's where no reward of the batch is large.

    Args:
        log_ref: reference policy, `[..., outcomes]`.
        reward: `[..., outcomes]`, `-inf` allowed.
        beta: KL coefficient in [0, inf], a number or `[...]`.

    Returns:
        log Z in nats, `[...]`; `-inf` where every possible outcome is forbidden. At beta = 0 it is infinite with the
        sign of the best reward, or the log mass of the best outcomes if their reward is 0.

    Raises:
        ValueError: a negative or NaN Python `beta`.

    Example:
        >>> import jax.numpy as jnp
        >>> print(f"{log_partition(jnp.log(jnp.array([0.5, 0.5])), jnp.array([0.0, 1.0]), beta=1.0):.4f}")
        0.6201

    References:
        Donsker, Varadhan, "Asymptotic Evaluation of Certain Markov Process Expectations", 1975; Korbak et al.,
        "RL with KL Penalties is Better Viewed as Bayesian Inference", arXiv:2205.11275.
    """
    log_ref, reward, beta = outcome_arrays({"beta": nonnegative("beta", beta)}, log_ref=log_ref, reward=reward)
    log_z: PerRow = _log_partition(log_ref, reward, beta)[..., 0]
    return log_z


def _log_partition_exact(log_ref: Outcomes, reward: Outcomes, beta: Numbers) -> Numbers:
    """For any reward and beta, `[..., 1]`."""
    gentle, deviation, mean = _around(log_ref, reward, beta)
    weak = _weak(log_ref, deviation, mean, beta, gentle)
    return jnp.where(gentle, weak, _strong(log_ref, reward, mean, beta, gentle))


def _log_partition_frugal(log_ref: Outcomes, reward: Outcomes, beta: Numbers) -> Numbers:
    """The same, where neither form is computed, or has memory, unless a row needs it."""
    gentle, deviation, mean = _around(log_ref, reward, beta)
    weak = jax.lax.cond(jnp.any(gentle), _weak, _none, log_ref, deviation, mean, beta, gentle)
    strong = jax.lax.cond(jnp.any(~gentle), _strong, _none, log_ref, reward, mean, beta, gentle)
    return jnp.where(gentle, weak, strong)


def _around(log_ref: Outcomes, reward: Outcomes, beta: Numbers) -> tuple[Bool[Array, "..."], Outcomes, Numbers]:
    """(No possible reward of the row is beta away from the mean, how far each is, the mean): what both forms share."""
    possible = log_ref != -jnp.inf
    finite = jnp.all(~possible | jnp.isfinite(reward), axis=-1, keepdims=True)
    allowed = jnp.where(possible & finite, reward, 0.0)
    mean = expectation(log_ref, allowed)[..., None]
    deviation = jnp.where(possible & finite, allowed - mean, 0.0)
    return finite & jnp.all(jnp.abs(deviation) < beta, axis=-1, keepdims=True), deviation, mean


def _weak(log_ref: Outcomes, deviation: Outcomes, mean: Numbers, beta: Numbers, gentle: Bool[Array, "..."]) -> Numbers:
    beta = jnp.where(gentle, beta, 1.0)
    return _around_the_mean(log_ref, mean / beta, jnp.where(gentle, deviation, 0.0) / beta)


def _strong(log_ref: Outcomes, reward: Outcomes, mean: Numbers, beta: Numbers, gentle: Bool[Array, "..."]) -> Numbers:
    log_weights, top = _tilted_weights(log_ref, reward, reciprocal(beta))
    return top / jnp.where(gentle | (top == 0), 1.0, beta) + log_sum(log_weights)[..., None]


def _none(log_ref: Outcomes, x: Outcomes, mean: Numbers, beta: Numbers, gentle: Bool[Array, "..."]) -> Numbers:
    return jnp.zeros_like(mean / beta)


def _log_partition_gentle(log_ref: Outcomes, reward: Outcomes, beta: Numbers) -> Numbers:
    """While no reward lies more than beta from another."""
    mean = (jnp.exp(log_ref) * reward).sum(-1, keepdims=True)
    return _around_the_mean(log_ref, mean / beta, reciprocal(beta) * (reward - mean))


def _around_the_mean(log_ref: Outcomes, mean: Numbers, y: Outcomes) -> Numbers:
    """The sum mean + log(1 + E_ref[e^y - 1 - y]), with y the deviation from the mean."""
    return mean + jnp.log1p(bregman(jnp.exp(log_ref), jnp.exp(log_ref + y), y).sum(-1, keepdims=True))


def _log_partition_plain(log_ref: Outcomes, reward: Outcomes, beta: Numbers) -> Numbers:
    return jax.nn.logsumexp(log_ref + reciprocal(beta) * reward, axis=-1, keepdims=True)


@with_derivatives_of(_log_partition_exact)
def _log_partition(log_ref: Outcomes, reward: Outcomes, beta: Numbers) -> Numbers:
    """The exact form, or a shorter one that is as exact for all rows: the textbook's unless one is gentle."""
    lowest, highest = (find(reward, axis=-1, keepdims=True) for find in (jnp.min, jnp.max))
    possible = jnp.min(log_ref) != -jnp.inf
    steep, gentle = (jnp.all(found) for found in (highest - lowest >= 2 * beta, highest - lowest < beta))
    plain = steep & jnp.all(jnp.maximum(-lowest, highest) * reciprocal(beta) <= _FEW_NATS)
    forms = _log_partition_frugal, _log_partition_gentle, _log_partition_plain
    which = jnp.where(possible & plain, 2, jnp.where(possible & gentle, 1, 0))
    log_z: Numbers = jax.lax.switch(which, forms, log_ref, reward, beta)
    return log_z


def tilt(log_ref: LogProbs, reward: Rewards, beta: Number) -> Policy:
    """The optimal policy pi* = ref exp(reward / beta) / Z of E_pi[reward] - beta KL(pi || ref).

    The limits are exact: beta = 0 is the reference conditioned on its best outcomes (ties split as ref), beta = inf
    the reference conditioned on the allowed ones.

    Args:
        log_ref: reference policy, `[..., outcomes]`.
        reward: `[..., outcomes]`, `-inf` forbids an outcome.
        beta: KL coefficient in [0, inf], a number or `[...]`.

    Returns:
        Normalised log-probabilities, `[..., outcomes]`; `-inf` throughout where every possible outcome is forbidden.

    Raises:
        ValueError: a negative or NaN Python `beta`.

    Example:
        >>> import jax.numpy as jnp
        >>> log_ref = jnp.log(jnp.array([0.2, 0.3, 0.5]))
        >>> print(*(f"{p:.4f}" for p in jnp.exp(tilt(log_ref, jnp.array([1.0, 1.0, 0.0]), beta=0.0))))
        0.4000 0.6000 0.0000

    References:
        Rafailov et al., "Direct Preference Optimization", arXiv:2305.18290, eq. 4; Chen et al., "Retaining by
        Doing", arXiv:2510.18874.
    """
    log_ref, reward, beta = outcome_arrays({"beta": nonnegative("beta", beta)}, log_ref=log_ref, reward=reward)
    return _tilt(log_ref, reward, reciprocal(beta))


def exponential_tilt(log_ref: LogProbs, reward: Rewards, strength: Float[Array, "*#batch #outcomes"]) -> Policy:
    """The tilt ref exp(strength reward) / Z in terms of the strength 1 / beta, for arrays of one rank.

    Args:
        log_ref: reference policy, `[..., outcomes]`.
        reward: `[..., outcomes]`, `-inf` forbids an outcome.
        strength: in [0, inf], `[..., 1]`.

    Returns:
        Normalised log-probabilities, `[..., outcomes]`.

    Example:
        >>> import jax.numpy as jnp
        >>> log_policy = exponential_tilt(jnp.log(jnp.array([0.5, 0.5])), jnp.array([0.0, 1.0]), jnp.array([3.0]))
        >>> print(f"{log_policy[1] - log_policy[0]:.4f}")
        3.0000
    """
    return log_normalize(_tilted_weights(log_ref, reward, strength)[0])


def _tilt_plain(log_ref: Outcomes, reward: Outcomes, strength: Numbers) -> Policy:
    return jax.nn.log_softmax(log_ref + strength * reward)


@with_derivatives_of(exponential_tilt)
def _tilt(log_ref: Outcomes, reward: Outcomes, strength: Numbers) -> Policy:
    """The exact form, or the textbook's where it is as exact for all rows."""
    possible = jnp.all(jnp.max(log_ref, axis=-1) != -jnp.inf)
    plain = possible & jnp.all(strength * jnp.max(jnp.abs(reward), axis=-1, keepdims=True) <= _FEW_NATS)
    policy: Policy = jax.lax.cond(plain, _tilt_plain, exponential_tilt, log_ref, reward, strength)
    return policy


def _tilted_weights(
    log_ref: Float[Array, "*#batch outcomes"],
    reward: Float[Array, "*#batch outcomes"],
    strength: Float[Array, "*#batch 1"],
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """(log(ref exp(strength (reward - top))), top), with top the best possible reward; strength may be inf."""
    support = (log_ref != -jnp.inf) & (reward != -jnp.inf)
    top, gap = gap_to_top(reward, support)
    endless = jnp.isinf(strength)
    cost = jnp.where(endless, jnp.where(gap > 0, jnp.inf, 0.0), jnp.where(endless, 0.0, strength) * gap)
    return jnp.where(support, jnp.where(support, log_ref, 0.0) - cost, -jnp.inf), top


def implied_reward(log_policy: LogProbs, log_ref: LogProbs, beta: Number) -> Rewards:
    """The reward beta log(policy / ref) whose tilt of the reference is the policy; its partition function is 1.

    It inverts `tilt` up to a constant: implied_reward(tilt(ref, r, beta), ref, beta) = r - beta log Z.

    Args:
        log_policy: policy, `[..., outcomes]`.
        log_ref: reference policy, `[..., outcomes]`.
        beta: KL coefficient in (0, inf), a number or `[...]`.

    Returns:
        Reward, `[..., outcomes]`: `-inf` where the policy is 0 and `+inf` where only the reference is, since no
        finite reward brings an impossible outcome back.

    Raises:
        ValueError: a negative or NaN Python `beta`.

    Example:
        >>> import jax.numpy as jnp
        >>> log_ref = jnp.log(jnp.array([0.5, 0.5]))
        >>> reward = implied_reward(tilt(log_ref, jnp.array([0.0, 3.0]), beta=2.0), log_ref, beta=2.0)
        >>> print(f"{reward[1] - reward[0]:.4f}")
        3.0000

    References:
        Rafailov et al., "Direct Preference Optimization", arXiv:2305.18290, eq. 5.
    """
    log_policy, log_ref, beta = outcome_arrays(
        {"beta": nonnegative("beta", beta)}, log_policy=log_policy, log_ref=log_ref
    )
    forbidden, unreachable = log_policy == -jnp.inf, log_ref == -jnp.inf
    log_ratio = jnp.where(forbidden, 0.0, log_policy) - jnp.where(unreachable, 0.0, log_ref)
    reward = jnp.where(unreachable, jnp.inf, beta * log_ratio)
    return jnp.where(forbidden, -jnp.inf, reward)


def condition(log_ref: LogProbs, accept: Bool[Array, "*#batch outcomes"]) -> Policy:
    """The reference conditioned on success, ref(y | S) = ref(y) 1[y in S] / ref(S).

    It is the I-projection of the reference on the policies that always succeed: KL(ref(.|S) || ref) = -log ref(S) is
    the least KL(pi || ref) among them.

    Args:
        log_ref: reference policy, `[..., outcomes]`.
        accept: the success set S, boolean, `[..., outcomes]`.

    Returns:
        Normalised log-probabilities, `[..., outcomes]`; `-inf` throughout where ref(S) = 0.

    Raises:
        TypeError: `accept` is not boolean, or `log_ref` is not floating.

    Example:
        >>> import jax.numpy as jnp
        >>> log_ref = jnp.log(jnp.array([0.2, 0.3, 0.5]))
        >>> print(*(f"{p:.4f}" for p in jnp.exp(condition(log_ref, jnp.array([True, True, False])))))
        0.4000 0.6000 0.0000

    References:
        Shenfeld, Pari, Agrawal, "RL's Razor", arXiv:2509.04259, Lemma 5.1.
    """
    log_ref = floating_array("log_ref", log_ref)
    accept = boolean_array("accept", accept).astype(log_ref.dtype)
    log_ref, success = outcome_arrays(log_ref=log_ref, accept=accept)
    return log_normalize(jnp.where(success > 0, log_ref, -jnp.inf))


def tilt_to_reward(log_ref: LogProbs, reward: Rewards, value: Number) -> Tilt:
    """The policy closest to the reference among those with E_pi[reward] = value: a tilt, with its beta.

    Args:
        log_ref: reference policy, `[..., outcomes]`.
        reward: `[..., outcomes]`, `-inf` forbids an outcome.
        value: expected reward between the reference's (beta = inf) and the best (beta = 0), a number or `[...]`.

    Returns:
        The `Tilt`. Outside the attainable range it is the nearest end of the range, with `converged` false. The value
        is met to its own rounding and 10,000 of the range, each as large as the log-weights are: 1 + H(policy, ref).

    Example:
        >>> import jax.numpy as jnp
        >>> solved = tilt_to_reward(jnp.log(jnp.array([0.5, 0.5])), jnp.array([0.0, 1.0]), 0.9)
        >>> print(f"{1 / solved.beta:.4f} {bool(solved.converged)}")  # logit 0.9
        2.1972 True

    References:
        Csiszár, "I-Divergence Geometry of Probability Distributions and Minimization Problems", 1975.
    """
    log_ref, reward, value = outcome_arrays({"value": value}, log_ref=log_ref, reward=reward)
    solve = jnp.vectorize(_tilt_to_reward, signature="(k),(k),()->(k),(),(),(),()")
    return Tilt(*solve(log_ref, reward, value[..., 0]))


@jax.jit
def _tilt_to_reward(log_ref: Float[Array, " outcomes"], reward: Float[Array, " outcomes"], value: Scalar) -> Solved:
    _, top = _tilted_weights(log_ref, reward, jnp.zeros(1, log_ref.dtype))
    return _solve_tilt(log_ref, reward, value, lambda log_policy: top[0] - expectation(log_policy, top - reward))


def tilt_to_kl(log_ref: LogProbs, reward: Rewards, budget: Number) -> Tilt:
    """The policy of highest reward within KL(policy || ref) = budget: a tilt, with its beta.

    Args:
        log_ref: reference policy, `[..., outcomes]`.
        reward: `[..., outcomes]`, `-inf` forbids an outcome.
        budget: KL in nats between 0 (beta = inf) and -log ref(best outcomes) (beta = 0), a number or `[...]`.

    Returns:
        The `Tilt`. Outside the attainable range it is the nearest end of the range, with `converged` false.

    Example:
        >>> import jax.numpy as jnp
        >>> solved = tilt_to_kl(jnp.log(jnp.array([0.5, 0.5])), jnp.array([0.0, 1.0]), 0.1)
        >>> print(f"{solved.reward:.4f} {solved.kl:.4f}")
        0.7198 0.1000

    References:
        Peters, Mülling, Altün, "Relative Entropy Policy Search", 2010.
    """
    log_ref, reward, budget = outcome_arrays({"budget": budget}, log_ref=log_ref, reward=reward)
    solve = jnp.vectorize(_tilt_to_kl, signature="(k),(k),()->(k),(),(),(),()")
    return Tilt(*solve(log_ref, reward, budget[..., 0]))


@jax.jit
def _tilt_to_kl(log_ref: Float[Array, " outcomes"], reward: Float[Array, " outcomes"], budget: Scalar) -> Solved:
    return _solve_tilt(log_ref, reward, budget, lambda log_policy: kl_divergence(log_policy, log_ref))


def _solve_tilt(
    log_ref: Float[Array, " outcomes"],
    reward: Float[Array, " outcomes"],
    target: Scalar,
    measure: Callable[[Float[Array, " outcomes"]], Scalar],
) -> Solved:
    """The tilt whose `measure`, increasing in the strength 1 / beta, equals the target.

    Bisection on u = log(1 / beta) over the whole range of the dtype needs no bracket from the caller; optimistix
    gives the root its implicit derivatives.
    """

    def tilted(strength: Scalar) -> Float[Array, " outcomes"]:
        return exponential_tilt(log_ref, reward, strength[None])

    info = jnp.finfo(log_ref.dtype)
    low, high = measure(tilted(jnp.zeros_like(target))), measure(tilted(jnp.full_like(target, jnp.inf)))
    inside = (low < target) & (target < high)
    reachable = jnp.where(inside, target, low + (high - low) / 2)

    def excess(u: Scalar, goal: Scalar) -> Scalar:
        return jnp.where(low < high, measure(tilted(jnp.exp(u))) - goal, u)

    widest = math.log(float(info.max)) - 10
    u = increasing_root(excess, jnp.full_like(target, -widest), jnp.full_like(target, widest), reachable)
    weakest = target <= low
    strength = jnp.where(inside, jnp.exp(u), jnp.where(target >= high, jnp.inf, 0.0))
    strength = jnp.where(weakest, 0.0, strength)
    log_policy = tilted(strength)
    beta = jnp.where(inside, jnp.exp(-u), jnp.where(strength > 0, 0.0, jnp.inf))
    miss = jnp.abs(measure(log_policy) - target)
    allowed = jnp.any(log_policy != -jnp.inf)  # else "no policy" has measures too, which a target can equal
    # The log-weights are rounded in proportion to their size, the measure by that much of its range; so is the target.
    by_weights = 1e4 * (1 + cross_entropy(log_policy, log_ref)) * (high - low)
    converged = allowed & (miss <= info.eps * (by_weights + 4 * jnp.maximum(jnp.abs(low), jnp.abs(high))))
    return log_policy, beta, expectation(log_policy, reward), kl_divergence(log_policy, log_ref), converged


def frontier(log_ref: LogProbs, reward: Rewards, betas: Float[Array, " betas"]) -> Frontier:
    """The reward-KL frontier: reward and drift of the optimal policy at each beta.

    Its slope is the price of reward, d E_pi[reward] / d KL(pi || ref) = beta.

    Args:
        log_ref: reference policy, `[..., outcomes]`.
        reward: `[..., outcomes]`, `-inf` forbids an outcome.
        betas: KL coefficients, `[betas]`.

    Returns:
        The `Frontier`.

    Raises:
        ValueError: `betas` not one-dimensional.

    Example:
        >>> import jax.numpy as jnp
        >>> curve = frontier(jnp.log(jnp.array([0.5, 0.5])), jnp.array([0.0, 1.0]), jnp.array([0.5, 1.0]))
        >>> print(*(f"{x:.3f}" for x in (*curve.reward, *curve.kl)))
        0.881 0.731 0.328 0.111

    References:
        Gao, Schulman, Hilton, "Scaling Laws for Reward Model Overoptimization", arXiv:2210.10760.
    """
    log_ref, reward = outcome_arrays(log_ref=log_ref, reward=reward)
    betas = jnp.asarray(betas, log_ref.dtype)
    if betas.ndim != 1:
        raise ValueError(f"betas must be one-dimensional, got shape {betas.shape}")
    log_ref, reward = log_ref[..., None, :], reward[..., None, :]
    log_policy = tilt(log_ref, reward, betas)
    return Frontier(
        beta=betas,
        reward=expectation(log_policy, reward),
        kl=kl_divergence(log_policy, log_ref),
        forward_kl=kl_divergence(log_ref, log_policy),
    )


def best_of_n(log_ref: LogProbs, reward: Rewards, n: Number) -> Policy:
    """The policy that draws n samples from the reference and keeps the best: F(y)^n - F(y-)^n.

    F(y) is the reference mass of outcomes with reward at most reward(y), F(y-) of those strictly below. Outcomes of
    equal reward share their probability in proportion to ref.

    Args:
        log_ref: reference policy, `[..., outcomes]`.
        reward: `[..., outcomes]`; `-inf` ranks last.
        n: number of samples >= 1, real values interpolate, a number or `[...]`.

    Returns:
        Normalised log-probabilities, `[..., outcomes]`. KL(policy || ref) <= log n - (n - 1) / n.

    Raises:
        ValueError: a Python `n` below 1.

    Example:
        >>> import jax.numpy as jnp
        >>> log_ref = jnp.log(jnp.array([0.5, 0.5]))
        >>> jnp.exp(best_of_n(log_ref, jnp.array([0.0, 1.0]), 2)).round(4).tolist()
        [0.25, 0.75]

    References:
        Beirami et al., "Theoretical Guarantees on the Best-of-n Alignment Policy", arXiv:2401.01879.
    """
    if isinstance(n, int | float) and not n >= 1:
        raise ValueError(f"n must be at least 1, got {n}")
    log_ref, reward, n = outcome_arrays({"n": n}, log_ref=log_ref, reward=reward)
    solve = jnp.vectorize(_best_of_n, signature="(k),(k),()->(k)")
    unranked = jnp.any(jnp.isnan(reward) & (log_ref != -jnp.inf), axis=-1, keepdims=True)
    policy: Policy = jnp.where(unranked, jnp.nan, solve(log_ref, reward, n[..., 0]))
    return policy


def _best_of_n(log_ref: Float[Array, " outcomes"], reward: Float[Array, " outcomes"], n: Scalar) -> Policy:
    order = ascending(reward)
    log_sorted, sorted_reward = log_ref[order], reward[order]
    place, ends = jnp.arange(reward.size), sorted_reward[1:] != sorted_reward[:-1]
    tie = jax.lax.cummax(jnp.where(jnp.append(True, ends), place, 0))  # each tie is named by its first position
    last = jax.lax.cummin(jnp.where(jnp.append(ends, True), place, reward.size - 1), reverse=True)
    possible = log_sorted != -jnp.inf

    def finite(x: Float[Array, " outcomes"]) -> Float[Array, " outcomes"]:
        return jnp.where(possible, x, 0.0)

    peak = jax.lax.stop_gradient(jnp.full_like(log_ref, -jnp.inf).at[tie].max(log_sorted)[tie])
    mass = jnp.zeros_like(log_ref).at[tie].add(jnp.where(possible, jnp.exp(finite(log_sorted) - finite(peak)), 0.0))
    log_mass = finite(peak) + jnp.log(jnp.where(possible, mass[tie], 1.0))
    cumulative = log_cumulative_sum(log_sorted)
    log_below = finite(cumulative[last])  # log F(y)
    worst = tie == 0  # F(y-) = 0
    ahead = possible & ~worst
    log_share = jnp.where(ahead, log_mass - log_below, -1.0)  # log (F(y) - F(y-)) / F(y)
    rare = log_share + jnp.log(n) < jnp.log(jnp.finfo(log_ref.dtype).eps)
    sure = jnp.exp(log_share) >= 1  # to rounding, so that F(y-) / F(y) has to come from its own logarithm
    log_loss = jnp.where(
        sure,
        cumulative[tie - 1] - log_below,
        jnp.log1p(-jnp.exp(jnp.where(rare | sure, -1.0, log_share))),
    )  # log F(y-) / F(y)
    log_hit = jnp.log(-jnp.expm1(n * log_loss))
    log_win = jnp.where(worst, 0.0, jnp.where(rare, jnp.log(n) + log_share, log_hit))  # log (1 - (F(y-) / F(y))^n)
    return (
        jnp.zeros_like(log_ref)
        .at[order]
        .set(jnp.where(possible, n * log_below + log_win + finite(log_sorted) - log_mass, -jnp.inf))
    )
