"""Under which conditions does SFT forget the other rule, and when does RL forget it, too?

A map, one cell a condition. With a style that no verifier reads SFT on a fixed demonstrator forgets under every
optimizer; on all styles it forgets no more than exact RL. Without style SGD and momentum spare everyone, and Adam tells
not SFT from RL but sampled from exact: SFT and exact RL push the words that are never right down, a little at every
step, which Adam makes a whole step; a group of samples with a baseline leaves a word that it did not draw where it is.
A softmax over the listed actions alone undoes that. From a base that leaks a tenth of its mass to the other rule's
words RL collapses like SFT, but for sampled RL under Adam. A third of the rate is milder to all.

Chu et al. (arXiv:2501.17161), where the optimizer is Adam. About 60 seconds on two cores.
"""

from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import rlrazor as rz
from experiments.harness import Caption, Claim, UserError, at_least, at_most, bounded, checked_run
from rlrazor.methods import EXACT_RL, GRPO, SFT, UNIFORM_SFT
from rlrazor.plotting import METHOD_STYLE, note, panels, samples
from rlrazor.tasks import navigation
from rlrazor.tasks.navigation import ADAM, MOMENTUM, OPTIMIZERS

METHODS = (SFT, UNIFORM_SFT, EXACT_RL, GRPO)
STYLED, PLAIN = "style", "no style"
STYLES = (STYLED, PLAIN)
AS_IS, MASKED, LEAKY, SLOW = VARIANTS = ("as is", "listed actions only", "leaky base", "slower")
SLANTED: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
SILENT = "What this does not say about language models: which of these conditions they are trained in."


@dataclass(frozen=True)
class Config:
    """The city, the bases, and the rates of training."""

    num_styles: int = bounded(16, at_most=1000)
    """Words of style, which no verifier reads."""
    num_train: int = bounded(1000, at_most=100_000)
    """Routes of training."""
    num_test: int = bounded(100, at_most=100_000)
    """Held-out routes."""
    width: int = bounded(128, at_most=4096)
    """Of both hidden layers."""
    unsure: float = bounded(0.25, above=0, below=0.5)
    """Probability that the base is taught to spread over the actions of the rule's list."""
    leak: float = bounded(0.1, above=0, below=0.5)
    """Probability of the other rule's word in a leaky base."""
    pretrain_steps: int = bounded(2000, at_most=1_000_000)
    """Updates of the pretraining, by Adam."""
    pretrain_batch: int = bounded(256, at_most=100_000)
    """States of each."""
    rates: tuple[float, ...] = bounded((0.2, 0.04, 6e-4), above=0, at_most=10, length=3)
    """Learning rates of SGD, of SGD with momentum 0.9, and of Adam."""
    slow_factor: float = bounded(1 / 3, above=0, below=1)
    """Of the rates, in the slower variant."""
    num_steps: int = bounded(800, at_most=1_000_000)
    """Updates of every training."""
    batch_size: int = bounded(128, at_most=100_000)
    """States of an update."""
    group_size: int = bounded(8, at_least=2, at_most=1000)
    """Answers to each state, of GRPO."""
    num_seeds: int = bounded(2, at_most=1000)
    """Bases of each kind, and trainings from each."""
    many_seeds: int = bounded(8, at_least=2, at_most=1000)
    """Bases of the cell that tells sampled from exact RL: Adam, no style."""
    num_resamples: int = bounded(1000, at_least=20, at_most=100_000)
    """Bootstrap resamples of these."""
    seed: int = bounded(0, at_least=0)
    """Of everything."""

    def __post_init__(self) -> None:
        """The special cell has at least the seeds of the others."""
        if self.many_seeds < self.num_seeds:
            raise UserError(f"many_seeds must be at least num_seeds {self.num_seeds}, got {self.many_seeds}")

    @classmethod
    def quick(cls) -> "Config":
        """Small networks, one seed, short trainings."""
        return cls(
            num_train=500, num_test=40, width=64, pretrain_steps=1000, pretrain_batch=64, batch_size=48,
            num_steps=250, num_seeds=1, many_seeds=2, num_resamples=50,
        )  # fmt: skip


class Cell(NamedTuple):
    """Where trainings in one condition end: right steps by the published count, `[seeds]`."""

    trained: Float[Array, " seeds"]
    other: Float[Array, " seeds"]


class Results(NamedTuple):
    """Every cell of the map."""

    cells: dict[str, dict[str, dict[str, dict[str, Cell]]]]  # variant -> style -> optimizer -> method

    def cell(self, method: str, optimizer: str, style: str, variant: str = AS_IS) -> Cell:
        """One of them. Without style there is nothing to be diverse about, and uniform SFT is SFT."""
        found = self.cells[variant][style][optimizer]
        return found[SFT if style == PLAIN and method == UNIFORM_SFT else method]

    def mean(self, method: str, optimizer: str, style: str, variant: str = AS_IS) -> float:
        """Its mean under the other rule."""
        return float(np.mean(self.cell(method, optimizer, style, variant).other))


class Row(NamedTuple):
    """One training, in words and Python numbers."""

    variant: str
    style: str
    optimizer: str
    method: str
    seed: int


