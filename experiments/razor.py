"""RL's razor, exactly: when policy gradient is KL-minimal, and when it is not.

"RL's Razor" (Shenfeld, Pari, Agrawal, arXiv:2509.04259) argues that on-policy RL finds, among the policies that solve
the new task, the one closest to where it started. It holds exactly for the natural gradient, for a KL penalty at
convergence, for rejection sampling and for an exact EM step, and for plain policy gradient when the base is uniform on
the correct answers and on the wrong ones. It does not hold for plain policy gradient on any other base, which
collapses onto the likeliest correct answer, nor for exact EM in a policy class that is smaller than the simplex.

The frontier: a policy with success rate J is at least kl(p0, J) from the base in forward drift KL(base || policy), and
kl(J, p0) in reverse drift KL(policy || base), with p0 the base's success rate. Why plain policy gradient leaves it: its
flow on the logits conserves exp(-θ_i) - exp(-θ_j) for every pair of correct answers, so their ratios cannot stay. The
theorem's alternating projections are EM. Policy gradient is EM whose M-step takes a single infinitesimal step; with
longer M-steps it moves to the frontier. Both counterexamples to the convergence statement are drawn: an exponential
family and a family of mixtures in which exact EM ends at a policy that is not the closest.

About 20 seconds on two cores.
"""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

import rlrazor as rz
from experiments._harness import Claim, UserError, at_least, at_most, check_normalised, near, nonnegative, positive
from rlrazor.plotting import COLORS, FULL_WIDTH, letter

METHODS = ("policy gradient", "SFT, one label", "SFT, two labels", "SFT on the oracle", "policy gradient + KL")
BASES = ("skewed", "uniform")


@dataclass(frozen=True)
class Config:
    """The ten-label base, and the two families in which EM misses."""

    correct: tuple[float, ...] = positive((0.30, 0.25, 0.15, 0.10, 0.05))
    """Base probabilities of the correct answers."""
    wrong: tuple[float, ...] = positive((0.05, 0.03, 0.04, 0.02, 0.01))
    """Base probabilities of the wrong answers."""
    labels: tuple[int, int] = nonnegative((0, 2))
    """Correct answers that SFT trains on; the first alone, or both with equal shares."""
    accuracy: float = positive(0.99)
    """Success rate at which methods are compared."""
    betas: tuple[float, ...] = positive((0.03, 0.1, 0.3))
    """Coefficients of the KL penalty."""
    end_time: float = positive(1e5)
    """How long the flows run (rate times steps)."""
    num_times: int = 160
    """Saved times, log-spaced."""
    m_steps: tuple[int, ...] = (1, 10, 30, 100, 300, 1000, 3000, 10000, 30000)
    """Gradient steps in each M-step."""
    m_rate: float = positive(0.02)
    """Their learning rate."""
    m_total: int = 40000
    """Gradient steps in all."""
    exponential_base: tuple[float, ...] = positive((0.15, 0.50, 0.15, 0.20))
    """Base of the exponential family with statistic y; outcome 2 alone is wrong."""
    mixture_weights: tuple[float, ...] = positive((0.05, 0.15, 0.80))
    """Base of the mixture family; outcome 3 alone is wrong."""
    em_steps: int = 3000
    """Alternations in the exponential family."""

    def __post_init__(self) -> None:
        """The bases are normalised and the comparison lies above the base."""
        check_normalised("correct + wrong", self.correct + self.wrong)
        check_normalised("exponential_base", self.exponential_base)
        check_normalised("mixture_weights", self.mixture_weights)
        if not sum(self.correct) < self.accuracy < 1:
            raise UserError(f"accuracy must lie between {sum(self.correct):g} and 1, got {self.accuracy}")
        if not 0 <= min(self.labels) <= max(self.labels) < len(self.correct):
            raise UserError(f"labels must lie in [0, {len(self.correct) - 1}], got {self.labels}")

    @classmethod
    def quick(cls) -> "Config":
        """Shorter flows, fewer times and alternations."""
        return cls(end_time=1e4, num_times=60, m_steps=(1, 100, 1000, 8000), m_rate=0.1, m_total=8000, em_steps=1000)


