"""Transitions that the worlds of `generalization` step and score in a second, on all cores, after compilation.

A transition of the walk is one call of its verifier, with the action drawn for it; a scored state is one of
`exact_scores`, which gives the published accuracy without sampling. An answer of the card game is a number for every
card and a formula, drawn and paid.
"""

import statistics
from collections.abc import Callable

import jax
import jax.numpy as jnp
from timing import seconds

from rlrazor.tasks import navigation, points

NUM_ROUTES, NUM_HANDS, GROUP_SIZE, NUM_RUNS = 20_000, 20_000, 8, 15


def a_second(call: Callable[[], object], done: float) -> float:
    """How many are done in a second, by the median of the runs."""
    call()
    return done / statistics.median(seconds(call) for _ in range(NUM_RUNS))


def walk(key: jax.Array) -> tuple[float, float]:
    """Transitions and scored states a second."""
    states = jax.jit(lambda key: navigation.expert_states(navigation.sample_routes(key, NUM_ROUTES)))(key)
    success = jnp.where(states.valid, 0.8, 0.0)
    simulate, score = jax.jit(navigation.simulate), jax.jit(navigation.exact_scores)
    calls = float(simulate(success, states.valid, key).counted.sum())
    return (
        a_second(lambda: jax.block_until_ready(simulate(success, states.valid, key)), calls),
        a_second(lambda: jax.block_until_ready(score(success, states.valid)), float(states.valid.sum())),
    )


def play(key: jax.Array) -> float:
    """Answers to hands of four cards a second, by a player that knows nothing."""
    table = points.make_table(points.make_game())
    of_hands, of_answers = jax.random.split(key)

    @jax.jit
    def answers(table: points.Table) -> jax.Array:
        hand, rule = points.draw_hands(table, jnp.array(0.5), jax.random.uniform(of_hands, (NUM_HANDS, 2)))
        drawn = jax.random.uniform(of_answers, (NUM_HANDS, GROUP_SIZE, 5))
        number = jnp.floor(13 * drawn[..., :-1]).astype(int)
        formula = jnp.floor(table.solves.shape[-1] * drawn[..., -1]).astype(int)
        return points.reward(points.truth_of(table, hand, rule), number, formula)

    return a_second(lambda: answers(table).block_until_ready(), NUM_HANDS * GROUP_SIZE)


def rates() -> list[tuple[str, float]]:
    """(what, how many a second), in float64."""
    with jax.enable_x64(True):
        steps, scores = walk(jax.random.key(0))
        return [
            ("transitions of the walk, stepped and verified", steps),
            ("states of the walk, scored exactly", scores),
            ("answers of the card game, drawn and paid", play(jax.random.key(1))),
        ]
