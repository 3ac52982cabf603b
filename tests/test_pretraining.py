"""The line with an old mode and a new one: ascent ends at the closed form and climbs all the way."""

import jax.numpy as jnp
import numpy as np
import pytest

import rlrazor as rz
from rlrazor.tasks.pretraining import ascend, old_and_new

WORLD = old_and_new(15, -2.0, 2.0, 0.7)


def test_the_world_has_its_modes():
    for row in WORLD[:2]:
        np.testing.assert_allclose(np.exp(row).sum(), 1.0, rtol=1e-12)
    y = np.linspace(-5, 5, 15)
    ref = 0.7 * np.exp(-((y + 2) ** 2) / 2) + 0.3 * np.exp(-((y - 2) ** 2) / 2)
    np.testing.assert_allclose(np.exp(WORLD.log_ref), ref / ref.sum(), rtol=1e-12)
    data = np.exp(-((y + 2) ** 2) / (2 * 0.64))
    np.testing.assert_allclose(np.exp(WORLD.log_pretrain), data / data.sum(), rtol=1e-12)
    np.testing.assert_allclose(WORLD.reward, np.exp(-((y - 2) ** 2) / 2), rtol=1e-12)


@pytest.mark.parametrize("gamma", [0.0, 0.1])
def test_ascent_climbs_from_the_reference_to_the_optimum(gamma):
    found = ascend(WORLD, 0.2, gamma, 4.0, jnp.array([0, 30, 300, 3000]))
    np.testing.assert_allclose(found.path[0], WORLD.log_ref, rtol=1e-12)
    values = [rz.ppo_ptx_objective(row, *WORLD, 0.2, gamma) for row in (*found.path, found.end)]
    assert sorted(values) == values
    optimum = rz.ppo_ptx_optimum(*WORLD, 0.2, gamma)
    np.testing.assert_allclose(np.exp(found.end), np.exp(optimum), atol=1e-9)
    assert np.abs(np.exp(found.path[1]) - np.exp(optimum)).max() > 1e-2
