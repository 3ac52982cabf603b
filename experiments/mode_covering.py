"""Forward KL covers every mode, reverse KL seeks one.

One Gaussian is fitted to a bi-modal target by gradient flow of the forward KL(target || policy), which is SFT, and of
the reverse KL(policy || target), which is KL-regularised RL, from several starts. Where forward KL ends is the
m-projection: the Gaussian with the target's mean and variance, exactly, from every start. Where reverse KL ends
depends on the start: near either mode, at a loss of about -log of that mode's weight.

The difference is one of misspecification. A softmax table can represent the target, and there both directions end at
the target itself. The folklore from which "Retaining by Doing" (Chen et al., arXiv:2510.18874) departs.

About 10 seconds on two cores.
"""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

import rlrazor as rz
from experiments._harness import Claim, UserError, at_least, at_most, check_normalised, near, positive
from rlrazor.plotting import COLORS, FULL_WIDTH, letter


@dataclass(frozen=True)
class Config:
    """The target, the starts and how long the flows run."""

    weights: tuple[float, ...] = positive((0.75, 0.25))
    """Weights of the target's modes; sum to 1."""
    means: tuple[float, ...] = (-3.0, 3.5)
    """Means of the target's modes."""
    scales: tuple[float, ...] = positive((1.0, 0.7))
    """Standard deviations of the target's modes."""
    start_means: tuple[float, ...] = (-6.0, -2.0, 1.0, 2.5, 6.0)
    """Means of the starts; in the coordinates (mean, log scale)."""
    start_scale: float = positive(1.0)
    """Standard deviation of every start."""
    grid_points: int = 400
    """Outcomes: evenly spaced points on [-12, 12]."""
    end_time: float = positive(2000.0)
    """How long the flows run (learning rate times steps)."""
    num_times: int = 400
    """Saved times, log-spaced."""

    def __post_init__(self) -> None:
        """The target is a mixture."""
        check_normalised("weights", self.weights)
        if not len(self.weights) == len(self.means) == len(self.scales):
            counts = f"{len(self.weights)}, {len(self.means)} and {len(self.scales)}"
            raise UserError(f"weights, means and scales must have one number a mode, got {counts}")

    @classmethod
    def quick(cls) -> "Config":
        """Fewer starts, a coarser grid."""
        return cls(start_means=(-6.0, 2.5), grid_points=160, num_times=60)


class Results(NamedTuple):
    """Flows by direction (0 forward, 1 reverse), start and time."""

    grid: np.ndarray  # [outcomes]
    target: np.ndarray  # [outcomes] density
    target_moments: np.ndarray  # [2] mean and standard deviation of the target
    mode_weights: np.ndarray  # [modes]
    mode_means: np.ndarray  # [modes]
    time: np.ndarray  # [times]
    mean: np.ndarray  # [2, starts, times] of the Gaussian's policy on the grid
    scale: np.ndarray  # [2, starts, times]
    density: np.ndarray  # [2, starts, outcomes] at the end
    forward_kl: np.ndarray  # [2, starts, times] KL(target || policy)
    reverse_kl: np.ndarray  # [2, starts, times] KL(policy || target)
    table_forward_kl: np.ndarray  # [2, times] softmax table from the first start
    table_reverse_kl: np.ndarray  # [2, times]
    converged: np.ndarray  # [2, starts]


