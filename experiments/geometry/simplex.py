"""How do the two directions of KL differ? Three outcomes, the whole theory in a triangle.

Balls of both KL directions agree while they are small and part as they grow. To the reward-tilted optimum pi* lead two
straight lines: the m-geodesic, straight in probabilities, is the natural gradient flow of the forward KL(pi* || pi),
and the e-geodesic, straight in log-probabilities, that of the reverse KL(pi || pi*). Euclidean flows take neither.

The policy that always succeeds and is closest to the reference in KL(pi || ref) is the reference conditioned on
success: RL's razor as a point (Shenfeld, Pari, Agrawal, arXiv:2509.04259). The natural policy gradient ends there, the
Euclidean one, plain policy gradient on a table, drifts on to the likeliest success. About 10 seconds on two cores.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import rlrazor as rz
from experiments.harness import Caption, Claim, UserError, at_most, bounded, check_sum, checked_run, near
from rlrazor.methods import ORACLE_SFT, REINFORCE
from rlrazor.plotting import COLORS, LABELS, METHOD_STYLE, draw_simplex, key, note, panels, samples, theory
from rlrazor.plotting import simplex_points as points_of
from rlrazor.tasks import triangle
from rlrazor.tasks.triangle import FORWARD, REVERSE, Face, Flow, Policies, Policy


@dataclass(frozen=True)
class Config:
    """The reference, the reward, and what counts as success."""

    ref: tuple[float, float, float] = bounded((0.30, 0.12, 0.58), at_least=1e-3, length=3)
    """Reference policy; sums to 1."""
    reward: tuple[float, float, float] = bounded((0.0, 2.0, 0.5), at_least=-5, at_most=5, length=3)
    """Reward of the tilted optimum."""
    beta: float = bounded(0.5, at_least=0.1, at_most=100)
    """KL coefficient of the tilted optimum."""
    accept: tuple[bool, bool, bool] = bounded((True, True, False), length=3)
    """Which outcomes succeed, two of the three."""
    radii: tuple[float, ...] = bounded((0.02, 0.1, 0.3, 0.7), above=0, at_most=100)
    """Radii of the KL balls, in nats."""
    small_radius: float = bounded(1e-5, at_least=1e-8, at_most=1e-3)
    """Radius at which the balls of both directions are compared."""
    num_directions: int = bounded(48, at_least=3, at_most=10_000)
    """Directions in which they are."""
    first_time: float = bounded(1e-2, at_least=1e-6, at_most=1)
    """First saved time after the start (rate times steps)."""
    end_time: float = bounded(3000.0, at_least=2, at_most=1e5)
    """How long the flows run."""
    num_times: int = bounded(160, at_least=10, at_most=10_000)
    """Saved times, log-spaced."""
    num_points: int = bounded(201, at_least=11, at_most=10_000)
    """Points of the face and of each geodesic."""
    resolution: int = bounded(240, at_least=20, at_most=1000)
    """Points along each side of the lattice that the balls are drawn on."""

    def __post_init__(self) -> None:
        """There is an optimum to flow to, and an edge of successes with a likeliest one."""
        check_sum("ref", self.ref)
        if len(set(self.reward)) == 1:
            raise UserError(f"reward must not be constant: it tilts nothing, got {self.reward}")
        likely = {p for p, accepted in zip(self.ref, self.accept, strict=False) if accepted}
        if sum(self.accept) != 2 or len(likely) != 2:
            raise UserError(f"accept must hold two True, at different probabilities of ref, got {self.accept}")

    @classmethod
    def quick(cls) -> "Config":
        """Shorter flows, fewer times, a coarser lattice."""
        return cls(end_time=300.0, num_times=60, resolution=100)

    @property
    def large_radius(self) -> float:
        """Just short of the drift to the likeliest outcome alone: the ball of KL(p || ref) all but touches a corner."""
        return 0.99 * -math.log(max(self.ref))

    @property
    def least_drift(self) -> float:
        """-log ref(S), the least reverse drift of a policy that always succeeds."""
        return -math.log(math.fsum(p for p, accepted in zip(self.ref, self.accept, strict=True) if accepted))

    def top_share(self, policy: Any) -> Any:
        """The likeliest success's share of a policy's successes."""
        success = np.array(self.accept, float)
        return policy[..., np.argmax(success * self.ref)] / (policy @ success)


class Results(NamedTuple):
    """Balls, geodesics, flows and the success face, as probabilities over three outcomes."""

    optimum: Policy
    projection: Policy  # ref conditioned on success
    lattice: Policies  # interior of the simplex
    lattice_drift: rz.Drifts
    geodesics: dict[str, Policies]  # from ref to the optimum, by the KL whose natural flow runs along it
    flows: dict[str, Flow]  # by objective
    face: Face
    asymmetry: Float[Array, ""]  # largest |KL(p || ref) / KL(ref || p) - 1| at the small radius
    large_asymmetry: Float[Array, ""]  # and at the large one


@checked_run
def run(config: Config) -> Results:
    """All closed forms, and both flows of all three objectives."""
    tilt, condition = jax.jit(rz.tilt), jax.jit(rz.condition)  # a program each, not one for every operation in them
    log_ref, accept = jax.nn.log_softmax(jnp.log(jnp.array(config.ref))), jnp.array(config.accept)
    log_optimum = tilt(log_ref, jnp.array(config.reward), config.beta)
    log_lattice, along = jnp.log(triangle.interior(config.resolution)), jnp.linspace(0.0, 1.0, config.num_points)
    first, last = (condition(log_ref, jnp.arange(3) == outcome) for outcome in np.flatnonzero(config.accept))
    times = rz.log_times(config.first_time, config.end_time, config.num_times)
    return Results(
        optimum=jnp.exp(log_optimum),
        projection=jnp.exp(condition(log_ref, accept)),
        lattice=jnp.exp(log_lattice),
        lattice_drift=jax.jit(rz.drifts)(log_lattice[:, None], log_ref[None]),
        geodesics={
            FORWARD: jnp.exp(jax.jit(rz.m_geodesic)(log_ref, log_optimum, along)),
            REVERSE: jnp.exp(jax.jit(rz.e_geodesic)(log_ref, log_optimum, along)),
        },
        flows=triangle.flows(log_ref, log_optimum, accept, times),
        face=triangle.face(first, last, condition(log_ref, accept), log_ref, along),
        asymmetry=triangle.asymmetry(log_ref, config.small_radius, num_directions=config.num_directions),
        large_asymmetry=triangle.asymmetry(log_ref, config.large_radius, num_directions=config.num_directions),
    )


# One list: split, its argument would be harder to follow.
def claims(config: Config, results: Results) -> list[Claim]:
    """Straight lines, the razor's point, and Pythagoras."""
    center = np.eye(3) - 1 / 3  # log-probabilities up to a constant
    coordinates: dict[str, Callable[[Any], Any]] = {FORWARD: np.asarray, REVERSE: lambda p: np.log(p) @ center}
    reward, least, share = results.flows[REINFORCE], config.least_drift, config.top_share(results.projection)
    succeeds = reward.natural[-1] @ np.array(config.accept) > 1 - 1e-6
    half_step = 0.5 / (config.num_points - 1)  # of the face; by Pythagoras the excess is KL(p || projection) <= chi²
    return [
        *(
            Claim(
                id=f"{direction}-is-{line}",
                statement=f"The natural gradient flow of the {direction} KL runs along the {line}: largest distance "
                f"from the straight line in {space}.",
                source="Amari, Nagaoka 2000",
                expected=at_most(1e-6),
                measured=triangle.bend(coordinates[kl](results.flows[kl].natural)),
                control="the Euclidean flow on the logits",
                control_measured=triangle.bend(coordinates[kl](results.flows[kl].euclidean)),
            )
            for kl, direction, line, space in (
                (FORWARD, "forward", "m-geodesic", "probabilities"),
                (REVERSE, "reverse", "e-geodesic", "log-probabilities"),
            )
        ),
        Claim(
            id="flows-integrate",
            statement="The integrated natural flows agree with the closed forms: largest difference of a probability.",
            source="closed forms of `rlrazor.flows`",
            expected=at_most(1e-6),
            measured=max(np.abs(flow.natural - flow.closed_form).max() for flow in results.flows.values()),
            control="the Euclidean flows",
            control_measured=max(np.abs(flow.euclidean - flow.closed_form).max() for flow in results.flows.values()),
        ),
        Claim(
            id="razor",
            statement="The natural policy gradient ends at the reference conditioned on success: the likeliest "
            "success's share of the successes there.",
            source="RL's Razor, arXiv:2509.04259, Lemma 5.1",
            expected=near(share, 1e-6),
            measured=config.top_share(reward.natural[-1]) if succeeds else np.nan,
            control="plain (Euclidean) policy gradient, still moving",
            control_measured=config.top_share(reward.euclidean[-1]),
            note="Plain policy gradient conserves exp(-θ_i) - exp(-θ_j) of successes i, j and drifts to the likeliest.",
        ),
        Claim(
            id="least-kl",
            statement="No policy that always succeeds is closer to the reference than -log ref(S): least KL(p || "
            "ref) on the face, minus that.",
            source="RL's Razor, arXiv:2509.04259, Lemma 5.1",
            expected=near(0, half_step**2 / (share * (1 - share))),
            measured=results.face.reverse_drift.min() - least,
            control="where plain policy gradient is heading, the likeliest success alone",
            control_measured=-math.log(share),
        ),
        Claim(
            id="pythagoras",
            statement="KL(p || ref) = KL(p || ref(.|S)) + KL(ref(.|S) || ref) on the success face: largest defect.",
            source="Csiszár 1975",
            expected=at_most(1e-10),
            measured=np.abs(results.face.defect).max(),
            control="the middle of the face in place of the projection",
            control_measured=np.abs(results.face.middle_defect).max(),
        ),
        Claim(
            id="balls-agree-locally",
            statement="Small balls of both KL directions are the Fisher ball: largest |KL(p || ref) / KL(ref || p) - "
            f"1| at {config.small_radius:g} nats.",
            source="both have the Fisher metric as Hessian",
            expected=at_most(0.02),
            measured=results.asymmetry,
            control=f"at {config.large_radius:.3g} nats, just short of the likeliest outcome alone",
            control_measured=results.large_asymmetry,
        ),
    ]


