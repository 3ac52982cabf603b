"""How much of what on-policy RL keeps is the KL penalty, and how much is the data?

Learning from own answers (RLOO) and from a teacher's (SFT), with a KL coefficient of 0 and of 0.05, is compared at
equal success on the new task. The data make the difference: the penalty changes what is lost of the old task by a
hundredth of what the data do, in exact gradients and on samples. A larger coefficient keeps more at the end because it
learns less; at equal success it keeps less.

Threads that ask whether the coefficient may be 0: trl PR 2806, PR 3395. About 16 seconds on two cores.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.harness import Caption, Claim, UserError, at_least, at_most, bounded, checked_run, number
from rlrazor.forgetting import value_at_crossing
from rlrazor.methods import ORACLE_SFT, RLOO, SFT, exact_loss, plus_kl
from rlrazor.plotting import COLORS, METHOD_STYLE, panels, samples, success_axis, theory
from rlrazor.tasks.shared_features import (
    Checkpoint,
    fine_tune,
    fine_tune_on_samples,
    first_prompts,
    make_world,
    new_task,
)
from rlrazor.training import log_steps

METHODS = (RLOO, SFT, ORACLE_SFT)
ON, OFF, NEAR = METHODS
WHOSE = {ON: "on-policy", OFF: "off-policy", NEAR: "own right answers"}
OLD_LOST = r"old task lost, KL$(\pi_0\Vert\pi)$ (nats)"


@dataclass(frozen=True)
class Config:
    """A world of two tasks that share features, and how both are compared."""

    num_prompts: int = bounded(16, at_least=2, at_most=1000)
    """Prompts of either task."""
    num_features: int = bounded(16, at_least=2, at_most=1000)
    """Features of the old prompts, and as many that only new ones use."""
    num_outcomes: int = bounded(8, at_least=3, at_most=1000)
    """Answers to each prompt."""
    num_correct: int = bounded(3, at_most=999)
    """How many of them are right on the new task."""
    overlap: float = bounded(0.5, above=0, at_most=1)
    """Share of the new prompts' squared length in the old prompts' features."""
    teacher_scale: float = bounded(2.0, above=0, at_most=10)
    """Standard deviation of the teacher's logits; it knows nothing of the base."""
    betas: tuple[float, ...] = bounded((0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0), at_least=0, at_most=2, min_length=3)
    """Coefficients of the KL penalty."""
    beta: float = bounded(0.05, above=0, at_most=2)
    """The one that is compared with none."""
    larger: float = bounded(0.2, above=0, at_most=2)
    """A larger one."""
    success: float = bounded(0.9, above=0, below=1)
    """Success rate on the new task at which methods are compared."""
    rate: float = bounded(2.0, above=0, at_most=10)
    """Learning rate."""
    num_steps: int = bounded(3000, at_least=100, at_most=1_000_000)
    """Updates."""
    num_samples: int = bounded(8, at_least=2, at_most=1000)
    """Answers to each prompt in an update on samples."""
    num_worlds: int = bounded(12, at_least=2, at_most=1000)
    """Random worlds."""
    seed: int = bounded(0, at_least=0)
    """Of the worlds and the samples."""

    def __post_init__(self) -> None:
        """Coefficients increase from none, and those that are compared are among them."""
        if self.betas[0] != 0 or sorted({*self.betas}) != [*self.betas]:
            raise UserError(f"betas must increase from 0, got {self.betas}")
        if not {self.beta, self.larger} <= {*self.betas}:
            raise UserError(f"beta {self.beta:g} and larger {self.larger:g} must be among betas {self.betas}")
        if self.num_correct >= self.num_outcomes:
            raise UserError(f"num_correct must be below num_outcomes {self.num_outcomes}, got {self.num_correct}")

    @classmethod
    def quick(cls) -> "Config":
        """Fewer coefficients, worlds and updates, which are larger."""
        return cls(betas=(0.0, 0.01, 0.05, 0.2, 1.0), rate=4.0, num_steps=400, num_worlds=4)


class Results(NamedTuple):
    """Trainings of every method, world and coefficient, by exact gradients and on samples."""

    exact: dict[str, Checkpoint]  # [worlds, betas, checkpoints]
    sampled: dict[str, Checkpoint]  # on- and off-policy only

    def lost(self, method: str, config: Config, *, on_samples: bool = False) -> Float[np.ndarray, "worlds betas"]:
        """What is lost of the old task where a training has the success rate of the comparison; NaN if it never has."""
        found = (self.sampled if on_samples else self.exact)[method]
        return np.asarray(value_at_crossing(found.success, found.old_drift.forward, config.success))

    def effects(self, config: Config, beta: float, *, on_samples: bool = False) -> tuple[float, float]:
        """(What the data keep without a penalty, what a penalty keeps on-policy), in nats, means over worlds."""
        on, off = (self.lost(method, config, on_samples=on_samples) for method in (ON, OFF))
        return float(np.mean(off[:, 0] - on[:, 0])), float(np.mean(on[:, 0] - on[:, config.betas.index(beta)]))

    def share(self, config: Config, beta: float, *, on_samples: bool = False) -> float:
        """The size of the penalty's effect over that of the data."""
        data, penalty = self.effects(config, beta, on_samples=on_samples)
        return abs(penalty) / data


