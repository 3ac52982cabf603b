"""What decides is whether the target can see the old mode, and how fast the old mode may move: not KL's direction.

The released simulation of "Retaining by Doing" samples one mode and slows the other one down. Which of its choices
makes SFT forget and RL not? Here the sampled updates give way to the gradient flow of KL itself. A target that has only
the new mode destroys the old one in either direction, unless the old mode is slowed down; a reward-tilted reference,
which keeps the old mode, leaves it intact in either direction, slowed down or not. The slow factor is a choice of
metric, and it decides which direction forgets less. Without it the released updates, too, lose the old mode both ways.

Chen, Razin, Narasimhan, Chen, arXiv:2510.18874, simulation of section 3. About 40 seconds on two cores.
"""

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float
from matplotlib.animation import FuncAnimation
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.harness import Caption, Claim, at_least, at_most, near
from experiments.retaining.flows import Config as Config
from experiments.retaining.flows import Results as Results
from experiments.retaining.flows import Sweep
from experiments.retaining.flows import run as run
from rlrazor.plotting import COLORS, FULL_WIDTH, LABELS, key, note, panels, samples, theory
from rlrazor.tasks.two_mode import DIRECTIONS, FORWARD, NEW_MODE, REVERSE, TARGETS, TILTED, TRAINER

LINES = {NEW_MODE: "-", TILTED: "--"}


def claims(config: Config, results: Results) -> list[Claim]:
    """Which of the released choices decide."""

    def nearest(factors: tuple[float, ...]) -> float:
        return min(factors, key=lambda factor: abs(factor - config.slow_factor))

    gain, gentle, gentle_sampled = (
        f"gain {config.gain:g}",
        nearest(config.slow_factors),
        nearest(config.sampled_factors),
    )
    equal, slowed = results.drops(config, 1.0), results.drops(config, gentle)
    at_full_speed = np.concatenate([results.sampled[kl][config.sampled_factors.index(1.0)] for kl in DIRECTIONS])
    seeing, blind = (np.concatenate([results.sweeps[t][kl].drop for kl in DIRECTIONS]) for t in (TILTED, NEW_MODE))
    lost = results.lost(config, TILTED)
    return [
        Claim(
            id="equal-rates-forget",
            statement="The released updates, but with the old mode at full speed (slow factor 1), lose in both "
            f"directions all of the overlap with it that the start has: smaller of the two mean drops at {gain} "
            f"({np.isfinite(at_full_speed).sum()} of {at_full_speed.size} runs arrive).",
            source="ablation of the released code",
            expected=near(results.start_overlap, 0.01),
            measured=results.least_sampled(config, 1.0),
            control=f"slow factor {gentle_sampled:g}",
            control_measured=results.least_sampled(config, gentle_sampled),
        ),
        Claim(
            id="visibility-decides",
            statement="Exact flows to a target that keeps the old mode do not forget, in either direction, at any "
            f"slow factor: largest drop at {gain} ({results.arrived(TILTED)} arrive; all in which the old mode can "
            "move must).",
            source="gradient flow of KL(pi* || pi) and KL(pi || pi*), pi* the tilted reference",
            expected=at_most(0.001),
            measured=np.nan if any(factor > 0 for _, factor, _ in lost) else largest(seeing),
            control=f"a target that has only the new mode ({results.arrived(NEW_MODE)} arrive)",
            control_measured=largest(blind),
            note=where_they_end(lost),
        ),
        Claim(
            id="direction-does-not",
            statement=f"Exact flows to the new mode alone, equal rates: smaller of both directions' drops at {gain}.",
            source="gradient flow of KL(p_new || pi) and KL(pi || p_new)",
            expected=at_least(0.3),
            measured=np.min(list(equal.values())),
            control=f"old mode slowed down by {gentle:g}",
            control_measured=np.min(list(slowed.values())),
        ),
        Claim(
            id="slow-factor-flips",
            statement="With the new mode as target, the slow factor decides which direction forgets less: drop of "
            f"reverse minus drop of forward KL at {gain} and equal rates.",
            source="gradient flow of KL(p_new || pi) and KL(pi || p_new)",
            expected=at_least(0.1),
            measured=equal[REVERSE] - equal[FORWARD],
            control=f"old mode slowed down by {gentle:g}",
            control_measured=slowed[REVERSE] - slowed[FORWARD],
        ),
    ]