def plot(config: Config, results: Results) -> Figure:
    """Balls, geodesics and flows, the razor, and Pythagoras."""
    figure, axes = panels([["balls", "flows"], ["razor", "pythagoras"]], height=6.6)
    for name in ("balls", "flows", "razor"):
        mark(draw_simplex(axes[name]), config.ref, "o", COLORS["ref"], r"$\pi_0$", (-4, 7))
    for ax, draw in zip(axes.values(), (draw_balls, draw_flows, draw_razor, draw_pythagoras), strict=True):
        draw(ax, config, results)
    return figure


def place(policies: Any) -> Any:
    """Where policies are in the triangle, x and y."""
    return points_of(np.asarray(policies)).T


def mark(ax: Axes, p: Any, marker: str, color: str, label: str, offset: tuple[int, int]) -> None:
    """A labelled point of the triangle."""
    x, y = place(p)
    ax.plot(x, y, marker, color=color, markersize=6, zorder=5)
    note(ax, label, (float(x), float(y)), xytext=offset, textcoords="offset points", zorder=6)


def draw_balls(ax: Axes, config: Config, results: Results) -> None:
    """Balls of both KL directions around the reference."""
    (x, y), drift = place(results.lattice), results.lattice_drift
    for values, name in ((drift.forward, "forward drift"), (drift.reverse, "reverse drift")):
        levels = [radius for radius in sorted(set(config.radii)) if values.min() < radius < values.max()]
        if levels:  # a ball may hold the whole triangle
            ax.tricontour(x, y, values, levels=levels, colors=COLORS[name], linewidths=1.1)
        key(ax, LABELS[name].removesuffix(" (nats)").replace(" KL", "\nKL"), color=COLORS[name])
    ax.set_title("balls of " + ", ".join(f"{radius:g}" for radius in sorted(set(config.radii))) + " nats")
    ax.legend(loc="upper left")


