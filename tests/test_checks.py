"""The doors: valid input passes unchanged, and every error names the argument, what it got and what it wants."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rlrazor as rz
from rlrazor.checks import boolean_array, nonnegative, outcome_arrays, sample_arrays

HALVES = jnp.log(jnp.array([0.5, 0.5]))
NAN, INF = float("nan"), float("inf")


@pytest.fixture(autouse=True)
def _as_installed(as_installed):
    """All tests here meet the library's own errors."""


def exactly(text):
    return "^" + re.escape(text) + "$"


# outcome_arrays


def test_outcome_arrays_pads_batch_axes_on_the_left_in_the_order_given():
    p, q, beta, time = outcome_arrays(
        {"beta": jnp.arange(5.0), "time": 2}, log_p=jnp.zeros((4, 1, 3)), log_q=jnp.zeros((5, 3))
    )
    assert [x.shape for x in (p, q, beta, time)] == [(4, 1, 3), (1, 5, 3), (1, 5, 1), (1, 1, 1)]
    assert time[0, 0, 0] == 2.0


def test_outcome_arrays_pads_arrays_below_the_rank_of_a_number():
    log_p, time = outcome_arrays({"time": jnp.zeros((2, 7))}, log_p=jnp.zeros(3))
    assert (log_p.shape, time.shape) == ((1, 1, 3), (2, 7, 1))


def test_outcome_arrays_leaves_values_alone():
    values = jnp.array([[0.0, -INF], [NAN, 1.0]])
    (passed,) = outcome_arrays(log_p=values)
    np.testing.assert_array_equal(passed, values)


def test_outcome_arrays_gives_numbers_the_dtype_of_the_first_array():
    _, beta = outcome_arrays({"beta": 0.1}, log_p=jnp.zeros(3, jnp.float32))
    assert beta.dtype == jnp.float32
    _, beta = outcome_arrays({"beta": jnp.arange(2)}, log_p=jnp.zeros(3))
    assert beta.dtype == jnp.float64


def test_outcome_arrays_accepts_numpy_arrays():
    (array,) = outcome_arrays(log_p=np.zeros(3))
    assert isinstance(array, jax.Array)


@pytest.mark.parametrize("dtype", [jnp.int32, jnp.bool_, jnp.complex64])
def test_outcome_arrays_rejects_any_dtype_that_is_not_floating(dtype):
    text = f"log_q must be a floating array, got {jnp.dtype(dtype)} of shape (2, 3)"
    with pytest.raises(TypeError, match=exactly(text)):
        outcome_arrays(log_p=jnp.zeros(3), log_q=jnp.zeros((2, 3), dtype))


@pytest.mark.parametrize("shape", [(), (4, 0)])
def test_outcome_arrays_needs_an_outcome_axis(shape):
    with pytest.raises(ValueError, match=exactly(f"reward needs a non-empty outcome axis, got shape {shape}")):
        outcome_arrays(reward=jnp.zeros(shape))


@pytest.mark.parametrize("outcomes", [1, 4])
def test_outcome_arrays_never_broadcasts_the_outcome_axis(outcomes):
    text = (
        f"reward has {outcomes} outcomes in shape (2, {outcomes}), but log_ref has 3 in shape (3,): "
        "outcome axes must match exactly"
    )
    with pytest.raises(ValueError, match=exactly(text)):
        outcome_arrays(log_ref=jnp.zeros(3), reward=jnp.zeros((2, outcomes)))


def test_outcome_arrays_lists_every_batch_shape_when_they_do_not_broadcast():
    text = "batch axes do not broadcast: log_p (2,), log_q (3,), beta ()"
    with pytest.raises(ValueError, match=exactly(text)):
        outcome_arrays({"beta": 1.0}, log_p=jnp.zeros((2, 5)), log_q=jnp.zeros((3, 5)))


def test_outcome_arrays_fails_at_trace_time_under_jit():
    with pytest.raises(ValueError, match="outcome axes must match exactly"):
        jax.jit(lambda p, q: outcome_arrays(log_p=p, log_q=q))(jnp.zeros(3), jnp.zeros(4))


# nonnegative


@pytest.mark.parametrize("value", [0, 0.0, -0.0, 3, 1e-300, INF, np.float64(2.0)])
def test_nonnegative_passes_zero_of_either_sign_and_above(value):
    assert nonnegative("beta", value) is value


