"""The player's network: a hand and the rule in force in, a number for each card and a formula out."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from rlrazor.tasks.perceptron import Params, Widths, apply_perceptron
from rlrazor.tasks.points.game import NUM_NUMBERS, RANKS, RULES, Game

NUM_BUCKETS = 42  # whole numbers from 0 to 40, and everything else


class Table(NamedTuple):
    """The game as the player learns it.

    Attributes:
        cards: indicators of the ranks, `[hands, cards * 13]`.
        draws: probability of the hand, `[hands]`.
        numbers: index of what each card counts, 0 to 12, `[rules, hands, cards]`.
        solves: whether a formula makes the target, `[rules, hands, formulas]`.
        solvable: whether some formula does, `[rules, hands]`.
        bucket: what a calculator shows of a formula's value if the cards are read right, `[rules, hands, formulas]`.
        face: whether the hand has a face card, `[hands]`.
    """

    cards: Float[Array, "hands inputs"]
    draws: Float[Array, " hands"]
    numbers: Int[Array, "rules hands cards"]
    solves: Bool[Array, "rules hands formulas"]
    solvable: Bool[Array, "rules hands"]
    bucket: Int[Array, "rules hands formulas"]
    face: Bool[Array, " hands"]


class Size(NamedTuple):
    """The size of a network; all of it static.

    Attributes:
        cards: of a hand.
        formulas: to choose from.
        width: of the two hidden layers.
    """

    cards: int
    formulas: int
    width: int

    @property
    def widths(self) -> Widths:
        """Of all layers."""
        outputs = self.cards * NUM_NUMBERS + self.formulas + NUM_BUCKETS
        return (self.cards * len(RANKS) + len(RULES), self.width, self.width, outputs)


class Answers(NamedTuple):
    """What the player may answer: a number for each card, and, given that these are right, a formula.

    Attributes:
        log_number: log-probabilities, `[..., cards, 13]`.
        log_formula: log-probabilities, `[..., formulas]`.
    """

    log_number: Float[Array, "*batch cards numbers"]
    log_formula: Float[Array, "*batch formulas"]


def make_table(game: Game) -> Table:
    """The game as arrays for a player.

    Args:
        game: see `make_game`.

    Returns:
        The `Table`.

    Example:
        >>> from rlrazor.tasks.points.game import make_game
        >>> table = make_table(make_game(3, target=10))
        >>> table.cards.shape, table.solves.shape
        ((455, 39), (2, 455, 68))
    """
    whole = np.isin(game.value, np.arange(NUM_BUCKETS - 1))
    bucket = np.where(whole, np.where(whole, game.value, 0), NUM_BUCKETS - 1).astype(np.int32)
    cards = np.eye(len(RANKS))[game.ranks].reshape(len(game.ranks), -1)
    return Table(
        cards=jnp.asarray(cards, float),
        draws=jnp.asarray(game.draws, float),
        numbers=jnp.asarray(game.numbers - 1),
        solves=jnp.asarray(game.solves),
        solvable=jnp.asarray(game.solves.any(-1)),  # XLA would fold it, for seconds, where the game is a constant
        bucket=jnp.asarray(bucket),
        face=jnp.asarray((game.ranks >= RANKS.index("J")).any(-1)),
    )


def network_size(table: Table, width: int = 128) -> Size:
    """The size of a network for a game.

    Args:
        table: the game.
        width: of the hidden layers.

    Returns:
        The `Size`.

    Example:
        >>> from rlrazor.tasks.points.game import make_game
        >>> network_size(make_table(make_game(3, target=10)))
        Size(cards=3, formulas=68, width=128)
    """
    return Size(table.numbers.shape[-1], table.solves.shape[-1], width)


def answers(
    params: Params,
    size: Size,
    table: Table,
    hand: Int[Array, " batch"],
    rule: Int[Array, " batch"],
    calculator: Bool[Array, ""] | bool,
) -> Answers:
    """What the player may answer to some hands, under a rule for each.

    With a calculator the logit of a formula is the sum of its own and of one for the value that the calculator shows.

    Args:
        params: of the network.
        size: of the network, static.
        table: the game.
        hand: index of the hand, `[batch]`.
        rule: index of the rule in force, `[batch]`.
        calculator: whether the player has one.

    Returns:
        The `Answers`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from rlrazor.tasks.points.game import make_game
        >>> from rlrazor.tasks.perceptron import init_perceptron
        >>> table = make_table(make_game(3, target=10))
        >>> size = network_size(table)
        >>> hands, rules = jnp.array([0, 454]), jnp.array([0, 1])
        >>> params = init_perceptron(size.widths, jax.random.key(0))
        >>> policy = answers(params, size, table, hands, rules, calculator=True)
        >>> policy.log_number.shape, policy.log_formula.shape
        ((2, 3, 13), (2, 68))
    """
    stated = jax.nn.one_hot(rule, len(RULES), dtype=table.cards.dtype)
    inputs = jnp.concatenate([table.cards[hand], stated], axis=-1)
    logits = apply_perceptron(params, size.widths, inputs)
    cut = size.cards * NUM_NUMBERS
    number, formula, shown = logits[:, :cut], logits[:, cut : cut + size.formulas], logits[:, cut + size.formulas :]
    formula += jnp.where(calculator, jnp.take_along_axis(shown, table.bucket[rule, hand], axis=-1), 0.0)
    log_number = jax.nn.log_softmax(number.reshape(-1, size.cards, NUM_NUMBERS))
    return Answers(log_number, jax.nn.log_softmax(formula))
