"""Small languages: counts by hand, Catalan numbers, and the number of right sums."""

import jax.numpy as jnp
import numpy as np
import pytest

import rlrazor as rz
from rlrazor.tasks.languages import brackets, digits, ngram

TEXT = "the cat sat on the mat and the rat ran at the cat"


@pytest.mark.parametrize("order", [0, 1, 2])
def test_an_ngram_gives_a_text_the_probability_of_its_counts(order):
    language = ngram(TEXT, order, smoothing=0.5)
    ids = jnp.array([language.symbols.index(c) for c in TEXT[:20]])
    got = rz.answer_log_prob(language.world, language.log_ref, ids)
    want = 0.0
    for at in range(20):
        memory = TEXT[max(at - order, 0) : at]
        after = [TEXT[i] for i in range(len(TEXT)) if TEXT[max(i - order, 0) : i] == memory]
        want += np.log((after.count(TEXT[at]) + 0.5) / (len(after) + 0.5 * len(language.symbols)))
    np.testing.assert_allclose(got, want, rtol=1e-12)


def test_a_longer_memory_knows_its_text_better():
    texts = [ngram(TEXT, order, smoothing=1e-3) for order in (0, 1, 2)]
    ids = jnp.array([texts[0].symbols.index(c) for c in TEXT])
    scores = [float(rz.answer_log_prob(t.world, t.log_ref, ids)) for t in texts]
    assert scores[0] < scores[1] < scores[2]


def test_balanced_brackets_are_counted_by_catalan_numbers():
    language = brackets(max_depth=5, end=0.2)
    answers = rz.all_answers(language.world, 11)
    log_prob = np.asarray(rz.answer_log_prob(language.world, language.log_ref, jnp.asarray(answers)))
    states = np.asarray(rz.states_of(language.world, jnp.asarray(answers)))
    pairs = (answers == 0).sum(1) - (11 - (~np.asarray(language.world.ended)[states[:, :-1]]).sum(1))
    balanced = (states[:, -1] == 6) & np.isfinite(log_prob)
    assert [int((balanced & (pairs == n)).sum()) for n in range(1, 6)] == [1, 2, 5, 14, 42]
    np.testing.assert_allclose(np.exp(log_prob).sum(), 1.0, rtol=1e-12)


def test_half_of_what_is_cut_off_is_not_balanced():
    """At a horizon of 1 an answer ends with the given probability, else one bracket is open."""
    world, log_ref, _ = brackets(max_depth=3, end=0.3)
    np.testing.assert_allclose(rz.occupancy(world, log_ref, 1)[1], [0, 0.7, 0, 0, 0.3], atol=1e-15)


def test_sums_of_digits_are_counted():
    world, log_ref, symbols = digits(modulus=9)
    sums = np.array([sum(map(int, f"{i:03d}")) % 9 for i in range(1000)])
    want = np.bincount(sums, minlength=9) / 1000
    np.testing.assert_allclose(rz.occupancy(world, log_ref, 3)[3], want, rtol=0, atol=1e-14)
    assert symbols == tuple("0123456789")
    right = rz.tilt_tokens(world, log_ref, jnp.zeros((9, 10)), 1.0, 3, jnp.where(jnp.arange(9) == 4, 0.0, -jnp.inf))
    np.testing.assert_allclose(jnp.exp(right.log_partition[0, 0]), want[4], rtol=1e-12)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: ngram(""), "text must not be empty"),
        (lambda: ngram("ab", -1), "order must be at least 0"),
        (lambda: ngram("ab", 1, 0.0), "smoothing must be finite and above 0"),
        (lambda: ngram(TEXT, 6), "above 100000"),
        (lambda: brackets(0, 0.5), "max_depth must be at least 1"),
        (lambda: brackets(2, 1.0), "end must be above 0 and below 1"),
        (lambda: digits(1), "modulus must be at least 2"),
        (lambda: digits(3, 1), "base must be at least 2"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()
