"""Routes through a city on rails, what the walker sees of them, and the right word under every rule.

A route is a walk on a grid: turn, go forward over a few blocks, turn again at a landmark, and stop at the last one. Its
instruction holds the words of all rules, "turn left to face east, go forward to the bakery", and the observation names
the rule in force. One vocabulary serves them all: forward, stop, and the words of every rule. A walker only advances
with the right action, so what it sees are the states of the expert.

Rule 0 is the published "absolute", rule 1 "relative"; further rules are other names for the eight headings, such as the
hours of a clock.
"""

from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from rlrazor._numerics import uniform
from rlrazor.checks import place_of

RULES = ("absolute", "relative", "hours", "degrees", "letters", "colors", "winds", "months", "notes", "planets")
ABSOLUTE, RELATIVE = RULES[:2]
NUM_HEADINGS = 8  # clockwise from north
RELATIVE_WORDS = ("left", "right", "slightly left", "slightly right")
FORWARD, STOP = 0, 1  # actions; the words follow
_STEP = np.array([[0, 1], [1, 1], [1, 0], [1, -1], [0, -1], [-1, -1], [-1, 0], [-1, 1]])  # a block in each direction

Observations: TypeAlias = Float[Array, "*batch features"]


class Routes(NamedTuple):
    """Walks on the grid.

    Attributes:
        start: the cell where each begins, `[routes, 2]`.
        facing: heading before the first turn, `[routes]`.
        heading: heading after each turn, 0 to 7, `[routes, turns]`.
        blocks: forward actions after each turn, `[routes, turns]`.
        landmark: what stands where they end, `[routes, turns]`.
    """

    start: Int[Array, "routes 2"]
    facing: Int[Array, " routes"]
    heading: Int[Array, "routes turns"]
    blocks: Int[Array, "routes turns"]
    landmark: Int[Array, "routes turns"]


class States(NamedTuple):
    """The states of the expert on a route, padded to the longest route possible.

    Attributes:
        observation: what is seen, and the instruction, but not the rule, `[..., features]`.
        action: the right action under each rule, `[..., rules]`.
        valid: whether the route is that long, `[...]`.
    """

    observation: Observations
    action: Int[Array, "*batch rules"]
    valid: Bool[Array, "*batch"]


def rule_index(rule: str) -> int:
    """The place of a rule in `RULES`.

    Args:
        rule: its name.

    Returns:
        The index.

    Raises:
        ValueError: there is no such rule.

    Example:
        >>> rule_index("relative")
        1
        >>> rule_index("egocentric")
        Traceback (most recent call last):
        ...
        ValueError: unknown rule 'egocentric'; there are absolute, relative, hours, degrees, letters, colors, winds, months, notes, planets
    """  # noqa: E501  (the error is one line)
    return place_of("rule", rule, RULES)


def num_actions(num_rules: int = 2) -> int:
    """The size of the vocabulary: forward, stop, four relative words, and eight of every other rule.

    Args:
        num_rules: how many of the `RULES` there are, from the first on.

    Returns:
        The number of actions.

    Raises:
        ValueError: fewer than 2 rules, or more than there are.

    Example:
        >>> num_actions(2)  # forward, stop, 8 compass words, 4 relative ones
        14
    """
    if not 2 <= num_rules <= len(RULES):
        raise ValueError(f"num_rules must be from 2 to {len(RULES)}, got {num_rules}")
    return 2 + NUM_HEADINGS * (num_rules - 1) + len(RELATIVE_WORDS)


def listed_actions(num_rules: int = 2) -> Bool[np.ndarray, "rules actions"]:
    """The action list of each rule: forward, stop and its own words.

    Args:
        num_rules: how many of the `RULES` there are.

    Returns:
        Boolean, `[rules, actions]`.

    Example:
        >>> listed_actions().sum(-1).tolist()
        [10, 6]
    """
    owner = np.array([-1, -1] + [0] * NUM_HEADINGS + [1] * len(RELATIVE_WORDS))
    owner = np.append(owner, np.repeat(np.arange(2, num_rules), NUM_HEADINGS))
    listed: Bool[np.ndarray, "rules actions"] = (owner == -1) | (owner == np.arange(num_rules)[:, None])
    return listed[:, : num_actions(num_rules)]


