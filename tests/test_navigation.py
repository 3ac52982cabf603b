"""Navigation: plain Python for expert and verifier, Monte Carlo for scores, the table of methods for every gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rlrazor as rz
from rlrazor import methods as table
from rlrazor.tasks import navigation as nav
from rlrazor.tasks.navigation import verifier
from rlrazor.tasks.perceptron import apply_perceptron, init_perceptron

KEY = jax.random.key(0)
COMPASS = [(0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1)]


@pytest.fixture(scope="module")
def routes():
    return jax.jit(lambda key: nav.sample_routes(key, 200))(KEY)


@pytest.fixture(scope="module")
def states(routes):
    return jax.jit(lambda routes: nav.expert_states(routes, num_rules=4))(routes)


@pytest.fixture(scope="module")
def world():
    return nav.make_world(KEY, num_train=60, num_test=10)


@pytest.fixture(scope="module")
def size(world):
    return nav.network_size(world, width=24)


@pytest.fixture(scope="module")
def bases(world, size):
    return nav.pretrain_many(world, size, jax.random.key(1), jnp.array(0.25), jnp.zeros(2), num_steps=400)


def words_of_turn(facing, heading):
    """The relative word, by the angle."""
    angle = (heading - facing) * 45
    angle = (angle + 180) % 360 - 180
    side = "right" if angle > 0 else "left"
    return nav.RELATIVE_WORDS.index(f"slightly {side}" if abs(angle) <= 45 else side)


def walked(routes, i):
    """The actions of the expert on route i under four rules, one block at a time."""
    facing, actions = int(routes.facing[i]), []
    for heading, blocks in zip(routes.heading[i].tolist(), routes.blocks[i].tolist(), strict=True):
        actions.append([2 + heading, 10 + words_of_turn(facing, heading), 14 + heading, 22 + heading])
        actions += [[0] * 4] * blocks
        facing = heading
    return [*actions, [1] * 4]


def test_the_expert_walks_the_route(routes, states):
    for i in range(50):
        actions = walked(routes, i)
        length = int(states.valid[i].sum())
        assert states.action[i, :length].tolist() == actions
        assert states.valid[i].tolist() == [True] * length + [False] * (13 - length)


def test_landmarks_stand_where_the_city_has_them(routes):
    seen = {}
    for i in range(200):
        cell = np.array(routes.start[i])
        for heading, blocks, landmark in zip(
            routes.heading[i].tolist(), routes.blocks[i].tolist(), routes.landmark[i].tolist(), strict=True
        ):
            cell = (cell + blocks * np.array(COMPASS[heading])) % 16
            assert seen.setdefault(tuple(cell.tolist()), landmark) == landmark
    assert len(set(seen.values())) == 6


def test_no_turn_goes_straight_on_or_back(routes):
    before = np.concatenate([routes.facing[:, None], routes.heading[:, :-1]], axis=1)
    turns = np.mod(routes.heading - before, 8)
    assert set(np.unique(turns).tolist()) == {1, 2, 3, 5, 6, 7}
    assert set(np.unique(routes.blocks).tolist()) == {1, 2, 3}


def test_the_released_label_is_wrong_for_a_third_of_the_slight_turns():
    pairs = [(a, b) for a in range(8) for b in range(8) if (b - a) % 8 in (1, 7)]

    def released(facing, heading):  # the difference of the headings is not wrapped
        angle = (heading - facing) * 45
        side = "right" if angle > 0 else "left"
        return nav.RELATIVE_WORDS.index(f"slightly {side}" if abs(angle) <= 45 else side)

    ours = nav.relative_word(*map(jnp.array, zip(*pairs, strict=True))).tolist()
    assert ours == [words_of_turn(a, b) for a, b in pairs]
    assert sum(released(a, b) != word for (a, b), word in zip(pairs, ours, strict=True)) == 2  # north-west and north


def test_an_observation_tells_the_expert_what_to_do(world):
    """States that look alike have the same action under every rule: the walk can be learned."""
    known = {}
    for observation, action in zip(world.train.observation.tolist(), world.train.action.tolist(), strict=True):
        assert known.setdefault(tuple(observation), action) == action


def test_the_same_key_gives_the_same_world(world):
    again = nav.make_world(KEY, num_train=60, num_test=10)
    assert all(bool((a == b).all()) for a, b in zip(jax.tree.leaves(world), jax.tree.leaves(again), strict=True))


def test_every_rule_lists_its_own_words_and_the_common_ones():
    listed = nav.listed_actions(len(nav.RULES))
    assert listed[:, :2].all()
    assert (listed[:, 2:].sum(0) == 1).all()
    assert listed[0].sum() == 10
    assert listed[1].sum() == 6
    assert (nav.listed_actions(2) == listed[:2, :14]).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: nav.sample_routes(KEY, 5, num_turns=0), "num_turns must be at least 1, for a route begins"),
        (lambda: nav.sample_routes(KEY, 0), "num_routes must be at least 1, got 0"),
        (lambda: nav.sample_routes(KEY, 5, max_blocks=0), "max_blocks must be at least 1, got 0"),
        (lambda: nav.num_actions(1), "num_rules must be from 2 to 10, got 1"),
        (lambda: nav.rule_index("left"), "unknown rule 'left'"),
        (lambda: nav.method_index("PPO"), "unknown method 'PPO'"),
        (lambda: nav.exact_scores(jnp.ones((1, 2)), jnp.ones((1, 2), bool), 0), "attempts must be at least 1, got 0"),
        (
            lambda: nav.settings(["SFT"], KEY, optimizer="Lion", rate=0.1, record=[0], base=0),
            "unknown optimizer 'Lion'; there are SGD, momentum, Adam",
        ),
    ],
)
def test_bad_input_is_named(as_installed, call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_no_attempt_is_an_error(as_installed):
    episode = nav.start_episode(1)
    with pytest.raises(ValueError, match="attempts must be at least 1, got 0"):
        nav.verify(episode, jnp.array([0]), jnp.zeros((1, 2), int), jnp.ones((1, 2), bool), attempts=0)


def walk(actions, expert, attempts, misread=False):
    """The published bookkeeping of one route, in plain Python: rewards, right actions, calls."""
    step, failures, rewards, right = 0, 0, [], 0
    for action in actions:
        if failures == attempts:
            rewards.append(-1.0)
            break
        if action == expert[step]:
            rewards.append(1.0)
            right, step, failures = right + 1, step + 1, 0
            if step == len(expert):
                break
        else:
            rewards.append(-1.5 if misread else -1.0)
            failures += 1
    return rewards, right, len(rewards)


@pytest.mark.parametrize("attempts", [1, 2, 5])
@pytest.mark.parametrize("misread", [False, True])
def test_the_verifier_keeps_the_published_books(attempts, misread):
    rng = np.random.default_rng(attempts)
    expert = rng.integers(0, 3, (40, 6))
    valid = np.arange(6) < rng.integers(1, 7, (40, 1))
    actions = rng.integers(0, 3, (40, 6 * attempts + 1))
    verify = jax.jit(lambda e, a: nav.verify(e, a, jnp.array(expert), jnp.array(valid), misread, attempts=attempts))
    episode, verdicts = nav.start_episode(40), []
    for column in actions.T:
        episode, verdict = verify(episode, jnp.array(column))
        verdicts.append(verdict)
    reward, right, counted = (np.array([getattr(v, name) for v in verdicts]) for name in verifier.Verdict._fields)
    for i in range(40):
        rewards, rights, calls = walk(actions[i], expert[i][valid[i]], attempts, misread)
        assert reward[:calls, i].tolist() == rewards
        assert (reward[calls:, i] == 0).all()
        assert (right[:, i].sum(), counted[:, i].sum()) == (rights, calls)


@pytest.mark.parametrize("attempts", [1, 2, 5])
def test_exact_scores_are_those_of_simulation(attempts):
    success = jax.random.uniform(jax.random.key(attempts), (4, 7), minval=0.4)
    valid = jnp.arange(7)[None] < jnp.array([[7], [4], [1], [5]])
    exact = nav.exact_scores(success, valid, attempts)
    copies = 20_000
    many = jnp.repeat(success, copies, axis=0), jnp.repeat(valid, copies, axis=0)
    calls = jax.jit(lambda key: nav.simulate(*many, key, attempts=attempts))(jax.random.key(7))
    right, counted = (np.asarray(x).sum(1).astype(float) for x in (calls.right, calls.counted))
    ratio = right.sum() / counted.sum()
    error = np.std(right - ratio * counted) / counted.mean() / np.sqrt(len(right))  # of a ratio, by the delta method
    assert abs(ratio - exact.per_step) < 4 * error
    assert error < 2e-3
    arrived = right == np.asarray(many[1]).sum(1)
    assert abs(arrived.mean() - exact.arrived) < 4 * np.sqrt(0.25 / len(arrived))
    first = np.asarray(success)[np.asarray(valid)].mean()
    assert float(exact.teacher_forced) == pytest.approx(first, abs=1e-12)


def test_simulation_would_miss_a_wasted_call():
    """The published count and the one without the call that ends a route differ by far more than the test's error."""
    success, valid = jnp.full((1, 6), 0.5), jnp.ones((1, 6), bool)
    fail = 0.25
    passed = (1 - fail) ** np.arange(6)
    without = (passed * 0.75).sum() / (passed * (1 + 0.5)).sum()
    assert abs(nav.exact_scores(success, valid).per_step - without) > 0.05


