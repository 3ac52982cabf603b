"""The two-mode world of "Retaining by Doing": an old mode to remember, a new mode to learn.

Chen, Razin, Narasimhan, Chen, arXiv:2510.18874, simulation of section 3. A policy is a Gaussian mixture on the line.
The first component is its old mode, the last its new mode; in the uni-modal setting they are one and the same.

The published updates have constants that decide their outcome, so each is an argument here: both directions train on
samples of one component only, the step of the old mode is slowed down, and the reward of the reverse KL has an offset
-log beta and a floor.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from rlrazor.policies import gaussian_log_density

Number = float | Float[Array, ""]


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


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Setting:
    """A target, a start, and the grid that overlaps are integrated on.

    Attributes:
        target: what the policy should become; old mode first, new mode last.
        init: the initial policy.
        low: left end of the grid.
        high: right end of the grid.
        num_points: points of the grid.
    """

    target: Mixture
    init: Mixture
    low: float = field(metadata={"static": True})
    high: float = field(metadata={"static": True})
    num_points: int = field(metadata={"static": True})

    @property
    def grid(self) -> Float[Array, " points"]:
        """The grid points, `[points]`."""
        return jnp.linspace(self.low, self.high, self.num_points)


def unimodal_setting() -> Setting:
    """The published uni-modal setting: one Gaussian on the old mode of a two-mode target.

    The target is 0.75 N(-3, 1²) + 0.25 N(3.5, 0.7²), the start N(-3.5, 1²).

    Returns:
        The setting, in the default float dtype.

    Example:
        >>> unimodal_setting().init.means.tolist()
        [-3.5]

    References:
        Chen et al., "Retaining by Doing", arXiv:2510.18874, released simulation (SingleModeSetting).
    """
    init = Mixture(jnp.zeros(0), jnp.array([-3.5]), jnp.array([1.0]))
    return Setting(_published_target(), init, low=-10.0, high=10.0, num_points=500)


def bimodal_setting() -> Setting:
    """The published bi-modal setting: a policy with an old mode in place and a new mode on its way.

    The target is 0.75 N(-3, 1²) + 0.25 N(3.5, 0.7²), the start 0.75 N(-3.5, 1²) + 0.25 N(0.5, 0.7²).

    Returns:
        The setting, in the default float dtype.

    Example:
        >>> bimodal_setting().init.means.tolist()
        [-3.5, 0.5]

    References:
        Chen et al., "Retaining by Doing", arXiv:2510.18874, released simulation (TwoModeSetting).
    """
    init = Mixture(jnp.array([0.75]), jnp.array([-3.5, 0.5]), jnp.array([1.0, 0.7]))
    return Setting(_published_target(), init, low=-8.0, high=8.0, num_points=500)


def _published_target() -> Mixture:
    return Mixture(jnp.array([0.75]), jnp.array([-3.0, 3.5]), jnp.array([1.0, 0.7]))


def component_log_densities(params: Mixture, x: Float[Array, " points"]) -> Float[Array, "points components"]:
    """Weighted log-densities log w_k + log N(x; mean_k, scale_k²) of every component.

    Args:
        params: one mixture.
        x: points, `[points]`.

    Returns:
        `[points, components]`; the log-density of the mixture is their logsumexp.

    Example:
        >>> import jax.numpy as jnp
        >>> component_log_densities(bimodal_setting().init, jnp.zeros(1)).shape
        (1, 2)
    """
    weights = jnp.append(params.old_weights, 1 - params.old_weights.sum())
    return jnp.log(weights)[None] + gaussian_log_density(x[:, None], params.means[None], params.scales[None])


def overlaps(params: Mixture, setting: Setting) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Overlap of the policy's old and new modes with the target's, ∫ min(P, Q) dx / ∫ P dx (trapezoid rule).

    P is the target's weighted component and Q the policy's: its first against the old mode, its last against the new.

    Args:
        params: one mixture.
        setting: the target and the grid.

    Returns:
        (old, new), scalars in [0, 1].

    Example:
        >>> setting = bimodal_setting()
        >>> old, new = overlaps(setting.init, setting)
        >>> print(f"{old:.4f} {new:.4f}")  # 2 Φ(-1/4) and 2 Φ(-15/7)
        0.8026 0.0321

    References:
        Chen et al., "Retaining by Doing", arXiv:2510.18874, released simulation.
    """
    grid = setting.grid
    target = jnp.exp(component_log_densities(setting.target, grid))[:, jnp.array([0, -1])]
    policy = jnp.exp(component_log_densities(params, grid))[:, jnp.array([0, -1])]
    shared = jnp.trapezoid(jnp.minimum(target, policy), axis=0) / jnp.trapezoid(target, axis=0)
    return shared[0], shared[1]