@pytest.mark.parametrize("value", [-1, -1e-300, -INF, NAN, np.float64(-0.5)])
def test_nonnegative_rejects_negative_and_nan(value):
    with pytest.raises(ValueError, match=exactly(f"beta must be at least 0, got {value}")):
        nonnegative("beta", value)


def test_nonnegative_lets_arrays_and_tracers_through():
    array = jnp.array([-1.0])
    assert nonnegative("beta", array) is array
    assert jax.jit(lambda x: nonnegative("beta", x))(-1.0) == -1.0


# check_distribution


@pytest.mark.parametrize(
    "log_p",
    [
        HALVES,
        jnp.array([0.0, -INF]),
        jnp.array([-0.0, -INF]),
        jax.nn.log_softmax(jnp.arange(24.0).reshape(2, 3, 4)),
        jax.nn.log_softmax(jnp.arange(5, dtype=jnp.float32)),
    ],
)
def test_check_distribution_returns_a_valid_distribution_unchanged(log_p):
    passed = rz.check_distribution(log_p)
    assert passed.dtype == log_p.dtype
    np.testing.assert_array_equal(passed, log_p)


def test_check_distribution_names_the_row_that_does_not_sum_to_one():
    rows = jnp.stack([HALVES, HALVES + 0.1])[None]
    text = f"log_ref must hold normalised log-probabilities, but row (0, 1) sums to {np.exp(0.1):.6g}"
    with pytest.raises(ValueError, match=exactly(text)):
        rz.check_distribution(rows, "log_ref")


def test_check_distribution_rejects_probabilities_passed_for_their_logs():
    with pytest.raises(ValueError, match=r"log_p must hold normalised log-probabilities, but row \(\) sums to 3.29744"):
        rz.check_distribution(jnp.array([0.5, 0.5]))


def test_check_distribution_rejects_a_row_without_any_possible_outcome():
    with pytest.raises(ValueError, match=r"row \(\) sums to 0$"):
        rz.check_distribution(jnp.array([-INF, -INF]))


@pytest.mark.parametrize("bad", [NAN, INF])
def test_check_distribution_names_the_entry_that_is_nan_or_plus_infinity(bad):
    text = f"log_p must hold log-probabilities, but entry (1, 0) is {bad}"
    with pytest.raises(ValueError, match=exactly(text)):
        rz.check_distribution(jnp.stack([HALVES, HALVES.at[0].set(bad)]))


def test_check_distribution_tolerance_is_on_the_sum_of_the_row():
    off = HALVES + 1e-4
    rz.check_distribution(off, tolerance=1.1e-4)
    with pytest.raises(ValueError, match=r"sums to 1\.0001"):
        rz.check_distribution(off, tolerance=0.9e-4)


def test_check_distribution_adds_up_float32_vocabularies_in_double_precision():
    log_p = jnp.full(100_000, -np.log(1e5), jnp.float32)
    assert rz.check_distribution(log_p).dtype == jnp.float32


def test_check_distribution_rejects_integers_by_the_name_it_was_given():
    with pytest.raises(TypeError, match=exactly("log_target must be a floating array, got int64 of shape (2,)")):
        rz.check_distribution(jnp.array([0, 1]), "log_target")


def test_check_distribution_rejects_a_scalar():
    with pytest.raises(ValueError, match=exactly("log_p needs a non-empty outcome axis, got shape ()")):
        rz.check_distribution(0.0)


# check_reward


@pytest.mark.parametrize("reward", [jnp.array([0.0, -INF]), jnp.array([-0.0, 1e300]), jnp.zeros((2, 3), jnp.float32)])
def test_check_reward_returns_a_valid_reward_unchanged(reward):
    passed = rz.check_reward(reward)
    assert passed.dtype == reward.dtype
    np.testing.assert_array_equal(passed, reward)


@pytest.mark.parametrize("bad", [NAN, INF])
def test_check_reward_names_the_entry_that_is_nan_or_plus_infinity(bad):
    with pytest.raises(ValueError, match=exactly(f"score must be finite or -inf, but entry (0, 1) is {bad}")):
        rz.check_reward(jnp.array([[0.0, bad]]), "score")


def test_check_reward_names_the_row_that_forbids_everything():
    with pytest.raises(ValueError, match=exactly("reward must allow some outcome, but row (1,) is -inf throughout")):
        rz.check_reward(jnp.array([[0.0, -INF], [-INF, -INF]]))


