"""DPO on one pair: what is not trained stays, a table never loses its chosen answer, and a small step is a flow."""

import jax
import jax.numpy as jnp
import numpy as np
import scipy.integrate

from rlrazor.tasks.displacement import (
    CHOSEN,
    FREE_HEAD,
    FROZEN_HEAD,
    REJECTED,
    TABLE,
    fine_tune,
    measured_rate,
    policy_of,
    random_params,
    rates_of,
)

PARAMS = random_params(jax.random.key(3), 6, 3, 1.0)
STEPS = jnp.array([0, 10, 100, 400])


def test_only_what_has_a_rate_is_trained():
    for rates in (TABLE, FROZEN_HEAD, FREE_HEAD):
        path = fine_tune(PARAMS, rates, 1.0, 0.1, 0.05, STEPS)
        for rate, before, after in zip(rates, PARAMS, path.params, strict=True):
            assert (np.abs(after[-1] - before).max() > 1e-3) == (rate > 0)
        gap = np.asarray(path.log_policy)[:, CHOSEN] - np.asarray(path.log_policy)[:, REJECTED]
        assert np.all(np.diff(gap) > 0)


def test_a_frozen_head_follows_the_flow_of_its_features():
    u, log_ref = np.asarray(PARAMS.features), np.asarray(policy_of(PARAMS))

    def flow(t, h, beta=1.3, alpha=0.2):
        logits = u @ h
        p = np.exp(logits - logits.max())
        p /= p.sum()
        gap = logits[CHOSEN] - logits[REJECTED] - log_ref[CHOSEN] + log_ref[REJECTED]
        return beta / (1 + np.exp(beta * gap)) * (u[CHOSEN] - u[REJECTED]) + alpha * (u[CHOSEN] - p @ u)

    times = 0.001 * np.array([0, 1000, 4000])
    want = scipy.integrate.solve_ivp(flow, (0, times[-1]), np.asarray(PARAMS.hidden), t_eval=times, rtol=1e-10).y.T
    path = fine_tune(PARAMS, FROZEN_HEAD, 1.3, 0.2, 0.001, jnp.array([0, 1000, 4000]))
    np.testing.assert_allclose(path.params.hidden, want, atol=1e-3)


def test_the_recorded_rates_are_those_of_small_steps_and_the_push_that_of_the_loss():
    path = fine_tune(PARAMS, FROZEN_HEAD, 1.3, 0.0, 0.05, STEPS)
    log_ref, last = policy_of(PARAMS), jax.tree.map(lambda leaf: leaf[-1], path.params)
    found = measured_rate(last, log_ref, FROZEN_HEAD, 1.3, 0.0, 1e-5)
    np.testing.assert_allclose(found, path.push[-1] * path.rates.preference[-1], rtol=1e-6)
    np.testing.assert_allclose(path.rates.nll[-1], rates_of(last, FROZEN_HEAD).nll, rtol=1e-12)


def test_random_answers_have_unit_length_in_the_mean_and_logits_the_asked_deviation():
    many = jax.vmap(lambda key: random_params(key, 6, 3, 2.0))(jax.random.split(jax.random.key(0), 4000))
    np.testing.assert_allclose((many.features**2).sum(-1).mean(), 1.0, rtol=0.02)
    logits = jnp.einsum("ijk,ik->ij", many.features, many.hidden)
    np.testing.assert_allclose(logits.std(), 2.0, rtol=0.03)
