"""What does dividing advantages by their standard deviation do to the expected gradient of a group?

GRPO samples G answers to a prompt, and centers and scales their 0/1 rewards. Its expected gradient is that of the
success rate J, times c_G(J) = E[√(K (G - K))] / (G J (1 - J)) with K ~ Binomial(G, J): a learning rate that depends on
how hard the prompt is, and no other direction. It tends to 1 / √(J (1 - J)) in large groups, and stays bounded, at most
√(G - 1), in small ones: there GRPO is close to plain REINFORCE.

About 5 seconds on two cores.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import rlrazor as rz
from experiments.harness import Caption, Claim, UserError, at_most, bounded, checked_run, near, number
from rlrazor.methods import DR_GRPO, GRPO
from rlrazor.plotting import COLORS, LABELS, METHOD_STYLE, panels, samples, theory

MARKERS = "osDv^<>ph*"
ADVANTAGES = {GRPO: rz.grpo_advantage, DR_GRPO: rz.dr_grpo_advantage}


@dataclass(frozen=True)
class Config:
    """Group sizes, success rates, and the groups that are sampled."""

    group_sizes: tuple[int, ...] = bounded((4, 8, 64), at_least=2, at_most=500)
    """Samples G of a group, increasing."""
    stated_size: int = bounded(8, at_least=2, at_most=500)
    """Group size of the number that is stated; one of them."""
    stated_success: float = bounded(0.85, at_least=0.01, at_most=0.99)
    """Its success rate."""
    points: tuple[float, ...] = bounded((0.05, 0.2, 0.35, 0.5, 0.65, 0.85, 0.95), at_least=0.01, at_most=0.99)
    """Success rates that groups are sampled at, increasing."""
    num_groups: int = bounded(20_000, at_least=1000, at_most=200_000)
    """Groups in every Monte Carlo estimate."""
    resolution: int = bounded(201, at_least=10, at_most=10_000)
    """Points on the curves."""
    seed: int = bounded(0, at_least=0)
    """Of the random keys."""

    def __post_init__(self) -> None:
        """Sizes and points increase, and there is a curve for the size of the number."""
        for name in ("group_sizes", "points"):
            values = getattr(self, name)
            if not list(values) == sorted(set(values)):
                raise UserError(f"{name} must increase, got {values}")
        if len(self.group_sizes) > len(MARKERS):
            raise UserError(f"group_sizes must hold at most {len(MARKERS)} values, got {len(self.group_sizes)}")
        if self.stated_size not in self.group_sizes:
            raise UserError(f"stated_size must be one of group_sizes {self.group_sizes}, got {self.stated_size}")
        work = self.num_groups * len(self.points) * max(self.group_sizes, default=1)
        if work > 10**9:
            raise UserError(f"num_groups, points and the largest group make {work:g} samples, more than 1e+09")

    @classmethod
    def quick(cls) -> "Config":
        """Fewer groups."""
        return cls(num_groups=4000)


class Coefficient(NamedTuple):
    """c_G by success rate, on its closed form and from sampled groups."""

    curve: Float[Array, " resolution"]
    exact: Float[Array, " points"]
    sampled: Float[Array, " points"]
    error: Float[Array, " points"]  # standard error of the sampled ones

    def scores(self, against: Any) -> Any:
        """Sampled less the given coefficients, in standard errors, `[points]`."""
        return (self.sampled - against) / self.error


class Results(NamedTuple):
    """Coefficients by group size, and the one that is stated."""

    success: Float[Array, " resolution"]
    by_size: dict[str, Coefficient]
    stated: Float[Array, ""]  # closed form
    over_groups: dict[str, Float[Array, ""]]  # method -> mean over all groups of the stated size

    def largest_score(self) -> Any:
        """Largest difference of sampled groups from the closed form, in standard errors."""
        return max(np.abs(found.scores(found.exact)).max() for found in self.by_size.values())


def name_of(size: int) -> str:
    """The key of a group size."""
    return f"G = {size}"


@checked_run
def run(config: Config) -> Results:
    """Closed forms, sampled groups, and the mean over all groups."""
    key = jax.random.fold_in(jax.random.key(config.seed), 2)
    success, points = jnp.linspace(0.0, 1.0, config.resolution), jnp.array(config.points)
    quantiles = jax.random.uniform(key, (config.num_groups, points.size, max(config.group_sizes)))
    return Results(
        success,
        {name_of(size): coefficient(success, points, quantiles[..., :size]) for size in config.group_sizes},
        rz.grpo_coefficient(config.stated_success, config.stated_size),
        {method: mean_over_groups(method, config.stated_success, config.stated_size) for method in ADVANTAGES},
    )


@jax.jit
def coefficient(
    success: Float[Array, " resolution"], points: Float[Array, " points"], quantiles: Float[Array, "groups points G"]
) -> Coefficient:
    """c_G of one group size: E[mean(advantage * reward)] = c_G(J) J (1 - J), for reward = (quantile < J)."""
    size, num_groups = quantiles.shape[-1], quantiles.shape[0]
    reward = (quantiles < points[None, :, None]).astype(quantiles.dtype)
    drawn = (rz.grpo_advantage(reward) * reward).mean(-1) / (points * (1 - points))[None]
    exact = rz.grpo_coefficient(points, size)
    return Coefficient(
        rz.grpo_coefficient(success, size), exact, drawn.mean(0), drawn.std(0, ddof=1) / jnp.sqrt(float(num_groups))
    )


@partial(jax.jit, static_argnames=("method", "size"))
def mean_over_groups(method: str, success: Float[Array, ""], size: int) -> Float[Array, ""]:
    """The coefficient of a method's advantage, by the sum over the number of successes K ~ Binomial(size, success)."""
    count = jnp.arange(size + 1)
    reward = (jnp.arange(size)[None] < count[:, None]).astype(float)
    probability = jax.scipy.stats.binom.pmf(count.astype(float), float(size), success)
    advantage = ADVANTAGES[method](reward)
    return probability @ (advantage * reward).mean(-1) / (success * (1 - success))


