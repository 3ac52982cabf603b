"""Two tasks under every regulariser: the loss by hand, what no coefficient changes, and who keeps what."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rlrazor as rz
from rlrazor.methods import RLOO, SFT, exact_loss
from rlrazor.tasks import shared_features
from rlrazor.tasks.two_tasks import Recipe, fine_tune, loss_of, make_world, outcome_of, policies

SIZES = {"num_prompts": 4, "num_features": 3, "num_outcomes": 5}
WORLD = make_world(jax.random.key(0), 1.0, 2.0, 0.5, **SIZES)
WEIGHTS = WORLD.inputs.weights + 0.3 * jax.random.normal(jax.random.key(1), WORLD.inputs.weights.shape)
NEW, OLD = (np.exp(x) for x in policies(WORLD, WEIGHTS))
BASE, OLD_BASE = (np.exp(x) for x in policies(WORLD, WORLD.inputs.weights))


def mean(x):
    return x.sum(-1).mean()


def dpo(beta):
    total = 0.0
    for policy, base, reward in zip(NEW, BASE, np.asarray(WORLD.proxy), strict=True):
        ratio, losses, masses = np.log(policy / base), [], []
        for i in range(5):
            for j in range(5):
                if i != j:
                    masses.append(base[i] * base[j] / (1 + np.exp(reward[j] - reward[i])))
                    losses.append(np.log1p(np.exp(-beta * (ratio[i] - ratio[j]))))
        total += np.array(masses) @ losses / sum(masses) / 4
    return total


TERMS = {
    "proxy": (Recipe(proxy=2.0), -2 * mean(NEW * np.asarray(WORLD.proxy))),
    "gold": (Recipe(gold=2.0), -2 * mean(NEW * np.asarray(WORLD.gold))),
    "dpo": (Recipe(dpo=0.5, dpo_beta=0.7), 0.5 * dpo(0.7) / (1 + 0.5 * 0.49)),
    "reverse KL": (Recipe(reverse_kl=0.5), 0.5 * mean(NEW * np.log(NEW / BASE)) / 1.5),
    "forward KL": (Recipe(forward_kl=0.5), 0.5 * mean(BASE * np.log(BASE / NEW)) / 1.5),
    "entropy": (Recipe(entropy=0.5), 0.5 * mean(NEW * np.log(NEW)) / 1.5),
    "pretraining": (Recipe(pretraining=0.5), -0.5 * mean(OLD_BASE * np.log(OLD)) / 1.5),
    "replay": (
        Recipe(replay=0.5),
        -0.5 * np.log(np.take_along_axis(OLD, OLD_BASE.argmax(-1)[:, None], -1)).mean() / 1.5,
    ),
}


@pytest.mark.parametrize(("recipe", "want"), TERMS.values(), ids=TERMS)
def test_each_term_of_the_loss_is_its_sum(recipe, want):
    np.testing.assert_allclose(loss_of(recipe, WORLD, WEIGHTS), want, rtol=1e-10)


def test_a_term_with_coefficient_0_is_no_term():
    terms = dict.fromkeys(Recipe._fields, 0.0) | {"proxy": 2.0, "dpo_beta": 0.7}
    np.testing.assert_allclose(loss_of(Recipe(**terms), WORLD, WEIGHTS), loss_of(Recipe(proxy=2.0), WORLD, WEIGHTS))
    assert loss_of(Recipe(), WORLD, WEIGHTS) == 0


def test_the_nll_anchor_imitates_what_is_chosen():
    loss = jax.jit(lambda w: loss_of(Recipe(nll=1.0), WORLD, w))
    pairs = rz.bradley_terry_pairs(jnp.log(jnp.asarray(BASE)), WORLD.proxy)
    chosen = np.zeros((4, 5))
    for k, answer in enumerate(pairs.chosen):
        chosen[:, answer] += np.asarray(pairs.weights)[:, k]
    np.testing.assert_allclose(loss(WEIGHTS), -mean(chosen * np.log(NEW)) / 2, rtol=1e-10)


def test_outcomes_are_measured_from_the_base():
    found = outcome_of(WORLD, WEIGHTS)
    gold, proxy = (mean((NEW - BASE) * np.asarray(reward)) for reward in (WORLD.gold, WORLD.proxy))
    want = gold, proxy, mean(OLD_BASE * np.log(OLD_BASE / OLD)), mean(NEW * np.log(NEW / BASE))
    np.testing.assert_allclose(found, want, rtol=1e-9)


def test_the_proxy_errs_on_some_answers_only():
    world = make_world(jax.random.key(0), 1.0, 2.0, 0.3, num_prompts=50, num_features=3, num_outcomes=40)
    wrong = np.asarray(world.proxy != world.gold)
    assert abs(wrong.mean() - 0.3) < 4 * np.sqrt(0.3 * 0.7 / wrong.size)
    np.testing.assert_allclose((world.proxy - world.gold)[wrong].std(), 2.0, rtol=0.1)


def test_training_without_shared_features_forgets_nothing_and_with_them_it_does():
    steps = jnp.array([0, 100])
    for overlap, forgets in ((0.0, False), (1.0, True)):
        world = make_world(jax.random.key(0), overlap, 2.0, 0.5, **SIZES)
        found = fine_tune(world, Recipe(proxy=1.0), 2.0, steps)
        assert found.proxy[1] > 0.5
        assert (found.lost[1] > 1e-3) == forgets
    kept = fine_tune(WORLD, Recipe(proxy=1.0, pretraining=100.0), 2.0, steps)
    assert kept.lost[1] < 0.1 * found.lost[1]


@pytest.mark.parametrize("method", [RLOO, SFT])
def test_training_on_many_samples_follows_exact_gradients(method):
    sizes = {"num_prompts": 3, "num_features": 4, "num_outcomes": 5, "num_correct": 2}
    world = shared_features.make_world(jax.random.key(0), 0.5, scale=1.0, teacher_scale=1.0, **sizes)
    task, prompts, steps = shared_features.new_task(world), shared_features.first_prompts(3.0, 3), jnp.array([0, 5, 40])
    exact = shared_features.fine_tune(world, {method: exact_loss(method, task)}, prompts, 1.0, steps)[method]
    options = {"num_samples": 4000}
    sampled = shared_features.fine_tune_on_samples(
        world, method, task, prompts, 1.0, steps, jax.random.key(1), **options
    )
    np.testing.assert_allclose(sampled.success, exact.success, atol=0.01)
    np.testing.assert_allclose(sampled.old_drift.forward, exact.old_drift.forward, atol=0.01)
    assert exact.success[2] > exact.success[0] + 0.1
