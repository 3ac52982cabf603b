"""SFT drains the old mode and RL moves the new one, as published; and what that rests on.

The simulation of "Retaining by Doing" (Chen et al., arXiv:2510.18874): a two-mode policy learns a target whose old
mode it already has. "As published" repeats the released code with every seed: SFT on samples of the target's new mode
against RL on samples of the policy's own new mode, with the old mode's steps slowed down by 0.005. The recursions for
infinitely many samples are the lines through the points. In the uni-modal setting forward KL forgets less; in the
bi-modal setting, at the published constants, reverse KL does.

"Exact" replaces the sampled updates by the gradient flow of the KL itself, all parameters at equal rates unless slowed
down. Then KL direction alone does not decide. A target that has only the new mode destroys the old one in either
direction, unless the old mode is slowed down; a reward-tilted reference that keeps the old mode leaves it intact in
either direction, slowed down or not. The slow factor is a choice of metric: it rescales parameters.

About 80 seconds on two cores.
"""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.animation import FuncAnimation
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

import rlrazor as rz
from experiments._harness import Claim, UserError, at_least, at_most, near, nonnegative, positive
from rlrazor.plotting import COLORS, FULL_WIDTH, letter
from rlrazor.tasks import two_mode
from rlrazor.training import train

RUNS = ("bi_forward", "bi_forward_slow", "bi_reverse", "uni_forward", "uni_reverse")
DIRECTIONS = ("forward", "reverse")
TARGETS = ("new", "tilted")
STRIDE = 5  # of the sampled paths that are kept


@dataclass(frozen=True)
class Config:
    """The published constants, and the grid of what decides."""

    num_seeds: int = 200
    """Sampled runs of every setting."""
    num_samples: int = 1000
    """Samples per update."""
    bi_steps: int = 200
    """Updates in the bi-modal setting."""
    uni_steps: int = 1000
    """Updates in the uni-modal setting."""
    bi_forward_rate: float = positive(0.15)
    """Learning rate of SFT, bi-modal."""
    bi_forward_low_rate: float = positive(0.01)
    """The lower learning rate of SFT, bi-modal."""
    bi_reverse_rate: float = positive(0.01)
    """Learning rate of RL, bi-modal."""
    uni_forward_rate: float = positive(0.05)
    """Learning rate of SFT, uni-modal."""
    uni_reverse_rate: float = positive(0.005)
    """Learning rate of RL, uni-modal."""
    slow_factor: float = nonnegative(0.005)
    """Multiplies the steps of the old mode's weight, mean and scale."""
    beta: float = positive(0.1)
    """Offset of the reward, -log beta."""
    floor: float = nonnegative(1e-12)
    """Smallest density ratio inside the reward's logarithm."""
    gain: float = positive(0.9)
    """New-mode overlap gained at which runs are compared."""
    slow_factors: tuple[float, ...] = nonnegative((0.0, *np.geomspace(1e-3, 1.0, 16).round(6).tolist()))
    """Slow factors of the exact flows."""
    ablation_seeds: int = 20
    """Sampled runs at each of the slow factors 0, 0.005, 0.05 and 1."""
    end_time: float = positive(20000.0)
    """When exact flows give up (learning rate times steps)."""
    num_frames: int = 31
    """Frames of the animation."""
    seed: int = nonnegative(0)
    """Of the random keys."""

    def __post_init__(self) -> None:
        """Equal rates are among the slow factors, because the paths are drawn there."""
        if 1.0 not in self.slow_factors:
            raise UserError(f"slow_factors must hold 1.0, got {self.slow_factors}")

    @classmethod
    def quick(cls) -> "Config":
        """Few seeds, few slow factors."""
        return cls(num_seeds=6, ablation_seeds=6, slow_factors=(0.0, 0.005, 0.1, 1.0), end_time=4000.0, num_frames=7)


