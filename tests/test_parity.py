"""ParityMNIST: NumPy for the network and its measures, exact expectations for the sampled losses, float64 for drift."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import rlrazor as rz
from rlrazor.methods import DISTILLED_GRPO, GRPO, ORACLE_SFT, REINFORCE, SFT_1, SFT_2, exact_loss, plus_kl
from rlrazor.tasks import parity
from rlrazor.tasks.images import Images, load_fashion, load_mnist
from rlrazor.tasks.parity import methods


@pytest.fixture(scope="module")
def world():
    return parity.split_world(load_mnist(), load_fashion(), num_test=100)


measure = jax.jit(parity.measure)


@jax.jit
def pretrain(world, skew):
    return parity.pretrain(world, skew, jax.random.key(0), num_steps=60)


@pytest.fixture(scope="module")
def params(world):
    return pretrain(world, jnp.zeros(()))


@pytest.fixture(scope="module")
def base(world, params):
    return jax.jit(parity.make_base)(world, params)


@pytest.fixture(scope="module")
def runs(world, base):
    """Every method for eight updates, two checkpoints; fields `[methods, checkpoints + 1]`."""
    count = len(parity.METHODS)
    settings = parity.Setting(
        method=jnp.arange(count, dtype=jnp.int32),
        rate=jnp.full(count, 1e-3, jnp.float32),
        cosine=jnp.arange(count) % 2 == 0,
        beta=jnp.full(count, 0.1, jnp.float32),
        base=jnp.zeros(count, jnp.int32),
        key=jax.random.split(jax.random.key(1), count),
    )
    bases = jax.tree.map(lambda leaf: leaf[None], base)

    @jax.jit
    def all_of_them(world, bases, settings):
        return jax.lax.map(lambda s: parity.fine_tune(world, bases, s, num_steps=8, num_checkpoints=2), settings)

    return jax.tree.map(np.asarray, all_of_them(world, bases, settings))


def layers(params):
    leaves = {
        jax.tree_util.keystr(path): np.asarray(x, np.float64) for path, x in jax.tree_util.tree_leaves_with_path(params)
    }
    kernels = [x for name, x in sorted(leaves.items()) if "kernel" in name]
    biases = [x for name, x in sorted(leaves.items()) if "bias" in name]
    return list(zip(kernels, biases, strict=True))


def forward_in_float64(params, inputs):
    x = np.asarray(inputs, np.float64)
    *hidden, (kernel, bias) = layers(params)
    for weights, offset in hidden:
        x = np.maximum(x @ weights + offset, 0)
    logits = x @ kernel + bias
    return logits - np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1, keepdims=True)) - logits.max(
        -1, keepdims=True
    ), x


def kl_in_float64(log_p, log_q):
    return (np.exp(log_p) * (log_p - log_q)).sum(-1).mean()


# The world


def test_every_digit_of_the_right_parity_is_correct_and_one_garment(world):
    labels = load_mnist()[1].labels[:100]
    for accept, label in zip(np.asarray(world.test_new.accept), labels, strict=True):
        assert accept.tolist() == [(answer - label) % 2 == 0 for answer in range(10)]
    assert np.asarray(world.test_old.accept).sum(-1).tolist() == [1] * 100
    assert np.argmax(world.test_old.accept, axis=-1).tolist() == load_fashion()[1].labels[:100].tolist()


def test_inputs_are_pixels_up_to_one_and_the_indicator(world):
    for task, indicator in ((world.train, 1.0), (world.pretrain_old, -1.0)):
        inputs = np.asarray(task.inputs)
        assert inputs.dtype == np.float32
        assert inputs[:, :-1].min() == 0
        assert inputs[:, :-1].max() == 1
        assert set(inputs[:, -1].tolist()) == {indicator}


def test_pretraining_and_fine_tuning_share_no_digit(world):
    before, after = ({row.tobytes() for row in np.asarray(task.inputs)} for task in (world.pretrain_new, world.train))
    assert not before & after


def test_too_few_images_are_refused():
    few = Images(np.zeros((5, 784), np.uint8), np.zeros(5, np.int32))
    with pytest.raises(ValueError, match=r"digits has 5 .* needs over 500"):
        parity.split_world((few, few), load_fashion())


# The network


def test_network_is_the_published_perceptron(world, params):
    got, hidden = parity.apply_network(params, world.test_new.inputs)
    want, features = forward_in_float64(params, world.test_new.inputs)
    np.testing.assert_allclose(got, want, atol=2e-5)
    np.testing.assert_allclose(hidden, features, atol=2e-5)
    assert got.dtype == hidden.dtype == jnp.float32
    assert [x.shape for pair in layers(params) for x in pair] == [
        (785, 512),
        (512,),
        (512, 256),
        (256,),
        (256, 10),
        (10,),
    ]


def test_pretraining_learns_both_tasks(world, base):
    measures = measure(world, base, base.params)
    assert measures.parity > 0.75
    assert measures.garments > 0.5


def test_skewed_pretraining_prefers_the_smaller_digits(world):
    skewed = pretrain(world, jnp.ones(()))
    policy = np.exp(parity.apply_network(skewed, world.test_new.inputs)[0])
    right = np.where(world.test_new.accept, policy, 0)
    shares = (right / right.sum(-1, keepdims=True)).sum(0) / np.asarray(world.test_new.accept).sum(0)
    wanted = np.exp(-np.arange(5)) / np.exp(-np.arange(5)).sum()
    np.testing.assert_allclose(shares.reshape(5, 2).mean(1), wanted, atol=0.15)
    assert np.all(np.diff(shares.reshape(5, 2).mean(1)) < 0)


# Schedules and batches


@pytest.mark.parametrize("cosine", [False, True])
def test_schedule_is_optax_warmup_then_constant_or_cosine(cosine):
    steps = 50
    after = optax.cosine_decay_schedule(1.0, steps - 5) if cosine else optax.constant_schedule(1.0)
    for count in range(5, steps):
        got = parity.schedule(jnp.array(count), jnp.array(cosine), steps)
        np.testing.assert_allclose(got, after(count - 5), atol=1e-6)
    warm = [float(parity.schedule(jnp.array(count), jnp.array(cosine), steps)) for count in range(5)]
    np.testing.assert_allclose(warm, [0.2, 0.4, 0.6, 0.8, 1.0], rtol=1e-6)


def test_adam_is_that_of_optax():
    gradients = (
        jax.random.normal(jax.random.key(2), (40, 300), jnp.float32)
        * jnp.geomspace(1e-6, 1e3, 300, dtype=jnp.float32)[None]
    )

    def path(optimizer):
        def step(moments, gradient):
            with jax.numpy_dtype_promotion("standard"):  # optax mixes its integer counter with floats
                updates, moments = optimizer.update(gradient, moments)
            return moments, updates

        return jax.lax.scan(step, optimizer.init(gradients[0]), gradients)[1]

    got = path(parity.adam(lambda count: 1e-3 / (count + 1).astype(jnp.float32)))
    expected = path(optax.adam(lambda count: 1e-3 / (count + 1)))
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-10)  # float32's spacing at an update of 1e-3


def test_an_epoch_shows_every_image_at_most_once_and_the_next_another_order():
    rows, uniform = parity.draw_batches(jax.random.key(0), 200, num_steps=7, batch_size=64, group_size=8)
    assert rows.shape == (7, 64)
    assert len(set(np.asarray(uniform).ravel().tolist())) > 0.99 * 7 * 64 * 8
    first, second = np.asarray(rows[:3]).ravel(), np.asarray(rows[3:6]).ravel()
    assert len(set(first.tolist())) == len(set(second.tolist())) == 192
    assert first.tolist() != second.tolist()


# The methods


BETA = 0.3


@pytest.fixture(scope="module")
def gradients(world, base):
    """Sampled gradients of a method at the base on fixed rows, in the last bias, `[keys, 10]`."""
    rows, everything = jnp.arange(64), world._replace(lit=jnp.arange(785))

    @partial(jax.jit, static_argnums=3)
    def of(world, base, method, replay):
        losses = parity.losses(world, base, method, jnp.float32(BETA))
        loss = losses.replay if replay else losses.new_task

        def one(key):
            leaves = jax.tree.leaves(jax.grad(loss)(base.params, rows, jax.random.uniform(key, (64, 8), jnp.float32)))
            (last_bias,) = (leaf for leaf in leaves if leaf.shape == (10,))
            return last_bias

        return jax.lax.map(one, jax.random.split(jax.random.key(2), 300))

    return lambda name: np.asarray(of(everything, base, jnp.array(parity.method_index(name)), name == parity.REPLAY))


def exact_gradient(world, base, name):
    """Of the method's exact loss in the last bias, on the same rows."""
    log_ref, accept = base.log_train[:64].astype(float), world.train.accept[:64]
    one_label, two_labels = (uniform_over(accept, answers) for answers in ((0, 1), (0, 1, 4, 5)))
    demonstrations = {SFT_1: one_label, SFT_2: two_labels, DISTILLED_GRPO: log_ref}  # the teacher is the base here
    loss = exact_loss(name, rz.Problem(log_ref, accept, demonstrations, group_size=8, beta=BETA))
    return np.asarray(jax.grad(lambda shift: loss(jax.nn.log_softmax(log_ref + shift[None])).mean())(jnp.zeros(10)))