class Results(NamedTuple):
    """Paths in (success rate, drift), what they conserve, and the alternating projections."""

    base_success: np.ndarray  # [] p0
    accuracy: np.ndarray  # [] where methods are compared
    end_time: np.ndarray  # []
    betas: np.ndarray  # [betas]
    frontier_success: np.ndarray  # [points]
    frontier: np.ndarray  # [2 drifts, points] kl(p0, J) and kl(J, p0)
    on_frontier_success: np.ndarray  # [3, points] natural gradient, tilts, mixtures with the oracle
    on_frontier_drift: np.ndarray  # [3, 2 drifts, points]
    flow_success: np.ndarray  # [bases, methods, times]
    flow_drift: np.ndarray  # [bases, methods, 2 drifts, times]
    matched_drift: np.ndarray  # [bases, methods, 2 drifts] at the accuracy of the comparison
    times: np.ndarray  # [times]
    path_success: np.ndarray  # [points] closed form of policy gradient, skewed base
    path_drift: np.ndarray  # [2 drifts, points]
    path_share: np.ndarray  # [points] of the likeliest correct answer among the correct
    path_error: np.ndarray  # [] closed form against the flow, largest difference of a probability
    natural_error: np.ndarray  # [] the same for the natural gradient
    top_drift: np.ndarray  # [] KL(likeliest correct answer alone || base)
    limit_drift: np.ndarray  # [2] reverse drift at the end of the path and of the natural gradient
    share: np.ndarray  # [1 + betas, times] policy gradient and with each penalty, skewed base
    penalised_success: np.ndarray  # [1 + betas, times]
    penalised_excess: np.ndarray  # [1 + betas, times] reverse drift above the frontier
    conserved: np.ndarray  # [2 metrics, times, pairs] exp(-θ_0) - exp(-θ_j), plain and natural gradient
    surrogate_cosine: np.ndarray  # [2] of policy gradient with the M-step's gradient, and with SFT's
    m_time: np.ndarray  # [m_steps] learning rate times steps of each M-step
    m_drift: np.ndarray  # [m_steps, 2 drifts] at the accuracy of the comparison
    family_success: np.ndarray  # [points] exponential family
    family_drift: np.ndarray  # [points] KL(policy || base)
    em_success: np.ndarray  # [em_steps + 1]
    em_drift: np.ndarray  # [em_steps + 1]
    family_ends: np.ndarray  # [2] KL(end || base) of the family's two ends
    mixture_share: np.ndarray  # [points] weight of the first component on the feasible edge
    mixture_drift: np.ndarray  # [points]
    mixture_closest: np.ndarray  # [2] first weight and drift of the minimum
    mixture_em: np.ndarray  # [3] first weight and drift where EM ends, and the success rate there
    mixture_gap: np.ndarray  # [2] EM's drift minus the minimum; and where the minimum is at the symmetric pair


def run(config: Config) -> Results:
    """Everything; flows in two compiled calls, one for each base."""
    num_correct, num_wrong = len(config.correct), len(config.wrong)
    skewed, p0 = np.array(config.correct + config.wrong), sum(config.correct)
    even = np.concatenate([np.full(num_correct, p0 / num_correct), np.full(num_wrong, (1 - p0) / num_wrong)])
    parts = [flows(config, jnp.log(jnp.array(base))) for base in (skewed, even)]
    flow = {key: np.stack([part[key] for part in parts]) for key in ("flow_success", "flow_drift", "matched_drift")}
    return Results(
        base_success=np.array(p0),
        accuracy=np.array(config.accuracy),
        end_time=np.array(config.end_time),
        betas=np.array(config.betas),
        **flow,
        **{key: value for key, value in parts[0].items() if key not in flow},
        **closed_forms(config),
        **exponential_family(config),
        **mixtures(config),
    )


def success_rate(log_policy: jax.Array, accept: jax.Array) -> jax.Array:
    """J = policy(S)."""
    return rz.expected_reward(log_policy, accept.astype(float))


def drifts(log_ref: jax.Array, log_policy: jax.Array) -> jax.Array:
    """Forward and reverse drift of each policy, `[2, ...]`."""
    return jnp.stack([rz.kl_divergence(log_ref, log_policy), rz.kl_divergence(log_policy, log_ref)])