class Results(NamedTuple):
    """As published (sampled and predicted), exact flows, and what decides.

    Paths hold one row per update, the start included; `stop` is the row at which the gain is first reached, the last
    row if never.
    """

    grid: np.ndarray  # [points]
    uni_grid: np.ndarray  # [points]
    target: np.ndarray  # [points] density
    bi_init: np.ndarray  # [points]
    bi_forward_density: np.ndarray  # [frames, points] seed 0, every tenth update to the stop
    bi_forward_slow_density: np.ndarray
    bi_reverse_density: np.ndarray
    uni_forward_density: np.ndarray  # [frames, points] seed 0, every thirtieth update to the stop
    uni_reverse_density: np.ndarray
    stride: np.ndarray  # [] updates between the rows of the next three
    gain: np.ndarray  # [runs, seeds, rows] NaN after the last update
    drop: np.ndarray  # [runs, seeds, rows]
    old_weight: np.ndarray  # [bi-modal runs, seeds, rows]
    predicted_gain: np.ndarray  # [runs, uni_steps + 1]
    predicted_drop: np.ndarray  # [runs, uni_steps + 1]
    predicted_old_weight: np.ndarray  # [bi-modal runs, bi_steps + 1]
    no_floor_drop: np.ndarray  # [] uni-modal reverse KL without the floor, at the gain
    no_offset_drop: np.ndarray  # [] bi-modal reverse KL without the offset (beta = 1), after the last update
    stop: np.ndarray  # [runs, seeds]
    gain_at_stop: np.ndarray  # [runs, seeds]
    drop_at_gain: np.ndarray  # [runs, seeds]
    drop_one_before: np.ndarray  # [runs, seeds] one update before the stop
    predicted_drop_at_gain: np.ndarray  # [runs]
    threshold: np.ndarray  # [] the gain of the comparison
    slow_factor: np.ndarray  # [factors]
    exact_drop: np.ndarray  # [directions, targets, factors] NaN where the gain was not reached
    exact_time: np.ndarray  # [directions, targets, factors]
    exact_reached: np.ndarray  # [directions, targets, factors]
    ablation_factor: np.ndarray  # [4]
    ablation_drop: np.ndarray  # [directions, 4, seeds] as published
    flow_density: np.ndarray  # [panels, frames, points] exact flows at equal rates, at equal gains
    flow_gain: np.ndarray  # [frames]
    flow_drop: np.ndarray  # [panels, frames]
    flow_target: np.ndarray  # [panels, points] density


