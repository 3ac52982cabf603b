"""Is the policy that RL finds the closest one that does the new task?

"RL's Razor" (Shenfeld, Pari, Agrawal, arXiv:2509.04259) argues that on-policy RL finds, among the policies that solve
the new task, the one closest to where it started. A policy with success rate J is at least kl(p0, J) from its base in
forward drift KL(base || policy), and kl(J, p0) in reverse drift, with p0 the base's success rate: the frontier. The
natural gradient, the reward tilt and the mixture with the oracle run along it. Plain policy gradient does where the
base is uniform on the correct answers and on the wrong ones, as in the published toy; from a skewed base it leaves the
frontier, though it stays closer than SFT on given labels.

Lemma 5.1 and figure 3 of the paper. About 10 seconds on two cores.
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import rlrazor as rz
from experiments.harness import Caption, Claim, UserError, at_least, bounded, check_sum, checked_run, near
from rlrazor.methods import ORACLE_SFT, REINFORCE, SFT_1, SFT_2, plus_kl
from rlrazor.plotting import COLORS, LABELS, METHOD_STYLE, key, note, panels, samples, success_axis, theory

SKEWED, UNIFORM = "skewed", "uniform"
BASES = (SKEWED, UNIFORM)
PENALIZED = plus_kl(REINFORCE)
METHODS = (SFT_1, SFT_2, REINFORCE, PENALIZED, ORACLE_SFT)
NATURAL, TILT, BLEND = "natural gradient", "tilt", "mixture with the oracle"
ON_FRONTIER = (NATURAL, TILT, BLEND)


@dataclass(frozen=True)
class Config:
    """A base with correct and wrong answers, whom SFT imitates, and where methods are compared."""

    correct: tuple[float, ...] = bounded((0.30, 0.25, 0.15, 0.10, 0.05), above=0)
    """Base probabilities of the correct answers."""
    wrong: tuple[float, ...] = bounded((0.05, 0.03, 0.04, 0.02, 0.01), above=0)
    """Base probabilities of the wrong answers."""
    labels: tuple[int, int] = bounded((0, 2), at_least=0, length=2)
    """Correct answers, counted from 0, that SFT trains on: the first alone, or both with equal shares."""
    accuracy: float = bounded(0.99, above=0, below=1)
    """Success rate J at which methods are compared."""
    beta: float = bounded(0.1, above=0, at_most=10)
    """Coefficient of the KL penalty."""
    first_time: float = bounded(0.1, above=0, at_most=0.5)
    """First saved time after the start (rate times steps)."""
    end_time: float = bounded(1e5, at_least=1, at_most=1e6)
    """How long the flows run."""
    num_times: int = bounded(160, at_least=10, at_most=10_000)
    """Saved times, log-spaced."""
    log_odds: float = bounded(7.5, above=0, at_most=30)
    """How far the natural gradient is followed: its gain in log J / (1 - J)."""
    resolution: int = bounded(300, at_least=100, at_most=10_000)
    """Points on the frontier."""

    def __post_init__(self) -> None:
        """It is normalised, labels are correct, the base is skewed, and the comparison lies above it."""
        check_sum("correct + wrong", self.correct + self.wrong)
        if not max(self.labels) < len(self.correct):
            raise UserError(f"labels must lie in [0, {len(self.correct) - 1}], got {self.labels}")
        if len(set(self.correct)) == len(set(self.wrong)) == 1:
            raise UserError("correct and wrong must not both be uniform: that is the other base")
        if not self.base_success < self.accuracy:
            raise UserError(f"accuracy must lie between {self.base_success:g} and 1, got {self.accuracy}")

    @classmethod
    def quick(cls) -> "Config":
        """Shorter flows and fewer times."""
        return cls(end_time=1e4, num_times=60)

    @property
    def base_success(self) -> float:
        """p0, the success rate of either base."""
        return math.fsum(self.correct)

    @property
    def bases(self) -> dict[str, tuple[float, ...]]:
        """The base as given, and evened out on the correct answers and on the wrong ones."""
        p0, correct, wrong = self.base_success, len(self.correct), len(self.wrong)
        return {
            SKEWED: self.correct + self.wrong,
            UNIFORM: (p0 / correct,) * correct + ((1 - p0) / wrong,) * wrong,
        }


class Path(NamedTuple):
    """Policies in the plane of success and drift."""

    success: Float[Array, " *points"]
    drift: rz.Drifts

    def above_frontier(self, config: Config) -> rz.Drifts:
        """Drift less the least at the same success rate."""
        least = rz.success_frontier(config.base_success, jnp.asarray(self.success))
        return rz.Drifts(self.drift.forward - least.forward, self.drift.reverse - least.reverse)


class Results(NamedTuple):
    """The frontier, what runs along it, and the flows of the methods from both bases."""

    frontier: Path
    on_frontier: dict[str, Path]
    flows: dict[str, dict[str, Path]]  # base -> method -> to the end
    matched: dict[str, dict[str, Path]]  # base -> method -> at the accuracy of the comparison; NaN if not reached


@checked_run
def run(config: Config) -> Results:
    """Closed forms, and the flows of every method from both bases, to the end and to the accuracy."""
    accept = jnp.arange(len(config.correct + config.wrong)) < len(config.correct)
    log_bases = {base: jnp.log(jnp.array(probabilities)) for base, probabilities in config.bases.items()}
    times = rz.log_times(config.first_time, config.end_time, config.num_times)
    paths: dict[str, dict[str, Path]] = {}
    matched: dict[str, dict[str, Path]] = {}
    for base in BASES:
        task = log_bases[base], accept
        whole, stopped = (
            flows(*task, jnp.array(config.labels), config.beta, times, until) for until in (jnp.inf, config.accuracy)
        )
        paths[base] = {method: path_of(whole[method].log_policy, *task) for method in METHODS}
        matched[base] = {method: path_of(end_of(stopped[method]), *task) for method in METHODS}
    policies = along_frontier(log_bases[SKEWED], accept, jnp.linspace(0.0, config.log_odds, config.resolution))
    on_frontier = {name: path_of(policies[name], log_bases[SKEWED], accept) for name in ON_FRONTIER}
    success = on_frontier[NATURAL].success
    return Results(Path(success, rz.success_frontier(config.base_success, success)), on_frontier, paths, matched)


@jax.jit
def flows(
    log_ref: Float[Array, " outcomes"],
    accept: Bool[Array, " outcomes"],
    labels: Int[Array, "2"],
    beta: Float[Array, ""],
    times: Float[Array, " times"],
    until: Float[Array, ""],
) -> dict[str, rz.Trajectory]:
    """The gradient flow of each method on the logits, until it has the given success rate."""
    taught = jax.nn.one_hot(labels, log_ref.size)
    demonstrations = {SFT_1: jnp.log(taught[0]), SFT_2: jnp.log(taught.mean(0))}
    problem = rz.Problem(log_ref, accept, demonstrations, beta=beta)

    def reached(logits: Float[Array, " outcomes"]) -> Float[Array, ""]:
        return rz.success_rate(rz.softmax_policy(logits), accept) - until

    return rz.gradient_flows(rz.exact_losses(METHODS, problem), log_ref, times, stop=reached)


def end_of(flow: rz.Trajectory) -> Float[Array, " outcomes"]:
    """The policy where the flow stopped; NaN if it did not."""
    return jnp.where(flow.stopped, flow.log_policy[-1], jnp.nan)


@jax.jit
def path_of(
    log_policy: Float[Array, "*points outcomes"], log_ref: Float[Array, " outcomes"], accept: Bool[Array, " outcomes"]
) -> Path:
    """Where policies are in the plane of success and drift."""
    return Path(rz.success_rate(log_policy, accept), rz.drifts(log_policy[..., None, :], log_ref[None]))


@jax.jit
def along_frontier(
    log_ref: Float[Array, " outcomes"], accept: Bool[Array, " outcomes"], log_odds: Float[Array, " points"]
) -> dict[str, Float[Array, "points outcomes"]]:
    """Three constructions that keep the base's ratios on the correct answers and on the wrong ones."""
    reward = accept.astype(log_ref.dtype)
    return {
        NATURAL: rz.reward_flow(log_ref, reward, log_odds),
        TILT: rz.tilt(log_ref, reward, 1 / log_odds),
        BLEND: rz.m_geodesic(log_ref, rz.condition(log_ref, accept), -jnp.expm1(-log_odds)),
    }


