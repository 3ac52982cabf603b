"""Three outcomes, the whole theory in a triangle.

Around a reference, the balls of both KL directions agree while they are small and part as they grow. From it to the
reward-tilted optimum pi* lead two straight lines: the m-geodesic, straight in probabilities, which is the natural
gradient flow of the forward KL(pi* || pi), and the e-geodesic, straight in log-probabilities, which is that of the
reverse KL(pi || pi*). Euclidean gradients on the logits take neither.

The policies that always succeed form a face. The one closest to the reference in KL(pi || ref) is the reference
conditioned on success, its I-projection: RL's razor as a point (Shenfeld, Pari, Agrawal, arXiv:2509.04259). The natural
policy gradient ends there. The Euclidean one, which is plain policy gradient on a softmax table, drifts on to the
likeliest success. Pythagoras' theorem of KL holds on the face to rounding error.

About 15 seconds on two cores.
"""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

import rlrazor as rz
from experiments._harness import Claim, UserError, at_most, check_normalised, near, positive
from rlrazor.plotting import COLORS, FULL_WIDTH, draw_simplex, letter, simplex_points


@dataclass(frozen=True)
class Config:
    """The reference, the reward, and what counts as success."""

    ref: tuple[float, float, float] = positive((0.30, 0.12, 0.58))
    """Reference policy; sums to 1."""
    reward: tuple[float, float, float] = (0.0, 2.0, 0.5)
    """Reward of the tilted optimum."""
    beta: float = positive(0.5)
    """KL coefficient of the tilted optimum."""
    accept: tuple[bool, bool, bool] = (True, True, False)
    """Which outcomes succeed."""
    radii: tuple[float, ...] = positive((0.02, 0.1, 0.3, 0.7))
    """Radii of the KL balls, in nats."""
    end_time: float = positive(3000.0)
    """How long the flows run (rate times steps)."""
    num_times: int = 160
    """Saved times, log-spaced."""
    resolution: int = 240
    """Points along each side of the grid that the balls are drawn on."""

    def __post_init__(self) -> None:
        """The reference is normalised; some outcomes succeed and some do not."""
        check_normalised("ref", self.ref)
        if all(self.accept) or not any(self.accept):
            raise UserError(f"accept must hold both True and False, got {self.accept}")

    @classmethod
    def quick(cls) -> "Config":
        """Fewer times, a coarser grid."""
        return cls(num_times=60, resolution=100)


FLOWS = ("forward", "reverse", "reward")


class Results(NamedTuple):
    """Balls, geodesics, flows and the success face, as probabilities over three outcomes."""

    ref: np.ndarray  # [3]
    optimum: np.ndarray  # [3] pi*
    radii: np.ndarray  # [radii]
    lattice: np.ndarray  # [points, 3] interior of the simplex
    lattice_kl: np.ndarray  # [points] KL(p || ref)
    lattice_forward_kl: np.ndarray  # [points] KL(ref || p)
    m_geodesic: np.ndarray  # [times, 3]
    e_geodesic: np.ndarray  # [times, 3]
    closed_form: np.ndarray  # [flows, times, 3] natural flows
    natural: np.ndarray  # [flows, times, 3] integrated
    euclidean: np.ndarray  # [flows, times, 3] integrated
    projection: np.ndarray  # [3] ref conditioned on success
    face: np.ndarray  # [points, 3] policies that always succeed
    face_kl: np.ndarray  # [points] KL(p || ref)
    face_defect: np.ndarray  # [points] KL(p || ref) - KL(p || projection) - KL(projection || ref)
    wrong_defect: np.ndarray  # [points] the same with the face's midpoint as the projection
    small_ratio: np.ndarray  # [] largest |KL(p || ref) / KL(ref || p) - 1| at the radius 1e-5
    large_ratio: np.ndarray  # [] the same at the largest radius drawn


