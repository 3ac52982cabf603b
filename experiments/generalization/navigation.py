"""Does SFT forget the rule that it was not trained on, and does RL keep it?

Where every answer has a word of style that no verifier reads, and with SGD and momentum: yes. In the end SFT on a fixed
demonstrator walks a tenth of the steps right under the other rule, where the base walked three quarters; RL, exact or
sampled, nine tenths. But so does SFT on the closest teacher, on all styles, on its own filtered answers, with weights
(DFT), or with a tenth of its prompts under the other rule: what the demonstrator adds destroys, not imitation. When SFT
first masters the trained rule it has lost little; the rest is over-training. And much of the collapse is the
metric: a route that fails at its first turn has no step right, while at the expert's states SFT is mostly right still.

Chu et al., "SFT Memorizes, RL Generalizes" (arXiv:2501.17161), figures 5 and 6, V-IRL-L. About 95 seconds on two cores,
with `dip_and_recovery` and `drift_order`.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import rlrazor as rz
from experiments.generalization.walks import Config, Results
from experiments.generalization.walks import run as run
from experiments.harness import Caption, Claim, at_least, at_most
from rlrazor.methods import DFT, EXACT_RL, GRPO, ORACLE_SFT, REINFORCE, SFT, UNIFORM_SFT, plus_replay
from rlrazor.plotting import COLORS, METHOD_STYLE, key, note, panels, samples, theory

REPLAY = plus_replay(SFT)
DRAWN = (SFT, REPLAY, ORACLE_SFT, EXACT_RL, GRPO)
ORDER = (SFT, REPLAY, UNIFORM_SFT, ORACLE_SFT, DFT, REINFORCE, EXACT_RL, GRPO)
REWARDED = (EXACT_RL, GRPO)
TRAINED, OTHER = 0, 1
PAPER = "Chu et al., arXiv:2501.17161, figures 5 and 6 (V-IRL-L, per step: SFT 80.8 to 1.3, RL 80.8 to 91.8)"
SILENT = (
    "What this does not say about language models: that RL generalizes because it is RL, or that theirs collapse for "
    "this reason."
)


value_at_crossing = jax.jit(rz.value_at_crossing)


def matched(config: Config, results: Results, method: str) -> Any:
    """Accuracy under the other rule where that under the trained one first reaches each level, `[levels, seeds]`."""
    new, other = (jnp.asarray(results.accuracy(method, rule)) for rule in (TRAINED, OTHER))
    return np.stack([np.asarray(value_at_crossing(new, other, level)) for level in config.matched])


def fall(results: Results, method: str, score: str) -> float:
    """What a score under the other rule loses from the first record to the last, mean over seeds."""
    values = np.asarray(getattr(results.trained[method].scores, score))[..., OTHER].mean(0)
    return float(values[0] - values[-1])


def claims(config: Config, results: Results) -> list[Claim]:
    """Who forgets the other rule, and why."""
    return [*who_forgets(config, results), *what_it_takes(config, results)]


def who_forgets(config: Config, results: Results) -> list[Claim]:
    """All master the trained rule, SFT forgets the other, and RL does not."""
    ends = {method: results.interval(config, method) for method in ORDER}
    learned = {method: results.interval(config, method, TRAINED) for method in ORDER}
    listed = ", ".join(f"{m} {float(x.value):.3f} [{float(x.low):.3f}, {float(x.high):.3f}]" for m, x in ends.items())
    return [
        Claim(
            id="all-learn",
            statement="Every method masters the trained rule: lower end of the 95% interval over seeds of the final "
            "accuracy per step under it, smallest over methods.",
            source=PAPER,
            expected=at_least(config.mastered),
            measured=min(float(x.low) for x in learned.values()),
            control="their bases",
            control_measured=results.accuracy(SFT, TRAINED)[:, 0].mean(),
        ),
        Claim(
            id="contrast",
            statement="Under the other rule SFT on a fixed demonstrator ends far below RL: what the worse of exact and "
            "sampled RL has more, mean over seeds.",
            source=PAPER,
            expected=at_least(0.4),
            measured=min(float(ends[method].value) for method in REWARDED) - ends[SFT].value,
            control=f"{ORACLE_SFT} instead of SFT",
            control_measured=min(float(ends[method].value) for method in REWARDED) - ends[ORACLE_SFT].value,
        ),
        Claim(
            id="sft-memorizes",
            statement="SFT on a demonstrator with a style of its own destroys the other rule: upper end of the 95% "
            f"interval over {config.num_seeds} seeds of the final accuracy per step.",
            source=PAPER,
            expected=at_most(config.forgotten),
            measured=ends[SFT].high,
            control=f"{ORACLE_SFT}, the same loss on the base's own style",
            control_measured=ends[ORACLE_SFT].high,
            note=f"Final accuracy under the other rule: {listed}; of the base "
            f"{results.accuracy(SFT, OTHER)[:, 0].mean():.3f}.",
        ),
        Claim(
            id="rl-keeps",
            statement="RL keeps the other rule: lower end of the 95% interval of the final accuracy per step, the "
            "smaller of exact and sampled.",
            source=PAPER,
            expected=at_least(config.kept),
            measured=min(float(ends[method].low) for method in REWARDED),
            control=SFT,
            control_measured=ends[SFT].low,
        ),
    ]


def what_it_takes(config: Config, results: Results) -> list[Claim]:
    """The demonstrator, the prompts, the length of training, and the metric."""
    ends = {method: results.interval(config, method) for method in ORDER}
    rl = float(np.mean([ends[method].value for method in REWARDED]))
    counted = fall(results, SFT, "per_step")
    counted = counted if counted > 0.1 else math.nan  # of a small fall there is no share
    level, at_level = config.matched[-1], {m: matched(config, results, m)[-1].mean() for m in (SFT, EXACT_RL)}
    return [
        Claim(
            id="closest-teacher-is-rl",
            statement="SFT on the closest teacher, the base given that it is right, ends where RL ends: distance of "
            "their mean final accuracies.",
            source="RL's Razor, arXiv:2509.04259: the distribution learned from matters, not the algorithm",
            expected=at_most(config.alike),
            measured=abs(float(ends[ORACLE_SFT].value) - rl),
            control="SFT on the demonstrator with a style of its own",
            control_measured=abs(float(ends[SFT].value) - rl),
        ),
        Claim(
            id="replay-cures",
            statement=f"A share of {config.replay_share:g} of prompts under the other rule cures SFT: lower end of the "
            "95% interval of the final accuracy per step.",
            source="this world",
            expected=at_least(config.kept),
            measured=ends[REPLAY].low,
            control="none of them",
            control_measured=ends[SFT].low,
        ),
        Claim(
            id="over-training",
            statement=f"When SFT first has {level:g} of steps right under the trained rule it has kept most of the "
            "other: accuracy there, mean over seeds.",
            source="Jin et al., arXiv:2509.12235 (the early peak)",
            expected=at_least(0.4),
            measured=at_level[SFT],
            control="SFT at the end",
            control_measured=ends[SFT].value,
            note=f"Exact RL has {at_level[EXACT_RL]:.3f} at that level.",
        ),
        Claim(
            id="metric",
            statement="Much of the collapse is the metric: what SFT's accuracy under the other rule falls by at the "
            "expert's states, as a share of its fall by the published count.",
            source="the published count: retries and the call that ends a route are steps, and a route begins with a "
            "turn",
            expected=at_most(0.4),
            measured=fall(results, SFT, "teacher_forced") / counted,
            control="routes walked to the end, which fall as far as they can",
            control_measured=fall(results, SFT, "arrived") / counted,
        ),
    ]


def plot(config: Config, results: Results) -> Figure:
    """Along training, at matched accuracy, by metric, and at the end."""
    figure, axes = panels([["path", "matched"], ["metric", "end"]], height=5.2)
    draw_paths(axes["path"], config, results)
    draw_matched(axes["matched"], config, results)
    draw_metrics(axes["metric"], results)
    draw_ends(axes["end"], config, results)
    return figure


def draw_paths(ax: Axes, config: Config, results: Results) -> None:
    """Accuracy under both rules along training: means, and every seed under the other rule."""
    steps = np.maximum(results.steps, 1)
    for method in DRAWN:
        color, _, line = METHOD_STYLE[method]
        other = results.accuracy(method, OTHER)
        theory(ax, steps, other.T, color=color, linewidth=0.4, alpha=0.4)
        theory(ax, steps, other.mean(0), color=color, linestyle=line, linewidth=1.5, label=method)
        theory(ax, steps, results.accuracy(method, TRAINED).mean(0), color=color, linewidth=0.7, linestyle=(0, (1, 1)))
    key(ax, "trained rule", color=COLORS["ref"], linewidth=0.7, linestyle=(0, (1, 1)))
    ax.set(
        xscale="log", xlabel="updates", ylabel="right steps (published count)", ylim=(0, 1.03), title="along training"
    )
    ax.legend(loc="lower left")


def draw_matched(ax: Axes, config: Config, results: Results) -> None:
    """Accuracy under the other rule at equal accuracy under the trained one: bars are means, points seeds."""
    width = 0.8 / len(DRAWN)
    for place, method in enumerate(DRAWN):
        color = METHOD_STYLE[method].color
        values = np.concatenate([matched(config, results, method), results.final(method)[None]])
        x = np.arange(len(values)) + (place - (len(DRAWN) - 1) / 2) * width
        look: dict[str, Any] = {"color": color, "alpha": 0.35, "linewidth": 0}
        if method == REPLAY:
            look |= {"hatch": "////", "edgecolor": color}
        ax.bar(x, np.nan_to_num(values.mean(-1)), 0.9 * width, **look)
        samples(ax, np.repeat(x, values.shape[1]), values.ravel(), at_most=values.size, color=color, markersize=1.8)
    ax.set_xticks(range(len(config.matched) + 1), [*(f"{level:g}" for level in config.matched), "the end"])
    ax.set(xlabel="where the trained rule is first done this well", ylabel="other rule, right steps", ylim=(0, 1.03))
    ax.set_title("at equal success")


def draw_metrics(ax: Axes, results: Results) -> None:
    """Three scores of the same walkers under the other rule."""
    scores = {"per_step": "published count", "teacher_forced": "at the expert's states", "arrived": "routes arrived"}
    looks = {"per_step": "o", "teacher_forced": "s", "arrived": "^"}
    names = ["base", *DRAWN]
    for place, (score, label) in enumerate(scores.items()):
        values = [getattr(results.trained[m].scores, score)[:, -1, OTHER] for m in DRAWN]
        values.insert(0, getattr(results.trained[SFT].scores, score)[:, 0, OTHER])
        for row, (name, each) in enumerate(zip(names, values, strict=True)):
            color = COLORS["ref"] if name == "base" else METHOD_STYLE[name].color
            x = np.full(len(each), row + (place - 1) * 0.22)
            samples(ax, x, each, at_most=len(each), color=color, marker=looks[score], markersize=2.5, fillstyle="none")
        key(ax, label, color=COLORS["exact"], marker=looks[score], linestyle="none", fillstyle="none")
    ax.set_xticks(range(len(names)), [name.replace(" ", "\n", 1) for name in names])
    ax.set(ylabel="score under the other rule", ylim=(0, 1.03), title="by metric")
    ax.legend(loc="center right", bbox_to_anchor=(1, 0.35))


def draw_ends(ax: Axes, config: Config, results: Results) -> None:
    """Final accuracy under the other rule: every seed, the mean and its interval."""
    for row, method in enumerate(ORDER):
        color, marker, _ = METHOD_STYLE[method]
        found = results.interval(config, method)
        each = results.final(method)
        samples(ax, each, np.full(len(each), row), at_most=len(each), color=color, marker=marker, alpha=0.5)
        ax.plot([found.low, found.high], [row, row], color=color, linewidth=3, alpha=0.5, solid_capstyle="butt")
    base = results.accuracy(SFT, OTHER)[:, 0].mean()
    ax.axvline(base, color=COLORS["ref"], linewidth=0.8, linestyle="--")
    note(ax, "base", (base - 0.01, len(ORDER) - 0.8), color=COLORS["ref"], ha="right", va="bottom")
    ax.set_yticks(range(len(ORDER)), [method for method in ORDER])
    ax.invert_yaxis()
    ax.set(xlabel="other rule, right steps", xlim=(0, 1.03), title="in the end")


def caption(config: Config, results: Results) -> Caption:
    """What a reader can quote."""
    ends = {method: float(results.interval(config, method).value) for method in ORDER}
    base = results.accuracy(SFT, OTHER)[:, 0].mean()
    forced = np.asarray(results.trained[SFT].scores.teacher_forced)[:, -1, OTHER].mean()
    return Caption(
        f"After {config.num_steps} updates under one rule, SFT on a fixed demonstrator has {ends[SFT]:.2f} of steps "
        f"right under the other, from {base:.2f}; exact RL {ends[EXACT_RL]:.2f}, GRPO {ends[GRPO]:.2f}, SFT on the "
        f"closest teacher {ends[ORACLE_SFT]:.2f}. At the expert's states the same SFT is right with probability "
        f"{forced:.2f}. {SILENT}",
        a=f"Right steps by the published count: means under the other rule (thick, with all {config.num_seeds} seeds) "
        "and under the trained one (dotted); the start is drawn at 1.",
        b="The other rule where the trained one is first done as well as that, and at the end: means and every seed.",
        c="The same walkers by three scores.",
        d="Every seed, and the 95% interval of the mean.",
    )
