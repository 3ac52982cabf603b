"""Token-level worlds: dynamic programming against enumeration, `tilt`, finite differences and Monte Carlo."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rlrazor as rz
from rlrazor import sequences as sq

HORIZON = 5
KEYS = jax.random.split(jax.random.key(0), 8)
TABLE = jax.random.randint(KEYS[0], (5, 3), 0, 5).at[0].set(jnp.array([1, 2, 4])).at[1, 2].set(4)
ENDED = jnp.array([False, False, False, False, True])
WORLD = sq.automaton(TABLE, ENDED)
LOG_REF, LOG_POLICY = jax.nn.log_softmax(jax.random.normal(KEYS[1], (2, 5, 3)))
VARYING = jax.nn.log_softmax(jax.random.normal(KEYS[2], (HORIZON, 5, 3)))
REWARD, FINAL = jax.random.normal(KEYS[3], (5, 3)), jax.random.normal(KEYS[4], (5,))
ANSWERS = sq.all_answers(WORLD, HORIZON)


def walk(answer):
    """(step, state, token) of an answer, and its last state: by hand, one token at a time."""
    state, steps = 0, []
    for step, token in enumerate(answer):
        if ENDED[state]:
            break
        steps.append((step, state, int(token)))
        state = int(WORLD.next_state[state, token])
    return steps, state


WALKS = [walk(answer) for answer in ANSWERS]


LENGTHS = np.array([len(steps) for steps, _ in WALKS])
PLACES = np.array([(steps + [(0, 0, 0)] * HORIZON)[:HORIZON] for steps, _ in WALKS]).T  # [3, horizon, answers]


def summed(array):
    """A number of tokens, summed over each answer."""
    step, state, token = PLACES
    each = array[state, token] if array.ndim == 2 else array[step, state, token]
    return jnp.where(np.arange(HORIZON)[:, None] < LENGTHS[None], each, 0.0).sum(0)


TOTAL = summed(REWARD) + FINAL[np.array([last for _, last in WALKS])]
POLICIES = pytest.mark.parametrize("policy", [LOG_POLICY, VARYING], ids=["constant", "varying"])


def test_answers_are_all_there_and_distinct():
    assert len({(*answer, len(steps)) for answer, (steps, _) in zip(ANSWERS, WALKS, strict=True)}) == len(ANSWERS)
    assert {len(steps) for steps, _ in WALKS} >= {1, 2, HORIZON}
    for policy in (LOG_REF, VARYING):
        np.testing.assert_allclose(jnp.exp(summed(policy)).sum(), 1.0, rtol=1e-13)


@POLICIES
def test_log_probabilities_are_sums_over_tokens(policy):
    got = jax.jit(lambda policy: sq.answer_log_prob(WORLD, policy, jnp.asarray(ANSWERS)))(policy)
    np.testing.assert_allclose(got, summed(policy), rtol=1e-13)
    padded = jnp.asarray(np.where(np.arange(HORIZON) < LENGTHS[:, None], ANSWERS, 7))
    np.testing.assert_array_equal(sq.answer_log_prob(WORLD, policy, padded), got)  # padding does not count
    assert np.isnan(sq.answer_log_prob(WORLD, policy, jnp.array([7, 0, 0, 0, 0])))


@pytest.mark.parametrize("log_ref", [LOG_REF, VARYING], ids=["constant", "varying"])
@pytest.mark.parametrize("beta", [0.3, 2.0])
def test_the_optimum_is_the_tilt_of_answers(log_ref, beta):
    found = sq.tilt_tokens(WORLD, log_ref, REWARD, beta, HORIZON, FINAL)
    want = rz.tilt(summed(log_ref), TOTAL, beta)
    np.testing.assert_allclose(summed(found.log_policy), want, rtol=0, atol=1e-12)
    value = rz.regularized_reward(want, summed(log_ref), TOTAL, beta)
    np.testing.assert_allclose(beta * found.log_partition[0, 0], value, rtol=1e-12)
    reward = sq.expected_sum(WORLD, found.log_policy, REWARD, HORIZON, FINAL)
    kl = sq.sequence_kl(WORLD, found.log_policy, log_ref, HORIZON)
    np.testing.assert_allclose(reward - beta * kl, value, rtol=1e-12)


def test_an_infinite_beta_leaves_the_reference_and_a_small_one_finds_the_best_answer():
    kept = sq.tilt_tokens(WORLD, LOG_REF, REWARD, jnp.inf, HORIZON, FINAL)
    np.testing.assert_allclose(kept.log_policy, jnp.broadcast_to(LOG_REF, (HORIZON, 5, 3)), rtol=0, atol=1e-14)
    found = sq.tilt_tokens(WORLD, LOG_REF, REWARD, 1e-3, HORIZON, FINAL)
    np.testing.assert_allclose(jnp.exp(summed(found.log_policy)).max(), 1.0, rtol=1e-9)
    assert summed(found.log_policy).argmax() == TOTAL.argmax()


@POLICIES
def test_expectations_and_both_directions_of_kl(policy):
    answers, ref = summed(policy), summed(LOG_REF)
    for got, want in (
        (sq.expected_sum(WORLD, policy, REWARD, HORIZON, FINAL), rz.expected_reward(answers, TOTAL)),
        (sq.expected_sum(WORLD, policy, jnp.ones((5, 3)), HORIZON), jnp.exp(answers) @ LENGTHS.astype(float)),
        (sq.sequence_kl(WORLD, policy, LOG_REF, HORIZON), rz.kl_divergence(answers, ref)),
        (sq.sequence_kl(WORLD, LOG_REF, policy, HORIZON), rz.kl_divergence(ref, answers)),
    ):
        np.testing.assert_allclose(got, want, rtol=1e-12)


@POLICIES
def test_occupancy_is_the_mass_of_the_answers_that_pass(policy):
    chance = np.exp(summed(policy))
    states = np.asarray(sq.states_of(WORLD, jnp.asarray(ANSWERS)))
    want = [[chance[states[:, t] == s].sum() for s in range(5)] for t in range(HORIZON + 1)]
    np.testing.assert_allclose(sq.occupancy(WORLD, policy, HORIZON), want, rtol=0, atol=1e-14)


@POLICIES
def test_gradients_are_those_of_the_enumerated_answers(policy):
    """The exact policy gradient on answers, and both KL flows, by autodiff of the recursions."""

    def gradient(function):
        return jax.jit(jax.grad(lambda logits: function(jax.nn.log_softmax(logits))))(policy)

    ref = summed(LOG_REF)
    pairs = [
        (lambda p: sq.expected_sum(WORLD, p, REWARD, HORIZON, FINAL), lambda p: rz.expected_reward(summed(p), TOTAL)),
        (lambda p: sq.sequence_kl(WORLD, p, LOG_REF, HORIZON), lambda p: rz.kl_divergence(summed(p), ref)),
        (lambda p: sq.sequence_kl(WORLD, LOG_REF, p, HORIZON), lambda p: rz.kl_divergence(ref, summed(p))),
        (
            lambda p: sq.tilt_tokens(WORLD, p, REWARD, 0.7, HORIZON, FINAL).log_partition[0, 0],
            lambda p: jax.nn.logsumexp(summed(p) + TOTAL / 0.7),
        ),
    ]
    for by_recursion, by_enumeration in pairs:
        got = gradient(by_recursion)
        assert np.abs(got).max() > 1e-2
        np.testing.assert_allclose(got, gradient(by_enumeration), rtol=0, atol=1e-13)


def test_the_gradient_in_the_reward_is_the_optimum_and_agrees_with_finite_differences():
    def value(reward):
        return 0.7 * sq.tilt_tokens(WORLD, LOG_REF, reward, 0.7, HORIZON, FINAL).log_partition[0, 0]

    slope, h = jax.grad(value)(REWARD), 1e-6
    optimum = sq.tilt_tokens(WORLD, LOG_REF, REWARD, 0.7, HORIZON, FINAL).log_policy
    for state, token in ((0, 0), (1, 2), (3, 1)):
        step = jnp.zeros((5, 3)).at[state, token].set(h)
        np.testing.assert_allclose(
            slope[state, token], (value(REWARD + step) - value(REWARD - step)) / (2 * h), atol=1e-8
        )
        visits = sq.expected_sum(WORLD, optimum, step / h, HORIZON)
        np.testing.assert_allclose(slope[state, token], visits, rtol=1e-12)


def test_a_million_answers_have_the_frequencies_of_the_policy():
    num = 1_000_000
    drawn = np.asarray(sq.sample_answers(jax.random.key(200), WORLD, VARYING, HORIZON, num))
    code = 3 ** np.arange(HORIZON)
    counts, chance = np.bincount(drawn @ code, minlength=3**HORIZON), np.zeros(3**HORIZON)
    np.add.at(chance, ANSWERS @ code, np.exp(summed(VARYING)))
    assert not counts[chance == 0].any()
    often = chance * num > 100  # where a frequency is normal
    error = np.sqrt(chance * (1 - chance) / num)[often]
    assert often.sum() > 20
    assert (np.abs(counts[often] / num - chance[often]) < 4 * error).all()
    paid = sq.expected_sum(WORLD, VARYING, REWARD, HORIZON)
    states = np.asarray(sq.states_of(WORLD, jnp.asarray(drawn)))
    rewards = np.where(ENDED[states[:, :-1]], 0.0, np.asarray(REWARD)[states[:, :-1], drawn]).sum(-1)
    assert abs(rewards.mean() - paid) < 4 * rewards.std() / math.sqrt(num)


# Boundaries


def test_forbidden_tokens_and_states_that_are_never_met():
    log_ref = LOG_REF.at[0].set(jnp.log(jnp.array([0.0, 1.0, 0.0])))  # state 0 leads to 2 alone
    never = LOG_POLICY.at[1, 0].set(-jnp.inf)
    policy = LOG_POLICY.at[1].set(jnp.log(jnp.array([0.5, 0.25, 0.25])))
    direct = sq.automaton(jnp.array([[2, 2, 2], [1, 1, 1], [2, 2, 2]]))
    three = slice(0, 3)
    assert sq.sequence_kl(direct, policy[three], never[three], 4) < np.inf  # state 1 is never met
    assert sq.sequence_kl(direct, never[three], log_ref[three], 4) == np.inf
    found = sq.tilt_tokens(WORLD, log_ref, REWARD, 0.5, HORIZON, FINAL)
    assert not np.exp(found.log_policy[:, 0, [0, 2]]).any()
    slope = jax.grad(lambda x: sq.tilt_tokens(WORLD, x, REWARD, 0.5, HORIZON, FINAL).log_partition[0, 0])(log_ref)
    assert np.isfinite(slope).all()


def test_a_verifier_as_a_hard_constraint_is_conditioning():
    final = jnp.where(jnp.arange(5) == 4, 0.0, -jnp.inf)  # answers that have ended in time
    found = sq.tilt_tokens(WORLD, LOG_REF, jnp.zeros((5, 3)), 1.0, HORIZON, final)
    accept = jnp.array([last == 4 for _, last in WALKS])
    want = rz.condition(summed(LOG_REF), accept)
    np.testing.assert_allclose(jnp.exp(summed(found.log_policy)), jnp.exp(want), rtol=0, atol=1e-13)
    np.testing.assert_allclose(
        found.log_partition[0, 0], jnp.log(jnp.exp(summed(LOG_REF)) @ accept.astype(float)), rtol=1e-12
    )
    nowhere = sq.tilt_tokens(WORLD, LOG_REF, jnp.full((5, 3), -jnp.inf), 1.0, HORIZON)
    assert nowhere.log_partition[0, 0] == -np.inf
    assert not np.isnan(nowhere.log_policy).any()


def test_far_beyond_enumeration_it_agrees_with_independent_tokens():
    """One state: 256 tokens of 1,000 are independent, and their sums have closed forms."""
    log_p, log_q = jax.nn.log_softmax(jax.random.normal(KEYS[6], (2, 1, 1000)))
    one, reward = sq.automaton(jnp.zeros((1, 1000), int)), jax.random.normal(KEYS[7], (1, 1000))
    found = sq.tilt_tokens(one, log_p, reward, 0.5, 256)
    np.testing.assert_allclose(found.log_policy[7], rz.tilt(log_p, reward, 0.5), rtol=0, atol=1e-10)
    np.testing.assert_allclose(found.log_partition[0, 0], 256 * jax.nn.logsumexp(log_p + reward / 0.5), rtol=1e-12)
    np.testing.assert_allclose(
        sq.sequence_kl(one, log_p, log_q, 256), 256 * rz.kl_divergence(log_p, log_q)[0], rtol=1e-12
    )


def test_compiled_batched_and_in_float32():
    policies = jax.nn.log_softmax(jax.random.normal(KEYS[6], (4, 5, 3)))
    many = jax.jit(jax.vmap(lambda p: sq.sequence_kl(WORLD, p, LOG_REF, HORIZON)))(policies)
    np.testing.assert_allclose(many, [sq.sequence_kl(WORLD, p, LOG_REF, HORIZON) for p in policies], rtol=1e-13)
    small = [x.astype(np.float32) for x in (LOG_POLICY, LOG_REF, REWARD, FINAL)]
    found = sq.tilt_tokens(WORLD, small[1], small[2], 0.7, HORIZON, small[3])
    want = sq.tilt_tokens(WORLD, LOG_REF, REWARD, 0.7, HORIZON, FINAL)
    assert found.log_policy.dtype == found.log_partition.dtype == np.float32
    np.testing.assert_allclose(found.log_policy, want.log_policy, atol=2e-6)
    assert sq.sequence_kl(WORLD, small[0], small[1], HORIZON).dtype == np.float32
    assert sq.occupancy(WORLD, small[0], HORIZON).dtype == np.float32


def test_whole_rewards_count_as_floating_ones():
    right, done = REWARD > 0, jnp.array([0, 0, 1, 0, 2])
    got = sq.tilt_tokens(WORLD, LOG_REF, right, 0.5, HORIZON, done)
    want = sq.tilt_tokens(WORLD, LOG_REF, right.astype(float), 0.5, HORIZON, done.astype(float))
    np.testing.assert_array_equal(got.log_policy, want.log_policy)
    got = sq.expected_sum(WORLD, LOG_REF, right, HORIZON, done)
    assert got == sq.expected_sum(WORLD, LOG_REF, right.astype(float), HORIZON, done.astype(float))


def test_beta_is_traced_and_its_slope_is_that_of_the_closed_form():
    slope = jax.jit(
        jax.grad(lambda b: b * sq.tilt_tokens(WORLD, LOG_REF, REWARD, b, HORIZON, FINAL).log_partition[0, 0])
    )
    want = jax.grad(lambda b: b * jax.nn.logsumexp(summed(LOG_REF) + TOTAL / b))
    np.testing.assert_allclose(slope(0.7), want(0.7), rtol=1e-11)


# Truncated sampling


def test_top_k_and_top_p_keep_the_likeliest():
    log_p = jax.nn.log_softmax(jax.random.normal(KEYS[1], (6, 7)))
    for k in (1, 3, 7):
        kept = jnp.exp(sq.top_k(log_p, k)) > 0
        assert (kept.sum(-1) == k).all()
        assert (jnp.where(kept, log_p, 1).min(-1) >= jnp.where(kept, -jnp.inf, log_p).max(-1)).all()
    np.testing.assert_allclose(sq.top_k(log_p, 7), log_p, rtol=0, atol=1e-15)
    for p in (0.01, 0.5, 0.9, 1.0):
        kept = jnp.exp(sq.top_p(log_p, p)) > 0
        mass = jnp.where(kept, jnp.exp(log_p), 0.0).sum(-1)
        least = jnp.where(kept, jnp.exp(log_p), 2.0).min(-1)
        assert (mass >= p - 1e-12).all()
        assert (mass - least < p).all()
        np.testing.assert_allclose(jnp.exp(sq.top_p(log_p, p)).sum(-1), 1.0, rtol=1e-14)
    np.testing.assert_array_equal(jnp.exp(sq.top_p(log_p, 1.0)) > 0, jnp.ones((6, 7), bool))


def test_equal_tokens_are_kept_in_their_order_and_truncation_has_the_gradient_of_what_stays():
    log_p = jnp.log(jnp.full((4,), 0.25))
    assert (jnp.exp(sq.top_k(log_p, 2)) > 0).tolist() == [True, True, False, False]
    gradient = jax.grad(lambda x: sq.top_k(x, 2)[0])(jnp.log(jnp.array([0.1, 0.4, 0.3, 0.2])) + 0.0)
    assert np.isfinite(gradient).all()
    got = jax.grad(lambda x: sq.top_k(jax.nn.log_softmax(x), 2)[1])(jnp.array([0.1, 1.0, 0.5, 0.2]))
    p = jnp.exp(jax.nn.log_softmax(jnp.array([1.0, 0.5])))
    np.testing.assert_allclose(got, [0, 1 - p[0], -p[1], 0], atol=1e-15)


# Bad input


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: sq.automaton(jnp.array([[0, 5], [1, 0]])), ValueError, "token 1 leads from state 0 to 5"),
        (lambda: sq.automaton(jnp.array([[0, -1], [1, 0]])), ValueError, "token 1 leads from state 0 to -1"),
        (lambda: sq.automaton(jnp.zeros((2, 2))), TypeError, "next_state must be an integer array, got float64"),
        (lambda: sq.automaton(jnp.zeros((2, 0), int)), ValueError, "at least one of each"),
        (lambda: sq.automaton(jnp.zeros((2, 2), int), jnp.array([False])), ValueError, "ended must be"),
        (lambda: sq.automaton(jnp.zeros((2, 2), int), jnp.array([0, 1])), TypeError, "ended must be a boolean"),
        (lambda: sq.automaton(jnp.zeros((2, 2), int), start=2), ValueError, "start must be a state of 2"),
        (lambda: sq.automaton(jnp.zeros((1, 2), int), jnp.array([True])), ValueError, "start must be"),
        (lambda: sq.tilt_tokens(WORLD, LOG_REF, REWARD, 0.5, 0), ValueError, "horizon must be at least 1, got 0"),
        (lambda: sq.tilt_tokens(WORLD, LOG_REF, REWARD, 0.0, 3), ValueError, "beta"),
        (lambda: sq.tilt_tokens(WORLD, LOG_REF[:3], REWARD, 0.5, 3), ValueError, r"log_ref must be \(5, 3\)"),
        (lambda: sq.tilt_tokens(WORLD, VARYING, REWARD, 0.5, 3), ValueError, r"or \(3, 5, 3\), got shape \(5, 5, 3\)"),
        (lambda: sq.tilt_tokens(WORLD, LOG_REF, REWARD, 0.5, 3, FINAL[:2]), ValueError, "final_reward must be"),
        (
            lambda: sq.expected_sum(WORLD, LOG_REF, REWARD.astype(complex), 3),
            TypeError,
            "values must be a floating array",
        ),
        (lambda: sq.sequence_kl(WORLD, LOG_REF, REWARD[:2], 3), ValueError, "log_q must be"),
        (lambda: sq.states_of(WORLD, jnp.zeros(3)), TypeError, "tokens must be an integer array"),
        (lambda: sq.all_answers(sq.automaton(jnp.zeros((1, 10), int)), 7), ValueError, "more than a million"),
        (lambda: sq.all_answers(WORLD, 0), ValueError, "horizon must be at least 1"),
        (lambda: sq.top_k(LOG_REF, 4), ValueError, "k must be between 1 and the 3 tokens, got 4"),
        (lambda: sq.top_p(LOG_REF, 0.0), ValueError, "p must be"),
    ],
)
def test_bad_input_is_named(as_installed, call, error, words):
    with pytest.raises(error, match=words):
        call()
