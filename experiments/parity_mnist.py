"""ParityMNIST on real images: the forgetting law, its exceptions, and the razor in a network.

The controlled experiment of "RL's Razor" (Shenfeld, Pari, Agrawal, arXiv:2509.04259, section 3): a network that
classifies garments and knows parity a little is fine-tuned on parity, where every digit of the right parity is correct,
by nine methods at many learning rates. Embedded data: 5,000 MNIST digits, 4,000 Fashion-MNIST garments.

The ordering reproduces up to a parity accuracy of about 0.94: SFT on the oracle keeps most of the old task, then GRPO
with a KL penalty, GRPO, SFT on two labels, SFT on one. Beyond, plain GRPO falls behind SFT on two labels, by how much
hangs on chance: at 0.96 it kept 0.21 to 0.33 in runs that differ in rounding or in random numbers only, SFT 0.38. Drift
on new inputs predicts forgetting much better than changes of weights do and little better than those of activations,
for methods that only see the new task. Forgetting saturates, so that a parabola misses part of the law in forward
drift; the best increasing function explains as much by either drift, by total variation and by L2. Replay breaks the
law: it drifts as far as SFT and forgets nothing.

Does the network obey the tabular theory? From a base that is skewed inside the correct answers plain GRPO leaves the
accuracy-KL frontier at once, as the theory says. From a uniform base it stays there only at first: sampled groups and
shared features break the symmetry, and it collapses onto answers of its own choice, further away. A KL penalty keeps
both on the frontier.

About two and a half minutes on two cores.
"""

import sys
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

import rlrazor as rz
from experiments._harness import Claim, UserError, at_least, at_most, nonnegative, positive
from rlrazor.plotting import COLORS, FULL_WIDTH, letter
from rlrazor.sweeps import sweep
from rlrazor.tasks import images, parity

SKEWED_METHODS = ("SFT 1", "oracle SFT", "GRPO", "GRPO + KL")
PUBLISHED = {  # table 1: R² of a parabola
    "forward": 0.96,
    "reverse": 0.93,
    "total_variation": 0.80,
    "l2": 0.56,
    "weight_l1": 0.34,
    "weight_fisher": 0.58,
    "weight_spectral": 0.58,
    "activation_l1": 0.52,
    "activation_l2": 0.55,
}
ORDER = ("oracle SFT", "GRPO + KL", "GRPO", "SFT 2", "SFT 1")


@dataclass(frozen=True)
class Config:
    """Learning rates, seeds and lengths; `published` is the paper's grid, for the full data."""

    rates: tuple[float, ...] = positive(tuple(np.geomspace(1e-5, 1e-3, 8).round(8).tolist()))
    """Peak learning rates of the fine-tuning."""
    num_seeds: int = 3
    """Bases, each with its own fine-tunings."""
    cosine: tuple[bool, ...] = (False,)
    """Learning rate schedules: whether it falls along a cosine after the warmup."""
    epochs: tuple[int, ...] = (6,)
    """Passes over the digits."""
    num_checkpoints: int = 4
    """Evaluations of each fine-tuning."""
    pretrain_steps: int = 80
    """Updates of the joint pretraining, five passes."""
    skew: float = nonnegative(1.0)
    """Skew of the parity labels in the pretraining of the second kind of base."""
    teacher_rate: float = positive(2e-4)
    """Learning rate of the GRPO run that is distilled."""
    num_test: int = 1000
    """Held-out images of each task."""
    accuracy: float = positive(0.93)
    """Parity accuracy at which methods are compared."""
    later_accuracy: float = positive(0.96)
    """Parity accuracy at which the ordering is compared again."""
    seed: int = nonnegative(0)
    """Of the random keys."""
    data_dir: str = ""
    """Folder with the full data, mnist/ and fashion-mnist/; the embedded images unless given."""
    checkpoints: str = ""
    """Folder in which finished chunks of the sweep are kept, to resume from."""

    def __post_init__(self) -> None:
        """The teacher and the test set exist."""
        if not self.accuracy < self.later_accuracy < 1:
            raise UserError(f"later_accuracy must lie between {self.accuracy} and 1, got {self.later_accuracy}")
        if len(self.rates) < 2:
            raise UserError(f"rates must hold at least two, got {self.rates}")

    @classmethod
    def quick(cls) -> "Config":
        """Four rates, one seed, four passes."""
        return cls(
            rates=(2e-5, 1.2e-4, 4e-4, 1e-3),
            num_seeds=1,
            epochs=(4,),
            num_checkpoints=3,
            num_test=300,
            accuracy=0.91,
            later_accuracy=0.94,
        )

    @classmethod
    def published(cls, data_dir: str) -> "Config":
        """The paper's 15 rates, two schedules and one or two passes over 60,000 digits: some two hours on two cores.

        From Python: `execute("parity_mnist", Config.published(data_dir), Path("published"))` of `experiments._harness`.
        """
        rates = tuple(np.geomspace(3e-6, 1e-3, 15).tolist())
        return cls(
            rates=rates, cosine=(False, True), epochs=(1, 2), num_checkpoints=5, num_test=10000, data_dir=data_dir
        )


