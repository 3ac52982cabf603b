"""Is it a single frozen prompt that makes SFT memorize?

Partly. Here a prompt says which names the eight headings have: compass words, hours, letters. SFT under one of them
answers in its words whatever the prompt says: scored by the trained rule under a held-out prompt (the "fake" score) it
does well. The more prompts it is trained on, the less it clings, and with eight most of it is gone; but it then
answers in the right kind of words more often than with the right word, and stays below its base. For a rule of another
kind, relative words, other names of headings do next to nothing. RL and SFT on the closest teacher need one prompt
only: with either, a held-out prompt is followed better than by the base.

Lin et al., arXiv:2510.00237, table 1; arXiv:2603.14493 agrees on this axis. About 30 seconds on two cores.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from experiments.harness import Caption, Claim, UserError, at_least, at_most, bounded, checked_run
from rlrazor.methods import GRPO, ORACLE_SFT, SFT
from rlrazor.plotting import COLORS, METHOD_STYLE, panels, samples, theory
from rlrazor.tasks import navigation
from rlrazor.tasks.navigation import RULES

METHODS = (SFT, ORACLE_SFT, GRPO)
RELATIVE, NAMES = 1, len(RULES) - 1  # the held-out rules: another kind of words, and another set of names
SEEN = tuple(rule for rule in range(len(RULES)) if rule not in (RELATIVE, NAMES))
PAPER = "Lin et al., arXiv:2510.00237, table 1 (Sokoban: fake 0.93 with one prompt, 0 with many)"
SILENT = (
    "What this does not say about language models: how many prompts are many; their prompts vary in more than names."
)


@dataclass(frozen=True)
class Config:
    """The city, the bases, and the trainings."""

    counts: tuple[int, ...] = bounded((1, 2, 4, 8), at_most=len(SEEN), min_length=2)
    """Numbers of rules in the prompts of a training, increasing."""
    num_styles: int = bounded(16, at_most=1000)
    """Words of style, which no verifier reads."""
    num_train: int = bounded(1000, at_most=100_000)
    """Routes of training."""
    num_test: int = bounded(50, at_most=100_000)
    """Held-out routes."""
    width: int = bounded(128, at_most=4096)
    """Of both hidden layers."""
    unsure: float = bounded(0.25, above=0, below=1)
    """Probability that the base is taught to spread over the actions of the rule's list."""
    pretrain_steps: int = bounded(2000, at_most=1_000_000)
    """Updates of the pretraining on all rules, by Adam."""
    pretrain_batch: int = bounded(256, at_most=100_000)
    """States of each."""
    rate: float = bounded(0.04, above=0, at_most=10)
    """Learning rate of SGD with momentum 0.9."""
    num_steps: int = bounded(800, at_most=1_000_000)
    """Updates of every training."""
    batch_size: int = bounded(128, at_most=100_000)
    """States of an update."""
    group_size: int = bounded(8, at_least=2, at_most=1000)
    """Answers to each state, of GRPO."""
    num_seeds: int = bounded(3, at_most=1000)
    """Bases, and trainings from each."""
    seed: int = bounded(0, at_least=0)
    """Of everything."""

    def __post_init__(self) -> None:
        """Counts increase."""
        if list(self.counts) != sorted(set(self.counts)):
            raise UserError(f"counts must increase, got {self.counts}")

    @classmethod
    def quick(cls) -> "Config":
        """Small networks, one seed, short trainings."""
        return cls(
            counts=(1, 8), num_train=500, num_test=40, width=64, pretrain_steps=2000, pretrain_batch=64, batch_size=64,
            num_steps=500, num_seeds=1,
        )  # fmt: skip


class Results(NamedTuple):
    """Right steps by the published count under every rule, `[seeds, rules]`.

    Attributes:
        base: of the bases.
        scores: where the rule stated is scored, by method, `[counts, seeds, rules]`.
        fake: where the first rule is scored, whatever is stated, by method, `[counts, seeds, rules]`.
    """

    base: Float[np.ndarray, "seeds rules"]
    scores: dict[str, Float[np.ndarray, "counts seeds rules"]]
    fake: dict[str, Float[np.ndarray, "counts seeds rules"]]

    def mean(self, kind: str, method: str, rule: int) -> Float[np.ndarray, " counts"]:
        """Over seeds, under a held-out rule."""
        found: Float[np.ndarray, " counts"] = np.asarray(getattr(self, kind)[method])[..., rule].mean(-1)
        return found


@checked_run
def run(config: Config) -> Results:
    """All trainings in one sweep."""
    of_world, of_bases, of_runs = jax.random.split(jax.random.key(config.seed), 3)
    sizes = {"num_styles": config.num_styles, "num_train": config.num_train, "num_test": config.num_test}
    world = navigation.make_world(of_world, num_rules=len(RULES), **sizes)
    size = navigation.network_size(world, config.width)
    unsure, leaks = jnp.array(config.unsure), jnp.zeros(config.num_seeds)
    lengths = {"num_steps": config.pretrain_steps, "batch_size": config.pretrain_batch}
    bases = navigation.pretrain_many(world, size, of_bases, unsure, leaks, **lengths)
    rows = [(method, count, seed) for method in METHODS for count in config.counts for seed in range(config.num_seeds)]
    settings = navigation.settings(
        [method for method, _, _ in rows],
        of_runs,
        optimizer=navigation.MOMENTUM,
        rate=config.rate,
        record=[0, config.num_steps],
        base=np.array([seed for _, _, seed in rows]),
        prompts=np.stack([shares(count) for _, count, _ in rows]),
    )
    sizes = {"batch_size": config.batch_size, "group_size": config.group_size}
    measures = navigation.fine_tune_many(world, size, bases, settings, **sizes)

    def by_method(scores: Float[np.ndarray, "runs records rules"]) -> dict[str, Float[np.ndarray, "..."]]:
        shape = (len(METHODS), len(config.counts), config.num_seeds, len(RULES))
        return dict(zip(METHODS, scores[:, -1].reshape(shape), strict=True))

    scores, fake = np.asarray(measures.scores.per_step), np.asarray(measures.by_first_rule)
    return Results(scores[: config.num_seeds, 0], by_method(scores), by_method(fake))