def draw_flows(ax: Axes, config: Config, results: Results) -> None:
    """Flows to the tilted optimum: natural along the geodesics, Euclidean elsewhere."""
    for name, geodesic in ((FORWARD, "m-geodesic"), (REVERSE, "e-geodesic")):
        flow, color = results.flows[name], COLORS[name]
        theory(ax, *place(results.geodesics[name]), color=color, label=geodesic)
        samples(ax, *place(flow.natural), color=color, label=f"natural, {LABELS[name]}")
        theory(ax, *place(flow.euclidean), color=color, linestyle=":", label=f"Euclidean, {LABELS[name]}")
    mark(ax, results.optimum, "*", COLORS["target"], r"$\pi_\star\propto\pi_0\,e^{r/\beta}$", (8, 4))
    bottom, top = ax.get_ylim()
    ax.set(ylim=(bottom - 0.2 * (top - bottom), top), title="two straight lines to the optimum")
    ax.legend(loc="lower center", ncols=2)


def draw_razor(ax: Axes, config: Config, results: Results) -> None:
    """The success face, the closest policy on it, and where the policy gradients go."""
    least, flow, drift = config.least_drift, results.flows[REINFORCE], results.lattice_drift.reverse
    color, face, plain = COLORS["reverse drift"], METHOD_STYLE[ORACLE_SFT].color, METHOD_STYLE[REINFORCE]
    if drift.min() < least < drift.max():
        x, y = place(results.lattice)
        ax.tricontour(x, y, drift, levels=[least], colors=color, linewidths=0.8)
    theory(ax, *place(results.face.policies), color=face, linewidth=2.5, label="always succeeds", zorder=2)
    theory(ax, *place(flow.closed_form), color=COLORS["exact"], label="natural gradient")
    samples(ax, *place(flow.natural), color=COLORS["exact"])
    theory(ax, *place(flow.euclidean), color=plain.color, linestyle=":", label=REINFORCE)
    key(ax, rf"KL$(\pi\Vert\pi_0)={least:.3f}$", color=color, linewidth=0.8)
    mark(ax, results.projection, "*", face, r"$\pi_0(\cdot\mid S)$", (7, 6))
    ax.set_title("RL's razor is a point")
    ax.legend(loc="upper left")


