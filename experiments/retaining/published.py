"""SFT drains the old mode and RL moves the new one: the released simulation, with every seed.

Does the simulation of "Retaining by Doing" reproduce, and what do its numbers rest on? It does. SFT trains on samples
of the target's new mode, RL on samples of the policy's own new mode, and the old mode's steps are slowed down: in the
uni-modal setting SFT forgets less, in the bi-modal setting RL does. Recursions for infinitely many samples, the lines
through the points, say why: SFT widens the new mode and takes the old one's weight, RL moves the new mode at its width.
RL's numbers rest on an offset and a floor of the reward, which an exact gradient would not see.

Chen, Razin, Narasimhan, Chen, arXiv:2510.18874, simulation of section 3. About 50 seconds on two cores.
"""

from functools import partial
from typing import Any, SupportsFloat

import jax
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.harness import Caption, Claim, at_least, at_most, near
from experiments.retaining.runs import Config as Config
from experiments.retaining.runs import Results as Results
from experiments.retaining.runs import Simulations
from experiments.retaining.runs import run as run
from rlrazor.plotting import COLORS, key, note, panels, samples, theory
from rlrazor.tasks import two_mode
from rlrazor.tasks.two_mode import Run

released = partial(Claim, source="released simulation of arXiv:2510.18874", published=True)


def claims(config: Config, results: Results) -> list[Claim]:
    """The published numbers, and what they rest on."""
    sft, rl = results.runs.bi_sft, results.runs.bi_rl
    return [
        *bimodal_claims(config, results.runs),
        Claim(
            id="reverse-forgets-less",
            statement=f"RL forgets less than SFT at equal gain: mean drop of SFT minus that of RL at gain "
            f"{config.gain:g}, bi-modal ({sft.arrived} of SFT and {rl.arrived} of RL arrive).",
            source="Chen et al., arXiv:2510.18874, headline",
            expected=at_least(0.03),
            measured=sft.drop - rl.drop,
            control="the uni-modal setting",
            control_measured=results.runs.uni_sft.drop - results.runs.uni_rl.drop,
        ),
        *unimodal_claims(config, results),
        *recursion_claims(config, results),
    ]


def bimodal_claims(config: Config, runs: Simulations) -> list[Claim]:
    """What the released simulation prints in the bi-modal setting."""
    kinds, steps, gain, strays = config.kinds(), config.bi_steps, f"gain {config.gain:g}", runs.bi_rl.seeds.stop.drop
    return [
        released(
            id="bi-forward-drop",
            statement=f"{kinds.bi_sft.title}: mean drop at {gain} ({runs.bi_sft.arrived} arrive).",
            expected=near(0.126, 0.004),
            measured=runs.bi_sft.drop,
            control=f"rate {kinds.bi_slow_sft.rate:g}, after {steps} updates",
            control_measured=runs.bi_slow_sft.seeds.end.drop.mean(),
            note="One update earlier, the parameters that the published figure draws, it is "
            f"{amount(runs.bi_sft.seeds.stop.drop_before.mean())}.",
        ),
        released(
            id="bi-forward-stop",
            statement=f"{kinds.bi_sft.title}: mean number of updates to {gain} ({runs.bi_sft.arrived} arrive).",
            expected=near(85, 3),
            measured=runs.bi_sft.seeds.stop.update.mean(),
            control=kinds.bi_rl.label,
            control_measured=runs.bi_rl.seeds.stop.update.mean(),
        ),
        released(
            id="bi-forward-slow-gain",
            statement=f"{kinds.bi_slow_sft.title}: mean gain after {steps} updates; {runs.bi_slow_sft.arrived} reach "
            f"{gain}.",
            expected=near(0.435, 0.005),
            measured=runs.bi_slow_sft.seeds.end.gain.mean(),
            control=f"rate {kinds.bi_sft.rate:g}",
            control_measured=runs.bi_sft.seeds.end.gain.mean(),
        ),
        released(
            id="bi-forward-slow-drop",
            statement=f"{kinds.bi_slow_sft.title}: mean drop after {steps} updates.",
            expected=near(0.021, 0.002),
            measured=runs.bi_slow_sft.seeds.end.drop.mean(),
            control=f"rate {kinds.bi_sft.rate:g}, at {gain}",
            control_measured=runs.bi_sft.drop,
        ),
        released(
            id="bi-reverse-drop",
            statement=f"{kinds.bi_rl.title}: mean drop at {gain} ({runs.bi_rl.arrived} arrive).",
            expected=near(0.044, 0.028),
            measured=runs.bi_rl.drop,
            control=kinds.bi_sft.label,
            control_measured=runs.bi_sft.drop,
            note="A sample that strays towards the old mode carries a large weight, so seeds differ: the median drops "
            f"{amount(np.median(strays))}, the worst {amount(np.max(strays))}; infinitely many separated samples would "
            f"drop {amount(drop_at_gain(config, runs.bi_rl.recursion))}.",
        ),
    ]