@checked_run
def run(config: Config) -> Results:
    """Every method under every coefficient in every world."""
    keys = jax.random.split(jax.random.key(config.seed), config.num_worlds)
    sizes = config.num_prompts, config.num_features, config.num_outcomes, config.num_correct
    world = config.overlap, config.teacher_scale, sizes
    steps, betas = jnp.asarray(log_steps(config.num_steps, 60)), jnp.array(config.betas)
    found: Results = trainings(keys, *world, betas, config.rate, steps, config.num_samples)
    return found


@partial(jax.jit, static_argnames=("sizes", "num_samples"))
def trainings(
    keys: Key[Array, " worlds"],
    overlap: Float[Array, ""],
    teacher_scale: Float[Array, ""],
    sizes: tuple[int, int, int, int],
    betas: Float[Array, " betas"],
    rate: Float[Array, ""],
    steps: Int[Array, " checkpoints"],
    num_samples: int,
) -> Results:
    """The penalised methods, whose penalty is none at a coefficient of 0, by exact gradients and on samples."""
    prompts = first_prompts(float(sizes[0]), sizes[0])
    names = ("num_prompts", "num_features", "num_outcomes", "num_correct")
    options: Any = dict(zip(names, sizes, strict=True)) | {"scale": 1.0, "teacher_scale": teacher_scale}

    def of(key: Key[Array, ""], beta: Float[Array, ""]) -> Results:
        world = make_world(key, overlap, **options)
        problem, training = new_task(world, beta=beta), (prompts, rate, steps)
        exact = fine_tune(world, {m: exact_loss(plus_kl(m), problem) for m in METHODS}, *training)
        on = partial(fine_tune_on_samples, num_samples=num_samples)
        draws = jax.random.fold_in(key, 1)
        return Results(exact, {m: on(world, plus_kl(m), problem, *training, draws) for m in (ON, OFF)})

    found: Results = jax.vmap(lambda key: jax.vmap(lambda beta: of(key, beta))(betas))(keys)
    return found


def claims(config: Config, results: Results) -> list[Claim]:
    """What the data keep, what the penalty keeps, and what a larger one does."""
    at, level = f"at a success rate of {config.success:g} on the new task", config.success
    data, _ = results.effects(config, config.beta)
    lost = {method: results.lost(method, config) for method in METHODS}
    on_samples = {method: results.lost(method, config, on_samples=True) for method in (ON, OFF)}
    ends = np.mean(results.exact[ON].success[:, :, -1], axis=0)
    return [
        Claim(
            id="data",
            statement="Without any penalty on-policy data keep at least 0.2 nats more of the old task than a "
            f"teacher's, {at}.",
            source="exact gradients",
            expected=at_least(0.2),
            measured=data,
            control="a teacher that gives the base's own right answers",
            control_measured=np.mean(lost[NEAR][:, 0] - lost[ON][:, 0]),
        ),
        Claim(
            id="penalty",
            statement=f"A penalty of {config.beta:g} changes what on-policy RL loses by at most a twentieth of that, "
            f"{at}.",
            source="exact gradients",
            expected=at_most(0.05),
            measured=results.share(config, config.beta),
            control=f"a penalty of {config.larger:g}",
            control_measured=results.share(config, config.larger),
        ),
        Claim(
            id="penalty-on-samples",
            statement=f"On samples at most a tenth, {at}.",
            source=f"groups of {config.num_samples} answers",
            expected=at_most(0.1),
            measured=results.share(config, config.beta, on_samples=True),
            control=f"a penalty of {config.larger:g}",
            control_measured=results.share(config, config.larger, on_samples=True),
        ),
        Claim(
            id="samples-follow",
            statement=f"Sampled trainings lose what exact ones do within 0.02 nats, {at}: largest difference of means.",
            source="expected gradients",
            expected=at_most(0.02),
            measured=max(abs(np.mean(on_samples[m][:, 0] - lost[m][:, 0])) for m in (ON, OFF)),
            control="the exact training of the other data",
            control_measured=abs(np.mean(on_samples[ON][:, 0] - lost[OFF][:, 0])),
        ),
        Claim(
            id="keeps-less-at-equal-success",
            statement=f"A larger penalty, {config.larger:g}, keeps less {at}: nats it loses more than none.",
            source="exact gradients",
            expected=at_least(0.01),
            measured=-results.effects(config, config.larger)[1],
            control=f"a penalty of {config.betas[1]:g}",
            control_measured=-results.effects(config, config.betas[1])[1],
        ),
        Claim(
            id="keeps-by-not-learning",
            statement=f"A penalty of {config.betas[-1]:g} keeps the old task by not learning the new one: success rate "
            "at the end.",
            source="exact gradients",
            expected=at_most(level),
            measured=ends[-1],
            control=f"a penalty of {config.beta:g}",
            control_measured=ends[config.betas.index(config.beta)],
        ),
    ]


