"""On-policy data keeps a policy close to its base only if the alternative is a distant teacher.

"RL's Razor" (Shenfeld, Pari, Agrawal, arXiv:2509.04259, section 4) crosses on-policy data with negative gradients:
GRPO, 1-0 REINFORCE, SFT and SimPO, at equal new-task accuracy. On many prompts with exact expected gradients, and with
finite groups of samples as points, the published answer comes back: on-policy data explains the drift and negative
gradients hardly matter. It holds while the teacher that writes the demonstrations is far from the base. As the teacher
approaches the base's own correct answers, SFT drifts less than policy gradient. With a single prompt the contrast of
GRPO with REINFORCE is vacuous: both run along the same curve, GRPO at c_G(J) times the speed.

The grid of KL direction, rollout policy and learning rate (the question of Piskorz et al., arXiv:2609.35259) distils a
teacher into sequences of two tokens: the learning rate decides the drift at equal accuracy, the rollout policy hardly
matters. And even on-policy samples drift: refitting to N own correct samples is neutral Wright-Fisher evolution, whose
heterozygosity shrinks by 1 - 1/N a round.

About 45 seconds on two cores.
"""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from matplotlib.figure import Figure

import rlrazor as rz
from experiments._harness import Claim, UserError, at_least, at_most, near, nonnegative, positive
from rlrazor.plotting import COLORS, FULL_WIDTH, letter
from rlrazor.training import train

METHODS = ("GRPO", "1-0 REINFORCE", "SimPO", "SFT")  # on-policy first; negative gradients first in each pair
METHOD_COLORS = (COLORS["reverse"], COLORS["reverse_light"], COLORS["forward_light"], COLORS["forward"])
NUM_OUTCOMES, NUM_CORRECT = 10, 5
ACCEPT = np.arange(NUM_OUTCOMES) < NUM_CORRECT


@dataclass(frozen=True)
class Config:
    """Prompts, groups and learning rates."""

    num_prompts: int = 32
    """Prompts, each with its own base policy."""
    spread: float = nonnegative(1.5)
    """Standard deviation of the bases' log-odds of success."""
    group_size: int = 8
    """Samples of each prompt in an update, and GRPO's group."""
    accuracy: float = positive(0.95)
    """Mean success rate at which methods are compared."""
    distances: tuple[float, ...] = nonnegative((0.0, 0.2, 0.4, 0.6, 0.8, 1.0))
    """How far the teacher is: 0 is the base itself, 1 an unrelated policy."""
    num_worlds: int = 12
    """Random worlds of prompts and teachers; one sampled training of each method in each."""
    rate: float = positive(8.0)
    """Their learning rate, of the mean loss over prompts."""
    num_steps: int = 1000
    """Their updates."""
    grid_rates: tuple[float, ...] = positive((0.01, 0.03, 0.1, 0.3, 1.0))
    """Learning rates of Adam in the grid."""
    grid_seeds: int = 8
    """Trainings of every cell of the grid."""
    grid_steps: int = 500
    """Updates in the grid."""
    grid_accuracy: float = positive(0.85)
    """Mean success rate at which the grid is compared."""
    num_groups: int = 20000
    """Groups in every Monte Carlo estimate of c_G."""
    populations: tuple[int, ...] = (20, 50, 200)
    """Samples N of a refit."""
    num_chains: int = 1000
    """Chains of refits of each N."""
    num_rounds: int = 100
    """Rounds of a chain."""
    seed: int = nonnegative(0)
    """Of the random keys."""

    def __post_init__(self) -> None:
        """The teacher ranges from the base to an unrelated policy; groups have something to compare."""
        if not self.distances[0] == 0 or not self.distances[-1] == 1:
            raise UserError(f"distances must start at 0 and end at 1, got {self.distances}")
        if self.group_size < 2:
            raise UserError(f"group_size must be at least 2, got {self.group_size}")

    @classmethod
    def quick(cls) -> "Config":
        """Fewer seeds, groups and chains."""
        return cls(
            distances=(0.0, 0.5, 1.0),
            num_worlds=4,
            grid_seeds=3,
            grid_rates=(0.01, 0.1, 1.0),
            num_groups=4000,
            num_chains=300,
        )


