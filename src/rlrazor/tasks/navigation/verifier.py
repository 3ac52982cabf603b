"""The verifier that keeps a walker on its rails: rewards, retries and the published scores, simulated and exact.

A right action advances. A wrong one leaves the walker where it is, with another attempt, until the attempts of that
state are used up; the call after that ends the route. (LeslieTrue/SFTvsRL, the code of arXiv:2501.17161.)
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from rlrazor._numerics import uniform

RIGHT, WRONG, WRONG_AND_MISREAD, EXHAUSTED = 1.0, -1.0, -1.5, -1.0  # rewards
ATTEMPTS = 2  # at every state, as published


class Episode(NamedTuple):
    """Where walkers are.

    Attributes:
        step: index of the expert's state, `[...]`.
        failures: wrong actions at it, `[...]`.
        done: whether the route has ended, arrived or not, `[...]`.
    """

    step: Int[Array, "*batch"]
    failures: Int[Array, "*batch"]
    done: Bool[Array, "*batch"]


class Verdict(NamedTuple):
    """What the verifier says of a call.

    Attributes:
        reward: in {1, -1, -1.5}, 0 after the end, `[...]`.
        right: whether the walker advanced, `[...]`.
        counted: whether the call was made before the end, `[...]`.
    """

    reward: Float[Array, "*batch"]
    right: Bool[Array, "*batch"]
    counted: Bool[Array, "*batch"]


class Scores(NamedTuple):
    """How well walkers do; every field a scalar in [0, 1], or one for each policy, `[...]`.

    Attributes:
        per_step: the published accuracy: right actions over calls, where retries and the call that ends a route count.
        teacher_forced: share of right first actions over all states of the expert, reached or not.
        arrived: share of routes that are walked to the end.
    """

    per_step: Float[Array, "*batch"]
    teacher_forced: Float[Array, "*batch"]
    arrived: Float[Array, "*batch"]


def start_episode(num_routes: int) -> Episode:
    """All walkers at their first state.

    Args:
        num_routes: static.

    Returns:
        The `Episode`.

    Example:
        >>> int(start_episode(3).step.sum())
        0
    """
    zeros = jnp.zeros(num_routes, int)
    return Episode(zeros, zeros, jnp.zeros(num_routes, bool))


def verify(
    episode: Episode,
    action: Int[Array, "*batch"],
    expert: Int[Array, "*batch steps"],
    valid: Bool[Array, "*batch steps"],
    misread: Bool[Array, "*batch"] | bool = False,
    *,
    attempts: int = ATTEMPTS,
) -> tuple[Episode, Verdict]:
    """One call of every walker.

    Args:
        episode: where they are.
        action: what they do, `[...]`.
        expert: the right action at every state, `[..., steps]`.
        valid: whether there is such a state, `[..., steps]`.
        misread: whether the answer errs about being at a crossing, which costs half a point more if the action is
            wrong, and nothing if it is right, `[...]`.
        attempts: at every state, static.

    Returns:
        Where they are then, and the `Verdict`.

    Raises:
        ValueError: fewer than 1 attempt.

    Example:
        >>> import jax.numpy as jnp
        >>> expert, valid = jnp.array([[2, 0, 1]]), jnp.array([[True, True, True]])
        >>> episode, total = start_episode(1), 0.0
        >>> for action in (2, 1, 0, 1):  # one retry
        ...     episode, verdict = verify(episode, jnp.array([action]), expert, valid)
        ...     total += float(verdict.reward[0])
        >>> bool(episode.done[0]), total
        (True, 2.0)
    """
    if attempts < 1:
        raise ValueError(f"attempts must be at least 1, got {attempts}")
    counted, exhausted = ~episode.done, episode.failures >= attempts
    wanted = jnp.take_along_axis(expert, episode.step[..., None], axis=-1)[..., 0]
    right = counted & ~exhausted & (action == wanted)
    reward = jnp.where(right, RIGHT, jnp.where(misread, WRONG_AND_MISREAD, WRONG))
    reward = jnp.where(counted, jnp.where(exhausted, EXHAUSTED, reward), 0.0)
    arrived = right & (episode.step + 1 >= valid.sum(-1))
    advanced = Episode(
        step=jnp.where(right & ~arrived, episode.step + 1, episode.step),
        failures=jnp.where(right, 0, jnp.where(counted & ~exhausted, episode.failures + 1, episode.failures)),
        done=episode.done | arrived | (counted & exhausted),
    )
    return advanced, Verdict(reward, right, counted)


def exact_scores(
    success: Float[Array, "*batch routes steps"],
    valid: Bool[Array, "routes steps"],
    attempts: int = ATTEMPTS,
) -> Scores:
    """The scores in expectation over the policy's answers, retries being independent of the answers before.

    With q_t the probability of the right action at state t of a route, a state is passed with probability
    s_t = 1 - (1 - q_t)^V, reached with r_t = Π_{u<t} s_u, and costs Σ_{j=0}^{V} (1 - q_t)^j calls, the one that ends
    the route among them. The published accuracy is Σ r_t s_t over the expected calls, summed over routes.

    Args:
        success: q, `[..., routes, steps]`.
        valid: whether there is such a state, `[routes, steps]`.
        attempts: V, at least 1, static.

    Returns:
        The `Scores`, each `[...]`.

    Raises:
        ValueError: fewer than 1 attempt.

    Example:
        >>> import jax.numpy as jnp
        >>> always_forward = jnp.array([[0.0, 1.0, 1.0, 0.0, 1.0, 0.0]])  # never a turn, never a stop
        >>> scores = exact_scores(always_forward, jnp.ones((1, 6), bool))
        >>> print(f"{scores.per_step:.2f} per step, {scores.teacher_forced:.2f} at the expert's states")
        0.00 per step, 0.50 at the expert's states
    """
    if attempts < 1:
        raise ValueError(f"attempts must be at least 1, got {attempts}")
    fail = 1 - success
    passed = jnp.where(valid, 1 - fail**attempts, 1.0)
    after = jnp.cumprod(passed, axis=-1)
    reached = jnp.where(valid, jnp.concatenate([jnp.ones_like(after[..., :1]), after[..., :-1]], axis=-1), 0.0)
    calls = reached * sum(fail**attempt for attempt in range(attempts + 1))
    num_states = valid.sum().astype(success.dtype)
    return Scores(
        per_step=(reached * passed).sum((-2, -1)) / calls.sum((-2, -1)),
        teacher_forced=jnp.where(valid, success, 0.0).sum((-2, -1)) / num_states,
        arrived=after[..., -1].mean(-1),
    )


def simulate(
    success: Float[Array, "routes steps"],
    valid: Bool[Array, "routes steps"],
    key: Key[Array, ""],
    *,
    attempts: int = ATTEMPTS,
) -> Verdict:
    """Walk every route once, with a policy that is right with the given probabilities.

    Args:
        success: probability of the right action at every state, `[routes, steps]`.
        valid: whether there is such a state, `[routes, steps]`.
        key: randomness.
        attempts: at every state, static.

    Returns:
        The `Verdict` on every call, `[routes, calls]`, with calls = steps * attempts + 1.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> calls = simulate(jnp.full((1000, 6), 0.8), jnp.ones((1000, 6), bool), jax.random.key(0))
        >>> scores = exact_scores(jnp.full((1, 6), 0.8), jnp.ones((1, 6), bool))
        >>> bool(abs(calls.right.sum() / calls.counted.sum() - scores.per_step) < 0.02)
        True
    """
    num_routes, num_steps = success.shape
    expert = jnp.zeros((num_routes, num_steps), int)  # 0 is right, 1 wrong

    def call(episode: Episode, key: Key[Array, ""]) -> tuple[Episode, Verdict]:
        chance = jnp.take_along_axis(success, episode.step[:, None], axis=-1)[:, 0]
        action = (uniform(key, (num_routes,), success.dtype) >= chance).astype(int)
        return verify(episode, action, expert, valid, attempts=attempts)

    keys = jax.random.split(key, num_steps * attempts + 1)
    _, verdicts = jax.lax.scan(call, start_episode(num_routes), keys)
    by_route: Verdict = jax.tree.map(jnp.transpose, verdicts)
    return by_route