def joint(answers):
    """The log-policy over pairs of an action and a word of style, `[batch, actions * styles]`."""
    pairs = answers.log_action[:, :, None] + answers.log_style[:, None]
    return pairs.reshape(len(pairs), -1)


@pytest.fixture(scope="module")
def setting():
    """Two states with five actions and three styles: logits, what is right, and what the base says."""
    logits = jax.random.normal(jax.random.key(3), (2, 8))
    ref = nav.Answers(*(jax.nn.log_softmax(x) for x in jnp.split(jax.random.normal(KEY, (2, 8)), [5], axis=1)))
    shown = nav.Demonstration(jnp.array([1, 4]), jnp.array([0, 2]))
    accept = jnp.repeat(jax.nn.one_hot(shown.action, 5) > 0, 3, axis=1)
    return logits, ref, shown, accept


def policy_of(logits):
    return nav.Answers(*(jax.nn.log_softmax(x) for x in jnp.split(logits, [5], axis=1)))


def pull(method, setting, drawn=None):
    """The descent gradient of a method on the logits."""
    drawn = jnp.full((2, 2, 4), 0.5) if drawn is None else drawn
    return _pull(*setting[:3], jnp.array(nav.method_index(method)), drawn)


@jax.jit
def _pull(logits, ref, shown, index, drawn):
    weights = nav.weights(index, policy_of(logits), lambda: ref, shown, drawn)
    return jax.grad(lambda x: nav.weighted_loss(policy_of(x), weights))(logits), weights