GROUPS = (4, 8, 64)


class Results(NamedTuple):
    """Drift at equal accuracy by method, teacher, grid cell; c_G; and heterozygosity."""

    accuracy: np.ndarray  # [] where methods are compared
    curve_success: np.ndarray  # [methods, times] exact, unrelated teacher, the first world
    curve_drift: np.ndarray  # [methods, times] forward
    distances: np.ndarray  # [distances]
    exact_drift: np.ndarray  # [distances, worlds, methods] forward, at the accuracy
    one_prompt_drift: np.ndarray  # [worlds, methods] forward, at the accuracy, one prompt a world
    sampled_drift: np.ndarray  # [worlds, methods] forward, at the accuracy, unrelated teacher
    grid_rates: np.ndarray  # [rates]
    grid_drift: np.ndarray  # [rates, directions, rollouts, seeds] forward, at the grid's accuracy
    grid_accuracy: np.ndarray  # []
    success: np.ndarray  # [points] of c_G
    coefficient: np.ndarray  # [groups, points] closed form
    sampled_success: np.ndarray  # [points] of the estimates
    sampled_coefficient: np.ndarray  # [groups, points] Monte Carlo
    coefficient_error: np.ndarray  # [groups, points] its standard error
    exact_coefficient: np.ndarray  # [groups, points] closed form there
    populations: np.ndarray  # [populations]
    heterozygosity: np.ndarray  # [populations, rounds + 1] mean over chains
    heterozygosity_error: np.ndarray  # [populations, rounds + 1] standard error
    top_share: np.ndarray  # [populations, 2] mean share of the likeliest answer at the end, and its standard error
    base_share: np.ndarray  # []


def run(config: Config) -> Results:
    """Everything."""
    key = jax.random.key(config.seed)
    return Results(
        accuracy=np.array(config.accuracy),
        distances=np.array(config.distances),
        grid_rates=np.array(config.grid_rates),
        grid_accuracy=np.array(config.grid_accuracy),
        populations=np.array(config.populations),
        **exact_methods(config, key),
        **sampled_methods(config, key),
        grid_drift=distillation_grid(config, jax.random.fold_in(key, 1)),
        **group_coefficients(config, jax.random.fold_in(key, 2)),
        **refits(config, jax.random.fold_in(key, 3)),
    )


# On-policy x negative gradients


class World(NamedTuple):
    """Log-probabilities of the base, of a teacher's correct answers and of its wrong ones, `[prompts, outcomes]`."""

    base: jax.Array
    chosen: jax.Array
    rejected: jax.Array


def make_world(config: Config, key: jax.Array, distance: jax.Array) -> World:
    """Bases of mixed ability, and a teacher on the e-geodesic from the base's own answers to an unrelated policy's."""
    keys, shape = jax.random.split(key, 3), (config.num_prompts, NUM_OUTCOMES)
    odds = config.spread * jax.random.normal(keys[0], (config.num_prompts, 1))
    accept = jnp.broadcast_to(jnp.array(ACCEPT), shape)
    own, other = jax.random.normal(keys[1], shape), 2 * jax.random.normal(keys[2], shape)
    right, wrong = rz.condition(rz.softmax_policy(own), accept), rz.condition(rz.softmax_policy(own), ~accept)
    base = jnp.where(accept, jax.nn.log_sigmoid(odds) + right, jax.nn.log_sigmoid(-odds) + wrong)
    teacher = rz.softmax_policy((1 - distance) * own + distance * other)
    return World(base, rz.condition(teacher, accept), rz.condition(teacher, ~accept))


def losses(log_policy: jax.Array, world: World, group_size: int) -> jax.Array:
    """The mean exact loss of each method over prompts, in the order of METHODS."""
    accept = jnp.array(ACCEPT)[None]
    each = [
        -rz.grpo_objective(log_policy, accept, group_size),
        -rz.expected_reward(log_policy, accept.astype(float)),
        rz.expected_simpo_loss(log_policy, world.chosen, world.rejected, beta=1.0, margin=1.0),
        rz.sft_loss(log_policy, world.chosen),
    ]
    return jnp.stack([loss.mean() for loss in each])