def claims(config: Config, results: Results) -> list[Claim]:
    """Who runs along the frontier, who does not, and by how much."""
    paper, level = "RL's Razor, arXiv:2509.04259", f"J = {config.accuracy:g}"
    skewed = results.matched[SKEWED]
    ours, even = (results.matched[base][REINFORCE].above_frontier(config) for base in BASES)
    on_frontier = [results.on_frontier[name].above_frontier(config) for name in ON_FRONTIER]
    return [
        Claim(
            id="frontier",
            statement="Natural gradient, reward tilt and mixture with the oracle run along the frontier: largest "
            "distance of their drift from kl(p0, J) or kl(J, p0).",
            source=f"{paper}, Lemma 5.1, at every success rate",
            expected=near(0, 1e-9),
            measured=np.abs(jax.tree.leaves(on_frontier)).max(),
            control=f"plain policy gradient, at {level}",
            control_measured=np.maximum(ours.forward, ours.reverse),
        ),
        Claim(
            id="closer-than-sft",
            statement=f"Policy gradient is closer to the base than SFT on given labels at {level}: forward drift of "
            "SFT on two labels minus that of policy gradient.",
            source=f"{paper}, figure 3",
            expected=at_least(0),
            measured=skewed[SFT_2].drift.forward - skewed[REINFORCE].drift.forward,
            control="SFT on the oracle",
            control_measured=skewed[ORACLE_SFT].drift.forward - skewed[REINFORCE].drift.forward,
        ),
        Claim(
            id="not-minimal",
            statement=f"Plain policy gradient is not KL-minimal: its reverse drift above the frontier at {level}, from "
            "the skewed base.",
            source="exact flow; Theorem 5.2 says 0 in the limit",
            expected=at_least(1e-6),
            measured=ours.reverse,
            control="a base that is uniform on the correct answers and on the wrong ones",
            control_measured=even.reverse,
            note="The published toy is pretrained on labels that are uniform over the correct digits: its base is the "
            "control.",
        ),
    ]