class Results(NamedTuple):
    """Every fine-tuning at every checkpoint; the base is checkpoint 0."""

    accuracy: np.ndarray  # []
    later_accuracy: np.ndarray  # []
    num_seeds: np.ndarray  # []
    standard_error: np.ndarray  # [] of a difference of two accuracies on the held-out images of all seeds, at most
    method: np.ndarray  # [runs] index into METHODS
    rate: np.ndarray  # [runs]
    base: np.ndarray  # [runs] seeds of the uniform bases first, then those of the skewed ones
    parity: np.ndarray  # [runs, checkpoints + 1], and so on: see rlrazor.tasks.parity.Measures
    success: np.ndarray
    garments: np.ndarray
    forward: np.ndarray
    reverse: np.ndarray
    excess: np.ndarray
    total_variation: np.ndarray
    l2: np.ndarray
    jensen_shannon: np.ndarray
    old_forward: np.ndarray
    old_reverse: np.ndarray
    old_total_variation: np.ndarray
    old_l2: np.ndarray
    old_jensen_shannon: np.ndarray
    weight_l1: np.ndarray
    weight_fisher: np.ndarray
    weight_spectral: np.ndarray
    activation_l1: np.ndarray
    activation_l2: np.ndarray
    cknna: np.ndarray


def run(config: Config) -> Results:
    """Pretrain the bases, train the teachers, and sweep over everything else."""
    folder = Path(config.data_dir) if config.data_dir else None
    try:
        world = parity.split_world(images.load_mnist(folder), images.load_fashion(folder), num_test=config.num_test)
    except (FileNotFoundError, ValueError) as error:
        raise UserError(str(error)) from None
    key = jax.random.key(config.seed)
    bases = pretrained(config, world, jax.random.fold_in(key, 0))
    per_epoch = len(world.train.inputs) // parity.BATCH_SIZE
    parts = []
    for epochs in config.epochs:
        num_steps = epochs * per_epoch // config.num_checkpoints * config.num_checkpoints
        settings = all_settings(config, jax.random.fold_in(key, epochs))
        train = partial(tuned, world, bases, num_steps, config.num_checkpoints)
        directory = Path(config.checkpoints) / f"epochs-{epochs}" if config.checkpoints else None
        batch_size = 1 if jax.default_backend() == "cpu" else 64
        visible = sys.stdout.isatty()
        measures = sweep(
            train, settings, directory=directory, chunk_size=39, batch_size=batch_size, show_progress=visible
        )
        parts.append((settings.method, settings.rate, settings.base, measures))
    method, rate, base, measures = jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
    return Results(
        accuracy=np.array(config.accuracy),
        later_accuracy=np.array(config.later_accuracy),
        num_seeds=np.array(config.num_seeds),
        standard_error=np.array(np.sqrt(1 / (2 * config.num_test * config.num_seeds))),
        method=method,
        rate=rate,
        base=base,
        **measures._asdict(),
    )


def tuned(
    world: parity.World, bases: parity.Base, num_steps: int, num_checkpoints: int, setting: parity.Setting
) -> parity.Measures:
    """The measures of one fine-tuning."""
    return parity.fine_tune(world, bases, setting, num_steps=num_steps, num_checkpoints=num_checkpoints)[0]


