"""The laws of plain policy gradient on the success rate of one prompt, beside those of the natural gradient.

The flow on the logits θ shifts exp(-θ) by the same amount for all correct answers and by another for all wrong ones,
and keeps the sum of θ. Conventions as in `rlrazor.divergences`.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rlrazor.divergences import kl_divergence
from rlrazor.flows import reward_flow, success_gradient_path
from rlrazor.forgetting import log_success
from rlrazor.policies import softmax_policy
from rlrazor.tilting import condition


class Law(NamedTuple):
    """What one metric does with the weights of the answers.

    Attributes:
        conserved: exp(-θ_top) - exp(-θ_j) of other correct j, constant in the Euclidean flow, `[times, pairs]`.
        error: the largest distance of a probability from the closed form of the Euclidean flow, a scalar.
        limit: reverse drift in the end, in nats, a scalar.
        itakura_saito: Σ w / w0 - log(w / w0) - 1, of the weights w = exp(θ) of the Euclidean flow, and of the base's
            ratios with the same totals on the correct and on the wrong answers, `[times]`; the former is the least.
    """

    conserved: Float[Array, "times pairs"]
    error: Float[Array, ""]
    limit: Float[Array, ""]
    itakura_saito: Float[Array, " times"]


class Laws(NamedTuple):
    """Both metrics.

    Attributes:
        log_policy: the closed form where the Euclidean flow is, `[times, outcomes]`.
        euclidean: plain policy gradient.
        natural: the natural gradient.
    """

    log_policy: Float[Array, "times outcomes"]
    euclidean: Law
    natural: Law


def laws_of_success(
    log_ref: Float[Array, " outcomes"],
    accept: Bool[Array, " outcomes"],
    logits: Float[Array, "times outcomes"],
    times: Float[Array, " times"],
    top: Int[Array, ""],
    others: Int[Array, " pairs"],
) -> Laws:
    """What policy gradient conserves and minimizes, where it ends, and the same of the natural gradient.

    Args:
        log_ref: base, where both flows start, `[outcomes]`.
        accept: the success set S, boolean, `[outcomes]`.
        logits: plain policy gradient, integrated, `[times, outcomes]`.
        times: when, `[times]`.
        top: the likeliest correct answer, or one of them.
        others: the other correct answers, `[pairs]`.

    Returns:
        The `Laws`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> log_ref, accept = jnp.log(jnp.array([0.5, 0.2, 0.3])), jnp.array([True, True, False])
        >>> laws = jax.jit(laws_of_success)(log_ref, accept, log_ref[None], jnp.zeros(1), jnp.array(0), jnp.array([1]))
        >>> print(f"{laws.euclidean.conserved[0, 0]:.2f} {laws.euclidean.limit:.3f} {laws.natural.limit:.3f}")
        -3.00 0.693 0.357

    References:
        Mei et al., "On the Global Convergence Rates of Softmax Policy Gradient Methods", arXiv:2005.06392 (the flow);
        Itakura, Saito, "Analysis Synthesis Telephony Based on the Maximum Likelihood Method", 1968 (the divergence).
    """
    natural = reward_flow(log_ref, accept.astype(log_ref.dtype), times)
    natural += log_ref.mean() - natural.mean(-1, keepdims=True)  # the logits, whose sum every flow keeps
    progress = jnp.clip(-jnp.expm1(log_ref[top] - logits[:, top]), 0.0, 1.0)
    closed_form = success_gradient_path(log_ref, accept, jnp.append(progress, 1.0))
    gained, lost = (log_success(logits, s)[:, None] - log_success(log_ref, s) for s in (accept, ~accept))

    def law(
        theta: Float[Array, "times outcomes"], end: Float[Array, " outcomes"], log_ratio: Float[Array, "times outcomes"]
    ) -> Law:
        return Law(
            conserved=jnp.exp(-theta[:, top])[:, None] - jnp.exp(-theta[:, others]),
            error=jnp.abs(jnp.exp(closed_form[:-1]) - jnp.exp(softmax_policy(theta))).max(),
            limit=kl_divergence(end, log_ref),
            itakura_saito=(jnp.expm1(log_ratio) - log_ratio).sum(-1),
        )

    return Laws(
        log_policy=closed_form[:-1],
        euclidean=law(logits, closed_form[-1], logits - log_ref[None]),
        natural=law(natural, condition(log_ref, accept), jnp.where(accept[None], gained, lost)),
    )