@partial(jax.jit, static_argnums=0)
def closed_forms(config: Config) -> dict[str, jax.Array]:
    """The frontier, the three paths along it, and policy gradient's own path."""
    log_ref = jnp.log(jnp.array(config.correct + config.wrong))
    accept = jnp.arange(log_ref.size) < len(config.correct)
    p0, odds = success_rate(log_ref, accept), jnp.linspace(0.0, 7.5, 40)
    success = p0 + (1 - p0) * (1 - jnp.exp(-jnp.linspace(0.0, 8.0, 200)))
    oracle = rz.condition(log_ref, accept)
    on_frontier = jnp.stack(
        [
            rz.reward_flow(log_ref, accept.astype(float), odds),
            rz.tilt(log_ref, accept.astype(float), 1 / (odds + 0.1)),
            rz.m_geodesic(log_ref, oracle, 1 - jnp.exp(-odds)),
        ]
    )
    progress = 1 - jnp.exp(-jnp.linspace(0.0, 12.0, 300))
    log_path = rz.success_gradient_path(log_ref, accept, progress)
    end = rz.success_gradient_path(log_ref, accept, 1.0)

    # Lemma A.2: policy gradient is the gradient of the M-step's KL(oracle || policy) where it starts.
    def cosine(target: jax.Array) -> jax.Array:
        a = jax.grad(lambda logits: success_rate(rz.softmax_policy(logits), accept))(log_ref)
        b = jax.grad(lambda logits: -rz.kl_divergence(target, rz.softmax_policy(logits)))(log_ref)
        return a @ b / jnp.sqrt((a @ a) * (b @ b))

    return {
        "frontier_success": success,
        "frontier": jnp.stack([rz.binary_kl(p0, success), rz.binary_kl(success, p0)]),
        "on_frontier_success": success_rate(on_frontier, accept),
        "on_frontier_drift": drifts(log_ref, on_frontier).transpose(1, 0, 2),
        "path_success": success_rate(log_path, accept),
        "path_drift": drifts(log_ref, log_path),
        "path_share": jnp.exp(log_path[:, 0]) / success_rate(log_path, accept),
        "top_drift": -log_ref[: len(config.correct)].max(),
        "limit_drift": jnp.stack([rz.kl_divergence(end, log_ref), rz.kl_divergence(oracle, log_ref)]),
        "surrogate_cosine": jnp.stack([cosine(oracle), cosine(one_hot(config.labels[0], log_ref.size))]),
        **m_steps(config, log_ref, accept),
    }


def one_hot(label: int, num_outcomes: int) -> jax.Array:
    """Log-probabilities of a point mass."""
    return jnp.log(jnp.zeros(num_outcomes).at[label].set(1.0))


@partial(jax.jit, static_argnums=0)
def flows(config: Config, log_ref: jax.Array) -> dict[str, jax.Array]:
    """Gradient flows on the logits: every method, and policy gradient with every penalty."""
    accept = jnp.arange(log_ref.size) < len(config.correct)
    first, second = (one_hot(label, log_ref.size) for label in config.labels)
    targets = jnp.stack([first, rz.m_geodesic(first, second, 0.5), rz.condition(log_ref, accept)])
    times = jnp.concatenate([jnp.zeros(1), jnp.geomspace(0.1, config.end_time, config.num_times - 1)])

    def flow(setting: tuple[jax.Array, jax.Array]) -> rz.Trajectory:
        weights, accuracy = setting

        def loss(log_policy: jax.Array) -> jax.Array:  # -J, the three SFT losses, and the penalty
            terms = [-success_rate(log_policy, accept)[None], rz.sft_loss(log_policy, targets)]
            return weights @ jnp.concatenate([*terms, rz.kl_divergence(log_policy, log_ref)[None]])

        def reached(logits: jax.Array) -> jax.Array:
            return success_rate(rz.softmax_policy(logits), accept) - accuracy

        return rz.gradient_flow(loss, log_ref, times, stop=reached)

    penalised = jnp.array([[1.0, 0.0, 0.0, 0.0, beta] for beta in config.betas])
    middle = len(config.betas) // 2
    methods = jnp.concatenate([jnp.eye(5)[:4], penalised[middle : middle + 1]])
    never, matched = jnp.full(5 + len(config.betas), 2.0), jnp.full(5, config.accuracy)
    settings = jnp.concatenate([methods, penalised, methods]), jnp.concatenate([never, matched])
    paths = jax.lax.map(flow, settings)
    log_policy = paths.log_policy
    success, drift = success_rate(log_policy, accept), drifts(log_ref, log_policy)
    p0 = success_rate(log_ref, accept)
    rl = jnp.array([0, *range(5, 5 + len(config.betas))])

    logits = paths.params[0]
    progress = jnp.exp(log_ref[0]) * (jnp.exp(-log_ref[0]) - jnp.exp(-logits[:, 0]))
    path = rz.success_gradient_path(log_ref, accept, jnp.clip(progress, 0.0, 1.0))
    natural = rz.reward_flow(log_ref, accept.astype(float), jnp.minimum(times, 30.0))
    natural += log_ref.mean() - natural.mean(-1, keepdims=True)  # as logits whose sum is kept
    pairs = [jnp.exp(-x[:, :1]) - jnp.exp(-x[:, 1 : len(config.correct)]) for x in (logits, natural)]
    return {
        "flow_success": success[:5],
        "flow_drift": drift[:, :5].transpose(1, 0, 2),
        "matched_drift": drift[:, -5:, -1].T,
        "times": times,
        "path_error": jnp.abs(jnp.exp(path) - jnp.exp(log_policy[0])).max(),
        "natural_error": jnp.abs(jnp.exp(path) - jnp.exp(rz.softmax_policy(natural))).max(),
        "share": jnp.exp(log_policy[rl, :, 0]) / success[rl],
        "penalised_success": success[rl],
        "penalised_excess": drift[1, rl] - rz.binary_kl(success[rl], p0),
        "conserved": jnp.stack(pairs),
    }