def success_rates(log_policy: jax.Array) -> jax.Array:
    """Success rate of every prompt."""
    return jnp.exp(log_policy)[..., :NUM_CORRECT].sum(-1)


@partial(jax.jit, static_argnums=0)
def exact_methods(config: Config, key: jax.Array) -> dict[str, jax.Array]:
    """Gradient flow of every method: its path, its drift at the accuracy, by teacher and with a single prompt."""
    keys, distances = jax.random.split(key, config.num_worlds), jnp.array(config.distances)
    worlds = jax.vmap(jax.vmap(partial(make_world, config), (0, None)), (None, 0))(keys, distances)
    single = jax.tree.map(lambda leaf: leaf[-1], worlds)
    single = jax.vmap(lambda world: only_prompt(world, jnp.argmin(jnp.abs(success_rates(world.base) - 0.5))))(single)
    times = jnp.concatenate([jnp.zeros(1), jnp.geomspace(1.0, 1e6, 120)])

    def flow(setting: tuple[World, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        world, target, weights = setting
        path = rz.gradient_flow(
            lambda log_policy: weights @ losses(log_policy, world, config.group_size),
            world.base,
            times,
            stop=lambda logits: success_rates(rz.softmax_policy(logits)).mean() - target,
        )
        drift = rz.drift(world.base[None], path.log_policy)
        return success_rates(path.log_policy).mean(-1), jnp.where(path.stopped, drift, jnp.nan)

    on_policy, off_policy = jnp.eye(4)[:2], jnp.eye(4)[2:]
    first = jax.tree.map(lambda leaf: leaf[-1, 0], worlds)
    settings = [
        pairs(jax.tree.map(lambda leaf: leaf[0], worlds), config.accuracy, on_policy),  # needs no teacher
        pairs(jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), worlds), config.accuracy, off_policy),
        pairs(single, config.accuracy, jnp.eye(4)),
        pairs(jax.tree.map(lambda leaf: leaf[None], first), 0.985, jnp.eye(4)),
    ]
    sizes = np.cumsum([setting[1].size for setting in settings])[:-1]
    success, drift = jax.lax.map(flow, jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *settings))
    on, off, one, curve = jnp.split(drift, sizes)
    shape = (distances.size, config.num_worlds, 2)
    on = jnp.broadcast_to(on[:, -1].reshape(1, config.num_worlds, 2), shape)
    return {
        "curve_success": jnp.split(success, sizes)[-1],
        "curve_drift": curve,
        "exact_drift": jnp.concatenate([on, off[:, -1].reshape(shape)], axis=-1),
        "one_prompt_drift": one[:, -1].reshape(config.num_worlds, 4),
    }


def only_prompt(world: World, prompt: jax.Array) -> World:
    """The world in which every prompt is this one, which is the world of this prompt alone."""
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf[prompt][None], leaf.shape), world)


def pairs(worlds: World, target: float, weights: jax.Array) -> tuple[World, jax.Array, jax.Array]:
    """Every world with every row of weights, worlds first."""
    num_worlds, num_weights = worlds.base.shape[0], weights.shape[0]
    repeated = jax.tree.map(lambda leaf: jnp.repeat(leaf, num_weights, axis=0), worlds)
    return repeated, jnp.full(num_worlds * num_weights, target), jnp.tile(weights, (num_worlds, 1))


