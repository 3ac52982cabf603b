"""Every method is a pull on the log-probabilities of answers: its gradient is that of -Σ_y pull(y) log policy(y).

An answer is a number for each card and a formula. A method that weights answers by w, as in
`rlrazor.tasks.navigation.methods`, pulls with w(y) - policy(y) Σ w, which sums to zero. With y* what the demonstrator
answers and r the reward,

    SFT           w = 1[y = y*], one solution of each hand, always the same
    uniform SFT   w uniform over the solutions
    oracle SFT    w = ref(y | solution)
    DFT           w = 1[y = y*] policy(y), for each number and for the formula
    exact RL      w = E[r; y], the reward of all answers that have y in them
    REINFORCE     1 if solved, else 0, over samples: SFT on filtered answers of its own
    GRPO          the reward less the mean of its group, over their standard deviation

The reward of reading all cards right is 5 with a solution and -1 without; a card read wrong costs 2 for a number that
is not there and 2 for the one left unused (two cards that are read as each other count as wrong, too, which the
verifier of texts would not see). The sampling methods may try again: what the verifier refused, a number of a
card or, if all were right, the formula, is not answered again.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from rlrazor._numerics import times_log, uniform
from rlrazor.checks import place_of
from rlrazor.methods import DFT, EXACT_RL, GRPO, ORACLE_SFT, REINFORCE, SFT, UNIFORM_SFT
from rlrazor.objectives import grpo_advantage
from rlrazor.policies import inverse_cdf
from rlrazor.tasks.points.game import BAD_NUMBER, CORRECT, NUM_NUMBERS, WRONG_VALUE
from rlrazor.tasks.points.player import Answers

SAMPLED = (REINFORCE, GRPO)
METHODS = (SFT, UNIFORM_SFT, ORACLE_SFT, DFT, EXACT_RL, *SAMPLED)
MISREAD = 2 * BAD_NUMBER  # a number that is not there, another left unused

Scalar: TypeAlias = Float[Array, ""]


class Truth(NamedTuple):
    """What is right for some hands, and what the demonstrator answers.

    Attributes:
        number: index of what each card counts, `[batch, cards]`.
        solves: whether a formula makes the target, `[batch, formulas]`.
        shown: the formula of the demonstrator, `[batch]`.
    """

    number: Int[Array, "batch cards"]
    solves: Bool[Array, "batch formulas"]
    shown: Int[Array, " batch"]


class Pulls(NamedTuple):
    """How a method pulls on the log-probabilities, zero in sum.

    Attributes:
        number: `[batch, cards, 13]`.
        formula: `[batch, formulas]`.
    """

    number: Float[Array, "batch cards numbers"]
    formula: Float[Array, "batch formulas"]


class Success(NamedTuple):
    """How likely answers are right.

    Attributes:
        read: all cards, `[batch]`.
        solved: the formula, if they are, `[batch]`.
    """

    read: Float[Array, " batch"]
    solved: Float[Array, " batch"]


class _Attempts(NamedTuple):
    """Groups of episodes on their way: what was refused, who goes on, the pulls so far, the answers given."""

    bad_number: Bool[Array, "batch group cards numbers"]
    bad_formula: Bool[Array, "batch group formulas"]
    live: Bool[Array, "batch group"]
    pulls: Pulls
    given: Scalar


def method_index(method: str) -> int:
    """The place of a method in `METHODS`.

    Args:
        method: its name.

    Returns:
        The index.

    Raises:
        ValueError: there is no such method.

    Example:
        >>> method_index("PPO")
        Traceback (most recent call last):
        ...
        ValueError: unknown method 'PPO'; there are SFT, uniform SFT, oracle SFT, DFT, exact RL, REINFORCE, GRPO
    """
    return place_of("method", method, METHODS)


def success(policy: Answers, truth: Truth) -> Success:
    """The probability of reading the cards right, and of then solving the hand.

    Args:
        policy: of the player, `[batch]`.
        truth: what is right.

    Returns:
        The `Success`; the success rate is read * solved.

    Example:
        >>> import jax.numpy as jnp
        >>> policy = Answers(jnp.log(jnp.full((1, 3, 13), 1 / 13)), jnp.log(jnp.array([[0.5, 0.3, 0.2]])))
        >>> truth = Truth(jnp.array([[0, 1, 2]]), jnp.array([[True, False, True]]), jnp.array([0]))
        >>> float(success(policy, truth).solved[0])
        0.7
    """
    read = jnp.take_along_axis(policy.log_number, truth.number[..., None], axis=-1)[..., 0].sum(-1)
    return Success(jnp.exp(read), jnp.where(truth.solves, jnp.exp(policy.log_formula), 0.0).sum(-1))


def reward(
    truth: Truth, number: Int[Array, "batch group cards"], formula: Int[Array, "batch group"]
) -> Float[Array, "batch group"]:
    """The verifier's reward of some answers to each hand.

    Args:
        truth: what is right.
        number: index of the number that each card is read as, `[batch, group, cards]`.
        formula: index, `[batch, group]`.

    Returns:
        5, -1 or -4, `[batch, group]`.

    Example:
        >>> import jax.numpy as jnp
        >>> truth = Truth(jnp.array([[0, 1, 2]]), jnp.array([[True, False, True]]), jnp.array([0]))
        >>> numbers = jnp.array([[[0, 1, 2], [0, 1, 2], [0, 1, 3]]])
        >>> reward(truth, numbers, jnp.array([[2, 1, 2]])).tolist()
        [[5.0, -1.0, -4.0]]
    """
    read = (number == truth.number[:, None]).all(-1)
    solved = jnp.take_along_axis(truth.solves, formula, axis=-1)
    return jnp.where(read, jnp.where(solved, float(CORRECT), float(WRONG_VALUE)), float(MISREAD))


def expected_reward(policy: Answers, truth: Truth) -> Float[Array, " batch"]:
    """The expected reward of one answer: p (5 s - (1 - s)) - 4 (1 - p), p the chance to read right and s to solve then.

    Args:
        policy: of the player, `[batch]`.
        truth: what is right.

    Returns:
        Rewards, `[batch]`, in [-4, 5].

    Example:
        >>> import jax.numpy as jnp
        >>> policy = Answers(jnp.log(jnp.full((1, 3, 13), 1 / 13)), jnp.log(jnp.array([[0.5, 0.3, 0.2]])))
        >>> truth = Truth(jnp.array([[0, 1, 2]]), jnp.array([[True, False, True]]), jnp.array([0]))
        >>> print(f"{expected_reward(policy, truth)[0]:.4f}")  # 13 ** 3 ways to read three cards
        -3.9967
    """
    read, solved = success(policy, truth)
    return read * (CORRECT * solved + WRONG_VALUE * (1 - solved)) + MISREAD * (1 - read)


def pulls(
    method: Int[Array, ""],
    policy: Answers,
    ref: Callable[[], Answers],
    truth: Truth,
    key: Key[Array, ""],
    attempts: Int[Array, ""],
    *,
    group_size: int = 8,
) -> Pulls:
    """The pulls of a method on some hands.

    Args:
        method: index into `METHODS`, traced.
        policy: of the player, `[batch]`.
        ref: gives the answers of the base, if they are asked for.
        truth: what is right, and what is demonstrated.
        key: randomness of the samples.
        attempts: answers of the sampling methods to each hand at most; they stop at a solution.
        group_size: episodes of each hand, of the sampling methods, static.

    Returns:
        The `Pulls`; those of the sampling methods are a mean over all answers given.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> policy = Answers(jnp.log(jnp.full((1, 3, 13), 1 / 13)), jnp.log(jnp.array([[0.5, 0.3, 0.2]])))
        >>> truth = Truth(jnp.array([[0, 1, 2]]), jnp.array([[True, False, True]]), jnp.array([0]))
        >>> for name in ("SFT", "uniform SFT", "DFT"):
        ...     pulled = pulls(
        ...         jnp.array(method_index(name)), policy, lambda: policy, truth, jax.random.key(0), jnp.array(1)
        ...     )
        ...     print(name, pulled.formula[0].round(2))
        SFT [ 0.5 -0.3 -0.2]
        uniform SFT [ 0.  -0.3  0.3]
        DFT [ 0.25 -0.15 -0.1 ]
    """
    number, formula = jnp.exp(policy.log_number), jnp.exp(policy.log_formula)
    dtype = number.dtype
    read = jax.nn.one_hot(truth.number, NUM_NUMBERS, dtype=dtype)
    shown = jax.nn.one_hot(truth.shown, formula.shape[-1], dtype=dtype)
    solves = truth.solves.astype(dtype)

    def weighted(on_number: Float[Array, "batch cards numbers"], on_formula: Float[Array, "batch formulas"]) -> Pulls:
        return Pulls(_pull(on_number, number), _pull(on_formula, formula))

    def oracle() -> Pulls:
        weight = jnp.exp(ref().log_formula) * solves
        return weighted(read, weight / weight.sum(-1, keepdims=True))

    def exact() -> Pulls:
        right = success(policy, truth).read
        mean = expected_reward(policy, truth)
        on_number = MISREAD * number + read * (mean - MISREAD)[:, None, None]  # but for all cards right: a misreading
        if_read = CORRECT * solves + WRONG_VALUE * (1 - solves)
        on_formula = formula * (right[:, None] * if_read + MISREAD * (1 - right[:, None]))
        return weighted(on_number, on_formula)

    table: dict[str, Callable[[], Pulls]] = {
        SFT: lambda: weighted(read, shown),
        UNIFORM_SFT: lambda: weighted(read, solves / solves.sum(-1, keepdims=True)),
        ORACLE_SFT: oracle,
        DFT: lambda: weighted(read * number, shown * formula),
        EXACT_RL: exact,
    }

    def advantage(paid: Float[Array, "batch group"], live: Bool[Array, "batch group"]) -> Float[Array, "batch group"]:
        advantages: dict[str, Callable[[], Array]] = {
            REINFORCE: lambda: ((paid == CORRECT) & live).astype(dtype),
            GRPO: lambda: _live_grpo_advantage(paid, live),
        }
        each: Array = jax.lax.switch(method - len(METHODS) + len(SAMPLED), [advantages[name] for name in SAMPLED])
        return each

    def sampled() -> Pulls:
        return _explore(policy, truth, key, attempts, advantage, group_size)

    chosen: Pulls = jax.lax.switch(method, [*(table[name] for name in METHODS if name not in SAMPLED), sampled])
    return chosen


def pulled_loss(policy: Answers, pulls: Pulls) -> Scalar:
    """The surrogate -Σ_y pull(y) log policy(y), the mean over hands, with the pulls held fixed.

    Args:
        policy: of the player, `[batch]`.
        pulls: `[batch]`.

    Returns:
        The loss, a scalar, whose gradient is that of the method.

    Example:
        >>> import jax.numpy as jnp
        >>> policy = Answers(jnp.log(jnp.full((1, 3, 13), 1 / 13)), jnp.log(jnp.array([[0.5, 0.3, 0.2]])))
        >>> print(pulled_loss(policy, Pulls(jnp.zeros((1, 3, 13)), jnp.array([[0.5, -0.3, -0.2]]))).round(4))
        -0.3365
    """
    number = times_log(jax.lax.stop_gradient(pulls.number), policy.log_number).sum((-2, -1))
    return -(number + times_log(jax.lax.stop_gradient(pulls.formula), policy.log_formula).sum(-1)).mean()


def _pull(
    weight: Float[Array, "*batch answers"], policy: Float[Array, "*batch answers"]
) -> Float[Array, "*batch answers"]:
    """What weights on log-probabilities do to logits: w - policy Σ w."""
    return weight - policy * weight.sum(-1, keepdims=True)


def _live_grpo_advantage(
    reward: Float[Array, "batch group"], live: Bool[Array, "batch group"]
) -> Float[Array, "batch group"]:
    """GRPO's advantage among the episodes that go on."""
    count = jnp.maximum(live.sum(-1, keepdims=True), 1).astype(reward.dtype)
    mean = jnp.where(live, reward, 0.0).sum(-1, keepdims=True) / count
    filled = jnp.where(live, reward, mean)  # the others do not change the mean, but dilute the variance
    return jnp.where(live, grpo_advantage(filled) * jnp.sqrt(count / live.shape[-1]), 0.0)


