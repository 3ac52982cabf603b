"""The world: mixtures on the line, the two published settings, and overlap of modes as the measure of memory."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rlrazor import methods
from rlrazor.policies import gaussian_log_density

FORWARD, REVERSE = DIRECTIONS = "forward KL", "reverse KL"
TRAINER = {FORWARD: methods.SFT, REVERSE: "RL"}  # who trains so, in the paper's words

Scalar = int | float | Float[Array, ""]
Scalars = Sequence[Scalar] | Float[Array, " components"]


def check_direction(direction: str) -> str:
    """The direction, if there is one of this name.

    Args:
        direction: one of `DIRECTIONS`.

    Returns:
        `direction`, unchanged.

    Raises:
        ValueError: it is another word.

    Example:
        >>> check_direction("KL")
        Traceback (most recent call last):
        ...
        ValueError: direction must be one of forward KL, reverse KL, got 'KL'
    """
    if direction not in DIRECTIONS:
        raise ValueError(f"direction must be one of {', '.join(DIRECTIONS)}, got {direction!r}")
    return direction


class Mixture(NamedTuple):
    """A Gaussian mixture in the published, raw parameters: no reparametrisation keeps them in their domain.

    Attributes:
        old_weights: weights of all components but the last, `[components - 1]`; the last has what is left of 1.
        means: `[components]`.
        scales: standard deviations, `[components]`.
    """

    old_weights: Float[Array, "*path old"]
    means: Float[Array, "*path components"]
    scales: Float[Array, "*path components"]


def mixture(weights: Scalars, means: Scalars, scales: Scalars) -> Mixture:
    """A mixture from one weight, mean and scale a component.

    Args:
        weights: of the components, old mode first; they sum to 1, and the last is not kept.
        means: of the components.
        scales: their standard deviations, > 0.

    Returns:
        The `Mixture`, in the default float dtype.

    Example:
        >>> mixture((0.75, 0.25), (-3.0, 3.5), (1.0, 0.7)).old_weights.tolist()
        [0.75]
    """
    weights, means, scales = (jnp.asarray(numbers, float) for numbers in (weights, means, scales))
    return Mixture(weights[:-1], means, scales)


class Setting(NamedTuple):
    """A target, a start, and the grid that overlaps are integrated on.

    Attributes:
        target: what the policy should become; old mode first, new mode last.
        init: the initial policy.
        grid: evenly spaced points, `[points]`.
    """

    target: Mixture
    init: Mixture
    grid: Float[Array, " points"]


def unimodal_setting(
    target_weights: Scalars = (0.75, 0.25),
    target_means: Scalars = (-3.0, 3.5),
    target_scales: Scalars = (1.0, 0.7),
    init_mean: Scalar = -3.5,
    init_scale: Scalar = 1.0,
    *,
    reach: Scalar = 10.0,
    num_points: int = 500,
) -> Setting:
    """The uni-modal setting: one Gaussian near the old mode of a two-mode target; the defaults are the published ones.

    Args:
        target_weights: of the target's old and new mode; they sum to 1.
        target_means: of the target's modes.
        target_scales: of the target's modes.
        init_mean: of the start.
        init_scale: of the start.
        reach: the grid spans [-reach, reach].
        num_points: of the grid, static.

    Returns:
        The `Setting`, in the default float dtype.

    Example:
        >>> unimodal_setting().init.means.tolist()
        [-3.5]

    References:
        Chen et al., "Retaining by Doing", arXiv:2510.18874, released simulation (SingleModeSetting).
    """
    target = mixture(target_weights, target_means, target_scales)
    return Setting(target, mixture((1.0,), (init_mean,), (init_scale,)), jnp.linspace(-reach, reach, num_points))


def bimodal_setting(
    target_weights: Scalars = (0.75, 0.25),
    target_means: Scalars = (-3.0, 3.5),
    target_scales: Scalars = (1.0, 0.7),
    init_weights: Scalars = (0.75, 0.25),
    init_means: Scalars = (-3.5, 0.5),
    init_scales: Scalars = (1.0, 0.7),
    *,
    reach: Scalar = 8.0,
    num_points: int = 500,
) -> Setting:
    """The bi-modal setting: a policy with an old mode in place and a new mode on its way; the defaults are published.

    Args:
        target_weights: of the target's old and new mode; they sum to 1.
        target_means: of the target's modes.
        target_scales: of the target's modes.
        init_weights: of the start's old and new mode; they sum to 1.
        init_means: of the start's modes.
        init_scales: of the start's modes.
        reach: the grid spans [-reach, reach].
        num_points: of the grid, static.

    Returns:
        The `Setting`, in the default float dtype.

    Example:
        >>> bimodal_setting().init.means.tolist()
        [-3.5, 0.5]

    References:
        Chen et al., "Retaining by Doing", arXiv:2510.18874, released simulation (TwoModeSetting).
    """
    target, init = mixture(target_weights, target_means, target_scales), mixture(init_weights, init_means, init_scales)
    return Setting(target, init, jnp.linspace(-reach, reach, num_points))


def component_log_densities(params: Mixture, x: Float[Array, " points"]) -> Float[Array, "components points"]:
    """Weighted log-densities log w_k + log N(x; mean_k, scale_k²) of every component.

    Args:
        params: one mixture.
        x: points, `[points]`.

    Returns:
        `[components, points]`, points last since there are many; the log-density of the mixture is their logsumexp.

    Example:
        >>> import jax.numpy as jnp
        >>> component_log_densities(bimodal_setting().init, jnp.zeros(1)).shape
        (2, 1)
    """
    weights = jnp.append(params.old_weights, 1 - params.old_weights.sum())
    return jnp.log(weights)[:, None] + gaussian_log_density(x[None], params.means[:, None], params.scales[:, None])


@jax.jit
def density(params: Mixture, x: Float[Array, " points"]) -> Float[Array, " points"]:
    """The density Σ_k w_k N(x; mean_k, scale_k²).

    Args:
        params: one mixture.
        x: points, `[points]`.

    Returns:
        `[points]`, >= 0.

    Example:
        >>> import jax.numpy as jnp
        >>> print(f"{density(unimodal_setting().init, jnp.array([-3.5]))[0]:.4f}")
        0.3989
    """
    return jnp.exp(component_log_densities(params, x)).sum(0)


class Overlaps(NamedTuple):
    """How much of the target's modes a policy has.

    Attributes:
        old: of the old mode, in [0, 1].
        new: of the new mode, in [0, 1].
    """

    old: Float[Array, "*path"]
    new: Float[Array, "*path"]


@jax.jit
def overlaps(params: Mixture, setting: Setting) -> Overlaps:
    """Overlap of the policy's old and new modes with the target's, ∫ min(P, Q) dx / ∫ P dx (trapezoid rule).

    P is the target's weighted component and Q the policy's: its first against the old mode, its last against the new.

    Args:
        params: one mixture.
        setting: the target and the grid.

    Returns:
        The `Overlaps`, scalars in [0, 1].

    Example:
        >>> setting = bimodal_setting()
        >>> old, new = overlaps(setting.init, setting)
        >>> print(f"{old:.4f} {new:.4f}")  # 2 Φ(-1/4) and 2 Φ(-15/7)
        0.8026 0.0321

    References:
        Chen et al., "Retaining by Doing", arXiv:2510.18874, released simulation.
    """
    grid = setting.grid
    target = jnp.exp(component_log_densities(setting.target, grid))[jnp.array([0, -1])]
    policy = jnp.exp(component_log_densities(params, grid))[jnp.array([0, -1])]
    shared = jnp.trapezoid(jnp.minimum(target, policy), axis=-1) / jnp.trapezoid(target, axis=-1)
    return Overlaps(*shared)


class Progress(NamedTuple):
    """What was learned and what was forgotten since the start, in units of mode overlap.

    Attributes:
        gain: the rise of the new mode's overlap, `[...]`.
        drop: the fall of the old mode's, `[...]`; negative where it came closer to the target's.
    """

    gain: Float[Array, "*path"]
    drop: Float[Array, "*path"]


def gain_and_drop(params: Mixture, setting: Setting) -> Progress:
    """What was learned and what was forgotten since the start, in units of mode overlap.

    Args:
        params: one mixture.
        setting: the target, the start and the grid.

    Returns:
        The `Progress`, scalars.

    Example:
        >>> setting = bimodal_setting()
        >>> gain, drop = gain_and_drop(setting.target, setting)
        >>> print(f"{gain:.4f} {drop:.4f}")
        0.9679 -0.1974
    """
    now, start = overlaps(params, setting), overlaps(setting.init, setting)
    return Progress(gain=now.new - start.new, drop=start.old - now.old)


def path_gain_and_drop(path: Mixture, setting: Setting) -> Progress:
    """Gain and drop along a path of mixtures.

    Args:
        path: leaves `[steps, ...]`.
        setting: the target, the start and the grid.

    Returns:
        The `Progress`, `[steps]`.

    Example:
        >>> import jax
        >>> setting = bimodal_setting()
        >>> path = jax.tree.map(lambda *ends: jnp.stack(ends), setting.init, setting.target)
        >>> print(*(f"{gain:.4f}" for gain in path_gain_and_drop(path, setting).gain))
        0.0000 0.9679
    """
    progress: Progress = jax.lax.map(lambda params: gain_and_drop(params, setting), path)
    return progress