def run(config: Config) -> Results:
    """Everything; each piece is compiled once, and joined in NumPy."""
    bi, uni = two_mode.bimodal_setting(), two_mode.unimodal_setting()
    settings = {
        "bi_forward": (bi, "forward", config.bi_forward_rate, config.bi_steps),
        "bi_forward_slow": (bi, "forward", config.bi_forward_low_rate, config.bi_steps),
        "bi_reverse": (bi, "reverse", config.bi_reverse_rate, config.bi_steps),
        "uni_forward": (uni, "forward", config.uni_forward_rate, config.uni_steps),
        "uni_reverse": (uni, "reverse", config.uni_reverse_rate, config.uni_steps),
    }
    constants = (config.slow_factor, config.beta, config.floor)
    keys = jax.random.split(jax.random.key(config.seed), (len(RUNS), config.num_seeds))

    def sampled(name, run_keys, slow_factor=config.slow_factor):
        setting, direction, rate, num_steps = settings[name]
        size = (num_steps, config.num_samples)
        run = sample_runs(setting, direction, rate, slow_factor, config.beta, config.floor, *size, run_keys)
        return jax.tree.map(np.asarray, run)

    def predicted(name, *constants):
        setting, direction, rate, num_steps = settings[name]
        return jax.tree.map(np.asarray, predict(setting, direction, rate, *constants, num_steps))

    samples = {name: sampled(name, run_keys) for name, run_keys in zip(RUNS, keys, strict=True)}
    recursions = {name: predicted(name, *constants) for name in RUNS}
    no_floor = predicted("uni_reverse", config.slow_factor, config.beta, 0.0)
    no_offset = predicted("bi_reverse", config.slow_factor, 1.0, config.floor)
    stops = np.stack([first_reached(samples[name].gain, config.gain) for name in RUNS])
    ablation_keys = jax.random.split(jax.random.key(config.seed + 1), config.ablation_seeds)
    ablation_factors = np.array([0.0, 0.005, 0.05, 1.0])

    def ablated(direction):
        runs = [sampled(f"bi_{direction}", ablation_keys, factor) for factor in ablation_factors.tolist()]
        return np.stack([at_gain(run, config.gain) for run in runs])

    return Results(
        grid=bi.grid,
        uni_grid=uni.grid,
        target=density(bi.target, bi.grid),
        bi_init=density(bi.init, bi.grid),
        **{
            f"{name}_density": samples[name].density[: stop // every(settings[name][0]) + 1]
            for name, stop in zip(RUNS, stops[:, 0], strict=True)
        },
        stride=np.array(STRIDE),
        gain=stack_padded([samples[name].gain[:, ::STRIDE].astype(np.float32) for name in RUNS]),
        drop=stack_padded([samples[name].drop[:, ::STRIDE].astype(np.float32) for name in RUNS]),
        old_weight=np.stack([samples[name].path.old_weights[:, ::STRIDE, 0].astype(np.float32) for name in RUNS[:3]]),
        predicted_gain=stack_padded([recursions[name].gain for name in RUNS]),
        predicted_drop=stack_padded([recursions[name].drop for name in RUNS]),
        predicted_old_weight=np.stack([recursions[name].path.old_weights[:, 0] for name in RUNS[:3]]),
        no_floor_drop=at_gain(no_floor, config.gain),
        no_offset_drop=no_offset.drop[-1],
        stop=stops,
        gain_at_stop=np.stack([at(samples[name].gain, stop) for name, stop in zip(RUNS, stops, strict=True)]),
        drop_at_gain=np.stack([at(samples[name].drop, stop) for name, stop in zip(RUNS, stops, strict=True)]),
        drop_one_before=np.stack([at(samples[name].drop, stop - 1) for name, stop in zip(RUNS, stops, strict=True)]),
        predicted_drop_at_gain=np.stack([at_gain(recursions[name], config.gain) for name in RUNS]),
        threshold=np.array(config.gain),
        ablation_factor=ablation_factors,
        ablation_drop=np.stack([ablated(direction) for direction in DIRECTIONS]),
        **exact_flows(config),
    )


# As published


class Run(NamedTuple):
    """Paths of parameters, what was learned and forgotten on the way, and the first path's densities."""

    path: two_mode.Mixture
    gain: np.ndarray  # [..., steps + 1]
    drop: np.ndarray  # [..., steps + 1]
    density: np.ndarray  # [frames, points]


@partial(jax.jit, static_argnames=("direction", "num_steps", "num_samples"))
def sample_runs(setting, direction, learning_rate, slow_factor, beta, floor, num_steps, num_samples, keys):
    """The published updates, every seed in one vmapped call."""

    def gradient(params, key):
        z = jax.random.normal(key, num_samples)
        if direction == "forward":
            return two_mode.forward_kl_gradient(params, setting, z)
        return two_mode.reverse_kl_gradient(params, setting, z, beta, floor)

    def one(key):
        optimizer = two_mode.published_optimizer(setting.init, learning_rate, slow_factor)
        path = train(gradient, setting.init, optimizer, key, num_steps=num_steps, project=two_mode.clip)
        return path, *gain_and_drop(path, setting)

    path, gain, drop = jax.vmap(one)(keys)
    frames = jax.tree.map(lambda leaf: leaf[0, :: every(setting)], path)
    return Run(path, gain, drop, jax.vmap(lambda params: density(params, setting.grid))(frames))


@partial(jax.jit, static_argnames=("direction", "num_steps"))
def predict(setting, direction, learning_rate, slow_factor, beta, floor, num_steps):
    """The recursion for infinitely many samples and separated modes."""
    if direction == "forward":
        path = two_mode.forward_kl_recursion(setting, learning_rate, slow_factor, num_steps)
    else:
        path = two_mode.reverse_kl_recursion(setting, learning_rate, slow_factor, num_steps, beta, floor)
    return Run(path, *gain_and_drop(path, setting), density=jnp.zeros(0))


def every(setting):
    """Updates between the densities that are kept, as published."""
    return 30 if setting.init.means.size == 1 else 10


def gain_and_drop(path, setting):
    """Gain and drop along a path."""
    return jax.lax.map(lambda params: two_mode.gain_and_drop(params, setting), path)


def first_reached(gain, threshold):
    """The first row at which the gain is reached, the last row if never, `[...]`."""
    reached = gain >= threshold
    return np.where(reached.any(-1), reached.argmax(-1), gain.shape[-1] - 1)


def at_gain(run, threshold):
    """The drop at the first row at which the gain is reached, `[...]`."""
    return at(run.drop, first_reached(run.gain, threshold))


def at(path, row):
    """The entry of each path at its row, `[...]`."""
    return np.take_along_axis(path, row[..., None], -1)[..., 0]


def density(params, grid):
    """Density of a mixture on the grid."""
    return jnp.exp(two_mode.component_log_densities(params, grid)).sum(-1)


def stack_padded(rows):
    """Rows of unequal length on their last axis, stacked with NaN behind."""
    longest = max(row.shape[-1] for row in rows)
    pad = [[(0, 0)] * (row.ndim - 1) + [(0, longest - row.shape[-1])] for row in rows]
    return np.stack([np.pad(row, width, constant_values=np.nan) for row, width in zip(rows, pad, strict=True)])


# Exact flows


class TwoModeParams(NamedTuple):
    """Coordinates of the exact flows, unconstrained; `old` is what the slow factor slows down."""

    old: jax.Array  # [3] logit of the old weight, old mean, old log scale
    new: jax.Array  # [2] new mean, new log scale


@partial(jax.jit, static_argnums=0)
def exact_flows(config):
    """Drop at the gain over slow factors, directions and targets; and the flows at equal rates, frame by frame."""
    setting = two_mode.bimodal_setting()
    grid = jnp.linspace(-14.0, 14.0, 500)
    init = jnp.concatenate([setting.init.old_weights, setting.init.means, setting.init.scales])
    weight, old_mean, new_mean, old_scale, new_scale = init
    start = TwoModeParams(
        old=jnp.stack([jnp.log(weight / (1 - weight)), old_mean, jnp.log(old_scale)]),
        new=jnp.stack([new_mean, jnp.log(new_scale)]),
    )

    def mixture(params):
        logit, old_mean, old_log_scale = params.old
        new_mean, new_log_scale = params.new
        return rz.GaussianMixture(
            jnp.stack([logit, jnp.zeros_like(logit)]),
            jnp.stack([old_mean, new_mean]),
            jnp.stack([old_log_scale, new_log_scale]),
        )

    def raw(params):
        logits, means, log_scales = mixture(params)
        return two_mode.Mixture(jax.nn.softmax(logits)[:1], means, jnp.exp(log_scales))

    # The published target is the reference tilted by the reward log target / ref (beta = 1): it keeps the old mode.
    log_ref = rz.mixture_policy(mixture(start), grid)
    log_published = jax.nn.log_softmax(jnp.log(density(setting.target, grid)))
    log_tilted = rz.tilt(log_ref, rz.implied_reward(log_published, log_ref, 1.0), 1.0)
    only_new = rz.GaussianMixture(jnp.zeros(1), setting.target.means[1:], jnp.log(setting.target.scales[1:]))
    log_targets = jnp.stack([rz.mixture_policy(only_new, grid), log_tilted])

    def flow(reverse, log_target, slow_factor, times):
        # d old / dt = -s ∂loss / ∂old is plain gradient flow in old / √s: the slow factor is a metric.
        stretch = jnp.sqrt(slow_factor)

        def unscaled(params):
            return TwoModeParams(start.old + stretch * params.old, params.new)

        def objective(log_policy):
            forward_kl = rz.kl_divergence(log_target, log_policy)
            return (1 - reverse) * forward_kl + reverse * rz.kl_divergence(log_policy, log_target)

        path = rz.gradient_flow(
            objective,
            TwoModeParams(jnp.zeros(3), start.new),
            times,
            policy=lambda params: rz.mixture_policy(mixture(unscaled(params)), grid),
            stop=lambda params: two_mode.gain_and_drop(raw(unscaled(params)), setting)[0] - config.gain,
        )
        return path, jax.vmap(lambda params: raw(unscaled(params)))(path.params)

    factors = jnp.array(config.slow_factors)
    problems = jnp.stack(jnp.meshgrid(jnp.arange(2), jnp.arange(2), jnp.arange(factors.size), indexing="ij"), -1)
    times = jnp.concatenate([jnp.zeros(1), jnp.geomspace(1e-2, config.end_time, 600)])

    def solve(problem):
        direction, target, factor = problem
        path, params = flow(direction.astype(float), log_targets[target], factors[factor], times)
        return params, *gain_and_drop(params, setting), path.stop_time, path.stopped & path.converged

    # In turn rather than vmapped, where every flow would take the steps of the slowest.
    solved = jax.lax.map(solve, problems.reshape(-1, 3))
    solved = jax.tree.map(lambda leaf: leaf.reshape(problems.shape[:-1] + leaf.shape[1:]), solved)
    params, gain, drop, stop_time, reached = solved

    # At equal rates, and at equal gains rather than times, so that flows of different speed can be compared.
    equal = config.slow_factors.index(1.0)
    frames = jnp.linspace(0.0, config.gain, config.num_frames)
    panels = [(0, 0), (1, 0), (0, 1), (1, 1)]  # (direction, target)

    def at_frames(direction, target, path):
        rising = jax.lax.cummax(gain[direction, target, equal])
        columns = path[direction, target, equal].reshape(times.size, -1)
        rows = jax.vmap(lambda column: jnp.interp(frames, rising, column), in_axes=1, out_axes=1)(columns)
        return rows.reshape(frames.size, *path.shape[4:])

    shown = [jax.tree.map(partial(at_frames, d, t), params) for d, t in panels]
    spacing = grid[1] - grid[0]
    return {
        "slow_factor": factors,
        "exact_drop": jnp.where(reached, drop[..., -1], jnp.nan),
        "exact_time": stop_time,
        "exact_reached": reached,
        "flow_density": jnp.stack([jax.vmap(lambda p: density(p, setting.grid))(frame) for frame in shown]),
        "flow_gain": frames,
        "flow_drop": jnp.stack([at_frames(d, t, drop) for d, t in panels]),
        "flow_target": jnp.stack(
            [jnp.interp(setting.grid, grid, jnp.exp(log_targets[t]) / spacing) for _, t in panels]
        ),
    }


# Claims


def claims(results: Results) -> list[Claim]:
    """The published numbers, and the constants that they rest on."""
    drop = dict(zip(RUNS, results.drop_at_gain.mean(1), strict=True))
    updates = dict(zip(RUNS, results.stop.mean(1), strict=True))
    last_row = results.old_weight.shape[-1] - 1
    end_gain = dict(zip(RUNS, results.gain[:, :, last_row].mean(1, dtype=float), strict=True))
    reverse_drops = results.drop_at_gain[RUNS.index("bi_reverse")]
    published = "released simulation of arXiv:2510.18874"
    predicted_weight = results.predicted_old_weight[0, :: results.stride]
    weight_miss = np.abs(predicted_weight - results.old_weight[:2]).max((1, 2))
    equal = results.slow_factor == 1
    gentle = np.argmin(np.abs(results.slow_factor - 0.005))
    new, tilted = results.exact_drop[:, 0], results.exact_drop[:, 1]
    return [
        Claim(
            id="bi-forward-drop",
            statement="Bi-modal, SFT at rate 0.15: mean drop when the gain reaches 0.9.",
            source=published,
            expected=near(0.126, 0.004),
            measured=drop["bi_forward"],
            control="rate 0.01",
            control_measured=drop["bi_forward_slow"],
            note=f"One update earlier, the parameters that the published figure draws, it is "
            f"{results.drop_one_before[0].mean():.3f}.",
        ),
        Claim(
            id="bi-forward-stop",
            statement="Bi-modal, SFT at rate 0.15: mean number of updates to gain 0.9.",
            source=published,
            expected=near(85, 3),
            measured=updates["bi_forward"],
            control="RL at rate 0.01",
            control_measured=updates["bi_reverse"],
        ),
        Claim(
            id="bi-forward-slow-gain",
            statement="Bi-modal, SFT at rate 0.01: never reaches gain 0.9; mean gain after 200 updates.",
            source=published,
            expected=near(0.435, 0.005),
            measured=end_gain["bi_forward_slow"],
            control="rate 0.15",
            control_measured=end_gain["bi_forward"],
        ),
        Claim(
            id="bi-forward-slow-drop",
            statement="Bi-modal, SFT at rate 0.01: mean drop after 200 updates.",
            source=published,
            expected=near(0.021, 0.002),
            measured=drop["bi_forward_slow"],
            control="rate 0.15, at gain 0.9",
            control_measured=drop["bi_forward"],
        ),
        Claim(
            id="bi-reverse-drop",
            statement="Bi-modal, RL at rate 0.01: mean drop when the gain reaches 0.9.",
            source=published,
            expected=near(0.044, 0.028),
            measured=drop["bi_reverse"],
            control="SFT at rate 0.15",
            control_measured=drop["bi_forward"],
            note=f"The mean is not a stable number. A sample that strays towards the old mode carries an importance "
            f"weight in the thousands: the median seed drops {np.median(reverse_drops):.3f}, the worst "
            f"{reverse_drops.max():.2f}. Infinitely many separated samples would drop "
            f"{results.predicted_drop_at_gain[RUNS.index('bi_reverse')]:.3f}.",
        ),
        Claim(
            id="reverse-forgets-less",
            statement="RL forgets less than SFT at equal gain: mean drop of SFT minus that of RL, bi-modal.",
            source="Chen et al., arXiv:2510.18874, headline",
            expected=at_least(0.03),
            measured=drop["bi_forward"] - drop["bi_reverse"],
            control="the uni-modal setting",
            control_measured=drop["uni_forward"] - drop["uni_reverse"],
        ),
        Claim(
            id="uni-forward-drop",
            statement="Uni-modal, SFT: mean drop when the gain reaches 0.9.",
            source=published,
            expected=near(0.639, 0.003),
            measured=drop["uni_forward"],
            control="RL",
            control_measured=drop["uni_reverse"],
        ),
        Claim(
            id="uni-reverse-drop",
            statement="Uni-modal, RL: mean drop when the gain reaches 0.9.",
            source=published,
            expected=near(0.697, 0.005),
            measured=drop["uni_reverse"],
            control="without the floor of 1e-12 inside the reward's logarithm",
            control_measured=float(results.no_floor_drop),
            note="The floor caps the log-ratio at -27.6 and so widens the policy; it is a hidden constant of the "
            "figure. Without it the uni-modal conclusion is stronger.",
        ),
        Claim(
            id="weight-closed-form",
            statement="The old weight under SFT is 1 - sqrt((1 - w)² + 2 lr slow k): largest deviation, all seeds and "
            "updates, rate 0.15.",
            source="derived: separated modes",
            expected=at_most(0.003),
            measured=weight_miss[0],
            control="the same formula against the runs at rate 0.01",
            control_measured=weight_miss[1],
        ),
        Claim(
            id="offset-decides",
            statement="RL's drop after 200 updates, bi-modal, infinitely many samples; it is driven by the reward's "
            "offset -log beta, which an exact gradient would not see.",
            source="derived: the samples never reach the old mode, so its score is not centred",
            expected=near(0.05, 0.005),
            measured=results.predicted_drop[RUNS.index("bi_reverse"), last_row * results.stride],
            control="without the offset, beta = 1",
            control_measured=float(results.no_offset_drop),
        ),
        Claim(
            id="equal-rates-forget",
            statement="As published, but with the old mode at full speed (slow factor 1), both directions destroy "
            "it: smaller of the two mean drops at gain 0.9.",
            source="ablation of the released code",
            expected=near(0.8, 0.01),
            measured=results.ablation_drop[:, -1].mean(-1).min(),
            control="slow factor 0.005",
            control_measured=results.ablation_drop[:, 1].mean(-1).min(),
        ),
        Claim(
            id="visibility-decides",
            statement="Exact flows to a target that keeps the old mode do not forget, in either direction, at any "
            "slow factor: largest drop at gain 0.9.",
            source="gradient flow of KL(pi* || pi) and KL(pi || pi*), pi* the tilted reference",
            expected=at_most(0.001),
            measured=np.nanmax(tilted),
            control="a target that has only the new mode",
            control_measured=np.nanmax(new),
            note=f"{int((~results.exact_reached[:, 1]).sum())} of {tilted.size} flows never reach the gain: with the "
            "old mode frozen off its target, reverse KL settles in a local minimum: a broad new mode straddles both.",
        ),
        Claim(
            id="direction-does-not",
            statement="Exact flows to the new mode alone, equal rates: smaller of the two directions' drops at gain "
            "0.9.",
            source="gradient flow of KL(p_new || pi) and KL(pi || p_new)",
            expected=at_least(0.3),
            measured=new[:, equal].min(),
            control="old mode slowed down by 0.005",
            control_measured=new[:, gentle].min(),
        ),
        Claim(
            id="slow-factor-flips",
            statement="With the new mode as target, the slow factor decides which direction forgets less: drop of "
            "reverse minus drop of forward KL at equal rates.",
            source="gradient flow of KL(p_new || pi) and KL(pi || p_new)",
            expected=at_least(0.1),
            measured=(new[1] - new[0])[equal].item(),
            control="old mode slowed down by 0.005",
            control_measured=(new[1] - new[0])[gentle].item(),
        ),
    ]


# Figure


SHADES = {  # from the first update to the last, as published
    "forward": LinearSegmentedColormap.from_list("forward", ["#e31a1c", "#fd8d3c", "#fecc2c"]),
    "reverse": LinearSegmentedColormap.from_list("reverse", ["#2ab0c8", "#1f6fb4", "#5e1a96"]),
}
RUN_STYLE = {
    "bi_forward": ("forward", "SFT, rate 0.15"),
    "bi_forward_slow": ("forward_light", "SFT, rate 0.01"),
    "bi_reverse": ("reverse", "RL, rate 0.01"),
    "uni_forward": ("forward", "SFT"),
    "uni_reverse": ("reverse", "RL"),
}


def plot(results: Results) -> Figure:
    """As published, every seed against its recursion, and what decides."""
    figure = plt.figure(figsize=(FULL_WIDTH, 6.9))
    top, middle, bottom = figure.subfigures(3, 1, height_ratios=[1, 1.25, 1.45])
    overlays = top.subplots(1, 5, sharey=True)
    for ax, name in zip(overlays, RUNS, strict=True):
        draw_overlay(ax, results, name)
    overlays[0].set_ylabel("density")
    curves = middle.subplots(1, 3)
    draw_curves(curves[0], results, RUNS[:3], "bi-modal")
    draw_curves(curves[1], results, RUNS[3:], "uni-modal")
    draw_strip(curves[2], results)
    decides, paths = bottom.subplots(1, 2, width_ratios=[1.5, 1])
    draw_decides(decides, results)
    draw_paths(paths, results)
    for ax, text in zip([*overlays, *curves, decides, paths], "abcdefghij", strict=True):
        letter(ax, text)
    return figure


def draw_overlay(ax: plt.Axes, results: Results, name: str) -> None:
    """The published overlay: the first seed's density as training goes on."""
    color, label = RUN_STYLE[name]
    shades = SHADES["forward" if color.startswith("forward") else "reverse"]
    curves = getattr(results, f"{name}_density")
    grid = results.grid if name.startswith("bi") else results.uni_grid
    for frame, curve in enumerate(curves):
        progress = (frame / max(len(curves) - 1, 1)) ** 0.7
        ax.plot(grid, curve, color=shades(progress), linewidth=0.8)
    ax.plot(results.grid, results.target, "--", color=COLORS["target"], linewidth=0.9)
    run = RUNS.index(name)
    gain = results.gain_at_stop[run, 0]
    ax.text(
        0.97,
        0.95,
        f"drop {results.drop_at_gain[run, 0]:.2f}\ngain {gain:.2f}",
        ha="right",
        va="top",
        transform=ax.transAxes,
        fontsize=6.5,
    )
    world = "bi" if name.startswith("bi") else "uni"
    ax.set(xlabel="$y$", xlim=(-7.5, 7.5), ylim=(0, 0.44), title=f"{world}: {label.replace(', rate', '')}")


def draw_curves(ax: plt.Axes, results: Results, names: tuple[str, ...], world: str) -> None:
    """Gain and drop against updates: every seed as points, the recursion as lines."""
    for name in names:
        run, (color, label) = RUNS.index(name), RUN_STYLE[name]
        last = int(np.isfinite(results.predicted_gain[run]).sum()) - 1
        updates = np.arange(last + 1)
        rows = np.arange(0, last // results.stride + 1, max(last // (16 * results.stride), 1))
        for sampled, predicted, style in (
            (results.drop, results.predicted_drop, "-"),
            (results.gain, results.predicted_gain, "--"),
        ):
            ax.plot(
                rows * int(results.stride),
                sampled[run][:, rows].T,
                ".",
                color=COLORS[color],
                markersize=2,
                alpha=0.15,
                rasterized=True,
            )
            ax.plot(updates, predicted[run, : last + 1], style, color="black", linewidth=0.8, zorder=3)
        ax.plot([], [], ".", color=COLORS[color], label=label)
    ax.plot([], [], "--", color="black", linewidth=0.8, label="gain, recursion")
    ax.plot([], [], "-", color="black", linewidth=0.8, label="drop, recursion")
    ax.set(xlabel="updates", ylabel="mode overlap", ylim=(-0.1, 1.45), title=f"{world}: every seed")
    ax.legend(loc="upper left", ncols=2, columnspacing=0.8, handlelength=1.4)


def draw_strip(ax: plt.Axes, results: Results) -> None:
    """Drop at equal gain, every seed."""
    jitter = np.random.default_rng(0).uniform(-0.3, 0.3, results.drop_at_gain.shape[1])
    for run, name in enumerate(RUNS):
        color = COLORS[RUN_STYLE[name][0]]
        ax.plot(run + jitter, results.drop_at_gain[run], ".", color=color, markersize=2, alpha=0.4, rasterized=True)
        ax.hlines(results.predicted_drop_at_gain[run], run - 0.4, run + 0.4, color="black", linewidth=1)
    ax.hlines(results.no_floor_drop, 3.6, 4.4, color="black", linestyle=":", linewidth=1)
    ax.annotate("no floor", (4, results.no_floor_drop), ha="center", va="bottom", fontsize=6.5)
    ax.set_xticks(range(len(RUNS)), ["bi\nSFT .15", "bi\nSFT .01", "bi\nRL", "uni\nSFT", "uni\nRL"])
    ax.set(ylabel=f"drop at gain {results.threshold:g}", ylim=(-0.05, 1.0), title="every seed; bar: recursion")


def draw_decides(ax: plt.Axes, results: Results) -> None:
    """Drop at equal gain over the slow factor, for both directions and both targets."""
    positions, ticks = axis_with_zero(results.slow_factor)
    styles = {"new": ("-", "new mode only"), "tilted": ("--", "tilted ref")}
    for d, direction in enumerate(DIRECTIONS):
        for t, target in enumerate(TARGETS):
            style, label = styles[target]
            name = r"KL$(\pi_\star\Vert\pi)$" if direction == "forward" else r"KL$(\pi\Vert\pi_\star)$"
            ax.plot(
                positions,
                results.exact_drop[d, t],
                style,
                color=COLORS[direction],
                label=rf"{name}, $\pi_\star$: {label}",
            )
        places, _ = axis_with_zero(results.ablation_factor, results.slow_factor)
        drops = results.ablation_drop[d]
        ax.plot(places, drops, ".", color=COLORS[direction], markersize=3, alpha=0.35, rasterized=True)
        ax.plot(
            places,
            drops.mean(-1),
            "D" if d == 0 else "s",
            color=COLORS[direction],
            markersize=4,
            label=f"as published, sampled {'SFT' if d == 0 else 'RL'}",
        )
    at_published = axis_with_zero(np.array([0.005]), results.slow_factor)[0]
    ax.vlines(at_published, -0.26, 0.95, color=COLORS["ref"], linewidth=0.6, zorder=0)
    ax.annotate(
        "published", (at_published[0], 0.55), color=COLORS["ref"], rotation=90, ha="right", va="center", fontsize=6.5
    )
    ax.axhline(0, color=COLORS["ref"], linewidth=0.6, zorder=0)
    ax.set_xticks(*ticks)
    ax.set(
        xlabel="slow factor of the old mode (0: frozen, 1: equal rates)", ylabel=f"drop at gain {results.threshold:g}"
    )
    ax.set(ylim=(-0.26, 1.42), title="what decides: can the target see the old mode?")
    ax.legend(loc="upper left", ncols=2, columnspacing=1.0)


def axis_with_zero(factors: np.ndarray, reference: np.ndarray | None = None) -> tuple[np.ndarray, tuple]:
    """Log positions with 0 set apart on the left, and the ticks."""
    reference = factors if reference is None else reference
    least = np.log10(reference[reference > 0].min())
    positions = np.where(factors > 0, np.log10(np.where(factors > 0, factors, 1.0)), least - 0.5)
    decades = [d for d in range(-6, 1) if d >= least - 1e-9]
    return positions, ([least - 0.5, *decades], ["0", *(f"$10^{{{d}}}$" for d in decades)])


def draw_paths(ax: plt.Axes, results: Results) -> None:
    """Drop against gain along the exact flows at equal rates."""
    for panel, (direction, style) in enumerate(
        (("forward", "-"), ("reverse", "-"), ("forward", "--"), ("reverse", "--"))
    ):
        ax.plot(results.flow_gain, results.flow_drop[panel], style, color=COLORS[direction])
    ax.axhline(0, color=COLORS["ref"], linewidth=0.6, zorder=0)
    ax.set(xlabel="gain", ylabel="drop", ylim=(-0.26, 0.85), title="exact flows, equal rates")


def animate(results: Results) -> FuncAnimation:
    """The exact flows at equal rates, side by side at equal gain."""
    figure, axes = plt.subplots(2, 2, figsize=(FULL_WIDTH, 4.2), sharex=True, sharey=True)
    titles = (r"forward KL$(\pi_\star\Vert\pi)$", r"reverse KL$(\pi\Vert\pi_\star)$")
    goals = (r"$\pi_\star$: new mode only", r"$\pi_\star$: tilted ref, keeps old mode")
    lines, texts = [], []
    for panel, ax in enumerate(axes.flat):
        direction = DIRECTIONS[panel % 2]
        ax.plot(results.grid, results.flow_target[panel], "--", color=COLORS["target"], linewidth=0.9)
        ax.plot(results.grid, results.bi_init, color=COLORS["ref"], linewidth=0.9)
        lines += ax.plot(results.grid, results.flow_density[panel, 0], color=COLORS[direction], linewidth=1.6)
        texts.append(ax.text(0.02, 0.97, "", transform=ax.transAxes, va="top"))
        ax.set(xlim=(-7.5, 7.5), ylim=(0, 0.6))
        ax.set_title(f"{titles[panel % 2]}   {goals[panel // 2]}")
    for ax in axes[1]:
        ax.set_xlabel("outcome $y$")
    figure.canvas.draw()
    figure.set_layout_engine("none")  # laid out once, not for every frame

    def update(frame: int) -> list:
        row = min(frame, len(results.flow_gain) - 1)
        for panel, (line, text) in enumerate(zip(lines, texts, strict=True)):
            line.set_ydata(results.flow_density[panel, row])
            text.set_text(f"gain {results.flow_gain[row]:.2f}\ndrop {results.flow_drop[panel, row]:+.2f}")
        return [*lines, *texts]

    return FuncAnimation(figure, update, frames=len(results.flow_gain) * 4 // 3)  # rests on the last