def uniform_over(accept, answers):
    right = jnp.asarray(np.isin(np.arange(10), answers))[None]
    return jnp.log((right & accept).astype(float) / (len(answers) / 2))


@pytest.mark.parametrize(
    "name", [SFT_1, SFT_2, ORACLE_SFT, GRPO, plus_kl(GRPO), REINFORCE, plus_kl(SFT_1), DISTILLED_GRPO]
)
def test_sampled_losses_have_the_exact_expected_gradient(world, base, gradients, name):
    exact, sampled = exact_gradient(world, base, name), gradients(name)
    error = sampled.std(0, ddof=1) / np.sqrt(len(sampled))
    assert np.all(np.abs(sampled.mean(0) - exact) < 4.5 * error + 1e-6)
    if name != DISTILLED_GRPO:
        assert np.abs(exact).max() > 4.5 * error.max()


def test_the_penalty_is_a_gradient_of_its_own(base, moved, world):
    """At the base the penalty has none, so it is asked for elsewhere: beta times the gradient of KL(policy || base)."""
    rows, uniform = jnp.arange(64), jnp.full((64, 8), 0.5, jnp.float32)
    everything = world._replace(lit=jnp.arange(785))

    def loss(name, params):
        method = jnp.array(parity.method_index(name))
        return parity.losses(everything, base, method, jnp.float32(BETA)).new_task(params, rows, uniform)

    log_policy = parity.apply_network(moved, world.train.inputs[:64]).log_policy.astype(float)
    exact = BETA * rz.kl_divergence(log_policy, base.log_train[:64].astype(float)).mean()
    for plain in (SFT_1, GRPO):
        np.testing.assert_allclose(loss(plus_kl(plain), moved) - loss(plain, moved), exact, rtol=1e-3)