def all_rows(config: Config) -> list[Row]:
    """Every training, cell by cell."""
    rows = []
    for variant in VARIANTS:
        for style in STYLES:
            for optimizer in OPTIMIZERS:
                for method in METHODS if style == STYLED else (SFT, EXACT_RL, GRPO):
                    special = (variant, style, optimizer) == (AS_IS, PLAIN, ADAM)
                    seeds = config.many_seeds if special else config.num_seeds
                    rows += [Row(variant, style, optimizer, method, seed) for seed in range(seeds)]
    return rows


@checked_run
def run(config: Config) -> Results:
    """Every cell in one sweep."""
    of_world, of_bases, of_runs = jax.random.split(jax.random.key(config.seed), 3)
    sizes = {"num_styles": config.num_styles, "num_train": config.num_train, "num_test": config.num_test}
    world = navigation.make_world(of_world, **sizes)
    size = navigation.network_size(world, config.width)
    leaks = np.repeat([0.0, config.leak], (config.many_seeds, config.num_seeds))
    lengths = {"num_steps": config.pretrain_steps, "batch_size": config.pretrain_batch}
    bases = navigation.pretrain_many(world, size, of_bases, jnp.array(config.unsure), leaks, **lengths)
    rows, rates = all_rows(config), dict(zip(OPTIMIZERS, config.rates, strict=True))
    settings = navigation.settings(
        [row.method for row in rows],
        of_runs,
        optimizer=[row.optimizer for row in rows],
        rate=np.array([rates[row.optimizer] * (config.slow_factor if row.variant == SLOW else 1) for row in rows]),
        record=[config.num_steps],
        base=np.array([row.seed + (row.variant == LEAKY) * config.many_seeds for row in rows]),
        styled=np.array([row.style == STYLED for row in rows]),
        masked=np.array([row.variant == MASKED for row in rows]),
    )
    sizes = {"batch_size": config.batch_size, "group_size": config.group_size}
    measures = navigation.fine_tune_many(world, size, bases, settings, **sizes)
    return in_cells(rows, np.asarray(measures.scores.per_step)[:, -1])


def in_cells(rows: list[Row], scores: Float[np.ndarray, "runs rules"]) -> Results:
    """The scores by condition."""
    cells: dict[str, Any] = {}
    for place, row in enumerate(rows):
        found = cells.setdefault(row.variant, {}).setdefault(row.style, {}).setdefault(row.optimizer, {})
        found.setdefault(row.method, []).append(scores[place])
    return Results(jax.tree.map(lambda each: Cell(*np.stack(each, -1)), cells, is_leaf=lambda x: isinstance(x, list)))


def interval(config: Config, cell: Cell) -> rz.Estimate:
    """The mean under the other rule, with its 95% interval over seeds."""
    other, num = jnp.asarray(cell.other), config.num_resamples
    return rz.mean_interval(other, jax.random.key(0), num_resamples=num)  # type: ignore[no-any-return]  # of a jit


def claims(config: Config, results: Results) -> list[Claim]:
    """What decides."""
    exact, sampled, sft = (interval(config, results.cell(m, ADAM, PLAIN)) for m in (EXACT_RL, GRPO, SFT))
    mean = results.mean
    return [
        Claim(
            id="sampled-against-exact",
            statement="With Adam and no style, sampled RL keeps the other rule where exact RL does not: what lies "
            f"between their 95% intervals over {config.many_seeds} seeds.",
            source="Adam magnifies small steady pulls on words that are never used; a group baseline has none",
            expected=at_least(0.05),
            measured=sampled.low - exact.high,
            control="SFT in the place of GRPO",
            control_measured=sft.low - exact.high,
            note=f"Sampled {sampled.value:.3f} [{sampled.low:.3f}, {sampled.high:.3f}], exact RL {exact.value:.3f} "
            f"[{exact.low:.3f}, {exact.high:.3f}], SFT {sft.value:.3f}.",
        ),
        Claim(
            id="exact-rl-is-sft",
            statement="There exact RL and SFT end alike: distance of their means.",
            source="exact policy gradient with one right action is SFT, weighted by probability",
            expected=at_most(0.1),
            measured=abs(exact.value - sft.value),
            control=f"{GRPO} in the place of exact RL",
            control_measured=abs(sampled.value - sft.value),
        ),
        Claim(
            id="no-contrast-without-either",
            statement="Without style and with momentum methods end alike: spread of their mean accuracies.",
            source="neither mechanism is there",
            expected=at_most(0.1),
            measured=np.ptp([mean(m, MOMENTUM, PLAIN) for m in METHODS]),
            control="with Adam",
            control_measured=np.ptp([mean(m, ADAM, PLAIN) for m in METHODS]),
        ),
        Claim(
            id="diversity",
            statement="With style and momentum SFT on all styles keeps what SFT on a fixed one loses: difference of "
            "their means.",
            source="the demonstrator's choice is what is learned",
            expected=at_least(0.4),
            measured=mean(UNIFORM_SFT, MOMENTUM, STYLED) - mean(SFT, MOMENTUM, STYLED),
            control="exact RL's above SFT's on all styles",
            control_measured=mean(EXACT_RL, MOMENTUM, STYLED) - mean(UNIFORM_SFT, MOMENTUM, STYLED),
        ),
        Claim(
            id="masking",
            statement="With Adam and no style a softmax over the listed actions alone spares SFT: what it gains.",
            source="no word is left that is never used",
            expected=at_least(0.15),
            measured=mean(SFT, ADAM, PLAIN, MASKED) - mean(SFT, ADAM, PLAIN),
            control=f"{GRPO}, which has nothing to gain",
            control_measured=mean(GRPO, ADAM, PLAIN, MASKED) - mean(GRPO, ADAM, PLAIN),
        ),
        Claim(
            id="leak",
            statement=f"From a base that leaks {config.leak:g} of its mass to the other rule's words RL collapses, "
            "too: the larger mean of exact and sampled, with momentum.",
            source="the trained rule pushes the leak down wherever it is",
            expected=at_most(0.2),
            measured=max(mean(m, MOMENTUM, s, LEAKY) for m in (EXACT_RL, GRPO) for s in STYLES),
            control="from a base that obeys",
            control_measured=max(mean(m, MOMENTUM, s) for m in (EXACT_RL, GRPO) for s in STYLES),
        ),
    ]