def where_they_end(lost: list[tuple[str, float, Sweep]]) -> str:
    """Of flows that never have the gain: the first two, and how many more."""
    ends = [
        f"{kl} at slow factor {factor:g} ends at gain {round(float(flow.last_gain), 2) + 0.0:.2f}, its new mode of "
        f"standard deviation {flow.last_params.scales[-1]:.2f}"
        for kl, factor, flow in lost
    ]
    return "; ".join(ends[:2]) + (f"; and {len(ends) - 2} more never have the gain" if ends[2:] else "")


def largest(drops: Float[np.ndarray, " flows"]) -> float:
    """The largest drop of those that arrive, NaN if none does."""
    return float(np.max(drops, where=np.isfinite(drops), initial=-np.inf)) if np.isfinite(drops).any() else np.nan


def plot(config: Config, results: Results) -> Figure:
    """Over the slow factor, along the flows, and where they end."""
    figure, axes = panels([["factor", "path"], ["new", "tilted"]], 5.2, width_ratios=[1.3, 1])
    draw_factors(axes["factor"], config, results)
    for target in TARGETS:
        for kl in DIRECTIONS:
            gain, drop = results.equal_rates[target][kl].progress
            theory(axes["path"], gain, drop, color=COLORS[kl], linestyle=LINES[target])
            axes["path"].plot(gain[-1], drop[-1], "o", color=COLORS[kl])
    axes["path"].axhline(0, color=COLORS["ref"], linewidth=0.6, zorder=0)
    axes["path"].set(xlabel="gain", ylabel="drop", title="exact flows, equal rates")
    for ax, target in ((axes["new"], NEW_MODE), (axes["tilted"], TILTED)):
        draw_world(ax, results, target)
        for kl in DIRECTIONS:
            flow = results.equal_rates[target][kl]
            ended = f"gain {flow.progress.gain[-1]:.2f}, drop {flow.progress.drop[-1]:+.2f}"
            theory(ax, results.grid, flow.density[-1], color=COLORS[kl], label=f"{LABELS[kl]}: {ended}")
        ax.legend(loc="upper center", ncols=2, columnspacing=0.8, handlelength=1.4)
        ax.set_ylim(0, 1.35 * ax.get_ylim()[1])  # room for the legend
    return figure


def draw_factors(ax: Axes, config: Config, results: Results) -> None:
    """Drop at equal gain over the slow factor: exact flows as lines, every sampled run as a point."""
    for kl in DIRECTIONS:
        for target in TARGETS:
            label = rf"{LABELS[kl]}, $\pi_\star$: {target}"
            drops = results.sweeps[target][kl].drop
            theory(ax, config.slow_factors, drops, color=COLORS[kl], linestyle=LINES[target], label=label)
        for factor, drops in zip(config.sampled_factors, results.sampled[kl], strict=True):
            samples(ax, np.full(drops.size, factor), drops, at_most=drops.size, color=COLORS[kl], alpha=0.35)
        means = [drops.mean() for drops in results.sampled[kl]]
        samples(ax, config.sampled_factors, means, color=COLORS[kl], marker="D", markersize=4)
        key(ax, f"released updates, {TRAINER[kl]}", color=COLORS[kl], marker="D", linestyle="none")
    positive = [factor for factor in (*config.slow_factors, *config.sampled_factors) if factor > 0]
    ax.set_xscale("symlog", linthresh=min(positive), linscale=0.5)
    decades = range(int(np.ceil(np.log10(min(positive)) - 1e-9)), int(np.log10(max(positive))) + 1)
    ax.set_xticks([0.0, *(10.0**decade for decade in decades)], ["0", *(f"$10^{{{decade}}}$" for decade in decades)])
    ax.axhline(0, color=COLORS["ref"], linewidth=0.6, zorder=0)
    low, high = ax.get_ylim()
    ax.set_ylim(low, high + 0.6 * (high - low))  # room for the legend
    ax.vlines(config.slow_factor, low, high, color=COLORS["ref"], linewidth=0.6, zorder=0)
    note(ax, f"{config.slow_factor:g}", (config.slow_factor, high), color=COLORS["ref"], ha="right", va="top")
    ax.set(xlabel="slow factor of the old mode (0: frozen, 1: equal rates)", ylabel=f"drop at gain {config.gain:g}")
    ax.set_title("what decides: does the target know the old mode?")
    ax.legend(loc="upper left", ncols=2, columnspacing=0.8, handlelength=1.4)


