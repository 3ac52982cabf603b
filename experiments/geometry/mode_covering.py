"""Forward KL covers every mode, reverse KL seeks one.

Where does one Gaussian go that is fitted to several modes? By gradient flow of the forward KL(target || policy), which
is SFT, to the m-projection from every start: the Gaussian with the target's mean and variance, exactly. By that of the
reverse KL(policy || target), which is KL-regularized RL, to a mode that the start decides, at a loss of about -log of
that mode's weight. The difference is one of misspecification: a softmax table can represent the target, and there both
directions end at the target itself.

The folklore from which "Retaining by Doing" (Chen et al., arXiv:2510.18874) departs. About 10 seconds on two cores.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import rlrazor as rz
from experiments.harness import Caption, Claim, UserError, at_least, at_most, bounded, check_sum, checked_run, near
from rlrazor.flows import Trajectory, gradient_flows, log_times
from rlrazor.plotting import COLORS, LABELS, key, note, panels, theory

FORWARD, REVERSE = DIRECTIONS = "forward KL", "reverse KL"
LOSS_LINES = {FORWARD: "-", REVERSE: ":"}
Outcomes = Float[Array, " outcomes"]


@dataclass(frozen=True)
class Config:
    """The target, the starts and how long the flows run."""

    weights: tuple[float, ...] = bounded((0.75, 0.25), above=0.0)
    """Weights of the target's modes; sum to 1."""
    means: tuple[float, ...] = (-3.0, 3.5)
    """Means of the target's modes."""
    scales: tuple[float, ...] = bounded((1.0, 0.7), above=0.0)
    """Standard deviations of the target's modes."""
    start_means: tuple[float, ...] = (-6.0, -2.0, 1.0, 2.5, 6.0)
    """Means of the starts; in the coordinates (mean, log scale)."""
    start_scale: float = bounded(1.0, above=0.0)
    """Standard deviation of every start."""
    reach: float = bounded(12.0, above=0.0, at_most=1000.0)
    """Outcomes are evenly spaced points from minus this to this."""
    grid_points: int = bounded(400, at_least=3, at_most=20_000)
    """How many outcomes."""
    first_time: float = bounded(1e-2, above=0.0)
    """The first time saved after the start."""
    end_time: float = bounded(2000.0, above=0.0)
    """How long the flows run (learning rate times steps)."""
    num_times: int = bounded(400, at_least=3, at_most=20_000)
    """Saved times, log-spaced."""

    def __post_init__(self) -> None:
        """The target is a mixture that the grid can hold, and so are the starts."""
        check_sum("weights", self.weights)
        if not len(self.weights) == len(self.means) == len(self.scales):
            raise UserError("weights, means and scales must hold one number a mode each")
        if not max(map(abs, (*self.means, *self.start_means))) <= self.reach:
            raise UserError(f"means and start_means must lie within the reach of {self.reach:g}")
        spacing = 2 * self.reach / max(self.grid_points - 1, 1)
        if not min(*self.scales, self.start_scale) >= spacing:
            raise UserError(f"scales and start_scale must be at least the spacing of the grid, {spacing:g}")
        if not self.first_time < self.end_time:
            raise UserError(f"end_time must be above first_time {self.first_time:g}, got {self.end_time:g}")

    @classmethod
    def quick(cls) -> "Config":
        """Fewer starts, a coarser grid."""
        return cls(start_means=(-6.0, 2.5), grid_points=160, num_times=60)


class Moments(NamedTuple):
    """Mean and standard deviation."""

    mean: Float[Array, "..."]
    scale: Float[Array, "..."]


class Flows(NamedTuple):
    """The flows of the Gaussian from every start; where the integrator gave up, the last of a path is NaN."""

    moments: Moments  # [starts, times]
    losses: dict[str, Float[Array, "starts times"]]
    density: Float[Array, "starts outcomes"]  # at the end


class Found(NamedTuple):
    """The mode that each flow ends nearest to."""

    modes: list[int]
    distance: Float[np.ndarray, " starts"]  # of the mean from it
    overpay: Float[np.ndarray, " starts"]  # |KL(policy || target) + log of its weight|


class Results(NamedTuple):
    """The target, and flows by direction."""

    grid: Outcomes
    target: Outcomes  # density
    target_moments: Moments
    time: Float[Array, " times"]
    gaussian: dict[str, Flows]
    table: dict[str, dict[str, Float[Array, " times"]]]  # flow -> loss, of the softmax table from the first start

    def moment_miss(self, direction: str) -> Float[np.ndarray, " starts"]:
        """How far each end is from the target's moments, the larger of both misses."""
        path, goal = self.gaussian[direction].moments, self.target_moments
        return np.maximum(np.abs(path.mean[:, -1] - goal.mean), np.abs(path.scale[:, -1] - goal.scale))

    def found(self, config: Config, direction: str) -> Found:
        """What each flow ends nearest to."""
        flows = self.gaussian[direction]
        distances = np.abs(np.asarray(flows.moments.mean)[:, -1:] - np.array(config.means))
        modes = distances.argmin(-1)
        overpay = np.abs(flows.losses[REVERSE][:, -1] + np.log(config.weights)[modes])
        return Found(modes.tolist(), distances.min(-1), overpay)


