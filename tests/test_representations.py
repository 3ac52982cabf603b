"""Representations: NumPy's singular values, and loops over neighbors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rlrazor as rz


def test_spectral_norm_is_the_largest_singular_value():
    rng = np.random.default_rng(0)
    left, right = np.linalg.qr(rng.normal(size=(20, 20)))[0], np.linalg.qr(rng.normal(size=(8, 8)))[0]
    matrix = left[:, :8] @ np.diag([5.0, 3.0, 2.0, 1.0, 0.5, 0.1, 0.0, 0.0]) @ right
    np.testing.assert_allclose(rz.spectral_norm(jnp.asarray(matrix)), 5, rtol=1e-10)
    assert rz.spectral_norm(jnp.zeros((3, 2))) == 0


def brute_force_cknna(x, y, k):
    def neighbors(z):
        similarity = z @ z.T
        np.fill_diagonal(similarity, -np.inf)
        return [set(np.argsort(-row)[:k].tolist()) for row in similarity]

    def centered(z):
        n = len(z)
        h = np.eye(n) - 1 / n
        return h @ (z @ z.T) @ h

    def align(a, near_a, b, near_b):
        return sum(a[i, j] * b[i, j] for i in range(len(a)) for j in near_a[i] & near_b[i])

    (a, near_a), (b, near_b) = ((centered(z), neighbors(z)) for z in (x, y))
    return align(a, near_a, b, near_b) / np.sqrt(align(a, near_a, a, near_a) * align(b, near_b, b, near_b))


def test_cknna_equals_loops_over_neighbors():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(40, 6))
    y = x @ rng.normal(size=(6, 5)) + 0.5 * rng.normal(size=(40, 5))
    np.testing.assert_allclose(rz.cknna(jnp.asarray(x), jnp.asarray(y), 7), brute_force_cknna(x, y, 7), rtol=1e-10)


def test_cknna_ignores_rotations_and_falls_with_noise():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(60, 6))
    rotated = x @ np.linalg.qr(rng.normal(size=(6, 6)))[0]
    np.testing.assert_allclose(rz.cknna(jnp.asarray(x), jnp.asarray(rotated)), 1, rtol=1e-10)
    assert rz.cknna(jnp.asarray(x), jnp.asarray(rng.normal(size=(60, 6)))) < 0.5


def test_cknna_of_other_neighborhoods_is_below_one():
    rng = np.random.default_rng(3)
    x = rng.normal(size=(60, 6))
    assert rz.cknna(jnp.asarray(x), jnp.asarray(x * np.array([1, 1, 1, 1, 1, 5.0]))) < 0.95


def test_cknna_keeps_the_dtype_and_is_its_own_under_jit_and_vmap():
    x = jax.random.normal(jax.random.key(0), (3, 40, 5), jnp.float32)
    y = x + 0.5 * jax.random.normal(jax.random.key(1), x.shape, jnp.float32)
    together = jax.jit(jax.vmap(rz.cknna))(x, y)
    assert together.dtype == jnp.float32
    np.testing.assert_allclose(together, [rz.cknna(a, b) for a, b in zip(x, y, strict=True)], rtol=1e-5)


@pytest.mark.parametrize(("items", "others"), [(10, 10), (20, 30)])
def test_too_few_items_are_refused(as_installed, items, others):
    with pytest.raises(ValueError, match=rf"share over 10 items, got shapes \({items}, 2\) and \({others}, 2\)"):
        rz.cknna(jnp.zeros((items, 2)), jnp.zeros((others, 2)))


def test_the_distance_of_parameters_is_that_of_one_long_vector():
    rng = np.random.default_rng(0)
    a, b = ([rng.normal(size=(3, 4)), {"bias": rng.normal(size=5)}] for _ in range(2))
    flat = [np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)]) for tree in (a, b)]
    found = rz.parameter_distance(*jax.tree.map(jnp.asarray, (a, b)))
    np.testing.assert_allclose(found, np.linalg.norm(flat[0] - flat[1]), rtol=1e-12)
