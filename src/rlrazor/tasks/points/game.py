"""GeneralPoints: make 24 of four cards, where a rule says what the face cards count; all hands, and the verifier.

Rule 0, "tens", counts J, Q and K as 10; rule 1, "faces", as 11, 12 and 13 (Chu et al., arXiv:2501.17161). The verifier
pays as the released code does (LeslieTrue/SFTvsRL), but for its test of the value, which compares floating-point
numbers there and rejects the only solution of 3, 3, 8, 8.
"""

import re
from collections import Counter
from fractions import Fraction
from itertools import combinations_with_replacement
from math import factorial
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from rlrazor.checks import place_of
from rlrazor.tasks.points.arithmetic import evaluate, formulas

RANKS = ("A", "2", "3", "4", "5", "6", "7", "8", "9", "10", "J", "Q", "K")
NUM_NUMBERS = 13  # a card may be read as any number from 1 to 13
RULES = ("tens", "faces")
TENS, FACES = RULES
CORRECT, PARTIAL, WRONG_VALUE, BAD_NUMBER, MALFORMED = 5, 1, -1, -2, -3  # rewards


class Verdict(NamedTuple):
    """What the verifier says of a formula.

    Attributes:
        reward: the sum of what is paid and of all penalties.
        message: what the next prompt says about it.
    """

    reward: int
    message: str


class Game(NamedTuple):
    """Every hand of cards, and which formulas solve it under each rule.

    Attributes:
        ranks: of the cards, in order, 0 for the ace to 12 for the king, `[hands, cards]`.
        draws: probability of the hand where every card is drawn uniformly, `[hands]`.
        numbers: what the cards count, `[rules, hands, cards]`.
        solves: whether a formula makes the target, `[rules, hands, formulas]`.
        value: of every formula, NaN where it divides by zero, `[rules, hands, formulas]`.
    """

    ranks: Int[np.ndarray, "hands cards"]
    draws: Float[np.ndarray, " hands"]
    numbers: Int[np.ndarray, "rules hands cards"]
    solves: Bool[np.ndarray, "rules hands formulas"]
    value: Float[np.ndarray, "rules hands formulas"]


def rule_index(rule: str) -> int:
    """The place of a rule in `RULES`.

    Args:
        rule: its name.

    Returns:
        The index.

    Raises:
        ValueError: there is no such rule.

    Example:
        >>> rule_index("elevens")
        Traceback (most recent call last):
        ...
        ValueError: unknown rule 'elevens'; there are tens, faces
    """
    return place_of("rule", rule, RULES)


def card_numbers(ranks: Int[np.ndarray, "*batch"], rule: str) -> Int[np.ndarray, "*batch"]:
    """What cards count under a rule.

    Args:
        ranks: 0 for the ace to 12 for the king, `[...]`.
        rule: "tens" or "faces".

    Returns:
        Numbers from 1 to 13, `[...]`.

    Raises:
        ValueError: there is no such rule.

    Example:
        >>> import numpy as np
        >>> card_numbers(np.array([0, 9, 12]), "tens").tolist(), card_numbers(np.array([0, 9, 12]), "faces").tolist()
        ([1, 10, 10], [1, 10, 13])
    """
    numbers = ranks + 1
    return np.minimum(numbers, 10) if rule_index(rule) == 0 else numbers


def all_hands(num_cards: int) -> Int[np.ndarray, "hands cards"]:
    """Every hand, its cards in order.

    Args:
        num_cards: of a hand, 3 or 4.

    Returns:
        Ranks from 0 to 12, `[hands, cards]`: 455 hands of three cards, 1,820 of four.

    Example:
        >>> len(all_hands(3)), len(all_hands(4))
        (455, 1820)
    """
    return np.array(list(combinations_with_replacement(range(len(RANKS)), num_cards)))


def make_game(num_cards: int = 4, target: int = 24) -> Game:
    """The game with so many cards, worked out exactly.

    Args:
        num_cards: of a hand, 3 or 4.
        target: what the cards have to make.

    Returns:
        The `Game`.

    Raises:
        ValueError: another number of cards, or a target that no hand makes, or none with a face card under rule 1.

    Example:
        >>> game = make_game()
        >>> [int(solved.any(-1).sum()) for solved in game.solves]  # of 1,820 hands
        [1236, 1362]
        >>> make_game(3, target=100_000)
        Traceback (most recent call last):
        ...
        ValueError: target must be made by hands of 3 cards, under the second rule with a face card, got 100000
    """
    if num_cards not in (3, 4):
        raise ValueError(f"num_cards must be 3 or 4, got {num_cards}")
    ranks = all_hands(num_cards)
    numbers = np.stack([card_numbers(ranks, rule) for rule in RULES])
    values = [evaluate(formula, numbers) for formula in formulas(num_cards)]
    solves = np.stack([value.equal(target) for value in values], axis=-1)
    face = (ranks >= RANKS.index("J")).any(-1)
    if not (solves[0].any() and solves[1, face].any()):
        raise ValueError(
            f"target must be made by hands of {num_cards} cards, under the second rule with a face card, got {target}"
        )
    value = [
        np.where(v.denominator == 0, np.nan, v.numerator / np.where(v.denominator == 0, 1, v.denominator))
        for v in values
    ]
    orders = [factorial(num_cards) / np.prod([factorial(n) for n in Counter(hand).values()]) for hand in ranks.tolist()]
    draws = np.array(orders) / len(RANKS) ** num_cards
    return Game(ranks, draws, numbers, solves, np.stack(value, axis=-1))


