"""A fine-tuned network against its base: accuracies, distances between policies, changes of weights and features."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from rlrazor.divergences import jensen_shannon_divergence, kl_divergence, total_variation
from rlrazor.forgetting import forward_drift, log_success, reverse_drift, success_rate
from rlrazor.representations import cknna, spectral_norm
from rlrazor.tasks.parity.network import Hidden, Inputs, LogPolicy, Params, Scalar, apply_network
from rlrazor.tasks.parity.world import World


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


class Distances(NamedTuple):
    """How far a policy is from its base, the mean over images.

    Attributes:
        forward: KL(base || policy) in nats.
        reverse: KL(policy || base) in nats.
        total_variation: in [0, 1].
        l2: Euclidean distance of the probabilities.
        jensen_shannon: in nats.
    """

    forward: Scalar
    reverse: Scalar
    total_variation: Scalar
    l2: Scalar
    jensen_shannon: Scalar


class Measures(NamedTuple):
    """A fine-tuned network against its base, on held-out images; float32.

    Attributes:
        parity: share of digits whose likeliest answer has the right parity.
        success: mean probability of the right parity.
        garments: share of garments that are classified right.
        new: distances on digits.
        old: distances on garments.
        excess: reverse drift on digits above its frontier E kl(J, p0), with J and p0 the success rates at each digit.
        weight_l1: mean absolute change of a weight.
        weight_fisher: √Σ F Δ², with the base's Fisher information F on garments.
        weight_spectral: sum over the layers of the spectral norm of the weights' change.
        activation_l1: mean absolute change of the last hidden layer on digits.
        activation_l2: mean Euclidean change there.
        cknna: alignment of the last hidden layer with the base's there, 1 if it has not changed.
    """

    parity: Scalar
    success: Scalar
    garments: Scalar
    new: Distances
    old: Distances
    excess: Scalar
    weight_l1: Scalar
    weight_fisher: Scalar
    weight_spectral: Scalar
    activation_l1: Scalar
    activation_l2: Scalar
    cknna: Scalar


def make_base(world: World, params: Params, log_teacher: LogPolicy | None = None, *, num_fisher: int = 256) -> Base:
    """What fine-tuning and its measures need to know of a pretrained network.

    Args:
        world: the images.
        params: of the pretrained network.
        log_teacher: policy to distil on the digits of the fine-tuning, `[images, 10]`; the base itself unless given.
        num_fisher: held-out garments that the Fisher information averages over, static.

    Returns:
        The `Base`.

    Example:
        >>> import jax
        >>> from rlrazor.tasks.images import load_fashion, load_mnist
        >>> from rlrazor.tasks.parity import init_network, split_world
        >>> world = split_world(load_mnist(), load_fashion(), num_test=100)
        >>> make_base(world, init_network(jax.random.key(0))).log_train.shape
        (2500, 10)
    """
    log_train = apply_network(params, world.train.inputs).log_policy
    new = apply_network(params, world.test_new.inputs)
    return Base(
        params=params,
        log_train=log_train,
        log_teacher=log_train if log_teacher is None else log_teacher,
        fisher=_fisher(params, world.test_old.inputs[:num_fisher]),
        log_new=new.log_policy,
        hidden_new=new.hidden,
        log_old=apply_network(params, world.test_old.inputs).log_policy,
    )


def _fisher(params: Params, inputs: Inputs) -> Params:
    """The diagonal of the Fisher information, E_x Σ_y policy (∂ log policy)², one image at a time."""

    def add(total: Params, image: Array) -> tuple[Params, None]:
        log_policy = apply_network(params, image[None]).log_policy[0]
        scores = jax.jacrev(lambda p: apply_network(p, image[None]).log_policy[0])(params)
        share = jnp.exp(log_policy) / len(inputs)
        return jax.tree.map(lambda t, s: t + jnp.tensordot(share, s**2, axes=1), total, scores), None

    fisher, _ = jax.lax.scan(add, jax.tree.map(jnp.zeros_like, params), inputs)
    return fisher


def measure(world: World, base: Base, params: Params, *, num_aligned: int = 500) -> Measures:
    """A network against its base, on held-out images of both tasks.

    Args:
        world: the images.
        base: what it started from.
        params: its parameters.
        num_aligned: held-out digits that the CKNNA compares, static.

    Returns:
        The `Measures`, scalars.

    Example:
        >>> import jax
        >>> from rlrazor.tasks.images import load_fashion, load_mnist
        >>> from rlrazor.tasks.parity import init_network, split_world
        >>> world = split_world(load_mnist(), load_fashion(), num_test=100)
        >>> base = jax.jit(make_base)(world, init_network(jax.random.key(0)))
        >>> print(f"{jax.jit(measure)(world, base, base.params).cknna:.4f}")
        1.0000
    """
    (new, hidden), (old, _) = (apply_network(params, task.inputs) for task in (world.test_new, world.test_old))
    accept = world.test_new.accept
    changes = jax.tree.leaves(jax.tree.map(jnp.subtract, params, base.params))
    moved = hidden - base.hidden_new
    fisher = sum((f * d**2).sum() for f, d in zip(jax.tree.leaves(base.fisher), changes, strict=True))
    least = kl_divergence(_success(new, accept), _success(base.log_new, accept)).mean()
    return Measures(
        parity=_accuracy(new, accept),
        success=success_rate(new, accept).mean(),
        garments=_accuracy(old, world.test_old.accept),
        new=_distances(new, base.log_new),
        old=_distances(old, base.log_old),
        excess=reverse_drift(new, base.log_new) - least,
        weight_l1=sum(jnp.abs(leaf).sum() for leaf in changes) / sum(leaf.size for leaf in changes),
        weight_fisher=jnp.sqrt(fisher),
        weight_spectral=jnp.stack([spectral_norm(leaf) for leaf in changes if leaf.ndim == 2]).sum(),
        activation_l1=jnp.abs(moved).mean(),
        activation_l2=jnp.sqrt((moved**2).sum(-1)).mean(),
        cknna=cknna(hidden[:num_aligned], base.hidden_new[:num_aligned]),
    )


def _accuracy(log_policy: LogPolicy, accept: Bool[Array, "images labels"]) -> Scalar:
    """The share of images whose likeliest answer is correct."""
    answer = jnp.argmax(log_policy, axis=-1)[:, None]
    return jnp.take_along_axis(accept, answer, axis=-1).astype(jnp.float32).mean()


def _success(log_policy: LogPolicy, accept: Bool[Array, "images labels"]) -> Float[Array, "images 2"]:
    """Log-probabilities of a correct and of a wrong answer."""
    return jax.nn.log_softmax(jnp.stack([log_success(log_policy, side) for side in (accept, ~accept)], axis=-1))


def _distances(policy: LogPolicy, base: LogPolicy) -> Distances:
    """Every distance between two policies."""
    return Distances(
        forward=forward_drift(policy, base),
        reverse=reverse_drift(policy, base),
        total_variation=total_variation(base, policy).mean(),
        l2=jnp.sqrt(((jnp.exp(policy) - jnp.exp(base)) ** 2).sum(-1)).mean(),
        jensen_shannon=jensen_shannon_divergence(base, policy).mean(),
    )
