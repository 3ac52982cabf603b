"""Parameters to log-policy: the softmax table, its linear form with shared features, the Gaussian mixture."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from rlrazor.checks import boolean_array, floating_array, integer_array, outcome_arrays


def softmax_policy(logits: Float[Array, "*batch outcomes"]) -> Float[Array, "*batch outcomes"]:
    """The softmax table: log pi(y) = logits(y) - log Σ exp(logits).

    Args:
        logits: one free number an outcome, `[..., outcomes]`; `-inf` excludes an outcome.

    Returns:
        Normalised log-probabilities, `[..., outcomes]`.

    Raises:
        TypeError, ValueError: see `rlrazor.checks.outcome_arrays`.

    Example:
        >>> import jax.numpy as jnp
        >>> jnp.exp(softmax_policy(jnp.zeros(4))).tolist()
        [0.25, 0.25, 0.25, 0.25]
    """
    (logits,) = outcome_arrays(logits=logits)
    return jax.nn.log_softmax(logits)


def linear_softmax_policy(
    weights: Float[Array, "features outcomes"], features: Float[Array, "*prompts features"]
) -> Float[Array, "*prompts outcomes"]:
    """The linear softmax: log pi(y | x) = weights_y · features(x) - log Z(x).

    A gradient step at prompt x moves the logits at another prompt x' in proportion to features(x) · features(x'): with
    orthogonal features it is a softmax table for every prompt, with shared ones prompts learn from and forget through
    each other.

    Args:
        weights: one column an outcome, `[features, outcomes]`.
        features: of each prompt, `[..., features]`.

    Returns:
        Normalised log-probabilities, `[..., outcomes]`.

    Raises:
        TypeError: an array is not of a floating dtype.
        ValueError: feature counts differ.

    Example:
        >>> import jax.numpy as jnp
        >>> log_policy = linear_softmax_policy(jnp.array([[1.0, 0.0]]), jnp.array([[0.0], [2.0]]))
        >>> print(*(f"{p:.4f}" for p in jnp.exp(log_policy[:, 0])))
        0.5000 0.8808
    """
    weights, features = floating_array("weights", weights), floating_array("features", features)
    if weights.ndim != 2 or features.shape[-1:] != weights.shape[:1]:
        raise ValueError(f"weights {weights.shape} must be [features, outcomes] for features {features.shape}")
    return jax.nn.log_softmax(features @ weights)


def point_mass(
    outcome: Int[Array, "*batch"] | int, num_outcomes: int, dtype: DTypeLike = float
) -> Float[Array, "*batch outcomes"]:
    """The policy that always gives one outcome: log-probability 0 for it, `-inf` for all others.

    Args:
        outcome: indices in [0, num_outcomes), such as token ids, `[...]`.
        num_outcomes: static.
        dtype: of the log-probabilities, floating.

    Returns:
        Normalised log-probabilities, `[..., outcomes]`; `-inf` throughout where the index is out of range.

    Raises:
        TypeError: `outcome` is not of an integer dtype.

    Example:
        >>> import jax.numpy as jnp
        >>> point_mass(jnp.array([2, 0]), 3).tolist()
        [[-inf, -inf, 0.0], [0.0, -inf, -inf]]
    """
    return jnp.log(jax.nn.one_hot(integer_array("outcome", outcome), num_outcomes, dtype=dtype))


def log_prob(log_policy: Float[Array, "*#batch outcomes"], outcome: Int[Array, "*#batch"]) -> Float[Array, "*batch"]:
    """The log-probability of what was taken: log pi(y), one outcome for each policy, such as the token at a position.

    Args:
        log_policy: normalised log-probabilities, `[..., outcomes]`; `log_policy[..., None, :]` for several samples of
            each policy.
        outcome: indices in [0, outcomes), `[...]`.

    Returns:
        Log-probabilities, `[...]`; NaN where the index is out of range.

    Raises:
        TypeError: `outcome` is not of an integer dtype, or an array is not floating.
        ValueError: batch axes do not broadcast.

    Example:
        >>> import jax.numpy as jnp
        >>> log_policy = jnp.log(jnp.array([[0.5, 0.5], [0.9, 0.1]]))
        >>> print(*(f"{p:.1f}" for p in jnp.exp(log_prob(log_policy, jnp.array([1, 0])))))
        0.5 0.9
    """
    (log_policy,), index = outcome_arrays(log_policy=log_policy), integer_array("outcome", outcome)
    try:
        shape = jnp.broadcast_shapes(log_policy.shape[:-1], index.shape)
    except ValueError:
        raise ValueError(
            f"batch axes do not broadcast: log_policy {log_policy.shape[:-1]}, outcome {index.shape}"
        ) from None
    known = (index >= 0) & (index < log_policy.shape[-1])
    rows = jnp.broadcast_to(log_policy, (*shape, log_policy.shape[-1]))
    taken = jnp.broadcast_to(jnp.where(known, index, 0), shape)[..., None]
    return jnp.where(known, jnp.take_along_axis(rows, taken, axis=-1)[..., 0], jnp.nan)


def sequence_log_prob(
    log_prob: Float[Array, "*#batch tokens"], mask: Bool[Array, "*#batch tokens"]
) -> Float[Array, "*batch"]:
    """The log-probability of an answer made of tokens: Σ_t log pi(y_t | y_<t), over the tokens of the answer.

    This is the sample of the losses in `rlrazor.objectives`.

    Args:
        log_prob: of each token, `[..., tokens]`.
        mask: which tokens belong to the answer, `[..., tokens]`; the others, padding and prompt, do not count, whatever
            their log-probability is.

    Returns:
        Log-probabilities, `[...]`; 0 for an answer without tokens.

    Raises:
        TypeError: `mask` is not boolean, or `log_prob` is not floating.
        ValueError: token counts differ, or batch axes do not broadcast.

    Example:
        >>> import jax.numpy as jnp
        >>> token_log_prob = jnp.log(jnp.array([[0.5, 0.5, 0.1], [0.5, 0.1, 0.1]]))
        >>> mask = jnp.array([[True, True, False], [True, False, False]])
        >>> print(*(f"{p:.2f}" for p in jnp.exp(sequence_log_prob(token_log_prob, mask))))
        0.25 0.50
    """
    log_prob, counts = floating_array("log_prob", log_prob), boolean_array("mask", mask)
    if log_prob.ndim == 0 or log_prob.shape[-1:] != counts.shape[-1:]:
        raise ValueError(f"log_prob {log_prob.shape} and mask {counts.shape} must have the same last axis, of tokens")
    return jnp.where(counts, log_prob, 0.0).sum(-1)


def inverse_cdf(
    log_policy: Float[Array, "*#batch outcomes"], quantiles: Float[Array, "*#batch samples"]
) -> Int[Array, "*batch samples"]:
    """The outcomes at the given quantiles: a sample of the policy where these are uniform.

    Cheaper than Gumbel noise for many samples of few outcomes, and common quantiles couple the samples of several
    policies.

    Args:
        log_policy: normalised log-probabilities, `[..., outcomes]`.
        quantiles: in [0, 1), `[..., samples]`.

    Returns:
        Outcomes, `[..., samples]`; they have no derivative.

    Raises:
        TypeError, ValueError: see `rlrazor.checks.outcome_arrays`.

    Example:
        >>> import jax.numpy as jnp
        >>> inverse_cdf(jnp.log(jnp.array([0.2, 0.5, 0.3])), jnp.array([0.1, 0.3, 0.9])).tolist()
        [0, 1, 2]
    """
    (log_policy,), quantiles = outcome_arrays(log_policy=log_policy), floating_array("quantiles", quantiles)
    edges = jnp.cumsum(jnp.exp(jax.lax.stop_gradient(log_policy)), axis=-1)[..., None, :-1]
    return (quantiles[..., None] >= edges).sum(-1)


class GaussianMixture(NamedTuple):
    """Unconstrained parameters of a mixture of Gaussians on the line.

    Attributes:
        logits: unnormalised log-weights, `[components]`.
        means: `[components]`.
        log_scales: logs of the standard deviations, `[components]`.
    """

    logits: Float[Array, " components"]
    means: Float[Array, " components"]
    log_scales: Float[Array, " components"]


def gaussian_log_density(
    x: Float[Array, "*#batch"], mean: Float[Array, "*#batch"], scale: Float[Array, "*#batch"]
) -> Float[Array, "*batch"]:
    """Log-density of the normal distribution N(mean, scale²) at x.

    Args:
        x: points, `[...]`.
        mean: `[...]`.
        scale: standard deviation > 0, `[...]`.

    Returns:
        Log-density in nats, `[...]`.

    Example:
        >>> import jax.numpy as jnp
        >>> print(f"{gaussian_log_density(jnp.array(1.0), jnp.array(1.0), jnp.array(2.0)):.4f}")
        -1.6121
    """
    return jax.scipy.stats.norm.logpdf(x, mean, scale)


def mixture_log_density(params: GaussianMixture, x: Float[Array, " points"]) -> Float[Array, " points"]:
    """Log-density of the mixture, log Σ_k w_k N(x; mean_k, scale_k²) with w = softmax(logits).

    Args:
        params: the mixture.
        x: points, `[points]`.

    Returns:
        Log-density in nats, `[points]`.

    Example:
        >>> import jax.numpy as jnp
        >>> one = GaussianMixture(jnp.zeros(1), jnp.zeros(1), jnp.zeros(1))
        >>> print(f"{mixture_log_density(one, jnp.array([0.0]))[0]:.4f}")
        -0.9189
    """
    log_weights = jax.nn.log_softmax(params.logits)
    components = gaussian_log_density(x[:, None], params.means[None], jnp.exp(params.log_scales)[None])
    return jax.nn.logsumexp(log_weights[None] + components, axis=-1)


def mixture_policy(params: GaussianMixture, grid: Float[Array, " outcomes"]) -> Float[Array, " outcomes"]:
    """The mixture as a policy over the points of an evenly spaced grid, normalised on the grid.

    The family of one Gaussian is exponential on any grid (statistics x and x²), so its moment-matching properties
    hold exactly there, whatever the spacing.

    Args:
        params: the mixture.
        grid: outcomes, `[outcomes]`.

    Returns:
        Normalised log-probabilities, `[outcomes]`.

    Raises:
        TypeError, ValueError: see `rlrazor.checks.outcome_arrays`.

    Example:
        >>> import jax.numpy as jnp
        >>> one = GaussianMixture(jnp.zeros(1), jnp.array([1.0]), jnp.zeros(1))
        >>> log_policy = mixture_policy(one, jnp.linspace(-9.0, 11.0, 401))
        >>> print(f"{jnp.exp(log_policy) @ jnp.linspace(-9.0, 11.0, 401):.4f}")
        1.0000
    """
    (grid,) = outcome_arrays(grid=grid)
    return jax.nn.log_softmax(mixture_log_density(params, grid))
