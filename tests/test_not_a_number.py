"""What is no number is not hidden: a NaN in a policy, a reward or a sample comes out again, in every function of it.

`test_tracing` asks the same of the core.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rlrazor as rz

P, Q = jax.nn.log_softmax(jnp.asarray(np.random.default_rng(0).normal(size=(2, 5))))
REWARD = jnp.array([1.0, 0.3, -0.5, 0.8, 0.0])
ACCEPT = jnp.array([False, True, False, True, False])
WORLD = rz.automaton(jnp.array([[0, 1, 1], [1, 0, 1]]))
LOG_TOKENS, LOG_OTHERS = jax.nn.log_softmax(jnp.asarray(np.random.default_rng(1).normal(size=(2, 2, 3))))
TOKEN_REWARD = jnp.asarray(np.random.default_rng(2).normal(size=(2, 3)))

CASES = {  # (function, arrays): the NaN goes to the place 1, or (0, 1), of each in turn
    "expected_reward": (rz.expected_reward, (P, REWARD)),
    "regularized_reward": (lambda p, q, r: rz.regularized_reward(p, q, r, 0.3), (P, Q, REWARD)),
    "penalized_reward": (lambda p, q, r: rz.penalized_reward(p, q, r, 0.3), (P, Q, REWARD)),
    "entropy_regularized_reward": (lambda p, r: rz.entropy_regularized_reward(p, r, 0.3), (P, REWARD)),
    "sft_loss": (rz.sft_loss, (P, Q)),
    "kl_penalty_loss": (rz.kl_penalty_loss, (P, Q)),
    "entropy_bonus_loss": (rz.entropy_bonus_loss, (P,)),
    "reinforce_loss": (rz.reinforce_loss, (P, REWARD)),
    "ppo_clip_loss": (lambda p, q, r: rz.ppo_clip_loss(p, q, r, 0.2), (P, Q, REWARD)),
    "ppo_clip_objective": (lambda p, q, r: rz.ppo_clip_objective(p, q, r, 0.2), (P, Q, REWARD)),
    "grpo_objective": (lambda p: rz.grpo_objective(p, ACCEPT, group_size=3), (P,)),
    "dr_grpo_objective": (lambda p: rz.dr_grpo_objective(p, ACCEPT, group_size=3), (P,)),
    "grpo_advantage": (rz.grpo_advantage, (REWARD,)),
    "dr_grpo_advantage": (rz.dr_grpo_advantage, (REWARD,)),
    "rloo_advantage": (rz.rloo_advantage, (REWARD,)),
    "bradley_terry_loss": (rz.bradley_terry_loss, (REWARD, P)),
    "dpo_loss": (lambda chosen, rejected: rz.dpo_loss(chosen, rejected, 0.1), (REWARD, P)),
    "ipo_loss": (lambda chosen, rejected: rz.ipo_loss(chosen, rejected, 0.1), (REWARD, P)),
    "hinge_loss": (lambda chosen, rejected: rz.hinge_loss(chosen, rejected, 0.1), (REWARD, P)),
    "ppo_ptx_optimum": (lambda p, r, q: rz.ppo_ptx_optimum(p, r, q, 0.3, 0.2), (P, REWARD, Q)),
    "regularized_optimum": (lambda p, r: rz.regularized_optimum(p, r, 0.3, divergence=rz.CHI2), (P, REWARD)),
    "k1": (rz.k1, (P, Q)),
    "k2": (rz.k2, (P, Q)),
    "k3": (rz.k3, (P, Q)),
    "moments": (rz.moments, (P, REWARD)),
    "covariance": (rz.covariance, (P, REWARD, Q)),
    "success_rate": (lambda p: rz.success_rate(p, ACCEPT), (P,)),
    "sequence_kl": (lambda p, q: rz.sequence_kl(WORLD, p, q, 3), (LOG_TOKENS, LOG_OTHERS)),
    "occupancy": (lambda p: rz.occupancy(WORLD, p, 3), (LOG_TOKENS,)),
    "expected_sum": (lambda p, r: rz.expected_sum(WORLD, p, r, 3), (LOG_TOKENS, TOKEN_REWARD)),
    "tilt_tokens": (lambda p, r: rz.tilt_tokens(WORLD, p, r, 0.5, 3).log_policy, (LOG_TOKENS, TOKEN_REWARD)),
    "top_k": (lambda p: rz.top_k(p, 2), (P,)),
    "top_p": (lambda p: rz.top_p(p, 0.5), (P,)),
    "rank_correlation": (rz.rank_correlation, (REWARD, P)),
    "isotonic_fit": (rz.isotonic_fit, (REWARD, P)),
    "isotonic_r2": (rz.isotonic_r2, (REWARD, P)),
    "quadratic_r2": (rz.quadratic_r2, (REWARD, P)),
    "value_at_crossing": (lambda s, d: rz.value_at_crossing(s, d, 0.5), (jnp.array([0.0, 0.4, 0.8]), P[:3])),
}


@pytest.mark.parametrize(("function", "arrays"), CASES.values(), ids=CASES)
def test_what_is_no_number_is_not_hidden(function, arrays):
    compiled = jax.jit(function)
    assert not any(np.isnan(leaf).any() for leaf in jax.tree.leaves(compiled(*arrays)))
    for place, array in enumerate(arrays):
        broken = array.at[(0, 1)[-array.ndim :]].set(jnp.nan)
        found = compiled(*(broken if at == place else x for at, x in enumerate(arrays)))
        assert any(np.isnan(leaf).any() for leaf in jax.tree.leaves(found)), place