@pytest.mark.parametrize("method", [table.SFT, table.UNIFORM_SFT, table.ORACLE_SFT, table.EXACT_RL])
def test_exact_methods_have_the_gradient_of_the_table(setting, method):
    logits, ref, shown, accept = setting
    demonstrated = jnp.log(jax.nn.one_hot(shown.action * 3 + shown.style, 15))
    everything = jnp.where(accept, -jnp.log(3.0), -jnp.inf)
    problem = table.Problem(joint(ref), accept, {table.SFT: demonstrated, table.UNIFORM_SFT: everything})
    loss = table.exact_loss(method, problem)
    want = jax.grad(lambda x: loss(joint(policy_of(x))).mean())(logits)
    scale = 2 if method == table.EXACT_RL else 1  # rewards of 1 and -1 here, of 1 and 0 there
    np.testing.assert_allclose(pull(method, setting)[0], scale * want, atol=1e-12)


def test_exact_policy_gradient_is_twice_that_of_dft(setting):
    exact, dft = (pull(method, setting)[0][:, :5] for method in (table.EXACT_RL, table.DFT))
    np.testing.assert_allclose(exact, 2 * dft, atol=1e-12)
    assert float(jnp.abs(dft).max()) > 0.05


def test_dft_is_the_gradient_of_the_probability_of_what_is_shown(setting):
    logits, _, shown, _ = setting

    def probability(x):
        policy = policy_of(x)
        action = jnp.take_along_axis(policy.log_action, shown.action[:, None], axis=1)
        style = jnp.take_along_axis(policy.log_style, shown.style[:, None], axis=1)
        return -(jnp.exp(action) + jnp.exp(style)).mean()

    np.testing.assert_allclose(pull(table.DFT, setting)[0], jax.grad(probability)(logits), atol=1e-12)