def unimodal_claims(config: Config, results: Results) -> list[Claim]:
    """What it prints in the uni-modal setting."""
    kinds, runs, gain = config.kinds(), results.runs, f"gain {config.gain:g}"
    no_floor = drop_at_gain(config, results.no_floor)
    return [
        released(
            id="uni-forward-drop",
            statement=f"{kinds.uni_sft.title}: mean drop at {gain} ({runs.uni_sft.arrived} arrive).",
            expected=near(0.639, 0.003),
            measured=runs.uni_sft.drop,
            control=kinds.uni_rl.label,
            control_measured=runs.uni_rl.drop,
        ),
        released(
            id="uni-reverse-drop",
            statement=f"{kinds.uni_rl.title}: mean drop at {gain} ({runs.uni_rl.arrived} arrive).",
            expected=near(0.697, 0.005),
            measured=runs.uni_rl.drop,
            control=f"without the floor of {config.floor:g} inside the reward's logarithm",
            control_measured=no_floor,
            note="The floor caps the reward's log-ratio from below, which widens the policy; it is a hidden constant. "
            f"Without it infinitely many samples would drop {amount(no_floor)}, where SFT drops "
            f"{amount(runs.uni_sft.drop)}.",
        ),
    ]


def recursion_claims(config: Config, results: Results) -> list[Claim]:
    """What infinitely many samples would do, and why."""
    kinds, runs, recursion = config.kinds(), results.runs, results.runs.bi_rl.recursion
    formula = runs.bi_sft.recursion.path.old_weights[:: config.saved_every]
    return [
        Claim(
            id="weight-closed-form",
            statement="The old weight under SFT is 1 - sqrt((1 - w)² + 2 lr slow k): largest deviation, all seeds, "
            f"every {config.saved_every} updates, rate {kinds.bi_sft.rate:g}.",
            source="derived: separated modes",
            expected=at_most(0.003),
            measured=np.abs(formula - runs.bi_sft.seeds.old_weights).max(),
            control=f"the same formula against the runs at rate {kinds.bi_slow_sft.rate:g}",
            control_measured=np.abs(formula - runs.bi_slow_sft.seeds.old_weights).max(),
        ),
        Claim(
            id="offset-decides",
            statement=f"RL's drop after {config.bi_steps} updates, bi-modal, infinitely many samples; it is driven by "
            f"the reward's offset -log beta = {-np.log(config.beta):.3g}, which an exact gradient would not see.",
            source="derived: the samples never reach the old mode, so its score is not centered",
            expected=near(0.05, 0.005),
            measured=recursion.progress.drop[-1],
            control="without the offset, beta = 1",
            control_measured=results.no_offset.progress.drop[-1],
            published=True,
        ),
    ]


def amount(drop: SupportsFloat) -> str:
    """A drop, as far as it is known."""
    return f"{float(drop):.3f}" if np.isfinite(float(drop)) else "an unknown amount"


def drop_at_gain(config: Config, recursion: Run) -> float:
    """The drop of a recursion where it has the gain, NaN if never."""
    return float(two_mode.first_stop(recursion.progress, config.gain).drop)


def plot(config: Config, results: Results) -> Figure:
    """What runs do to the density, what they forget for what they learn, and every seed at equal gain."""
    kinds = config.kinds()
    figure, axes = panels([["bi", "uni"], ["exchange", "seeds"]], 5.2)
    draw_densities(axes["bi"], config, results, kinds.bi_sft.setting)
    draw_densities(axes["uni"], config, results, kinds.uni_sft.setting)
    draw_exchange(axes["exchange"], config, results)
    draw_seeds(axes["seeds"], config, results)
    return figure


def draw_densities(ax: Axes, config: Config, results: Results, name: str) -> None:
    """The first seed's densities in a setting, from the start, pale, to where it has the gain or gives up."""
    setting, kinds = results.settings[name], config.kinds()
    grid = setting.grid
    ax.plot(grid, two_mode.density(setting.target, grid), "--", color=COLORS["target"], label=r"target $\pi_\star$")
    theory(ax, grid, two_mode.density(setting.init, grid), color=COLORS["ref"], label="start")
    for kind, simulation in zip(kinds, results.runs, strict=True):
        if kind.setting != name:
            continue
        style = {"color": COLORS[kind.direction], "linestyle": ":" if kind == kinds.bi_slow_sft else "-"}
        for k in range(1, config.num_frames):
            frame = jax.tree.map(lambda leaf, k=k: leaf[k], simulation.seeds.frames)
            theory(ax, grid, two_mode.density(frame, grid), alpha=k / (config.num_frames - 1), linewidth=1.0, **style)
        drop, end = simulation.seeds.stop.drop[0], simulation.seeds.end.gain[0]
        key(ax, f"{kind.label}: " + (f"drop {drop:.2f}" if np.isfinite(drop) else f"gain {end:.2f} only"), **style)
    ax.set(xlabel="outcome $y$", ylabel="density", title=f"{name}, first seed, to gain {config.gain:g}")
    ax.margins(x=0)
    ax.set_ylim(0, 1.05 * ax.get_ylim()[1])
    ax.legend(loc="upper right")


