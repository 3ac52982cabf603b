"""The forgetting law: drift on new inputs predicts forgetting if new and old inputs share features.

"RL's Razor" (Shenfeld, Pari, Agrawal, arXiv:2509.04259) reports R² = 0.96 between forgetting and the forward drift
E KL(base || policy), measured on inputs of the new task. Here the policy is a linear softmax, its new inputs share a
fraction of their features with the old ones, and every method is trained by its exact expected gradient. Without
shared features the law cannot be: drift is anything and forgetting is zero.

With shared features it appears, for all methods together, and three things decide how well: the overlap, new inputs
that span the shared features, and training that stops before forgetting saturates, which is long before the new task
is learned. Forward drift then runs on without bound, as unwanted answers vanish, and reverse drift predicts better.
R² does not know the size of the effect: computed from exact forgetting it survives at small overlap, where nobody would
notice any; measured with finitely many test answers it fades with the overlap.

About 30 seconds on two cores.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from matplotlib.figure import Figure

import rlrazor as rz
from experiments._harness import Claim, UserError, at_least, at_most, nonnegative, positive
from rlrazor.plotting import COLORS, FULL_WIDTH, letter
from rlrazor.training import train

METHODS = ("SFT, one label", "SFT, teacher", "SFT on the oracle", "SFT + KL", "SimPO", "REINFORCE", "GRPO", "GRPO + KL")
PREDICTORS = ("forward drift", "reverse drift", "forward drift,\nold inputs")
FITS = {"quadratic": rz.quadratic_r2, "isotonic": rz.isotonic_r2, "rank": rz.rank_correlation}
NUM_OUTCOMES, NUM_CORRECT = 10, 5


@dataclass(frozen=True)
class Config:
    """Prompts, features, overlaps and training lengths."""

    num_prompts: int = 128
    """Prompts of either task."""
    num_features: int = 16
    """Features that old inputs use, and as many that only new inputs use."""
    scale: float = positive(3.0)
    """Standard deviation of the base's weights."""
    overlaps: tuple[float, ...] = nonnegative((0.0, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0))
    """Squared cosine between a new input and its part in the old inputs' features."""
    coverages: tuple[int, ...] = (2, 4, 8, 16, 32, 64, 128)
    """Numbers of new prompts trained on, at full overlap."""
    horizons: tuple[int, ...] = (10, 20, 30, 60, 120, 240)
    """Updates after which training ends."""
    horizon: int = 30
    """The one of the scatter plots and of the overlaps."""
    rate: float = positive(10.0)
    """Learning rate, of the mean loss over prompts."""
    penalty: float = positive(0.1)
    """Coefficient of the KL penalty in GRPO + KL; five times that in SFT + KL."""
    group_size: int = 8
    """GRPO's group."""
    num_worlds: int = 8
    """Random worlds."""
    num_checkpoints: int = 5
    """Evaluated checkpoints of a training."""
    num_answers: int = 2000
    """Test answers from which forgetting is measured, as in practice."""
    num_resamples: int = 400
    """Bootstrap resamples of the worlds."""
    seed: int = nonnegative(0)
    """Of the random keys."""

    def __post_init__(self) -> None:
        """What is compared is there: no and full overlap, few and all prompts, and every checkpoint of a horizon."""
        if self.overlaps[0] != 0 or self.overlaps[-1] != 1:
            raise UserError(f"overlaps must start at 0 and end at 1, got {self.overlaps}")
        for name, horizons in (("horizon", (self.horizon,)), ("horizons", self.horizons)):
            if any(horizon % self.num_checkpoints for horizon in horizons):
                raise UserError(f"{name} must be divisible by num_checkpoints {self.num_checkpoints}, got {horizons}")
        if not (self.coverages[0] < self.num_features and self.coverages[-1] == self.num_prompts):
            raise UserError(
                f"coverages must start below num_features {self.num_features} and end at num_prompts "
                f"{self.num_prompts}, got {self.coverages}"
            )

    @classmethod
    def quick(cls) -> "Config":
        """Fewer worlds, overlaps and horizons."""
        return cls(
            overlaps=(0.0, 0.01, 0.1, 1.0),
            coverages=(4, 16, 128),
            horizons=(10, 30, 120),
            num_worlds=4,
            num_resamples=100,
        )


