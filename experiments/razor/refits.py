"""Do a policy's own samples keep it in place, when it is refitted to them again and again?

Refitting to N own correct answers looks like the most conservative training there is: nothing but on-policy successes.
It keeps every answer's share in expectation, and yet the policy drifts: this is neutral Wright-Fisher evolution, whose
heterozygosity, the chance that two answers differ, shrinks by 1 - 1/N a round until one answer is left, any of them.
Policy gradient goes the same way with selection: it always ends at the likeliest.

About 5 seconds on two cores.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import rlrazor as rz
from experiments.harness import Caption, Claim, UserError, at_most, bounded, checked_run
from rlrazor.methods import REINFORCE
from rlrazor.plotting import COLORS, METHOD_STYLE, panels, theory
from rlrazor.tasks import refits

MARKERS = "osDv^<>ph*"


@dataclass(frozen=True)
class Config:
    """The base's correct answers, and chains of refits to samples of them."""

    correct: tuple[float, ...] = bounded((0.30, 0.25, 0.15, 0.10, 0.05), at_least=1e-9, below=1, min_length=2)
    """Base probabilities of the correct answers; what is left of 1 fails."""
    populations: tuple[int, ...] = bounded((20, 50, 200), at_least=2, at_most=10_000_000)
    """Samples N of a refit, increasing."""
    num_chains: int = bounded(1000, at_least=30, at_most=100_000)
    """Chains of refits of each N."""
    num_rounds: int = bounded(100, at_most=10_000)
    """Rounds of a chain."""
    least_mixed: int = bounded(5, at_most=100_000)
    """Chains with more than one answer that a comparison needs: a mean over fewer has no standard error to trust."""
    seed: int = bounded(0, at_least=0)
    """Of the random keys."""

    def __post_init__(self) -> None:
        """The base fails sometimes, populations increase, and the chains fit into memory."""
        if not math.fsum(self.correct) < 1:
            raise UserError(f"correct must sum to less than 1, got {' + '.join(map(str, self.correct))}")
        if not list(self.populations) == sorted(set(self.populations)):
            raise UserError(f"populations must increase, got {self.populations}")
        if len(self.populations) > len(MARKERS):
            raise UserError(f"populations must hold at most {len(MARKERS)} values, got {len(self.populations)}")
        if self.num_chains * self.num_rounds * len(self.correct) > 10**8:
            raise UserError("num_chains, num_rounds and correct make more than 1e+08 shares of a population")

    @classmethod
    def quick(cls) -> "Config":
        """Fewer chains."""
        return cls(num_chains=300)


class Mean(NamedTuple):
    """A mean over chains, after every round from the start."""

    value: Float[Array, " rounds"]
    error: Float[Array, " rounds"]  # its standard error


class Chains(NamedTuple):
    """Chains of refits to samples of one size."""

    heterozygosity: Mean
    expected: Float[Array, " rounds"]  # its closed form
    top_share: Mean  # of the answer that is likeliest in the base
    num_mixed: Float[Array, " rounds"]  # chains with more than one answer

    def last(self, config: Config) -> int:
        """The last round after which enough chains are mixed; 0, the start, if there is none."""
        return int(np.flatnonzero(np.append(True, self.num_mixed[1:] >= config.least_mixed))[-1])

    def score(self, against: Any, after: int) -> Any:
        """Heterozygosity less the given one after a round, in standard errors, without sign; NaN at the start."""
        left, error = self.heterozygosity.value[after], self.heterozygosity.error[after]
        return np.abs(left - against[after]) / error if after and error > 0 else np.nan

    def top_score(self, against: Any, measured: Any = None) -> Any:
        """A share, the mean one after the last round unless given, less another, in standard errors, without sign."""
        share, error = self.top_share.value[-1] if measured is None else measured, self.top_share.error[-1]
        return np.abs(share - against) / error if error > 0 else np.nan


class Results(NamedTuple):
    """Chains by samples, and the share of the likeliest answer in the base and where policy gradient ends."""

    chains: dict[str, Chains]
    base_share: Float[Array, ""]
    selected_share: Float[Array, ""]


def name_of(population: int) -> str:
    """The key of a population."""
    return f"N = {population}"


@checked_run
def run(config: Config) -> Results:
    """Chains for every number of samples, and the end of policy gradient."""
    failure = 1 - math.fsum(config.correct)
    log_ref = jnp.log(jnp.array([*config.correct, failure]))
    accept = jnp.arange(log_ref.size) < len(config.correct)
    shares = jnp.array(config.correct) / math.fsum(config.correct)
    end = rz.condition(rz.success_gradient_path(log_ref, accept, 1.0), accept)
    key = jax.random.fold_in(jax.random.key(config.seed), 3)
    keys = jax.random.split(key, (len(config.populations), config.num_chains))
    return Results(
        {
            name_of(n): chains(row, shares, jnp.full(config.num_chains, float(n)), config.num_rounds)
            for n, row in zip(config.populations, keys, strict=True)
        },
        shares.max(),
        jnp.exp(end)[jnp.argmax(shares)],
    )


