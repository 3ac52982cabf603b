"""Many flows from one start: the same as each alone, one compilation, and the times on a log scale."""

import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rlrazor as rz
from rlrazor import methods

LOG_REF = jnp.log(jnp.array([0.30, 0.12, 0.38, 0.20]))
ACCEPT = jnp.array([True, True, False, False])
PROBLEM = rz.Problem(LOG_REF, ACCEPT)
NAMES = (methods.REINFORCE, methods.ORACLE_SFT)
TIMES = jnp.array([0.0, 0.5, 2.0, 8.0])


def test_each_flow_is_that_of_its_objective_alone():
    losses = rz.exact_losses(NAMES, PROBLEM)
    together = rz.gradient_flows(losses, LOG_REF, TIMES, natural=True)
    assert tuple(together) == NAMES
    for name, flow in together.items():
        alone = rz.gradient_flow(losses[name], LOG_REF, TIMES, natural=True)
        chex.assert_trees_all_close(flow, alone, rtol=1e-8, atol=1e-10)
    ends = [np.asarray(flow.log_policy[-1]) for flow in together.values()]
    assert all(np.abs(a - b).max() > 1e-3 for a, b in itertools.pairwise(ends))


def test_a_stop_holds_for_every_flow_at_its_own_time():
    def missing(params):
        return rz.success_rate(jax.nn.log_softmax(params), ACCEPT) - 0.8

    losses = rz.exact_losses(NAMES, PROBLEM)
    flows = rz.gradient_flows(losses, LOG_REF, jnp.array([0.0, 1e3]), stop=missing)
    rates = [float(rz.success_rate(flow.log_policy[-1], ACCEPT)) for flow in flows.values()]
    np.testing.assert_allclose(rates, 0.8, atol=1e-6)
    assert len({float(flow.time[-1]) for flow in flows.values()}) == 2


def test_other_times_and_starts_do_not_compile_again():
    @jax.jit
    @chex.assert_max_traces(n=1)
    def ends(start, times):
        flows = rz.gradient_flows(rz.exact_losses(NAMES, PROBLEM), start, times)
        return {name: flow.log_policy[-1] for name, flow in flows.items()}

    for scale in (1.0, 2.0, 3.0):
        chex.assert_tree_all_finite(ends(scale * LOG_REF, scale * TIMES))


def test_no_objective_is_an_error(as_installed):
    with pytest.raises(ValueError, match="objectives must hold at least one"):
        rz.gradient_flows({}, LOG_REF, TIMES)


def test_log_times_start_at_zero_and_have_equal_ratios():
    times = rz.log_times(0.1, 1000.0, 9)
    assert times[0] == 0
    np.testing.assert_allclose(times[1:], np.geomspace(0.1, 1000, 8), rtol=1e-12)
    with pytest.raises(ValueError, match="num must be at least 3, got 2"):
        rz.log_times(0.1, 1.0, 2)