class Results(NamedTuple):
    """Points of (drift, forgetting), and how well one predicts the other."""

    overlaps: np.ndarray  # [overlaps]
    coverages: np.ndarray  # [coverages]
    horizons: np.ndarray  # [horizons]
    num_features: np.ndarray  # []
    num_answers: np.ndarray  # []
    drift: np.ndarray  # [overlaps, worlds, methods, checkpoints] forward, new inputs
    forgetting: np.ndarray  # [overlaps, worlds, methods, checkpoints] exact
    measured: np.ndarray  # [overlaps, worlds, methods, checkpoints] from finitely many answers
    exact_r2: np.ndarray  # [overlaps, 3] of the parabola: value and interval over worlds
    measured_r2: np.ndarray  # [overlaps, 3]
    fits: np.ndarray  # [fits, predictors, 3] at full overlap
    unshared: np.ndarray  # [fits, 3] forward drift and measured forgetting without overlap
    coverage_r2: np.ndarray  # [coverages, 3]
    success: np.ndarray  # [horizons, methods] success rate on the new task at the end, mean over worlds
    horizon_r2: np.ndarray  # [2, horizons, 3] forward and reverse drift, at full overlap


class World(NamedTuple):
    """Two tasks for one linear softmax."""

    old: jax.Array  # [prompts, features] inputs of the old task
    new: jax.Array  # [prompts, features]
    weights: jax.Array  # [features, outcomes] of the base
    accept: jax.Array  # [prompts, outcomes] correct answers of the new task
    teacher: jax.Array  # [prompts, outcomes] log-probabilities of an unrelated, always correct policy


class Points(NamedTuple):
    """What is evaluated at a checkpoint."""

    drift: jax.Array
    reverse_drift: jax.Array
    old_drift: jax.Array  # forward, on old inputs
    success: jax.Array  # success rate on the new task
    before: jax.Array  # the base's success rate on the old task
    after: jax.Array  # and the policy's


def make_world(config: Config, key: jax.Array, overlap: jax.Array) -> World:
    """Old inputs use the first half of the features; the overlap is the share of the new inputs' length there."""
    keys, shape = jax.random.split(key, 6), (config.num_prompts, config.num_features)
    old, shared, private = (unit(jax.random.normal(key, shape)) for key in keys[:3])
    outcomes = (config.num_prompts, NUM_OUTCOMES)
    accept = jnp.argsort(jax.random.uniform(keys[4], outcomes), axis=-1) < NUM_CORRECT
    return World(
        old=jnp.concatenate([old, jnp.zeros(shape)], axis=-1),
        new=jnp.concatenate([jnp.sqrt(overlap) * shared, jnp.sqrt(1 - overlap) * private], axis=-1),
        weights=config.scale * jax.random.normal(keys[3], (2 * config.num_features, NUM_OUTCOMES)),
        accept=accept,
        teacher=rz.condition(rz.softmax_policy(3 * jax.random.normal(keys[5], outcomes)), accept),
    )


def unit(x: jax.Array) -> jax.Array:
    """Rows of length one."""
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


def method_losses(config: Config, world: World, log_base: jax.Array) -> list[Callable[[jax.Array], jax.Array]]:
    """The exact loss of each method at every prompt, in the order of METHODS."""
    top = jnp.arange(NUM_OUTCOMES)[None] == jnp.argmax(world.teacher, axis=-1)[:, None]
    label, oracle = rz.condition(world.teacher, top), rz.condition(log_base, world.accept)
    wrong = rz.condition(log_base, ~world.accept)

    def grpo(log_policy: jax.Array) -> jax.Array:
        return -rz.grpo_objective(log_policy, world.accept, config.group_size)

    def penalty(log_policy: jax.Array) -> jax.Array:
        return config.penalty * rz.kl_divergence(log_policy, log_base)

    return [
        lambda log_policy: rz.sft_loss(log_policy, label),
        lambda log_policy: rz.sft_loss(log_policy, world.teacher),
        lambda log_policy: rz.sft_loss(log_policy, oracle),
        lambda log_policy: rz.sft_loss(log_policy, label) + 5 * penalty(log_policy),
        lambda log_policy: rz.expected_simpo_loss(log_policy, world.teacher, wrong, beta=1.0, margin=1.0),
        lambda log_policy: -rz.expected_reward(log_policy, world.accept.astype(float)),
        grpo,
        lambda log_policy: grpo(log_policy) + penalty(log_policy),
    ]