def test_replay_adds_the_sft_gradient_on_memories_of_the_old_task(world, base, gradients):
    extra = gradients(parity.REPLAY) - gradients(SFT_1)
    policy = np.exp(parity.apply_network(base.params, world.pretrain_old.inputs).log_policy)
    exact = (policy - np.asarray(world.pretrain_old.accept)).mean(0)
    error = extra.std(0, ddof=1) / np.sqrt(len(extra))
    assert np.all(np.abs(extra.mean(0) - exact) < 4.5 * error)
    assert np.abs(exact).max() > 4.5 * error.max()


@pytest.mark.parametrize("wrong", [{"GRP0": 0}, {GRPO: None}])
def test_a_misspelt_method_is_an_error(wrong):
    table = dict.fromkeys(parity.METHODS, 0)
    assert methods._branches(table) == [0] * len(parity.METHODS)
    with pytest.raises(ValueError, match=f"an entry for each method and no other, which fails for {next(iter(wrong))}"):
        methods._branches({name: 0 for name in table | wrong if (table | wrong)[name] is not None})
    with pytest.raises(ValueError, match="unknown method 'GRP0'; there are SFT 1, "):
        parity.method_index("GRP0")


# Fine-tuning


def setting_of(method, key):
    return parity.Setting(
        method=method,
        rate=jnp.float32(1e-3),
        cosine=jnp.array(False),
        beta=jnp.float32(0.1),
        base=jnp.array(0),
        key=key,
    )


