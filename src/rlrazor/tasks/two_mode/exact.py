"""Exact: the gradient flow of KL itself, instead of updates on samples of one component.

The slow factor is a choice of metric here, and the target is what an update on samples leaves open: whether it knows
the old mode.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from rlrazor._trees import rows_by_name
from rlrazor.divergences import kl_divergence
from rlrazor.flows import gradient_flow
from rlrazor.policies import GaussianMixture, mixture_policy
from rlrazor.tasks.two_mode.world import (
    DIRECTIONS,
    FORWARD,
    REVERSE,
    Mixture,
    Progress,
    Scalar,
    Setting,
    gain_and_drop,
    path_gain_and_drop,
)
from rlrazor.tilting import implied_reward, tilt

NEW_MODE, TILTED = TARGETS = "new mode only", "tilted reference"


class Coordinates(NamedTuple):
    """Unconstrained coordinates of two modes; `old` is what the slow factor slows down.

    Attributes:
        old: logit of the old weight, old mean, old log scale, `[3]`.
        new: new mean, new log scale, `[2]`.
    """

    old: Float[Array, "*path 3"]
    new: Float[Array, "*path 2"]


def coordinates(params: Mixture) -> Coordinates:
    """The coordinates of a mixture of two.

    Args:
        params: one mixture of an old and a new mode, with an old weight in (0, 1).

    Returns:
        The `Coordinates`.

    Raises:
        ValueError: the mixture has not two components.

    Example:
        >>> from rlrazor.tasks.two_mode import bimodal_setting
        >>> coordinates(bimodal_setting().init).new.round(4).tolist()
        [0.5, -0.3567]
    """
    if params.means.shape != (2,):
        raise ValueError(f"params must have two components, got means of shape {params.means.shape}")
    (weight,), (old_mean, new_mean), (old_scale, new_scale) = params
    return Coordinates(
        old=jnp.stack([jnp.log(weight / (1 - weight)), old_mean, jnp.log(old_scale)]),
        new=jnp.stack([new_mean, jnp.log(new_scale)]),
    )


def gaussian_mixture(place: Coordinates) -> GaussianMixture:
    """The unconstrained mixture with these coordinates.

    Args:
        place: its coordinates.

    Returns:
        The `GaussianMixture` of two components.

    Example:
        >>> from rlrazor.tasks.two_mode import bimodal_setting
        >>> gaussian_mixture(coordinates(bimodal_setting().init)).means.tolist()
        [-3.5, 0.5]
    """
    logit, old_mean, old_log_scale = place.old
    new_mean, new_log_scale = place.new
    return GaussianMixture(
        jnp.stack([logit, jnp.zeros_like(logit)]),
        jnp.stack([old_mean, new_mean]),
        jnp.stack([old_log_scale, new_log_scale]),
    )


def raw_mixture(place: Coordinates) -> Mixture:
    """The mixture with these coordinates, in the published parameters.

    Args:
        place: its coordinates.

    Returns:
        The `Mixture` of two components.

    Example:
        >>> from rlrazor.tasks.two_mode import bimodal_setting
        >>> raw_mixture(coordinates(bimodal_setting().init)).old_weights.round(4).tolist()
        [0.75]
    """
    logits, means, log_scales = gaussian_mixture(place)
    return Mixture(jax.nn.softmax(logits)[:1], means, jnp.exp(log_scales))


def log_targets(setting: Setting, outcomes: Float[Array, " outcomes"]) -> dict[str, Float[Array, " outcomes"]]:
    """What the exact flows learn, as policies over the outcomes: one target that knows the old mode, one that does not.

    Args:
        setting: the target and the start.
        outcomes: evenly spaced points, `[outcomes]`.

    Returns:
        Log-probabilities `[outcomes]` by name of `TARGETS`. "new mode only" is what SFT's data come from. "tilted
        reference" is ref exp(R) / Z with the reward R = log target / ref, the published target as the optimum of
        KL-regularised RL: it keeps the old mode.

    Example:
        >>> from rlrazor.tasks.two_mode import bimodal_setting
        >>> outcomes = jnp.linspace(-14.0, 14.0, 500)
        >>> for name, log_target in log_targets(bimodal_setting(), outcomes).items():
        ...     print(f"{name}: {jnp.exp(log_target) @ (outcomes < 0).astype(float):.2f} on the old mode")
        new mode only: 0.00 on the old mode
        tilted reference: 0.75 on the old mode
    """
    _, means, scales = setting.target
    only_new = GaussianMixture(jnp.zeros_like(means[:1]), means[-1:], jnp.log(scales[-1:]))
    log_ref = mixture_policy(gaussian_mixture(coordinates(setting.init)), outcomes)
    log_published = mixture_policy(gaussian_mixture(coordinates(setting.target)), outcomes)
    return {
        NEW_MODE: mixture_policy(only_new, outcomes),
        TILTED: tilt(log_ref, implied_reward(log_published, log_ref, 1.0), 1.0),
    }


class Flow(NamedTuple):
    """An exact flow at its saved times; after it has the gain, every later row repeats the state there.

    Attributes:
        path: the mixture, leaves `[times, ...]`.
        progress: gain and drop there, `[times]`.
        arrived: whether it got to the gain, a boolean scalar.
        time: when it got there, NaN if never, a scalar.
        drop: the drop there, NaN if never, a scalar.
    """

    path: Mixture
    progress: Progress
    arrived: Bool[Array, "..."]
    time: Float[Array, "..."]
    drop: Float[Array, "..."]


def exact_flows(
    setting: Setting,
    log_target: Float[Array, " outcomes"],
    outcomes: Float[Array, " outcomes"],
    times: Float[Array, " times"],
    *,
    slow_factor: Scalar,
    gain: Scalar,
) -> dict[str, Flow]:
    """The gradient flows of KL(target || policy) and KL(policy || target) until they have the gain.

    With (old, new) the `Coordinates`, d new / dt = -∂loss / ∂new and d old / dt = -s ∂loss / ∂old. That is plain
    gradient flow in old / √s: the slow factor s is a choice of metric.

    Args:
        setting: the start, the target that overlaps are measured against, and their grid.
        log_target: what is learned, such as one of `log_targets`, `[outcomes]`.
        outcomes: evenly spaced points, the policy's outcomes, `[outcomes]`.
        times: increasing times >= 0 to save at; at the last the flow gives up, `[times]`.
        slow_factor: s >= 0; 0 freezes the old mode and its weight.
        gain: where the flow stops.

    Returns:
        A `Flow` by name of `DIRECTIONS`.

    Example:
        >>> from rlrazor.tasks.two_mode import bimodal_setting
        >>> setting, outcomes = bimodal_setting(), jnp.linspace(-14.0, 14.0, 200)
        >>> target = log_targets(setting, outcomes)["new mode only"]
        >>> times = jnp.array([0.0, 100.0])
        >>> flows = jax.jit(exact_flows)(setting, target, outcomes, times, slow_factor=1.0, gain=0.9)
        >>> print(*(f"{direction} {flow.drop:.2f}" for direction, flow in flows.items()))
        forward KL 0.36 reverse KL 0.74

    References:
        The worlds of Chen et al., "Retaining by Doing", arXiv:2510.18874, without its sampling.
    """
    start, stretch = coordinates(setting.init), jnp.sqrt(jnp.asarray(slow_factor, outcomes.dtype))

    def unscaled(params: Coordinates) -> Coordinates:
        return Coordinates(start.old + stretch * params.old, params.new)

    def flow(reverse: Float[Array, ""]) -> Flow:
        # A blend of both losses at one of its ends compiles in two thirds of the time of a switch.
        def loss(log_policy: Float[Array, " outcomes"]) -> Float[Array, ""]:
            forward_kl, reverse_kl = kl_divergence(log_target, log_policy), kl_divergence(log_policy, log_target)
            return (1 - reverse) * forward_kl + reverse * reverse_kl

        solved = gradient_flow(
            loss,
            Coordinates(jnp.zeros_like(start.old), start.new),
            times,
            policy=lambda params: mixture_policy(gaussian_mixture(unscaled(params)), outcomes),
            stop=lambda params: gain_and_drop(raw_mixture(unscaled(params)), setting).gain - gain,
        )
        path = jax.vmap(lambda params: raw_mixture(unscaled(params)))(solved.params)
        progress, arrived = path_gain_and_drop(path, setting), solved.stopped & solved.converged
        time, drop = (jnp.where(arrived, x, jnp.nan) for x in (solved.stop_time, progress.drop[-1]))
        return Flow(path, progress, arrived, time, drop)

    reverse = {FORWARD: 0.0, REVERSE: 1.0}
    flows = jax.lax.map(flow, jnp.array([reverse[direction] for direction in DIRECTIONS], outcomes.dtype))
    return rows_by_name(DIRECTIONS, flows)


class Frames(NamedTuple):
    """A flow at chosen gains.

    Attributes:
        params: the mixture, leaves `[frames, ...]`.
        progress: gain and drop there, `[frames]`.
    """

    params: Mixture
    progress: Progress


def at_gains(flow: Flow, gains: Float[Array, " frames"]) -> Frames:
    """A flow where it first has each gain, by linear interpolation, so that flows of different speed can be compared.

    Args:
        flow: one flow.
        gains: increasing, `[frames]`.

    Returns:
        The `Frames`. Gains that the flow never has are clipped to the largest one that it has.

    Example:
        >>> from rlrazor.tasks.two_mode import bimodal_setting
        >>> path = jax.tree.map(lambda leaf: jnp.stack([leaf] * 3), bimodal_setting().init)
        >>> progress = Progress(gain=jnp.array([0.0, 0.2, 0.6]), drop=jnp.array([0.0, 0.1, 0.5]))
        >>> flow = Flow(path, progress, jnp.array(False), jnp.array(jnp.nan), jnp.array(jnp.nan))
        >>> at_gains(flow, jnp.array([0.1, 0.4, 0.9])).progress.drop.round(4).tolist()
        [0.05, 0.3, 0.5]
    """
    rising = jax.lax.cummax(flow.progress.gain)

    def interpolated(path: Float[Array, "times ..."]) -> Float[Array, "frames ..."]:
        columns = path.reshape(path.shape[0], -1)
        rows = jax.vmap(lambda column: jnp.interp(gains, rising, column), in_axes=1, out_axes=1)(columns)
        return rows.reshape(gains.size, *path.shape[1:])

    params, drop = jax.tree.map(interpolated, (flow.path, flow.progress.drop))
    return Frames(params, Progress(jnp.clip(gains, rising[0], rising[-1]), drop))