@partial(jax.jit, static_argnums=(0, 1))
def train_all(config: Config, steps: tuple[int, ...], overlaps: jax.Array, coverages: jax.Array) -> Points:
    """Every method in every world at every setting, evaluated after `steps`: `[settings, worlds, methods, steps]`."""

    def one(setting: tuple[jax.Array, ...]) -> Points:
        key, overlap, coverage, method = setting
        world = make_world(config, key, overlap)
        base_new, base_old = (rz.linear_softmax_policy(world.weights, inputs) for inputs in (world.new, world.old))
        right = jnp.argmax(base_old, axis=-1)[:, None]  # the old task: the base's likeliest answer is right
        trained = (jnp.arange(config.num_prompts) < coverage) / coverage
        losses = method_losses(config, world, base_new)

        def descent(weights: jax.Array, _: jax.Array) -> jax.Array:
            def loss(weights: jax.Array) -> jax.Array:
                return trained @ jax.lax.switch(method, losses, rz.linear_softmax_policy(weights, world.new))

            return jax.grad(loss)(weights)

        def evaluate(weights: jax.Array) -> Points:
            log_new, log_old = (rz.linear_softmax_policy(weights, inputs) for inputs in (world.new, world.old))
            before, after = (jnp.take_along_axis(jnp.exp(x), right, axis=-1) for x in (base_old, log_old))
            return Points(
                success=trained @ jnp.where(world.accept, jnp.exp(log_new), 0.0).sum(-1),
                drift=trained @ rz.kl_divergence(base_new, log_new),
                reverse_drift=trained @ rz.kl_divergence(log_new, base_new),
                old_drift=rz.drift(base_old, log_old),
                before=before.mean(),
                after=after.mean(),
            )

        path = train(descent, world.weights, optax.sgd(config.rate), key, num_steps=steps[-1])
        return jax.lax.map(evaluate, path[jnp.array(steps)])

    keys = jax.random.split(jax.random.key(config.seed), config.num_worlds)
    world, setting, method = jnp.meshgrid(
        jnp.arange(config.num_worlds), jnp.arange(overlaps.size), jnp.arange(len(METHODS)), indexing="ij"
    )
    flat = keys[world.ravel()], overlaps[setting.ravel()], coverages[setting.ravel()], method.ravel()
    points = jax.lax.map(one, flat)
    return jax.tree.map(lambda leaf: leaf.reshape(*world.shape, len(steps)).swapaxes(0, 1), points)