@partial(jax.jit, static_argnums=0)
def run(config: Config) -> Results:
    """All closed forms, and both flows of all three objectives."""
    log_ref = jax.nn.log_softmax(jnp.log(jnp.array(config.ref)))
    reward, accept = jnp.array(config.reward), jnp.array(config.accept)
    log_optimum = rz.tilt(log_ref, reward, config.beta)
    success = accept.astype(float)
    times = jnp.concatenate([jnp.zeros(1), jnp.geomspace(1e-2, config.end_time, config.num_times - 1)])

    def losses(log_policy: jax.Array) -> jax.Array:  # in the order of FLOWS
        forward_kl, reverse_kl = rz.kl_divergence(log_optimum, log_policy), rz.kl_divergence(log_policy, log_optimum)
        return jnp.stack([forward_kl, reverse_kl, -rz.expected_reward(log_policy, success)])

    closed_form = [
        rz.forward_kl_flow(log_ref, log_optimum, times),
        rz.reverse_kl_flow(log_ref, log_optimum, times),
        rz.reward_flow(log_ref, success, times),
    ]

    def flows(natural: bool) -> jax.Array:
        def one(choice: jax.Array) -> jax.Array:
            path = rz.gradient_flow(lambda policy: choice @ losses(policy), log_ref, times, natural=natural)
            return jnp.exp(path.log_policy)

        return jax.lax.map(one, jnp.eye(3))

    log_lattice = jnp.log(interior(config.resolution))
    log_projection = rz.condition(log_ref, accept)
    along = jnp.linspace(0.0, 1.0, 201)
    first, last = (rz.condition(log_ref, jnp.arange(3) == i) for i in np.flatnonzero(config.accept)[[0, -1]])
    log_face = rz.m_geodesic(first, last, along)
    log_middle = rz.m_geodesic(first, last, 0.5)

    def defect(log_centre: jax.Array) -> jax.Array:
        return (
            rz.kl_divergence(log_face, log_ref)
            - rz.kl_divergence(log_face, log_centre)
            - rz.kl_divergence(log_centre, log_ref)
        )

    unit = jnp.linspace(0.0, 1.0, 101)
    return Results(
        ref=jnp.exp(log_ref),
        optimum=jnp.exp(log_optimum),
        radii=jnp.array(config.radii),
        lattice=jnp.exp(log_lattice),
        lattice_kl=rz.kl_divergence(log_lattice, log_ref),
        lattice_forward_kl=rz.kl_divergence(log_ref, log_lattice),
        m_geodesic=jnp.exp(rz.m_geodesic(log_ref, log_optimum, unit)),
        e_geodesic=jnp.exp(rz.e_geodesic(log_ref, log_optimum, unit)),
        closed_form=jnp.exp(jnp.stack(closed_form)),
        natural=flows(natural=True),
        euclidean=flows(natural=False),
        projection=jnp.exp(log_projection),
        face=jnp.exp(log_face),
        face_kl=rz.kl_divergence(log_face, log_ref),
        face_defect=defect(log_projection),
        wrong_defect=defect(log_middle),
        small_ratio=asymmetry(log_ref, 1e-5),
        large_ratio=asymmetry(log_ref, max(config.radii)),
    )


def interior(resolution: int) -> jax.Array:
    """An even lattice of the simplex without its boundary, `[points, 3]`."""
    i, j = np.meshgrid(np.arange(1, resolution), np.arange(1, resolution))
    inside = i + j < resolution
    i, j = i[inside], j[inside]
    return jnp.array(np.stack([i, j, resolution - i - j], axis=-1) / resolution)


def asymmetry(log_ref: jax.Array, radius: float) -> jax.Array:
    """Largest |KL(p || ref) / KL(ref || p) - 1| over tilts p of ref with KL(p || ref) = radius, in all directions."""
    angles = jnp.linspace(0.0, 2 * jnp.pi, 48, endpoint=False)
    plane = jnp.array([[1.0, -1.0, 0.0], [1.0, 1.0, -2.0]]) / jnp.sqrt(jnp.array([[2.0], [6.0]]))
    directions = jnp.stack([jnp.cos(angles), jnp.sin(angles)], axis=-1) @ plane
    ball = rz.tilt_to_kl(log_ref, directions, jnp.minimum(radius, 0.99 * -jnp.max(log_ref)))
    return jnp.max(jnp.abs(ball.kl / rz.kl_divergence(log_ref, ball.log_policy) - 1))


def bend(path: np.ndarray) -> float:
    """Largest distance of a path from the straight line through its ends."""
    chord = path[-1] - path[0]
    along = (path - path[0]) @ chord / (chord @ chord)
    return float(np.abs(path - path[0] - along[:, None] * chord).max())