def _explore(
    policy: Answers,
    truth: Truth,
    key: Key[Array, ""],
    attempts: Int[Array, ""],
    advantage: Callable[[Array, Array], Array],
    group_size: int,
) -> Pulls:
    """Pulls of groups of episodes that end with a solution or with the last attempt."""
    num_hands, num_cards, num_numbers = policy.log_number.shape
    num_formulas, dtype = policy.log_formula.shape[-1], policy.log_number.dtype
    groups = (num_hands, group_size)

    def answer(log_policy: Array, refused: Array, quantile: Array) -> tuple[Array, Array, Array]:
        allowed = jax.nn.log_softmax(jnp.where(refused, -jnp.inf, log_policy))
        given = inverse_cdf(allowed, quantile[..., None])[..., 0]
        return given, jax.nn.one_hot(given, allowed.shape[-1], dtype=dtype), jnp.exp(allowed)

    def attempt(index: Int[Array, ""], state: _Attempts) -> _Attempts:
        drawn = uniform(jax.random.fold_in(key, index), (*groups, num_cards + 1), dtype)
        number, named, of_number = answer(policy.log_number[:, None], state.bad_number, drawn[..., :-1])
        formula, written, of_formula = answer(policy.log_formula[:, None], state.bad_formula, drawn[..., -1])
        paid = reward(truth, number, formula).astype(dtype)
        share = advantage(paid, state.live)[..., None]
        gained = Pulls(
            (share[..., None] * (named - of_number)).sum(1),
            (share * (written - of_formula)).sum(1),
        )
        wrong_number = (named > 0) & ((number != truth.number[:, None]) & state.live[..., None])[..., None]
        wrong_formula = (written > 0) & ((paid == WRONG_VALUE) & state.live)[..., None]
        return _Attempts(
            state.bad_number | wrong_number,
            state.bad_formula | wrong_formula,
            state.live & (paid != CORRECT),
            jax.tree.map(jnp.add, state.pulls, gained),
            state.given + state.live.sum().astype(dtype),
        )

    start = _Attempts(
        jnp.zeros((*groups, num_cards, num_numbers), bool),
        jnp.zeros((*groups, num_formulas), bool),
        jnp.ones(groups, bool),
        Pulls(jnp.zeros_like(policy.log_number), jnp.zeros_like(policy.log_formula)),
        jnp.zeros((), dtype),
    )
    end = jax.lax.fori_loop(0, attempts, attempt, start)
    mean: Pulls = jax.tree.map(lambda pull: pull * num_hands / end.given, end.pulls)
    return mean