@pytest.fixture(scope="module")
def advanced(base):
    """The first matrix of every method after four updates, `[methods, 785, 512]`, by world."""
    bases, count = jax.tree.map(lambda leaf: leaf[None], base), len(parity.METHODS)

    @jax.jit
    def all_of_them(world, bases, methods):
        def one(method):
            training = parity.prepare(world, bases, setting_of(method, jax.random.key(5)), num_steps=4)
            params = training.advance(training.start, training.batches).params
            return next(leaf for leaf in jax.tree.leaves(params) if leaf.shape[0] == 785)

        return jax.lax.map(one, methods)

    return lambda world: np.asarray(all_of_them(world, bases, jnp.arange(count, dtype=jnp.int32)))


def test_only_replay_moves_the_weights_of_inputs_that_are_dark_in_the_new_task(world, base, advanced):
    dark = np.asarray(world.train.inputs).max(0) == 0
    assert world.lit.tolist() == np.flatnonzero(~dark).tolist()
    before, after = layers(base.params)[0][0].astype(np.float32), advanced(world)
    moved = dict(zip(parity.METHODS, np.abs(after - before).max(-1), strict=True))
    assert np.mean(moved.pop(parity.REPLAY)[dark] > 0) > 0.9  # few pixels are dark in all garments of four batches
    assert not np.any([change[dark] for change in moved.values()])
    assert np.all([change[~dark].max() > 1e-3 for change in moved.values()])


def test_training_without_dark_inputs_takes_the_path_of_the_whole_network(world, advanced):
    whole = advanced(world._replace(lit=jnp.arange(785)))
    np.testing.assert_allclose(advanced(world), whole, atol=1e-4)  # without one lit pixel it is 8e-3 away
    assert np.abs(whole[1:] - whole[:-1]).max((1, 2)).min() > 5e-4


def test_the_first_checkpoint_is_the_base(runs):
    measures = runs.measures
    new, old = measures.new, measures.old
    distances = [distance for both in (new, old) for distance in both[:-1]]  # Jensen-Shannon: next test
    for measure in (*distances, measures.weight_l1, measures.weight_spectral, measures.activation_l2):
        np.testing.assert_array_equal(measure[:, 0], 0)
    np.testing.assert_allclose(measures.cknna[:, 0], 1, rtol=1e-5)
    assert len(set(measures.garments[:, 0].tolist())) == 1


def test_every_method_moves_the_network_and_differently(runs):
    measures, log_train = runs.measures, runs.log_train
    assert measures.new.forward.shape == (len(parity.METHODS), 3)
    assert np.all(measures.weight_l1[:, 1] > 0)
    assert np.all(measures.weight_l1[:, 2] > measures.weight_l1[:, 1])
    assert len(set(measures.new.forward[:, 2].tolist())) == len(parity.METHODS)
    np.testing.assert_allclose(np.exp(log_train).sum(-1), 1, atol=1e-5)


def test_everything_is_float32(runs):
    assert {leaf.dtype for leaf in jax.tree.leaves(runs)} == {np.dtype(np.float32)}


def test_sft_drifts_further_than_the_oracle(runs):
    forward = dict(zip(parity.METHODS, runs.measures.new.forward[:, 2], strict=True))
    assert forward[SFT_1] > forward[SFT_2] > forward[ORACLE_SFT]


def test_steps_must_divide_into_checkpoints(world, base):
    setting = setting_of(jnp.array(0), jax.random.key(0))
    with pytest.raises(ValueError, match="multiple of num_checkpoints 3, got 7"):
        parity.fine_tune(world, base, setting, num_steps=7, num_checkpoints=3)


# The measures


@pytest.fixture(scope="module")
def moved(params):
    keys = iter(jax.random.split(jax.random.key(3), 6))
    return jax.tree.map(lambda x: x + 0.003 * jax.random.normal(next(keys), x.shape, jnp.float32), params)


def test_distances_are_those_of_the_float64_network(world, base, moved):
    measures = measure(world, base, moved)
    for name, task in (("new", world.test_new), ("old", world.test_old)):
        (log_p, _), (log_q, _) = (forward_in_float64(x, task.inputs) for x in (base.params, moved))
        p, q, m = np.exp(log_p), np.exp(log_q), np.log((np.exp(log_p) + np.exp(log_q)) / 2)
        want = parity.Distances(
            forward=kl_in_float64(log_p, log_q),
            reverse=kl_in_float64(log_q, log_p),
            total_variation=np.abs(p - q).sum(-1).mean() / 2,
            l2=np.sqrt(((p - q) ** 2).sum(-1)).mean(),
            jensen_shannon=(kl_in_float64(log_p, m) + kl_in_float64(log_q, m)) / 2,
        )
        np.testing.assert_allclose(getattr(measures, name), want, rtol=2e-3, err_msg=name)
    before, after = (forward_in_float64(x, world.test_new.inputs)[1] for x in (base.params, moved))
    np.testing.assert_allclose(measures.activation_l1, np.abs(after - before).mean(), rtol=1e-4)
    np.testing.assert_allclose(measures.activation_l2, np.linalg.norm(after - before, axis=-1).mean(), rtol=1e-4)