@partial(jax.jit, static_argnums=0)
def run(config: Config) -> Results:
    """Both flows of the Gaussian from every start, and of the softmax table from the first."""
    grid = jnp.linspace(-12.0, 12.0, config.grid_points)
    target = rz.GaussianMixture(
        jnp.log(jnp.array(config.weights)), jnp.array(config.means), jnp.log(jnp.array(config.scales))
    )
    log_target = rz.mixture_policy(target, grid)
    times = jnp.concatenate([jnp.zeros(1), jnp.geomspace(1e-2, config.end_time, config.num_times - 1)])

    def gaussian(params: jax.Array) -> jax.Array:
        mean, log_scale = params
        return rz.mixture_policy(rz.GaussianMixture(jnp.zeros(1), mean[None], log_scale[None]), grid)

    def objective(log_policy: jax.Array, reverse: jax.Array) -> jax.Array:
        forward_kl, reverse_kl = losses(log_policy)
        return (1 - reverse) * forward_kl + reverse * reverse_kl

    def losses(log_policy: jax.Array) -> tuple[jax.Array, jax.Array]:
        return rz.kl_divergence(log_target, log_policy), rz.kl_divergence(log_policy, log_target)

    def flow(problem: tuple[jax.Array, jax.Array]) -> rz.Trajectory:
        reverse, start = problem
        return rz.gradient_flow(lambda log_policy: objective(log_policy, reverse), start, times, policy=gaussian)

    num_starts = len(config.start_means)
    starts = jnp.stack([jnp.array(config.start_means), jnp.full(num_starts, jnp.log(config.start_scale))], axis=1)
    problems = jnp.repeat(jnp.array([0.0, 1.0]), num_starts), jnp.tile(starts, (2, 1))
    path = jax.lax.map(flow, problems)
    path = jax.tree.map(lambda leaf: leaf.reshape(2, num_starts, *leaf.shape[1:]), path)
    forward_kl, reverse_kl = jax.vmap(jax.vmap(jax.vmap(losses)))(path.log_policy)

    init = gaussian(starts[0])
    table = jnp.stack([rz.forward_kl_flow(init, log_target, times), rz.reverse_kl_flow(init, log_target, times)])
    table_forward_kl, table_reverse_kl = jax.vmap(jax.vmap(losses))(table)

    def moments(log_policy: jax.Array) -> tuple[jax.Array, jax.Array]:
        mean = jnp.exp(log_policy) @ grid
        return mean, jnp.sqrt(jnp.exp(log_policy) @ grid**2 - mean**2)

    mean, scale = moments(path.log_policy)
    spacing = grid[1] - grid[0]
    return Results(
        grid=grid,
        target=jnp.exp(log_target) / spacing,
        target_moments=jnp.stack(moments(log_target)),
        mode_weights=jnp.array(config.weights),
        mode_means=jnp.array(config.means),
        time=times,
        mean=mean,
        scale=scale,
        density=jnp.exp(path.log_policy[:, :, -1]) / spacing,
        forward_kl=forward_kl,
        reverse_kl=reverse_kl,
        table_forward_kl=table_forward_kl,
        table_reverse_kl=table_reverse_kl,
        converged=path.converged,
    )


def claims(results: Results) -> list[Claim]:
    """Covering, seeking, and that both vanish with misspecification."""
    end = results.time[-1]
    mean, scale = results.mean[..., -1], results.scale[..., -1]
    moment_miss = np.maximum(np.abs(mean - results.target_moments[0]), np.abs(scale - results.target_moments[1]))
    nearest = np.abs(mean[..., None] - results.mode_means).argmin(-1)
    distance = np.abs(mean - results.mode_means[nearest])
    seeking = results.reverse_kl[1, :, -1]
    table_ends = np.maximum(results.table_forward_kl[:, -1], results.table_reverse_kl[:, -1])
    return [
        Claim(
            id="forward-covers",
            statement="From every start the forward-KL flow ends at the Gaussian with the target's mean and standard "
            "deviation; largest miss of either.",
            source="m-projection on an exponential family: moments match",
            expected=at_most(1e-6),
            measured=moment_miss[0].max(),
            control="the same miss for the reverse KL",
            control_measured=moment_miss[1].min(),
        ),
        Claim(
            id="reverse-seeks",
            statement="From every start the reverse-KL flow ends at a mode of the target; largest distance of its mean "
            "from the nearest mode.",
            source="mode seeking; Chen et al., arXiv:2510.18874",
            expected=at_most(0.1),
            measured=distance[1].max(),
            control="the same distance for the forward KL",
            control_measured=distance[0].min(),
        ),
        Claim(
            id="start-decides",
            statement="The start decides which mode reverse KL seeks; number of different modes found.",
            source="reverse KL is not convex in (mean, log scale)",
            expected=at_least(2),
            measured=len(set(nearest[1])),
            control="different end points of the forward KL",
            control_measured=len(
                {(round(float(m), 4), round(float(s), 4)) for m, s in zip(mean[0], scale[0], strict=True)}
            ),
        ),
        Claim(
            id="price-of-a-mode",
            statement="Reverse KL pays for the modes it ignores: KL(policy || target) ends near -log(weight of "
            "the mode found); largest difference.",
            source="KL(q || Σ w_k p_k) >= -log w_k + KL(q || p_k), tight for separated modes",
            expected=at_most(0.01),
            measured=np.abs(seeking + np.log(results.mode_weights[nearest[1]])).max(),
            control="the same difference for the Gaussians of the forward KL",
            control_measured=np.abs(results.reverse_kl[0, :, -1] + np.log(results.mode_weights[nearest[0]])).min(),
        ),
        Claim(
            id="table-agrees",
            statement=f"A softmax table reaches the target in either direction; larger of the two KL at t = {end:.0f}, "
            "worse direction.",
            source="closed forms: both flows end at the target",
            expected=near(0, 1e-9),
            measured=table_ends.max(),
            control="the Gaussian, for which neither direction can",
            control_measured=results.forward_kl[0, :, -1].min(),
        ),
    ]


