"""As published: the released updates on samples, and every constant in them.

Each constant decides something, so each is an argument: both directions train on samples of one component only, the
step of the old mode is slowed down, and the reward of the reverse KL has an offset -log beta and a floor.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key

from rlrazor.policies import gaussian_log_density
from rlrazor.tasks.two_mode.world import (
    FORWARD,
    Mixture,
    Progress,
    Scalar,
    Setting,
    check_direction,
    component_log_densities,
    path_gain_and_drop,
)
from rlrazor.training import train


def forward_kl_gradient(params: Mixture, setting: Setting, z: Float[Array, " n"]) -> Mixture:
    """Published SFT gradient -E[∇ log q(x)], with x drawn from the target's new mode only.

    Args:
        params: one mixture q.
        setting: the target.
        z: standard normal samples, `[n]`; x = mean + scale z.

    Returns:
        The descent gradient in the raw parameters.

    Example:
        >>> from rlrazor.tasks.two_mode import bimodal_setting
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


def published_reward(log_ratio: Float[Array, " points"], beta: Scalar, floor: Scalar) -> Float[Array, " points"]:
    """The published reward R = log(ratio / beta + floor) of a density ratio N_new(x) / Q(x).

    Args:
        log_ratio: log N_new(x) - log Q(x), `[points]`.
        beta: its offset is -log beta.
        floor: smallest ratio inside the logarithm; 0 for none.

    Returns:
        R, `[points]`, at least log floor.

    Example:
        >>> print(*(f"{reward:.1f}" for reward in published_reward(jnp.array([-100.0, 0.0]), 0.1, 1e-12)))
        -27.6 2.3

    References:
        Chen et al., "Retaining by Doing", arXiv:2510.18874, released simulation.
    """
    return jnp.logaddexp(log_ratio - jnp.log(beta), jnp.log(floor))