def claims(results: Results) -> list[Claim]:
    """Straight lines, the razor's point, and Pythagoras."""
    log_natural, log_euclidean = (np.log(flow[1]) for flow in (results.natural, results.euclidean))
    centre = np.eye(3) - 1 / 3  # log-probabilities up to a constant
    ends = results.natural[2, -1], results.euclidean[2, -1]
    least = -np.log(results.ref @ (results.projection > 0))
    share = results.projection.max()

    def top_share(policy: np.ndarray) -> float:
        return policy.max() / (policy @ (results.projection > 0))

    return [
        Claim(
            id="forward-is-m-geodesic",
            statement="The natural gradient flow of the forward KL runs along the m-geodesic: largest distance from "
            "the straight line in probabilities.",
            source="Amari, Nagaoka 2000",
            expected=at_most(1e-6),
            measured=bend(results.natural[0]),
            control="the Euclidean flow on the logits",
            control_measured=bend(results.euclidean[0]),
        ),
        Claim(
            id="reverse-is-e-geodesic",
            statement="The natural gradient flow of the reverse KL runs along the e-geodesic: largest distance from "
            "the straight line in log-probabilities.",
            source="Amari, Nagaoka 2000",
            expected=at_most(1e-6),
            measured=bend(log_natural @ centre),
            control="the Euclidean flow on the logits",
            control_measured=bend(log_euclidean @ centre),
        ),
        Claim(
            id="flows-integrate",
            statement="The integrated natural flows agree with the closed forms: largest difference of a probability.",
            source="closed forms of `rlrazor.flows`",
            expected=at_most(1e-6),
            measured=np.abs(results.natural - results.closed_form).max(),
            control="the Euclidean flows",
            control_measured=np.abs(results.euclidean - results.closed_form).max(),
        ),
        Claim(
            id="razor",
            statement="The natural policy gradient ends at the reference conditioned on success: the likeliest "
            "success's share of the successes there.",
            source="RL's Razor, arXiv:2509.04259, Lemma 5.1",
            expected=near(share, 1e-6),
            measured=top_share(ends[0]),
            control="plain (Euclidean) policy gradient, still moving",
            control_measured=top_share(ends[1]),
            note="Plain policy gradient conserves exp(-θ_i) - exp(-θ_j) inside the success set and so drifts on to its "
            "likeliest member.",
        ),
        Claim(
            id="least-kl",
            statement="No policy that always succeeds is closer to the reference than -log ref(S): least KL(p || "
            "ref) on the face, minus that.",
            source="RL's Razor, arXiv:2509.04259, Lemma 5.1",
            expected=near(0, 1e-4),
            measured=results.face_kl.min() - least,
            control="where plain policy gradient is heading, the likeliest success alone",
            control_measured=-np.log(results.ref[results.projection.argmax()]) - least,
        ),
        Claim(
            id="pythagoras",
            statement="KL(p || ref) = KL(p || ref(.|S)) + KL(ref(.|S) || ref) on the success face: largest defect.",
            source="Csiszár 1975",
            expected=at_most(1e-10),
            measured=np.abs(results.face_defect).max(),
            control="the middle of the face in place of the projection",
            control_measured=np.abs(results.wrong_defect).max(),
        ),
        Claim(
            id="balls-agree-locally",
            statement="Small balls of both KL directions are the Fisher ball: largest |KL(p || ref) / KL(ref || p) - "
            "1| at 1e-5 nats.",
            source="both have the Fisher metric as Hessian",
            expected=at_most(0.02),
            measured=float(results.small_ratio),
            control="the largest ball that is attainable in every direction",
            control_measured=float(results.large_ratio),
        ),
    ]


def plot(results: Results) -> Figure:
    """Balls, geodesics and flows, the razor, and Pythagoras."""
    figure, axes = plt.subplots(2, 2, figsize=(FULL_WIDTH, 6.6))
    for ax in axes.flat[:3]:
        draw_simplex(ax)
        mark(ax, results.ref, "o", COLORS["ref"], r"$\pi_0$", (-4, 7))
    draw_balls(axes[0, 0], results)
    draw_flows(axes[0, 1], results)
    draw_razor(axes[1, 0], results)
    draw_pythagoras(axes[1, 1], results)
    for ax, text in zip(axes.flat, "abcd", strict=True):
        letter(ax, text)
    return figure


def mark(ax: plt.Axes, p: np.ndarray, marker: str, color: str, label: str, offset: tuple[int, int]) -> None:
    """A labelled point of the triangle."""
    x, y = simplex_points(p)
    ax.plot(x, y, marker, color=color, markersize=6, zorder=5)
    ax.annotate(label, (x, y), xytext=offset, textcoords="offset points", fontsize=7.5, zorder=6)


