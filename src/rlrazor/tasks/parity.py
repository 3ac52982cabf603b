"""ParityMNIST: one network that knows Fashion-MNIST, and is then taught whether a digit is even or odd.

Shenfeld, Pari, Agrawal, "RL's Razor", arXiv:2509.04259, section 3 and appendix B. The policy sees an image and a task
indicator and gives one of ten answers. In the new task every digit of the right parity is correct, so there are many
perfect policies, at different distances from the base; the old task is to classify garments. Everything is float32,
whatever the default dtype.
"""

import math
from collections.abc import Callable
from functools import cache, partial
from itertools import pairwise
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from rlrazor._numerics import log_sum
from rlrazor.divergences import jensen_shannon_divergence, kl_divergence, total_variation
from rlrazor.forgetting import drift, reverse_drift
from rlrazor.objectives import grpo_advantage, reinforce_loss, sft_loss
from rlrazor.policies import inverse_cdf
from rlrazor.tasks.images import Images
from rlrazor.tilting import condition

METHODS = (
    "SFT 1",
    "SFT 2",
    "oracle SFT",
    "GRPO",
    "GRPO + KL",
    "REINFORCE",
    "SFT 1 + KL",
    "SFT 1 + replay",
    "distilled GRPO",
)
NUM_LABELS, NUM_PIXELS, WIDTHS = 10, 784, (512, 256)
NEW_TASK, OLD_TASK = 1.0, -1.0  # the indicator
BATCH_SIZE, GROUP_SIZE, PENALTY = 64, 8, 0.1
_LABELS = np.arange(NUM_LABELS)

Params: TypeAlias = PyTree[Float[Array, "..."]]
Inputs: TypeAlias = Float[Array, "images inputs"]
LogPolicy: TypeAlias = Float[Array, "images labels"]
Hidden: TypeAlias = Float[Array, "images hidden"]
Scalar: TypeAlias = Float[Array, ""]
Loss: TypeAlias = Callable[[Params, Int[Array, " batch"], Float[Array, "batch group"]], Scalar]


class Task(NamedTuple):
    """Inputs of one task and which answers to each are correct.

    Attributes:
        inputs: pixels in [0, 1], then the task indicator, float32 `[images, 785]`.
        accept: boolean `[images, 10]`.
    """

    inputs: Inputs
    accept: Bool[Array, "images labels"]


class World(NamedTuple):
    """The images of both tasks, for pretraining, fine-tuning and tests.

    Attributes:
        pretrain_new: digits of the joint pretraining.
        pretrain_old: garments of the joint pretraining, and of replay.
        train: digits of the fine-tuning.
        test_new: held-out digits.
        test_old: held-out garments.
        lit: the inputs that are not dark in all digits of the fine-tuning, `[lit]`.
    """

    pretrain_new: Task
    pretrain_old: Task
    train: Task
    test_new: Task
    test_old: Task
    lit: Int[Array, " lit"]


class Base(NamedTuple):
    """A pretrained network, and what the measures compare with.

    Attributes:
        params: of the network.
        log_train: its policy on the digits of the fine-tuning, `[images, 10]`.
        log_teacher: the policy that distillation learns from, there, `[images, 10]`.
        fisher: diagonal of its Fisher information on held-out garments, shaped like `params`.
        log_new: its policy on held-out digits, `[images, 10]`.
        hidden_new: its last hidden layer there, `[images, 256]`.
        log_old: its policy on held-out garments, `[images, 10]`.
    """

    params: Params
    log_train: LogPolicy
    log_teacher: LogPolicy
    fisher: Params
    log_new: LogPolicy
    hidden_new: Hidden
    log_old: LogPolicy