def reverse_kl_gradient(
    params: Mixture, setting: Setting, z: Float[Array, " n"], beta: Scalar = 0.1, floor: Scalar = 1e-12
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
        >>> from rlrazor.tasks.two_mode import bimodal_setting
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
    reward = published_reward(log_goal - log_parts[-1], beta, floor)
    # w ∇ log q is the sum of q_k / Q ∇ log q_k over the components, with q_k the density of one.
    x, weights = jax.lax.stop_gradient((x, reward[None] * jnp.exp(log_parts - log_parts[-1:])))
    gradient: Mixture = jax.grad(lambda p: -(weights * component_log_densities(p, x)).sum(0).mean())(params)
    return gradient


def published_optimizer(params: Mixture, learning_rate: Scalar, slow_factor: Scalar) -> optax.GradientTransformation:
    """Plain SGD whose step on everything that belongs to the old mode is multiplied by `slow_factor`.

    In the uni-modal setting nothing is slowed down: the only component is the new one.

    Args:
        params: a mixture of the right shape.
        learning_rate: of SGD.
        slow_factor: 0.005 in the published bi-modal runs, 1 for equal rates.

    Returns:
        The optax transformation.

    Example:
        >>> from rlrazor.tasks.two_mode import bimodal_setting
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


class Run(NamedTuple):
    """A path of updates, and what was learned and forgotten on the way.

    Attributes:
        path: the mixture before the first and after every update, leaves `[..., steps + 1, ...]`.
        progress: gain and drop there, `[..., steps + 1]`.
    """

    path: Mixture
    progress: Progress


@partial(jax.jit, static_argnames=("direction", "num_steps", "num_samples"))
def sampled_runs(
    setting: Setting,
    keys: Key[Array, " seeds"],
    *,
    direction: str,
    learning_rate: Scalar,
    slow_factor: Scalar,
    num_steps: int,
    num_samples: int,
    beta: Scalar = 0.1,
    floor: Scalar = 1e-12,
) -> Run:
    """The published runs, a seed a key; compiled once for each direction and size.

    Args:
        setting: the target, the start and the grid.
        keys: randomness of each run, `[seeds]`.
        direction: whose gradient, one of `DIRECTIONS`: SFT's forward KL or RL's reverse KL.
        learning_rate: of SGD.
        slow_factor: of the old mode's steps.
        num_steps: number of updates, static.
        num_samples: samples of each update, static.
        beta: offset of the reward, which forward KL has not.
        floor: smallest density ratio inside the reward's logarithm.

    Returns:
        The `Run`, leaves `[seeds, num_steps + 1, ...]`.

    Raises:
        ValueError: there is no such direction.

    Example:
        >>> from rlrazor.tasks.two_mode import bimodal_setting
        >>> runs = sampled_runs(
        ...     bimodal_setting(), jax.random.split(jax.random.key(0), 4), direction="forward KL",
        ...     learning_rate=0.15, slow_factor=0.005, num_steps=100, num_samples=100,
        ... )  # fmt: skip
        >>> [f"{gain:.1f}" for gain in runs.progress.gain[:, -1]]
        ['1.0', '1.0', '1.0', '1.0']

    References:
        Chen et al., "Retaining by Doing", arXiv:2510.18874, released simulation.
    """

    def gradient(params: Mixture, key: Key[Array, ""]) -> Mixture:
        z = jax.random.normal(key, (num_samples,))
        if direction == FORWARD:
            return forward_kl_gradient(params, setting, z)
        return reverse_kl_gradient(params, setting, z, beta, floor)

    def one(key: Key[Array, ""]) -> Run:
        optimizer = published_optimizer(setting.init, learning_rate, slow_factor)
        path: Mixture = train(gradient, setting.init, optimizer, key, num_steps=num_steps, project=clip)
        return Run(path, path_gain_and_drop(path, setting))

    check_direction(direction)
    runs: Run = jax.vmap(one)(keys)
    return runs


class Stop(NamedTuple):
    """Where runs first have a gain; NaN for those that never have it.

    Attributes:
        update: after how many updates, `[...]`.
        gain: what it is there, `[...]`.
        drop: the drop there, `[...]`.
        drop_before: the drop one update earlier, `[...]`; NaN where the run starts with the gain.
    """

    update: Float[Array, "..."]
    gain: Float[Array, "..."]
    drop: Float[Array, "..."]
    drop_before: Float[Array, "..."]


@jax.jit
def first_stop(progress: Progress, gain: Scalar) -> Stop:
    """The published stopping rule: the first update after which the gain is reached.

    Args:
        progress: of each run, `[..., steps + 1]`.
        gain: the level.

    Returns:
        The `Stop`, `[...]`.

    Example:
        >>> import jax.numpy as jnp
        >>> runs = Progress(gain=jnp.array([[0.0, 0.5, 0.95], [0.0, 0.3, 0.6]]), drop=jnp.array([[0.0, 0.1, 0.2]] * 2))
        >>> first_stop(runs, 0.9).drop.tolist()
        [0.2, nan]

    References:
        Chen et al., "Retaining by Doing", arXiv:2510.18874, released simulation.
    """
    reached = progress.gain >= gain
    row = jnp.argmax(reached, axis=-1)

    def at(values: Float[Array, "*runs rows"], index: Int[Array, "*runs"]) -> Float[Array, "*runs"]:
        value = jnp.take_along_axis(values, jnp.maximum(index, 0)[..., None], axis=-1)[..., 0]
        return jnp.where(reached.any(-1) & (index >= 0), value, jnp.nan)

    rows = jnp.broadcast_to(jnp.arange(reached.shape[-1], dtype=progress.gain.dtype), reached.shape)
    return Stop(at(rows, row), at(progress.gain, row), at(progress.drop, row), at(progress.drop, row - 1))


def _log_density(params: Mixture, x: Float[Array, " points"]) -> Float[Array, " points"]:
    return jax.nn.logsumexp(component_log_densities(params, x), axis=0)


class Seeds(NamedTuple):
    """What is kept of many seeds of a run.

    Attributes:
        saved: the states every so many updates, `[seeds, rows]`, in single precision.
        old_weights: of the same states, `[seeds, rows, old]`, in single precision.
        end: after the last update, `[seeds]`.
        stop: where each first has the gain, `[seeds]`.
        frames: the first seed, evenly spaced from its start to where it stops or ends, leaves `[frames, ...]`.
    """

    saved: Progress
    old_weights: Float[Array, "seeds rows old"]
    end: Progress
    stop: Stop
    frames: Mixture


@partial(jax.jit, static_argnames=("every", "num_frames"))
def summary(runs: Run, gain: Scalar, *, every: int, num_frames: int) -> Seeds:
    """What figures and claims ask of many seeds, a hundredth of the runs.

    Args:
        runs: as from `sampled_runs`, leaves `[seeds, steps + 1, ...]`.
        gain: of the stopping rule.
        every: updates between saved states, static.
        num_frames: of the first seed, static.

    Returns:
        The `Seeds`.

    Example:
        >>> from rlrazor.tasks.two_mode import bimodal_setting
        >>> options = {"direction": "forward KL", "learning_rate": 0.15, "slow_factor": 0.005}
        >>> keys = jax.random.split(jax.random.key(0), 2)
        >>> runs = sampled_runs(bimodal_setting(), keys, **options, num_steps=100, num_samples=100)
        >>> seeds = summary(runs, 0.9, every=5, num_frames=3)
        >>> seeds.saved.gain.shape, seeds.frames.means.shape
        ((2, 21), (3, 2))
    """
    path, progress = runs
    stop, last = first_stop(progress, gain), progress.gain.shape[-1] - 1
    rows = jnp.linspace(0.0, jnp.nan_to_num(stop.update[0], nan=last), num_frames).round().astype(int)
    saved, old_weights = jax.tree.map(lambda leaf: leaf[:, ::every].astype(jnp.float32), (progress, path.old_weights))
    end, frames = jax.tree.map(lambda leaf: leaf[:, -1], progress), jax.tree.map(lambda leaf: leaf[0, rows], path)
    return Seeds(saved, old_weights, end, stop, frames)