def gain_and_drop(params: Mixture, setting: Setting) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """What was learned and what was forgotten since the start, in units of mode overlap.

    Args:
        params: one mixture.
        setting: the target, the start and the grid.

    Returns:
        (gain, drop), scalars: the rise of the new mode's overlap and the fall of the old mode's. A negative drop
        means that the old mode came closer to the target's.

    Example:
        >>> setting = bimodal_setting()
        >>> gain, drop = gain_and_drop(setting.target, setting)
        >>> print(f"{gain:.4f} {drop:.4f}")
        0.9679 -0.1974
    """
    old, new = overlaps(params, setting)
    old_init, new_init = overlaps(setting.init, setting)
    return new - new_init, old_init - old


def quadrature(num_points: int = 801, reach: float = 10.0) -> tuple[Float[Array, " points"], Float[Array, " points"]]:
    """Nodes and weights that stand in for infinitely many samples of a standard normal.

    Args:
        num_points: nodes.
        reach: the nodes span [-reach, reach].

    Returns:
        (z, weight), `[points]` each, with Σ weight = 1.

    Example:
        >>> z, weight = quadrature()
        >>> print(f"{(weight * z**4).sum():.4f}")
        3.0000
    """
    z = jnp.linspace(-reach, reach, num_points)
    return z, jax.nn.softmax(-(z**2) / 2)


def forward_kl_gradient(params: Mixture, setting: Setting, z: Float[Array, " n"]) -> Mixture:
    """Published SFT gradient -E[∇ log q(x)], with x drawn from the target's new mode only.

    Args:
        params: one mixture q.
        setting: the target.
        z: standard normal samples, `[n]`; x = mean + scale z.

    Returns:
        The descent gradient in the raw parameters.

    Example:
        >>> import jax.numpy as jnp
        >>> setting = bimodal_setting()
        >>> gradient = forward_kl_gradient(setting.init, setting, jnp.linspace(-2.0, 2.0, 101))
        >>> bool(gradient.means[1] < 0 < gradient.old_weights[0])  # descent moves right, and off the old mode
        True

    References:
        Chen et al., "Retaining by Doing", arXiv:2510.18874, released simulation.
    """
    x = setting.target.means[-1] + setting.target.scales[-1] * z
    gradient: Mixture = jax.grad(lambda p: -_log_density(p, x).mean())(params)
    return gradient


def reverse_kl_gradient(
    params: Mixture, setting: Setting, z: Float[Array, " n"], beta: Number = 0.1, floor: Number = 1e-12
) -> Mixture:
    """Published RL gradient -E[R w ∇ log q(x)], with x drawn from the policy's new mode only.

    With Q the policy's weighted new component, the reward is R = log(N_new(x) / (beta Q(x)) + floor) and w = q / Q
    the importance weight of the whole policy. Neither is differentiated; there is no baseline. The constant -log beta
    would drop out of an exact gradient. Here it does not, because the samples never reach the old mode.

    Args:
        params: one mixture q.
        setting: the target.
        z: standard normal samples, `[n]`; x = mean + scale z.
        beta: offset of the reward.
        floor: smallest density ratio inside the logarithm; 0 for none.

    Returns:
        The descent gradient in the raw parameters.

    Example:
        >>> import jax.numpy as jnp
        >>> setting = bimodal_setting()
        >>> gradient = reverse_kl_gradient(setting.init, setting, jnp.linspace(-2.0, 2.0, 101))
        >>> bool(gradient.means[1] < 0)  # descent moves the new mode right
        True

    References:
        Chen et al., "Retaining by Doing", arXiv:2510.18874, released simulation.
    """
    x = params.means[-1] + params.scales[-1] * z
    log_parts = component_log_densities(params, x)
    log_goal = gaussian_log_density(x, setting.target.means[-1], setting.target.scales[-1])
    reward = _floored_log_ratio(log_goal - log_parts[:, -1], beta, floor)
    importance = jnp.exp(jax.nn.logsumexp(log_parts, axis=-1) - log_parts[:, -1])
    x, weight = jax.lax.stop_gradient((x, reward * importance))
    gradient: Mixture = jax.grad(lambda p: -(weight * _log_density(p, x)).mean())(params)
    return gradient