def shares(count: int) -> Float[np.ndarray, " rules"]:
    """The share of every rule in the prompts of a training on so many of those that are not held out."""
    return np.isin(np.arange(len(RULES)), SEEN[:count]) / count


def claims(config: Config, results: Results) -> list[Claim]:
    """What one prompt does, and what many do."""
    few, many = config.counts[0], config.counts[-1]
    fake, right = (results.mean(kind, SFT, NAMES) for kind in ("fake", "scores"))
    base = float(results.base[:, NAMES].mean())
    return [
        Claim(
            id="clings",
            statement=f"SFT on prompts of {few} rule{'s' if few > 1 else ''} answers by its first rule where names "
            "that it was not trained on are asked for: fake score.",
            source=PAPER,
            expected=at_least(0.5),
            measured=fake[0],
            control=f"{GRPO} on the same prompts",
            control_measured=results.mean("fake", GRPO, NAMES)[0],
        ),
        Claim(
            id="many-prompts-free",
            statement=f"Prompts of {many} rules free it: fake score.",
            source=PAPER,
            expected=at_most(0.35),
            measured=fake[-1],
            control=f"of {few}",
            control_measured=fake[0],
        ),
        Claim(
            id="many-prompts-are-no-cure",
            statement=f"Even so SFT on prompts of {many} rules follows the held-out names less well than its base: "
            "what it has lost.",
            source="this world; Lin et al. add reasoning for what diversity leaves undone",
            expected=at_least(0.05),
            measured=base - right[-1],
            control=f"{GRPO}",
            control_measured=base - results.mean("scores", GRPO, NAMES)[-1],
            note=f"Right steps by number of rules: {', '.join(f'{r:.2f}' for r in right)}; of the base {base:.2f}.",
        ),
        Claim(
            id="rl-needs-one",
            statement=f"{GRPO} on prompts of {few} rule{'s' if few > 1 else ''} follows the held-out names where SFT "
            "does not: right steps above SFT's.",
            source="Chu et al., arXiv:2501.17161",
            expected=at_least(0.3),
            measured=results.mean("scores", GRPO, NAMES)[0] - right[0],
            control=f"above those of {ORACLE_SFT}",
            control_measured=(results.mean("scores", GRPO, NAMES) - results.mean("scores", ORACLE_SFT, NAMES))[0],
        ),
        Claim(
            id="another-kind",
            statement="More names of headings do not bring back relative words: what SFT gains from "
            f"{few} to {many} rules.",
            source="Lin et al., arXiv:2510.00237: diversity alone does not help where the content differs",
            expected=at_most(0.15),
            measured=results.mean("scores", SFT, RELATIVE)[-1] - results.mean("scores", SFT, RELATIVE)[0],
            control="held-out names of headings",
            control_measured=right[-1] - right[0],
        ),
    ]


def plot(config: Config, results: Results) -> Figure:
    """Held-out names, held-out relative words, and the fake score."""
    figure, axes = panels([["names", "relative", "fake"]], height=2.6)
    draw(axes["names"], config, results, "scores", NAMES, "held-out names")
    draw(axes["relative"], config, results, "scores", RELATIVE, "held-out relative words")
    draw(axes["fake"], config, results, "fake", NAMES, "held-out names, first rule scored")
    for name, rule in (("names", NAMES), ("relative", RELATIVE)):
        axes[name].axhline(
            results.base[:, rule].mean(), color=COLORS["ref"], linewidth=0.8, linestyle="--", label="base"
        )
    axes["names"].set_ylabel("right steps (published count)")
    axes["names"].legend(loc="lower left", ncols=2)
    return figure


def draw(ax: Axes, config: Config, results: Results, kind: str, rule: int, title: str) -> None:
    """A score by number of rules in training: means, and every seed."""
    for method in METHODS:
        color, marker, line = METHOD_STYLE[method]
        theory(ax, config.counts, results.mean(kind, method, rule), color=color, linestyle=line, label=method)
        each = np.asarray(getattr(results, kind)[method])[..., rule]
        x = np.repeat(config.counts, each.shape[1])
        samples(ax, x, each.ravel(), at_most=len(x), color=color, marker=marker, alpha=0.7)
    ax.set(xscale="log", xlabel="rules in the prompts of training", ylim=(-0.02, 1.03), title=title)
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xticks(config.counts, [str(count) for count in config.counts])


def caption(config: Config, results: Results) -> Caption:
    """What a reader can quote."""
    fake, right = (results.mean(kind, SFT, NAMES) for kind in ("fake", "scores"))
    few, many = config.counts[0], config.counts[-1]
    return Caption(
        f"Asked for names that were held out, SFT on prompts of {few} has {right[0]:.2f} of steps right, and "
        f"{fake[0]:.2f} by the first rule; on prompts of {many} it has {right[-1]:.2f} and {fake[-1]:.2f}. {GRPO} on "
        f"prompts of {few} has {results.mean('scores', GRPO, NAMES)[0]:.2f} right. {SILENT}",
        a=f"Right steps where the prompt asks for names of the headings that no training saw: means and "
        f"{config.num_seeds} seeds.",
        b="Where it asks for relative words.",
        c="The first rule's answers where it asks for the names of (a).",
    )
