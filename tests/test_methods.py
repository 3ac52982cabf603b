"""The table of methods: every sampled loss has the gradient of its exact one, and every mistake has an error."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rlrazor as rz
from rlrazor import methods as m
from tests.oracles import quick_jit

GRID, GROUP = 20, 3  # every probability below is a multiple of 1 / GRID, so that the grid of quantiles is exact
LOG_REF = jnp.log(jnp.array([[0.1, 0.25, 0.45, 0.2]]))
LOG_POLICY = jnp.log(jnp.array([[0.3, 0.15, 0.35, 0.2]]))
TARGET, OTHER = jnp.log(jnp.array([[[0.4, 0.1, 0.25, 0.25]], [[0.2, 0.05, 0.6, 0.15]]]))
ACCEPT = jnp.array([[True, False, False, True]])
PROBLEM = m.Problem(
    LOG_REF,
    ACCEPT,
    {
        m.SFT: TARGET,
        m.SFT_1: TARGET,
        m.SFT_2: OTHER,
        m.UNIFORM_SFT: OTHER,
        m.DISTILLED_GRPO: TARGET,
        m.DFT: TARGET,
        m.SIMPO: TARGET,
    },
    log_rejected=OTHER,
    group_size=GROUP,
    beta=0.7,
    simpo_beta=1.3,
    simpo_margin=0.4,
)
WITHOUT_REPLAY = [name for name in m.METHODS if not name.endswith(m.plus_replay(""))]
QUANTILES = (np.arange(60) + 0.5) / 60  # 60 = 3 GRID: ref(. | S) = (1, 2) / 3 is on it, too
MIDPOINTS = (np.arange(GRID) + 0.5) / GRID


def enumerated(method):
    """Uniform numbers that give every group of answers, or every pair, as often as its probability says."""
    if method.startswith(m.SIMPO):
        return [np.array(x)[:, None] for x in zip(*itertools.product(MIDPOINTS, repeat=2), strict=True)]
    if method.startswith(m.POLICY_GRADIENT):
        return np.array(list(itertools.product(MIDPOINTS, repeat=GROUP))), None
    return QUANTILES[:, None], None


@pytest.mark.parametrize("method", WITHOUT_REPLAY)
def test_the_mean_gradient_of_the_sampled_loss_is_the_gradient_of_the_exact_one(method):
    uniform, other = (None if x is None else jnp.asarray(x) for x in enumerated(method))
    exact, sampled = m.exact_loss(method, PROBLEM), m.sampled_loss(method, PROBLEM)

    def mean(logits):
        log_policy = jnp.broadcast_to(jax.nn.log_softmax(logits), (len(uniform), 4))
        return sampled(log_policy, uniform, other).mean()

    want = quick_jit(jax.grad(lambda logits: exact(jax.nn.log_softmax(logits))[0]))(LOG_POLICY)
    assert np.abs(want).max() > 1e-2
    np.testing.assert_allclose(quick_jit(jax.grad(mean))(LOG_POLICY), want, rtol=0, atol=1e-12)


@pytest.mark.parametrize("build", [m.exact_loss, m.sampled_loss])
def test_a_misspelt_name_is_an_error_that_lists_the_names(build):
    for name in ("GRP0", m.GRPO.lower(), "", m.plus_kl(m.plus_kl(m.GRPO))):
        with pytest.raises(ValueError, match=f"unknown method '.*'; there are {m.SFT}, .*, {m.GRPO}, each"):
            build(name, PROBLEM)


@pytest.mark.parametrize("build", [m.exact_loss, m.sampled_loss])
def test_replay_says_who_adds_it(build):
    with pytest.raises(ValueError, match="the world that has an old task adds the replay"):
        build(m.plus_replay(m.SFT), PROBLEM)


@pytest.mark.parametrize("build", [m.exact_loss, m.sampled_loss])
def test_missing_demonstrations_and_rejected_answers_are_named(build):
    with pytest.raises(ValueError, match=f"no demonstrations for '{m.SFT_1}'; it has none"):
        build(m.SFT_1, m.Problem(LOG_REF, ACCEPT))
    with pytest.raises(ValueError, match=f"no demonstrations for '{m.SIMPO}'; it has {m.SFT}"):
        build(m.SIMPO, m.Problem(LOG_REF, ACCEPT, {m.SFT: TARGET}))
    with pytest.raises(ValueError, match=f"no log_rejected, which {m.SIMPO} needs"):
        build(m.SIMPO, PROBLEM._replace(log_rejected=None))


def test_simpo_needs_uniform_numbers_for_its_rejected_answers():
    with pytest.raises(ValueError, match=f"{m.SIMPO} needs uniform numbers"):
        m.sampled_loss(m.SIMPO, PROBLEM)(LOG_POLICY, jnp.full((1, 3), 0.5), None)


@pytest.mark.parametrize("method", [name for name in WITHOUT_REPLAY if m.plus_kl(name) in m.METHODS])
def test_plus_kl_adds_beta_times_the_reverse_kl(method):
    p, q = np.exp(LOG_POLICY[0]), np.exp(LOG_REF[0])
    penalty = 0.7 * sum(p * np.log(p / q))
    uniform = jnp.array([[0.1, 0.4, 0.9]])
    without, with_kl = (m.exact_loss(name, PROBLEM)(LOG_POLICY) for name in (method, m.plus_kl(method)))
    np.testing.assert_allclose(with_kl - without, penalty, rtol=1e-12)
    without, with_kl = (
        m.sampled_loss(name, PROBLEM)(LOG_POLICY, uniform, uniform) for name in (method, m.plus_kl(method))
    )
    np.testing.assert_allclose(with_kl - without, penalty, rtol=1e-12)


def test_every_name_is_there_once():
    assert len(set(m.METHODS)) == len(m.METHODS)
    assert {m.GRPO, m.plus_kl(m.GRPO), m.plus_replay(m.SFT)} <= set(m.METHODS)


def test_oracle_sft_imitates_the_reference_given_success():
    np.testing.assert_allclose(np.exp(m.demonstrator(m.ORACLE_SFT, PROBLEM)), [[1 / 3, 0, 0, 2 / 3]], rtol=1e-12)


def test_dft_is_twice_as_slow_as_policy_gradient_where_one_answer_is_right():
    """With rewards of 1 and -1 the expected reward is 2 policy(y*) - 1, of which DFT climbs policy(y*)."""
    right = jnp.array([[False, True, False, False]])
    problem = m.Problem(LOG_REF, right, {m.DFT: rz.point_mass(jnp.array([1]), 4)})
    slope = jax.grad(lambda x: m.exact_loss(m.DFT, problem)(jax.nn.log_softmax(x))[0])(LOG_POLICY)
    reward = jnp.where(right, 1.0, -1.0)
    want = jax.grad(lambda x: -rz.expected_reward(jax.nn.log_softmax(x), reward)[0])(LOG_POLICY)
    np.testing.assert_allclose(2 * slope, want, atol=1e-12)
    assert float(jnp.abs(slope).max()) > 1e-2


def test_exact_losses_are_means_over_prompts():
    names, two = (m.GRPO, m.SFT), jnp.concatenate([LOG_POLICY, LOG_REF])
    losses = rz.exact_losses(names, PROBLEM)
    assert tuple(losses) == names
    for name in names:
        want = np.mean([m.exact_loss(name, PROBLEM)(row[None])[0] for row in two])
        np.testing.assert_allclose(losses[name](two), want, rtol=1e-12)
