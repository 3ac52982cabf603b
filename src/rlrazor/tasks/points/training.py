"""A base that was pretrained under both rules, fine-tuned under the first, and what the player then does under each."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Key

from rlrazor._numerics import uniform
from rlrazor.checks import place_of
from rlrazor.representations import parameter_distance
from rlrazor.sweeps import PerRun, per_run, sweep
from rlrazor.tasks.perceptron import Params, fit_perceptron
from rlrazor.tasks.points.game import NUM_NUMBERS, RULES
from rlrazor.tasks.points.methods import Scalar, Truth, method_index, pulled_loss, pulls, success
from rlrazor.tasks.points.player import Answers, Size, Table, answers
from rlrazor.training import chosen_optimizer, train_at

MOMENTUM, ADAM = "momentum", "Adam"
OPTIMIZERS = (MOMENTUM, ADAM)


class Setting(NamedTuple):
    """One fine-tuning; every field is a scalar but `record`, with a leading axis `[runs]` in a sweep.

    Attributes:
        method: index into `METHODS`.
        optimizer: index into `OPTIMIZERS`.
        rate: learning rate.
        other_rule: share of the hands that are played under rule 1.
        calculator: whether the player has one.
        attempts: answers of the sampling methods to each hand at most.
        record: updates after which the player is measured, increasing from 0 on, `[records]`.
        base: which of the bases to start from.
        key: randomness.
    """

    method: Int[Array, "*runs"]
    optimizer: Int[Array, "*runs"]
    rate: Float[Array, "*runs"]
    other_rule: Float[Array, "*runs"]
    calculator: Bool[Array, "*runs"]
    attempts: Int[Array, "*runs"]
    record: Int[Array, "*runs records"]
    base: Int[Array, "*runs"]
    key: Key[Array, "*runs"]


class Hands(NamedTuple):
    """Some hands, and the rule that each is played under.

    Attributes:
        hand: index, `[batch]`.
        rule: index, `[batch]`.
    """

    hand: Int[Array, " batch"]
    rule: Int[Array, " batch"]


class Measures(NamedTuple):
    """A player under each rule: rule 0 on all hands that it can solve, rule 1 on those with a face card.

    Attributes:
        success: rate of solved hands, one answer to each, `[..., rules]`.
        read: probability that all cards are read right, `[..., rules]`.
        solved: probability of a solution if the cards are read right, `[..., rules]`.
        weights: Euclidean distance from the base's parameters, `[...]`.
    """

    success: Float[Array, "*batch rules"]
    read: Float[Array, "*batch rules"]
    solved: Float[Array, "*batch rules"]
    weights: Float[Array, "*batch"]


def draw_hands(table: Table, other_rule: Scalar, drawn: Float[Array, "batch 2"]) -> Hands:
    """Hands of uniformly drawn cards that can be solved, and the rule that each is played under.

    Args:
        table: the game.
        other_rule: share of the hands that are played under rule 1.
        drawn: numbers in [0, 1) that draw a hand and a rule, `[batch, 2]`.

    Returns:
        The `Hands`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from rlrazor.tasks.points.game import make_game
        >>> from rlrazor.tasks.points.player import make_table
        >>> table, uniform = make_table(make_game(3, target=10)), jax.random.uniform(jax.random.key(0), (4, 2))
        >>> draw_hands(table, jnp.array(0.0), uniform).rule.tolist()
        [0, 0, 0, 0]
    """
    rule = (drawn[:, 1] < other_rule).astype(int)
    chances = jnp.where(table.solvable, table.draws, 0.0)
    edges = jnp.cumsum(chances / chances.sum(-1, keepdims=True), axis=-1)[:, :-1]
    under_each = jax.vmap(lambda e: jnp.searchsorted(e, drawn[:, 0], side="right"))(edges)
    return Hands(jnp.take_along_axis(under_each, rule[None], axis=0)[0].astype(int), rule)


def truth_of(table: Table, hand: Int[Array, " batch"], rule: Int[Array, " batch"]) -> Truth:
    """What is right, and the first solution of each hand, which is the demonstrator's.

    Args:
        table: the game.
        hand: indices, `[batch]`.
        rule: indices, `[batch]`.

    Returns:
        The `Truth`.

    Example:
        >>> import jax.numpy as jnp
        >>> from rlrazor.tasks.points.game import RANKS, hand_index, make_game
        >>> from rlrazor.tasks.points.player import make_table
        >>> game = make_game()
        >>> hand = jnp.array([hand_index(("K", "K", "2", "2"), game, "tens")])
        >>> truth = truth_of(make_table(game), hand, jnp.array([0]))
        >>> (truth.number[0] + 1).tolist(), int(truth.solves.sum())
        ([2, 2, 10, 10], 2)
    """
    solves = table.solves[rule, hand]
    return Truth(table.numbers[rule, hand], solves, jnp.argmax(solves, axis=-1))


def pretrain(
    table: Table,
    size: Size,
    key: Key[Array, ""],
    misread: Scalar,
    guess: Scalar,
    calculator: Bool[Array, ""],
    *,
    num_steps: int,
    rate: float = 3e-3,
    batch_size: int = 256,
) -> Params:
    """A base that knows both rules: Adam, at a rate that falls to zero along a cosine, on soft labels.

    Args:
        table: the game.
        size: of the network, static.
        key: randomness.
        misread: probability of reading a card as any number, uniformly.
        guess: probability of any formula, uniformly; else it is one of the solutions, uniformly.
        calculator: whether the player has one.
        num_steps: updates, static.
        rate: learning rate of Adam at the start.
        batch_size: hands of an update, static.

    Returns:
        Parameters of the base.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from rlrazor.tasks.points.game import make_game
        >>> from rlrazor.tasks.points.player import make_table, network_size
        >>> table = make_table(make_game(3, target=10))
        >>> size, chances = network_size(table), (jnp.array(0.1), jnp.array(0.5), jnp.array(True))
        >>> base = jax.eval_shape(lambda key: pretrain(table, size, key, *chances, num_steps=1), jax.random.key(0))
        >>> sum(leaf.size for leaf in jax.tree.leaves(base))
        41109
    """
    evenly = jnp.full_like(misread, 0.5)

    def loss(params: Params, key: Key[Array, ""]) -> Scalar:
        hand, rule = draw_hands(table, evenly, uniform(key, (batch_size, 2), misread.dtype))
        policy, truth = answers(params, size, table, hand, rule, calculator), truth_of(table, hand, rule)
        number = (1 - misread) * jax.nn.one_hot(truth.number, NUM_NUMBERS) + misread / NUM_NUMBERS
        solves = truth.solves.astype(misread.dtype)
        solution = solves / solves.sum(-1, keepdims=True)
        formula = (1 - guess) * solution + guess / size.formulas
        return -((number * policy.log_number).sum((-2, -1)) + (formula * policy.log_formula).sum(-1)).mean()

    return fit_perceptron(loss, size.widths, key, num_steps=num_steps, rate=rate)


def pretrain_many(
    table: Table,
    size: Size,
    key: Key[Array, ""],
    misread: Float[ArrayLike, " bases"],
    guess: Scalar,
    calculator: Bool[ArrayLike, " bases"],
    *,
    num_steps: int,
    batch_size: int = 256,
) -> Params:
    """A base for every kind, on all devices.

    Args:
        table: the game.
        size: of the network, static.
        key: randomness, split between the bases.
        misread: see `pretrain`, `[bases]`.
        guess: see `pretrain`.
        calculator: see `pretrain`, `[bases]`.
        num_steps: updates, static.
        batch_size: hands of an update, static.

    Returns:
        Parameters of the bases, every leaf `[bases, ...]`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from rlrazor.tasks.points import make_game, make_table, network_size
        >>> table = make_table(make_game(3, target=10))
        >>> kinds = jnp.zeros(2), jnp.array(0.5), jnp.array([True, False])
        >>> bases = pretrain_many(table, network_size(table), jax.random.key(0), *kinds, num_steps=1)
        >>> {leaf.shape[0] for leaf in jax.tree.leaves(bases)}
        {2}
    """

    def one(base: dict[str, Any]) -> Params:
        sizes = {"num_steps": num_steps, "batch_size": batch_size}
        return pretrain(table, size, base["key"], base["misread"], guess, base["calculator"], **sizes)

    misread, calculator = jnp.asarray(misread), jnp.asarray(calculator)
    kinds = {"key": jax.random.split(key, len(misread)), "misread": misread, "calculator": calculator}
    bases: Params = sweep(one, kinds)
    return jax.tree.map(jnp.asarray, bases)


def settings(
    method: Sequence[str],
    key: Key[Array, ""],
    *,
    optimizer: str,
    rate: PerRun,
    record: PerRun,
    base: PerRun,
    calculator: PerRun,
    other_rule: PerRun = 0.0,
    attempts: PerRun = 1,
) -> Setting:
    """The settings of several trainings, for `fine_tune_many`.

    Args:
        method: its name, one a training.
        key: randomness, split between the trainings.
        optimizer: its name.
        rate: see `Setting`, as are the others; one for all trainings, or one for each.
        record: `[records]` or `[runs, records]`.
        base: index.
        calculator: whether.
        other_rule: share.
        attempts: number.

    Returns:
        The `Setting`, every field with a leading axis `[runs]`.

    Raises:
        ValueError: a method or an optimizer that does not exist.

    Example:
        >>> import jax
        >>> both = settings(
        ...     ("SFT", "GRPO"), jax.random.key(0), optimizer=ADAM, rate=1e-3, record=[0, 10], base=0, calculator=True
        ... )
        >>> both.method.tolist(), both.record.shape
        ([0, 6], (2, 2))
    """
    runs = len(method)
    each = partial(per_run, runs)
    return Setting(
        method=each([method_index(name) for name in method]),
        optimizer=each(place_of("optimizer", optimizer, OPTIMIZERS)),
        rate=each(rate),
        other_rule=each(other_rule),
        calculator=each(calculator),
        attempts=each(attempts),
        record=each(record, rank=1),
        base=each(base),
        key=jax.random.split(key, runs),
    )


def fine_tune(
    table: Table, size: Size, bases: Params, setting: Setting, *, batch_size: int = 128, group_size: int = 8
) -> Measures:
    """One fine-tuning, and the player on its way.

    Args:
        table: the game.
        size: of the network, static.
        bases: their parameters, every leaf `[bases, ...]`.
        setting: what to run, without a leading axis.
        batch_size: hands of an update, static.
        group_size: episodes of each, of the methods that sample, static.

    Returns:
        The `Measures` at the records, each `[records, ...]`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from rlrazor.methods import UNIFORM_SFT
        >>> from rlrazor.tasks.points import make_game, make_table, network_size
        >>> from rlrazor.tasks.perceptron import init_perceptron
        >>> table = make_table(make_game(3, target=10))
        >>> size = network_size(table)
        >>> bases = jax.tree.map(lambda leaf: leaf[None], init_perceptron(size.widths, jax.random.key(0)))
        >>> one = settings(
        ...     (UNIFORM_SFT,), jax.random.key(1), optimizer=ADAM, rate=1e-3, record=[0, 2], base=0, calculator=True
        ... )
        >>> setting = jax.tree.map(lambda leaf: leaf[0], one)
        >>> path = jax.eval_shape(lambda setting: fine_tune(table, size, bases, setting), setting)
        >>> path.success.shape  # records, rules
        (2, 2)
    """
    base = jax.tree.map(lambda leaf: leaf[setting.base], bases)
    optimizer = chosen_optimizer(setting.optimizer, (optax.sgd(setting.rate, momentum=0.9), optax.adam(setting.rate)))

    def gradient(params: Params, key: Key[Array, ""], _: Int[Array, ""]) -> Params:
        of_hands, of_samples = jax.random.split(key)
        drawn = uniform(of_hands, (batch_size, 2), setting.rate.dtype)
        hand, rule = draw_hands(table, setting.other_rule, drawn)
        truth = truth_of(table, hand, rule)

        def player(params: Params) -> Answers:
            return answers(params, size, table, hand, rule, setting.calculator)

        def loss(params: Params) -> Scalar:
            policy = player(params)
            held, ref = jax.lax.stop_gradient(policy), partial(player, base)
            pulled = pulls(setting.method, held, ref, truth, of_samples, setting.attempts, group_size=group_size)
            return pulled_loss(policy, pulled)

        return jax.grad(loss)(params)

    path: Measures = train_at(
        gradient,
        base,
        optimizer,
        setting.key,
        setting.record,
        record=lambda params: measure(table, size, base, params, setting.calculator),
    )
    return path


def fine_tune_many(
    table: Table, size: Size, bases: Params, settings: Setting, *, batch_size: int = 128, group_size: int = 8
) -> Measures:
    """Many fine-tunings, on all devices; a GPU batches them.

    Args:
        table: the game.
        size: of the network, static.
        bases: their parameters, every leaf `[bases, ...]`.
        settings: what to run, see `settings`, `[runs]`.
        batch_size: hands of an update, static.
        group_size: episodes of each, of the methods that sample, static.

    Returns:
        The `Measures` as NumPy arrays, each `[runs, records, ...]`.

    Example:
        >>> import jax
        >>> from rlrazor.tasks.points import make_game, make_table, network_size
        >>> from rlrazor.tasks.perceptron import init_perceptron
        >>> table = make_table(make_game(3, target=10))
        >>> size = network_size(table)
        >>> bases = jax.tree.map(lambda leaf: leaf[None], init_perceptron(size.widths, jax.random.key(0)))
        >>> both = settings(
        ...     ("SFT", "SFT"), jax.random.key(1), optimizer=ADAM, rate=[0.0, 1e-3], record=[2], base=0, calculator=True
        ... )
        >>> (fine_tune_many(table, size, bases, both).weights[:, 0] > 0).tolist()
        [False, True]
    """
    one = partial(fine_tune, table, size, bases, batch_size=batch_size, group_size=group_size)
    measures: Measures = sweep(one, settings, batch_size=1 if jax.default_backend() == "cpu" else 64)
    return measures


def measure(table: Table, size: Size, base: Params, params: Params, calculator: Bool[Array, ""]) -> Measures:
    """A player on the hands of each rule, every expectation over its answers exact.

    Args:
        table: the game.
        size: of the network, static.
        base: parameters of what it started from.
        params: its own.
        calculator: whether it has one.

    Returns:
        The `Measures`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from rlrazor.tasks.points import make_game, make_table, network_size
        >>> from rlrazor.tasks.perceptron import init_perceptron
        >>> table = make_table(make_game(3, target=10))
        >>> size = network_size(table)
        >>> base = init_perceptron(size.widths, jax.random.key(0))
        >>> measures = jax.jit(lambda base: measure(table, size, base, base, jnp.array(True)))(base)
        >>> measures.success.shape, float(measures.weights)
        ((2,), 0.0)
    """
    hands = jnp.arange(len(table.draws))

    moved = parameter_distance(params, base)

    def under(rule: Int[Array, ""]) -> Measures:
        rules = jnp.broadcast_to(rule, hands.shape)
        chances = success(answers(params, size, table, hands, rules, calculator), truth_of(table, hands, rules))
        counts = jnp.where(table.solvable[rule] & (table.face | (rule == 0)), table.draws, 0.0)

        def mean(values: Float[Array, " hands"]) -> Scalar:
            return (counts * values).sum() / counts.sum()

        return Measures(mean(chances.read * chances.solved), mean(chances.read), mean(chances.solved), moved)

    under_each: Measures = jax.lax.map(under, jnp.arange(len(RULES)))
    return under_each._replace(weights=moved)