def test_exact_rl_leaves_style_alone(setting):
    assert float(jnp.abs(pull(table.EXACT_RL, setting)[0][:, 5:]).max()) < 1e-15
    assert float(jnp.abs(pull(table.SFT, setting)[0][:, 5:]).max()) > 0.1


@pytest.mark.parametrize("method", [table.RLOO, table.GRPO])
def test_an_answer_that_was_not_sampled_has_no_gradient_under_a_group_baseline(setting, method):
    drawn = jax.random.uniform(jax.random.key(5), (2, 2, 4))
    gradient, weights = pull(method, setting, drawn)
    logits = setting[0]
    actions = rz.inverse_cdf(policy_of(logits).log_action, drawn[:, 0])
    sampled = jax.nn.one_hot(actions, 5).sum(1) > 0
    assert (np.asarray(gradient[:, :5])[~sampled] == 0).all() or float(jnp.abs(gradient[:, :5][~sampled]).max()) < 1e-15
    np.testing.assert_allclose(weights.action.sum(1), 0, atol=1e-15)
    without = pull(table.REINFORCE, setting, drawn)[0][:, :5]
    assert float(jnp.abs(without[~sampled]).max()) > 1e-3  # and has one without a baseline


@pytest.mark.parametrize(("method", "scale"), [(table.RLOO, 1.0), (table.REINFORCE, 0.5)])
def test_sampled_gradients_are_exact_in_expectation(setting, method, scale):
    draws = jax.random.uniform(jax.random.key(9), (40_000, 2, 2, 4))
    each = jax.jit(jax.vmap(lambda drawn: pull(method, setting, drawn)[0]))(draws)
    error = each.std(0) / np.sqrt(len(each))
    exact = pull(table.EXACT_RL, setting)[0]
    assert (jnp.abs(each.mean(0) - scale * exact) < 4.5 * error + 1e-15).all()


def test_grpo_is_the_table_s_sampled_loss(setting):
    logits, _, shown, _ = setting
    drawn = jax.random.uniform(jax.random.key(2), (2, 2, 4))
    policy = policy_of(logits)
    actions, styles = rz.inverse_cdf(policy.log_action, drawn[:, 0]), rz.inverse_cdf(policy.log_style, drawn[:, 1])
    advantage = rz.grpo_advantage((actions == shown.action[:, None]).astype(float))

    def loss(x):
        log_prob = jnp.take_along_axis(policy_of(x).log_action, actions, axis=1)
        log_prob += jnp.take_along_axis(policy_of(x).log_style, styles, axis=1)
        return rz.reinforce_loss(log_prob, advantage).mean()

    np.testing.assert_allclose(pull(table.GRPO, setting, drawn)[0], jax.grad(loss)(logits), atol=1e-12)