@checked_run
def run(config: Config) -> Results:
    """Both flows of the Gaussian from every start, and of the softmax table from the first."""

    @jax.jit  # so that the target's last bits, on which misses of 1e-8 depend, are those of compiled constants
    def problem() -> tuple[Array, ...]:
        weights, means, scales = (jnp.array(values) for values in (config.weights, config.means, config.scales))
        grid = jnp.linspace(-config.reach, config.reach, config.grid_points)
        log_target = rz.mixture_policy(rz.GaussianMixture(jnp.log(weights), means, jnp.log(scales)), grid)
        log_scales = jnp.full(len(config.start_means), jnp.log(config.start_scale))
        starts = jnp.stack([jnp.array(config.start_means), log_scales], axis=1)
        return grid, log_target, starts, log_times(config.first_time, config.end_time, config.num_times)

    return Results(*fit(*problem()))


@jax.jit
def fit(grid: Outcomes, log_target: Outcomes, starts: Float[Array, "n 2"], times: Float[Array, " times"]) -> Results:
    """The flows to the target from each start (mean, log scale)."""
    spacing = grid[1] - grid[0]

    def gaussian(params: Float[Array, "2"]) -> Outcomes:
        mean, log_scale = params
        return rz.mixture_policy(rz.GaussianMixture(jnp.zeros(1), mean[None], log_scale[None]), grid)

    def losses(log_policy: Float[Array, "*paths outcomes"]) -> dict[str, Float[Array, "*paths"]]:
        return {FORWARD: rz.kl_divergence(log_target, log_policy), REVERSE: rz.kl_divergence(log_policy, log_target)}

    def moments(log_policy: Float[Array, "*paths outcomes"]) -> Moments:
        mean = jnp.exp(log_policy) @ grid
        return Moments(mean, jnp.sqrt(jnp.exp(log_policy) @ grid**2 - mean**2))

    def flows(path: Trajectory) -> Flows:
        found = moments(path.log_policy), losses(path.log_policy)
        known = jnp.where(path.converged, 1.0, jnp.nan)
        mean_and_scale, loss = jax.tree.map(lambda leaf: leaf.at[:, -1].multiply(known), found)
        return Flows(mean_and_scale, loss, jnp.exp(path.log_policy[:, -1]) / spacing)

    objectives = {loss: lambda log_policy, loss=loss: losses(log_policy)[loss] for loss in DIRECTIONS}
    paths = jax.lax.map(lambda start: gradient_flows(objectives, start, times, policy=gaussian), starts)
    init, closed = gaussian(starts[0]), {FORWARD: rz.forward_kl_flow, REVERSE: rz.reverse_kl_flow}
    return Results(
        grid=grid,
        target=jnp.exp(log_target) / spacing,
        target_moments=moments(log_target),
        time=times,
        gaussian={direction: flows(path) for direction, path in paths.items()},
        table={direction: losses(flow(init, log_target, times)) for direction, flow in closed.items()},
    )


def claims(config: Config, results: Results) -> list[Claim]:
    """Covering, seeking, and that both vanish with misspecification."""
    covering, seeking = results.found(config, FORWARD), results.found(config, REVERSE)
    every, flows = f"From each of {len(config.start_means)} starts", results.gaussian
    ends = {tuple(np.round(end, 4)) for end in zip(*(path[:, -1] for path in flows[FORWARD].moments), strict=True)}
    return [
        Claim(
            id="forward-covers",
            statement=f"{every} the forward-KL flow ends at the Gaussian with the target's mean and standard "
            "deviation; largest miss of either.",
            source="m-projection on an exponential family: moments match",
            expected=at_most(1e-6),
            measured=results.moment_miss(FORWARD).max(),
            control="the smallest miss of the reverse KL",
            control_measured=results.moment_miss(REVERSE).min(),
        ),
        Claim(
            id="reverse-seeks",
            statement=f"{every} the reverse-KL flow ends at a mode of the target; largest distance of its mean from "
            "the nearest mode.",
            source="mode seeking; Chen et al., arXiv:2510.18874",
            expected=at_most(0.1),
            measured=seeking.distance.max(),
            control="the smallest distance of the forward KL",
            control_measured=covering.distance.min(),
        ),
        Claim(
            id="start-decides",
            statement="The start decides which mode reverse KL seeks; number of different modes that its "
            f"flows from {len(config.start_means)} starts end nearest to.",
            source="reverse KL is not convex in (mean, log scale)",
            expected=at_least(2),
            measured=len(set(seeking.modes)) if np.isfinite(seeking.distance).all() else np.nan,
            control="different end points of the forward KL",
            control_measured=len(ends) if np.isfinite(covering.distance).all() else np.nan,
        ),
        Claim(
            id="price-of-a-mode",
            statement="Reverse KL pays for the modes it ignores: KL(policy || target) ends near -log(weight of the "
            "mode nearest); largest difference.",
            source="KL(q || Σ w_k p_k) >= -log w_k + KL(q || p_k), tight for separated modes",
            expected=at_most(0.01),
            measured=seeking.overpay.max(),
            control="the smallest difference for the Gaussians of the forward KL",
            control_measured=covering.overpay.min(),
        ),
        Claim(
            id="table-agrees",
            statement="A softmax table reaches the target in either direction; larger of the two KL at "
            f"t = {config.end_time:g}, worse direction.",
            source="closed forms: both flows end at the target",
            expected=near(0, 1e-9),
            measured=np.max([loss[-1] for losses in results.table.values() for loss in losses.values()]),
            control="the Gaussian, for which neither direction can",
            control_measured=flows[FORWARD].losses[FORWARD][:, -1].min(),
        ),
    ]