def test_excess_is_the_drift_inside_the_correct_and_inside_the_wrong_answers(world, base, moved):
    (log_p, _), (log_q, _) = (forward_in_float64(x, world.test_new.inputs) for x in (base.params, moved))
    total = 0.0
    for p, q, accept in zip(np.exp(log_p), np.exp(log_q), np.asarray(world.test_new.accept), strict=True):
        for side in (accept, ~accept):
            inside, ref = q[side] / q[side].sum(), p[side] / p[side].sum()
            total += q[side].sum() * (inside * np.log(inside / ref)).sum() / len(log_p)
    np.testing.assert_allclose(measure(world, base, moved).excess, total, rtol=5e-3)


def test_drift_below_a_millionth_is_accurate_in_float32(world, base):
    keys = iter(jax.random.split(jax.random.key(4), 6))
    near = jax.tree.map(lambda x: x + 2e-5 * jax.random.normal(next(keys), x.shape, jnp.float32), base.params)
    (exact_p, _), (exact_q, _) = (forward_in_float64(x, world.test_new.inputs) for x in (base.params, near))
    exact = kl_in_float64(exact_p, exact_q)
    assert 1e-9 < exact < 1e-6
    measured = measure(world, base, near).new.forward
    assert measured.dtype == jnp.float32
    np.testing.assert_allclose(measured, exact, rtol=0.05)
    log_p, log_q = (parity.apply_network(x, world.test_new.inputs)[0] for x in (base.params, near))
    per_image = (np.exp(exact_p) * (exact_p - exact_q)).sum(-1)
    ours = np.abs(np.asarray(rz.kl_divergence(log_p, log_q)) / per_image - 1)
    textbook = np.abs(np.asarray((jnp.exp(log_p) * (log_p - log_q)).sum(-1)) / per_image - 1)
    assert np.median(ours) < 0.05
    assert np.median(textbook) > 0.5


def test_weight_measures_are_their_definitions(world, base, moved):
    measures = measure(world, base, moved)
    change = [
        b - a for (x, y) in zip(layers(base.params), layers(moved), strict=True) for a, b in zip(x, y, strict=True)
    ]
    np.testing.assert_allclose(
        measures.weight_l1, np.abs(np.concatenate([c.ravel() for c in change])).mean(), rtol=1e-5
    )
    spectral = sum(np.linalg.norm(c, 2) for c in change if c.ndim == 2)
    np.testing.assert_allclose(measures.weight_spectral, spectral, rtol=0.02)
    fisher = [f for pair in layers(base.fisher) for f in pair]
    weighted = np.sqrt(sum((f * c**2).sum() for f, c in zip(fisher, change, strict=True)))
    np.testing.assert_allclose(measures.weight_fisher, weighted, rtol=1e-4)


def test_fisher_information_of_the_last_bias_is_its_closed_form(world, base):
    policy = np.exp(forward_in_float64(base.params, world.test_old.inputs)[0])
    np.testing.assert_allclose(layers(base.fisher)[-1][1], (policy * (1 - policy)).mean(0), rtol=1e-3)


def test_fewer_images_give_the_measures_on_them(world, base, moved):
    few = world._replace(test_new=jax.tree.map(lambda leaf: leaf[:40], world.test_new))
    short = base._replace(log_new=base.log_new[:40], hidden_new=base.hidden_new[:40])
    got = jax.jit(partial(parity.measure, num_aligned=40))(world, base, moved).cknna
    np.testing.assert_allclose(got, measure(few, short, moved).cknna, rtol=1e-5)
    fisher = jax.jit(partial(parity.make_base, num_fisher=40))(world, base.params).fisher
    policy = np.exp(forward_in_float64(base.params, world.test_old.inputs[:40])[0])
    np.testing.assert_allclose(layers(fisher)[-1][1], (policy * (1 - policy)).mean(0), rtol=1e-3)