@partial(jax.jit, static_argnames="num_rounds")
def chains(
    keys: Key[Array, " chains"], shares: Float[Array, " answers"], population: Float[Array, " chains"], num_rounds: int
) -> Chains:
    """Chains from the shares, and what they are expected to do."""
    paths = jax.vmap(lambda key, n: refits.refit(key, shares, n, num_rounds=num_rounds))(keys, population)
    left = refits.heterozygosity(paths)
    return Chains(
        mean_of(left),
        refits.expected_heterozygosity(shares, population[:1], jnp.arange(num_rounds + 1.0)),
        mean_of(paths[..., jnp.argmax(shares)]),
        (paths.max(-1) < 1).sum(0).astype(float),
    )


def mean_of(values: Float[Array, "chains rounds"]) -> Mean:
    """The mean over chains, with its standard error."""
    return Mean(values.mean(0), values.std(0, ddof=1) / jnp.sqrt(float(len(values))))


def largest(scores: list[Any]) -> Any:
    """The largest score of the populations that have one; NaN if none has."""
    return max((score for score in scores if not np.isnan(score)), default=np.nan)


def claims(config: Config, results: Results) -> list[Claim]:
    """The law of decay, and that nothing selects."""
    found = by_size(config, results)
    ends = {name: chains.last(config) for name, chains in found}
    rounds = ", ".join(f"{end} for {name}" for name, end in ends.items() if end) or "none"
    agree = [chains.score(chains.expected, ends[name]) for name, chains in found]
    kept = [chains.score(np.full(len(chains.expected), chains.expected[0]), ends[name]) for name, chains in found]
    moves = [chains.top_score(results.base_share) for _, chains in found]
    selects = [chains.top_score(results.selected_share, results.base_share) for _, chains in found]
    return [
        Claim(
            id="heterozygosity",
            statement="Refitting to N own correct samples shrinks the heterozygosity by 1 - 1/N a round: largest "
            f"difference in standard errors, after the last of {config.num_rounds} rounds that leaves "
            f"{config.least_mixed} of {config.num_chains} chains with two answers or more.",
            source="Wright 1931",
            expected=at_most(4),
            measured=largest(agree),
            control="refits to infinitely many samples, which keep it",
            control_measured=largest(kept),
            note=f"Compared after round {rounds}.",
        ),
        Claim(
            id="neutral",
            statement=f"That drift is neutral: mean share of the likeliest answer after {config.num_rounds} rounds, "
            "minus its share in the base, in standard errors, for the N where it is largest.",
            source="Wright-Fisher evolution without selection",
            expected=at_most(4),
            measured=largest(moves),
            control="where plain policy gradient from this base ends: it selects the likeliest",
            control_measured=largest(selects),
            note=f"The share is {results.base_share:.4f} in the base and {results.selected_share:.4f} where policy "
            "gradient ends.",
        ),
    ]


def plot(config: Config, results: Results) -> Figure:
    """What is left of the heterozygosity, and the mean share of the likeliest answer."""
    figure, axes = panels([["decay", "share"]], height=2.8)
    rounds, some = np.arange(config.num_rounds + 1), slice(None, None, max(config.num_rounds // 10, 1))
    shades = np.linspace(0.35, 1.0, len(config.populations))
    for (name, found), shade, marker in zip(by_size(config, results), shades, MARKERS, strict=False):
        look: Any = {"color": COLORS["exact"], "alpha": shade}
        bars: Any = look | {"fmt": marker, "markersize": 3, "label": f"${name}$"}
        theory(axes["decay"], rounds, found.expected, **look)
        for panel, mean in (("decay", found.heterozygosity), ("share", found.top_share)):
            axes[panel].errorbar(rounds[some], mean.value[some], 2 * np.asarray(mean.error)[some], **bars)
    draw_shares(axes["share"], results)
    axes["decay"].set(xlabel="round $t$", ylabel="heterozygosity $H_t$", ylim=(0, None))
    axes["decay"].set_title("lines: $H_0\\,(1-1/N)^t$")
    axes["share"].set(xlabel="round $t$", ylabel="mean share of the likeliest answer", title="none is selected")
    axes["decay"].legend(loc="upper right")
    return figure


def by_size(config: Config, results: Results) -> list[tuple[str, Chains]]:
    """Chains in the order of their samples."""
    return [(name_of(n), results.chains[name_of(n)]) for n in config.populations]


def draw_shares(ax: Axes, results: Results) -> None:
    """The shares that the chains are compared with."""
    ax.axhline(float(results.base_share), color=COLORS["target"], linestyle="--", linewidth=1.0, zorder=0, label="base")
    color = METHOD_STYLE[REINFORCE].color
    ax.axhline(float(results.selected_share), color=color, zorder=0, label=f"where {REINFORCE} ends")
    ax.legend(loc="center right")


def caption(config: Config, results: Results) -> Caption:
    """What a reader can quote."""
    left = [f"{found.expected[-1] / found.expected[0]:.2g} with {name}" for name, found in by_size(config, results)]
    return Caption(
        f"A policy that is refitted to N own correct samples drifts without being selected: after {config.num_rounds} "
        f"rounds the share of its heterozygosity that is left is {', '.join(left)}. The mean share of its likeliest "
        f"answer stays {results.base_share:.3f}, where plain policy gradient would end at "
        f"{results.selected_share:.3f}.",
        a=f"Heterozygosity 1 - Σ π(y|S)²: lines are the closed form, points means over {config.num_chains} chains "
        "with two standard errors.",
        b="Mean share of the answer that is likeliest in the base, with two standard errors.",
    )