def test_check_reward_returns_booleans_as_numbers():
    assert rz.check_reward(jnp.array([True, False])).tolist() == [1.0, 0.0]


# check_positive


@pytest.mark.parametrize("value", [1e-300, 1, 3.5, np.array([0.1, 2.0]), np.zeros(0)])
def test_check_positive_returns_a_valid_value_unchanged(value):
    assert rz.check_positive(value, "beta") is value


@pytest.mark.parametrize("value", [0.0, -0.0, -1.0, INF, -INF, NAN])
def test_check_positive_rejects_everything_else(value):
    with pytest.raises(ValueError, match=exactly(f"beta must be finite and above 0, got {value}")):
        rz.check_positive(value, "beta")


def test_check_positive_looks_at_every_entry_of_an_array():
    with pytest.raises(ValueError, match=exactly("scale must be finite and above 0, got -2.0")):
        rz.check_positive(jnp.array([[1.0, 2.0], [3.0, -2.0]]), "scale")


# sample_arrays


def test_sample_arrays_pads_batch_axes_on_the_left_in_the_order_given():
    log_prob, reward = sample_arrays(log_prob=jnp.zeros(3), reward=jnp.ones((4, 1, 3), jnp.float32))
    assert (log_prob.shape, reward.shape) == ((1, 1, 3), (4, 1, 3))
    assert (log_prob.dtype, reward.dtype) == (jnp.float64, jnp.float32)


def test_sample_arrays_leaves_values_alone_and_accepts_numpy():
    values = np.array([0.0, -INF, NAN])
    (passed,) = sample_arrays(log_prob=values)
    assert isinstance(passed, jax.Array)
    np.testing.assert_array_equal(passed, values)


def test_sample_arrays_speaks_of_samples():
    with pytest.raises(ValueError, match=exactly("reward needs a non-empty sample axis, got shape (4, 0)")):
        sample_arrays(reward=jnp.zeros((4, 0)))
    text = "reward has 1 samples in shape (1,), but log_prob has 3 in shape (2, 3): sample axes must match exactly"
    with pytest.raises(ValueError, match=exactly(text)):
        sample_arrays(log_prob=jnp.zeros((2, 3)), reward=jnp.zeros(1))
    with pytest.raises(ValueError, match=exactly("batch axes do not broadcast: log_prob (2,), reward (4,)")):
        sample_arrays(log_prob=jnp.zeros((2, 3)), reward=jnp.zeros((4, 3)))


def test_sample_arrays_rejects_integers_by_name():
    with pytest.raises(TypeError, match=exactly("log_prob must be a floating array, got int64 of shape (3,)")):
        sample_arrays(log_prob=jnp.arange(3), reward=jnp.arange(3))
    with pytest.raises(TypeError, match=exactly("log_ref must be a floating array, got int64 of shape (3,)")):
        outcome_arrays(log_policy=jnp.zeros(3), log_ref=jnp.arange(3))


# boolean_array


@pytest.mark.parametrize("value", [True, np.bool(False), np.array([[True], [False]]), jnp.zeros(3, bool)])
def test_boolean_array_passes_truth_values_of_any_shape(value):
    passed = boolean_array("accept", value)
    assert isinstance(passed, jax.Array)
    assert passed.dtype == jnp.bool_
    np.testing.assert_array_equal(passed, value)


@pytest.mark.parametrize("dtype", [jnp.int8, jnp.uint8, jnp.float32])
def test_boolean_array_rejects_zeros_and_ones(dtype):
    text = f"accept must be a boolean array, got {jnp.dtype(dtype)} of shape (2,)"
    with pytest.raises(TypeError, match=exactly(text)):
        boolean_array("accept", jnp.array([0, 1], dtype))
    with pytest.raises(TypeError, match=re.escape(text)):
        jax.jit(lambda x: boolean_array("accept", x))(jnp.array([0, 1], dtype))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_subnormal_number_is_0_with_derivative_1(dtype):
    tiny = np.finfo(dtype).tiny

    def number(x):
        return outcome_arrays({"beta": x}, log_p=jnp.zeros(3, dtype))[-1][0]

    for x, want in ((tiny / 2, 0.0), (-tiny / 2, 0.0), (tiny, tiny), (0.0, 0.0), (np.inf, np.inf)):
        assert np.asarray(number(jnp.asarray(x, dtype))) == np.asarray(want, dtype)  # numpy does not flush
        if np.isfinite(x):
            assert jax.grad(number)(jnp.asarray(x, dtype)) == 1
