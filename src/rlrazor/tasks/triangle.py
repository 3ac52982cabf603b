"""Three outcomes, where every policy is a point of a triangle: its lattice, its success face, its KL balls, its flows.

Conventions as in `rlrazor.divergences`.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from rlrazor.divergences import kl_divergence
from rlrazor.flows import forward_kl_flow, gradient_flows, reverse_kl_flow, reward_flow
from rlrazor.geometry import m_geodesic
from rlrazor.methods import REINFORCE, Problem, exact_losses
from rlrazor.tilting import tilt_to_kl

Number = float | Float[Array, ""]
Policy = Float[Array, "3"]
Policies = Float[Array, "points 3"]
Points = Float[Array, " points"]

FORWARD, REVERSE = "forward KL", "reverse KL"


class Flow(NamedTuple):
    """The gradient flow of an objective, as probabilities.

    Attributes:
        closed_form: the natural flow, `[times, 3]`.
        natural: the same, integrated, `[times, 3]`.
        euclidean: on the logits, integrated, `[times, 3]`.
    """

    closed_form: Policies
    natural: Policies
    euclidean: Policies


class Face(NamedTuple):
    """The mixtures p of two policies, which for two corners are an edge of the triangle.

    Attributes:
        policies: as probabilities, `[points, 3]`.
        reverse_drift: KL(p || ref) in nats, `[points]`.
        defect: KL(p || ref) - KL(p || center) - KL(center || ref) with the given center, `[points]`.
        middle_defect: the same with the middle of the face as the center, `[points]`.
    """

    policies: Policies
    reverse_drift: Points
    defect: Points
    middle_defect: Points


def interior(resolution: int) -> Policies:
    """An even lattice of the triangle without its boundary, (i, j, k) / resolution with i + j + k = resolution.

    Args:
        resolution: intervals along each side, at least 3.

    Returns:
        Probabilities > 0, `[points, 3]`.

    Example:
        >>> interior(4).tolist()
        [[0.25, 0.25, 0.5], [0.5, 0.25, 0.25], [0.25, 0.5, 0.25]]
    """
    i, j = np.meshgrid(np.arange(1, resolution), np.arange(1, resolution))
    inside = i + j < resolution
    i, j = i[inside], j[inside]
    return jnp.array(np.stack([i, j, resolution - i - j], axis=-1) / resolution)


@jax.jit
def flows(log_ref: Policy, log_optimum: Policy, accept: Bool[Array, "3"], times: Points) -> dict[str, Flow]:
    """The flows of KL(optimum || policy) and KL(policy || optimum), and policy gradient on the success rate.

    Args:
        log_ref: where they start, `[3]`.
        log_optimum: where the first two end, `[3]`.
        accept: the success set, `[3]`.
        times: increasing times >= 0 to save at, `[times]`.

    Returns:
        The `Flow` by objective: forward KL, reverse KL and REINFORCE.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> log_ref, log_optimum = jnp.log(jnp.array([[0.3, 0.2, 0.5], [0.6, 0.3, 0.1]]))
        >>> paths = flows(log_ref, log_optimum, jnp.array([True, True, False]), jnp.array([0.0, 1.0]))
        >>> reverse = paths["reverse KL"]
        >>> bool(jnp.abs(reverse.natural - reverse.closed_form).max() < 1e-6)
        True
    """
    objectives = {
        FORWARD: lambda log_policy: kl_divergence(log_optimum, log_policy),
        REVERSE: lambda log_policy: kl_divergence(log_policy, log_optimum),
    } | exact_losses((REINFORCE,), Problem(log_ref, accept))
    closed_form = {
        FORWARD: forward_kl_flow(log_ref, log_optimum, times),
        REVERSE: reverse_kl_flow(log_ref, log_optimum, times),
        REINFORCE: reward_flow(log_ref, accept.astype(log_ref.dtype), times),
    }
    natural, euclidean = (gradient_flows(objectives, log_ref, times, natural=metric) for metric in (True, False))
    return {
        name: Flow(*map(jnp.exp, (closed_form[name], natural[name].log_policy, euclidean[name].log_policy)))
        for name in objectives
    }


@jax.jit
def face(log_first: Policy, log_last: Policy, log_center: Policy, log_ref: Policy, along: Points) -> Face:
    """The face between two policies, and how far Pythagoras' theorem fails on it with a policy as the projection.

    Args:
        log_first: one end, `[3]`.
        log_last: the other end, `[3]`.
        log_center: the projection of ref onto the face, or another policy on it, `[3]`.
        log_ref: the reference, `[3]`.
        along: places between the ends, in [0, 1], `[points]`.

    Returns:
        The `Face`.

    Example:
        >>> import jax.numpy as jnp
        >>> from rlrazor import condition
        >>> log_ref, ends = jnp.log(jnp.array([0.3, 0.1, 0.6])), jnp.log(jnp.eye(3))
        >>> log_center = condition(log_ref, jnp.array([True, True, False]))
        >>> edge = face(ends[0], ends[1], log_center, log_ref, jnp.linspace(0.0, 1.0, 5))
        >>> bool(jnp.abs(edge.defect).max() < 1e-12), bool(jnp.abs(edge.middle_defect).max() > 0.1)
        (True, True)

    References:
        Csiszár, "I-Divergence Geometry of Probability Distributions and Minimization Problems", 1975, theorem 2.2.
    """
    policies = m_geodesic(log_first, log_last, along)
    drift = kl_divergence(policies, log_ref)

    def defect(log_center: Policy) -> Points:
        return drift - kl_divergence(policies, log_center) - kl_divergence(log_center, log_ref)

    return Face(jnp.exp(policies), drift, defect(log_center), defect(m_geodesic(log_first, log_last, 0.5)))


@partial(jax.jit, static_argnames="num_directions")
def asymmetry(log_ref: Policy, radius: Number, *, num_directions: int) -> Float[Array, ""]:
    """Largest |KL(p || ref) / KL(ref || p) - 1| over tilts p of ref with KL(p || ref) = radius, in all directions.

    Args:
        log_ref: the reference, `[3]`.
        radius: of the ball, in nats.
        num_directions: of rewards, evenly spaced in the plane of those that sum to zero, static.

    Returns:
        The asymmetry, a scalar >= 0.

    Example:
        >>> import jax.numpy as jnp
        >>> log_ref = jnp.log(jnp.array([0.3, 0.1, 0.6]))
        >>> small, large = (asymmetry(log_ref, radius, num_directions=12) for radius in (1e-6, 0.1))
        >>> bool(small < 0.01), bool(large > 0.1)
        (True, True)
    """
    angles = jnp.linspace(0.0, 2 * jnp.pi, num_directions, endpoint=False)
    plane = jnp.array([[1.0, -1.0, 0.0], [1.0, 1.0, -2.0]]) / jnp.sqrt(jnp.array([[2.0], [6.0]]))
    directions = jnp.stack([jnp.cos(angles), jnp.sin(angles)], axis=-1) @ plane
    ball = tilt_to_kl(log_ref[None], directions, radius)
    return jnp.max(jnp.abs(ball.kl / kl_divergence(log_ref[None], ball.log_policy) - 1))


def bend(path: Float[np.ndarray | Array, "points coordinates"]) -> float:
    """Largest distance of a path from the straight line through its ends, in any coordinate.

    Args:
        path: `[points, coordinates]`, with different ends.

    Returns:
        The distance, >= 0.

    Example:
        >>> bend(np.array([[0.0, 0.0], [1.0, 1.0], [2.0, 0.0]]))
        1.0
    """
    path = np.asarray(path)
    start, chord = path[0], path[-1] - path[0]
    along = (path - start) @ chord / (chord @ chord)
    return float(np.abs(path - start - along[:, None] * chord).max())