def test_the_base_obeys_and_is_unsure(world, size, bases):
    base = jax.tree.map(lambda leaf: leaf[0], bases)
    measures = jax.jit(lambda p: nav.measure(world, size, p, p, jnp.array(False)))(base)
    assert (measures.obedience > 0.95).all()
    assert (measures.scores.per_step < 0.95).all()
    assert float(measures.forward.sum() + measures.reverse.sum() + measures.weights) == 0


def test_a_leak_is_what_the_next_rule_would_say(world, size):
    batch = nav.draw_batch(world, jnp.array([1.0, 0.0]), jax.random.uniform(KEY, (64, 2)))
    clean, leaky = (nav.base_answers(world, size, batch, jnp.array(0.2), jnp.array(leak)) for leak in (0.0, 0.1))
    np.testing.assert_allclose(leaky.sum(1), 1, atol=1e-12)
    turning = np.asarray(batch.actions[:, 0]) >= 2
    gained = np.asarray(leaky - clean)[turning, np.asarray(batch.actions[turning, 1])]
    np.testing.assert_allclose(gained, 0.1, atol=1e-12)


def test_measures_are_what_they_say(world, size, bases):
    """Another network against the base, state by state in NumPy."""
    base, params = (jax.tree.map(lambda leaf, i=i: leaf[i], bases) for i in (0, 1))
    found = jax.jit(lambda a, b: nav.measure(world, size, a, b, jnp.array(False)))(base, params)
    states, valid = world.test, np.asarray(world.test.valid)
    for rule in (0, 1):
        stated = jnp.full(valid.shape, rule)
        p, q = (nav.answers(x, size, states.observation, stated) for x in (params, base))
        actions = np.asarray(states.action)[..., rule]
        right = np.take_along_axis(np.exp(p.log_action), actions[..., None], axis=-1)[..., 0]
        scores = nav.exact_scores(jnp.array(right), states.valid)
        np.testing.assert_allclose(found.scores.per_step[rule], scores.per_step, atol=1e-12)
        reverse = [(np.exp(a) * (a - b)).sum(-1)[valid].mean() for a, b in zip(p, q, strict=True)]
        forward = [(np.exp(b) * (b - a)).sum(-1)[valid].mean() for a, b in zip(p, q, strict=True)]
        np.testing.assert_allclose(found.reverse[rule], sum(reverse), rtol=1e-9)
        np.testing.assert_allclose(found.reverse_of_actions[rule], reverse[0], rtol=1e-9)
        np.testing.assert_allclose(found.forward[rule], sum(forward), rtol=1e-9)
        turning = valid & (actions >= 2)
        listed = np.exp(p.log_action)[..., nav.listed_actions()[rule]].sum(-1)[turning].mean()
        np.testing.assert_allclose(found.obedience[rule], listed, atol=1e-12)
        fake = np.take_along_axis(np.exp(p.log_action), np.asarray(states.action)[..., :1], axis=-1)[..., 0]
        np.testing.assert_allclose(
            found.by_first_rule[rule], nav.exact_scores(jnp.array(fake), states.valid).per_step, atol=1e-12
        )
    moved = np.sqrt(
        sum(float(((a - b) ** 2).sum()) for a, b in zip(*map(jax.tree.leaves, (params, base)), strict=True))
    )
    np.testing.assert_allclose(found.weights, moved, rtol=1e-12)


def test_a_mask_leaves_no_unlisted_action(world, size, bases):
    base = jax.tree.map(lambda leaf: leaf[0], bases)
    measures = jax.jit(lambda p: nav.measure(world, size, p, p, jnp.array(True)))(base)
    np.testing.assert_allclose(measures.obedience, 1, atol=1e-12)
    assert float(measures.by_first_rule[1]) < float(measures.scores.per_step[1])