class Measures(NamedTuple):
    """A fine-tuned network against its base; all in nats or dimensionless, float32.

    Attributes:
        parity: share of held-out digits whose likeliest answer has the right parity.
        success: mean probability of the right parity.
        garments: share of held-out garments that are classified right.
        forward: E KL(base || policy) on held-out digits.
        reverse: E KL(policy || base) there.
        excess: `reverse` above its frontier E kl(J, p0), with J and p0 the success rates at each digit.
        total_variation: mean total variation there.
        l2: mean Euclidean distance of the probabilities there.
        jensen_shannon: mean Jensen-Shannon divergence there.
        old_forward: as `forward`, on held-out garments.
        old_reverse: as `reverse`, on held-out garments.
        old_total_variation: as `total_variation`, on held-out garments.
        old_l2: as `l2`, on held-out garments.
        old_jensen_shannon: as `jensen_shannon`, on held-out garments.
        weight_l1: mean absolute change of a weight.
        weight_fisher: √Σ F Δ², with the base's Fisher information F on held-out garments.
        weight_spectral: sum over the layers of the spectral norm of the weights' change.
        activation_l1: mean absolute change of the last hidden layer on held-out digits.
        activation_l2: mean Euclidean change there.
        cknna: alignment of the last hidden layer with the base's there, 1 if it has not changed.
    """

    parity: Scalar
    success: Scalar
    garments: Scalar
    forward: Scalar
    reverse: Scalar
    excess: Scalar
    total_variation: Scalar
    l2: Scalar
    jensen_shannon: Scalar
    old_forward: Scalar
    old_reverse: Scalar
    old_total_variation: Scalar
    old_l2: Scalar
    old_jensen_shannon: Scalar
    weight_l1: Scalar
    weight_fisher: Scalar
    weight_spectral: Scalar
    activation_l1: Scalar
    activation_l2: Scalar
    cknna: Scalar


class Setting(NamedTuple):
    """One fine-tuning; every field is a scalar array.

    Attributes:
        method: index into `METHODS`.
        rate: peak learning rate of Adam.
        cosine: whether the rate falls to zero along a cosine after its warmup, else it stays.
        base: which of the bases to start from.
        key: randomness.
    """

    method: Int[Array, "*runs"]
    rate: Float[Array, "*runs"]
    cosine: Bool[Array, "*runs"]
    base: Int[Array, "*runs"]
    key: Key[Array, "*runs"]