def plot(config: Config, results: Results) -> Figure:
    """Drift against success rate from either base, and what is above the frontier where methods are compared."""
    figure, axes = panels([["forward", "reverse"], ["uniform", "excess"]], height=5.4)
    draw_paths(axes["forward"], config, results, SKEWED, "forward")
    draw_paths(axes["reverse"], config, results, SKEWED, "reverse")
    draw_paths(axes["uniform"], config, results, UNIFORM, "reverse")
    draw_excess(axes["excess"], config, results)
    figure.legend(*axes["forward"].get_legend_handles_labels(), loc="outside upper center", ncols=5)
    return figure


def draw_paths(ax: Axes, config: Config, results: Results, base: str, direction: str) -> None:
    """The frontier, what runs along it, and what leaves it, down to a twentieth of the failures of the comparison."""
    high = 1 - (1 - config.accuracy) / 20
    for method in METHODS:
        path, style = results.flows[base][method], METHOD_STYLE[method]
        theory(ax, path.success, getattr(path.drift, direction), color=style.color, linestyle=style.line, label=method)
    success, least = results.frontier.success, getattr(results.frontier.drift, direction)
    look: Any = {"color": COLORS["target"], "linestyle": "--", "linewidth": 1.0, "zorder": 4}
    theory(ax, success, least, label=r"frontier $\mathrm{kl}(p_0,J)$, $\mathrm{kl}(J,p_0)$", **look)
    top = 1.05 * max(np.interp(high, *np.array(line.get_data(), float)) for line in ax.lines)
    if base == SKEWED:
        for row, (name, marker) in enumerate(zip(ON_FRONTIER, "dsv", strict=True)):
            path, shown = results.on_frontier[name], slice((row + 1) * len(success) // 30, None, len(success) // 10)
            marks: Any = {"marker": marker, "color": COLORS["exact"], "markersize": 3, "zorder": 5, "label": name}
            samples(ax, path.success[shown], getattr(path.drift, direction)[shown], **marks)
    else:
        text, place = f"{REINFORCE}, {PENALIZED} and {ORACLE_SFT}", (high, np.interp(high, success, least))
        note(ax, text, place, xytext=(0, 3), textcoords="offset points", ha="right")
    success_axis(ax, config.base_success, high)
    ax.set(ylim=(0, top), ylabel=LABELS[f"{direction} drift"], title=f"{base} base")


def draw_excess(ax: Axes, config: Config, results: Results) -> None:
    """Reverse drift above the frontier at the accuracy of the comparison, where it is reached."""
    for base, size, face in ((SKEWED, 5, None), (UNIFORM, 7, "none")):
        for row, method in enumerate(METHODS):
            excess = results.matched[base][method].above_frontier(config)
            marks: Any = {"color": METHOD_STYLE[method].color, "markersize": size, "clip_on": False}
            samples(ax, [excess.reverse], [row], markerfacecolor=face or marks["color"], **marks)
        look: Any = {"markerfacecolor": face or COLORS["exact"], "markersize": size, "linestyle": "none"}
        key(ax, f"{base} base", color=COLORS["exact"], marker="o", **look)
    ax.axvline(0, color=COLORS["target"], linestyle="--", linewidth=1.0, zorder=0)
    ax.set_yticks(range(len(METHODS)), METHODS)
    ax.set(xlabel=r"reverse drift above $\mathrm{kl}(J,p_0)$ (nats)", title=f"at $J={config.accuracy:g}$")
    ax.invert_yaxis()
    ax.legend(loc="lower right")


def caption(config: Config, results: Results) -> Caption:
    """What a reader can quote."""
    level, ours = f"success rate {config.accuracy:g}", results.matched[SKEWED][REINFORCE].above_frontier(config).reverse
    found = f"at {level} it is {ours:.4g} nats above it in reverse drift"
    if np.isnan(ours):
        found = f"it does not reach {level} by time {config.end_time:g}"
    first, second = config.labels
    return Caption(
        f"From a skewed base plain policy gradient leaves the frontier: {found}. Natural gradient, reward tilt and "
        "mixture with the oracle run along it, and so does policy gradient from a uniform base.",
        a="Forward drift along the flow of each method against its success rate; marks are closed forms. SFT 1 "
        f"imitates correct answer {first}, SFT 2 answers {first} and {second} alike; + KL has a coefficient of "
        f"{config.beta:g}.",
        b="The same for reverse drift.",
        c="Reverse drift from the base that is uniform on the correct answers and on the wrong ones.",
        d=f"Reverse drift above the frontier at {level}; a method that does not reach it has no mark.",
    )