def relative_word(facing: Int[Array, "*batch"], heading: Int[Array, "*batch"]) -> Int[Array, "*batch"]:
    """The word for a turn, an index into `RELATIVE_WORDS`: slightly for 45 degrees, plain for 90 and 135.

    The released code takes the difference of the headings without wrapping it, so that a slight right from north-west
    to north (-315 degrees) is a "left" there; here it is what it is.

    Args:
        facing: heading before the turn, 0 to 7.
        heading: heading after it, neither the same nor the opposite.

    Returns:
        Indices, 0 to 3.

    Example:
        >>> import jax.numpy as jnp
        >>> word = relative_word(jnp.array([0, 0, 7]), jnp.array([2, 7, 0]))
        >>> [RELATIVE_WORDS[i] for i in word]
        ['right', 'slightly left', 'slightly right']
    """
    turn = jnp.remainder(heading - facing, NUM_HEADINGS)  # 1, 2, 3 to the right, 5, 6, 7 to the left
    slight = (turn == 1) | (turn == NUM_HEADINGS - 1)
    return 2 * slight.astype(turn.dtype) + (turn < NUM_HEADINGS // 2).astype(turn.dtype)


def sample_routes(
    key: Key[Array, ""],
    num_routes: int,
    *,
    num_turns: int = 3,
    max_blocks: int = 3,
    num_landmarks: int = 6,
    city_size: int = 16,
) -> Routes:
    """Random routes through one random city, a grid with a landmark at every crossing that wraps at its borders.

    Args:
        key: randomness; the same key gives the same city and the same routes.
        num_routes: static.
        num_turns: of each route, at least 1, static.
        max_blocks: a leg has from 1 to so many forward actions, uniformly, static.
        num_landmarks: kinds of them.
        city_size: crossings a side.

    Returns:
        The `Routes`.

    Raises:
        ValueError: no routes, no turns, no blocks, no landmarks, or no city.

    Example:
        >>> import jax
        >>> routes = sample_routes(jax.random.key(0), 5)
        >>> routes.heading.shape
        (5, 3)
        >>> sample_routes(jax.random.key(0), 5, num_turns=0)
        Traceback (most recent call last):
        ...
        ValueError: num_turns must be at least 1, for a route begins with a turn, got 0
    """
    if num_turns < 1:
        raise ValueError(f"num_turns must be at least 1, for a route begins with a turn, got {num_turns}")
    for name, number in (
        ("num_routes", num_routes),
        ("max_blocks", max_blocks),
        ("num_landmarks", num_landmarks),
        ("city_size", city_size),
    ):
        if number < 1:
            raise ValueError(f"{name} must be at least 1, got {number}")
    of_city, of_routes = jax.random.split(key)
    city = _pick(uniform(of_city, (city_size, city_size)), num_landmarks)
    drawn = uniform(of_routes, (num_routes, 3 + 2 * num_turns))
    start, facing = _pick(drawn[:, :2], city_size), _pick(drawn[:, 2], NUM_HEADINGS)
    turn = jnp.array([1, 2, 3, 5, 6, 7])[_pick(drawn[:, 3 : 3 + num_turns], 6)]  # neither straight on nor back
    heading = jnp.remainder(facing[:, None] + jnp.cumsum(turn, axis=-1), NUM_HEADINGS)
    blocks = 1 + _pick(drawn[:, 3 + num_turns :], max_blocks)
    walked = jnp.cumsum(blocks[..., None] * jnp.asarray(_STEP)[heading], axis=1)
    x, y = jnp.moveaxis(jnp.remainder(start[:, None] + walked, city_size), -1, 0)
    return Routes(start, facing, heading, blocks, city[x, y])


def _pick(drawn: Float[Array, "..."], count: int) -> Int[Array, "..."]:
    """Whole numbers below `count`, uniformly, from numbers in [0, 1)."""
    return jnp.floor(drawn * count).astype(int)


def expert_states(routes: Routes, *, num_rules: int = 2, max_blocks: int = 3, num_landmarks: int = 6) -> States:
    """What the expert sees along each route, and what it does under each rule.

    An observation holds, as indicators: how many turns were made; whether this is the start, or a crossing; the
    landmark there; and for every leg of the instruction the compass word, the relative word and the landmark. Between
    two crossings nothing is nearby. The names of further rules are those of the headings, and stand for themselves.

    Args:
        routes: `[routes]`.
        num_rules: how many of the `RULES` there are, static.
        max_blocks: of the routes, static.
        num_landmarks: of the city, static.

    Returns:
        The `States`, `[routes, steps]` with steps = turns (1 + max_blocks) + 1.

    Example:
        >>> import jax
        >>> states = expert_states(sample_routes(jax.random.key(0), 1))
        >>> [int(a) for a in states.action[0, :, 0][states.valid[0]]]  # turn, forward, ..., stop
        [4, 0, 0, 0, 9, 0, 0, 0, 7, 0, 1]
    """
    num_routes, num_turns = routes.heading.shape
    before = jnp.concatenate([routes.facing[:, None], routes.heading[:, :-1]], axis=-1)
    relative = relative_word(before, routes.heading)
    turns_at = jnp.cumsum(1 + routes.blocks, axis=-1) - (1 + routes.blocks)  # steps, [routes, turns]
    length = jnp.sum(1 + routes.blocks, axis=-1)[:, None]
    step = jnp.arange(num_turns * (1 + max_blocks) + 1)[None]
    leg = (step[..., None] >= turns_at[:, None]).sum(-1) - 1
    turning, stopping = step == jnp.take_along_axis(turns_at, leg, axis=-1), step == length
    turning &= step < length

    headings, relatives = (jnp.take_along_axis(words, leg, axis=-1) for words in (routes.heading, relative))
    words = [2 + headings, 2 + NUM_HEADINGS + relatives]
    words += [num_actions(rule) + headings for rule in range(2, num_rules)]
    going = jnp.where(stopping, STOP, FORWARD)
    action = jnp.stack([jnp.where(turning, word, going) for word in words], axis=-1)

    crossing = (turning & (step > 0)) | stopping
    last = jnp.where(stopping, num_turns - 1, leg - 1)  # the leg that ends here
    landmark = jnp.where(crossing, jnp.take_along_axis(routes.landmark, last % num_turns, axis=-1), -1)
    parts = [
        jax.nn.one_hot(jnp.where(turning, leg, leg + 1), num_turns + 1),
        jnp.stack([jnp.broadcast_to(step == 0, crossing.shape), crossing], axis=-1).astype(float),
        jax.nn.one_hot(landmark, num_landmarks),
    ]
    instruction = jnp.concatenate(
        [
            jax.nn.one_hot(routes.heading, NUM_HEADINGS),
            jax.nn.one_hot(relative, len(RELATIVE_WORDS)),
            jax.nn.one_hot(routes.landmark, num_landmarks),
        ],
        axis=-1,
    ).reshape(num_routes, 1, -1)
    parts.append(jnp.broadcast_to(instruction, (*crossing.shape, instruction.shape[-1])))
    return States(jnp.concatenate(parts, axis=-1), action, step <= length)