def pretrained(config: Config, world: parity.World, key: jax.Array) -> parity.Base:
    """Uniform bases, then skewed ones, each with a GRPO teacher; every field has a leading axis."""
    keys = jax.random.split(key, (2, config.num_seeds))
    skews = jnp.repeat(jnp.array([0.0, config.skew]), config.num_seeds)
    num_steps = config.epochs[0] * (len(world.train.inputs) // parity.BATCH_SIZE)

    @jax.jit
    def prepare(world: parity.World, skews: jax.Array, keys: jax.Array) -> parity.Base:
        def one(setting: tuple[jax.Array, jax.Array]) -> parity.Base:
            skew, key = setting
            base = parity.make_base(world, parity.pretrain(world, skew, key, num_steps=config.pretrain_steps))
            teacher = parity.Setting(
                method=jnp.array(parity.METHODS.index("GRPO")),
                rate=jnp.float32(config.teacher_rate),
                cosine=jnp.array(False),
                base=jnp.array(0),
                key=jax.random.fold_in(key, 1),
            )
            alone = jax.tree.map(lambda leaf: leaf[None], base)
            log_teacher = parity.fine_tune(world, alone, teacher, num_steps=num_steps, num_checkpoints=1)[1]
            return base._replace(log_teacher=log_teacher)

        return jax.lax.map(one, (skews, keys))

    return prepare(world, skews, keys.reshape(-1))


def all_settings(config: Config, key: jax.Array) -> parity.Setting:
    """Every method on the uniform bases, some on the skewed ones, at every rate, schedule and seed."""
    rows = [
        (parity.METHODS.index(method), rate, cosine, seed + skewed * config.num_seeds)
        for skewed, methods in ((0, parity.METHODS), (1, SKEWED_METHODS))
        for method in methods
        for rate in config.rates
        for cosine in config.cosine
        for seed in range(config.num_seeds)
    ]
    method, rate, cosine, base = zip(*rows, strict=True)
    return parity.Setting(
        method=np.array(method, np.int32),
        rate=np.array(rate, np.float32),
        cosine=np.array(cosine),
        base=np.array(base, np.int32),
        key=jax.random.split(key, len(rows)),
    )


def chosen(results: Results, methods: tuple[str, ...], *, skewed: bool = False) -> np.ndarray:
    """Which runs belong to these methods and to this kind of base."""
    named = np.isin(results.method, [parity.METHODS.index(method) for method in methods])
    return named & ((results.base >= results.num_seeds) == skewed)


FITS = {"parabola $R^2$": rz.quadratic_r2, "isotonic $R^2$": rz.isotonic_r2, r"ranks $\rho$": rz.rank_correlation}
LAW_METHODS = tuple(method for method in parity.METHODS if method != "SFT 1 + replay")


def forgetting(results: Results) -> np.ndarray:
    """Drop of the garments' accuracy, `[runs, checkpoints]`."""
    return results.garments[:, :1] - results.garments[:, 1:]


def on_frontier(results: Results) -> np.ndarray:
    """Checkpoints that no other of the same method and base beats in both accuracies, `[runs, checkpoints]`."""
    best = np.zeros(results.parity[:, 1:].shape, bool)
    for method, base in set(zip(results.method.tolist(), results.base.tolist(), strict=True)):
        runs = (results.method == method) & (results.base == base)
        new, old = results.parity[runs, 1:].ravel(), results.garments[runs, 1:].ravel()
        beaten = (
            (new[None] >= new[:, None])
            & (old[None] >= old[:, None])
            & ((new[None] > new[:, None]) | (old[None] > old[:, None]))
        )
        best[runs] = ~beaten.any(1).reshape(best[runs].shape)
    return best


def law(
    results: Results,
    predictor: str,
    statistic: Any = rz.quadratic_r2,
    methods: tuple[str, ...] = LAW_METHODS,
    keep: Any = None,
) -> np.ndarray:
    """How well a measure predicts forgetting: over all seeds, then the least and the largest of the single seeds."""
    runs = chosen(results, methods)
    x, y = getattr(results, predictor)[:, 1:], forgetting(results)
    keep = np.ones(y.shape, bool) if keep is None else keep

    def fit(rows: np.ndarray) -> float:
        mask = keep & rows[:, None]
        return float(jax.jit(statistic)(jnp.asarray(x[mask], float), jnp.asarray(y[mask], float)))

    seeds = [fit(runs & (results.base == seed)) for seed in range(results.num_seeds)]
    return np.array([fit(runs), min(seeds), max(seeds)])


def retained(results: Results, method: str, accuracy: float) -> float:
    """Best garments accuracy at the parity accuracy, mean over the seeds that reach it; NaN if none does."""
    runs = chosen(results, (method,))
    by_seed = [runs & (results.base == seed) for seed in range(results.num_seeds)]
    best = [results.garments[rows][results.parity[rows] >= accuracy] for rows in by_seed]
    return float(np.mean([kept.max() for kept in best if kept.size])) if any(kept.size for kept in best) else np.nan


def smallest_step(kept: list[float]) -> float:
    """Smallest difference between neighbours; negative where the order breaks."""
    return min(better - worse for better, worse in pairwise(kept))


def excess_at(results: Results, method: str, low: float, high: float, *, skewed: bool = False) -> float:
    """Mean reverse drift above the frontier of the checkpoints whose gain in success rate lies in the range."""
    runs = chosen(results, (method,), skewed=skewed)
    gain = results.success[runs, 1:] - results.success[runs, :1]
    inside = (low <= gain) & (gain < high)
    return float(results.excess[runs, 1:][inside].mean()) if inside.any() else np.nan


def claims(results: Results) -> list[Claim]:
    """The law, its exception, the ordering, and the skewed base."""
    (forward, everything), (increasing, all_increasing), (ranks, all_ranks) = (
        [law(results, "forward", statistic, methods) for methods in (LAW_METHODS, parity.METHODS)]
        for statistic in FITS.values()
    )
    weights, activations = (
        max((law(results, name)[0], name) for name in PUBLISHED if name.startswith(kind))
        for kind in ("weight", "activation")
    )
    kept = {method: retained(results, method, results.accuracy) for method in (*ORDER, "SFT 1 + replay")}
    later = {method: retained(results, method, results.later_accuracy) for method in ORDER}
    reverse, frontier = law(results, "reverse"), law(results, "forward", keep=on_frontier(results))
    paper = "RL's Razor, arXiv:2509.04259"
    return [
        Claim(
            id="law",
            statement="Forward drift on held-out digits predicts forgetting, for all methods that only see the new "
            "task: R² of the parabola, every checkpoint.",
            source=f"{paper}, figure 3 and table 1 (0.96 ± 0.01)",
            expected=at_least(0.6),
            measured=forward[0],
            control="with replay, which drifts and does not forget",
            control_measured=everything[0],
            note=f"Single seeds {forward[1]:.2f} to {forward[2]:.2f}; reverse drift {reverse[0]:.2f}; points on the "
            f"accuracy frontier only {frontier[0]:.2f}.",
        ),
        Claim(
            id="law-of-any-form",
            statement="The same for any increasing law: isotonic R².",
            source=paper,
            expected=at_least(0.8),
            measured=increasing[0],
            control="with replay",
            control_measured=all_increasing[0],
            note=f"Single seeds {increasing[1]:.2f} to {increasing[2]:.2f}. Forgetting saturates, and a parabola in "
            f"forward drift turns down: it explains {increasing[0] - forward[0]:.2f} less.",
        ),
        Claim(
            id="law-of-ranks",
            statement="The same without any form: rank correlation.",
            source=paper,
            expected=at_least(0.8),
            measured=ranks[0],
            control="with replay",
            control_measured=all_ranks[0],
            note=f"Single seeds {ranks[1]:.2f} to {ranks[2]:.2f}.",
        ),
        Claim(
            id="better-than-weights",
            statement="Forward drift predicts better than changes of weights: its R² minus that of the best of them.",
            source=f"{paper}, table 1",
            expected=at_least(0.1),
            measured=forward[0] - weights[0],
            control="minus that of the reverse drift on the old task's images",
            control_measured=forward[0] - law(results, "old_reverse")[0],
            note=f"The best of them is {weights[1].replace('_', ' ')}. It is little better than "
            f"{activations[1].replace('_', ' ')}, by {forward[0] - activations[0]:.2f}, where the table has "
            f"{PUBLISHED['forward'] - PUBLISHED[activations[1]]:.2f}; by isotonic R² it is "
            f"{increasing[0] - law(results, activations[1], rz.isotonic_r2)[0]:.2f} better.",
        ),
        Claim(
            id="ordering",
            statement=f"At parity accuracy {results.accuracy:g} the old task is kept in the order oracle SFT, GRPO + "
            "KL, GRPO, SFT 2, SFT 1: smallest step down, mean over seeds, within two standard errors of the "
            "held-out images.",
            source=f"{paper}, figure 3",
            expected=at_least(-2 * results.standard_error.item()),
            measured=smallest_step([kept[method] for method in ORDER]),
            control="with replay SFT 1 keeps most of all",
            control_measured=smallest_step([kept[method] for method in (*ORDER[:-1], "SFT 1 + replay")]),
            note="Garments kept: "
            + ", ".join(f"{method} {value:.2f}" for method, value in kept.items())
            + f"; at {results.later_accuracy:g} "
            + ", ".join(f"{method} {value:.2f}" for method, value in later.items())
            + ".",
        ),
        Claim(
            id="replay-breaks-the-law",
            statement="SFT with replay forgets nothing: largest forgetting of the runs that reach the accuracy.",
            source="pretraining gradients, Ouyang et al., arXiv:2203.02155",
            expected=at_most(0.1),
            measured=worst(results, "SFT 1 + replay"),
            control="the same SFT without replay",
            control_measured=worst(results, "SFT 1"),
            note=f"Its forward drift is up to {results.forward[chosen(results, ('SFT 1 + replay',))].max():.1f} nats.",
        ),
        Claim(
            id="skew-leaves-the-frontier",
            statement="From a skewed base GRPO leaves the accuracy-KL frontier at once: mean reverse drift above it "
            "while the success rate has gained at most 0.03.",
            source="razor: plain policy gradient collapses onto the likeliest correct answer",
            expected=at_least(0.02),
            measured=excess_at(results, "GRPO", 0.0, 0.03, skewed=True),
            control="a uniform base",
            control_measured=excess_at(results, "GRPO", 0.0, 0.03),
        ),
        Claim(
            id="symmetry-breaks",
            statement="From a uniform base, too, GRPO has left the frontier in the end: mean reverse drift above it "
            "where the success rate has gained over 0.06.",
            source="razor, where exact policy gradient stays: finite groups and shared features break the symmetry",
            expected=at_least(0.3),
            measured=excess_at(results, "GRPO", 0.06, 1.0),
            control="with a KL penalty",
            control_measured=excess_at(results, "GRPO + KL", 0.06, 1.0),
        ),
    ]


def worst(results: Results, method: str) -> float:
    """Largest forgetting at the end of a method's runs that reach the accuracy."""
    runs = chosen(results, (method,)) & (results.parity[:, -1] >= results.accuracy)
    return float(forgetting(results)[runs, -1].max()) if runs.any() else np.nan


def plot(results: Results) -> Figure:
    """Accuracies, the law, its predictors, drift, representation, and the skewed base."""
    figure, axes = plt.subplots(2, 3, figsize=(FULL_WIDTH, 5.4))
    draw_accuracies(axes[0, 0], results)
    draw_law(axes[0, 1], results)
    draw_predictors(axes[0, 2], results)
    draw_against_parity(axes[1, 0], results, results.forward, r"forward drift KL$(\pi_0\Vert\pi)$")
    draw_against_parity(axes[1, 1], results, results.cknna, "CKNNA to the base")
    draw_skew(axes[1, 2], results)
    axes[1, 0].set(yscale="log", ylim=(1e-3, 30), title="accuracy for drift")
    axes[1, 1].set(ylim=(0.0, 1.02), title="representation")
    for ax, text in zip(axes.flat, "abcdef", strict=True):
        letter(ax, text)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=5, markerscale=1.5)
    return figure