def published_optimizer(params: Mixture, learning_rate: Number, slow_factor: Number) -> optax.GradientTransformation:
    """Plain SGD whose step on everything that belongs to the old mode is multiplied by `slow_factor`.

    In the uni-modal setting nothing is slowed down: the only component is the new one.

    Args:
        params: a mixture of the right shape.
        learning_rate: of SGD.
        slow_factor: 0.005 in the published bi-modal runs, 1 for equal rates.

    Returns:
        The optax transformation.

    Example:
        >>> setting = bimodal_setting()
        >>> optimizer = published_optimizer(setting.init, learning_rate=1.0, slow_factor=0.5)
        >>> optimizer.update(setting.init, optimizer.init(setting.init))[0].means.tolist()
        [1.75, -0.5]

    References:
        Chen et al., "Retaining by Doing", arXiv:2510.18874, released simulation.
    """
    slow = jnp.full_like(params.means, slow_factor).at[-1].set(1.0)
    rates = Mixture(slow[:-1], slow, slow)
    slow_down = optax.stateless(lambda updates, _: jax.tree.map(jnp.multiply, updates, rates))
    return optax.chain(slow_down, optax.sgd(learning_rate))


def clip(params: Mixture) -> Mixture:
    """Published projection: old weights into [0.001, 0.999], scales to at least 0.001.

    Args:
        params: one mixture.

    Returns:
        The mixture inside its domain.

    Example:
        >>> import jax.numpy as jnp
        >>> clipped = clip(Mixture(jnp.array([1.5]), jnp.zeros(2), jnp.array([-1.0, 1.0])))
        >>> print(f"{clipped.old_weights[0]:.3f} {clipped.scales[0]:.3f} {clipped.scales[1]:.3f}")
        0.999 0.001 1.000
    """
    return params._replace(
        old_weights=jnp.clip(params.old_weights, 1e-3, 1 - 1e-3), scales=jnp.maximum(params.scales, 1e-3)
    )


def forward_kl_recursion(setting: Setting, learning_rate: Number, slow_factor: Number, num_steps: int) -> Mixture:
    """What the published SFT updates do for infinitely many samples and separated modes, in closed form.

    The new mode takes μ += lr (μ* - μ) / σ² and σ += lr (-1/σ + (σ*² + (μ* - μ)²) / σ³), and the old mode only loses
    weight, w(k) = 1 - sqrt((1 - w(0))² + 2 lr slow k). In the uni-modal setting, where there is no old component,
    the recursion is exact.

    Args:
        setting: the target and the start.
        learning_rate: of SGD.
        slow_factor: of the old mode's steps.
        num_steps: number of updates.

    Returns:
        The path before the first and after every update, leaves `[num_steps + 1, ...]`.

    Example:
        >>> path = forward_kl_recursion(bimodal_setting(), 0.15, 0.005, num_steps=200)
        >>> print(f"{path.old_weights[-1, 0]:.4f}")
        0.3979
    """
    mean_goal, scale_goal = setting.target.means[-1], setting.target.scales[-1]

    def update(
        new: tuple[Float[Array, ""], Float[Array, ""]], _: None
    ) -> tuple[tuple[Float[Array, ""], Float[Array, ""]], tuple[Float[Array, ""], Float[Array, ""]]]:
        mean, scale = new
        miss = mean_goal - mean
        mean = mean + learning_rate * miss / scale**2
        scale = scale + learning_rate * (-1 / scale + (scale_goal**2 + miss**2) / scale**3)
        return (mean, scale), (mean, scale)

    start = (setting.init.means[-1], setting.init.scales[-1])
    _, path = jax.lax.scan(update, start, length=num_steps)
    means, scales = (jnp.concatenate([first[None], rest]) for first, rest in zip(start, path, strict=True))
    new_weight = 1 - setting.init.old_weights
    elapsed = learning_rate * slow_factor * jnp.arange(num_steps + 1, dtype=means.dtype)[:, None]
    return _with_old_mode(setting, 1 - jnp.sqrt(new_weight[None] ** 2 + 2 * elapsed), means, scales)