class Network(nnx.Module):
    """The published multilayer perceptron, 785-512-256-10 with ReLU."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        widths = (NUM_PIXELS + 1, *WIDTHS, NUM_LABELS)
        layers = [nnx.Linear(a, b, rngs=rngs, dtype=jnp.float32) for a, b in pairwise(widths)]
        self.layers = nnx.List(layers)

    def __call__(self, inputs: Inputs) -> tuple[LogPolicy, Hidden]:
        """The log-policy and the last hidden layer."""
        hidden = inputs
        for layer in self.layers[:-1]:
            hidden = jax.nn.relu(layer(hidden))
        return jax.nn.log_softmax(self.layers[-1](hidden)), hidden


@cache
def _graph() -> Any:
    return nnx.split(nnx.eval_shape(lambda: Network(nnx.Rngs(0))))[0]


def init_network(key: Key[Array, ""]) -> Params:
    """Random parameters of the network.

    Args:
        key: randomness.

    Returns:
        The parameters, 536,330 float32 numbers.

    Example:
        >>> import jax
        >>> sum(leaf.size for leaf in jax.tree.leaves(init_network(jax.random.key(0))))
        536330
    """
    return nnx.split(Network(nnx.Rngs(key)))[1]


def apply_network(params: Params, inputs: Inputs) -> tuple[LogPolicy, Hidden]:
    """The policy of a network.

    Args:
        params: of the network.
        inputs: `[images, 785]`.

    Returns:
        Normalised log-probabilities `[images, 10]`, and the last hidden layer `[images, 256]`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> params = init_network(jax.random.key(0))
        >>> [x.shape for x in apply_network(params, jnp.zeros((3, 785), jnp.float32))]
        [(3, 10), (3, 256)]
    """
    log_policy, hidden = nnx.merge(_graph(), params)(inputs)
    return log_policy, hidden


def parity_task(digits: Images) -> Task:
    """The new task: every digit of the image's parity is correct.

    Args:
        digits: MNIST.

    Returns:
        The `Task`.

    Example:
        >>> import numpy as np
        >>> task = parity_task(Images(np.zeros((1, 784), np.uint8), np.array([3], np.int32)))
        >>> task.accept[0].astype(int).tolist()
        [0, 1, 0, 1, 0, 1, 0, 1, 0, 1]
    """
    return _task(digits, NEW_TASK, _LABELS[None] % 2 == digits.labels[:, None] % 2)


def garment_task(garments: Images) -> Task:
    """The old task: only the label is correct.

    Args:
        garments: Fashion-MNIST.

    Returns:
        The `Task`.

    Example:
        >>> import numpy as np
        >>> task = garment_task(Images(np.zeros((1, 784), np.uint8), np.array([3], np.int32)))
        >>> task.accept[0].astype(int).tolist(), float(task.inputs[0, -1])
        ([0, 0, 0, 1, 0, 0, 0, 0, 0, 0], -1.0)
    """
    return _task(garments, OLD_TASK, _LABELS[None] == garments.labels[:, None])


def _task(images: Images, indicator: float, accept: Bool[np.ndarray, "images labels"]) -> Task:
    pixels = images.images.astype(np.float32) / np.float32(255)
    column = np.full((len(pixels), 1), indicator, np.float32)
    return Task(jnp.asarray(np.concatenate([pixels, column], axis=1)), jnp.asarray(accept))


def split_world(
    digits: tuple[Images, Images],
    garments: tuple[Images, Images],
    *,
    num_pretrain: int = 500,
    num_test: int | None = None,
) -> World:
    """The published split: pretraining on the first images of both tasks, fine-tuning on the other digits.

    Args:
        digits: MNIST, train and test.
        garments: Fashion-MNIST, train and test.
        num_pretrain: images of each task in the pretraining.
        num_test: held-out images of each task; all of them unless given.

    Returns:
        The `World`.

    Raises:
        ValueError: there are too few images.

    Example:
        >>> from rlrazor.tasks.images import load_fashion, load_mnist
        >>> world = split_world(load_mnist(), load_fashion(), num_test=100)
        >>> len(world.pretrain_new.inputs), len(world.train.inputs), len(world.test_old.inputs)
        (500, 2500, 100)
    """
    for name, images in (("digits", digits[0]), ("garments", garments[0])):
        if len(images.labels) <= num_pretrain:
            raise ValueError(f"{name} has {len(images.labels)} training images, num_pretrain needs over {num_pretrain}")

    def part(images: Images, start: int | None, stop: int | None) -> Images:
        return Images(images.images[start:stop], images.labels[start:stop])

    train = part(digits[0], num_pretrain, None)
    lit = np.append(train.images.any(axis=0), True)  # the indicator always is
    return World(
        pretrain_new=parity_task(part(digits[0], None, num_pretrain)),
        pretrain_old=garment_task(part(garments[0], None, num_pretrain)),
        train=parity_task(train),
        test_new=parity_task(part(digits[1], None, num_test)),
        test_old=garment_task(part(garments[1], None, num_test)),
        lit=jnp.asarray(np.flatnonzero(lit).astype(np.int32)),
    )


def pretrain(world: World, skew: Scalar, key: Key[Array, ""], *, num_steps: int, rate: float = 1e-3) -> Params:
    """Joint pretraining on both tasks, by Adam on soft labels.

    The parity labels spread over the correct digits, from the smallest on, in proportion to exp(-skew · rank): uniform
    at skew 0, as published.

    Args:
        world: the images.
        skew: of the parity labels, >= 0, a scalar.
        key: randomness.
        num_steps: updates.
        rate: learning rate.

    Returns:
        Parameters of the base.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from rlrazor.tasks.images import load_fashion, load_mnist
        >>> world = split_world(load_mnist(), load_fashion(), num_test=100)
        >>> params = pretrain(world, jnp.zeros(()), jax.random.key(0), num_steps=1)
        >>> sum(leaf.size for leaf in jax.tree.leaves(params))
        536330
    """
    inputs = jnp.concatenate([world.pretrain_new.inputs, world.pretrain_old.inputs])
    preference = jax.nn.log_softmax(-skew.astype(jnp.float32) * jnp.asarray(_LABELS // 2).astype(jnp.float32))
    accept = jnp.concatenate([world.pretrain_new.accept, world.pretrain_old.accept])
    target = condition(preference[None], accept)
    start, *keys = jax.random.split(key, 2)

    def loss(params: Params, rows: Int[Array, " batch"], _: Any) -> Scalar:
        return sft_loss(apply_network(params, inputs[rows])[0], target[rows]).mean()

    optimizer, params = _adam(lambda _: jnp.float32(rate)), init_network(start)
    batches = _batches(keys[0], len(inputs), num_steps)
    return _updates(loss, optimizer, (params, optimizer.init(params)), batches)[0]


def make_base(world: World, params: Params, log_teacher: LogPolicy | None = None) -> Base:
    """What fine-tuning and its measures need to know of a pretrained network.

    Args:
        world: the images.
        params: of the pretrained network.
        log_teacher: policy to distil on the digits of the fine-tuning, `[images, 10]`; the base itself unless given.

    Returns:
        The `Base`.

    Example:
        >>> import jax
        >>> from rlrazor.tasks.images import load_fashion, load_mnist
        >>> world = split_world(load_mnist(), load_fashion(), num_test=100)
        >>> make_base(world, init_network(jax.random.key(0))).log_train.shape
        (2500, 10)
    """
    log_train = apply_network(params, world.train.inputs)[0]
    sample = world.test_old.inputs[:256]

    def add(total: Params, image: Array) -> tuple[Params, None]:
        log_policy = apply_network(params, image[None])[0][0]
        scores = jax.jacrev(lambda p: apply_network(p, image[None])[0][0])(params)
        share = jnp.exp(log_policy) / len(sample)
        return jax.tree.map(lambda t, s: t + jnp.tensordot(share, s**2, axes=1), total, scores), None

    fisher, _ = jax.lax.scan(add, jax.tree.map(jnp.zeros_like, params), sample)
    log_new, hidden_new = apply_network(params, world.test_new.inputs)
    return Base(
        params=params,
        log_train=log_train,
        log_teacher=log_train if log_teacher is None else log_teacher,
        fisher=fisher,
        log_new=log_new,
        hidden_new=hidden_new,
        log_old=apply_network(params, world.test_old.inputs)[0],
    )


def fine_tune(
    world: World, bases: Base, setting: Setting, *, num_steps: int, num_checkpoints: int
) -> tuple[Measures, LogPolicy]:
    """One fine-tuning on the new task, by Adam, with its measures on the way.

    Args:
        world: the images.
        bases: every field with a leading axis, `[bases, ...]`.
        setting: what to run, scalars.
        num_steps: updates, a multiple of `num_checkpoints`.
        num_checkpoints: evaluations after the one of the base.

    Returns:
        The `Measures` `[num_checkpoints + 1]`, the base first, and the final policy on the digits of the fine-tuning.

    Raises:
        ValueError: `num_steps` is not a positive multiple of `num_checkpoints`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from rlrazor.tasks.images import load_fashion, load_mnist
        >>> world = split_world(load_mnist(), load_fashion(), num_test=100)
        >>> bases = jax.tree.map(lambda leaf: leaf[None], jax.jit(make_base)(world, init_network(jax.random.key(0))))
        >>> setting = Setting(jnp.array(0), jnp.float32(1e-3), jnp.array(False), jnp.array(0), jax.random.key(1))
        >>> measures, log_train = fine_tune(world, bases, setting, num_steps=2, num_checkpoints=1)
        >>> measures.forward.shape, float(measures.forward[0]), bool(measures.forward[1] > 0)
        ((2,), 0.0, True)
    """
    if num_checkpoints < 1 or num_steps < 1 or num_steps % num_checkpoints:
        raise ValueError(f"num_steps must be a multiple of num_checkpoints {num_checkpoints}, got {num_steps}")
    base, advance, start, batches = _training(world, bases, setting, num_steps)
    segments = jax.tree.map(lambda leaf: leaf.reshape(num_checkpoints, -1, *leaf.shape[1:]), batches)

    def to_checkpoint(state: Any, checkpoint: Int[Array, ""]) -> tuple[Any, Measures]:
        part = jax.tree.map(lambda leaf: leaf[checkpoint - 1], segments)
        state = jax.lax.cond(checkpoint > 0, lambda: advance(state, part), lambda: state)
        return state, measure(world, base, state[0])

    (params, _), measures = jax.lax.scan(to_checkpoint, start, jnp.arange(num_checkpoints + 1))
    return measures, apply_network(params, world.train.inputs)[0]


def schedule(count: Int[Array, ""], cosine: Bool[Array, ""], num_steps: int) -> Scalar:
    """The learning rate as a share of its peak: a linear warmup over a tenth of the steps, then constant or cosine.

    Args:
        count: updates done.
        cosine: whether it falls to zero.
        num_steps: updates in all.

    Returns:
        The share in [0, 1], float32.

    Example:
        >>> import jax.numpy as jnp
        >>> [round(float(schedule(jnp.array(k), jnp.array(True), 100)), 3) for k in (0, 9, 55, 100)]
        [0.1, 1.0, 0.5, 0.0]
    """
    warmup = max(num_steps // 10, 1)
    done = count.astype(jnp.float32)
    phase = jnp.clip((done - warmup) / max(num_steps - warmup, 1), 0.0, 1.0)
    rest = jnp.where(cosine, (1 + jnp.cos(jnp.pi * phase)) / 2, 1.0)
    return jnp.minimum((done + 1) / warmup, rest)


def measure(world: World, base: Base, params: Params) -> Measures:
    """A network against its base, on held-out images of both tasks.

    Args:
        world: the images.
        base: what it started from.
        params: its parameters.

    Returns:
        The `Measures`, scalars.

    Example:
        >>> import jax
        >>> from rlrazor.tasks.images import load_fashion, load_mnist
        >>> world = split_world(load_mnist(), load_fashion(), num_test=100)
        >>> base = jax.jit(make_base)(world, init_network(jax.random.key(0)))
        >>> print(f"{jax.jit(measure)(world, base, base.params).cknna:.4f}")
        1.0000
    """
    (new, hidden), (old, _) = (apply_network(params, task.inputs) for task in (world.test_new, world.test_old))
    change = jax.tree.map(jnp.subtract, params, base.params)
    leaves = jax.tree.leaves(change)
    moved = hidden - base.hidden_new
    fisher = sum((f * d**2).sum() for f, d in zip(jax.tree.leaves(base.fisher), leaves, strict=True))
    least = kl_divergence(_success(new, world.test_new.accept), _success(base.log_new, world.test_new.accept)).mean()
    return Measures(
        excess=reverse_drift(base.log_new, new) - least,
        parity=_accuracy(new, world.test_new.accept),
        success=jnp.where(world.test_new.accept, jnp.exp(new), 0.0).sum(-1).mean(),
        garments=_accuracy(old, world.test_old.accept),
        **_distances(base.log_new, new, ""),
        **_distances(base.log_old, old, "old_"),
        weight_l1=sum(jnp.abs(leaf).sum() for leaf in leaves) / sum(leaf.size for leaf in leaves),
        weight_fisher=jnp.sqrt(fisher),
        weight_spectral=jnp.stack([spectral_norm(leaf) for leaf in leaves if leaf.ndim == 2]).sum(),
        activation_l1=jnp.abs(moved).mean(),
        activation_l2=jnp.sqrt((moved**2).sum(-1)).mean(),
        cknna=cknna(hidden[:500], base.hidden_new[:500]),
    )


def _accuracy(log_policy: LogPolicy, accept: Bool[Array, "images labels"]) -> Scalar:
    answer = jnp.argmax(log_policy, axis=-1)[:, None]
    return jnp.take_along_axis(accept, answer, axis=-1).astype(jnp.float32).mean()


def _success(log_policy: LogPolicy, accept: Bool[Array, "images labels"]) -> Float[Array, "images 2"]:
    """Log-probabilities of a correct and of a wrong answer."""
    sides = [jnp.where(side, log_policy, -jnp.inf) for side in (accept, ~accept)]
    return jax.nn.log_softmax(jnp.stack([log_sum(side) for side in sides], axis=-1))


def _distances(base: LogPolicy, policy: LogPolicy, prefix: str) -> dict[str, Scalar]:
    """Every distance between two policies, the mean over images."""
    values = {
        "forward": drift(base, policy),
        "reverse": reverse_drift(base, policy),
        "total_variation": total_variation(base, policy).mean(),
        "l2": jnp.sqrt(((jnp.exp(policy) - jnp.exp(base)) ** 2).sum(-1)).mean(),
        "jensen_shannon": jensen_shannon_divergence(base, policy).mean(),
    }
    return {prefix + name: value for name, value in values.items()}


def spectral_norm(matrix: Float[Array, "rows columns"], num_iterations: int = 30) -> Scalar:
    """The largest singular value, by power iteration on the smaller Gram matrix from its row of largest norm.

    Args:
        matrix: `[rows, columns]`.
        num_iterations: of the power method.

    Returns:
        The norm, at most the true one.

    Example:
        >>> import jax.numpy as jnp
        >>> print(f"{spectral_norm(jnp.array([[3.0, 0.0], [0.0, 1.0]])):.4f}")
        3.0000
    """
    gram = matrix.T @ matrix if len(matrix) > matrix.shape[1] else matrix @ matrix.T

    def unit(x: Array) -> Array:
        norm = jnp.sqrt((x**2).sum())
        return x / jnp.where(norm > 0, norm, 1.0)

    start = unit(gram[jnp.argmax((gram**2).sum(-1))])
    top = jax.lax.fori_loop(0, num_iterations, lambda _, x: unit(gram @ x), start)
    return jnp.sqrt(top @ (gram @ top))


def cknna(features: Float[Array, "items a"], others: Float[Array, "items b"], num_neighbours: int = 10) -> Scalar:
    """Mutual-nearest-neighbour kernel alignment of two representations of the same items.

    With linear kernels K, L and the mask α of pairs that are neighbours in both, A(K, L) = Σ α K̄ L̄ over the centred
    kernels, and CKNNA = A(K, L) / √(A(K, K) A(L, L)), each A with the mask of its own two kernels.

    Args:
        features: `[items, ...]`.
        others: `[items, ...]`.
        num_neighbours: k.

    Returns:
        Alignment, 1 for equal neighbourhoods and similarities.

    Example:
        >>> import jax
        >>> x = jax.random.normal(jax.random.key(0), (50, 8))
        >>> print(f"{cknna(x, 3 * x):.4f}")
        1.0000

    References:
        Huh et al., "The Platonic Representation Hypothesis", arXiv:2405.07987, appendix A.
    """

    def kernel(x: Array) -> tuple[Array, Array]:
        similarity = x @ x.T
        own = jnp.eye(len(x), dtype=bool)
        nearest = jax.lax.top_k(jnp.where(own, -jnp.inf, similarity), num_neighbours)[0]
        edge = nearest.min(-1, keepdims=True)  # nearest[:, -1:] would make XLA sort whole rows, ten times slower
        centred = similarity - similarity.mean(0, keepdims=True)
        return centred - centred.mean(1, keepdims=True), (similarity >= edge) & ~own

    (a, near_a), (b, near_b) = kernel(features), kernel(others)

    def align(x: Array, near_x: Array, y: Array, near_y: Array) -> Scalar:
        return jnp.where(near_x & near_y, x * y, 0.0).sum()

    return align(a, near_a, b, near_b) / jnp.sqrt(align(a, near_a, a, near_a) * align(b, near_b, b, near_b))


def _losses(world: World, base: Base, method: Int[Array, ""]) -> tuple[Loss, Loss]:
    """The method's sampled loss on a batch of images, by the weights of lit inputs only; and that of replay, by all."""
    accept, digits = world.train.accept, world.train.inputs[:, world.lit]

    def evenly_over(*answers: int) -> LogPolicy:
        return condition(jnp.full_like(base.log_train, -np.log(NUM_LABELS)), accept & np.isin(_LABELS, answers)[None])

    demonstrations = {  # of the methods that imitate
        "SFT 1": lambda: evenly_over(0, 1),
        "SFT 2": lambda: evenly_over(0, 4, 1, 5),
        "oracle SFT": lambda: condition(base.log_train, accept),
        "SFT 1 + KL": lambda: evenly_over(0, 1),
        "SFT 1 + replay": lambda: evenly_over(0, 1),
        "distilled GRPO": lambda: base.log_teacher,
    }
    target = jax.lax.switch(method, [demonstrations.get(name, lambda: base.log_train) for name in METHODS])

    def imitation(log_policy: LogPolicy, rows: Array, uniform: Array) -> Scalar:
        answers = inverse_cdf(target[rows], uniform[:, :1])
        return -jnp.take_along_axis(log_policy, answers, axis=1).mean()

    def new_task(params: Params, rows: Array, uniform: Array) -> Scalar:
        log_policy = apply_network(params, digits[rows])[0]

        def imitate() -> Scalar:
            return imitation(log_policy, rows, uniform)

        def explore(advantage: Callable[[Array], Array]) -> Scalar:
            answers = inverse_cdf(log_policy, uniform)
            reward = jnp.take_along_axis(accept[rows], answers, axis=1).astype(jnp.float32)
            return reinforce_loss(jnp.take_along_axis(log_policy, answers, axis=1), advantage(reward)).mean()

        def penalty() -> Scalar:
            return PENALTY * kl_divergence(log_policy, base.log_train[rows]).mean()

        methods = {
            "GRPO": lambda: explore(grpo_advantage),
            "GRPO + KL": lambda: explore(grpo_advantage) + penalty(),
            "REINFORCE": lambda: explore(lambda reward: reward),
            "SFT 1 + KL": lambda: imitate() + penalty(),
        }
        chosen: Scalar = jax.lax.switch(method, [methods.get(name, imitate) for name in METHODS])
        return chosen

    def with_replay(params: Params, rows: Array, uniform: Array) -> Scalar:
        old = world.pretrain_old
        memory = jnp.floor(uniform[:, -1] * len(old.inputs)).astype(int)
        inputs = jnp.concatenate([world.train.inputs[rows], old.inputs[memory]])
        log_policy, recalled = jnp.split(apply_network(params, inputs)[0], 2)
        return imitation(log_policy, rows, uniform) - jnp.where(old.accept[memory], recalled, 0.0).sum(-1).mean()

    return new_task, with_replay


