"""The table of methods: one name a method, its exact loss and its sampled loss.

    method            exact loss                                sampled loss
    SFT, SFT 1, ...   sft_loss(policy, its demonstrations)      reinforce_loss(log_prob, 1) on demonstrations
    oracle SFT        the same on ref(. | S)                    the same
    DFT               -E_demonstrations[policy(y)]              reinforce_loss(log_prob, policy(y)) on demonstrations
    exact RL          -expected_reward                          the same, which is exact over the outcomes
    SimPO             expected_simpo_loss                       simpo_loss on pairs
    REINFORCE         -expected_reward                          reinforce_loss(log_prob, reward)
    RLOO              -expected_reward                          reinforce_loss(log_prob, rloo_advantage(reward))
    Dr. GRPO          -dr_grpo_objective                        reinforce_loss(log_prob, dr_grpo_advantage(reward))
    GRPO              -grpo_objective                           reinforce_loss(log_prob, grpo_advantage(reward))
    ... + KL          + beta KL(policy || ref)                  + the same, which is exact over the outcomes

The reward is 1 inside the success set S and 0 outside. A name ending in "+ replay" adds the SFT loss on the old task,
of which a `Problem` knows nothing: the world that has an old task adds it. DFT is SFT with every demonstration weighted
by its probability, held fixed (Wu et al., arXiv:2508.05629): a policy gradient whose reward is the demonstrator's
probability. Conventions as in `rlrazor.divergences`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from rlrazor._types import LogProbs, Number, PerRow
from rlrazor.divergences import kl_divergence
from rlrazor.objectives import (
    dr_grpo_advantage,
    dr_grpo_objective,
    expected_reward,
    expected_simpo_loss,
    grpo_advantage,
    grpo_objective,
    reinforce_loss,
    rloo_advantage,
    sft_loss,
    simpo_loss,
)
from rlrazor.policies import inverse_cdf
from rlrazor.tilting import condition

SFT, SFT_1, SFT_2, ORACLE_SFT, DISTILLED_GRPO = "SFT", "SFT 1", "SFT 2", "oracle SFT", "distilled GRPO"
UNIFORM_SFT, DFT = "uniform SFT", "DFT"
SIMPO = "SimPO"
EXACT_RL = "exact RL"
REINFORCE, RLOO, DR_GRPO, GRPO = "REINFORCE", "RLOO", "Dr. GRPO", "GRPO"

IMITATION = (SFT, SFT_1, SFT_2, UNIFORM_SFT, ORACLE_SFT, DISTILLED_GRPO, DFT)
POLICY_GRADIENT = (EXACT_RL, REINFORCE, RLOO, DR_GRPO, GRPO)
_PLAIN = (*IMITATION, SIMPO, *POLICY_GRADIENT)
_KL, _REPLAY = " + KL", " + replay"


def plus_kl(method: str) -> str:
    """The method with a KL penalty, beta KL(policy || ref).

    Args:
        method: a name of the table.

    Returns:
        Its name.

    Example:
        >>> plus_kl(GRPO)
        'GRPO + KL'
    """
    return method + _KL


def plus_replay(method: str) -> str:
    """The method with the SFT loss on the old task, also known as pretraining gradients.

    Args:
        method: a name of the table.

    Returns:
        Its name.

    Example:
        >>> plus_replay(SFT_1)
        'SFT 1 + replay'
    """
    return method + _REPLAY


METHODS = (*_PLAIN, *map(plus_kl, _PLAIN), *map(plus_replay, _PLAIN))


class Problem(NamedTuple):
    """A new task on a finite outcome space, and whom to learn from.

    Attributes:
        log_ref: the base policy, `[..., outcomes]`.
        accept: the success set S, boolean, `[..., outcomes]`.
        demonstrations: who is imitated, by method: log-probabilities `[..., outcomes]`. SimPO prefers its entry;
            oracle SFT has none, for it imitates ref(. | S).
        log_rejected: whose answers SimPO rejects, `[..., outcomes]`.
        group_size: samples of each prompt in GRPO and Dr. GRPO, static.
        beta: coefficient of "+ KL", a number or `[...]`.
        simpo_beta: SimPO's scale.
        simpo_margin: SimPO's target margin; both 1 in "RL's Razor".
    """

    log_ref: Float[Array, "*#batch outcomes"]
    accept: Bool[Array, "*#batch outcomes"]
    demonstrations: Mapping[str, Float[Array, "*#batch outcomes"]] = {}
    log_rejected: Float[Array, "*#batch outcomes"] | None = None
    group_size: int = 8
    beta: Number = 0.1
    simpo_beta: Number = 1.0
    simpo_margin: Number = 1.0


def demonstrator(method: str, problem: Problem) -> LogProbs:
    """The policy whose answers a method imitates, or prefers.

    Args:
        method: SFT of any kind, a distillation or SimPO.
        problem: the new task.

    Returns:
        Log-probabilities, `[..., outcomes]`.

    Raises:
        ValueError: the problem has no demonstrations for the method.

    Example:
        >>> import jax.numpy as jnp
        >>> problem = Problem(jnp.log(jnp.array([0.2, 0.2, 0.6])), jnp.array([True, True, False]))
        >>> jnp.exp(demonstrator(ORACLE_SFT, problem)).round(2).tolist()
        [0.5, 0.5, 0.0]
    """
    if method == ORACLE_SFT:
        return condition(problem.log_ref, problem.accept)
    if method not in problem.demonstrations:
        known = ", ".join(problem.demonstrations) or "none"
        raise ValueError(f"the problem has no demonstrations for {method!r}; it has {known}")
    return problem.demonstrations[method]


def exact_loss(method: str, problem: Problem) -> Callable[[LogProbs], PerRow]:
    """The exact loss of a method, a function of the log-policy, whose gradient is the expected gradient of sampling.

    Args:
        method: a name of the table.
        problem: the new task.

    Returns:
        Log-policy `[..., outcomes]` -> loss `[...]`, to be minimised.

    Raises:
        ValueError: `method` is not in the table, or the problem lacks what it learns from.

    Example:
        >>> import jax.numpy as jnp
        >>> problem = Problem(jnp.log(jnp.array([0.2, 0.2, 0.6])), jnp.array([True, True, False]))
        >>> print(f"{exact_loss(REINFORCE, problem)(problem.log_ref):.4f}")
        -0.4000
        >>> exact_loss("GRP0", problem)
        Traceback (most recent call last):
        ...
        ValueError: unknown method 'GRP0'; there are SFT, SFT 1, SFT 2, uniform SFT, oracle SFT, distilled GRPO, DFT, SimPO, exact RL, REINFORCE, RLOO, Dr. GRPO, GRPO, each also with + KL
    """  # noqa: E501  (the error is one line)
    plain = _plain(method)
    target = problem.log_ref if plain in POLICY_GRADIENT else demonstrator(plain, problem)
    rejected = _rejected(problem) if plain == SIMPO else problem.log_ref

    def loss(log_policy: LogProbs) -> PerRow:
        reward = problem.accept.astype(log_policy.dtype)
        if plain == GRPO:
            return -grpo_objective(log_policy, problem.accept, problem.group_size)
        if plain == DR_GRPO:
            return -dr_grpo_objective(log_policy, reward, problem.group_size)
        if plain in POLICY_GRADIENT:
            return -expected_reward(log_policy, reward)
        if plain == SIMPO:
            return expected_simpo_loss(log_policy, target, rejected, problem.simpo_beta, problem.simpo_margin)
        if plain == DFT:
            return -expected_reward(log_policy, jnp.exp(target))
        return sft_loss(log_policy, target)

    def penalized(log_policy: LogProbs) -> PerRow:
        return loss(log_policy) + problem.beta * kl_divergence(log_policy, problem.log_ref)

    return penalized if method.endswith(_KL) else loss


def exact_losses(methods: Sequence[str], problem: Problem) -> dict[str, Callable[[LogProbs], Float[Array, ""]]]:
    """The exact loss of each method, the mean over prompts: what `gradient_flows` takes.

    Args:
        methods: names of the table.
        problem: the new task.

    Returns:
        By name: log-policy `[..., outcomes]` -> loss, a scalar.

    Raises:
        ValueError: see `exact_loss`.

    Example:
        >>> import jax.numpy as jnp
        >>> from rlrazor.flows import gradient_flows
        >>> problem = Problem(jnp.log(jnp.array([0.2, 0.2, 0.6])), jnp.array([True, True, False]))
        >>> losses = exact_losses((REINFORCE, ORACLE_SFT), problem)
        >>> flows = gradient_flows(losses, problem.log_ref, jnp.array([0.0, 1e3]))
        >>> [bool(jnp.exp(flows[method].log_policy[-1, :2]).sum() > 0.99) for method in losses]
        [True, True]
    """

    def mean(loss: Callable[[LogProbs], PerRow]) -> Callable[[LogProbs], Float[Array, ""]]:
        return lambda log_policy: loss(log_policy).mean()

    return {method: mean(exact_loss(method, problem)) for method in methods}


def sampled_loss(
    method: str, problem: Problem
) -> Callable[[LogProbs, Float[Array, "*batch samples"], Float[Array, "*batch samples"] | None], PerRow]:
    """The sampled loss of a method, a function of the log-policy and of uniform random numbers.

    Answers are drawn by inverting the cumulative distribution at the uniform numbers: the policy's own for policy
    gradients, demonstrations for the others. What is drawn is not differentiated.

    Args:
        method: a name of the table.
        problem: the new task.

    Returns:
        (log-policy `[..., outcomes]`, uniform `[..., samples]`, uniform of SimPO's rejected answers) -> loss `[...]`.

    Raises:
        ValueError: `method` is not in the table, or the problem lacks what it learns from.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> problem = Problem(jnp.log(jnp.array([[0.2, 0.2, 0.6]])), jnp.array([[True, True, False]]))
        >>> uniform = jax.random.uniform(jax.random.key(0), (1, 8))
        >>> sampled_loss(GRPO, problem)(problem.log_ref, uniform, None).shape
        (1,)
    """
    plain = _plain(method)
    advantages = {
        REINFORCE: lambda reward: reward,
        RLOO: rloo_advantage,
        DR_GRPO: dr_grpo_advantage,
        GRPO: grpo_advantage,
    }
    target = problem.log_ref if plain in POLICY_GRADIENT else demonstrator(plain, problem)
    rejected = _rejected(problem) if plain == SIMPO else problem.log_ref

    def loss(log_policy: LogProbs, uniform: Float[Array, "..."], other: Float[Array, "..."] | None = None) -> PerRow:
        def log_prob(answers: Array) -> Float[Array, "..."]:
            return jnp.take_along_axis(log_policy, answers, axis=-1)

        if plain == EXACT_RL:
            return exact_loss(plain, problem)(log_policy)
        if plain in POLICY_GRADIENT:
            own = inverse_cdf(log_policy, uniform)
            reward = jnp.take_along_axis(problem.accept, own, axis=-1).astype(log_policy.dtype)
            return reinforce_loss(log_prob(own), advantages[plain](reward))
        right = log_prob(inverse_cdf(target, uniform))
        if plain == SIMPO:
            if other is None:
                raise ValueError("SimPO needs uniform numbers for its rejected answers, too")
            return simpo_loss(right, log_prob(inverse_cdf(rejected, other)), problem.simpo_beta, problem.simpo_margin)
        return reinforce_loss(right, jnp.exp(right) if plain == DFT else jnp.ones_like(right))

    def penalized(
        log_policy: LogProbs, uniform: Float[Array, "..."], other: Float[Array, "..."] | None = None
    ) -> PerRow:
        return loss(log_policy, uniform, other) + problem.beta * kl_divergence(log_policy, problem.log_ref)

    return penalized if method.endswith(_KL) else loss


def _plain(method: str) -> str:
    """The method without its penalty, if the table has it and a `Problem` is all that it needs."""
    plain = method.removesuffix(_KL)
    if plain not in _PLAIN:
        replay = "; the world that has an old task adds the replay" if method.endswith(_REPLAY) else ""
        raise ValueError(f"unknown method {method!r}; there are {', '.join(_PLAIN)}, each also with + KL{replay}")
    return plain


def _rejected(problem: Problem) -> LogProbs:
    if problem.log_rejected is None:
        raise ValueError(f"the problem has no log_rejected, which {SIMPO} needs")
    return problem.log_rejected
