"""A base that was pretrained under all rules, fine-tuned under some, and what the walker then does under each."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Key

from rlrazor._numerics import uniform
from rlrazor.checks import place_of
from rlrazor.divergences import kl_divergence
from rlrazor.methods import SFT
from rlrazor.policies import inverse_cdf
from rlrazor.representations import parameter_distance
from rlrazor.sweeps import PerRun, per_run, sweep
from rlrazor.tasks.navigation.methods import Demonstration, Scalar, method_index, weighted_loss, weights
from rlrazor.tasks.navigation.network import Answers, Size, answers
from rlrazor.tasks.navigation.verifier import Scores, exact_scores
from rlrazor.tasks.navigation.world import (
    FORWARD,
    STOP,
    States,
    expert_states,
    listed_actions,
    num_actions,
    sample_routes,
)
from rlrazor.tasks.perceptron import Params, fit_perceptron
from rlrazor.training import chosen_optimizer, train_at

SGD, MOMENTUM, ADAM = "SGD", "momentum", "Adam"
OPTIMIZERS = (SGD, MOMENTUM, ADAM)


class World(NamedTuple):
    """The city as the walker learns it.

    Attributes:
        train: states of the expert on the routes of training, `[states]`.
        test: those on held-out routes, `[routes, steps]`.
        style: the demonstrator's word of style is the largest entry of observation @ style, `[features, styles]`.
    """

    train: States
    test: States
    style: Float[Array, "features styles"]


class Batch(NamedTuple):
    """Some states, and the rule in force at each.

    Attributes:
        observation: `[batch, features]`.
        actions: the right one under each rule, `[batch, rules]`.
        rule: in force, `[batch]`.
    """

    observation: Float[Array, "batch features"]
    actions: Int[Array, "batch rules"]
    rule: Int[Array, " batch"]


class Setting(NamedTuple):
    """One fine-tuning; every field has a leading axis `[runs]` in a sweep.

    Attributes:
        method: index into `METHODS`, a scalar.
        optimizer: index into `OPTIMIZERS`, a scalar.
        rate: learning rate, a scalar.
        prompts: share of the prompts under each rule, `[rules]`.
        styled: whether answers have a word of style, which no verifier reads, a scalar.
        masked: whether the softmax runs over the actions of the rule's list alone, a scalar.
        sft_steps: updates of SFT before the method takes over, with the optimizer as it is, a scalar.
        record: updates of the method after which the walker is measured, increasing from 0 on, `[records]`.
        base: which of the bases to start from, a scalar.
        key: randomness, a scalar.
    """

    method: Int[Array, "*runs"]
    optimizer: Int[Array, "*runs"]
    rate: Float[Array, "*runs"]
    prompts: Float[Array, "*runs rules"]
    styled: Bool[Array, "*runs"]
    masked: Bool[Array, "*runs"]
    sft_steps: Int[Array, "*runs"]
    record: Int[Array, "*runs records"]
    base: Int[Array, "*runs"]
    key: Key[Array, "*runs"]


class Measures(NamedTuple):
    """A walker on held-out routes under each rule, and how far it is from its base.

    Attributes:
        scores: with the answers that are right under the rule, `[..., rules]` each.
        by_first_rule: the published accuracy where rule 0 is scored whatever rule is stated, `[..., rules]`.
        obedience: probability of the actions that the rule lists, where a turn is due, `[..., rules]`.
        forward: KL(base || policy) of whole answers in nats a state, `[..., rules]`.
        reverse: KL(policy || base), `[..., rules]`.
        reverse_of_actions: what actions, without style, contribute to it, `[..., rules]`.
        weights: Euclidean distance from the base's parameters, `[...]`.
    """

    scores: Scores
    by_first_rule: Float[Array, "*batch rules"]
    obedience: Float[Array, "*batch rules"]
    forward: Float[Array, "*batch rules"]
    reverse: Float[Array, "*batch rules"]
    reverse_of_actions: Float[Array, "*batch rules"]
    weights: Float[Array, "*batch"]


def make_world(
    key: Key[Array, ""],
    *,
    num_rules: int = 2,
    num_styles: int = 16,
    num_turns: int = 3,
    num_train: int = 1000,
    num_test: int = 100,
) -> World:
    """A city, its routes, and a demonstrator with a style of its own.

    Args:
        key: randomness; the same key gives the same world.
        num_rules: how many of the `RULES` there are, static.
        num_styles: words of style, static.
        num_turns: of each route, static.
        num_train: routes of training, static; 1,000 as published.
        num_test: held-out routes in the same city, static.

    Returns:
        The `World`; it cannot be made under `jit`, for its number of states depends on the key.

    Raises:
        ValueError: see `sample_routes` and `num_actions`.

    Example:
        >>> import jax
        >>> world = make_world(jax.random.key(0), num_train=50, num_test=5)
        >>> world.test.observation.shape, world.style.shape
        ((5, 13, 66), (66, 16))
    """
    sizes = {"num_rules": num_rules, "num_turns": num_turns, "num_train": num_train, "num_test": num_test}
    train, test, style = _padded(key, num_styles=num_styles, **sizes)
    rows = np.flatnonzero(np.asarray(train.valid))
    return World(jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[rows], train), test, style)


@partial(jax.jit, static_argnames=("num_rules", "num_styles", "num_turns", "num_train", "num_test"))
def _padded(
    key: Key[Array, ""], *, num_rules: int, num_styles: int, num_turns: int, num_train: int, num_test: int
) -> tuple[States, States, Float[Array, "features styles"]]:
    """The world before the states that no route has are left out."""
    of_routes, of_style = jax.random.split(key)
    routes = sample_routes(of_routes, num_train + num_test, num_turns=num_turns)
    states = expert_states(routes, num_rules=num_rules)
    train, test = (
        jax.tree.map(lambda leaf, p=part: leaf[p], states) for part in (slice(num_train), slice(num_train, None))
    )
    return train, test, jax.random.normal(of_style, (states.observation.shape[-1], num_styles))


def network_size(world: World, width: int = 128) -> Size:
    """The size of a network for a world.

    Args:
        world: the city.
        width: of the hidden layers.

    Returns:
        The `Size`.

    Example:
        >>> import jax
        >>> network_size(make_world(jax.random.key(0), num_train=5, num_test=5))
        Size(features=66, rules=2, actions=14, styles=16, width=128)
    """
    (features, styles), num_rules = world.style.shape, world.train.action.shape[-1]
    return Size(features, num_rules, num_actions(num_rules), styles, width)


def draw_batch(world: World, prompts: Float[Array, " rules"], drawn: Float[Array, "batch 2"]) -> Batch:
    """States of the expert, uniformly, each under a rule drawn for it.

    Args:
        world: the city.
        prompts: share of the prompts under each rule, `[rules]`.
        drawn: numbers in [0, 1) that draw a state and a rule, `[batch, 2]`.

    Returns:
        The `Batch`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> world = make_world(jax.random.key(0), num_train=50, num_test=5)
        >>> draw_batch(world, jnp.array([0.0, 1.0]), jax.random.uniform(jax.random.key(1), (4, 2))).rule.tolist()
        [1, 1, 1, 1]
    """
    rows = jnp.floor(drawn[:, 0] * len(world.train.valid)).astype(int)
    rule = inverse_cdf(jnp.log(prompts), drawn[:, 1])
    return Batch(world.train.observation[rows], world.train.action[rows], rule)


def demonstration(world: World, batch: Batch) -> Demonstration:
    """The right action under the rule in force, and a word of style that a random linear code of the state chooses.

    Args:
        world: the city.
        batch: states and rules.

    Returns:
        The `Demonstration`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> world = make_world(jax.random.key(0), num_train=50, num_test=5)
        >>> batch = draw_batch(world, jnp.array([1.0, 0.0]), jnp.full((4, 2), 0.5))
        >>> bool((demonstration(world, batch).action == batch.actions[:, 0]).all())
        True
    """
    action = jnp.take_along_axis(batch.actions, batch.rule[:, None], axis=-1)[:, 0]
    return Demonstration(action, jnp.argmax(batch.observation @ world.style, axis=-1))


def base_answers(world: World, size: Size, batch: Batch, unsure: Scalar, leak: Scalar) -> Float[Array, "batch actions"]:
    """What the base is taught to answer: obedient in its vocabulary, unsure in content.

    The right action has probability 1 - unsure - leak; the actions that the rule lists share `unsure`, and the word
    that would be right under the next rule has `leak`.

    Args:
        world: the city.
        size: of the network, static.
        batch: states and rules.
        unsure: in [0, 1].
        leak: in [0, 1 - unsure].

    Returns:
        Probabilities of the actions, `[batch, actions]`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> world = make_world(jax.random.key(0), num_train=50, num_test=5)
        >>> batch = draw_batch(world, jnp.array([0.0, 1.0]), jnp.full((4, 2), 0.5))
        >>> target = base_answers(world, network_size(world), batch, jnp.array(0.24), jnp.array(0.1))
        >>> print(target.sum(-1), f"{target[0].max():.2f}")
        [1. 1. 1. 1.] 0.70
    """
    listed = jnp.asarray(listed_actions(size.rules))[batch.rule].astype(unsure.dtype)
    following = jnp.remainder(batch.rule + 1, size.rules)
    right, other = (
        jax.nn.one_hot(jnp.take_along_axis(batch.actions, rule[:, None], axis=-1)[:, 0], size.actions)
        for rule in (batch.rule, following)
    )
    return (1 - unsure - leak) * right + unsure * listed / listed.sum(-1, keepdims=True) + leak * other


def pretrain(
    world: World,
    size: Size,
    key: Key[Array, ""],
    unsure: Scalar,
    leak: Scalar,
    *,
    num_steps: int,
    rate: float = 3e-3,
    batch_size: int = 256,
) -> Params:
    """A base that knows all rules: Adam, at a rate that falls to zero along a cosine, on `base_answers` in any style.

    Args:
        world: the city.
        size: of the network, static.
        key: randomness.
        unsure: see `base_answers`.
        leak: see `base_answers`.
        num_steps: updates, static.
        rate: learning rate of Adam at the start.
        batch_size: states of an update, static.

    Returns:
        Parameters of the base.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> world = make_world(jax.random.key(0), num_train=50, num_test=5)
        >>> size, chances = network_size(world), (jnp.array(0.25), jnp.array(0.0))
        >>> base = jax.eval_shape(lambda key: pretrain(world, size, key, *chances, num_steps=1), jax.random.key(1))
        >>> sum(leaf.size for leaf in jax.tree.leaves(base))
        29214
    """
    evenly = jnp.full(size.rules, 1 / size.rules)

    def loss(params: Params, key: Key[Array, ""]) -> Scalar:
        batch = draw_batch(world, evenly, uniform(key, (batch_size, 2), unsure.dtype))
        policy = answers(params, size, batch.observation, batch.rule)
        target = base_answers(world, size, batch, unsure, leak)
        return -((target * policy.log_action).sum(-1) + policy.log_style.mean(-1)).mean()

    return fit_perceptron(loss, size.widths, key, num_steps=num_steps, rate=rate)


def pretrain_many(
    world: World,
    size: Size,
    key: Key[Array, ""],
    unsure: Scalar,
    leaks: Float[ArrayLike, " bases"],
    *,
    num_steps: int,
    batch_size: int = 256,
) -> Params:
    """A base for every leak, on all devices.

    Args:
        world: the city.
        size: of the network, static.
        key: randomness, split between the bases.
        unsure: see `base_answers`.
        leaks: see `base_answers`, `[bases]`.
        num_steps: updates, static.
        batch_size: states of an update, static.

    Returns:
        Parameters of the bases, every leaf `[bases, ...]`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> world = make_world(jax.random.key(0), num_train=50, num_test=5)
        >>> bases = pretrain_many(
        ...     world, network_size(world), jax.random.key(1), jnp.array(0.25), jnp.zeros(3), num_steps=1
        ... )
        >>> {leaf.shape[0] for leaf in jax.tree.leaves(bases)}
        {3}
    """

    def one(base: dict[str, Any]) -> Params:
        sizes = {"num_steps": num_steps, "batch_size": batch_size}
        return pretrain(world, size, base["key"], unsure, base["leak"], **sizes)

    leaks = jnp.asarray(leaks)
    bases: Params = sweep(one, {"key": jax.random.split(key, len(leaks)), "leak": leaks})
    return jax.tree.map(jnp.asarray, bases)


def settings(
    method: Sequence[str],
    key: Key[Array, ""],
    *,
    optimizer: Sequence[str] | str,
    rate: PerRun,
    record: PerRun,
    base: PerRun,
    prompts: PerRun = (1.0, 0.0),
    styled: PerRun = True,
    masked: PerRun = False,
    sft_steps: PerRun = 0,
) -> Setting:
    """The settings of several trainings, for `rlrazor.sweeps.sweep`.

    Args:
        method: its name, one a training.
        key: randomness, split between the trainings.
        optimizer: its name; like everything that follows one for all trainings, or one for each.
        rate: see `Setting`, as are the others.
        record: `[records]` or `[runs, records]`.
        base: index.
        prompts: `[rules]` or `[runs, rules]`; all of them under rule 0 unless given.
        styled: whether.
        masked: whether.
        sft_steps: number.

    Returns:
        The `Setting`, every field with a leading axis `[runs]`.

    Raises:
        ValueError: a method or an optimizer that does not exist.

    Example:
        >>> import jax
        >>> two = settings(
        ...     ("SFT", "GRPO"), jax.random.key(0), optimizer=ADAM, rate=1e-3, record=[0, 10], base=[0, 1]
        ... )
        >>> two.method.tolist(), two.record.shape
        ([0, 7], (2, 2))
        >>> settings(("SFT",), jax.random.key(0), optimizer="Lion", rate=1e-3, record=[0, 10], base=0)
        Traceback (most recent call last):
        ...
        ValueError: unknown optimizer 'Lion'; there are SGD, momentum, Adam
    """
    runs = len(method)
    chosen = [optimizer] * runs if isinstance(optimizer, str) else list(optimizer)
    each = partial(per_run, runs)
    return Setting(
        method=each([method_index(name) for name in method]),
        optimizer=each([place_of("optimizer", name, OPTIMIZERS) for name in chosen]),
        rate=each(rate),
        prompts=each(prompts, rank=1),
        styled=each(styled),
        masked=each(masked),
        sft_steps=each(sft_steps),
        record=each(record, rank=1),
        base=each(base),
        key=jax.random.split(key, runs),
    )


def fine_tune(
    world: World, size: Size, bases: Params, setting: Setting, *, batch_size: int = 128, group_size: int = 8
) -> Measures:
    """One fine-tuning, and the walker on its way.

    Args:
        world: the city.
        size: of the network, static.
        bases: their parameters, every leaf `[bases, ...]`.
        setting: what to run, without a leading axis.
        batch_size: states of an update, static.
        group_size: samples of each, of the methods that sample, static.

    Returns:
        The `Measures` at the records, each `[records, ...]`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from rlrazor.methods import GRPO
        >>> from rlrazor.tasks.perceptron import init_perceptron
        >>> world = make_world(jax.random.key(0), num_train=50, num_test=5)
        >>> size = network_size(world)
        >>> bases = jax.tree.map(lambda leaf: leaf[None], init_perceptron(size.widths, jax.random.key(1)))
        >>> one = settings((GRPO,), jax.random.key(2), optimizer=MOMENTUM, rate=0.05, record=[0, 2], base=0)
        >>> setting = jax.tree.map(lambda leaf: leaf[0], one)
        >>> path = jax.eval_shape(lambda setting: fine_tune(world, size, bases, setting), setting)
        >>> path.scores.per_step.shape  # records, rules
        (2, 2)
    """
    base = jax.tree.map(lambda leaf: leaf[setting.base], bases)
    walker = partial(_answers, size, setting.masked)
    optimizer = chosen_optimizer(
        setting.optimizer, (optax.sgd(setting.rate), optax.sgd(setting.rate, momentum=0.9), optax.adam(setting.rate))
    )

    def gradient(params: Params, key: Key[Array, ""], step: Int[Array, ""]) -> Params:
        drawn = uniform(key, (batch_size, 2 + 2 * group_size), setting.rate.dtype)
        batch = draw_batch(world, setting.prompts, drawn[:, :2])
        method = jnp.where(step < setting.sft_steps, method_index(SFT), setting.method)
        shown = demonstration(world, batch)
        ref = partial(walker, base, batch.observation, batch.rule)

        def loss(params: Params) -> Scalar:
            policy = walker(params, batch.observation, batch.rule)
            held = jax.lax.stop_gradient(policy)
            weighed = weights(method, held, ref, shown, drawn[:, 2:].reshape(batch_size, 2, group_size))
            return weighted_loss(policy, weighed, setting.styled)

        return jax.grad(loss)(params)

    path: Measures = train_at(
        gradient,
        base,
        optimizer,
        setting.key,
        setting.sft_steps + setting.record,
        record=lambda params: measure(world, size, base, params, setting.masked),
    )
    return path


def fine_tune_many(
    world: World, size: Size, bases: Params, settings: Setting, *, batch_size: int = 128, group_size: int = 8
) -> Measures:
    """Many fine-tunings, on all devices; a GPU batches them.

    Args:
        world: the city.
        size: of the network, static.
        bases: their parameters, every leaf `[bases, ...]`.
        settings: what to run, see `settings`, `[runs]`.
        batch_size: states of an update, static.
        group_size: samples of each, of the methods that sample, static.

    Returns:
        The `Measures` as NumPy arrays, each `[runs, records, ...]`.

    Example:
        >>> import jax
        >>> from rlrazor.methods import SFT
        >>> from rlrazor.tasks.perceptron import init_perceptron
        >>> world = make_world(jax.random.key(0), num_train=50, num_test=5)
        >>> size = network_size(world)
        >>> bases = jax.tree.map(lambda leaf: leaf[None], init_perceptron(size.widths, jax.random.key(1)))
        >>> two = settings((SFT, SFT), jax.random.key(2), optimizer=SGD, rate=[0.0, 0.1], record=[0, 2], base=0)
        >>> (fine_tune_many(world, size, bases, two).weights[:, -1] > 0).tolist()
        [False, True]
    """
    one = partial(fine_tune, world, size, bases, batch_size=batch_size, group_size=group_size)
    measures: Measures = sweep(one, settings, batch_size=1 if jax.default_backend() == "cpu" else 64)
    return measures


def measure(world: World, size: Size, base: Params, params: Params, masked: Bool[Array, ""]) -> Measures:
    """A walker on the held-out routes, every expectation over its answers exact.

    Args:
        world: the city.
        size: of the network, static.
        base: parameters of what it started from.
        params: its own.
        masked: whether the softmax runs over the actions of the rule's list alone.

    Returns:
        The `Measures`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from rlrazor.tasks.perceptron import init_perceptron
        >>> world = make_world(jax.random.key(0), num_train=50, num_test=5)
        >>> size = network_size(world)
        >>> base = init_perceptron(size.widths, jax.random.key(1))
        >>> measures = jax.jit(lambda base: measure(world, size, base, base, jnp.array(False)))(base)
        >>> measures.scores.arrived.shape, float(measures.forward.sum())
        ((2,), 0.0)
    """
    states, walker = world.test, partial(_answers, size, masked)
    turning = states.valid & (states.action[..., 0] != FORWARD) & (states.action[..., 0] != STOP)

    def mean(values: Float[Array, "routes steps"], where: Bool[Array, "routes steps"]) -> Scalar:
        return jnp.where(where, values, 0.0).sum() / where.sum().astype(values.dtype)

    moved = parameter_distance(params, base)

    def under(rule: Int[Array, ""]) -> Measures:
        stated = jnp.broadcast_to(rule, states.valid.shape)
        policy, start = (walker(p, states.observation, stated) for p in (params, base))
        probability = jnp.exp(policy.log_action)

        def scored_by(scoring: Int[Array, ""] | int) -> Scores:
            right = jnp.take_along_axis(probability, states.action[..., scoring][..., None], axis=-1)[..., 0]
            return exact_scores(right, states.valid)

        def drift(log_policy: Array, log_ref: Array) -> Float[Array, " directions"]:  # forward, reverse
            pair = jnp.stack([log_ref, log_policy]), jnp.stack([log_policy, log_ref])
            return jax.vmap(mean, (0, None))(kl_divergence(*pair), states.valid)

        actions, styles = (drift(p, q) for p, q in zip(policy, start, strict=True))
        listed = jnp.where(jnp.asarray(listed_actions(size.rules))[rule], probability, 0.0).sum(-1)
        return Measures(
            scores=scored_by(rule),
            by_first_rule=scored_by(0).per_step,
            obedience=mean(listed, turning),
            forward=actions[0] + styles[0],
            reverse=actions[1] + styles[1],
            reverse_of_actions=actions[1],
            weights=moved,
        )

    under_each: Measures = jax.lax.map(under, jnp.arange(size.rules))
    return under_each._replace(weights=moved)


def _answers(
    size: Size,
    masked: Bool[Array, ""],
    params: Params,
    observation: Float[Array, "*batch features"],
    rule: Int[Array, "*batch"],
) -> Answers:
    """What the walker may answer, among all actions or among those that the rule lists."""
    return answers(params, size, observation, rule, jnp.asarray(listed_actions(size.rules))[rule] | ~masked)
