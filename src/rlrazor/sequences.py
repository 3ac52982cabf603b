"""Answers made of tokens, exactly: token-level worlds as finite automata, by dynamic programming.

A world reads a token and moves to its next state; an answer ends in a state that is marked as ended, or at the horizon.
A policy gives a distribution over tokens in each state, `[states, tokens]`, or in each state at each step,
`[horizon, states, tokens]`. What would be a sum over all answers is a recursion over states: the optimum under a KL
penalty, which is token by token what `tilt` is for whole answers; expected rewards; the KL between answers, which is
the sum of the token KLs that are met on the way. All of it is differentiable, so `jax.grad` gives exact gradients on
answers, of which there may be more than atoms.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, Shaped

from rlrazor._numerics import log_normalize, log_sum, mass_times, uniform
from rlrazor._types import Number, Scalar
from rlrazor.checks import boolean_array, floating_array, integer_array, outcome_arrays, positive, whole_as
from rlrazor.divergences import kl_divergence
from rlrazor.policies import inverse_cdf

PerState = Float[Array, " states"]
StateValues = Shaped[Array, " states"]
TokenPolicy = Float[Array, "states tokens"] | Float[Array, "horizon states tokens"]
TokenValues = Shaped[Array, "states tokens"] | Shaped[Array, "horizon states tokens"]
Tokens = Int[Array, "*batch horizon"]
_MOST_ANSWERS = 1_000_000


class Automaton(NamedTuple):
    """A world of tokens; make it with `automaton`, which checks it.

    Attributes:
        next_state: where each token leads from each state, `[states, tokens]`; an ended state leads to itself.
        ended: in which states an answer is complete, `[states]`.
        start: the state in which answers begin.
    """

    next_state: Int[Array, "states tokens"]
    ended: Bool[Array, " states"]
    start: Int[Array, ""]


class TokenTilt(NamedTuple):
    """The optimum of E[reward] - beta KL(policy || ref) over policies of tokens.

    Attributes:
        log_policy: at each step, `[horizon, states, tokens]`; ref in ended states.
        log_partition: the log of E_ref[exp(reward still to come / beta)] at each step, `[horizon + 1, states]`.
    """

    log_policy: Float[Array, "horizon states tokens"]
    log_partition: Float[Array, "steps states"]


def automaton(
    next_state: Int[Array, "states tokens"], ended: Bool[Array, " states"] | None = None, start: int = 0
) -> Automaton:
    """A world of tokens from its table.

    Args:
        next_state: where each token leads from each state, integers in [0, states), `[states, tokens]`.
        ended: in which states an answer is complete, `[states]`; whatever the table says there, they lead to
            themselves. None of them unless given: then every answer is as long as the horizon.
        start: the state in which answers begin.

    Returns:
        The `Automaton`.

    Raises:
        TypeError: `next_state` is not of an integer dtype, or `ended` is not boolean.
        ValueError: a shape does not fit, a state is missing, or answers begin in an ended state. The check looks at
            values, so call it outside `jit`.

    Example:
        >>> import jax.numpy as jnp
        >>> world = automaton(jnp.array([[0, 1], [0, 0]]), ended=jnp.array([False, True]))  # token 1 ends an answer
        >>> world.next_state.tolist()
        [[0, 1], [1, 1]]
    """
    table = np.asarray(integer_array("next_state", next_state))
    if table.ndim != 2 or 0 in table.shape:
        raise ValueError(f"next_state must be [states, tokens] with at least one of each, got shape {table.shape}")
    states = table.shape[0]
    over = np.zeros(states, bool) if ended is None else np.asarray(boolean_array("ended", ended))
    if over.shape != (states,):
        raise ValueError(f"ended must be [states], {(states,)} for next_state {table.shape}, got shape {over.shape}")
    table = np.where(over[:, None], np.arange(states)[:, None], table)
    missing = np.argwhere((table < 0) | (table >= states))
    if missing.size:
        state, token = missing[0]
        raise ValueError(
            f"next_state must lead to one of {states} states, but token {token} leads from state {state} to "
            f"{table[state, token]}"
        )
    if not 0 <= start < states or over[start]:
        raise ValueError(f"start must be a state of {states} in which no answer has ended, got {start}")
    return Automaton(jnp.asarray(table), jnp.asarray(over), jnp.asarray(start))


def tilt_tokens(
    world: Automaton,
    log_ref: TokenPolicy,
    reward: TokenValues,
    beta: Number,
    horizon: int,
    final_reward: StateValues | None = None,
) -> TokenTilt:
    """The policy of tokens that maximises E[Σ_t reward(s_t, y_t) + final_reward(s_T)] - beta KL(policy || ref).

    Backwards from the horizon,

        log Z_t(s) = log Σ_y ref(y | s) exp(reward(s, y) / beta) Z_{t+1}(next(s, y)),
        policy_t(y | s) = ref(y | s) exp(reward(s, y) / beta) Z_{t+1}(next(s, y)) / Z_t(s).

    Its distribution of answers is the tilt of the reference's by the summed reward.

    Args:
        world: the automaton.
        log_ref: log-probabilities of tokens, `[states, tokens]` or `[horizon, states, tokens]`.
        reward: of each token, the same shapes.
        beta: the KL coefficient > 0; inf leaves the reference.
        horizon: the most tokens of an answer, static.
        final_reward: of the state in which an answer ends, or is cut off, `[states]`; none unless given.

    Returns:
        The `TokenTilt`; `beta * log_partition[0, start]` is the value of the optimum.

    Raises:
        TypeError: an array is not floating.
        ValueError: a shape does not fit the world, `horizon` is below 1, or a Python `beta` is not above 0.

    Example:
        >>> import jax.numpy as jnp
        >>> world = automaton(jnp.array([[0, 1], [1, 1]]), ended=jnp.array([False, True]))
        >>> log_ref, pay = jnp.log(jnp.full((2, 2), 0.5)), jnp.array([[1.0, 0.0], [0.0, 0.0]])  # a nat a token
        >>> found = tilt_tokens(world, log_ref, pay, beta=1.0, horizon=2)
        >>> print(*(f"{p:.3f}" for p in jnp.exp(found.log_policy[:, 0, 0])))
        0.835 0.731

    References:
        Todorov, "Linearly-solvable Markov decision problems", 2006; Ziebart, "Modeling Purposeful Adaptive Behavior
        with the Principle of Maximum Causal Entropy", 2010.
    """
    positive("beta", beta)
    dtype = floating_array("log_ref", log_ref).dtype
    steps, beta = _steps(world, horizon, log_ref=log_ref, reward=whole_as(dtype, reward)), jnp.asarray(beta, dtype)
    last = _per_state(world, "final_reward", final_reward, dtype) / beta

    def step(log_z: PerState, at: Any) -> tuple[PerState, tuple[Float[Array, "states tokens"], PerState]]:
        log_ref, reward = steps.at(at)
        possible = log_ref != -jnp.inf
        gain = jnp.where(possible, reward / beta + log_z[world.next_state], 0.0)
        weights = jnp.where(possible, log_ref + gain, -jnp.inf)
        now = jnp.where(world.ended, log_z, log_sum(weights))
        return now, (jnp.where(world.ended[:, None], log_ref, log_normalize(weights)), now)

    _, (log_policy, log_z) = jax.lax.scan(step, last, steps.changing, length=horizon, reverse=True)
    return TokenTilt(log_policy, jnp.concatenate([log_z, last[None]]))


def expected_sum(
    world: Automaton,
    log_policy: TokenPolicy,
    values: TokenValues,
    horizon: int,
    final_values: StateValues | None = None,
) -> Scalar:
    """E_policy[Σ_t values(s_t, y_t) + final_values(s_T)] over the tokens of an answer, such as its reward or length.

    Args:
        world: the automaton.
        log_policy: log-probabilities of tokens, `[states, tokens]` or `[horizon, states, tokens]`.
        values: of each token, the same shapes; a token after the end of an answer does not count.
        horizon: the most tokens of an answer, static.
        final_values: of the state in which an answer ends, or is cut off, `[states]`; none unless given.

    Returns:
        Scalar; a value of a token that cannot be taken does not count, whatever it is.

    Raises:
        TypeError, ValueError: as in `tilt_tokens`.

    Example:
        >>> import jax.numpy as jnp
        >>> world = automaton(jnp.array([[0, 1], [1, 1]]), ended=jnp.array([False, True]))
        >>> log_policy = jnp.log(jnp.full((2, 2), 0.5))
        >>> print(f"{expected_sum(world, log_policy, jnp.ones((2, 2)), horizon=50):.4f} tokens")
        2.0000 tokens
    """
    dtype = floating_array("log_policy", log_policy).dtype
    steps = _steps(world, horizon, log_policy=log_policy, values=whole_as(dtype, values))
    last = _per_state(world, "final_values", final_values, dtype)

    def step(later: PerState, at: Any) -> tuple[PerState, None]:
        log_policy, values = steps.at(at)
        sums = mass_times(log_policy, values + later[world.next_state]).sum(-1)
        return jnp.where(world.ended, later, sums), None

    first: PerState = jax.lax.scan(step, last, steps.changing, length=horizon, reverse=True)[0]
    return first[world.start]


def sequence_kl(world: Automaton, log_p: TokenPolicy, log_q: TokenPolicy, horizon: int) -> Scalar:
    """The KL divergence between the answers of two policies: Σ_t E_p[KL(p(. | s_t) || q(. | s_t))].

    Args:
        world: the automaton.
        log_p: log-probabilities of tokens, `[states, tokens]` or `[horizon, states, tokens]`.
        log_q: the same.
        horizon: the most tokens of an answer, static.

    Returns:
        Nats, in [0, inf]; inf where p gives an answer that q excludes.

    Raises:
        TypeError, ValueError: as in `tilt_tokens`.

    Example:
        >>> import jax.numpy as jnp
        >>> world = automaton(jnp.zeros((1, 2), int))
        >>> log_p, log_q = jnp.log(jnp.array([[[0.5, 0.5]], [[0.9, 0.1]]]))
        >>> print(f"{sequence_kl(world, log_p, log_q, horizon=256):.2f} nats")
        130.77 nats

    References:
        Cover, Thomas, "Elements of Information Theory", theorem 2.5.3 (the chain rule).
    """
    _steps(world, horizon, log_p=log_p, log_q=log_q)
    kl = kl_divergence(log_p, log_q)[..., None]
    return expected_sum(world, log_p, jnp.broadcast_to(kl, (*kl.shape[:-1], log_p.shape[-1])), horizon)


def occupancy(world: Automaton, log_policy: TokenPolicy, horizon: int) -> Float[Array, "steps states"]:
    """The probability of being in each state after each number of tokens.

    Args:
        world: the automaton.
        log_policy: log-probabilities of tokens, `[states, tokens]` or `[horizon, states, tokens]`.
        horizon: the most tokens of an answer, static.

    Returns:
        Probabilities, `[horizon + 1, states]`.

    Raises:
        TypeError, ValueError: as in `tilt_tokens`.

    Example:
        >>> import jax.numpy as jnp
        >>> world = automaton(jnp.array([[0, 1], [1, 1]]), ended=jnp.array([False, True]))
        >>> occupancy(world, jnp.log(jnp.full((2, 2), 0.5)), horizon=2).tolist()
        [[1.0, 0.0], [0.5, 0.5], [0.25, 0.75]]
    """
    steps = _steps(world, horizon, log_policy=log_policy)
    first = (jnp.arange(len(world.ended)) == world.start).astype(log_policy.dtype)

    def step(here: PerState, at: Any) -> tuple[PerState, PerState]:
        (log_policy,) = steps.at(at)
        moving = jnp.where(world.ended, 0.0, here)[:, None] * jnp.exp(log_policy)
        there = jnp.zeros_like(here).at[world.next_state].add(moving)
        now = there + jnp.where(world.ended, here, 0.0)
        return now, now

    _, after = jax.lax.scan(step, first, steps.changing, length=horizon)
    return jnp.concatenate([first[None], after])


def states_of(world: Automaton, tokens: Tokens) -> Int[Array, "*batch steps"]:
    """The states that answers pass through.

    Args:
        world: the automaton.
        tokens: in [0, tokens), `[..., horizon]`; those after the end of an answer are padding.

    Returns:
        States, `[..., horizon + 1]`, from the start on; `world.ended[states[..., :-1]]` are the places of padding.

    Raises:
        TypeError: `tokens` is not of an integer dtype.

    Example:
        >>> import jax.numpy as jnp
        >>> world = automaton(jnp.array([[0, 1], [1, 1]]), ended=jnp.array([False, True]))
        >>> states_of(world, jnp.array([[0, 1, 0], [1, 0, 0]])).tolist()
        [[0, 0, 1, 1], [0, 1, 1, 1]]
    """
    index = integer_array("tokens", tokens)

    def step(state: Int[Array, "*batch"], token: Int[Array, "*batch"]) -> tuple[Any, Any]:
        following = world.next_state[state, token]
        return following, following

    first = jnp.full(index.shape[:-1], world.start, world.next_state.dtype)
    _, after = jax.lax.scan(step, first, jnp.moveaxis(index, -1, 0))
    return jnp.concatenate([first[..., None], jnp.moveaxis(after, 0, -1)], axis=-1)


def answer_log_prob(world: Automaton, log_policy: TokenPolicy, tokens: Tokens) -> Float[Array, "*batch"]:
    """The log-probability of answers: Σ_t log policy(y_t | s_t) over the tokens up to the end.

    Args:
        world: the automaton.
        log_policy: log-probabilities of tokens, `[states, tokens]` or `[horizon, states, tokens]`.
        tokens: in [0, tokens), `[..., horizon]`; those after the end of an answer are padding.

    Returns:
        Log-probabilities, `[...]`; NaN where a token that counts is out of range.

    Raises:
        TypeError, ValueError: as in `tilt_tokens`.

    Example:
        >>> import jax.numpy as jnp
        >>> world = automaton(jnp.array([[0, 1], [1, 1]]), ended=jnp.array([False, True]))
        >>> log_policy = jnp.log(jnp.full((2, 2), 0.5))
        >>> print(*(f"{p:.3f}" for p in jnp.exp(answer_log_prob(world, log_policy, jnp.array([[0, 1, 0], [1, 0, 0]])))))
        0.250 0.500
    """
    horizon = jnp.shape(tokens)[-1]
    _steps(world, horizon, log_policy=log_policy)
    known = (tokens >= 0) & (tokens < log_policy.shape[-1])
    tokens = jnp.where(known, tokens, 0)
    states = states_of(world, tokens)[..., :-1]
    where = (states, tokens) if log_policy.ndim == 2 else (jnp.arange(horizon), states, tokens)
    each = jnp.where(known, log_policy[where], jnp.nan)
    return jnp.where(world.ended[states], 0.0, each).sum(-1)


def sample_answers(
    key: Key[Array, ""], world: Automaton, log_policy: TokenPolicy, horizon: int, num: int
) -> Int[Array, "num horizon"]:
    """Answers of a policy.

    Args:
        key: of the randomness.
        world: the automaton.
        log_policy: log-probabilities of tokens, `[states, tokens]` or `[horizon, states, tokens]`.
        horizon: the most tokens of an answer, static.
        num: how many answers, static.

    Returns:
        Tokens, `[num, horizon]`, 0 after the end of an answer.

    Raises:
        TypeError, ValueError: as in `tilt_tokens`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> world = automaton(jnp.array([[0, 1], [1, 1]]), ended=jnp.array([False, True]))
        >>> log_policy = jnp.log(jnp.array([[0.0, 1.0], [0.5, 0.5]]))
        >>> sample_answers(jax.random.key(0), world, log_policy, horizon=3, num=2).tolist()
        [[1, 0, 0], [1, 0, 0]]
    """
    steps = _steps(world, horizon, log_policy=log_policy)
    quantiles = uniform(key, (horizon, num), log_policy.dtype)

    def step(state: Int[Array, " num"], at: Any) -> tuple[Int[Array, " num"], Int[Array, " num"]]:
        changing, quantile = at
        (log_policy,) = steps.at(changing)
        drawn = inverse_cdf(log_policy[state], quantile[:, None])[:, 0]
        return world.next_state[state, drawn], jnp.where(world.ended[state], 0, drawn)

    first = jnp.full((num,), world.start, world.next_state.dtype)
    tokens: Int[Array, "horizon num"] = jax.lax.scan(step, first, (steps.changing, quantiles))[1]
    return tokens.T


def all_answers(world: Automaton, horizon: int) -> Int[np.ndarray, "answers horizon"]:
    """Every answer of a small world, each once, 0 after its end. It looks at values, so call it outside `jit`.

    Args:
        world: the automaton.
        horizon: the most tokens of an answer.

    Returns:
        Tokens, `[answers, horizon]`.

    Raises:
        ValueError: there are more than a million answers, or `horizon` is below 1.

    Example:
        >>> import jax.numpy as jnp
        >>> world = automaton(jnp.array([[0, 1], [1, 1]]), ended=jnp.array([False, True]))
        >>> all_answers(world, horizon=2).tolist()
        [[1, 0], [0, 1], [0, 0]]
    """
    _at_least_one(horizon)
    next_state, ended = np.asarray(world.next_state), np.asarray(world.ended)
    finished: list[Any] = []
    paths, states = np.zeros((1, 0), int), np.array([int(world.start)])
    for length in range(1, horizon + 1):
        count = len(paths) * next_state.shape[1]
        if count + sum(map(len, finished)) > _MOST_ANSWERS:
            raise ValueError(f"horizon {horizon} makes more than a million answers of {next_state.shape[1]} tokens")
        tokens = np.tile(np.arange(next_state.shape[1]), len(paths))
        paths = np.column_stack([np.repeat(paths, next_state.shape[1], axis=0), tokens])
        states = next_state[np.repeat(states, next_state.shape[1]), tokens]
        over = ended[states]
        finished.append(np.pad(paths[over], ((0, 0), (0, horizon - length))))
        paths, states = paths[~over], states[~over]
    return np.concatenate([*finished, paths])


def top_k(log_policy: Float[Array, "*batch tokens"], k: int) -> Float[Array, "*batch tokens"]:
    """The policy restricted to its k likeliest tokens and renormalised; of equal ones the first stay.

    Args:
        log_policy: normalised log-probabilities, `[..., tokens]`.
        k: how many tokens stay, static.

    Returns:
        Log-probabilities, `[..., tokens]`.

    Raises:
        ValueError: `k` is not in [1, tokens].

    Example:
        >>> import jax.numpy as jnp
        >>> print(*(f"{p:.2f}" for p in jnp.exp(top_k(jnp.log(jnp.array([0.2, 0.5, 0.3])), k=2))))
        0.00 0.62 0.37

    References:
        Fan, Lewis, Dauphin, "Hierarchical Neural Story Generation", arXiv:1805.04833.
    """
    log_policy = floating_array("log_policy", log_policy)
    if not 1 <= k <= log_policy.shape[-1]:
        raise ValueError(f"k must be between 1 and the {log_policy.shape[-1]} tokens, got {k}")
    return _kept(log_policy, lambda rank, before: rank < k)


def top_p(log_policy: Float[Array, "*batch tokens"], p: Number) -> Float[Array, "*batch tokens"]:
    """The policy restricted to its nucleus, the fewest likeliest tokens with a mass of at least p, and renormalised.

    Args:
        log_policy: normalised log-probabilities, `[..., tokens]`.
        p: mass in (0, 1], a number or `[...]`.

    Returns:
        Log-probabilities, `[..., tokens]`.

    Raises:
        ValueError: a Python `p` that is not above 0.

    Example:
        >>> import jax.numpy as jnp
        >>> print(*(f"{p:.2f}" for p in jnp.exp(top_p(jnp.log(jnp.array([0.2, 0.5, 0.3])), p=0.7))))
        0.00 0.62 0.37

    References:
        Holtzman et al., "The Curious Case of Neural Text Degeneration", arXiv:1904.09751.
    """
    log_policy, mass = outcome_arrays({"p": positive("p", p)}, log_policy=log_policy)
    return _kept(log_policy, lambda rank, before: (before < mass) | (mass >= 1))


def _kept(
    log_policy: Float[Array, "*batch tokens"], stays: Callable[[Array, Array], Bool[Array, "..."]]
) -> Float[Array, "*batch tokens"]:
    """The policy restricted to tokens by their rank and by the mass of those that are likelier."""
    order = jnp.argsort(-jax.lax.stop_gradient(log_policy), axis=-1, stable=True)
    sorted_mass = jnp.exp(jnp.take_along_axis(jax.lax.stop_gradient(log_policy), order, axis=-1))
    before = jnp.cumsum(sorted_mass, axis=-1) - sorted_mass
    rank = jnp.broadcast_to(jnp.arange(log_policy.shape[-1]), log_policy.shape)
    places = jnp.argsort(order, axis=-1)
    keep = jnp.take_along_axis(stays(rank, before), places, axis=-1)
    unranked = jnp.isnan(log_policy).any(-1, keepdims=True)
    return log_normalize(jnp.where(keep | unranked, log_policy, -jnp.inf))


def _at_least_one(horizon: int) -> None:
    if horizon < 1:
        raise ValueError(f"horizon must be at least 1, got {horizon}")


class _Steps(NamedTuple):
    """Arrays of which some change from step to step: these are scanned over, None in the place of the others."""

    changing: tuple[Float[Array, "horizon states tokens"] | None, ...]
    constant: tuple[Float[Array, "states tokens"] | None, ...]

    def at(self, now: Any) -> tuple[Float[Array, "states tokens"], ...]:
        """All of the arrays at a step, given those that change."""
        return tuple(a if b is None else b for a, b in zip(now, self.constant, strict=True))


def _steps(world: Automaton, horizon: int, **arrays: Any) -> _Steps:
    """Policies, and values of tokens, if their shapes fit the world."""
    _at_least_one(horizon)
    shape = world.next_state.shape
    for name, value in arrays.items():
        if floating_array(name, value).shape not in (shape, (horizon, *shape)):
            raise ValueError(f"{name} must be {shape} or {(horizon, *shape)}, got shape {jnp.shape(value)}")
    return _Steps(
        tuple(x if jnp.ndim(x) == 3 else None for x in arrays.values()),
        tuple(x if jnp.ndim(x) == 2 else None for x in arrays.values()),
    )


def _per_state(world: Automaton, name: str, value: StateValues | None, dtype: Any) -> PerState:
    """Values of states; zeros if there are none."""
    if value is None:
        return jnp.zeros(world.ended.shape, dtype)
    array = floating_array(name, whole_as(dtype, value))
    if array.shape != world.ended.shape:
        raise ValueError(f"{name} must be [states], {world.ended.shape}, got shape {array.shape}")
    return array