def plot(config: Config, results: Results) -> Figure:
    """Where flows end, how they get there, the loss that each minimizes, and the softmax table."""
    figure, axes = panels([["fits", "portrait"], ["losses", "table"]], 4.9)
    draw_portrait(axes["portrait"], results)
    draw_losses(axes["losses"], config, results)
    fits, table = axes["fits"], axes["table"]
    fits.plot(results.grid, results.target, "--", color=COLORS["target"], label=r"target $\pi_\star$")
    for flow in DIRECTIONS:
        theory(fits, results.grid, results.gaussian[flow].density.T, color=COLORS[flow])
        key(fits, f"{flow}: {LABELS[flow]}", color=COLORS[flow])
        for loss, line in LOSS_LINES.items():
            shown = (results.time > 0) & (results.table[flow][loss] > 1e-12)  # while floats can tell
            theory(table, results.time[shown], results.table[flow][loss][shown], color=COLORS[flow], linestyle=line)
        key(table, f"flow of {flow}", color=COLORS[flow])
    for loss, line in LOSS_LINES.items():
        key(table, LABELS[loss], color="black", linestyle=line)
    fits.set(xlabel="outcome $y$", ylabel="density", title="one Gaussian: where flows end")
    fits.margins(x=0)
    fits.set_ylim(0, 1.3 * fits.get_ylim()[1])  # room for the legend
    fits.legend(loc="upper left", ncols=2)
    table.set(xscale="log", yscale="log", xlabel=LABELS["time"], ylabel="nats", title="a softmax table instead")
    table.legend(loc="lower left")
    return figure


def draw_portrait(ax: Axes, results: Results) -> None:
    """Flows in the plane of the Gaussian's mean and standard deviation."""
    for direction in DIRECTIONS:
        mean, scale = results.gaussian[direction].moments
        theory(ax, mean.T, scale.T, color=COLORS[direction])
        ax.plot(mean[:, -1], scale[:, -1], "o", color=COLORS[direction], markersize=4, zorder=3)
        ax.plot(mean[:, 0], scale[:, 0], "o", color=COLORS["ref"])
    key(ax, "start", color=COLORS["ref"], marker="o", linestyle="none")
    ax.plot(*results.target_moments, "+", color="black", markersize=9, zorder=4, label=r"moments of $\pi_\star$")
    ax.set(xlabel=r"mean of $\pi$", ylabel=r"standard deviation of $\pi$", title="the same flows in parameters")
    ax.set_yscale("log", base=2)
    ax.margins(y=0.2)  # room for the legend
    ax.yaxis.set_major_formatter("{x:g}")
    ax.legend(loc="upper right", ncols=2)


def draw_losses(ax: Axes, config: Config, results: Results) -> None:
    """The loss that each flow minimizes, and what reverse KL pays for a mode."""
    for direction in DIRECTIONS:
        own = results.gaussian[direction].losses[direction]
        theory(ax, results.time[1:], own[:, 1:].T, color=COLORS[direction], linewidth=1.1)
        key(ax, f"{LABELS[direction]} along its flow", color=COLORS[direction])
    for price in -np.log(config.weights):
        ax.axhline(price, color=COLORS["ref"], linewidth=0.6, zorder=0)
        text = f"$-\\log {np.exp(-price):g}$"
        note(ax, text, (config.end_time, float(price)), color=COLORS["ref"], ha="right", va="bottom")
    ax.set(xscale="log", yscale="log", xlabel=LABELS["time"], ylabel="nats", title="the loss that each flow minimizes")
    ax.margins(x=0)
    ax.legend(loc="upper right")


def caption(config: Config, results: Results) -> Caption:
    """What to quote."""
    return Caption(
        f"From {len(config.start_means)} starts, one Gaussian fitted by forward KL ends at most "
        f"{results.moment_miss(FORWARD).max():.1g} from the target's mean and standard deviation, fitted by reverse KL "
        f"at most {results.found(config, REVERSE).distance.max():.1g} from one of its modes. The difference is "
        "one of misspecification: a softmax table can represent the target, and there both directions lead to it.",
        a="The target, and where the flows of one Gaussian end.",
        b="The same flows in mean and standard deviation.",
        c="The loss that each flow minimizes; gray: -log of each mode's weight, the price of seeking it alone.",
        d="Both losses along both flows of a softmax table, down to 1e-12.",
    )