@partial(jax.jit, static_argnums=0)
def sampled_methods(config: Config, key: jax.Array) -> dict[str, jax.Array]:
    """Every method on finite groups of samples, in every world: drift at the accuracy."""

    def loss(logits: jax.Array, world: World, key: jax.Array, method: int) -> jax.Array:
        log_policy = rz.softmax_policy(logits)
        uniform = jax.random.uniform(key, (2, config.num_prompts, config.group_size))
        own, right = rz.inverse_cdf(log_policy, uniform[0]), rz.inverse_cdf(world.chosen, uniform[0])
        wrong = rz.inverse_cdf(world.rejected, uniform[1])
        own_prob, right_prob, wrong_prob = (jnp.take_along_axis(log_policy, y, axis=1) for y in (own, right, wrong))
        reward = jnp.array(ACCEPT)[own].astype(float)
        return (
            lambda: rz.reinforce_loss(own_prob, rz.grpo_advantage(reward)),
            lambda: rz.reinforce_loss(own_prob, reward),
            lambda: rz.simpo_loss(right_prob, wrong_prob, beta=1.0, margin=1.0),
            lambda: rz.reinforce_loss(right_prob, jnp.ones_like(right_prob)),
        )[method]().mean()

    def path_of(world: World, key: jax.Array, method: int) -> jax.Array:
        def gradient(logits: jax.Array, key: jax.Array) -> jax.Array:
            return jax.grad(loss)(logits, world, key, method)

        return train(gradient, world.base, optax.sgd(config.rate), key, num_steps=config.num_steps)

    keys = jax.random.split(key, config.num_worlds)
    worlds = jax.vmap(lambda key: make_world(config, key, jnp.ones(())))(keys)
    runs = jax.vmap(jax.random.fold_in, (0, None))(keys, 1)
    paths = [jax.vmap(partial(path_of, method=method))(worlds, runs) for method in range(4)]
    log_policy = rz.softmax_policy(jnp.stack(paths, axis=1))  # [worlds, methods, steps + 1, prompts, outcomes]
    drift = rz.drift(worlds.base[:, None, None], log_policy)
    crossing = jax.vmap(jax.vmap(partial(rz.value_at_crossing, level=config.accuracy)))
    return {"sampled_drift": crossing(success_rates(log_policy).mean(-1), drift)}


# KL direction x rollout policy x learning rate


