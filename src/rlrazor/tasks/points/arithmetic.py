"""Every formula of n cards, each used once, in exact rational arithmetic.

With n! orders of the cards, Catalan(n - 1) bracketings and 4^(n-1) choices of operators there are 7,680 formulas of
four cards. As rational functions of the cards only 1,170 of them differ (68 of 192 for three); a class is written as
its first formula. Values are pairs of integers, a denominator of 0 meaning that the value is undefined.
"""

from collections.abc import Iterator
from fractions import Fraction
from functools import cache
from itertools import permutations, product
from typing import NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Bool, Int

OPERATORS = "+-*/"
_POINTS = ((10007, 20011, 40009, 80021), (1000003, 2000003, 4000037, 8000009))  # two generic places, all primes


class Operation(NamedTuple):
    """A formula that is not a single card.

    Attributes:
        operator: one of + - * /.
        left: a formula.
        right: a formula.
    """

    operator: str
    left: "int | Operation"
    right: "int | Operation"


Formula: TypeAlias = int | Operation  # an integer is the place of a card


class Values(NamedTuple):
    """Rational numbers; they need not be in lowest terms.

    Attributes:
        numerator: int64, `[...]`.
        denominator: int64, `[...]`, 0 where the value is undefined.
    """

    numerator: Int[np.ndarray, "..."]
    denominator: Int[np.ndarray, "..."]

    def equal(self, target: int) -> Bool[np.ndarray, "..."]:
        """Whether each is defined and the target.

        Args:
            target: an integer.

        Returns:
            Boolean, `[...]`.

        Example:
            >>> Values(np.array([48, 1]), np.array([2, 0])).equal(24).tolist()
            [True, False]
        """
        made: Bool[np.ndarray, ...] = (self.denominator != 0) & (self.numerator == target * self.denominator)
        return made


def all_formulas(num_cards: int) -> Iterator[Formula]:
    """Every formula, by order of the cards, bracketing and operators.

    Args:
        num_cards: at least 1.

    Yields:
        The formulas.

    Example:
        >>> len(list(all_formulas(3))), len(list(all_formulas(4)))
        (192, 7680)
    """

    def over(places: tuple[int, ...]) -> Iterator[Formula]:
        if len(places) == 1:
            yield places[0]
        for cut in range(1, len(places)):
            for left, right in product(list(over(places[:cut])), list(over(places[cut:]))):
                yield from (Operation(operator, left, right) for operator in OPERATORS)

    for places in permutations(range(num_cards)):
        yield from over(places)


@cache
def formulas(num_cards: int) -> tuple[Formula, ...]:
    """One formula of each class that is equal as rational functions of the cards.

    Two formulas are taken to be equal if they agree, exactly, at two places of large primes, which different ones of
    this size cannot do but by an accident that the known counts rule out.

    Args:
        num_cards: from 1 to 4.

    Returns:
        The formulas, 1, 6, 68 or 1,170 of them (OEIS A140606).

    Raises:
        ValueError: another number of cards.

    Example:
        >>> [len(formulas(n)) for n in (1, 2, 3, 4)]
        [1, 6, 68, 1170]
    """
    if not 1 <= num_cards <= len(_POINTS[0]):
        raise ValueError(f"num_cards must be from 1 to {len(_POINTS[0])}, got {num_cards}")
    first: dict[tuple[Fraction, ...], Formula] = {}
    for formula in all_formulas(num_cards):
        first.setdefault(tuple(_fraction(formula, point) for point in _POINTS), formula)
    return tuple(first.values())


@cache
def _fraction(formula: Formula, cards: tuple[int, ...]) -> Fraction:
    """The value at a generic place, where nothing is divided by zero."""
    if isinstance(formula, int):
        return Fraction(cards[formula])
    operator, left, right = formula
    a, b = _fraction(left, cards), _fraction(right, cards)
    return {"+": a.__add__, "-": a.__sub__, "*": a.__mul__, "/": a.__truediv__}[operator](b)


def evaluate(formula: Formula, numbers: Int[np.ndarray, "*batch cards"]) -> Values:
    """The value of a formula for many hands.

    Args:
        formula: of the cards by their places.
        numbers: of the cards, `[..., cards]`.

    Returns:
        The `Values`, `[...]`.

    Example:
        >>> import numpy as np
        >>> formula = Operation("/", 2, Operation("-", 0, Operation("/", 3, 1)))  # 8 / (3 - 8 / 3)
        >>> hands = np.array([[3, 3, 8, 8], [1, 8, 8, 8]])  # the second divides by 1 - 8 / 8
        >>> values = evaluate(formula, hands)
        >>> values.equal(24).tolist(), values.denominator.tolist()
        ([True, False], [1, 0])
    """
    if isinstance(formula, int):
        return Values(numbers[..., formula].astype(np.int64), np.ones(numbers.shape[:-1], np.int64))
    operator, left, right = formula
    (a, b), (c, d) = evaluate(left, numbers), evaluate(right, numbers)
    if operator == "/":
        return Values(a * d, np.where(d == 0, 0, b * c))
    if operator == "*":
        return Values(a * c, b * d)
    return Values(a * d + c * b if operator == "+" else a * d - c * b, b * d)


def written(formula: Formula, cards: tuple[int, ...]) -> str:
    """The text of a formula, with the brackets that it needs and no other.

    Args:
        formula: of the cards by their places.
        cards: their numbers.

    Returns:
        Such as "8/(3-8/3)".

    Example:
        >>> written(Operation("/", 2, Operation("-", 0, Operation("/", 3, 1))), (3, 3, 8, 8))
        '8/(3-8/3)'
    """
    if isinstance(formula, int):
        return str(cards[formula])
    operator, left, right = formula

    def side(part: Formula, binds: str) -> str:
        text = written(part, cards)
        return f"({text})" if not isinstance(part, int) and part.operator in binds else text

    loose_left, loose_right = {"+": ("", ""), "-": ("", "+-"), "*": ("+-", "+-"), "/": ("+-", "+-*/")}[operator]
    return f"{side(left, loose_left)}{operator}{side(right, loose_right)}"