@pytest.fixture(scope="module")
def trained(world, size, bases):
    """Every method and optimizer for some steps, then special settings."""
    names = [*nav.METHODS, *([table.SFT] * 6)]
    special = [{}] * len(nav.METHODS) + [
        {"optimizer": nav.SGD},
        {"optimizer": nav.ADAM, "rate": 1e-3},
        {"styled": False},
        {"masked": True},
        {"prompts": [0.5, 0.5]},
        {"sft_steps": 20},
    ]

    def column(name, default):
        return [row.get(name, default) for row in special]

    settings = nav.settings(
        names,
        jax.random.key(4),
        optimizer=column("optimizer", nav.MOMENTUM),
        rate=np.array(column("rate", 0.05)),
        record=[0, 10, 40],
        base=0,
        prompts=np.array(column("prompts", [1.0, 0.0])),
        styled=np.array(column("styled", True)),
        masked=np.array(column("masked", False)),
        sft_steps=np.array(column("sft_steps", 0)),
    )
    measures = nav.fine_tune_many(world, size, bases, settings, batch_size=32, group_size=4)
    return names, special, jax.tree.map(np.asarray, measures)


def test_every_training_moves_and_starts_at_its_base(trained):
    _, special, measures = trained
    starts = measures.weights[:, 0]
    assert (measures.weights[:, 1:] > 0).all()
    assert all((start == 0) == ("sft_steps" not in row) for start, row in zip(starts, special, strict=True))
    assert len(set(measures.weights[:, -1].tolist())) == len(special)


def test_training_improves_the_trained_rule(trained):
    names, _, measures = trained
    gained = measures.scores.teacher_forced[:, -1, 0] - measures.scores.teacher_forced[:, 0, 0]
    plain = [name in (table.UNIFORM_SFT, table.ORACLE_SFT, table.EXACT_RL, table.GRPO) for name in names]
    assert (gained[plain] > 0).all()


def test_without_style_its_distribution_stays_where_no_gradient_comes_through_the_head(trained):
    names, special, measures = trained
    styled, plain = names.index(table.SFT), special.index({"styled": False})
    style = measures.reverse - measures.reverse_of_actions
    assert style[styled, -1, 0] > 2 * style[plain, -1, 0]


def test_sft_steps_come_before_the_method(world, size, bases):
    """Twenty steps of SFT and none of GRPO are twenty steps of SFT, with the same random numbers."""
    shared = {"optimizer": nav.MOMENTUM, "rate": 0.05, "base": 0}
    one = nav.settings([table.SFT], KEY, record=[20], **shared)
    two = nav.settings([table.GRPO], KEY, record=[0], sft_steps=20, **shared)
    both = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), one, two)
    found = nav.fine_tune_many(world, size, bases, both, batch_size=16)
    np.testing.assert_array_equal(found.weights[0], found.weights[1])


def test_a_perceptron_is_its_formula():
    params = init_perceptron((5, 4, 3, 2), KEY)
    x = jax.random.normal(jax.random.key(1), (7, 5))
    leaves = [leaf for _, leaf in sorted(jax.tree_util.tree_leaves_with_path(params), key=lambda item: str(item[0]))]
    biases, kernels = [leaf for leaf in leaves if leaf.ndim == 1], [leaf for leaf in leaves if leaf.ndim == 2]
    biases, kernels = [np.asarray(b) + 0.1 for b in biases], [np.asarray(k) for k in kernels]
    shifted = jax.tree.map(lambda leaf: leaf + 0.1 if leaf.ndim == 1 else leaf, params)
    want = np.asarray(x)
    for kernel, bias in zip(kernels[:-1], biases[:-1], strict=True):
        want = np.maximum(want @ kernel + bias, 0)
    np.testing.assert_allclose(apply_perceptron(shifted, (5, 4, 3, 2), x), want @ kernels[-1] + biases[-1], atol=1e-12)
