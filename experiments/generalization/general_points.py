"""Does RL keep the other rule of a card game, too?

Make ten of three cards, where a rule says what face cards count. With a calculator, which shows what every formula
makes, and a base that reads its cards right, all methods first improve under the other rule. Then Adam takes the
reading of face cards away from SFT, whatever its solutions, and from exact RL alike, and later from sampled RL. From a
base that misreads some cards all lose it. Without the calculator formulas are learned hand by hand, which does not
transfer, and RL loses more than SFT (with four cards as much), not less, as is published. More verification iterations
keep more at equal numbers of answers, as published, but not at equal numbers of updates: fewer updates do.

Chu et al. (arXiv:2501.17161), figures 5 and 10; `Config.published()` is their game. About 45 seconds on two cores.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.harness import Caption, Claim, UserError, at_least, at_most, bounded, checked_run
from rlrazor.methods import EXACT_RL, GRPO, ORACLE_SFT, SFT, UNIFORM_SFT, plus_replay
from rlrazor.plotting import METHOD_STYLE, panels, samples, theory
from rlrazor.sweeps import rows_by_name
from rlrazor.tasks import points
from rlrazor.tasks.points import Measures
from rlrazor.training import log_steps

REPLAY = plus_replay(SFT)
METHODS = (SFT, REPLAY, UNIFORM_SFT, ORACLE_SFT, EXACT_RL, GRPO)
CALCULATOR, MISREADING, ALONE = WORLDS = ("calculator", "misreading base", "no calculator")
OTHER = 1  # the rule that nobody is trained on
PAPER = "Chu et al., arXiv:2501.17161, figure 5 (GP-L: SFT 11.5 to 3.4, RL 11.5 to 15.0)"
SILENT = "What this does not say about language models: whether they have the calculator that it takes here."


@dataclass(frozen=True)
class Config:
    """The game, the bases, and the trainings."""

    num_cards: int = bounded(3, at_least=3, at_most=4)
    """Of a hand."""
    target: int = bounded(10, at_most=1000)
    """What the cards have to make."""
    width: int = bounded(128, at_most=4096)
    """Of both hidden layers."""
    guess: float = bounded(0.5, above=0, below=1)
    """Probability that the base is taught to guess a formula."""
    misread: float = bounded(0.1, above=0, below=1)
    """Probability of any number for a card, in a base that misreads."""
    pretrain_steps: int = bounded(1200, at_most=1_000_000)
    """Updates of the pretraining, by Adam."""
    pretrain_batch: int = bounded(256, at_most=100_000)
    """Hands of each."""
    rate: float = bounded(6e-4, above=0, at_most=1)
    """Learning rate of Adam."""
    replay_share: float = bounded(0.1, above=0, below=1)
    """Share of the other rule in SFT with replay."""
    num_steps: int = bounded(1000, at_most=1_000_000)
    """Updates of every training, and of a single attempt a hand where attempts are compared."""
    batch_size: int = bounded(64, at_most=100_000)
    """Hands of an update."""
    group_size: int = bounded(8, at_least=2, at_most=1000)
    """Episodes of each hand, of GRPO."""
    attempts: tuple[int, ...] = bounded((1, 3, 5, 10), at_most=12, min_length=2)
    """Verification iterations, increasing from 1 on: answers to a hand at most, each knowing what was refused."""
    num_seeds: int = bounded(3, at_most=1000)
    """Bases of each kind, and trainings from each."""
    num_records: int = bounded(9, at_least=6, at_most=1000)
    """Times at which a player is measured, the start not counted."""
    seed: int = bounded(0, at_least=0)
    """Of everything."""

    def __post_init__(self) -> None:
        """Attempts increase from 1 on, and leave an update for every record."""
        if list(self.attempts) != sorted(set(self.attempts)) or self.attempts[0] != 1:
            raise UserError(f"attempts must increase from 1 on, got {self.attempts}")
        if self.num_steps // self.attempts[-1] < 1 or self.num_steps < self.num_records:
            raise UserError(f"num_steps must be at least num_records and {self.attempts[-1]}, got {self.num_steps}")

    @classmethod
    def quick(cls) -> "Config":
        """Small networks, one seed, short trainings."""
        small = {"width": 64, "pretrain_steps": 600, "pretrain_batch": 64, "batch_size": 32, "num_seeds": 1}
        return cls(num_steps=250, attempts=(1, 5), num_records=6, **small)

    @classmethod
    def published(cls) -> "Config":
        """Four cards and 24, from larger bases: some twenty minutes on two cores."""
        return cls(num_cards=4, target=24, width=256, pretrain_steps=6000)


class Results(NamedTuple):
    """Players at every record.

    Attributes:
        steps: updates after which they are measured, `[records]`.
        players: by world and method, `[seeds, records, ...]`.
        attempts: GRPO with a calculator by number of attempts, `[attempts, seeds, 2, ...]`: after equal numbers of
            updates, and after equal numbers of answers, if all attempts are used.
    """

    steps: Int[np.ndarray, " records"]
    players: dict[str, dict[str, Measures]]
    attempts: Measures

    def success(self, world: str, method: str) -> Float[np.ndarray, "seeds records"]:
        """Rate of solved hands under the other rule."""
        return np.asarray(self.players[world][method].success)[..., OTHER]

    def final(self, world: str, method: str) -> float:
        """The same in the end, mean over seeds."""
        return float(self.success(world, method)[:, -1].mean())


class Row(NamedTuple):
    """One training, in words and Python numbers."""

    world: str
    method: str
    seed: int
    record: Int[np.ndarray, " records"]
    attempts: int = 1


def all_rows(config: Config) -> list[Row]:
    """Every method in every world, then GRPO with every number of attempts."""
    seeds, steps = range(config.num_seeds), log_steps(config.num_steps, config.num_records)
    rows = [Row(world, method, seed, steps) for world in WORLDS for method in METHODS for seed in seeds]
    for attempts in config.attempts:
        ends = [config.num_steps // config.attempts[-1], config.num_steps // attempts]
        padded = np.pad(ends, (0, len(steps) - 2), mode="edge")  # one program, one number of records
        rows += [Row(CALCULATOR, GRPO, seed, padded, attempts) for seed in seeds]
    return rows


@checked_run
def run(config: Config) -> Results:
    """All trainings in one sweep."""
    of_bases, of_runs = jax.random.split(jax.random.key(config.seed))
    try:
        table = points.make_table(points.make_game(config.num_cards, config.target))
    except ValueError as error:
        raise UserError(str(error)) from None
    size, rows = points.network_size(table, config.width), all_rows(config)
    worlds, guess = np.repeat(WORLDS, config.num_seeds), jnp.array(config.guess)
    misread, calculator = np.where(worlds == MISREADING, config.misread, 0.0), worlds != ALONE
    lengths = {"num_steps": config.pretrain_steps, "batch_size": config.pretrain_batch}
    bases = points.pretrain_many(table, size, of_bases, misread, guess, calculator, **lengths)
    settings = points.settings(
        [SFT if row.method == REPLAY else row.method for row in rows],
        of_runs,
        optimizer=points.ADAM,
        rate=config.rate,
        record=np.stack([row.record for row in rows]),
        base=np.array([WORLDS.index(row.world) * config.num_seeds + row.seed for row in rows]),
        calculator=np.array([row.world != ALONE for row in rows]),
        other_rule=np.array([config.replay_share if row.method == REPLAY else 0.0 for row in rows]),
        attempts=np.array([row.attempts for row in rows]),
    )
    sizes = {"batch_size": config.batch_size, "group_size": config.group_size}
    return in_order(config, points.fine_tune_many(table, size, bases, settings, **sizes))


def in_order(config: Config, measures: Measures) -> Results:
    """The measures of all trainings, `[runs, records, ...]`, under their names."""
    seeds, first = config.num_seeds, len(WORLDS) * len(METHODS) * config.num_seeds

    def shaped(part: slice, *shape: int) -> Measures:
        found: Measures = jax.tree.map(lambda leaf: np.asarray(leaf)[part].reshape(*shape, *leaf.shape[1:]), measures)
        return found

    players = rows_by_name(WORLDS, shaped(slice(first), len(WORLDS), len(METHODS), seeds))
    attempts = shaped(slice(first, None), len(config.attempts), seeds)
    return Results(
        steps=log_steps(config.num_steps, config.num_records),
        players={world: rows_by_name(METHODS, stacked) for world, stacked in players.items()},
        attempts=jax.tree.map(lambda leaf: leaf[:, :, :2], attempts),
    )


def claims(config: Config, results: Results) -> list[Claim]:
    """Where the contrast appears, and where it turns round."""
    final, last = results.final, config.attempts[-1]
    sft, alone = (results.success(world, SFT).mean(0) for world in (CALCULATOR, ALONE))
    updates, answers = np.asarray(results.attempts.success)[..., OTHER].mean(1).T

    by_attempts = ", ".join(f"{n}: {value:.3f}" for n, value in zip(config.attempts, answers, strict=True))

    def ends(world: str) -> str:
        grpo = results.players[world][GRPO]
        read, solved = (float(part[:, -1, OTHER].mean()) for part in (grpo.read, grpo.solved))
        listed = ", ".join(f"{method} {final(world, method):.2f}" for method in METHODS)
        return f"In the end {listed}; {GRPO} reads {read:.2f} of hands right and then solves {solved:.2f}."

    return [
        Claim(
            id="shared-skill-transfers",
            statement="With a calculator SFT first improves under the other rule: its best rate of solved hands above "
            "its base's.",
            source="the skill of finding a formula is one for both rules",
            expected=at_least(0.3),
            measured=sft.max() - sft[0],
            control="without it",
            control_measured=alone.max() - alone[0],
        ),
        Claim(
            id="sampled-keeps-longer",
            statement=f"With a calculator GRPO keeps more in the end, after {config.num_steps} updates of Adam: its "
            "rate above the better of SFT and exact RL.",
            source=PAPER,
            expected=at_least(0.05),
            measured=final(CALCULATOR, GRPO) - max(final(CALCULATOR, m) for m in (SFT, EXACT_RL)),
            control="exact RL above SFT",
            control_measured=final(CALCULATOR, EXACT_RL) - final(CALCULATOR, SFT),
            note=ends(CALCULATOR),
        ),
        Claim(
            id="misreading-spoils-all",
            statement=f"From a base that reads {config.misread:g} of its cards as any number all lose the other rule, "
            f"{REPLAY} apart: the best of them in the end.",
            source="the trained rule pushes wrong numbers down wherever they are",
            expected=at_most(0.2),
            measured=max(final(MISREADING, method) for method in METHODS if method != REPLAY),
            control=REPLAY,
            control_measured=final(MISREADING, REPLAY),
            note=ends(MISREADING),
        ),
        Claim(
            id="without-a-calculator-rl-loses-more",
            statement=f"With {config.num_cards} cards and no calculator RL keeps less than SFT in the end: SFT's rate "
            "above the better of exact RL and GRPO.",
            source=f"against {PAPER}",
            expected=at_least(0.05),
            measured=final(ALONE, SFT) - max(final(ALONE, m) for m in (EXACT_RL, GRPO)),
            control="with a calculator",
            control_measured=final(CALCULATOR, SFT) - max(final(CALCULATOR, m) for m in (EXACT_RL, GRPO)),
            note=ends(ALONE),
        ),
        Claim(
            id="verification",
            statement=f"With {last} attempts a hand GRPO keeps more than with one at equal numbers of answers: gain in "
            "the rate of solved hands.",
            source="Chu et al., arXiv:2501.17161, figure 10 (+0.48 with 1, +5.99 with 10, at equal compute)",
            expected=at_least(0.04),
            measured=answers[-1] - answers[0],
            control=f"at equal numbers of updates, {config.num_steps // last}",
            control_measured=updates[-1] - updates[0],
            note=f"After equal answers {by_attempts}.",
        ),
    ]


def plot(config: Config, results: Results) -> Figure:
    """The three worlds, and the attempts."""
    figure, axes = panels([[CALCULATOR, MISREADING], [ALONE, "attempts"]], height=4.6)
    for world in WORLDS:
        draw_world(axes[world], results, world)
    axes[CALCULATOR].legend(loc="lower right")
    draw_attempts(axes["attempts"], config, results)
    return figure


def draw_world(ax: Axes, results: Results, world: str) -> None:
    """Solved hands under the other rule along training: means and every seed."""
    steps = np.maximum(results.steps, 1)
    for method in METHODS:
        color, _, line = METHOD_STYLE[method]
        success = results.success(world, method)
        theory(ax, steps, success.T, color=color, linestyle=line, linewidth=0.4, alpha=0.4)
        theory(ax, steps, success.mean(0), color=color, linestyle=line, label=method)
    ax.set(xscale="log", xlabel="updates", ylabel="solved, other rule", ylim=(0, 1.03), title=world)


def draw_attempts(ax: Axes, config: Config, results: Results) -> None:
    """Solved hands by number of attempts, at equal updates and at equal answers."""
    success = np.asarray(results.attempts.success)[..., OTHER]
    color, looks = METHOD_STYLE[GRPO].color, (("equal updates", ":", "none"), ("equal answers", "-", "full"))
    for place, (label, line, face) in enumerate(looks):
        theory(ax, config.attempts, success[..., place].mean(1), color=color, linestyle=line, label=label)
        x = np.repeat(config.attempts, success.shape[1])
        samples(ax, x, success[..., place].ravel(), at_most=len(x), color=color, fillstyle=face)
    ax.set(xlabel="verification iterations", ylabel="solved, other rule", title=f"{GRPO}, calculator")
    ax.set_xticks(config.attempts)
    ax.legend(loc="lower right")


def caption(config: Config, results: Results) -> Caption:
    """What a reader can quote."""
    three = (SFT, EXACT_RL, GRPO)
    told = "; ".join(f"{w}: " + ", ".join(f"{m} {results.final(w, m):.2f}" for m in three) for w in WORLDS)
    return Caption(
        f"Hands with a face card solved under the other rule, {config.num_steps} updates of Adam. {told}. {SILENT}",
        a="With a calculator and a base that reads right: means and every seed; the start is drawn at 1.",
        b="With a calculator and a base that misreads.",
        c="Without a calculator.",
        d="GRPO with several attempts a hand, each knowing what was refused, at equal numbers of updates or answers.",
    )