STYLE = {
    "SFT 1": (COLORS["forward"], "o"),
    "SFT 2": (COLORS["forward_light"], "o"),
    "oracle SFT": (COLORS["oracle"], "o"),
    "GRPO": (COLORS["reverse"], "o"),
    "GRPO + KL": (COLORS["reverse"], "^"),
    "REINFORCE": (COLORS["reverse_light"], "o"),
    "SFT 1 + KL": (COLORS["forward"], "^"),
    "SFT 1 + replay": (COLORS["forward"], "x"),
    "distilled GRPO": (COLORS["reverse_light"], "s"),
}


def draw_accuracies(ax: plt.Axes, results: Results) -> None:
    """Both accuracies: every checkpoint, and the frontier of each method over all seeds."""
    for method, (color, marker) in STYLE.items():
        runs = chosen(results, (method,))
        new, old = results.parity[runs, 1:].ravel(), results.garments[runs, 1:].ravel()
        ax.plot(new, old, marker, color=color, markersize=1.8, alpha=0.5, label=method)
        order = np.argsort(-new)
        best = np.maximum.accumulate(old[order])
        ax.step(new[order], best, where="post", color=color, linewidth=0.8)
    ax.set(xlabel="parity accuracy", ylabel="garments accuracy", title="both tasks")