def plot(config: Config, results: Results) -> Figure:
    """Paths in one world, all worlds at equal success, and both ways of comparing coefficients."""
    draws = {"paths": draw_paths, "matched": draw_matched, "betas": draw_betas, "ends": draw_ends}
    figure, axes = panels([["paths", "matched"], ["betas", "ends"]], height=5.4)
    for name, draw in draws.items():
        draw(axes[name], config, results)
    return figure


def draw_paths(ax: Axes, config: Config, results: Results) -> None:
    """What is lost against success in the first world, without a penalty and with one, exact and on samples."""
    for method in (ON, OFF):
        for beta in (0.0, config.beta):
            row, style = config.betas.index(beta), METHOD_STYLE[plus_kl(method) if beta else method]
            exact, sampled = results.exact[method], results.sampled[method]
            label = rf"{WHOSE[method]}, $\beta={beta:g}$"
            look: Any = {"color": style.color, "marker": style.marker, "at_most": 16}
            theory(ax, exact.success[0, row], exact.old_drift.forward[0, row], color=style.color, linestyle=style.line)
            samples(ax, sampled.success[0, row], sampled.old_drift.forward[0, row], label=label, **look)
    ax.axvline(config.success, color=COLORS["ref"], linewidth=0.6, ymax=0.7)
    success_axis(ax, float(results.exact[ON].success[0, 0, 0]), 0.995)
    ax.set(ylabel=OLD_LOST, title="the four, in one world")
    ax.legend(loc="upper left")


def draw_matched(ax: Axes, config: Config, results: Results) -> None:
    """What is lost at equal success in every world, exact and on samples."""
    for column, method in enumerate(METHODS):
        for row, beta in ((-0.2, 0.0), (0.2, config.beta)):
            style = METHOD_STYLE[plus_kl(method) if beta else method]
            for on_samples, shift, face in ((False, -0.06, "none"), (True, 0.06, "full"))[: 1 if method == NEAR else 2]:
                lost = results.lost(method, config, on_samples=on_samples)[:, config.betas.index(beta)]
                look: Any = {"color": style.color, "marker": style.marker, "fillstyle": face, "markersize": 4}
                samples(ax, np.full(lost.shape, column + row + shift), lost, at_most=len(lost), **look)
    ax.set_xticks(range(len(METHODS)), [f"{WHOSE[m]}\n0 | {config.beta:g}" for m in METHODS])
    ax.set(ylabel=OLD_LOST, title=f"at a success rate of {config.success:g}, all worlds", ylim=(0, None))


def draw_betas(ax: Axes, config: Config, results: Results) -> None:
    """What is lost at equal success against the coefficient."""
    for method in METHODS:
        lost, style = results.lost(method, config), METHOD_STYLE[method]
        reached = ~np.isnan(lost).any(0)
        x = np.maximum(config.betas, config.betas[1] / 3)[reached]
        error: Any = 2 * lost.std(0)[reached] / len(lost) ** 0.5
        ax.errorbar(x, lost.mean(0)[reached], error, color=style.color, marker="o", label=WHOSE[method])
    ax.set(xscale="log", xlabel=r"KL coefficient $\beta$ (leftmost: 0)", ylabel=OLD_LOST)
    ax.set_ylim(0, 1.4 * ax.get_ylim()[1])
    ax.set_title(f"at a success rate of {config.success:g}")
    ax.legend(loc="upper left")


def draw_ends(ax: Axes, config: Config, results: Results) -> None:
    """What is lost at the end against success there, coefficient by coefficient."""
    for method in METHODS:
        end, style = results.exact[method], METHOD_STYLE[method]
        success, lost = end.success[..., -1].mean(0), end.old_drift.forward[..., -1].mean(0)
        ax.plot(success, lost, color=style.color, marker="o", label=WHOSE[method])
    ax.set(xlabel="success rate on the new task", ylabel=OLD_LOST, title=r"at the end, larger $\beta$ leftward")
    ax.legend(loc="upper left")


def caption(config: Config, results: Results) -> Caption:
    """What a reader can quote."""
    data, penalty = results.effects(config, config.beta)
    return Caption(
        f"At a success rate of {config.success:g} on-policy data keep {number(data)} nats of the old task that a "
        f"teacher's data lose; a KL coefficient of {config.beta:g} adds {number(penalty)}. What a larger coefficient "
        "keeps, it keeps by not learning.",
        a="What is lost of the old task along trainings in one world: exact gradients as lines, on samples as points.",
        b=f"At a success rate of {config.success:g} in every world, without a penalty and with one; hollow by exact "
        "gradients, filled on samples.",
        c="The same against the coefficient, means over worlds, as far as all reach it.",
        d=f"At the end of {config.num_steps} updates, where a larger coefficient has learned less.",
    )