def draw_balls(ax: plt.Axes, results: Results) -> None:
    """Balls of both KL directions around the reference."""
    x, y = simplex_points(results.lattice).T
    for values, color, label in (
        (results.lattice_forward_kl, "forward", r"KL$(\pi_0\Vert\pi)$"),
        (results.lattice_kl, "reverse", r"KL$(\pi\Vert\pi_0)$"),
    ):
        ax.tricontour(x, y, values, levels=results.radii, colors=COLORS[color], linewidths=1.1)
        ax.plot([], [], color=COLORS[color], label=label)
    ax.set_title("balls of " + ", ".join(f"{radius:g}" for radius in results.radii) + " nats")
    ax.legend(loc="upper left")


def draw_flows(ax: plt.Axes, results: Results) -> None:
    """Flows to the tilted optimum: natural along the geodesics, Euclidean elsewhere."""
    for row, color, curve, name in (
        (0, "forward", results.m_geodesic, r"KL$(\pi_\star\Vert\pi)$"),
        (1, "reverse", results.e_geodesic, r"KL$(\pi\Vert\pi_\star)$"),
    ):
        geodesic = "m" if row == 0 else "e"
        ax.plot(*simplex_points(curve).T, color=COLORS[color], label=f"{geodesic}-geodesic")
        every = max(len(results.natural[row]) // 40, 1)
        ax.plot(
            *simplex_points(results.natural[row, ::every]).T,
            "o",
            color=COLORS[color],
            markersize=2.5,
            label=f"natural, {name}",
        )
        ax.plot(*simplex_points(results.euclidean[row]).T, ":", color=COLORS[color], label=f"Euclidean, {name}")
    mark(ax, results.optimum, "*", COLORS["target"], r"$\pi_\star\propto\pi_0\,e^{r/\beta}$", (8, 4))
    ax.set(ylim=(-0.32, 0.98), title="two straight lines to the optimum")
    ax.legend(loc="lower center", ncols=2)


def draw_razor(ax: plt.Axes, results: Results) -> None:
    """The success face, the closest policy on it, and where the policy gradients go."""
    x, y = simplex_points(results.lattice).T
    least = -np.log(results.ref @ (results.projection > 0))
    ax.tricontour(x, y, results.lattice_kl, levels=[least], colors=COLORS["reverse"], linewidths=0.7, alpha=0.7)
    ax.plot(*simplex_points(results.face).T, color=COLORS["oracle"], linewidth=2.5, label="always succeeds", zorder=2)
    ax.plot(*simplex_points(results.closed_form[2]).T, color=COLORS["reverse"], label="natural policy gradient")
    ax.plot(*simplex_points(results.natural[2, ::4]).T, "o", color=COLORS["reverse"], markersize=2.5)
    ax.plot(*simplex_points(results.euclidean[2]).T, ":", color=COLORS["reverse"], label="plain policy gradient")
    ax.plot([], [], color=COLORS["reverse"], linewidth=0.7, alpha=0.7, label=rf"KL$(\pi\Vert\pi_0)={least:.3f}$")
    mark(ax, results.projection, "*", COLORS["oracle"], r"$\pi_0(\cdot\mid S)$", (7, 6))
    ax.set_title("RL's razor is a point")
    ax.legend(loc="upper left")


def draw_pythagoras(ax: plt.Axes, results: Results) -> None:
    """Both sides of Pythagoras' theorem along the face, and its defect."""
    share = results.face @ (results.projection == results.projection.max())
    least = -np.log(results.ref @ (results.projection > 0))
    every = slice(None, None, 8)
    ax.plot(
        share,
        results.face_kl - results.face_defect,
        color=COLORS["oracle"],
        label=r"KL$(p\Vert\pi_0(\cdot|S))+$KL$(\pi_0(\cdot|S)\Vert\pi_0)$",
    )
    ax.plot(share[every], results.face_kl[every], "o", color=COLORS["reverse"], label=r"KL$(p\Vert\pi_0)$")
    ax.plot(
        share,
        results.face_kl - results.wrong_defect,
        "--",
        color=COLORS["ref"],
        label="with the middle of the face instead",
    )
    ax.axhline(least, color=COLORS["ref"], linewidth=0.6, zorder=0)
    ax.annotate(r"$-\log\,\pi_0(S)$", (0.01, least), va="bottom", color=COLORS["ref"], fontsize=6.5)
    ax.set(xlabel="share of the likeliest success in $p$", ylabel="nats", ylim=(0.6, 3.3))
    ax.set_title(f"Pythagoras on the face: defect ≤ {np.abs(results.face_defect).max():.0e}")
    ax.legend(loc="upper center")