def m_steps(config: Config, log_ref: jax.Array, accept: jax.Array) -> dict[str, jax.Array]:
    """EM whose M-step takes n gradient steps: drift where it first has the accuracy of the comparison."""

    def descend(num_inner: jax.Array) -> jax.Array:
        def step(carry: tuple[jax.Array, jax.Array], count: jax.Array) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
            logits, target = carry
            log_policy = rz.softmax_policy(logits)
            oracle = jnp.exp(rz.condition(log_policy, accept))
            target = jnp.where(count % num_inner == 0, oracle, target)
            logits = logits + config.m_rate * (target - jnp.exp(log_policy))
            return (logits, target), rz.softmax_policy(logits)

        _, path = jax.lax.scan(step, (log_ref, jnp.exp(log_ref)), jnp.arange(config.m_total))
        success, drift = success_rate(path, accept), drifts(log_ref, path)
        return jax.vmap(rz.value_at_crossing, (None, 0, None))(success, drift, config.accuracy)

    counts = jnp.array(config.m_steps)
    return {"m_time": config.m_rate * counts.astype(float), "m_drift": jax.vmap(descend)(counts)}


@partial(jax.jit, static_argnums=0)
def exponential_family(config: Config) -> dict[str, jax.Array]:
    """EM in the family base(y) exp(λ y) / Z, where outcome 2 alone is wrong."""
    log_ref = jnp.log(jnp.array(config.exponential_base))
    accept, statistic = jnp.arange(4) != 2, jnp.arange(4.0)

    def alternate(log_policy: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
        following = rz.m_projection(rz.condition(log_policy, accept), log_ref, statistic[:, None]).log_policy
        return following, following

    _, path = jax.lax.scan(alternate, log_ref, None, length=config.em_steps)
    path = jnp.concatenate([log_ref[None], path])
    family = rz.softmax_policy(log_ref[None] + jnp.linspace(-12.0, 12.0, 401)[:, None] * statistic[None])
    ends = jnp.stack([one_hot(0, 4), one_hot(3, 4)])
    return {
        "family_success": success_rate(family, accept),
        "family_drift": rz.kl_divergence(family, log_ref),
        "em_success": success_rate(path, accept),
        "em_drift": rz.kl_divergence(path, log_ref),
        "family_ends": rz.kl_divergence(ends, log_ref),
    }


@partial(jax.jit, static_argnums=0)
def mixtures(config: Config) -> dict[str, jax.Array]:
    """EM over the weights of three components, where outcome 3 alone is wrong and only the third can produce it."""
    others = jnp.array([[0.05, 0.05, 0.90, 0.0], [0.05, 0.60, 0.05, 0.30]])
    accept, weights = jnp.arange(4) != 3, jnp.array(config.mixture_weights)
    edge = jnp.linspace(0.0, 1.0, 40001)

    def solve(first: jax.Array) -> tuple[jax.Array, ...]:
        components = jnp.concatenate([first[None], others])
        log_ref = jnp.log(weights @ components)

        def alternate(weights: jax.Array, _: None) -> tuple[jax.Array, None]:
            target = jnp.exp(rz.condition(jnp.log(weights @ components), accept))

            def improve(weights: jax.Array, _: None) -> tuple[jax.Array, None]:
                mixed = weights @ components
                return weights * (components @ (target / jnp.where(mixed > 0, mixed, 1.0))), None

            return jax.lax.scan(improve, weights, None, length=500)[0], None

        end, _ = jax.lax.scan(alternate, weights, None, length=40)
        feasible = jnp.stack([edge, 1 - edge, jnp.zeros_like(edge)], axis=-1)
        drift = rz.kl_divergence(jnp.log(feasible @ components), log_ref)
        log_end = jnp.log(end @ components)
        return drift, jnp.stack([end[0], rz.kl_divergence(log_end, log_ref), success_rate(log_end, accept)])

    skewed, symmetric = jnp.array([[0.80, 0.15, 0.05, 0.0], [0.90, 0.05, 0.05, 0.0]])
    drift, end = solve(skewed)
    control_drift, control_end = solve(symmetric)
    return {
        "mixture_share": edge[::100],
        "mixture_drift": drift[::100],
        "mixture_closest": jnp.stack([edge[drift.argmin()], drift.min()]),
        "mixture_em": end,
        "mixture_gap": jnp.stack([end[1] - drift.min(), control_end[1] - control_drift.min()]),
    }


def claims(results: Results) -> list[Claim]:
    """When the razor holds, when it does not, and why."""
    p0, accuracy = results.base_success, results.accuracy
    skewed, even = results.matched_drift  # [methods, 2 drifts]
    floor = np.array([kl(p0, accuracy), kl(accuracy, p0)])
    least = np.stack([kl(p0, results.on_frontier_success), kl(results.on_frontier_success, p0)], axis=1)
    conserved = np.ptp(results.conserved, axis=1).max(-1)
    middle = len(results.betas) // 2
    paper = "RL's Razor, arXiv:2509.04259"
    return [
        Claim(
            id="frontier",
            statement="Natural gradient, reward tilt and mixture with the oracle run along the frontier: largest drift "
            "above kl(p0, J) or kl(J, p0).",
            source=f"{paper}, Lemma 5.1, at every accuracy",
            expected=near(0, 1e-9),
            measured=np.abs(results.on_frontier_drift - least).max(),
            control="plain policy gradient, at the accuracy of the comparison",
            control_measured=(skewed[0] - floor).max(),
        ),
        Claim(
            id="closer-than-sft",
            statement="Policy gradient is closer to the base than SFT on given labels at equal accuracy: forward drift "
            "of SFT on two labels minus that of policy gradient.",
            source=f"{paper}, figure 3",
            expected=at_least(0.5),
            measured=skewed[2, 0] - skewed[0, 0],
            control="SFT on the oracle, which is closer still",
            control_measured=skewed[3, 0] - skewed[0, 0],
        ),
        Claim(
            id="not-minimal",
            statement="Plain policy gradient is not KL-minimal: its reverse drift above the frontier, at the "
            "accuracy of the comparison.",
            source="exact flow; Theorem 5.2 says 0 in the limit",
            expected=at_least(0.2),
            measured=skewed[0, 1] - floor[1],
            control="a base that is uniform on the correct answers and on the wrong ones",
            control_measured=even[0, 1] - floor[1],
            note="The published toy is pretrained on labels that are uniform over the correct digits: its base is the "
            "control.",
        ),
        Claim(
            id="collapse",
            statement="Plain policy gradient ends at the likeliest correct answer alone: limit of its reverse drift.",
            source="closed form of the flow",
            expected=near(results.top_drift, 1e-9),
            measured=results.limit_drift[0],
            control="the natural gradient, whose limit is the frontier's -log p0",
            control_measured=results.limit_drift[1],
        ),
        Claim(
            id="closed-form",
            statement="The flow on the logits runs along init / (1 - a init) on the correct and init / (1 + b init) on "
            "the wrong answers: largest difference of a probability.",
            source="conserved quantities of the flow",
            expected=at_most(1e-7),
            measured=results.path_error,
            control="the natural gradient flow",
            control_measured=results.natural_error,
        ),
        Claim(
            id="conserved",
            statement="exp(-θ_i) - exp(-θ_j) is conserved for correct answers i, j: largest change along the flow.",
            source="d exp(-θ_i) / dt = -(1 - J) / Z for every correct i",
            expected=at_most(1e-4),
            measured=conserved[0],
            control="the natural gradient flow",
            control_measured=conserved[1],
        ),
        Claim(
            id="penalty",
            statement=f"A KL penalty of {results.betas[middle]:g} restores the razor at convergence: reverse drift at "
            "the end, above the frontier.",
            source=f"{paper}, figure 3 (GRPO + KL); fixed point base exp(reward / beta) / Z",
            expected=near(0, 1e-3),
            measured=results.penalised_excess[1 + middle, -1],
            control="without the penalty",
            control_measured=results.penalised_excess[0, -1],
        ),
        Claim(
            id="penalty-is-late",
            statement="On its way to convergence a weak penalty leaves the frontier first: largest reverse drift above "
            "the frontier.",
            source="exact flow",
            expected=at_least(0.02),
            measured=results.penalised_excess[1 + middle].max(),
            control=f"a penalty of {results.betas[-1]:g}",
            control_measured=results.penalised_excess[-1].max(),
        ),
        Claim(
            id="one-step-of-em",
            statement="Policy gradient is the first step of the M-step: cosine of ∇J with the gradient of "
            "-KL(base(.|S) || policy).",
            source=f"{paper}, Lemma A.2",
            expected=near(1, 1e-12),
            measured=results.surrogate_cosine[0],
            control="with the gradient of SFT on the likeliest answer",
            control_measured=results.surrogate_cosine[1],
        ),
        Claim(
            id="exact-m-steps",
            statement="Long M-steps bring policy gradient close to the frontier: reverse drift of the longest M-steps "
            "minus that of SFT on the oracle.",
            source=f"{paper}, Proposition A.4 (ii): the errors of the M-steps must be summable",
            expected=near(0, 2e-3),
            measured=results.m_drift[-1, 1] - skewed[3, 1],
            control="M-steps of a single gradient step, which is policy gradient",
            control_measured=results.m_drift[0, 1] - skewed[3, 1],
        ),
        Claim(
            id="exponential-family",
            statement="In an exponential family exact EM may end at a policy that is not the closest: KL(end || base) "
            "minus that of the closest policy that always succeeds.",
            source=f"{paper}, Proposition A.4 says 0; P* meets the family's closure only",
            expected=at_least(0.2),
            measured=results.em_drift[-1] - results.family_ends.min(),
            control="the full simplex, where one EM step ends at base(.|S)",
            control_measured=results.limit_drift[1] + np.log(p0),
        ),
        Claim(
            id="mixture-family",
            statement="In a convex family, too, exact EM misses the minimum, if by little: KL(end || base) minus the "
            "least.",
            source=f"{paper}, Theorem 5.2 says 0",
            expected=near(0.97432 - 0.97327, 2e-5),
            measured=results.mixture_gap[0],
            control="a symmetric pair of components",
            control_measured=results.mixture_gap[1],
            note="The M-step minimises KL(q || policy), the theorem's conclusion speaks of KL(policy || base).",
        ),
    ]


def kl(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Binary KL of two success rates."""
    return np.asarray(rz.binary_kl(jnp.asarray(p), jnp.asarray(q)))


def plot(results: Results) -> Figure:
    """Frontier, reasons, and alternating projections, a row each."""
    figure, axes = plt.subplots(3, 3, figsize=(FULL_WIDTH, 7.6))
    draw_frontier(axes[0, 0], results, 0, 0)
    draw_frontier(axes[0, 1], results, 0, 1)
    draw_frontier(axes[0, 2], results, 1, 1)
    draw_share(axes[1, 0], results)
    draw_conserved(axes[1, 1], results)
    draw_penalty(axes[1, 2], results)
    draw_m_steps(axes[2, 0], results)
    draw_family(axes[2, 1], results)
    draw_mixtures(axes[2, 2], results)
    for ax, text in zip(axes.flat, "abcdefghi", strict=True):
        letter(ax, text)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=5)
    return figure


STYLE = {
    "policy gradient": (COLORS["reverse"], "-"),
    "SFT, one label": (COLORS["forward"], "-"),
    "SFT, two labels": (COLORS["forward_light"], "-"),
    "SFT on the oracle": (COLORS["oracle"], "--"),
    "policy gradient + KL": (COLORS["reverse_light"], "-"),
}


def success_axis(ax: plt.Axes, low: float, high: float = 0.9995) -> None:
    """J on a scale of log failures."""
    ax.set_xscale("function", functions=(lambda j: -np.log10(np.clip(1 - j, 1e-9, None)), lambda x: 1 - 10.0**-x))
    ticks = [tick for tick in (0.85, 0.95, 0.99, 0.999) if low - 1e-9 <= tick <= high]
    ax.xaxis.set_major_locator(FixedLocator(ticks))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.set(xlim=(low, high), xlabel=r"success rate $J$")


def draw_frontier(ax: plt.Axes, results: Results, base: int, direction: int) -> None:
    """Drift against success rate: the frontier, what runs along it, and what leaves it."""
    for row, name in enumerate(METHODS):
        color, line = STYLE[name]
        if base == 0 and row == 0:
            success, drift = results.path_success, results.path_drift[direction]
            marks = slice(None, None, max(len(results.times) // 40, 1))
            flow = results.flow_success[0, 0, marks], results.flow_drift[0, 0, direction, marks]
            ax.plot(*flow, "o", color=color, markersize=2.5)
        else:
            success, drift = results.flow_success[base, row], results.flow_drift[base, row, direction]
        ax.plot(success, drift, line, color=color, label=name, zorder=3 if row == 3 else 2)
    frontier = results.frontier_success, results.frontier[direction]
    label = r"frontier $\mathrm{kl}(p_0,J)$, $\mathrm{kl}(J,p_0)$"
    ax.plot(*frontier, color=COLORS["target"], linestyle="--", zorder=4, label=label)
    if base == 0:
        names = ("natural gradient", r"tilt $\pi_0e^{r/\beta}/Z$", r"mixture of $\pi_0$ and oracle")
        for row, (marker, name) in enumerate(zip("ds^", names, strict=True)):
            points = slice(3 * row, None, 9)
            success, drift = results.on_frontier_success[row, points], results.on_frontier_drift[row, direction, points]
            ax.plot(success, drift, marker, color=COLORS["oracle"], markersize=3, zorder=5, label=name)
    success_axis(ax, results.base_success)
    if (base, direction) == (0, 1):
        end = results.limit_drift[1]
        label = "oracle = rejection sampling\n" + rf"= one EM step: {end:.4f}"
        star = ax.plot(ax.get_xlim()[1], end, "*", color=COLORS["oracle"], markersize=8, clip_on=False, label=label)
        ax.legend(handles=star, loc="upper left")
    ax.set_ylim(0, 2.6 if direction == 0 else 1.8)
    ax.set_ylabel(("forward drift KL$(\\pi_0\\Vert\\pi)$", "reverse drift KL$(\\pi\\Vert\\pi_0)$")[direction])
    ax.set_title(f"{BASES[base]} base")


def draw_share(ax: plt.Axes, results: Results) -> None:
    """The likeliest correct answer takes over, unless the penalty or the metric holds it."""
    every = slice(None, None, max(len(results.times) // 40, 1))
    ax.plot(results.path_success, results.path_share, color=COLORS["reverse"], label="plain policy gradient")
    ax.plot(results.penalised_success[0, every], results.share[0, every], "o", color=COLORS["reverse"], markersize=2.5)
    middle = len(results.betas) // 2
    label = rf"+ KL penalty, $\beta={results.betas[middle]:g}$"
    ax.plot(
        results.penalised_success[1 + middle], results.share[1 + middle], color=COLORS["reverse_light"], label=label
    )
    ax.axhline(results.path_share[0], color=COLORS["oracle"], linestyle="--", label="natural gradient")
    success_axis(ax, results.base_success, 0.99995)
    ax.set(ylim=(0, 1), ylabel=r"$\pi(\mathrm{top}\mid S)$", title="the likeliest takes over")
    ax.legend(loc="lower right")


def draw_conserved(ax: plt.Axes, results: Results) -> None:
    """What plain policy gradient conserves and the natural gradient does not."""
    for metric, color, label in ((1, "oracle", "natural gradient"), (0, "reverse", "plain policy gradient")):
        ax.plot(results.times[1:], results.conserved[metric, 1:], color=COLORS[color], linewidth=1.0)
        ax.plot([], [], color=COLORS[color], label=label)
    ax.set_xscale("log")
    ax.set(ylim=(-19, 3), xlim=(0.1, min(1e3, results.end_time)), xlabel="time (rate times steps)")
    ax.set(ylabel=r"$e^{-\theta_0}-e^{-\theta_j}$, $j\in S$", title="what it conserves")
    ax.legend(loc="center right", bbox_to_anchor=(1.0, 0.3))


def draw_penalty(ax: plt.Axes, results: Results) -> None:
    """Excess drift over time, with and without the penalty."""
    shades = plt.get_cmap("Blues")(np.linspace(0.85, 0.4, 1 + len(results.betas)))
    for row, color in enumerate(shades):
        label = r"$\beta=0$" if row == 0 else rf"$\beta={results.betas[row - 1]:g}$"
        ax.plot(results.times[1:], results.penalised_excess[row, 1:], color=color, label=label)
    limit = results.limit_drift[0] - results.limit_drift[1]
    ax.axhline(limit, color=COLORS["target"], linestyle="--", linewidth=0.8)
    text = rf"limit ${results.limit_drift[0]:.3f}-{results.limit_drift[1]:.4f}$"
    ax.annotate(text, (0.2, limit), va="bottom", fontsize=6.5)
    ax.set_xscale("log")
    ax.set(ylim=(-0.03, 1.3), xlabel="time (rate times steps)", title="a KL penalty repairs it")
    ax.set_ylabel(r"KL$(\pi\Vert\pi_0)-\mathrm{kl}(J,p_0)$")
    ax.legend(loc="upper left", bbox_to_anchor=(0.0, 0.78))


def draw_m_steps(ax: plt.Axes, results: Results) -> None:
    """From policy gradient to EM by the length of the M-step."""
    for direction, color, symbol in ((0, "forward", r"KL$(\pi_0\Vert\pi)$"), (1, "reverse", r"KL$(\pi\Vert\pi_0)$")):
        ax.plot(results.m_time, results.m_drift[:, direction], "o-", color=COLORS[color], label=symbol, linewidth=0.6)
        for end in results.matched_drift[0, [0, 3], direction]:
            ax.axhline(end, color=COLORS[color], linestyle=":", linewidth=0.8)
        floor = kl(results.base_success, results.accuracy), kl(results.accuracy, results.base_success)
        ax.axhline(floor[direction], color=COLORS["target"], linestyle="--", linewidth=0.8)
    ax.set_xscale("log")
    ax.set_xlim(results.m_time[0] / 2, results.m_time[-1] * 2)
    top = results.matched_drift[0, 0, 0]
    ax.annotate("policy gradient", (results.m_time[-1], top), ha="right", va="bottom", fontsize=6.5)
    ax.annotate("exact EM, frontier", (results.m_time[0], 0.29), ha="left", va="bottom", fontsize=6.5)
    ax.set(ylim=(0, 0.68), xlabel="length of an M-step (rate times steps)", title="EM in a hurry")
    ax.set_ylabel(f"drift at $J={results.accuracy:g}$ (nats)")
    ax.legend(loc="upper right", bbox_to_anchor=(1.0, 0.8))


def draw_family(ax: plt.Axes, results: Results) -> None:
    """EM in the exponential family climbs to the wrong end."""
    ax.plot(results.family_success, results.family_drift, color=COLORS["ref"], label=r"family $\pi_0e^{\lambda y}/Z$")
    success = results.em_success
    ax.plot(success, results.em_drift, "o", color=COLORS["reverse"], markersize=2.5, label="exact EM")
    best = results.family_ends.argmin()
    for end, color, text in (
        (1 - best, COLORS["reverse"], "EM ends here"),
        (best, COLORS["oracle"], "the closest is here"),
    ):
        ax.plot(1, results.family_ends[end], "*", color=color, markersize=8, clip_on=False, zorder=5)
        ax.annotate(
            f"{text}: {results.family_ends[end]:.3f}",
            (1, results.family_ends[end]),
            xytext=(-6, 5 if end != best else -11),
            textcoords="offset points",
            ha="right",
            fontsize=6.5,
        )
    ax.set(ylim=(0, 2.7), xlabel=r"success rate $J$", ylabel=r"KL$(\pi\Vert\pi_0)$", title="EM misses, e-flat family")
    ax.legend(loc="upper left")


def draw_mixtures(ax: plt.Axes, results: Results) -> None:
    """Where EM ends among the mixtures that always succeed, and where the minimum is."""
    ax.plot(
        results.mixture_share, results.mixture_drift, color=COLORS["ref"], label=r"$w f_1+(1-w)f_2$, all with $J=1$"
    )
    share, drift, _ = results.mixture_em
    ax.plot(share, drift, "*", color=COLORS["reverse"], markersize=8, label=rf"exact EM: $w={share:.4f}$, {drift:.5f}")
    share, drift = results.mixture_closest
    label = rf"closest: $w={share:.4f}$, {drift:.5f}"
    ax.plot(share, drift, "*", color=COLORS["oracle"], markersize=8, label=label)
    ax.set(xlim=(0.38, 0.52), ylim=(0.972, 0.985), xlabel="mixture weight $w$", ylabel=r"KL$(\pi\Vert\pi_0)$")
    ax.set_title("EM misses, convex family")
    ax.legend(loc="upper center")