def draw_law(ax: plt.Axes, results: Results) -> None:
    """Forgetting against forward drift; the parabola and the best increasing function of all methods but replay."""
    lost = forgetting(results)
    for method, (color, marker) in STYLE.items():
        runs = chosen(results, (method,))
        ax.plot(results.forward[runs, 1:].ravel(), lost[runs].ravel(), marker, color=color, markersize=1.8, alpha=0.6)
    runs = chosen(results, LAW_METHODS)
    x, y = results.forward[runs, 1:].ravel(), lost[runs].ravel()
    order = np.argsort(x)
    ax.plot(x[order], rz.isotonic_fit(x, y)[order], color=COLORS["target"], linewidth=1.0)
    grid = np.linspace(0, x.max(), 100)
    ax.plot(grid, np.polyval(np.polyfit(x, y, 2), grid), "--", color=COLORS["target"], linewidth=1.0)
    lines = [f"{name} {law(results, 'forward', statistic)[0]:.2f}" for name, statistic in FITS.items()]
    ax.annotate("\n".join([*lines, "without replay"]), (0.42, 0.3), xycoords="axes fraction")
    ax.set(xlabel=r"forward drift KL$(\pi_0\Vert\pi)$, digits", ylabel="forgetting of garments", title="the law")


def draw_predictors(ax: plt.Axes, results: Results) -> None:
    """R² of every measure: by a parabola and by any increasing function, on the frontier only, and as published."""
    names = [
        *PUBLISHED,
        "jensen_shannon",
        "old_forward",
        "old_reverse",
        "old_total_variation",
        "old_l2",
        "old_jensen_shannon",
    ]
    best = on_frontier(results)
    for row, name in enumerate(names):
        value, low, high = law(results, name)
        ax.plot([low, high], [row, row], color=COLORS["forward"], linewidth=2.5, alpha=0.4)
        ax.plot(value, row, "o", color=COLORS["forward"], markersize=3)
        ax.plot(
            law(results, name, rz.isotonic_r2)[0], row, "o", color=COLORS["forward"], markersize=4, fillstyle="none"
        )
        ax.plot(law(results, name, keep=best)[0], row, "|", color=COLORS["reverse"], markersize=6)
        if name in PUBLISHED:
            ax.plot(PUBLISHED[name], row, "D", color=COLORS["target"], markersize=3, fillstyle="none")
    for marker, color, fill, label in (
        ("o", "forward", "full", "parabola (bar: seeds)"),
        ("o", "forward", "none", "isotonic"),
        ("|", "reverse", "full", "parabola, frontier"),
        ("D", "target", "none", "parabola, published"),
    ):
        ax.plot([], [], marker, color=COLORS[color], markersize=3.5, fillstyle=fill, label=label)
    ax.set_yticks(range(len(names)), [name.replace("_", " ") for name in names], fontsize=5.5)
    ax.invert_yaxis()
    ax.set(xlim=(0, 1), xlabel="$R^2$", title="what predicts")
    ax.legend(loc="lower left", fontsize=5.5)


