"""Two small families in which exact EM on the success rate may miss the closest policy that always succeeds.

Alternating projections minimize KL(target || policy) over the family, and what is asked for is the least
KL(policy || ref): on all distributions these agree, in a smaller family they need not. Conventions as in
`rlrazor.divergences`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from rlrazor.divergences import kl_divergence
from rlrazor.em import alternate, fit_mixture, mixture
from rlrazor.forgetting import success_rate
from rlrazor.geometry import m_geodesic, m_projection
from rlrazor.policies import softmax_policy


class Path(NamedTuple):
    """Policies in the plane of success and reverse drift.

    Attributes:
        success: J = policy(S), `[points]`.
        drift: KL(policy || ref) in nats, `[points]`.
    """

    success: Float[Array, " points"]
    drift: Float[Array, " points"]


class Exponential(NamedTuple):
    """The family ref(y) exp(λ y) / Z, and EM in it.

    Attributes:
        family: its members, by the natural parameter λ.
        em: EM from the reference on, a row a step.
        low_end: KL(end || ref) of the end at λ = -inf, the first outcome alone, a scalar.
        high_end: the same at λ = inf, the last outcome alone.
    """

    family: Path
    em: Path
    low_end: Float[Array, ""]
    high_end: Float[Array, ""]


class Mixtures(NamedTuple):
    """The mixtures w f_1 + (1 - w) f_2, which always succeed, and where EM over three components ends.

    Attributes:
        drift: KL(mixture || ref) in nats, by w, `[points]`.
        closest_share: the w of the least drift among them, a scalar.
        least_drift: the least drift.
        em_share: the weight of the first component where EM ends.
        em_drift: the drift there.
        em_success: the success rate there, 1 in the limit.
    """

    drift: Float[Array, " points"]
    closest_share: Float[Array, ""]
    least_drift: Float[Array, ""]
    em_share: Float[Array, ""]
    em_drift: Float[Array, ""]
    em_success: Float[Array, ""]


def exponential_family(
    log_ref: Float[Array, " outcomes"],
    accept: Bool[Array, " outcomes"],
    strengths: Float[Array, " points"],
    num_steps: int,
) -> Exponential:
    """EM in the exponential family ref(y) exp(λ y) / Z with statistic y = 0, 1, ..., in which both ends succeed.

    Where an outcome between the ends is wrong, only the ends always succeed, and EM climbs to one of them, which need
    not be the closer one.

    Args:
        log_ref: base of the family, `[outcomes]`.
        accept: the success set S, boolean, `[outcomes]`.
        strengths: the λ at which the family is wanted, `[points]`.
        num_steps: alternations, static.

    Returns:
        The `Exponential`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> log_ref, accept = jnp.log(jnp.array([0.15, 0.50, 0.15, 0.20])), jnp.array([True, True, False, True])
        >>> found = jax.jit(exponential_family, static_argnums=3)(log_ref, accept, jnp.zeros(1), 10)
        >>> print(f"{found.em.success[0]:.3f} {found.em.success[-1]:.3f} {found.low_end:.3f} {found.high_end:.3f}")
        0.850 0.974 1.897 1.609

    References:
        Shenfeld, Pari, Agrawal, "RL's Razor", arXiv:2509.04259, Proposition A.4, to which it is a counterexample.
    """
    statistic = jnp.arange(log_ref.size, dtype=log_ref.dtype)

    def member(strength: Float[Array, " 1"]) -> Float[Array, " outcomes"]:
        return softmax_policy(log_ref + strength * statistic)

    def project(log_target: Float[Array, " outcomes"], _: Float[Array, " 1"]) -> Float[Array, " 1"]:
        return m_projection(log_target, log_ref, statistic[:, None]).multipliers

    def path(log_policy: Float[Array, "points outcomes"]) -> Path:
        return Path(success_rate(log_policy, accept), kl_divergence(log_policy, log_ref))

    em = alternate(project, jnp.zeros(1, log_ref.dtype), accept, num_steps, policy=member)
    return Exponential(path(jax.vmap(member)(strengths[:, None])), path(em.log_policy), -log_ref[0], -log_ref[-1])


def mixtures(
    log_components: Float[Array, "3 outcomes"],
    log_weights: Float[Array, "3"],
    shares: Float[Array, " points"],
    num_steps: int,
    num_inner: int,
) -> Mixtures:
    """EM over the weights of three components, of which the third alone can produce the last outcome, a failure.

    So all mixtures of the first two always succeed. EM ends at one of them, but not at the one of least drift.

    Args:
        log_components: log f, `[3, outcomes]`; the last outcome is impossible in the first two.
        log_weights: log w of the base, normalised, `[3]`.
        shares: the w to search for the least drift, `[points]`.
        num_steps: alternations, static.
        num_inner: updates of the weights in each M-step, static.

    Returns:
        The `Mixtures`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> components = [[0.80, 0.15, 0.05, 0.0], [0.05, 0.05, 0.90, 0.0], [0.05, 0.60, 0.05, 0.30]]
        >>> log_weights, shares = jnp.log(jnp.array([0.05, 0.15, 0.80])), jnp.linspace(0.0, 1.0, 10001)
        >>> search = jax.jit(mixtures, static_argnums=(3, 4))
        >>> found = search(jnp.log(jnp.array(components)), log_weights, shares, 40, 500)
        >>> print(f"EM at {found.em_share:.4f}, {found.em_drift:.5f}; least {found.least_drift:.5f}")
        EM at 0.4627, 0.97432; least 0.97327

    References:
        Shenfeld, Pari, Agrawal, "RL's Razor", arXiv:2509.04259, Theorem 5.2, to which it is a counterexample.
    """
    accept = jnp.arange(log_components.shape[-1]) < log_components.shape[-1] - 1

    def member(log_weights: Float[Array, "3"]) -> Float[Array, " outcomes"]:
        return mixture(log_weights, log_components)

    def project(log_target: Float[Array, " outcomes"], log_weights: Float[Array, "3"]) -> Float[Array, "3"]:
        return fit_mixture(log_target, log_weights, log_components, num_inner)

    em, log_ref = alternate(project, log_weights, accept, num_steps, policy=member), member(log_weights)
    log_first, log_second, _ = log_components
    drift = kl_divergence(m_geodesic(log_second, log_first, shares), log_ref)
    end, closest = em.log_policy[-1], drift.argmin()
    return Mixtures(
        drift=drift,
        closest_share=shares[closest],
        least_drift=drift[closest],
        em_share=jnp.exp(em.params[-1, 0]),
        em_drift=kl_divergence(end, log_ref),
        em_success=success_rate(end, accept),
    )