def plot(results: Results) -> Figure:
    """The fits, the phase portrait, and both losses along both flows."""
    figure = plt.figure(figsize=(FULL_WIDTH, 4.8))
    top, bottom = figure.subfigures(2, 1)
    axes = [*top.subplots(1, 2), *bottom.subplots(1, 3)]
    draw_fits(axes[0], results)
    draw_portrait(axes[1], results)
    draw_losses(axes[2], results, 0)
    draw_losses(axes[3], results, 1)
    draw_table(axes[4], results)
    for ax, text in zip(axes, "abcde", strict=True):
        letter(ax, text)
    return figure


DIRECTIONS = (("forward", r"forward KL$(\pi_\star\Vert\pi)$"), ("reverse", r"reverse KL$(\pi\Vert\pi_\star)$"))


def draw_fits(ax: plt.Axes, results: Results) -> None:
    """Where each flow ends."""
    ax.plot(results.grid, results.target, "--", color=COLORS["target"], label=r"target $\pi_\star$")
    for direction, (color, label) in enumerate(DIRECTIONS):
        for start, density in enumerate(results.density[direction]):
            ax.plot(results.grid, density, color=COLORS[color], label=label if start == 0 else None)
    ax.set(xlabel="outcome $y$", ylabel="density", xlim=(-8, 8), ylim=(0, 0.75), title="one Gaussian: where flows end")
    ax.legend(loc="upper left")


def draw_portrait(ax: plt.Axes, results: Results) -> None:
    """Flows in the plane of the Gaussian's mean and standard deviation."""
    for direction, (color, _) in enumerate(DIRECTIONS):
        for mean, scale in zip(results.mean[direction], results.scale[direction], strict=True):
            ax.plot(mean, scale, color=COLORS[color])
            ax.plot(mean[-1], scale[-1], "o", color=COLORS[color], markersize=4, zorder=3)
    start, moments = {"color": COLORS["ref"], "label": "start"}, {"color": "black", "label": r"moments of $\pi_\star$"}
    ax.plot(results.mean[0, :, 0], results.scale[0, :, 0], "o", linestyle="none", **start)
    ax.plot(*results.target_moments, "+", markersize=9, linestyle="none", zorder=4, **moments)
    ax.set(xlabel=r"mean of $\pi$", ylabel=r"standard deviation of $\pi$", yscale="log", ylim=(0.5, 13))
    ax.set_title("the same flows in parameters")
    ax.set_yticks([0.5, 1, 2, 4, 8], labels=["0.5", "1", "2", "4", "8"])
    ax.minorticks_off()
    ax.legend(loc="upper right", ncols=2)


def draw_losses(ax: plt.Axes, results: Results, direction: int) -> None:
    """Both losses along the flow of one of them."""
    color = COLORS[DIRECTIONS[direction][0]]
    time = results.time[1:]
    for losses, style in ((results.forward_kl, "-"), (results.reverse_kl, ":")):
        ax.plot(time, losses[direction, :, 1:].T, style, color=color, linewidth=1.1)
    for weight in results.mode_weights if direction == 1 else ():
        ax.axhline(-np.log(weight), color=COLORS["ref"], linewidth=0.6, zorder=0)
        ax.text(time[0], -np.log(weight), f"$-\\log {weight:g}$", color=COLORS["ref"], va="bottom", fontsize=6.5)
    ax.set(xscale="log", yscale="log", xlabel="time (rate × steps)", ylabel="nats", ylim=(0.2, 90))
    ax.set_title(f"along {DIRECTIONS[direction][0]} KL")
    style_legend(ax)


def draw_table(ax: plt.Axes, results: Results) -> None:
    """The softmax table, which can represent the target."""
    shown = (results.time > 0) & (results.time < 25)
    for losses, style in ((results.table_forward_kl, "-"), (results.table_reverse_kl, ":")):
        for direction, (color, _) in enumerate(DIRECTIONS):
            ax.plot(results.time[shown], losses[direction][shown], style, color=COLORS[color])
    ax.set(xscale="log", yscale="log", xlabel="time (rate × steps)", ylabel="nats", ylim=(1e-12, 1e4))
    ax.set_title(r"softmax table: both reach $\pi_\star$")
    style_legend(ax)


def style_legend(ax: plt.Axes) -> None:
    """Which line style is which loss."""
    for style, label in (("-", r"KL$(\pi_\star\Vert\pi)$"), (":", r"KL$(\pi\Vert\pi_\star)$")):
        ax.plot([], [], style, color="black", label=label)
    ax.legend(loc="upper right", ncols=2, handlelength=1.6, columnspacing=1.0)