def reverse_kl_recursion(
    setting: Setting,
    learning_rate: Number,
    slow_factor: Number,
    num_steps: int,
    beta: Number = 0.1,
    floor: Number = 1e-12,
) -> Mixture:
    """What the published RL updates do for infinitely many samples and separated modes.

    With the expectation over the policy's new mode N(μ, σ²) and v the old weight, μ += lr E[R z] / σ,
    σ += lr E[R (z² - 1)] / σ and v -= lr slow E[R] / (1 - v). Without a floor these are μ += lr (μ* - μ) / σ*²,
    σ += lr (1/σ - σ/σ*²) and E[R] = -KL(N(μ, σ²) || N(μ*, σ*²)) - log((1 - v) beta). In the uni-modal setting the
    recursion is exact.

    Args:
        setting: the target and the start.
        learning_rate: of SGD.
        slow_factor: of the old mode's steps.
        num_steps: number of updates.
        beta: offset of the reward.
        floor: smallest density ratio inside the reward's logarithm; 0 for none.

    Returns:
        The path before the first and after every update, leaves `[num_steps + 1, ...]`.

    Example:
        >>> path = reverse_kl_recursion(bimodal_setting(), 0.01, 0.005, num_steps=200)
        >>> print(f"{path.old_weights[-1, 0]:.3f}")
        0.666
    """
    z, weight = quadrature()
    goal = setting.target.means[-1], setting.target.scales[-1]

    def update(params: Mixture, _: None) -> tuple[Mixture, Mixture]:
        old_weight, mean, scale = params
        log_new = gaussian_log_density(z, jnp.zeros_like(z), jnp.ones_like(z)) - jnp.log(scale)
        log_ratio = gaussian_log_density(mean + scale * z, *goal) - log_new - jnp.log(1 - old_weight.sum())
        reward = weight * _floored_log_ratio(log_ratio, beta, floor)
        following = Mixture(
            old_weight - learning_rate * slow_factor * reward.sum() / (1 - old_weight),
            mean + learning_rate * (reward * z).sum() / scale,
            scale + learning_rate * (reward * (z**2 - 1)).sum() / scale,
        )
        return following, following

    start = Mixture(setting.init.old_weights, setting.init.means[-1], setting.init.scales[-1])
    _, path = jax.lax.scan(update, start, length=num_steps)
    path = jax.tree.map(lambda first, rest: jnp.concatenate([first[None], rest]), start, path)
    return _with_old_mode(setting, *path)


def _with_old_mode(
    setting: Setting,
    old_weights: Float[Array, "steps old"],
    means: Float[Array, " steps"],
    scales: Float[Array, " steps"],
) -> Mixture:
    """The path of the new mode, beside an old mode that stays where it started."""

    def beside(start: Float[Array, " components"], path: Float[Array, " steps"]) -> Float[Array, "steps components"]:
        return jnp.concatenate([jnp.tile(start[:-1], (path.size, 1)), path[:, None]], axis=1)

    return Mixture(old_weights, beside(setting.init.means, means), beside(setting.init.scales, scales))


def _log_density(params: Mixture, x: Float[Array, " points"]) -> Float[Array, " points"]:
    return jax.nn.logsumexp(component_log_densities(params, x), axis=-1)


def _floored_log_ratio(log_ratio: Float[Array, " points"], beta: Number, floor: Number) -> Float[Array, " points"]:
    """log(ratio / beta + floor)."""
    return jnp.logaddexp(log_ratio - jnp.log(beta), jnp.log(floor))