@partial(jax.jit, static_argnums=0)
def distillation_grid(config: Config, key: jax.Array) -> jax.Array:
    """Distil an unrelated teacher into answers of two tokens: forward drift at the accuracy in every cell.

    The loss is the token-level KL, exact over the vocabulary, at the prefixes that are rolled out: the empty one and a
    group of sampled first tokens, by the student (on-policy) or by the teacher (off-policy).
    """
    prompts, vocabulary = 16, 6
    keys = jax.random.split(key, 4)

    def random_policy(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        first, second = jax.random.split(key)
        shape = (prompts, vocabulary)
        return jax.random.normal(first, shape), jax.random.normal(second, (*shape, vocabulary))

    def answers(tokens: tuple[jax.Array, jax.Array]) -> jax.Array:
        first, second = map(rz.softmax_policy, tokens)
        return (first[..., None] + second).reshape(prompts, -1)

    base, other = random_policy(keys[0]), random_policy(keys[1])
    correct = jax.random.bernoulli(keys[2], 0.3, (prompts, vocabulary**2)).astype(float)
    joint = rz.tilt(answers(other), correct, 0.15).reshape(prompts, vocabulary, vocabulary)
    teacher_first = jax.nn.logsumexp(joint, axis=-1)
    teacher = teacher_first, joint - teacher_first[..., None]

    def loss(params: tuple[jax.Array, jax.Array], forward: jax.Array, own: jax.Array, key: jax.Array) -> jax.Array:
        student = tuple(map(rz.softmax_policy, params))
        first, second = (  # KL up to the teacher's entropy, which is constant
            jnp.where(forward, rz.cross_entropy(t, s), rz.cross_entropy(s, t) - rz.entropy(s))
            for s, t in zip(student, teacher, strict=True)
        )
        uniform = jax.random.uniform(key, (prompts, config.group_size))
        prefixes = rz.inverse_cdf(jnp.where(own, student[0], teacher[0]), uniform)
        return (first + jnp.take_along_axis(second, prefixes, axis=1).mean(-1)).mean()

    def drift_of(rate: jax.Array, forward: jax.Array, own: jax.Array, key: jax.Array) -> jax.Array:
        def measured(params: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            log_policy = answers(params)
            return rz.expected_reward(log_policy, correct).mean(), rz.drift(answers(base), log_policy)

        gradient = jax.grad(lambda params, key: loss(params, forward, own, key))
        optimizer, num_steps = optax.adam(rate), config.grid_steps
        success, drift = train(gradient, base, optimizer, key, num_steps=num_steps, record=measured)
        return rz.value_at_crossing(success, drift, config.grid_accuracy)

    seeds = jax.random.split(keys[3], config.grid_seeds)
    cells = jax.vmap(drift_of, (None, None, None, 0))
    for axis in (2, 1, 0):
        cells = jax.vmap(cells, tuple(0 if i == axis else None for i in range(4)))
    return cells(jnp.array(config.grid_rates), jnp.array([True, False]), jnp.array([True, False]), seeds)


def explained(drift: np.ndarray) -> np.ndarray:
    """Share of the variance of log drift that each factor's main effect explains: rate, direction, rollout policy."""
    log_drift = np.log(drift)
    mains = [log_drift.mean(axis=tuple(i for i in range(4) if i != factor)) for factor in range(3)]
    return np.array([main.var() for main in mains]) / log_drift.var()


# Groups and refits


@partial(jax.jit, static_argnums=0)
def group_coefficients(config: Config, key: jax.Array) -> dict[str, jax.Array]:
    """c_G(J) on its closed form, and estimated from sampled groups."""
    success, points = jnp.linspace(0.0, 1.0, 201), jnp.array([0.05, 0.2, 0.35, 0.5, 0.65, 0.85, 0.95])

    uniform = jax.random.uniform(key, (config.num_groups, points.size, max(GROUPS)))

    def estimate(group_size: int) -> jax.Array:
        reward = (uniform[..., :group_size] < points[None, :, None]).astype(float)
        return (rz.grpo_advantage(reward) * reward).mean(-1) / (points * (1 - points))[None]

    draws = [estimate(group_size) for group_size in GROUPS]
    return {
        "success": success,
        "coefficient": jnp.stack([rz.grpo_coefficient(success, size) for size in GROUPS]),
        "sampled_success": points,
        "sampled_coefficient": jnp.stack([draw.mean(0) for draw in draws]),
        "coefficient_error": jnp.stack([draw.std(0, ddof=1) / jnp.sqrt(config.num_groups) for draw in draws]),
        "exact_coefficient": jnp.stack([rz.grpo_coefficient(points, size) for size in GROUPS]),
    }


@partial(jax.jit, static_argnums=0)
def refits(config: Config, key: jax.Array) -> dict[str, jax.Array]:
    """Chains of: draw N correct answers of the policy, refit the policy to them."""
    start = jnp.array([0.30, 0.25, 0.15, 0.10, 0.05]) / 0.85

    def chain(key: jax.Array, population: jax.Array) -> jax.Array:
        def round_of(share: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
            share = jax.random.multinomial(key, population, share) / population
            return share, share

        _, path = jax.lax.scan(round_of, start, jax.random.split(key, config.num_rounds))
        return jnp.concatenate([start[None], path])

    keys = jax.random.split(key, (len(config.populations), config.num_chains))
    populations = jnp.array(config.populations, dtype=float)
    shares = jax.vmap(jax.vmap(chain, (0, None)))(keys, populations)  # [populations, chains, rounds + 1, answers]
    mixed = 1 - jnp.square(shares).sum(-1)
    root = jnp.sqrt(float(config.num_chains))
    last = shares[:, :, -1, 0]
    return {
        "heterozygosity": mixed.mean(1),
        "heterozygosity_error": mixed.std(1, ddof=1) / root,
        "top_share": jnp.stack([last.mean(1), last.std(1, ddof=1) / root], axis=-1),
        "base_share": start[0],
    }


def effects(drift: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Main effects of off-policy data and of negative gradients on `drift [..., methods]`."""
    off_policy = drift[..., 2:].mean(-1) - drift[..., :2].mean(-1)
    negative = drift[..., [0, 2]].mean(-1) - drift[..., [1, 3]].mean(-1)
    return off_policy, negative


def claims(results: Results) -> list[Claim]:
    """Which axis explains the drift, and when."""
    off_policy, negative = (effect.mean(-1) for effect in effects(results.exact_drift))  # [distances]
    gap = results.exact_drift[..., 1] - results.exact_drift[..., 3]  # [distances, worlds] REINFORCE - SFT
    many = np.abs(results.exact_drift[-1, :, 0] - results.exact_drift[-1, :, 1]).max()
    misses = (results.sampled_drift - results.exact_drift[-1]).mean(0)
    rate, direction, rollout = explained(results.grid_drift)
    scores = np.abs(results.sampled_coefficient - results.exact_coefficient) / results.coefficient_error
    limit = 1 / np.sqrt(results.sampled_success * (1 - results.sampled_success))
    limit_scores = np.abs(results.sampled_coefficient[0] - limit) / results.coefficient_error[0]
    rounds = results.heterozygosity.shape[1] - 1
    predicted = results.heterozygosity[:, 0] * (1 - 1 / results.populations) ** rounds
    last, error = results.heterozygosity[:, -1], results.heterozygosity_error[:, -1]
    share, share_error = results.top_share.T
    paper = "RL's Razor, arXiv:2509.04259, section 4"
    return [
        Claim(
            id="on-policy-explains",
            statement="With an unrelated teacher, off-policy data costs drift at equal accuracy: mean forward drift of "
            "SFT and SimPO minus that of GRPO and REINFORCE.",
            source=paper,
            expected=at_least(0.3),
            measured=off_policy[-1],
            control="a teacher that answers like the base where the base is correct",
            control_measured=off_policy[0],
        ),
        Claim(
            id="negatives-do-not",
            statement="Negative gradients hardly matter: size of their main effect over that of off-policy data.",
            source=paper,
            expected=at_most(0.2),
            measured=abs(negative[-1] / off_policy[-1]),
            control="a teacher that answers like the base",
            control_measured=abs(negative[0] / off_policy[0]),
        ),
        Claim(
            id="near-teacher-wins",
            statement="SFT on the base's own correct answers drifts less than on-policy REINFORCE: difference of their "
            "forward drifts.",
            source="exact flows",
            expected=at_least(0.1),
            measured=gap[0].mean(),
            control="the unrelated teacher",
            control_measured=gap[-1].mean(),
        ),
        Claim(
            id="one-prompt",
            statement="On a single prompt GRPO and 1-0 REINFORCE run along the same curve: largest difference of their "
            "drifts.",
            source="E[GRPO gradient] = c_G(J) ∇J",
            expected=at_most(1e-6),
            measured=np.abs(results.one_prompt_drift[:, 0] - results.one_prompt_drift[:, 1]).max(),
            control="many prompts, which c_G weighs differently",
            control_measured=many,
        ),
        Claim(
            id="samples-follow",
            statement="Sampled training follows the exact flow: mean difference of the drifts, for the method where it "
            "is largest.",
            source="exact expected gradients",
            expected=at_most(0.06),
            measured=np.abs(misses).max(),
            control="the exact flow of another method: SFT's for GRPO",
            control_measured=abs((results.sampled_drift[:, 0] - results.exact_drift[-1, :, 3]).mean()),
        ),
        Claim(
            id="rate-decides",
            statement="When an unrelated teacher is distilled, the learning rate decides the drift at equal accuracy: "
            "its share of the variance of log drift.",
            source="Piskorz et al., arXiv:2609.35259",
            expected=at_least(0.5),
            measured=rate,
            control="the KL direction's share",
            control_measured=direction,
        ),
        Claim(
            id="rollouts-do-not",
            statement="There the rollout policy hardly matters: its share of the variance of log drift.",
            source="Piskorz et al., arXiv:2609.35259",
            expected=at_most(0.2),
            measured=rollout,
            control="the learning rate's share",
            control_measured=rate,
        ),
        Claim(
            id="group-coefficient",
            statement="GRPO's expected gradient is c_G(J) times that of the success rate: c_8(0.85).",
            source="closed form of the binomial mean",
            expected=near(2.207, 1e-3),
            measured=results.exact_coefficient[1, 5],
            control="groups of 64",
            control_measured=results.exact_coefficient[2, 5],
        ),
        Claim(
            id="group-coefficient-sampled",
            statement="Sampled groups agree with the closed form: largest difference in standard errors.",
            source="Monte Carlo",
            expected=at_most(4),
            measured=scores.max(),
            control="the limit of large groups, for groups of 4",
            control_measured=limit_scores.max(),
        ),
        Claim(
            id="heterozygosity",
            statement="Refitting to N own correct samples shrinks the heterozygosity by 1 - 1/N a round: largest "
            "difference after the last round, in standard errors.",
            source="Wright 1931",
            expected=at_most(4),
            measured=(np.abs(last - predicted) / error).max(),
            control="refits to infinitely many samples, which keep it",
            control_measured=(np.abs(last - results.heterozygosity[:, 0]) / error).max(),
        ),
        Claim(
            id="neutral",
            statement="That drift is neutral: mean share of the likeliest answer after the last round, minus its share "
            "in the base, in standard errors.",
            source="Wright-Fisher evolution without selection",
            expected=at_most(4),
            measured=(np.abs(share - results.base_share) / share_error).max(),
            control="plain policy gradient, which selects it: share 1",
            control_measured=(np.abs(1 - results.base_share) / share_error).max(),
        ),
    ]


def plot(results: Results) -> Figure:
    """The two axes, the teacher, the grid, groups, and refits."""
    figure, axes = plt.subplots(2, 3, figsize=(FULL_WIDTH, 5.2))
    draw_curves(axes[0, 0], results)
    draw_axes(axes[0, 1], results)
    draw_teacher(axes[0, 2], results)
    draw_grid(axes[1, 0], results)
    draw_coefficient(axes[1, 1], results)
    draw_refits(axes[1, 2], results)
    for ax, text in zip(axes.flat, "abcdef", strict=True):
        letter(ax, text)
    return figure


def draw_curves(ax: plt.Axes, results: Results) -> None:
    """Drift against accuracy in one world, exact."""
    for method, color, success, drift in zip(
        METHODS, METHOD_COLORS, results.curve_success, results.curve_drift, strict=True
    ):
        line = "--" if method == "1-0 REINFORCE" else "-"
        ax.plot(success, drift, line, color=color, label=method, zorder=3 if line == "--" else 2)
    ax.axvline(results.accuracy, color=COLORS["ref"], linewidth=0.6)
    ax.set(xlabel="mean success rate", ylabel=r"forward drift KL$(\pi_0\Vert\pi)$", title="an unrelated teacher")
    ax.legend(loc="upper left")


def draw_axes(ax: plt.Axes, results: Results) -> None:
    """The 2 x 2: exact means as lines, exact and sampled worlds as points."""
    for pair, color, label in (((0, 2), "#3b3b3b", "negative gradients"), ((1, 3), "#a0a0a0", "none")):
        exact, sampled = results.exact_drift[-1][:, pair], results.sampled_drift[:, pair]
        shift = -0.06 if pair[0] == 0 else 0.06
        ax.plot(np.arange(2) + shift, exact.mean(0), color=color, label=label, linewidth=1.6)
        for side in range(2):
            ax.plot(np.full(len(sampled), side + shift), sampled[:, side], "o", color=color, markersize=2, alpha=0.8)
            ax.annotate(
                METHODS[pair[side]],
                (side + shift, exact[:, side].mean()),
                xytext=(-8 if side == 0 else 8, 8 * np.sign(-shift)),
                textcoords="offset points",
                ha="right" if side == 0 else "left",
                va="center",
                fontsize=6.5,
            )
    ax.set_xticks([0, 1], ["on-policy", "off-policy"])
    ax.set(xlim=(-1.2, 1.6), ylabel=f"forward drift at {results.accuracy:g}", title="one axis explains it")
    ax.legend(loc="upper left")


def draw_teacher(ax: plt.Axes, results: Results) -> None:
    """Drift of all methods as the teacher moves away from the base."""
    for column, (method, color) in enumerate(zip(METHODS, METHOD_COLORS, strict=True)):
        drift = results.exact_drift[..., column]
        error = drift - results.exact_drift[..., 1]  # worlds differ; the comparison is within each
        spread = 2 * error.std(1, ddof=1) / np.sqrt(error.shape[1])
        style = {"marker": "o", "linewidth": 1.0} if column >= 2 else {"linestyle": ("-", "--")[column]}
        ax.errorbar(
            results.distances, drift.mean(1), spread if column >= 2 else None, color=color, label=method, **style
        )
    ax.set(xlabel="distance of the teacher", ylabel=f"forward drift at {results.accuracy:g}")
    ax.set_title("the teacher decides")
    ax.legend(loc="upper left")


def draw_grid(ax: plt.Axes, results: Results) -> None:
    """Drift by learning rate, KL direction and rollout policy, every seed."""
    for direction, color, name in ((0, "forward", "forward"), (1, "reverse", "reverse")):
        for rollout, line, who in ((0, "-", "student"), (1, ":", "teacher")):
            drift = results.grid_drift[:, direction, rollout]
            ax.plot(results.grid_rates, drift.mean(-1), line, color=COLORS[color], label=f"{name} KL, {who} rolls out")
            ax.plot(results.grid_rates, drift, "o", color=COLORS[color], markersize=1.5, alpha=0.6)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_yticks([1, 2, 4], ["1", "2", "4"])
    ax.minorticks_off()
    ax.set(xlabel="learning rate (Adam)", ylabel=f"forward drift at {results.grid_accuracy:g}")
    ax.set_title("the learning rate decides")
    ax.legend(loc="upper left")


def draw_coefficient(ax: plt.Axes, results: Results) -> None:
    """c_G(J): closed form and sampled groups."""
    shades = plt.get_cmap("Blues")(np.linspace(0.45, 0.95, len(GROUPS)))
    for row, (size, color) in enumerate(zip(GROUPS, shades, strict=True)):
        ax.plot(results.success, results.coefficient[row], color=color, label=f"$G={size}$")
        error = 2 * results.coefficient_error[row]
        ax.errorbar(
            results.sampled_success, results.sampled_coefficient[row], error, fmt="o", color=color, markersize=2.5
        )
    inside = slice(1, -1)
    limit = 1 / np.sqrt(results.success * (1 - results.success))[inside]
    ax.plot(results.success[inside], limit, "--", color=COLORS["target"], label=r"$1/\sqrt{J(1-J)}$")
    ax.set(ylim=(0, 6), xlabel="success rate $J$", ylabel="$c_G(J)$", title=r"GRPO follows $c_G(J)\,\nabla J$")
    ax.legend(loc="upper center", ncols=2)


def draw_refits(ax: plt.Axes, results: Results) -> None:
    """Heterozygosity over rounds: closed form and chains."""
    rounds = np.arange(results.heterozygosity.shape[1])
    shades = plt.get_cmap("Blues")(np.linspace(0.45, 0.95, len(results.populations)))
    for row, (population, color) in enumerate(zip(results.populations, shades, strict=True)):
        predicted = results.heterozygosity[row, 0] * (1 - 1 / population) ** rounds
        ax.plot(rounds, predicted, color=color, label=rf"$(1-1/N)^t$, $N={population}$")
        some = slice(None, None, 10)
        error = 2 * results.heterozygosity_error[row, some]
        ax.errorbar(rounds[some], results.heterozygosity[row, some], error, fmt="o", color=color, markersize=2.5)
    ax.set(ylim=(0, 1), xlabel="round $t$", ylabel=r"heterozygosity $1-\sum_y\pi(y|S)^2$")
    ax.set_title("finite samples drift")
    ax.legend(loc="upper right")
