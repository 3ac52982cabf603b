"""Independent truth for the tests: textbook formulas at 60 digits, and the contract that every public function keeps.

The formulas are the definitions, written for probabilities in mpmath and sharing nothing with the package.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

MP = mpmath.MPContext()
MP.dps = 60

QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
if jax.__version_info__ < (0, 12):  # later versions have no other way to compile on the CPU, and no such option
    QUICK["xla_cpu_use_fusion_emitters"] = False


def exact(log_p):
    """The probabilities exp(log_p) of one row, with the floats taken as exact."""
    return [MP.exp(MP.mpf(float(x))) for x in np.asarray(log_p)]


def normalized(log_p):
    """`exact`, divided by the sum, which differs from 1 by the rounding of the row's log-softmax."""
    weights = exact(log_p)
    total = MP.fsum(weights)
    return [w / total for w in weights]


def to_float(x):
    """An mpf as a float; beyond the float range it is infinite."""
    if MP.isnan(x) or abs(x) == MP.inf:
        return float(x)
    return float(x) if abs(x) < MP.mpf(np.finfo(np.float64).max) else float(MP.sign(x)) * np.inf


def floats(row):
    return np.array([to_float(x) for x in row])


def relative_error(got, want):
    """|got - want| / |want| elementwise; equal infinities agree, and where want is 0 the error is absolute."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    assert got.shape == want.shape, (got.shape, want.shape)
    same = got == want
    with np.errstate(invalid="ignore", divide="ignore"):
        error = np.abs(got - want) / np.where(want == 0, 1.0, np.abs(want))
    return np.where(same, 0.0, np.where(np.isnan(error), np.inf, error))


def entropy(p):
    return -MP.fsum(x * MP.log(x) for x in p if x > 0)


def cross_entropy(p, q):
    return MP.inf if support_violated(p, q) else -MP.fsum(x * MP.log(y) for x, y in zip(p, q, strict=True) if x > 0)


def support_violated(p, q):
    return any(x > 0 and y == 0 for x, y in zip(p, q, strict=True))


def kl(p, q):
    if support_violated(p, q):
        return MP.inf
    return MP.fsum(x * MP.log(x / y) for x, y in zip(p, q, strict=True) if x > 0)


def jeffreys(p, q):
    return kl(p, q) + kl(q, p)


def jensen_shannon(p, q, weight):
    w = MP.mpf(weight)
    m = [w * x + (1 - w) * y for x, y in zip(p, q, strict=True)]
    return (w * kl(p, m) if w > 0 else 0) + ((1 - w) * kl(q, m) if w < 1 else 0)


def renyi(p, q, order):
    pairs = list(zip(p, q, strict=True))
    if order == 1:
        return kl(p, q)
    if order == np.inf:
        return max(MP.inf if y == 0 else MP.log(x / y) for x, y in pairs if x > 0)
    a = MP.mpf(order)
    if a > 1 and support_violated(p, q):
        return MP.inf
    total = MP.fsum(y if a == 0 else x**a * y ** (1 - a) for x, y in pairs if x > 0 and y > 0)
    return MP.log(total) / (a - 1) if total > 0 else MP.inf


def chi2(p, q):
    if support_violated(p, q):
        return MP.inf
    return MP.fsum((x - y) ** 2 / y for x, y in zip(p, q, strict=True) if y > 0)


def total_variation(p, q):
    return MP.fsum(abs(x - y) for x, y in zip(p, q, strict=True)) / 2


def bhattacharyya(p, q):
    return MP.fsum(MP.sqrt(x * y) for x, y in zip(p, q, strict=True))


def hellinger(p, q):
    return MP.sqrt(MP.fsum((MP.sqrt(x) - MP.sqrt(y)) ** 2 for x, y in zip(p, q, strict=True)) / 2)


def fisher_rao(p, q):
    return 2 * MP.acos(min(bhattacharyya(p, q), MP.mpf(1)))


def log_weights(p, reward, beta):
    """log(p exp(reward / beta)) of one row; -inf where p or exp(reward) is 0."""
    beta = MP.mpf(float(beta))
    return [MP.log(x) + MP.mpf(float(r)) / beta if x > 0 else MP.ninf for x, r in zip(p, reward, strict=True)]


def log_sum(log_w):
    top = max(log_w)
    return top + MP.log(MP.fsum(MP.exp(x - top) for x in log_w)) if top > MP.ninf else MP.ninf


def tilt(p, reward, beta):
    """Log-probabilities of p exp(reward / beta) / Z."""
    log_w = log_weights(p, reward, beta)
    total = log_sum(log_w)
    return [x - total if total > MP.ninf else MP.ninf for x in log_w]


def expectation(p, x):
    return MP.fsum(a * MP.mpf(float(b)) for a, b in zip(p, x, strict=True) if a > 0)


def quick_jit(function):
    """`jax.jit` that spends little on optimising, for what runs once."""
    return jax.jit(function, compiler_options=QUICK)


def assert_derivatives_match_differences(derivatives, x, h=1e-5, rtol=1e-6, atol=1e-8):
    """The gradient and Hessian of `derivatives(x) = (value, gradient, Hessian)` against central differences."""
    _, gradient, hessian = derivatives(x)
    for index in np.ndindex(x.shape):
        (up, up_slope, _), (down, down_slope, _) = (derivatives(x.at[index].add(s * h)) for s in (1, -1))
        np.testing.assert_allclose(gradient[index], (up - down) / (2 * h), rtol=rtol, atol=atol)
        np.testing.assert_allclose(hessian[index], (up_slope - down_slope) / (2 * h), rtol=rtol, atol=atol)


def assert_derivatives_match_limit(derivatives, x):
    """Derivatives at logits or rewards of -inf against those at -1e4, which is the same to any precision."""
    at_limit, inside = derivatives(x), derivatives(jnp.maximum(x, -1e4))
    assert jnp.abs(inside[1]).max() > 1e-3
    assert jnp.abs(inside[2]).max() > 1e-3
    for got, want in zip(at_limit, inside, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-11, atol=1e-13)  # at -1e4 a sum of logs rounds by 2e-12


def dirichlet_logs(rng, shape, dtype=np.float64):
    """Random interior distributions, as log-probabilities."""
    return jax.nn.log_softmax(jnp.asarray(rng.normal(size=shape), dtype), axis=-1)


# The contract of every public function.

OUTCOMES = 5
FEATURES = np.stack([np.arange(5.0), np.array([1.0, -1.0, 0.5, 2.0, 0.0])], axis=-1)


class Contract(NamedTuple):
    """A public function, its array arguments by name and in order, then its numbers with one value a row."""

    function: Callable
    arrays: tuple[str, ...]
    numbers: Mapping[str, tuple[float, float, float]] = {}

    def draw(self, name, batch=(), outcomes=OUTCOMES, dtype=np.float64, seed=0):
        """A valid value of the argument `name`."""
        rng = np.random.default_rng([seed, sum(map(ord, name))])
        if name == "accept":
            return jnp.asarray(np.arange(outcomes) % 2 == rng.integers(2, size=(*batch, 1)))
        if name == "features":
            return jnp.asarray(FEATURES, dtype)
        if name == "moments":
            return jnp.exp(dirichlet_logs(rng, (*batch, OUTCOMES), dtype)) @ jnp.asarray(FEATURES, dtype)
        if name == "reward":
            return jnp.asarray(rng.normal(size=(*batch, outcomes)), dtype)
        return dirichlet_logs(rng, (*batch, outcomes), dtype)

    def inputs(self, batch=(), dtype=np.float64):
        """A valid value of every array."""
        return [self.draw(name, batch, dtype=dtype) for name in self.arrays]

    def rows(self, dtype=np.float64):
        """Every number, `[3]`."""
        return [jnp.asarray(values, dtype) for values in self.numbers.values()]

    def axes(self):
        """The axis of every argument that `vmap` maps."""
        return [None if name == "features" else 0 for name in self.arrays] + [0] * len(self.numbers)


def assert_trees_agree(got, want, rtol=1e-12, atol=1e-13):
    got, want = jax.tree.leaves(got), jax.tree.leaves(want)
    assert len(got) == len(want)
    for a, b in zip(got, want, strict=True):
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)


def assert_jit_matches_eager(case):
    arguments = [*case.inputs((3,)), *case.rows()]
    assert_trees_agree(jax.jit(case.function)(*arguments), case.function(*arguments))


def assert_vmap_matches_loop(case):
    arguments, axes = [*case.inputs((3,)), *case.rows()], case.axes()
    mapped = quick_jit(jax.vmap(case.function, in_axes=axes))(*arguments)
    one = quick_jit(case.function)
    rows = [one(*(x if axis is None else x[i] for x, axis in zip(arguments, axes, strict=True))) for i in range(3)]
    assert_trees_agree(mapped, jax.tree.map(lambda *xs: jnp.stack(xs), *rows))


def assert_float32_stays(case):
    numbers = [values[0] for values in case.numbers.values()]  # Python numbers must not promote
    result = quick_jit(lambda *arrays: case.function(*arrays, *numbers))(*case.inputs((3,), np.float32))
    for leaf in jax.tree.leaves(result):
        assert leaf.dtype in (jnp.float32, jnp.bool_)
        assert not np.isnan(np.asarray(leaf)).any()


def assert_batches_broadcast(case):
    first, *rest = case.arrays
    thin = [case.draw(first, (4, 1)), *(case.draw(name, (3,)) for name in rest), *case.rows()]
    full = [jnp.broadcast_to(thin[0], (4, 3, OUTCOMES))]
    for name, x in zip(rest, thin[1:], strict=False):
        full.append(x if name == "features" else jnp.broadcast_to(x, (4, 3, x.shape[-1])))
    full += [jnp.broadcast_to(x, (4, 3)) for x in case.rows()]
    got = quick_jit(case.function)(*thin)
    lead = (4, 3) if len(thin) > 1 else (4, 1)
    assert all(leaf.shape[:2] == lead for leaf in jax.tree.leaves(got))
    if len(thin) > 1:
        assert_trees_agree(got, quick_jit(case.function)(*full))


def assert_integers_are_refused(case):
    numbers = [values[0] for values in case.numbers.values()]
    for position, name in enumerate(case.arrays):
        if name in ("reward", "advantage", "gold"):  # welcome there: tests/test_rewards.py
            continue
        arrays = case.inputs()
        arrays[position] = jnp.ones(arrays[position].shape, np.int32)
        with pytest.raises(TypeError, match=name):
            case.function(*arrays, *numbers)
        with pytest.raises(TypeError, match=name):
            jax.jit(case.function)(*arrays, *numbers)


def assert_outcome_axes_must_match(case):
    """Too few, too many and one outcome: none broadcasts, and the error names an argument that is at odds."""
    numbers = [values[0] for values in case.numbers.values()]
    for position, name in enumerate(case.arrays[1:], start=1):
        if name in ("features", "moments"):
            continue
        for outcomes in (OUTCOMES - 1, OUTCOMES + 1, 1):
            arrays = case.inputs((3,))
            arrays[position] = case.draw(name, (3,), outcomes)
            with pytest.raises(ValueError, match=rf"{name} has {outcomes} outcomes"):
                case.function(*arrays, *numbers)
            with pytest.raises(ValueError, match=rf"{name} has {outcomes} outcomes"):
                jax.jit(case.function)(*arrays, *numbers)


def assert_outcome_axis_is_needed(case):
    numbers = [values[0] for values in case.numbers.values()]
    for bad in (jnp.zeros(()), jnp.zeros((3, 0))):
        with pytest.raises(ValueError, match=case.arrays[0]):
            case.function(bad, *case.inputs()[1:], *numbers)


def assert_batches_must_fit(case):
    numbers = [values[0] for values in case.numbers.values()]
    arrays = case.inputs((3,))
    arrays[0] = case.draw(case.arrays[0], (2,))
    with pytest.raises(ValueError, match=r"broadcast|Incompatible"):
        case.function(*arrays, *numbers)


CONTRACT = [
    assert_vmap_matches_loop,
    assert_float32_stays,
    assert_batches_broadcast,
]
REFUSALS = [
    assert_integers_are_refused,
    assert_outcome_axes_must_match,
    assert_outcome_axis_is_needed,
    assert_batches_must_fit,
]


def kept_by(cases):
    """(promise, case) for every promise of the contract and every case."""
    return [_parameter(promise, case) for promise in CONTRACT for case in cases]


def compiled_by(cases):
    """(promise, case) that jit changes nothing; `test_tracing` says so of the core."""
    return [_parameter(assert_jit_matches_eager, case) for case in cases]


def refused_by(cases):
    """(refusal, case) for every refusal that can happen to the case."""
    needs_two = (assert_outcome_axes_must_match, assert_batches_must_fit)
    return [_parameter(r, case) for r in REFUSALS for case in cases if r not in needs_two or len(case.arrays) > 1]


def _parameter(promise, case):
    return pytest.param(promise, case, id=f"{promise.__name__.removeprefix('assert_')}-{case.function.__name__}")