def draw_against_parity(ax: plt.Axes, results: Results, values: np.ndarray, label: str) -> None:
    """A measure against parity accuracy, every checkpoint."""
    for method, (color, marker) in STYLE.items():
        runs = chosen(results, (method,))
        ax.plot(
            results.parity[runs, 1:].ravel(), values[runs, 1:].ravel(), marker, color=color, markersize=1.8, alpha=0.6
        )
    ax.set(xlabel="parity accuracy", ylabel=label)


def draw_skew(ax: plt.Axes, results: Results) -> None:
    """Reverse drift above the frontier, from uniform and from skewed bases."""
    for method in SKEWED_METHODS[1:]:
        color, marker = STYLE[method]
        for skewed in (False, True):
            runs = chosen(results, (method,), skewed=skewed)
            fill = "full" if skewed else "none"
            label = f"{method}, {'skewed' if skewed else 'uniform'}"
            points = results.success[runs, 1:].ravel(), results.excess[runs, 1:].ravel()
            ax.plot(
                *points,
                marker,
                color=color,
                markersize=2.5,
                fillstyle=fill,
                alpha=0.8,
                label=label,
                markeredgewidth=0.5,
            )
    ax.set(
        ylim=(-0.05, 2.3),
        xlabel="mean success rate",
        ylabel=r"KL$(\pi\Vert\pi_0)-\mathrm{kl}(J,p_0)$",
        title="a skewed base",
    )
    ax.legend(loc="upper left", fontsize=5.5)
