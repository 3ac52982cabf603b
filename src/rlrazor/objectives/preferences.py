"""Losses of pairs of answers, of which one was chosen: reward models with a margin, DPO and its relatives.

A data set of preferences is an array of chosen answers, one of rejected ones, `[..., pairs]`, and if they do not count
alike a weight for each pair. All losses are weighted means over pairs, to be minimised; inf where a chosen answer is
impossible. Exact losses are the same over all pairs of outcomes, with the weights of `bradley_terry_pairs`:

    pairs = bradley_terry_pairs(log_answers, reward)
    dpo_loss(log_ratio[..., pairs.chosen], log_ratio[..., pairs.rejected], beta, pairs.weights)

A log-ratio is log policy(y) - log ref(y), summed over tokens for longer answers. Errors as in
`rlrazor.checks.pair_arrays`; beta must be above 0.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Real

from rlrazor._numerics import expectation, mass_times, weighted
from rlrazor._types import LogProbs, Number, PerRow, Rewards
from rlrazor.checks import finite, floating_array, nonnegative, outcome_arrays, pair_arrays, positive
from rlrazor.objectives._terms import gap_terms, weighted_mean
from rlrazor.optima import FDivergence

Pairs = Float[Array, "*#batch pairs"]
Weights = Float[Array, "*#batch pairs"] | None
Margins = int | float | Float[Array, "*#batch #pairs"]
Lengths = Real[Array, "*#batch pairs"]


class PreferencePairs(NamedTuple):
    """All ordered pairs of different outcomes, as a data set of preferences.

    Attributes:
        chosen: outcome, `[pairs]`.
        rejected: outcome, `[pairs]`.
        weights: probability that a labelled pair is this one, `[..., pairs]`; sums to one.
    """

    chosen: Int[np.ndarray, " pairs"]
    rejected: Int[np.ndarray, " pairs"]
    weights: Float[Array, "*batch pairs"]


def bradley_terry_pairs(log_answers: LogProbs, reward: Rewards) -> PreferencePairs:
    """What annotators say of two different answers: they prefer y to y' with probability σ(reward(y) - reward(y')).

    Args:
        log_answers: distribution that both answers are drawn from, `[..., outcomes]`.
        reward: of the annotators, `[..., outcomes]`.

    Returns:
        The `PreferencePairs`.

    Raises:
        ValueError: there are fewer than two outcomes, so there is no pair.

    Example:
        >>> import jax.numpy as jnp
        >>> pairs = bradley_terry_pairs(jnp.log(jnp.array([0.5, 0.5])), jnp.array([jnp.log(3.0), 0.0]))
        >>> pairs.chosen.tolist(), pairs.rejected.tolist(), pairs.weights.round(4).tolist()
        ([0, 1], [1, 0], [0.75, 0.25])

    References:
        Bradley, Terry, "Rank Analysis of Incomplete Block Designs", 1952; Christiano et al., "Deep Reinforcement
        Learning from Human Preferences", arXiv:1706.03741.
    """
    log_answers, reward = outcome_arrays(log_answers=log_answers, reward=reward)
    if log_answers.shape[-1] < 2:
        raise ValueError(f"log_answers must have at least 2 outcomes to make a pair, got shape {log_answers.shape}")
    chosen, rejected = np.nonzero(~np.eye(log_answers.shape[-1], dtype=bool))
    both = log_answers[..., chosen] + log_answers[..., rejected]
    log_weights = both + jax.nn.log_sigmoid(reward[..., chosen] - reward[..., rejected])
    return PreferencePairs(chosen, rejected, jax.nn.softmax(log_weights))


def bradley_terry_loss(
    reward_chosen: Pairs, reward_rejected: Pairs, margin: Margins = 0.0, weights: Weights = None
) -> PerRow:
    """The loss of a reward model, -log σ(reward(y+) - reward(y-) - m), the likelihood of Bradley and Terry.

    The margin m >= 0 says how clear a preference was. What a fit ends at is `rlrazor.margin_gap`. TRL: `RewardTrainer`
    with a column `margin`.

    Args:
        reward_chosen: reward of the chosen answers, `[..., pairs]`.
        reward_rejected: reward of the rejected answers, `[..., pairs]`.
        margin: m, `[..., pairs]`, or one for all pairs, `[..., 1]` or a number.
        weights: of the pairs, `[..., pairs]`; all alike unless given.

    Returns:
        Loss in nats, `[...]`, in [0, inf].

    Raises:
        ValueError: `margin` is NaN or infinite, or there is no pair.

    Example:
        >>> import jax.numpy as jnp
        >>> print(f"{bradley_terry_loss(jnp.array([1.0]), jnp.array([0.0]), margin=1.0):.4f}")
        0.6931

    References:
        Touvron et al., "Llama 2", arXiv:2307.09288, eq. 2.
    """
    chosen = floating_array("reward_chosen", reward_chosen)
    margins = jnp.asarray(finite("margin", margin), chosen.dtype)
    if margins.shape[-1:] in ((), (1,)):
        margins = jnp.broadcast_to(margins, (*margins.shape[:-1], *chosen.shape[-1:]))
    reward_chosen, reward_rejected, margins, weights = _weighed(
        weights, reward_chosen=reward_chosen, reward_rejected=reward_rejected, margin=margins
    )
    terms = gap_terms(lambda gap: jax.nn.softplus(margins - gap), reward_chosen, reward_rejected)
    return weighted_mean(terms, weights)


def dpo_loss(log_ratio_chosen: Pairs, log_ratio_rejected: Pairs, beta: Number, weights: Weights = None) -> PerRow:
    """The DPO loss -log σ(beta (log-ratio(y+) - log-ratio(y-))).

    Over all pairs under Bradley-Terry preferences of a reward its minimum is `rlrazor.tilt(log_ref, reward, beta)`.
    TRL: `DPOTrainer`, `loss_type="sigmoid"`; label smoothing is a second pair with the answers exchanged and weight ε.

    Args:
        log_ratio_chosen: log policy(y+) - log ref(y+), `[..., pairs]`.
        log_ratio_rejected: log policy(y-) - log ref(y-), `[..., pairs]`.
        beta: KL coefficient > 0, a number or `[...]`.
        weights: of the pairs, `[..., pairs]`; all alike unless given.

    Returns:
        Loss in nats, `[...]`, in [0, inf].

    Raises:
        ValueError: `beta` is not above 0, or there is no pair.

    Example:
        >>> import jax.numpy as jnp
        >>> print(f"{dpo_loss(jnp.array([0.0]), jnp.array([-5.0]), beta=0.1):.4f}")
        0.4741

    References:
        Rafailov et al., "Direct Preference Optimization", arXiv:2305.18290, eq. 7.
    """
    return _ratio_loss(_dpo, log_ratio_chosen, log_ratio_rejected, beta, weights)


def ipo_loss(log_ratio_chosen: Pairs, log_ratio_rejected: Pairs, beta: Number, weights: Weights = None) -> PerRow:
    """The IPO loss (log-ratio(y+) - log-ratio(y-) - 1 / (2 beta))², a regression to a finite gap.

    On a pair that is preferred with probability p it ends at `rlrazor.ipo_gap(p, beta)`; over all pairs of answers
    drawn from q it ends at the tilt of the reference by the win rate against q. Give it sums over tokens or means:
    libraries differ, and with means the gap of the sums grows with the length (TRL: `loss_type="ipo"`, which takes
    means; the RLHF book's `IPOLoss` takes sums). `per_token` makes means.

    Args:
        log_ratio_chosen: log policy(y+) - log ref(y+), `[..., pairs]`.
        log_ratio_rejected: log policy(y-) - log ref(y-), `[..., pairs]`.
        beta: IPO's τ > 0, a number or `[...]`.
        weights: of the pairs, `[..., pairs]`; all alike unless given.

    Returns:
        Loss in nats², `[...]`, in [0, inf].

    Raises:
        ValueError: `beta` is not above 0, or there is no pair.

    Example:
        >>> import jax.numpy as jnp
        >>> print(f"{ipo_loss(jnp.array([0.0]), jnp.array([-4.0]), beta=0.1):.4f}")
        1.0000

    References:
        Azar et al., "A General Theoretical Paradigm to Understand Learning from Human Preferences", arXiv:2310.12036,
        eq. 17.
    """
    return _ratio_loss(
        lambda gap, b: jnp.square(gap - 1 / (2 * b)), log_ratio_chosen, log_ratio_rejected, beta, weights
    )


def hinge_loss(log_ratio_chosen: Pairs, log_ratio_rejected: Pairs, beta: Number, weights: Weights = None) -> PerRow:
    """The hinge loss max(0, 1 - beta (log-ratio(y+) - log-ratio(y-))), which stops at a gap of 1 / beta.

    TRL: `loss_type="hinge"`.

    Args:
        log_ratio_chosen: log policy(y+) - log ref(y+), `[..., pairs]`.
        log_ratio_rejected: log policy(y-) - log ref(y-), `[..., pairs]`.
        beta: reciprocal of the gap, > 0, a number or `[...]`.
        weights: of the pairs, `[..., pairs]`; all alike unless given.

    Returns:
        Loss, `[...]`, in [0, inf].

    Raises:
        ValueError: `beta` is not above 0, or there is no pair.

    Example:
        >>> import jax.numpy as jnp
        >>> print(f"{hinge_loss(jnp.array([0.0]), jnp.array([-4.0]), beta=0.1):.4f}")
        0.6000

    References:
        Zhao et al., "SLiC-HF", arXiv:2305.10425; Liu et al., "Statistical Rejection Sampling Improves Preference
        Optimization", arXiv:2309.06657, eq. 10.
    """
    return _ratio_loss(lambda gap, b: jax.nn.relu(1 - b * gap), log_ratio_chosen, log_ratio_rejected, beta, weights)


def f_dpo_loss(
    log_ratio_chosen: Pairs,
    log_ratio_rejected: Pairs,
    beta: Number,
    divergence: FDivergence,
    weights: Weights = None,
) -> PerRow:
    """The f-DPO loss -log σ(beta (f'(ratio(y+)) - f'(ratio(y-)))): DPO for another divergence than the reverse KL.

    Over all pairs under Bradley-Terry its minimum is `rlrazor.regularized_optimum(log_ref, reward, beta, divergence)`
    where that drops no outcome. TRL: `f_divergence_type` in "reverse_kl", "forward_kl", "js_divergence",
    "alpha_divergence". A score beyond the floats, as the forward KL's e^-log-ratio, is held at their end.

    Args:
        log_ratio_chosen: log policy(y+) - log ref(y+), `[..., pairs]`.
        log_ratio_rejected: log policy(y-) - log ref(y-), `[..., pairs]`.
        beta: coefficient > 0, a number or `[...]`.
        divergence: `REVERSE_KL`, `FORWARD_KL`, `CHI2`, `JENSEN_SHANNON` or `alpha_divergence(alpha)`, static.
        weights: of the pairs, `[..., pairs]`; all alike unless given.

    Returns:
        Loss in nats, `[...]`, in [0, inf].

    Raises:
        ValueError: `beta` is not above 0, or there is no pair.

    Example:
        >>> import jax.numpy as jnp
        >>> from rlrazor.optima import FORWARD_KL
        >>> print(f"{f_dpo_loss(jnp.array([0.0]), jnp.array([-5.0]), beta=0.1, divergence=FORWARD_KL):.6f}")
        0.000000

    References:
        Wang et al., "Beyond Reverse KL", arXiv:2309.16240, eq. 8.
    """
    return _ratio_loss(_dpo, log_ratio_chosen, log_ratio_rejected, beta, weights, divergence.score)


def nll_loss(log_prob_chosen: Pairs, length_chosen: Lengths, weights: Weights = None) -> PerRow:
    """The NLL anchor -log policy(y+) / |y+|: the negative log-likelihood of the chosen answers, per token.

    It is the only term of a preference loss that knows how likely the chosen answer is in itself. TRL:
    `loss_type="sft"`, which divides by the tokens of the batch instead.

    Args:
        log_prob_chosen: log policy(y+), summed over tokens, `[..., pairs]`.
        length_chosen: tokens of y+, above 0, `[..., pairs]`.
        weights: of the pairs, `[..., pairs]`; all alike unless given.

    Returns:
        Loss in nats, `[...]`, in [0, inf].

    Raises:
        ValueError: a length is not above 0, or there is no pair.

    Example:
        >>> import jax.numpy as jnp
        >>> print(f"{nll_loss(jnp.array([-6.0]), jnp.array([3])):.4f}")
        2.0000

    References:
        Pang et al., "Iterative Reasoning Preference Optimization", arXiv:2404.19733, eq. 1.
    """
    log_prob, length, weights = _weighed(
        weights, log_prob_chosen=log_prob_chosen, length_chosen=positive("length_chosen", length_chosen)
    )
    return weighted_mean(-log_prob / length, weights)


def dpo_nll_loss(
    log_ratio_chosen: Pairs,
    log_ratio_rejected: Pairs,
    log_prob_chosen: Pairs,
    length_chosen: Lengths,
    beta: Number,
    alpha: Number,
    weights: Weights = None,
) -> PerRow:
    """DPO with an NLL anchor: `dpo_loss` + alpha `nll_loss`; alpha stands at the NLL term, once a token.

    TRL: `loss_type=["sigmoid", "sft"]`, `loss_weights=[1, alpha]`, which was `rpo_alpha`. How large alpha must be for
    the chosen answer not to lose probability: `rlrazor.displacement`.

    Args:
        log_ratio_chosen: log policy(y+) - log ref(y+), `[..., pairs]`.
        log_ratio_rejected: log policy(y-) - log ref(y-), `[..., pairs]`.
        log_prob_chosen: log policy(y+), summed over tokens, `[..., pairs]`.
        length_chosen: tokens of y+, above 0, `[..., pairs]`.
        beta: KL coefficient > 0, a number or `[...]`.
        alpha: weight of the NLL term >= 0, a number or `[...]`.
        weights: of the pairs, `[..., pairs]`; all alike unless given.

    Returns:
        Loss in nats, `[...]`, in [0, inf].

    Raises:
        ValueError: `beta` or a length is not above 0, a negative or NaN Python `alpha`, or there is no pair.

    Example:
        >>> import jax.numpy as jnp
        >>> pair = jnp.array([0.0]), jnp.array([-5.0])
        >>> print(f"{dpo_nll_loss(*pair, jnp.array([-6.0]), jnp.array([3]), beta=0.1, alpha=0.5):.4f}")
        1.4741

    References:
        Pang et al., "Iterative Reasoning Preference Optimization", arXiv:2404.19733, eq. 1.
    """
    anchor = nll_loss(log_prob_chosen, length_chosen, weights)
    alpha = jnp.asarray(nonnegative("alpha", alpha), anchor.dtype)
    return dpo_loss(log_ratio_chosen, log_ratio_rejected, beta, weights) + weighted(alpha, anchor)


def per_token(log_prob: Pairs, length: Lengths) -> Float[Array, "*batch pairs"]:
    """The mean over tokens log policy(y) / |y|, of which SimPO's and TRL's IPO's losses are made.

    Args:
        log_prob: log-probability or log-ratio, summed over tokens, `[..., pairs]`.
        length: tokens, above 0, `[..., pairs]`.

    Returns:
        Nats a token, `[..., pairs]`.

    Raises:
        ValueError: a length is not above 0.

    Example:
        >>> import jax.numpy as jnp
        >>> per_token(jnp.array([-6.0, -1.0]), jnp.array([3, 1])).tolist()
        [-2.0, -1.0]
    """
    log_prob, length = pair_arrays(log_prob=log_prob, length=positive("length", length))
    return log_prob / length


def simpo_loss(
    log_prob_chosen: Pairs, log_prob_rejected: Pairs, beta: Number, margin: Number, weights: Weights = None
) -> PerRow:
    """The SimPO loss -log σ(β (log policy(y+) - log policy(y-)) - γ), which has no reference.

    TRL: `CPOTrainer`, `loss_type="simpo"`, `simpo_gamma`, a γ like ours; the RLHF book's `gamma` is γ / β.

    Args:
        log_prob_chosen: log policy(y+), per token for longer answers, `[..., pairs]`.
        log_prob_rejected: log policy(y-), per token for longer answers, `[..., pairs]`.
        beta: scale β > 0, a number or `[...]`.
        margin: target margin γ, a number or `[...]`.
        weights: of the pairs, `[..., pairs]`; all alike unless given.

    Returns:
        Loss in nats, `[...]`, in [0, inf].

    Raises:
        ValueError: `beta` is not above 0, `margin` is NaN or infinite, or there is no pair.

    Example:
        >>> import jax.numpy as jnp
        >>> print(f"{simpo_loss(jnp.log(jnp.array([0.5])), jnp.log(jnp.array([0.5])), beta=1.0, margin=1.0):.4f}")
        1.3133

    References:
        Meng, Xia, Chen, "SimPO", arXiv:2405.14734, eq. 6.
    """
    chosen, rejected, weights, beta, margin = _weighed(
        weights,
        {"beta": positive("beta", beta), "margin": finite("margin", margin)},
        log_prob_chosen=log_prob_chosen,
        log_prob_rejected=log_prob_rejected,
    )
    return weighted_mean(gap_terms(_simpo(beta, margin), chosen, rejected), weights)


def expected_simpo_loss(
    log_policy: LogProbs, log_chosen: LogProbs, log_rejected: LogProbs, beta: Number, margin: Number
) -> PerRow:
    """The SimPO loss of independent pairs: -E_chosen E_rejected[log σ(β (log policy(y+) - log policy(y-)) - γ)].

    Args:
        log_policy: policy, `[..., outcomes]`.
        log_chosen: distribution of the preferred answers y+, `[..., outcomes]`.
        log_rejected: distribution of the rejected answers y-, `[..., outcomes]`.
        beta: scale β > 0, a number or `[...]`.
        margin: target margin γ, a number or `[...]`.

    Returns:
        Loss in nats, `[...]`, in [0, inf]; inf where the policy never gives a preferred answer.

    Raises:
        ValueError: `beta` is not above 0, or `margin` is NaN or infinite.

    Example:
        >>> import jax.numpy as jnp
        >>> log_policy, log_chosen, log_rejected = jnp.log(jnp.array([[0.5, 0.5], [1.0, 0.0], [0.0, 1.0]]))
        >>> print(f"{expected_simpo_loss(log_policy, log_chosen, log_rejected, beta=1.0, margin=1.0):.4f}")
        1.3133

    References:
        Meng, Xia, Chen, "SimPO", arXiv:2405.14734, eq. 6 (answers of length one); with β = γ = 1 the variant of
        Shenfeld, Pari, Agrawal, "RL's Razor", arXiv:2509.04259, section 4.
    """
    log_policy, log_chosen, log_rejected, beta, margin = outcome_arrays(
        {"beta": positive("beta", beta), "margin": finite("margin", margin)},
        log_policy=log_policy,
        log_chosen=log_chosen,
        log_rejected=log_rejected,
    )
    loss = _simpo(beta[..., None], margin[..., None])
    pairs = gap_terms(loss, log_policy[..., :, None], log_policy[..., None, :])
    pairs = jnp.where(log_chosen[..., :, None] != -jnp.inf, pairs, 0.0)
    return expectation(log_chosen, mass_times(log_rejected[..., None, :], pairs).sum(-1))


def _simpo(
    beta: Float[Array, "..."], margin: Float[Array, "..."]
) -> Callable[[Float[Array, "..."]], Float[Array, "..."]]:
    """The SimPO loss of a gap."""
    return lambda gap: jax.nn.softplus(margin - beta * gap)


class Displacement(NamedTuple):
    """How fast the log-probability of the chosen answer rises under a unit push of either loss on the logits.

    Attributes:
        preference: by a loss of the gap, `[...]`; negative where it displaces the chosen answer.
        nll: by its negative log-likelihood, `[...]`, >= 0.
    """

    preference: Float[Array, "*batch"]
    nll: Float[Array, "*batch"]

    def sufficient_alpha(self, push: Number) -> Float[Array, "*batch"]:
        """The least weight of the NLL term under which the chosen answer does not lose: 0 if it gains anyway.

        Args:
            push: -∂loss / ∂gap of the preference loss; DPO's is beta σ(-beta gap).

        Returns:
            alpha / |y+|, `[...]`, in [0, inf].
        """
        needed = jnp.maximum(-jnp.asarray(push, self.nll.dtype) * self.preference, 0.0)
        return jnp.where(needed > 0, needed / jnp.where(needed > 0, self.nll, 1.0), 0.0)


def displacement(
    log_policy: LogProbs, kernel: Float[Array, "*#batch outcomes outcomes"], chosen: int, rejected: int
) -> Displacement:
    """Whether a preference loss lowers the answer that it prefers, from the kernel K = J Jᵀ of the logits' Jacobian.

    Under a small gradient step on loss(gap) + alpha NLL / |y+| log policy(y+) rises at the rate
    (-∂loss / ∂gap) (e+ - policy)ᵀ K (e+ - e-) + (alpha / |y+|) (e+ - policy)ᵀ K (e+ - policy). A softmax table has
    K = 1, and 1 - policy(y+) + policy(y-) > 0: no displacement. Logits U h with the features h trained have K = U Uᵀ,
    and the chosen answer falls iff (u+ - ū)·(u- - u+) > 0, with ū = E_policy u; with U trained, too, K = U Uᵀ + |h|² 1.

    Args:
        log_policy: policy, `[..., outcomes]`.
        kernel: K, `[..., outcomes, outcomes]`: positive semidefinite.
        chosen: outcome y+, static.
        rejected: outcome y-, static.

    Returns:
        The `Displacement`.

    Raises:
        ValueError: the kernel is not `[..., outcomes, outcomes]`, or the answers are equal or out of range.

    Example:
        >>> import jax.numpy as jnp
        >>> log_policy, features = jnp.log(jnp.array([0.4, 0.4, 0.2])), jnp.array([[1.0], [1.5], [-1.0]])
        >>> print(f"{displacement(log_policy, jnp.eye(3), 0, 1).preference:.2f}")  # a table
        1.00
        >>> found = displacement(log_policy, features @ features.T, 0, 1)
        >>> print(f"{found.preference:.2f} {found.nll:.2f} {found.sufficient_alpha(push=0.05):.3f}")
        -0.10 0.04 0.125

    References:
        Razin et al., "Unintentional Unalignment: Likelihood Displacement in Direct Preference Optimization",
        arXiv:2410.08847, theorems 1 and 2 (one token).
    """
    (log_policy,), kernel = outcome_arrays(log_policy=log_policy), floating_array("kernel", kernel)
    num = log_policy.shape[-1]
    if kernel.shape[-2:] != (num, num):
        raise ValueError(f"kernel must be [..., {num}, {num}], got shape {kernel.shape}")
    if not (0 <= chosen < num and 0 <= rejected < num and chosen != rejected):
        raise ValueError(f"chosen and rejected must be two of {num} outcomes, got {chosen} and {rejected}")
    unit = jnp.eye(num, dtype=log_policy.dtype)
    rise = jnp.expand_dims(unit[chosen], range(log_policy.ndim - 1)) - jnp.exp(log_policy)
    pull = jnp.einsum("...i,...ij->...j", rise, kernel)
    return Displacement(pull[..., chosen] - pull[..., rejected], (pull * rise).sum(-1))


def _dpo(gap: Float[Array, "..."], beta: Float[Array, "..."]) -> Float[Array, "..."]:
    """The DPO loss of a gap."""
    return jax.nn.softplus(-beta * gap)


def _ratio_loss(
    loss: Callable[[Float[Array, "..."], Float[Array, "..."]], Float[Array, "..."]],
    log_ratio_chosen: Pairs,
    log_ratio_rejected: Pairs,
    beta: Number,
    weights: Weights,
    score: Callable[[Float[Array, "..."]], Float[Array, "..."]] = lambda log_ratio: log_ratio,
) -> PerRow:
    """The weighted mean of loss(gap of the scores of log-ratios, beta); an impossible answer scores -inf."""
    chosen, rejected, weights, beta = _weighed(
        weights,
        {"beta": positive("beta", beta)},
        log_ratio_chosen=log_ratio_chosen,
        log_ratio_rejected=log_ratio_rejected,
    )
    scores = (jnp.where(x != -jnp.inf, score(jnp.where(x != -jnp.inf, x, 0.0)), -jnp.inf) for x in (chosen, rejected))
    return weighted_mean(gap_terms(lambda gap: loss(gap, beta), *scores), weights)


def _weighed(weights: Weights, per_row: dict[str, Number] | None = None, **arrays: Array) -> tuple[Array, ...]:
    """The arrays, the weights after them, all alike unless given, and the numbers."""
    first = jnp.asarray(next(iter(arrays.values())))
    weights = jnp.ones(first.shape[-1:], first.dtype) if weights is None else weights
    return pair_arrays(per_row, **arrays, weights=weights)