def _has_inputs(leaf: Array) -> bool:
    """Whether it has a row for each input: the first matrix and its moments."""
    return leaf.shape[:1] == (NUM_PIXELS + 1,)


def _training(world: World, bases: Base, setting: Setting, num_steps: int) -> tuple[Base, Any, Any, Any]:
    """A fine-tuning: its base, how it advances by some batches, the state that it starts from, and all its batches.

    The weights of an input that is dark in all the images have no gradient, and Adam leaves them where they are. So the
    methods that only see the new task train without them: the same path for an eighth less arithmetic, on the embedded
    digits. Replay needs them and has a loop of its own, for a branch in a common loop would cost all methods time.
    """
    base = jax.tree.map(lambda leaf: leaf[setting.base], bases)
    optimizer = _adam(lambda count: setting.rate * schedule(count, setting.cosine, num_steps))
    new_task, with_replay = _losses(world, base, setting.method)

    def updates_of_lit(state: Any, batches: Any) -> Any:
        part = jax.tree.map(lambda leaf: leaf[world.lit] if _has_inputs(leaf) else leaf, state)
        part = _updates(new_task, optimizer, part, batches)
        return jax.tree.map(lambda a, b: a.at[world.lit].set(b) if _has_inputs(a) else b, state, part)

    def advance(state: Any, batches: Any) -> Any:
        replay = setting.method == METHODS.index("SFT 1 + replay")
        return jax.lax.cond(replay, partial(_updates, with_replay, optimizer), updates_of_lit, state, batches)

    start = (base.params, optimizer.init(base.params))
    return base, advance, start, _batches(setting.key, len(world.train.inputs), num_steps)