def draw_pythagoras(ax: Axes, config: Config, results: Results) -> None:
    """Both sides of Pythagoras' theorem along the face, and its defect."""
    face, least = results.face, config.least_drift
    share, both = config.top_share(face.policies), r"KL$(p\Vert\pi_0(\cdot|S))+$KL$(\pi_0(\cdot|S)\Vert\pi_0)$"
    theory(ax, share, face.reverse_drift - face.defect, color=METHOD_STYLE[ORACLE_SFT].color, label=both)
    samples(ax, share, face.reverse_drift, at_most=26, color=COLORS["reverse drift"], label=r"KL$(p\Vert\pi_0)$")
    dashed = {"color": COLORS["target"], "linestyle": "--", "label": "with the middle of the face instead"}
    theory(ax, share, face.reverse_drift - face.middle_defect, **dashed)
    ax.axhline(least, color=COLORS["ref"], linewidth=0.6, zorder=0)
    note(ax, r"$-\log\,\pi_0(S)$", (0.01, least), va="bottom", color=COLORS["ref"])
    low, high = ax.get_ylim()
    ax.set(xlabel="share of the likeliest success in $p$", ylabel="nats", ylim=(low, high + 0.35 * (high - low)))
    ax.set_title(f"Pythagoras on the face: defect ≤ {np.abs(face.defect).max():.0e}")
    ax.legend(loc="upper center")


def caption(config: Config, results: Results) -> Caption:
    """What a reader can quote."""
    closest, plain = map(config.top_share, (results.projection, results.flows[REINFORCE].euclidean[-1]))
    return Caption(
        "Small balls of both KL directions agree, and the natural flows of both lead to the optimum along straight "
        "lines, one in probabilities and one in log-probabilities. The closest policy that always succeeds, "
        f"{config.least_drift:.3f} nats away, is the reference conditioned on success, with {closest:.3f} on its "
        f"likeliest success; plain policy gradient has {plain:.3f} of its successes there at time {config.end_time:g}.",
        a="Balls of both KL directions around the reference.",
        b="Flows of either KL to the optimum: geodesics, integrated natural flows (points), Euclidean ones (dotted).",
        c="The policies that always succeed, the ball that touches them, and policy gradients; points are integrated.",
        d="Both sides of Pythagoras' theorem on the face, and its right side with another point as the projection.",
    )
