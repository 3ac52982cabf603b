"""ParityMNIST in PyTorch eager, a Python loop: the other side of the pairs of `trainings.py`."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import torch
from torch import Tensor

from rlrazor.methods import DISTILLED_GRPO, GRPO, ORACLE_SFT, REINFORCE, SFT_1, SFT_2, plus_kl
from rlrazor.tasks import parity

Targets = dict[str, Tensor]


def to_torch(tree: Any) -> Any:
    """The same tree of tensors."""
    return jax.tree.map(lambda leaf: torch.from_numpy(np.array(leaf)), tree)


def network(params: parity.Params) -> torch.nn.Sequential:
    """The network with these parameters: ours are a bias and a matrix `[inputs, outputs]` for each layer."""
    leaves = to_torch(jax.tree.leaves(params))
    modules: list[torch.nn.Module] = []
    for bias, matrix in zip(leaves[::2], leaves[1::2], strict=True):
        layer = torch.nn.Linear(*matrix.shape)
        layer.weight.data, layer.bias.data = matrix.T.contiguous(), bias
        modules += [layer, torch.nn.ReLU()]
    return torch.nn.Sequential(*modules[:-1])


def train(
    world: parity.World,
    base: parity.Base,
    method: str,
    rate: float,
    beta: float,
    num_steps: int,
    num_checkpoints: int,
    *,
    fused: bool = False,
) -> Callable[[], list[parity.Measures]]:
    """One training and its measures: the base's and those of each checkpoint; no measures if there are none."""
    world, reference = to_torch(world), to_torch(base)
    targets = demonstrations(world, reference)

    def run() -> list[parity.Measures]:
        net = network(base.params)
        optimizer = torch.optim.Adam(net.parameters(), lr=rate, fused=fused)
        num_images = len(world.train.inputs)
        per_epoch = num_images // parity.BATCH_SIZE
        path = [measure(world, reference, net)] if num_checkpoints else []
        for step in range(num_steps):
            if step % per_epoch == 0:
                order = torch.randperm(num_images)
            rows = order[step % per_epoch * parity.BATCH_SIZE :][: parity.BATCH_SIZE]
            optimizer.param_groups[0]["lr"] = rate * min((step + 1) / max(num_steps // 10, 1), 1)
            optimizer.zero_grad()
            loss(world, reference, targets, net, method, beta, rows).backward()
            optimizer.step()
            if num_checkpoints and (step + 1) % (num_steps // num_checkpoints) == 0:
                path.append(measure(world, reference, net))
        return path

    return run


def demonstrations(world: parity.World, base: parity.Base) -> Targets:
    """Probabilities that each method's demonstrations are drawn from, `[images, 10]`."""
    accept = world.train.accept

    def among(weights: Tensor) -> Tensor:
        correct = weights * accept
        return correct / correct.sum(1, keepdim=True)

    def evenly_over(*answers: int) -> Tensor:
        return among(torch.isin(torch.arange(parity.NUM_LABELS), torch.tensor(answers)).float())

    one = evenly_over(0, 1)
    return {
        SFT_1: one,
        SFT_2: evenly_over(0, 4, 1, 5),
        ORACLE_SFT: among(base.log_train.exp()),
        plus_kl(SFT_1): one,
        parity.REPLAY: one,
        DISTILLED_GRPO: base.log_teacher.exp(),
    }


def loss(
    world: parity.World,
    base: parity.Base,
    targets: Targets,
    net: torch.nn.Module,
    method: str,
    beta: float,
    rows: Tensor,
) -> Tensor:
    """The sampled loss of the method on a batch of images."""
    replay = method == parity.REPLAY
    inputs = world.train.inputs[rows]
    if replay:
        memory = torch.randint(len(world.pretrain_old.inputs), (len(rows),))
        inputs = torch.cat([inputs, world.pretrain_old.inputs[memory]])
    log_policy = torch.log_softmax(net(inputs), -1)
    if replay:
        log_policy, recalled = log_policy.chunk(2)
    if method in targets:
        answers = torch.multinomial(targets[method][rows], 1)
        total = -log_policy.gather(1, answers).mean()
    else:
        answers = torch.multinomial(log_policy.detach().exp(), parity.GROUP_SIZE, replacement=True)
        reward = world.train.accept[rows].gather(1, answers).float()
        if method != REINFORCE:
            deviation = reward.std(1, correction=0, keepdim=True)
            reward = (reward - reward.mean(1, keepdim=True)) / deviation.clamp(min=1e-8)
        total = -(reward * log_policy.gather(1, answers)).mean()
    if method in (plus_kl(GRPO), plus_kl(SFT_1)):
        total = total + beta * divergence(log_policy, base.log_train[rows])
    if replay:
        total = total - (recalled * world.pretrain_old.accept[memory]).sum(1).mean()
    return total


def divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """The mean KL(p || q), as a textbook sum."""
    return (log_p.exp() * (log_p - log_q)).sum(1).mean()


@torch.no_grad()
def measure(world: parity.World, base: parity.Base, net: torch.nn.Sequential) -> parity.Measures:
    """What `rlrazor.tasks.parity.measure` returns, by the same algorithms."""
    hidden = net[:-1](world.test_new.inputs)
    new, old = torch.log_softmax(net[-1](hidden), -1), torch.log_softmax(net(world.test_old.inputs), -1)
    layers = [module for module in net if isinstance(module, torch.nn.Linear)]
    leaves = [leaf for layer in layers for leaf in (layer.bias, layer.weight.T)]
    change = [leaf - start for leaf, start in zip(leaves, jax.tree.leaves(base.params), strict=True)]
    moved = hidden - base.hidden_new
    fisher = sum((f * d**2).sum() for f, d in zip(jax.tree.leaves(base.fisher), change, strict=True))
    success, least = ((p.exp() * world.test_new.accept).sum(1) for p in (new, base.log_new))
    pairs = [torch.stack([p, 1 - p], 1).clamp(min=1e-30).log() for p in (success, least)]
    return parity.Measures(
        parity=accuracy(new, world.test_new.accept),
        success=success.mean(),
        garments=accuracy(old, world.test_old.accept),
        new=distances(new, base.log_new),
        old=distances(old, base.log_old),
        excess=divergence(new, base.log_new) - divergence(*pairs),
        weight_l1=sum(leaf.abs().sum() for leaf in change) / sum(leaf.numel() for leaf in change),
        weight_fisher=fisher.sqrt(),
        weight_spectral=torch.stack([spectral_norm(leaf) for leaf in change if leaf.ndim == 2]).sum(),
        activation_l1=moved.abs().mean(),
        activation_l2=moved.norm(dim=1).mean(),
        cknna=cknna(hidden[:500], base.hidden_new[:500]),
    )


def accuracy(log_policy: Tensor, accept: Tensor) -> Tensor:
    """Share of images whose likeliest answer is correct."""
    return accept.gather(1, log_policy.argmax(1, keepdim=True)).float().mean()


def distances(policy: Tensor, base: Tensor) -> parity.Distances:
    """Every distance between two policies, the mean over images."""
    middle = torch.logaddexp(base, policy) - np.log(2)
    return parity.Distances(
        forward=divergence(base, policy),
        reverse=divergence(policy, base),
        total_variation=(base.exp() - policy.exp()).abs().sum(1).mean() / 2,
        l2=(policy.exp() - base.exp()).norm(dim=1).mean(),
        jensen_shannon=(divergence(base, middle) + divergence(policy, middle)) / 2,
    )


def spectral_norm(matrix: Tensor) -> Tensor:
    """The largest singular value, by power iteration on the smaller Gram matrix."""
    gram = matrix.T @ matrix if len(matrix) > matrix.shape[1] else matrix @ matrix.T
    top = gram[(gram**2).sum(1).argmax()]
    for _ in range(31):
        top = top / top.norm().clamp(min=1e-30)
        last, top = top, gram @ top
    return (last @ top).clamp(min=0).sqrt()


def cknna(features: Tensor, others: Tensor, num_neighbors: int = 10) -> Tensor:
    """Mutual-nearest-neighbor kernel alignment of two representations of the same items."""

    def kernel(x: Tensor) -> tuple[Tensor, Tensor]:
        similarity = x @ x.T
        own = torch.eye(len(x), dtype=torch.bool)
        edge = similarity.masked_fill(own, -torch.inf).topk(num_neighbors)[0][:, -1:]
        centered = similarity - similarity.mean(0, keepdim=True)
        return centered - centered.mean(1, keepdim=True), (similarity >= edge) & ~own

    (a, near_a), (b, near_b) = kernel(features), kernel(others)
    return (a * b)[near_a & near_b].sum() / ((a * a)[near_a].sum() * (b * b)[near_b].sum()).sqrt()