def limit(success: Any) -> Any:
    """c_G in infinitely large groups."""
    return 1 / np.sqrt(success * (1 - success))


def claims(config: Config, results: Results) -> list[Claim]:
    """The number, by two ways, and its estimates from samples."""
    smallest = config.group_sizes[0]
    against = results.by_size[name_of(smallest)].scores(limit(np.array(config.points)))
    return [
        Claim(
            id="group-coefficient",
            statement="GRPO's expected gradient is c_G(J) times that of the success rate: the closed form of "
            f"c_{config.stated_size}({config.stated_success:g}), expected to be the mean over all groups.",
            source="binomial mean over the number of successes",
            expected=near(results.over_groups[GRPO], 1e-9),
            measured=results.stated,
            control=f"the mean over all groups without dividing by the standard deviation, {DR_GRPO}",
            control_measured=results.over_groups[DR_GRPO],
        ),
        Claim(
            id="group-coefficient-sampled",
            statement="Sampled groups agree with the closed form: largest difference in standard errors, over groups "
            f"of {', '.join(map(str, config.group_sizes))} and {len(config.points)} success rates.",
            source=f"Monte Carlo, {config.num_groups} groups each",
            expected=at_most(4),
            measured=results.largest_score(),
            control=f"the limit of large groups, for groups of {smallest}",
            control_measured=np.abs(against).max(),
        ),
    ]


def plot(config: Config, results: Results) -> Figure:
    """The coefficients, and what samples lack."""
    figure, axes = panels([["coefficient", "scores"]], height=2.8, width_ratios=[1.4, 1])
    draw_coefficients(axes["coefficient"], config, results)
    draw_scores(axes["scores"], config, results)
    return figure


def looks(config: Config) -> list[tuple[str, dict[str, Any], str]]:
    """Name, line and marker of every group size: the color of GRPO, the stronger the larger the group."""
    shades = np.linspace(0.4, 1.0, len(config.group_sizes))
    color = METHOD_STYLE[GRPO].color
    return [
        (name_of(size), {"color": color, "alpha": shade}, marker)
        for size, shade, marker in zip(config.group_sizes, shades, MARKERS, strict=False)
    ]


def draw_coefficients(ax: Axes, config: Config, results: Results) -> None:
    """c_G(J): closed form and sampled groups, with two standard errors."""
    for name, look, marker in looks(config):
        found = results.by_size[name]
        theory(ax, results.success, found.curve, **look)
        bars: Any = look | {"fmt": marker, "markersize": 3, "label": f"${name}$"}
        ax.errorbar(config.points, found.sampled, 2 * np.asarray(found.error), **bars)
    inside = (results.success > 0) & (results.success < 1)
    shown = np.where(inside, results.success, 0.5)
    curve = np.where(inside, limit(shown), np.nan)
    theory(ax, results.success, curve, color=COLORS["target"], linestyle="--", label=r"$1/\sqrt{J(1-J)}$")
    top = max(max(np.max(found.sampled) for found in results.by_size.values()), float(np.nanmin(curve)))
    ax.set(ylim=(0, 1.5 * top), xlabel=LABELS["success"], ylabel="$c_G(J)$", title=r"GRPO follows $c_G(J)\,\nabla J$")
    ax.legend(loc="upper center", ncols=2)


def draw_scores(ax: Axes, config: Config, results: Results) -> None:
    """What sampled groups lack of the closed form, with the band that holds 95% of such differences."""
    ax.axhspan(-1.96, 1.96, color=COLORS["ref"], alpha=0.2, linewidth=0)
    ax.axhline(0, color=COLORS["ref"], linewidth=0.6)
    for name, look, marker in looks(config):
        found = results.by_size[name]
        samples(ax, config.points, found.scores(found.exact), at_most=len(config.points), marker=marker, **look)
    ax.set(xlabel=LABELS["success"], ylabel="sampled less exact (standard errors)", title="samples agree")


def caption(config: Config, results: Results) -> Caption:
    """What a reader can quote."""
    return Caption(
        f"GRPO's expected gradient is that of the success rate J, times c_G(J): {number(results.stated)} at J = "
        f"{config.stated_success:g} in groups of {config.stated_size}. Sampled groups agree within "
        f"{results.largest_score():.1f} standard errors; the limit of large groups, 1/√(J(1 - J)), is "
        f"{number(limit(config.stated_success))} there.",
        a=f"Lines are the closed form, points means over {config.num_groups} sampled groups, with two standard errors; "
        "the dashed line is the limit of large groups.",
        b="The points less the closed form; 95% of such differences lie in the band.",
    )
