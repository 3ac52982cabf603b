"""What an explicit regulariser wants: the exact optimum of each, beside the tilt of the KL penalty.

Conventions and errors as in `rlrazor.divergences`; a reward of `-inf` forbids an outcome.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rlrazor._numerics import (
    Elementwise,
    expectation,
    expm1_ratio,
    gap_to_top,
    increasing_root,
    log1p_ratio,
    log_normalize,
    log_sum,
    log_wright_omega,
    reciprocal,
)
from rlrazor._types import LogProbs, Number, PerRow, Policy, Rewards, Scalar
from rlrazor.checks import finite, floating_number, nonnegative, outcome_arrays, positive, whole_as


class FDivergence(NamedTuple):
    """A divergence D(policy || ref) = E_ref[f(policy / ref)] with f(1) = f'(1) = 0, as seen by its optimum.

    Attributes:
        score: log-ratio x = log(policy / ref) -> f'(e^x), the marginal cost of probability; increasing.
        lowered: (x, cost >= 0) -> the log-ratio whose score is that of x less the cost; `-inf` where none is so low.
    """

    score: Callable[[Elementwise], Elementwise]
    lowered: Callable[[Elementwise, Elementwise], Elementwise]


def alpha_divergence(alpha: float | Scalar) -> FDivergence:
    """The α-divergence, f(t) = (t^α - α t + α - 1) / (α (α - 1)): f'(t) = (t^(α - 1) - 1) / (α - 1).

    At α = 1 it is the reverse KL(policy || ref), at α = 0 the forward KL(ref || policy), at α = 2 half of χ², at 1/2
    four times the squared Hellinger distance. TRL: `f_divergence_type="alpha_divergence"`, `f_alpha_divergence_coef`.

    Args:
        alpha: order α, any number.

    Returns:
        The `FDivergence`.

    Example:
        >>> import jax.numpy as jnp
        >>> half = alpha_divergence(0.5)
        >>> print(f"{half.score(jnp.log(4.0)):.2f} {half.lowered(jnp.log(4.0), jnp.array(1.0)):.2f}")
        1.00 0.00

    References:
        Wang et al., "Beyond Reverse KL", arXiv:2309.16240 (f-DPO); Amari, Nagaoka, "Methods of Information
        Geometry", 2000.
    """

    def score(x: Elementwise) -> Elementwise:
        order = jnp.asarray(alpha - 1, x.dtype)
        beyond = jnp.log(jnp.finfo(x.dtype).max) - 2  # of the floats; the score is held there
        held = jnp.where(order * x > beyond, beyond / jnp.where(order == 0, 1.0, order), x)
        return expm1_ratio(jnp.ones_like(x), jnp.exp(order * held), held, order)

    def lowered(x: Elementwise, cost: Elementwise) -> Elementwise:
        order = jnp.asarray(1 - alpha, x.dtype)
        far = order * x > jnp.log(jnp.finfo(x.dtype).max) / 2  # where e^(order x) may be beyond the floats
        finite_cost = jnp.where(jnp.isinf(cost), 0.0, cost)
        price = finite_cost * jnp.exp(jnp.where(far, 0.0, order * x))
        empty = jnp.isinf(cost) | (order * price <= -1)
        near = x - price * log1p_ratio(order * jnp.where(empty, 0.0, price))
        paid = far & (finite_cost > 0)
        log_price = jnp.log(jnp.where(paid, order * finite_cost, 1.0)) + order * x
        beyond = x - jnp.where(paid, jax.nn.softplus(log_price) / jnp.where(paid, order, 1.0), 0.0)
        return jnp.where(empty, -jnp.inf, jnp.where(far, beyond, near))

    return FDivergence(score, lowered)


def _jensen_shannon_score(x: Elementwise) -> Elementwise:
    return math.log(2.0) + jax.nn.log_sigmoid(x)


def _jensen_shannon_lowered(x: Elementwise, cost: Elementwise) -> Elementwise:
    """The y with (1 + e^-y) = e^cost (1 + e^-x); where e^-x is below the floats, the y of cost 0 is x."""
    left = jnp.exp(-x) - jnp.expm1(-cost)
    return jnp.where(left > 0, -cost - jnp.log(jnp.where(left > 0, left, 1.0)), x)


def _chi2_score(x: Elementwise) -> Elementwise:
    return 2 * alpha_divergence(2.0).score(x)


def _chi2_lowered(x: Elementwise, cost: Elementwise) -> Elementwise:
    return alpha_divergence(2.0).lowered(x, cost / 2)


REVERSE_KL = alpha_divergence(1.0)  # KL(policy || ref)
FORWARD_KL = alpha_divergence(0.0)  # KL(ref || policy)
CHI2 = FDivergence(_chi2_score, _chi2_lowered)  # χ²(policy || ref)
JENSEN_SHANNON = FDivergence(_jensen_shannon_score, _jensen_shannon_lowered)  # KL(policy || m) + KL(ref || m)


def regularized_optimum(
    log_ref: LogProbs, reward: Rewards, beta: Number, divergence: FDivergence = REVERSE_KL
) -> Policy:
    """The optimum of E_policy[reward] - beta D(policy || ref): ref (f')⁻¹((reward - L) / beta)₊, with L so that Σ = 1.

    With `REVERSE_KL` it is `tilt`. `FORWARD_KL` gives beta ref / (L - reward), with tails of a power law; `CHI2`
    gives ref (1 + (reward - L) / (2 beta))₊, which drops outcomes. It is also what f-DPO learns from all pairs of
    outcomes under Bradley-Terry.

    Args:
        log_ref: reference policy, `[..., outcomes]`.
        reward: `[..., outcomes]`, `-inf` forbids an outcome: what is left of the reference is then its condition.
        beta: coefficient in [0, inf], a number or `[...]`.
        divergence: `REVERSE_KL`, `FORWARD_KL`, `CHI2`, `JENSEN_SHANNON` or `alpha_divergence(alpha)`, static.

    Returns:
        Normalised log-probabilities, `[..., outcomes]`; `-inf` throughout where every possible outcome is forbidden.

    Raises:
        ValueError: a negative or NaN Python `beta`.

    Example:
        >>> import jax.numpy as jnp
        >>> log_ref, reward = jnp.log(jnp.array([0.2, 0.3, 0.5])), jnp.array([1.0, 0.5, -2.0])
        >>> for divergence in (REVERSE_KL, FORWARD_KL, CHI2):
        ...     print(*(f"{p:.3f}" for p in jnp.exp(regularized_optimum(log_ref, reward, 0.5, divergence))))
        0.642 0.354 0.004
        0.688 0.232 0.079
        0.460 0.540 0.000

    References:
        Wang et al., "Beyond Reverse KL", arXiv:2309.16240, eq. 6; Go et al., "Aligning Language Models with
        Preferences through f-divergence Minimization", arXiv:2302.08215.
    """
    log_ref, reward, beta = outcome_arrays({"beta": nonnegative("beta", beta)}, log_ref=log_ref, reward=reward)
    solve = jnp.vectorize(partial(_regularized_optimum, divergence=divergence), signature="(k),(k),()->(k)")
    policy: Policy = solve(log_ref, reward, beta[..., 0])
    return policy


@partial(jax.jit, static_argnames="divergence")
def _regularized_optimum(
    log_ref: Float[Array, " k"], reward: Float[Array, " k"], beta: Scalar, divergence: FDivergence
) -> Float[Array, " k"]:
    """One row. The unknown is the log-ratio x of the best outcomes, in [0, -log ref(best)]: it lasts for any beta."""
    possible = (log_ref != -jnp.inf) & (reward != -jnp.inf)
    log_ref = log_normalize(jnp.where(possible, log_ref, -jnp.inf))
    _, gap = gap_to_top(reward, possible)
    best = possible & (gap == 0)
    at_zero, at_inf = beta == 0, jnp.isinf(beta)
    cost = jnp.where(at_zero, 0.0, gap * reciprocal(jnp.where(at_zero, 1.0, beta)))
    highest = -log_sum(jnp.where(best, log_ref, -jnp.inf))

    def log_weights(x: Scalar, cost: Float[Array, " k"], log_ref: Float[Array, " k"]) -> Float[Array, " k"]:
        log_ratio = divergence.lowered(jnp.full_like(cost, x), cost)
        return jnp.where(possible, jnp.where(possible, log_ref, 0.0) + log_ratio, -jnp.inf)

    def excess(x: Scalar, given: Any) -> Scalar:
        return log_sum(log_weights(x, *given))

    settled = at_inf | (highest == 0)  # nothing to trade: the reference, or all outcomes are best
    x = increasing_root(
        lambda x, given: jnp.where(settled | at_zero, x - highest / 2, excess(x, given)),
        jnp.zeros_like(highest),
        jnp.where(highest > 0, highest, 1.0),
        (cost, log_ref),
    )
    conditioned = log_normalize(jnp.where(best, log_ref, -jnp.inf))
    optimum = jnp.where(at_zero, conditioned, log_normalize(log_weights(x, cost, log_ref)))
    return jnp.where(settled, log_ref, optimum)


def peak_strength(log_ref: LogProbs, reward: Rewards, gold: Rewards, strengths: Float[Array, " strengths"]) -> PerRow:
    """The strength s = 1/beta from which on a tilt by one reward loses of another: Cov(reward, gold) = 0.

    Under tilt(log_ref, reward, 1/s) the gold reward changes by dE[gold]/ds = Cov(reward, gold). With a proxy for the
    reward it is where over-optimisation begins; with reward = log teacher - log ref it is the place on the e-geodesic,
    1 at the teacher, that a student should be taken to.

    Args:
        log_ref: reference policy, `[..., outcomes]`.
        reward: what is tilted by, finite where the reference has mass, `[..., outcomes]`.
        gold: what is counted, the same.
        strengths: > 0 and increasing, `[strengths]`; a peak between two neighbours that both gain is not seen.

    Returns:
        The smallest such strength, to the last bit, `[...]`: 0 where the gold reward falls from the start on, NaN where
        it does not fall at any of the strengths.

    Raises:
        ValueError: `strengths` is not an axis of at least one.

    Example:
        >>> import jax.numpy as jnp
        >>> log_ref, proxy = jnp.log(jnp.array([0.5, 0.4, 0.1])), jnp.array([0.0, 1.0, 2.0])
        >>> gold = jnp.array([0.0, 1.0, 0.0])  # the last outcome fools the proxy
        >>> s = peak_strength(log_ref, proxy, gold, strengths=jnp.arange(1.0, 5.0))
        >>> print(f"{s:.4f}")  # log √5: fooled as often as empty-handed
        0.8047

    References:
        Gao, Schulman, Hilton, "Scaling Laws for Reward Model Overoptimization", arXiv:2210.10760.
    """
    log_ref, reward, gold = outcome_arrays(log_ref=log_ref, reward=reward, gold=whole_as(log_ref.dtype, gold))
    if jnp.ndim(strengths) != 1 or 0 in jnp.shape(strengths):
        raise ValueError(f"strengths must be [strengths] with at least one, got shape {jnp.shape(strengths)}")
    solve = jnp.vectorize(
        partial(_peak_strength, strengths=strengths.astype(log_ref.dtype)), signature="(k),(k),(k)->()"
    )
    found: PerRow = solve(log_ref, reward, gold)
    return found


def _peak_strength(
    log_ref: Float[Array, " k"], reward: Float[Array, " k"], gold: Float[Array, " k"], strengths: Float[Array, " s"]
) -> Scalar:
    """One row."""
    possible = log_ref != -jnp.inf
    reward, gold = (jnp.where(possible, x, 0.0) for x in (reward, gold))

    def loss(strength: Scalar, given: Any) -> Scalar:
        log_ref, reward, gold = given
        log_policy = log_normalize(log_ref + strength * reward)
        return -expectation(log_policy, (reward - expectation(log_policy, reward)) * gold)

    given = (log_ref, reward, gold)
    tried = jnp.concatenate([jnp.zeros_like(strengths[:1]), strengths])
    losses = jax.lax.map(lambda strength: loss(strength, given), tried)
    known, after = (losses > 0).any() & ~jnp.isnan(losses).any(), jnp.argmax(losses > 0)
    turns = known & (after > 0)
    root = increasing_root(
        lambda strength, given: jnp.where(turns, loss(strength, given), strength - 0.5),
        jnp.where(turns, tried[after - 1], 0.0),
        jnp.where(turns, tried[after], 1.0),
        given,
    )
    return jnp.where(turns, root, jnp.where(known, 0.0, jnp.nan))


def ppo_ptx_optimum(log_ref: LogProbs, log_pretrain: LogProbs, reward: Rewards, beta: Number, gamma: Number) -> Policy:
    """The optimum of E_policy[reward] - beta KL(policy || ref) + gamma E_pretrain[log policy], pretraining gradients.

    policy = c / W(c e^-A) with c = gamma pretrain / beta, A = (reward - L) / beta + log ref, Lambert's W, and L so that
    it sums to 1. It is computed as log policy = A + ω(log c - A), with Wright's ω, which never exponentiates A. At
    gamma = 0 it is `tilt`; as gamma grows it goes to the pretraining distribution, and as beta vanishes to
    gamma pretrain / (L - reward), with L above the best reward.

    Args:
        log_ref: reference policy, `[..., outcomes]`.
        log_pretrain: distribution of the pretraining data, or of an old task's, `[..., outcomes]`.
        reward: `[..., outcomes]`, `-inf` forbids an outcome.
        beta: KL coefficient in (0, inf], a number or `[...]`.
        gamma: weight of the pretraining term in [0, inf), a number or `[...]`.

    Returns:
        Normalised log-probabilities, `[..., outcomes]`; `-inf` throughout where every policy is infinitely bad: the
        pretraining data have outcomes that are forbidden, or that the reference never produces.

    Raises:
        ValueError: `beta` is not above 0; a negative or NaN Python `gamma`.

    Example:
        >>> import jax.numpy as jnp
        >>> log_ref, log_pretrain = jnp.log(jnp.array([[0.5, 0.4, 0.1], [0.5, 0.5, 0.0]]))
        >>> for gamma in (0.0, 0.1, 10.0):
        ...     optimum = ppo_ptx_optimum(log_ref, log_pretrain, jnp.array([0.0, 0.0, 1.0]), 0.2, gamma)
        ...     print(*(f"{p:.3f}" for p in jnp.exp(optimum)))
        0.032 0.025 0.943
        0.142 0.131 0.727
        0.501 0.499 0.000

    References:
        Ouyang et al., "Training Language Models to Follow Instructions with Human Feedback", arXiv:2203.02155, eq. 2;
        Corless et al., "On the Lambert W Function", 1996. The optimum is derived here.
    """
    log_ref, log_pretrain, reward, beta, gamma = outcome_arrays(
        {"beta": positive("beta", beta), "gamma": nonnegative("gamma", gamma)},
        log_ref=log_ref,
        log_pretrain=log_pretrain,
        reward=reward,
    )
    solve = jnp.vectorize(_ppo_ptx_optimum, signature="(k),(k),(k),(),()->(k)")
    policy: Policy = solve(log_ref, log_pretrain, reward, beta[..., 0], gamma[..., 0])
    return policy


@jax.jit
def _ppo_ptx_optimum(
    log_ref: Float[Array, " k"],
    log_pretrain: Float[Array, " k"],
    reward: Float[Array, " k"],
    beta: Scalar,
    gamma: Scalar,
) -> Float[Array, " k"]:
    """One row. The unknown is v with sinh v = (L - best reward) / beta, in [log E_ref e^-cost, gamma / beta]."""
    wanted = (log_pretrain != -jnp.inf) & (gamma > 0)
    possible = (log_ref != -jnp.inf) & (reward != -jnp.inf)
    strength, log_weight = reciprocal(beta), jnp.log(jnp.where(gamma > 0, gamma, 1.0)) - jnp.log(beta)
    cost = gap_to_top(reward, possible)[1] * strength
    log_base = jnp.where(possible, jnp.where(possible, log_ref, 0.0) - cost, -jnp.inf)
    log_share = jnp.where(wanted, jnp.where(wanted, log_pretrain, 0.0) + log_weight, -jnp.inf)

    def log_policy(v: Scalar, log_base: Float[Array, " k"], log_share: Float[Array, " k"]) -> Float[Array, " k"]:
        """The root ℓ of ℓ - c e^-ℓ = A, for every outcome."""
        both = possible & wanted & (beta < jnp.inf)
        a = jnp.where(possible, log_base, 0.0) - jnp.sinh(v)
        log_omega = log_wright_omega(jnp.where(both, jnp.where(both, log_share, 0.0) - a, 0.0))
        pulled = jnp.where(log_omega < 0, a + jnp.exp(jnp.minimum(log_omega, 0.0)), log_share - log_omega)
        return jnp.where(both, pulled, jnp.where(possible, a, -jnp.inf))

    lowest, highest = jnp.arcsinh(log_sum(log_base)), jnp.arcsinh(gamma * strength)
    v = increasing_root(
        lambda v, given: -log_sum(log_policy(v, *given)),
        jnp.where(jnp.isfinite(lowest), lowest, 0.0),
        jnp.where(jnp.isfinite(highest), highest, 1.0),
        (log_base, log_share),
    )
    return jnp.where(jnp.any(wanted & ~possible), -jnp.inf, log_normalize(log_policy(v, log_base, log_share)))


def margin_gap(preference: Number, margin: Number) -> Float[Array, "..."]:
    """The gap that a Bradley-Terry fit with a margin ends at: the Δ that minimises the loss of one pair of answers.

    -p log σ(Δ - m) - (1 - p) log σ(-Δ - m), with the margin on the side of whichever answer the annotator chose, has
    Δ = g / 2 + asinh(e^m sinh(g / 2)), g = logit p. Without a margin it is g, the true gap. For annotators who agree
    (p -> 1) it is m + logit p; for those who toss coins it is 0, whatever the margin. A margin that belongs to the
    pair, with the opposite sign when the other answer is chosen, gives m + logit p exactly.

    Args:
        preference: p, how often the first answer is preferred, in (0, 1), a number or `[...]`.
        margin: m, in nats, a number or `[...]`.

    Returns:
        Δ = reward of the first answer less that of the second, `[...]`.

    Raises:
        ValueError: `margin` is NaN or infinite.

    Example:
        >>> print(*(f"{margin_gap(p, margin=1.0):.3f}" for p in (0.5, 0.7, 0.99)))  # logit p: 0, 0.847, 4.595
        0.000 1.431 5.586

    References:
        Touvron et al., "Llama 2", arXiv:2307.09288, eq. 2 (the loss). The optimum is derived here.
    """
    p = floating_number("preference", preference)
    m = jnp.asarray(finite("margin", margin), p.dtype)
    half = (jnp.log(p) - jnp.log1p(-p)) / 2
    size = jnp.abs(half)
    far = size + m > 20
    near = jnp.arcsinh(jnp.exp(jnp.where(far, 0.0, m)) * jnp.sinh(jnp.where(far, 0.0, half)))
    beyond = jnp.sign(half) * (m + size + jnp.log1p(-jnp.exp(-2 * jnp.where(far, size, 1.0))))
    return half + jnp.where(far, beyond, near)


def ipo_gap(preference: Number, beta: Number) -> Float[Array, "..."]:
    """The gap of log-ratios that IPO ends at on one pair of answers: (2 p - 1) / (2 beta), 1 / (2 beta) if all agree.

    Of summed log-probabilities, if the loss was given those; of means over tokens, if the loss was given means, so
    that the gap of the sums grows with the length of the answers.

    Args:
        preference: p, how often the first answer is preferred, in [0, 1], a number or `[...]`.
        beta: IPO's τ > 0, a number or `[...]`.

    Returns:
        Log-ratio of the first answer less that of the second, `[...]`.

    Raises:
        ValueError: `beta` is not above 0.

    Example:
        >>> print(f"{ipo_gap(1.0, beta=0.1):.1f} {ipo_gap(0.75, beta=0.1):.1f}")
        5.0 2.5

    References:
        Azar et al., "A General Theoretical Paradigm to Understand Learning from Human Preferences", arXiv:2310.12036,
        section 5.
    """
    p = floating_number("preference", preference)
    return (2 * p - 1) / (2 * jnp.asarray(positive("beta", beta), p.dtype))