def draw_exchange(ax: Axes, config: Config, results: Results) -> None:
    """Drop against gain along every run: seeds as points, the recursion as a line."""
    lines = dict(zip(results.settings, ("-", "--"), strict=True))
    for kind, simulation in zip(config.kinds(), results.runs, strict=True):
        saved, path = simulation.seeds.saved, simulation.recursion.progress
        every, style = max(saved.gain.shape[1] // 40, 1), {"color": COLORS[kind.direction], "alpha": 0.15}
        points = (saved.gain[:, ::every].ravel(), saved.drop[:, ::every].ravel())
        samples(ax, *points, at_most=points[0].size, markersize=2, rasterized=True, **style)
        theory(ax, path.gain, path.drop, color="black", linestyle=lines[kind.setting], linewidth=0.8)
    for kind in (config.kinds().bi_sft, config.kinds().bi_rl):
        key(ax, f"{kind.trainer}, sampled", color=COLORS[kind.direction], marker="o", linestyle="none")
    for name, line in lines.items():
        key(ax, f"{name}, recursion", color="black", linestyle=line, linewidth=0.8)
    ax.axvline(config.gain, color=COLORS["ref"], linewidth=0.6, zorder=0)
    ax.set(xlabel="gain: overlap with the new mode", ylabel="drop: overlap with the old mode lost")
    ax.set_title("every seed, to the last update")
    low, high = ax.get_ylim()
    ax.set_ylim(low, high + 0.2 * (high - low))  # room for the legend
    ax.legend(loc="upper left", ncols=2)


def draw_seeds(ax: Axes, config: Config, results: Results) -> None:
    """Drop at the gain, every seed; a kind of run that never has the gain says how far it gets."""
    kinds, jitter = config.kinds(), np.random.default_rng(0).uniform(-0.3, 0.3, config.num_seeds)
    for place, (kind, simulation) in enumerate(zip(kinds, results.runs, strict=True)):
        drops, style = simulation.seeds.stop.drop, {"color": COLORS[kind.direction], "alpha": 0.4}
        samples(ax, place + jitter, drops, at_most=drops.size, markersize=1.5, **style)
        ax.hlines(drop_at_gain(config, simulation.recursion), place - 0.4, place + 0.4, color="black", linewidth=1)
        if not np.isfinite(drops).any():
            note(ax, f"gain\n{simulation.seeds.end.gain.mean():.2f}\nonly", (place, 0.0), ha="center", va="bottom")
    last, no_floor = len(kinds) - 1, drop_at_gain(config, results.no_floor)
    if np.isfinite(no_floor):
        ax.hlines(no_floor, last - 0.4, last + 0.4, color="black", linestyle=":", linewidth=1)
        note(ax, "no floor", (last, no_floor), ha="center", va="bottom")
    ax.set_xticks(range(len(kinds)), [f"{kind.setting}\n{kind.trainer}\n{kind.rate:g}" for kind in kinds])
    ax.set(ylabel=f"drop at gain {config.gain:g}", title="every seed; bar: recursion", xlim=(-0.6, last + 0.6))
    ax.margins(y=0.1)


def caption(config: Config, results: Results) -> Caption:
    """What to quote."""
    runs = results.runs

    def forgotten(simulation: Any) -> str:
        return f"{simulation.drop:.2f}" if np.isfinite(simulation.drop) else f"unknown ({simulation.arrived} arrive)"

    return Caption(
        f"At a gain of {config.gain:g} in overlap with the new mode, the drop in overlap with the old one is "
        f"{forgotten(runs.bi_sft)} under SFT and {forgotten(runs.bi_rl)} under RL in the bi-modal setting, "
        f"{forgotten(runs.uni_sft)} and {forgotten(runs.uni_rl)} in the uni-modal one. The "
        f"reward's hidden constants matter: without its floor uni-modal RL would drop "
        f"{amount(drop_at_gain(config, results.no_floor))}, without its offset bi-modal RL would drop "
        f"{amount(results.no_offset.progress.drop[-1])} by the last update instead of "
        f"{amount(runs.bi_rl.recursion.progress.drop[-1])}.",
        a="Bi-modal setting, densities of the first seed, from pale to full as updates go on.",
        b="The same in the uni-modal setting.",
        c=f"Drop against gain along {config.num_seeds} seeds of every run (points) and for infinitely many samples "
        "(lines).",
        d=f"Drop at gain {config.gain:g} of every seed; a run that never has it shows no points.",
    )