class _Moments(NamedTuple):
    done: Int[Array, ""]
    first: Params
    second: Params


def _adam(rate: Callable[[Array], Scalar]) -> optax.GradientTransformation:
    """Adam, with both bias corrections in the step size.

    This is `optax.adam`, in the order that Kingma and Ba, arXiv:1412.6980, section 2, recommend. XLA rounds the two
    divisions of the other order in one way on one device and in another on several, and sampled answers amplify that.
    """
    decay, decay_second, epsilon = 0.9, 0.999, 1e-8

    def init(params: Any) -> _Moments:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return _Moments(jnp.zeros((), jnp.int32), zeros, zeros)

    def update(gradient: Any, state: Any, params: Any = None) -> tuple[Any, _Moments]:
        done = state.done + 1
        first = jax.tree.map(lambda m, g: decay * m + (1 - decay) * g, state.first, gradient)
        second = jax.tree.map(lambda v, g: decay_second * v + (1 - decay_second) * g**2, state.second, gradient)
        weight, weight_second = (-jnp.expm1(done.astype(jnp.float32) * math.log(d)) for d in (decay, decay_second))
        scale = jnp.sqrt(weight_second)
        size = rate(state.done) * scale / weight
        updates = jax.tree.map(lambda m, v: -size * m / (jnp.sqrt(v) + epsilon * scale), first, second)
        return updates, _Moments(done, first, second)

    return optax.GradientTransformation(init, update)