def run(config: Config) -> Results:
    """Short trainings at every overlap and coverage, long ones at full overlap, then the fits."""
    full, everyone = 1.0, float(config.num_prompts)
    overlaps = jnp.array([*config.overlaps, *[full] * len(config.coverages)])
    coverages = jnp.array([*[everyone] * len(config.overlaps), *map(float, config.coverages)])
    quarter = np.arange(1, config.num_checkpoints + 1)
    steps = tuple((config.horizon // config.num_checkpoints * quarter).tolist())
    short = jax.tree.map(np.asarray, train_all(config, steps, overlaps, coverages))
    by_horizon = [horizon // config.num_checkpoints * quarter for horizon in config.horizons]
    steps = tuple(sorted({int(step) for row in by_horizon for step in row}))
    long = jax.tree.map(np.asarray, train_all(config, steps, jnp.array([full]), jnp.array([everyone])))
    rows = np.searchsorted(steps, by_horizon)
    long = jax.tree.map(lambda leaf: np.moveaxis(leaf[0][..., rows], 2, 0), long)  # [horizons, worlds, methods, points]

    num_overlaps = len(config.overlaps)
    at_overlap = jax.tree.map(lambda leaf: leaf[:num_overlaps], short)
    last = jax.tree.map(lambda leaf: leaf[-1:], at_overlap)
    predictors = np.concatenate([last.drift, last.reverse_drift, last.old_drift])
    forgetting, lost, lost_long = (points.before - points.after for points in (at_overlap, short, long))
    repeated = np.broadcast_to(forgetting[-1:], predictors.shape)
    rng = np.random.default_rng(config.seed)
    right = [rng.binomial(config.num_answers, score) for score in (at_overlap.before, at_overlap.after)]
    measured = (right[0] - right[1]) / config.num_answers
    fit = partial(intervals, config)
    return Results(
        overlaps=np.array(config.overlaps),
        coverages=np.array(config.coverages),
        horizons=np.array(config.horizons),
        num_features=np.array(config.num_features),
        num_answers=np.array(config.num_answers),
        drift=at_overlap.drift,
        forgetting=forgetting,
        measured=measured,
        exact_r2=fit(rz.quadratic_r2, at_overlap.drift, forgetting),
        measured_r2=fit(rz.quadratic_r2, at_overlap.drift, measured),
        fits=np.stack([fit(statistic, predictors, repeated) for statistic in FITS.values()]),
        unshared=np.stack([fit(statistic, at_overlap.drift[:1], measured[:1])[0] for statistic in FITS.values()]),
        coverage_r2=fit(rz.quadratic_r2, short.drift[num_overlaps:], lost[num_overlaps:]),
        success=long.success[..., -1].mean(1),
        horizon_r2=np.stack([fit(rz.quadratic_r2, x, lost_long) for x in (long.drift, long.reverse_drift)]),
    )


@partial(jax.jit, static_argnums=(0, 1))
def intervals(config: Config, statistic: Callable[..., jax.Array], *samples: jax.Array) -> jax.Array:
    """The statistic and its bootstrap interval over worlds, for every row of `samples [rows, worlds, ...]`."""
    key = jax.random.key(config.seed + 1)

    def one(arrays: tuple[jax.Array, ...]) -> jax.Array:
        def flat(*resampled: jax.Array) -> jax.Array:
            return statistic(*(array.ravel() for array in resampled))

        return jnp.stack(rz.bootstrap(flat, key, *arrays, num_resamples=config.num_resamples))

    return jax.lax.map(one, samples)


def claims(results: Results) -> list[Claim]:
    """The law, and what it needs."""
    few = int(np.flatnonzero(results.coverages < results.num_features)[-1])
    weak = 1  # the smallest overlap above zero
    blind = results.exact_r2[:, 0] - results.measured_r2[:, 0]
    forward, reverse = results.horizon_r2[..., 0]
    law = "RL's Razor, arXiv:2509.04259, figure 3 and table 1"
    return [
        Claim(
            id="law",
            statement="With shared features forward drift on new inputs predicts measured forgetting, for all methods "
            "together: R² of the parabola, lower end of its interval over worlds.",
            source=f"{law} (R² = 0.96)",
            expected=at_least(0.85),
            measured=results.measured_r2[-1, 1],
            control="no shared features, upper end",
            control_measured=results.measured_r2[0, 2],
        ),
        Claim(
            id="law-of-any-form",
            statement="The same for any increasing law: isotonic R².",
            source=law,
            expected=at_least(0.9),
            measured=results.fits[1, 0, 0],
            control="no shared features, measured forgetting",
            control_measured=results.unshared[1, 0],
        ),
        Claim(
            id="law-of-ranks",
            statement="And without any form: rank correlation.",
            source=law,
            expected=at_least(0.85),
            measured=results.fits[2, 0, 0],
            control="no shared features, measured forgetting",
            control_measured=results.unshared[2, 0],
        ),
        Claim(
            id="needs-sharing",
            statement="Without shared features nothing is forgotten at any drift: largest forgetting.",
            source="a gradient step at x moves x' in proportion to features(x) · features(x')",
            expected=at_most(1e-12),
            measured=np.abs(results.forgetting[0]).max(),
            control="full overlap",
            control_measured=np.abs(results.forgetting[-1]).max(),
            note=f"The largest drift without shared features is {results.drift[0].max():.1f} nats.",
        ),
        Claim(
            id="blind-to-size",
            statement=f"R² does not know the size of the effect: at overlap {results.overlaps[weak]:g} the exact R² "
            f"exceeds the one measured from {results.num_answers} answers by this much.",
            source="exact flows against a finite test",
            expected=at_least(0.25),
            measured=blind[weak],
            control="full overlap",
            control_measured=blind[-1],
            note=f"The largest forgetting there is {results.forgetting[weak].max():.3f}.",
        ),
        Claim(
            id="needs-coverage",
            statement=f"New inputs must span the shared features: R² lost with {results.coverages[few]} prompts for "
            f"{results.num_features} features.",
            source="exact training",
            expected=at_least(0.15),
            measured=results.coverage_r2[-1, 0] - results.coverage_r2[few, 0],
            control="twice as many prompts as features or more",
            control_measured=results.coverage_r2[-1, 0]
            - results.coverage_r2[results.coverages >= 2 * results.num_features, 0].min(),
        ),
        Claim(
            id="needs-short-training",
            statement="Forward drift runs on after forgetting has saturated: its R² after "
            f"{results.horizons[-1]} updates.",
            source="exact training; published fits turn over, too",
            expected=at_most(0.85),
            measured=forward[-1],
            control=f"after {results.horizons[0]} updates",
            control_measured=forward[0],
            note=f"By then the methods succeed at rates of {results.success[-1].min():.2f} to "
            f"{results.success[-1].max():.2f}; after {results.horizons[0]} updates, of "
            f"{results.success[0].min():.2f} to {results.success[0].max():.2f}.",
        ),
        Claim(
            id="reverse-predicts-better",
            statement="Reverse drift, which saturates like forgetting, then predicts better: R² of reverse minus R² of "
            "forward drift.",
            source=f"{law} report 0.93 against 0.96, the other way round",
            expected=at_least(0.1),
            measured=reverse[-1] - forward[-1],
            control=f"after {results.horizons[0]} updates",
            control_measured=reverse[0] - forward[0],
            note="Independent replications find the same on old inputs.",
        ),
    ]


def plot(results: Results) -> Figure:
    """Two scatters, and R² against all that it depends on."""
    figure, axes = plt.subplots(2, 3, figsize=(FULL_WIDTH, 5.2))
    draw_points(axes[0, 0], results, -1)
    draw_points(axes[0, 1], results, 0)
    draw_overlap(axes[0, 2], results)
    draw_coverage(axes[1, 0], results)
    draw_horizon(axes[1, 1], results)
    draw_predictors(axes[1, 2], results)
    for ax, text in zip(axes.flat, "abcdef", strict=True):
        letter(ax, text)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=4, markerscale=2)
    return figure


STYLE = (
    (COLORS["forward"], "o"),
    (COLORS["forward_light"], "o"),
    (COLORS["oracle"], "o"),
    (COLORS["forward"], "^"),
    (COLORS["forward_light"], "s"),
    (COLORS["reverse_light"], "o"),
    (COLORS["reverse"], "o"),
    (COLORS["reverse"], "^"),
)


def draw_points(ax: plt.Axes, results: Results, row: int) -> None:
    """Measured forgetting against forward drift, every world, and the parabola of the exact values."""
    x, y = results.drift[row], results.forgetting[row]
    for method, ((color, marker), name) in enumerate(zip(STYLE, METHODS, strict=True)):
        points = x[:, method].ravel(), results.measured[row][:, method].ravel()
        ax.plot(*points, marker, color=color, markersize=1.8, alpha=0.7, label=name)
    grid = np.linspace(0, x.max(), 100)
    ax.plot(grid, np.polyval(np.polyfit(x.ravel(), y.ravel(), 2), grid), "--", color=COLORS["target"], linewidth=1.0)
    value, low, high = results.measured_r2[row]
    ax.annotate(rf"$R^2={value:.2f}$ [{low:.2f}, {high:.2f}]", (0.03, 0.95), xycoords="axes fraction", va="top")
    ax.set(ylim=(-0.06, 0.72), xlabel=r"forward drift KL$(\pi_0\Vert\pi)$, new inputs", ylabel="forgetting")
    ax.set_title(f"overlap {results.overlaps[row]:g}")


def band(ax: plt.Axes, x: np.ndarray, estimate: np.ndarray, color: str, label: str, line: str = "o-") -> None:
    """Values and their intervals."""
    value, low, high = estimate.T
    ax.plot(x, value, line, color=color, label=label, linewidth=1.0)
    ax.fill_between(x, low, high, color=color, alpha=0.2, linewidth=0)


def draw_overlap(ax: plt.Axes, results: Results) -> None:
    """R² against overlap, exact and as a finite test shows it."""
    ax.set_xscale("symlog", linthresh=results.overlaps[1], linscale=0.5)
    band(ax, results.overlaps[1:], results.exact_r2[1:], COLORS["oracle"], "exact forgetting")
    band(ax, results.overlaps, results.measured_r2, COLORS["forward"], f"{results.num_answers} test answers")
    ax.set_xticks([0, 0.01, 0.1, 1], ["0", "0.01", "0.1", "1"])
    ax.minorticks_off()
    ax.set(ylim=(0, 1), xlim=(0, 1.1), xlabel="overlap of new with old inputs", ylabel="quadratic $R^2$")
    ax.set_title("it needs shared features")
    ax.legend(loc="upper left")


def draw_coverage(ax: plt.Axes, results: Results) -> None:
    """R² against the number of new prompts."""
    band(ax, results.coverages, results.coverage_r2, COLORS["forward"], "forward drift")
    ax.axvline(results.num_features, color=COLORS["ref"], linewidth=0.8)
    ax.annotate(" shared features", (results.num_features, 0.05), fontsize=6.5, color=COLORS["ref"])
    ax.set_xscale("log", base=2)
    ax.set_xticks(results.coverages, [str(count) for count in results.coverages])
    ax.set(ylim=(0, 1), xlabel="new prompts", ylabel="quadratic $R^2$", title="it needs coverage")


def draw_horizon(ax: plt.Axes, results: Results) -> None:
    """R² against the length of training, both drifts."""
    for row, color, name in ((0, "forward", r"KL$(\pi_0\Vert\pi)$"), (1, "reverse", r"KL$(\pi\Vert\pi_0)$")):
        band(ax, results.horizons, results.horizon_r2[row], COLORS[color], name)
    ax.set_xscale("log")
    ax.set_xticks(results.horizons, [str(count) for count in results.horizons])
    ax.minorticks_off()
    ax.set(ylim=(0, 1), xlabel="updates", ylabel="quadratic $R^2$", title="it needs short training")
    ax.legend(loc="lower left")


def draw_predictors(ax: plt.Axes, results: Results) -> None:
    """Every predictor under every fit."""
    colors = (COLORS["forward"], COLORS["reverse"], COLORS["ref"])
    for row, (kind, marker) in enumerate(zip(FITS, "os^", strict=True)):
        for column, color in enumerate(colors):
            value, low, high = results.fits[row, column]
            place = column + 0.2 * (row - 1)
            ax.plot(place, value, marker, color=color, markersize=3.5)
            ax.plot([place, place], [low, high], color=color)
        label = "rank correlation" if kind == "rank" else f"{kind} $R^2$"
        ax.plot([], [], marker, color="black", markersize=3.5, label=label)
    ax.set_xticks(range(len(PREDICTORS)), PREDICTORS)
    ax.set(ylim=(0.8, 1.0), xlim=(-0.5, 2.5), title="which drift predicts, overlap 1")
    ax.legend(loc="lower right")
