"""A policy whose KL coefficient is controlled, and one whose reference is synchronised.

The policy relaxes to the optimum of its current coefficient along the e-geodesic, as the natural gradient does:
log policy <- (1 - g) log policy + g log tilt(ref, reward, beta) + const. From the reference it stays on the tilt path,
policy = tilt at strength s, so that with b = log beta the loop has two poles. Around its rest, where KL = target,
the relative deviations (u, b) of s and beta move by

    u' = (1 - g) u - g b,   b' = b + κ u   (the KL before the step)   or   b' = b + κ u'   (the KL after it),

κ = K Var(reward) / (beta² target), with K the controller's gain and the variance under the optimum.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float, Key

from rlrazor._numerics import expectation
from rlrazor.checks import place_of
from rlrazor.divergences import kl_divergence
from rlrazor.geometry import e_geodesic
from rlrazor.objectives import adapted_beta
from rlrazor.policies import inverse_cdf
from rlrazor.tilting import tilt, tilt_to_kl

BEFORE, AFTER = "before the step", "after the step"
LogPolicy = Float[Array, " outcomes"]
Number = float | Float[Array, ""]


class Loop(NamedTuple):
    """A controlled training.

    Attributes:
        beta: the coefficient before each update, and at the end, `[updates + 1]`.
        kl: KL(policy || ref) there in nats, exact, `[updates + 1]`.
    """

    beta: Float[Array, " times"]
    kl: Float[Array, " times"]


class Rest(NamedTuple):
    """Where a controlled training rests.

    Attributes:
        beta: the coefficient whose optimum has the target KL, a scalar.
        log_policy: that optimum, `[outcomes]`.
        sensitivity: Var(reward) / (beta² target), so that κ = gain · sensitivity; 2 for small KL, a scalar.
    """

    beta: Float[Array, ""]
    log_policy: LogPolicy
    sensitivity: Float[Array, ""]


def rest_of(log_ref: LogPolicy, reward: LogPolicy, target: Number) -> Rest:
    """The rest of the loop, and how strongly the KL answers there.

    Args:
        log_ref: reference policy, `[outcomes]`.
        reward: `[outcomes]`.
        target: KL in nats.

    Returns:
        The `Rest`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> rest = jax.eval_shape(rest_of, jnp.log(jnp.array([0.5, 0.5])), jnp.array([0.0, 1.0]), 0.1)
        >>> rest.log_policy.shape
        (2,)
    """
    solved = tilt_to_kl(log_ref, reward, target)
    deviation = reward - expectation(solved.log_policy, reward)
    variance = expectation(solved.log_policy, deviation**2)
    return Rest(solved.beta, solved.log_policy, variance / (solved.beta**2 * target))


def closed_loop(
    log_ref: LogPolicy,
    reward: LogPolicy,
    log_policy: LogPolicy,
    beta: Number,
    target: Number,
    gain: Number,
    relaxation: Number,
    clip: Number,
    key: Key[Array, ""],
    *,
    measured: str,
    num_samples: int | None,
    num_updates: int,
) -> Loop:
    """A training under Ziegler's controller.

    Args:
        log_ref: reference policy, `[outcomes]`.
        reward: `[outcomes]`.
        log_policy: where it starts, `[outcomes]`.
        beta: with which coefficient.
        target: of the controller, in nats.
        gain: of the controller.
        relaxation: share g of the way to the optimum in an update, in (0, 1].
        clip: of the controller's relative error.
        key: randomness of the samples.
        measured: whether the controller sees the KL of the policy before the step, whose samples the step trains on,
            as in released code, or after it, static.
        num_samples: of which the controller's KL is the mean log-ratio; None for the exact KL, static.
        num_updates: static.

    Returns:
        The `Loop`.

    Raises:
        ValueError: `measured` is unknown.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> log_ref, reward = jnp.log(jnp.array([0.5, 0.5])), jnp.array([0.0, 1.0])
        >>> sizes = dict(measured=BEFORE, num_samples=None, num_updates=200)
        >>> loop = closed_loop(log_ref, reward, log_ref, 1.0, 0.1, 0.1, 0.5, 0.2, jax.random.key(0), **sizes)
        >>> print(f"{loop.kl[0]:.3f} {loop.kl[-1]:.3f}")
        0.000 0.100
    """
    after = place_of("time of measurement", measured, (BEFORE, AFTER)) == 1

    def kl_of(log_policy: LogPolicy, key: Key[Array, ""]) -> Float[Array, ""]:
        if num_samples is None:
            return kl_divergence(log_policy, log_ref)
        answers = inverse_cdf(log_policy, jax.random.uniform(key, (num_samples,)))
        return (log_policy - log_ref)[answers].mean()

    def update(state: tuple[LogPolicy, Float[Array, ""]], key: Key[Array, ""]) -> tuple[tuple[Array, Array], Loop]:
        current, beta = state
        following = e_geodesic(current, tilt(log_ref, reward, beta), relaxation)
        seen = kl_of(following if after else current, key)
        record = Loop(beta, kl_divergence(current, log_ref))
        return (following, adapted_beta(beta, seen, target, gain, clip)), record

    start = log_policy, jnp.asarray(beta, log_policy.dtype)
    (end, last), path = jax.lax.scan(update, start, jax.random.split(key, num_updates))
    return Loop(jnp.append(path.beta, last), jnp.append(path.kl, kl_divergence(end, log_ref)))


def loop_roots(kappa: Number, relaxation: Number, measured: str) -> Complex[Array, "2"]:
    """The roots of the linearised loop: it is stable iff both lie in the unit circle, and rings iff they are complex.

    Before the step they are those of λ² - (2 - g) λ + 1 - g + g κ: stable iff κ < 1 for every g, ringing iff κ > g / 4.
    After it, of λ² - (2 - g - g κ) λ + 1 - g: stable iff κ < 2 (2 - g) / g. A policy that is always at its optimum,
    g = 1, then has the single root 1 - κ.

    Args:
        kappa: κ, the loop gain.
        relaxation: g, in (0, 1].
        measured: which KL the controller sees.

    Returns:
        Both roots, complex, `[2]`.

    Raises:
        ValueError: `measured` is unknown.

    Example:
        >>> print(*(f"{abs(root):.3f}" for root in loop_roots(1.0, 0.3, BEFORE)))
        1.000 1.000
    """
    after = place_of("time of measurement", measured, (BEFORE, AFTER)) == 1
    trace = 2 - relaxation - (relaxation * kappa if after else 0.0)
    product = 1 - relaxation + (0.0 if after else relaxation * kappa)
    return _roots_of(jnp.asarray(trace), jnp.asarray(product))


def measured_roots(deviation: Float[Array, " times"]) -> Complex[Array, "2"]:
    """The two roots that a series obeys, x_{k+2} = (λ + λ') x_{k+1} - λ λ' x_k, by least squares.

    Args:
        deviation: the series, `[times]`, of at least four.

    Returns:
        Both roots, complex, `[2]`.

    Example:
        >>> import jax.numpy as jnp
        >>> series = 0.5 ** jnp.arange(9.0) + 0.9 ** jnp.arange(9.0)
        >>> print(*(f"{root.real:.2f}" for root in measured_roots(series)))
        0.90 0.50
    """
    rows = jnp.stack([deviation[1:-1], -deviation[:-2]], axis=-1)
    trace, product = jnp.linalg.lstsq(rows, deviation[2:], rcond=1e-9)[0]
    return _roots_of(trace, product)


def _roots_of(trace: Float[Array, ""], product: Float[Array, ""]) -> Complex[Array, "2"]:
    """The roots of λ² - trace λ + product, the larger real part first."""
    root = jnp.sqrt(jax.lax.complex(trace**2 / 4 - product, jnp.zeros_like(trace)))
    return jax.lax.complex(trace / 2, jnp.zeros_like(trace)) + jnp.stack([root, -root])


def synchronized_drift(
    log_ref: LogPolicy, reward: LogPolicy, beta: Number, share: Number, num_syncs: int
) -> Float[Array, " times"]:
    """Drift KL(policy || first reference) when the reference follows the policy: ref <- ref^(1 - a) policy^a / Z.

    The policy is the optimum for its reference at every synchronisation. With a = 1, a hard copy, that is mirror
    descent: after j copies policy = ref exp((j + 1) reward / beta) / Z. With a share a it is the same at strength
    (1 + a j) / beta: no share above 0 anchors anything, it only slows.

    Args:
        log_ref: the first reference, `[outcomes]`.
        reward: `[outcomes]`.
        beta: KL coefficient.
        share: a in [0, 1], of the policy in the new reference.
        num_syncs: static.

    Returns:
        KL before any and after every synchronisation, `[num_syncs + 1]`.

    Example:
        >>> import jax.numpy as jnp
        >>> log_ref, reward = jnp.log(jnp.array([0.5, 0.5])), jnp.array([0.0, 1.0])
        >>> print(*(f"{kl:.3f}" for kl in synchronized_drift(log_ref, reward, 1.0, 1.0, 2)))
        0.111 0.328 0.502

    References:
        Gorbatovski et al., "Learn Your Reference Model for Real Good Alignment", arXiv:2404.09656 (TR-DPO).
    """

    def sync(current: LogPolicy, _: None) -> tuple[LogPolicy, Float[Array, ""]]:
        log_policy = tilt(current, reward, beta)
        return e_geodesic(current, log_policy, share), kl_divergence(log_policy, log_ref)

    drift: Float[Array, " times"] = jax.lax.scan(sync, log_ref, None, length=num_syncs + 1)[1]
    return drift