def hand_index(cards: tuple[str, ...], game: Game, rule: str) -> int:
    """The place of a hand in a game, if it can be solved.

    Args:
        cards: ranks such as "A", "10" or "K", in any order.
        game: the game.
        rule: "tens" or "faces".

    Returns:
        The index.

    Raises:
        ValueError: a card or rule that does not exist, another number of cards, or no solution.

    Example:
        >>> game = make_game()
        >>> game.ranks[hand_index(("8", "3", "8", "3"), game, "tens")].tolist()
        [2, 2, 7, 7]
        >>> hand_index(("A", "A", "A", "A"), game, "tens")
        Traceback (most recent call last):
        ...
        ValueError: the hand A, A, A, A has no solution under the rule 'tens'
    """
    rule_place, shown = rule_index(rule), ", ".join(cards)
    ranks = sorted(place_of("card", card, RANKS) for card in cards)
    if len(cards) != game.ranks.shape[1]:
        raise ValueError(f"a hand must have {game.ranks.shape[1]} cards, got {shown}")
    place = int(np.flatnonzero((game.ranks == ranks).all(-1))[0])
    if not game.solves[rule_place, place].any():
        raise ValueError(f"the hand {shown} has no solution under the rule {rule!r}")
    return place


_TOKEN = re.compile(r"\d+|[-+*/()]")
_AFTER = {  # what may stand before a token of a kind
    "number": ("start", "operator", "("),
    "operator": ("number", ")"),
    "(": ("start", "operator", "("),
    ")": ("number", ")"),
}


def verify(formula: str, numbers: tuple[int, ...], target: int = 24) -> Verdict:
    """The published reward of a formula, whose penalties add up.

    Illegal characters cost 3 and end the check. Otherwise every malformed transition between two tokens costs 3;
    numbers that are not on the cards, or used too often, cost 2; cards left unused cost 2 more. Without penalty a
    formula that makes the target is paid 5, one that only lacks its last brackets to do so 1, and any other costs 1.

    Args:
        formula: such as "8/(3-8/3)"; what follows "=" is not read.
        numbers: what the cards count.
        target: what they have to make.

    Returns:
        The `Verdict`.

    Example:
        >>> verify("8/(3-8/3)", (3, 3, 8, 8)).reward  # exact: in floating point the value is 23.999999999999989
        5
        >>> verify("8/(3-8/3", (3, 3, 8, 8)).reward, verify("8+8+3+3", (3, 3, 8, 8)).reward
        (1, -1)
        >>> verify("8*9)", (3, 3, 8, 8))
        Verdict(reward=-7, message="unmatched ')', 9 is not on the cards, 3, 8 left unused")

    References:
        Chu et al., "SFT Memorizes, RL Generalizes", arXiv:2501.17161, and its released code.
    """
    formula = formula.split("=")[0]
    tokens = _TOKEN.findall(formula)
    if "".join(tokens) != formula:
        return Verdict(MALFORMED, "illegal characters")
    faults = _malformed(tokens)
    reward, used, held = MALFORMED * len(faults), Counter(int(t) for t in tokens if t.isdigit()), Counter(numbers)
    for case, culprits in (
        ("not on the cards", [n for n in used if n not in held]),
        ("used too often", [n for n in used if used[n] > held[n]]),
    ):
        if culprits:
            reward += BAD_NUMBER
            faults.append(f"{_listed(culprits)} {'is' if len(culprits) == 1 else 'are'} {case}")
            break
    unused = [n for n in held if held[n] > used[n]]
    if unused:
        reward += BAD_NUMBER
        faults.append(f"{_listed(unused)} left unused")
    if faults:
        return Verdict(reward, ", ".join(faults))
    open_brackets = formula.count("(") - formula.count(")")
    value = _value(formula + ")" * open_brackets)
    if value != target:
        return Verdict(WRONG_VALUE, "does not match any solution")
    return Verdict(PARTIAL, "partial solution") if open_brackets else Verdict(CORRECT, "correct solution")


def float_test(formula: str, target: int = 24) -> bool:
    """The published test of the value, in floating point, which an exact solution can fail.

    Args:
        formula: numbers, + - * / and brackets only.
        target: what it has to make.

    Returns:
        Whether the rounded value equals the target.

    Example:
        >>> float_test("8/(3-8/3)"), float_test("4*6*1*1")
        (False, True)
    """
    return _value(formula, float) == target


def _malformed(tokens: list[str]) -> list[str]:
    """The faults between neighboring tokens, and the closing brackets without an opening one."""
    faults, before, depth = [], "start", 0
    for token in tokens:
        kind = "number" if token.isdigit() else token if token in "()" else "operator"
        if before not in _AFTER[kind]:
            faults.append(f"{token!r} after {before}")
        elif kind == "(":
            depth += 1
        elif kind == ")":
            depth -= 1
            if depth < 0:
                faults.append("unmatched ')'")
                depth = 0
        before = kind
    return faults


def _value(formula: str, number: type = Fraction) -> Fraction | float | None:
    """The value of a formula by recursive descent; None where it divides by zero or is cut short."""
    tokens = [*_TOKEN.findall(formula), "end"]

    def factor() -> Fraction | float:
        token = tokens.pop(0)
        if token == "(":
            inside = expression()
            tokens.pop(0)
            return inside
        return number(int(token))  # type: ignore[no-any-return]  # of any type of number

    def term() -> Fraction | float:
        value = factor()
        while tokens[0] in ("*", "/"):
            value = value * factor() if tokens.pop(0) == "*" else value / factor()
        return value

    def expression() -> Fraction | float:
        value = term()
        while tokens[0] in ("+", "-"):
            value = value + term() if tokens.pop(0) == "+" else value - term()
        return value

    try:
        return expression()
    except (ZeroDivisionError, ValueError):
        return None


def _listed(numbers: list[int]) -> str:
    return ", ".join(str(n) for n in numbers)
