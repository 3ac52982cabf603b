"""What the published updates do for infinitely many samples and separated modes: recursions, one of them closed."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rlrazor._trees import with_start
from rlrazor.policies import gaussian_log_density
from rlrazor.tasks.two_mode.published import Run, published_reward
from rlrazor.tasks.two_mode.world import FORWARD, Mixture, Scalar, Setting, check_direction, path_gain_and_drop


class Quadrature(NamedTuple):
    """Nodes and weights that stand in for infinitely many samples of a standard normal.

    Attributes:
        z: nodes, `[points]`.
        weight: of each node, `[points]`; they sum to 1.
    """

    z: Float[Array, " points"]
    weight: Float[Array, " points"]


def quadrature(num_points: int = 801, reach: Scalar = 10.0) -> Quadrature:
    """Nodes and weights that stand in for infinitely many samples of a standard normal.

    Args:
        num_points: nodes.
        reach: the nodes span [-reach, reach].

    Returns:
        The `Quadrature`, with Σ weight = 1.

    Example:
        >>> z, weight = quadrature()
        >>> print(f"{(weight * z**4).sum():.4f}")
        3.0000
    """
    z = jnp.linspace(-reach, reach, num_points)
    return Quadrature(z, jax.nn.softmax(-(z**2) / 2))


def forward_kl_recursion(setting: Setting, learning_rate: Scalar, slow_factor: Scalar, num_steps: int) -> Mixture:
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
        >>> from rlrazor.tasks.two_mode import bimodal_setting
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
    means, scales = with_start(start, path)
    new_weight = 1 - setting.init.old_weights
    elapsed = learning_rate * slow_factor * jnp.arange(num_steps + 1, dtype=means.dtype)[:, None]
    return _with_old_mode(setting, 1 - jnp.sqrt(new_weight[None] ** 2 + 2 * elapsed), means, scales)


def reverse_kl_recursion(
    setting: Setting,
    learning_rate: Scalar,
    slow_factor: Scalar,
    num_steps: int,
    beta: Scalar = 0.1,
    floor: Scalar = 1e-12,
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
        >>> from rlrazor.tasks.two_mode import bimodal_setting
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
        reward = weight * published_reward(log_ratio, beta, floor)
        following = Mixture(
            old_weight - learning_rate * slow_factor * reward.sum() / (1 - old_weight),
            mean + learning_rate * (reward * z).sum() / scale,
            scale + learning_rate * (reward * (z**2 - 1)).sum() / scale,
        )
        return following, following

    start = Mixture(setting.init.old_weights, setting.init.means[-1], setting.init.scales[-1])
    _, path = jax.lax.scan(update, start, length=num_steps)
    return _with_old_mode(setting, *with_start(start, path))


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


@partial(jax.jit, static_argnames=("direction", "num_steps"))
def predicted_run(
    setting: Setting,
    *,
    direction: str,
    learning_rate: Scalar,
    slow_factor: Scalar,
    num_steps: int,
    beta: Scalar = 0.1,
    floor: Scalar = 1e-12,
) -> Run:
    """What the published runs do for infinitely many samples and separated modes: the recursion of their direction.

    Args:
        setting: the target, the start and the grid.
        direction: one of `DIRECTIONS`.
        learning_rate: of SGD.
        slow_factor: of the old mode's steps.
        num_steps: number of updates, static.
        beta: offset of the reward, which forward KL has not.
        floor: smallest density ratio inside the reward's logarithm.

    Returns:
        The `Run`, leaves `[num_steps + 1, ...]`.

    Raises:
        ValueError: there is no such direction.

    Example:
        >>> from rlrazor.tasks.two_mode import bimodal_setting
        >>> run = predicted_run(
        ...     bimodal_setting(), direction="reverse KL", learning_rate=0.01, slow_factor=0.005, num_steps=200
        ... )
        >>> print(f"{run.progress.drop[-1]:.3f}")
        0.050
    """
    check_direction(direction)
    if direction == FORWARD:
        path = forward_kl_recursion(setting, learning_rate, slow_factor, num_steps)
    else:
        path = reverse_kl_recursion(setting, learning_rate, slow_factor, num_steps, beta, floor)
    return Run(path, path_gain_and_drop(path, setting))