def draw_world(ax: Axes, results: Results, target: str) -> None:
    """The start and a target."""
    ax.plot(results.grid, results.targets[target], "--", color=COLORS["target"], label=r"target $\pi_\star$")
    theory(ax, results.grid, results.start, color=COLORS["ref"], linewidth=0.9, label="start")
    ax.set(xlabel="outcome $y$", ylabel="density", title=rf"equal rates, $\pi_\star$: {target}")
    ax.margins(x=0)


def animate(config: Config, results: Results) -> FuncAnimation:
    """The exact flows at equal rates, side by side at equal gain."""
    figure, axes = plt.subplots(1, len(TARGETS), figsize=(FULL_WIDTH, 2.8), sharey=True)
    shown = []
    for ax, target in zip(axes, TARGETS, strict=True):
        draw_world(ax, results, target)
        for place, kl in enumerate(DIRECTIONS):
            flow = results.equal_rates[target][kl]
            (line,) = ax.plot(results.grid, flow.density.max(0), color=COLORS[kl], label=LABELS[kl])
            text = ax.text(0.02, 0.97 - 0.08 * place, "", color=COLORS[kl], transform=ax.transAxes, va="top")
            shown.append((flow, line, text))
        ax.legend(loc="upper right")
    axes[0].set_ylim(0, 1.2 * axes[0].get_ylim()[1])

    def update(frame: int) -> list[Artist]:
        row = min(frame, config.num_frames - 1)
        for flow, line, text in shown:
            line.set_ydata(flow.density[row])
            text.set_text(f"gain {flow.progress.gain[row]:.2f}  drop {flow.progress.drop[row]:+.2f}")
        return [artist for _, *artists in shown for artist in artists]

    return FuncAnimation(figure, update, frames=config.num_frames * 4 // 3)  # rests on the last


def caption(config: Config, results: Results) -> Caption:
    """What to quote."""
    blind, ends = results.drops(config, 1.0), results.equal_rates[TILTED]
    seeing = {kl: ends[kl].progress for kl in DIRECTIONS}
    return Caption(
        f"Exact flows at equal rates to the new mode alone lose {blind[FORWARD]:.2f} (forward KL) and "
        f"{blind[REVERSE]:.2f} (reverse KL) of the overlap with the old mode at gain {config.gain:g}. To a target that "
        f"keeps the old mode they lose {seeing[FORWARD].drop[-1]:.2f} at gain {seeing[FORWARD].gain[-1]:.2f} and "
        f"{seeing[REVERSE].drop[-1]:.2f} at gain {seeing[REVERSE].gain[-1]:.2f}.",
        a=f"Drop at gain {config.gain:g} over the slow factor: exact flows (lines, where they have the gain), the "
        f"released updates (a point a seed; diamonds: means, where all {config.num_seeds} have it).",
        b="Drop against gain along the exact flows at equal rates, to where they stop or give up.",
        c="Where the flows to the new mode alone end.",
        d="Where the flows to the tilted reference end.",
    )