def _updates(loss: Loss, optimizer: optax.GradientTransformation, state: Any, batches: Any) -> Any:
    """Parameters and moments after a step of the optimiser on every batch."""

    def step(state: tuple[Params, Any], batch: tuple[Array, Array]) -> tuple[tuple[Params, Any], None]:
        params, moments = state
        updates, moments = optimizer.update(jax.grad(loss)(params, *batch), moments, params)
        return (optax.apply_updates(params, updates), moments), None

    return jax.lax.scan(step, state, batches)[0]


def _batches(
    key: Key[Array, ""], num_images: int, num_steps: int
) -> tuple[Int[Array, "steps batch"], Float[Array, "steps batch group"]]:
    """Rows of every batch, each epoch in another order, and uniform numbers to sample answers with.

    All are drawn at once: a CPU takes longer to start the random generator for a batch than to run it.
    """
    order, draws = jax.random.split(key)
    per_epoch = num_images // BATCH_SIZE
    epochs = jax.random.split(order, -(-num_steps // per_epoch))
    rows = jax.vmap(lambda k: jax.random.permutation(k, num_images)[: per_epoch * BATCH_SIZE])(epochs)
    uniform = jax.random.uniform(draws, (num_steps, BATCH_SIZE, GROUP_SIZE), jnp.float32)
    return rows.reshape(-1, BATCH_SIZE)[:num_steps], uniform