def plot(config: Config, results: Results) -> Figure:
    """The map, and every seed of the special cells."""
    figure, axes = panels([["map", "seeds"]], height=3.9, width_ratios=[4.2, 1])
    draw_map(axes["map"], results)
    draw_seeds(axes["seeds"], config, results)
    return figure


def draw_map(ax: Axes, results: Results) -> None:
    """Right steps under the other rule in every condition; a star where the trained rule is not mastered."""
    rows, columns = list(product(VARIANTS, STYLES)), list(product(OPTIMIZERS, METHODS))
    values = np.array([[results.mean(m, o, style, variant) for o, m in columns] for variant, style in rows])
    ax.imshow(values, cmap="RdYlBu", vmin=0, vmax=1, aspect="auto")
    for y, (variant, style) in enumerate(rows):
        for x, (optimizer, method) in enumerate(columns):
            star = "*" if results.cell(method, optimizer, style, variant).trained.mean() < 0.98 else ""
            text, color = f"{values[y, x]:.2f}".removeprefix("0"), "black" if 0.15 < values[y, x] < 0.8 else "white"
            note(ax, text + star, (x, y), ha="center", va="center", color=color)
    for x in range(len(METHODS), len(columns), len(METHODS)):
        ax.axvline(x - 0.5, color="white", linewidth=3)
    for y in range(len(STYLES), len(rows), len(STYLES)):
        ax.axhline(y - 0.5, color="white", linewidth=3)
    ax.set_xticks(range(len(columns)), [method for _, method in columns], **SLANTED)
    ax.set_yticks(range(len(rows)), [f"{variant}, {style}" for variant, style in rows])
    for at, optimizer in enumerate(OPTIMIZERS):
        middle = ((at + 0.5) * len(METHODS) - 0.5, -0.65)
        note(ax, optimizer, middle, ha="center", va="bottom", annotation_clip=False)
    ax.set_title("right steps under the other rule", pad=16)
    ax.tick_params(length=0)


def draw_seeds(ax: Axes, config: Config, results: Results) -> None:
    """Every seed, mean and interval with Adam and no style."""
    for x, method in enumerate((SFT, EXACT_RL, GRPO)):
        cell, color = results.cell(method, ADAM, PLAIN), METHOD_STYLE[method].color
        found, count = interval(config, cell), len(cell.other)
        samples(ax, np.full(count, x), cell.other, at_most=count, color=color, alpha=0.6)
        ax.plot([x, x], [found.low, found.high], color=color, linewidth=4, alpha=0.4, solid_capstyle="butt")
    ax.set_xticks(range(3), (SFT, EXACT_RL, GRPO), **SLANTED)
    ax.set(ylabel="other rule, right steps", ylim=(0, 1), xlim=(-0.5, 2.5))
    ax.set_title("Adam, no style", pad=16)


def caption(config: Config, results: Results) -> Caption:
    """What a reader can quote."""
    mean = results.mean
    return Caption(
        f"With style and momentum SFT on a fixed demonstrator ends at {mean(SFT, MOMENTUM, STYLED):.2f} of right steps "
        f"under the other rule, on all styles at {mean(UNIFORM_SFT, MOMENTUM, STYLED):.2f}, exact RL at "
        f"{mean(EXACT_RL, MOMENTUM, STYLED):.2f}. With Adam and no style SFT ends at {mean(SFT, ADAM, PLAIN):.2f}, "
        f"exact RL at {mean(EXACT_RL, ADAM, PLAIN):.2f}, GRPO at {mean(GRPO, ADAM, PLAIN):.2f}. {SILENT}",
        a=f"Every condition after {config.num_steps} updates, mean of {config.num_seeds} seeds (b: more); a star where "
        "fewer than 0.98 of steps are right under the trained rule.",
        b=f"Every one of {config.many_seeds} seeds, and the 95% interval of the mean.",
    )
