"""Where gradient flow goes and how it gets there: closed forms on the simplex, and an ODE for everything else.

The closed forms are the natural-gradient (Fisher-Rao) flows of the softmax table. Time is continuous and counts
learning rate times steps. Conventions and errors as in `rlrazor.divergences`. A time or beta below the smallest normal
number of its dtype counts as 0; at any other, however small, a forbidding reward has removed its outcome.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int, Real

from rlrazor._numerics import (
    expectation,
    expm1_ratio,
    gap_to_top,
    log1p_ratio,
    log_blend,
    log_mix,
    log_normalize,
    reciprocal,
)
from rlrazor._trees import rows_by_name
from rlrazor._types import LogProbs, Number, Params, Policy, Rewards
from rlrazor.checks import boolean_array, floating_array, nonnegative, outcome_arrays
from rlrazor.geometry import log_pool
from rlrazor.policies import softmax_policy
from rlrazor.tilting import exponential_tilt


def forward_kl_flow(log_init: LogProbs, log_target: LogProbs, time: Number) -> Policy:
    """Natural-gradient flow of the forward KL(target || pi), which is SFT: pi_t = target + e^-t (init - target).

    It runs along the m-geodesic from init to target, and d/dt KL(target || pi) = -χ²(target || pi).

    Args:
        log_init: initial policy, `[..., outcomes]`.
        log_target: target, `[..., outcomes]`.
        time: t in [0, inf], a number or `[...]`.

    Returns:
        log pi_t, normalised, `[..., outcomes]`.

    Raises:
        ValueError: a negative or NaN Python `time`.

    Example:
        >>> import jax.numpy as jnp
        >>> log_init, log_target = jnp.log(jnp.array([[1.0, 0.0], [0.0, 1.0]]))
        >>> jnp.exp(forward_kl_flow(log_init, log_target, jnp.log(2.0))).round(4).tolist()
        [0.5, 0.5]

    References:
        Amari, Nagaoka, "Methods of Information Geometry", 2000; Balasubramanian, Kasiviswanathan, "A Quantitative
        Characterization of Forgetting in Post-Training", arXiv:2603.12163 (the two-component case).
    """
    log_init, log_target, t = outcome_arrays(
        {"time": nonnegative("time", time)}, log_init=log_init, log_target=log_target
    )
    moving = jnp.where(t == 0, 1.0, t)
    mixed = log_mix(-moving, log_init, jnp.log(-jnp.expm1(-moving)), log_target)
    return jnp.where(t == 0, log_blend(log_init, log_target, -jnp.expm1(-t)), mixed)


def reverse_kl_flow(log_init: LogProbs, log_target: LogProbs, time: Number) -> Policy:
    """Natural-gradient flow of the reverse KL(pi || target): pi_t = init^(e^-t) target^(1-e^-t) / Z.

    It runs along the e-geodesic from init to target, and d/dt KL(pi || target) = -Var_pi[log pi / target].

    Args:
        log_init: initial policy, `[..., outcomes]`.
        log_target: target, `[..., outcomes]`.
        time: t in [0, inf], a number or `[...]`.

    Returns:
        log pi_t, normalised, `[..., outcomes]`; from t > 0 on its support is the intersection of both supports.

    Raises:
        ValueError: a negative or NaN Python `time`.

    Example:
        >>> import jax.numpy as jnp
        >>> log_init, log_target = jnp.log(jnp.array([[0.9, 0.1], [0.1, 0.9]]))
        >>> jnp.exp(reverse_kl_flow(log_init, log_target, jnp.log(2.0))).round(4).tolist()
        [0.5, 0.5]

    References:
        Amari, Nagaoka, "Methods of Information Geometry", 2000.
    """
    log_init, log_target, t = outcome_arrays(
        {"time": nonnegative("time", time)}, log_init=log_init, log_target=log_target
    )
    return log_pool(_fading(t), log_init, -jnp.expm1(-t), log_target)


def _fading(decay: Float[Array, "*#batch 1"]) -> Float[Array, "*#batch 1"]:
    """e^-decay, kept above zero while decay is finite: until then an impossible outcome stays impossible."""
    return jnp.where(jnp.isinf(decay), 0.0, jnp.maximum(jnp.exp(-decay), jnp.finfo(decay.dtype).tiny))


def reward_flow(log_init: LogProbs, reward: Rewards, time: Number) -> Policy:
    """Natural-gradient flow of the expected reward, the replicator equation: pi_t = init exp(t reward) / Z.

    At every time t > 0 it is the tilt with beta = 1 / t, so it runs along the reward-KL frontier of the initial policy.

    Args:
        log_init: initial policy, `[..., outcomes]`.
        reward: `[..., outcomes]`, `-inf` forbids an outcome.
        time: t in [0, inf], a number or `[...]`.

    Returns:
        log pi_t, normalised, `[..., outcomes]`.

    Raises:
        ValueError: a negative or NaN Python `time`.

    Example:
        >>> import jax.numpy as jnp
        >>> log_init = jnp.log(jnp.array([0.5, 0.5]))
        >>> jnp.exp(reward_flow(log_init, jnp.array([0.0, 1.0]), jnp.log(3.0))).round(4).tolist()
        [0.25, 0.75]

    References:
        Kakade, "A Natural Policy Gradient", 2001.
    """
    log_init, reward, t = outcome_arrays({"time": nonnegative("time", time)}, log_init=log_init, reward=reward)
    return _tilt_since_start(log_init, reward, t, t > 0)


def _tilt_since_start(
    log_init: LogProbs, reward: Rewards, strength: Float[Array, "*#batch 1"], moved: Bool[Array, "*#batch 1"]
) -> Policy:
    """The tilt init exp(strength reward) / Z; until it has moved the initial policy, whatever the reward forbids."""
    return exponential_tilt(log_init, jnp.where(~moved & (reward == -jnp.inf), 0.0, reward), strength)


def success_gradient_path(log_init: LogProbs, accept: Bool[Array, "*#batch outcomes"], progress: Number) -> Policy:
    """The curve of plain softmax policy gradient on the success rate J = pi(S): pi ∝ init / (1 - a init) inside S.

    Outside S it is init / (1 + b init): the flow d logits / dt = ∇J shifts exp(-logit) by the same amount for all
    successes, and by another for all failures. It also keeps the sum of the logits,
    Σ_S log(1 - a init) + Σ_not-S log(1 + b init) = 0, which gives b for every a. While `reward_flow`, its natural
    counterpart, keeps the ratios of the successes, here the likeliest of them gains on the others all the time, and
    the curve ends at the likeliest alone (at all of them where several are equally likely).

    Args:
        log_init: initial policy, `[..., outcomes]`.
        accept: the success set S, boolean, `[..., outcomes]`.
        progress: position a max_S init in [0, 1], a number or `[...]`; 0 is the start, 1 the end, and J increases.

    Returns:
        Normalised log-probabilities, `[..., outcomes]`; the initial policy throughout if it always or never succeeds.

    Raises:
        ValueError: a negative or NaN Python `progress`.

    Example:
        >>> import jax.numpy as jnp
        >>> log_init, accept = jnp.log(jnp.array([0.4, 0.2, 0.4])), jnp.array([True, True, False])
        >>> path = success_gradient_path(log_init, accept, jnp.array([0.0, 0.9, 1.0]))
        >>> print(*(f"{p:.3f}" for p in jnp.exp(path).ravel()))
        0.400 0.200 0.400 0.912 0.083 0.005 1.000 0.000 0.000

    References:
        Mei et al., "On the Global Convergence Rates of Softmax Policy Gradient Methods", arXiv:2005.06392 (the flow);
        the closed form is derived here from its conserved quantities.
    """
    log_init = floating_array("log_init", log_init)
    accept = boolean_array("accept", accept).astype(log_init.dtype)
    log_init, success, progress = outcome_arrays(
        {"progress": nonnegative("progress", progress)}, log_init=log_init, accept=accept
    )
    solve = jnp.vectorize(_success_gradient_path, signature="(k),(k),()->(k)")
    path: Policy = solve(log_init, success, progress[..., 0])
    return path


@jax.jit
def _success_gradient_path(
    log_init: Float[Array, " outcomes"], success: Float[Array, " outcomes"], progress: Float[Array, ""]
) -> Float[Array, " outcomes"]:
    """One path at one position; x = log b solves the convex equation Σ softplus(x + log init) = what a has gained."""
    import optimistix

    inside, possible = success > 0, log_init != -jnp.inf
    correct, wrong = inside & possible, ~inside & possible
    num_wrong = wrong.sum().astype(log_init.dtype)
    top, gap = jnp.max(jnp.where(correct, log_init, -jnp.inf)), gap_to_top(log_init, correct)[1]
    moves = jnp.any(correct) & jnp.any(wrong)
    between = moves & (progress > 0) & (progress < 1)
    rise = jnp.where(moves, top, 0.0)
    share = jnp.where(correct, jnp.exp(jax.lax.stop_gradient(rise) - rise - gap), 0.0)
    log_wrong = jnp.where(wrong, log_init, 0.0)
    grown = -jnp.log1p(-jnp.where(between, progress, 0.5) * share)
    gained = jnp.where(moves, grown.sum(), 1.0)

    def shrunk(x: Float[Array, ""]) -> Float[Array, " outcomes"]:
        return jnp.where(wrong, jax.nn.softplus(x + log_wrong), 0.0)

    above = (gained - log_wrong.sum()) / jnp.where(num_wrong > 0, num_wrong, 1.0)  # from here Newton only goes down
    tolerance = 8 * float(jnp.finfo(log_init.dtype).eps)
    x = optimistix.root_find(
        lambda x, gained: shrunk(x).sum() - gained,
        optimistix.Newton(rtol=tolerance, atol=tolerance),
        above,
        args=gained,
        max_steps=512,
        throw=False,
    ).value
    path = log_normalize(log_init + grown - shrunk(x))
    end = log_normalize(jnp.where(share == 1, jnp.zeros_like(log_init), -jnp.inf))
    slope = share - share.sum() * jnp.exp(log_normalize(jnp.where(wrong, log_init, -jnp.inf)))  # at progress 0
    start = jnp.where(possible, log_init + progress * (slope - expectation(log_init, slope)), -jnp.inf)
    return jnp.where(between, path, jnp.where(moves, jnp.where(progress >= 1, end, start), log_init))


def regularized_reward_flow(
    log_init: LogProbs, log_ref: LogProbs, reward: Rewards, beta: Number, time: Number
) -> Policy:
    """Natural-gradient flow of E_pi[reward] - beta KL(pi || ref): pi_t = init^(e^-βt) pi*^(1-e^-βt) / Z.

    pi* = tilt(ref, reward, beta). At beta = 0 it is `reward_flow`.

    Args:
        log_init: initial policy, `[..., outcomes]`.
        log_ref: reference policy, `[..., outcomes]`.
        reward: `[..., outcomes]`, `-inf` forbids an outcome.
        beta: KL coefficient in [0, inf), a number or `[...]`.
        time: t in [0, inf], a number or `[...]`.

    Returns:
        log pi_t, normalised, `[..., outcomes]`.

    Raises:
        ValueError: a negative or NaN Python `beta` or `time`.

    Example:
        >>> import jax.numpy as jnp
        >>> log_ref = jnp.log(jnp.array([0.5, 0.5]))
        >>> log_policy = regularized_reward_flow(log_ref, log_ref, jnp.array([0.0, 1.0]), beta=1.0, time=50.0)
        >>> print(f"{log_policy[1] - log_policy[0]:.4f}")
        1.0000

    References:
        Cen et al., "Fast Global Convergence of Natural Policy Gradient Methods with Entropy Regularization",
        arXiv:2007.06558.
    """
    log_init, log_ref, reward, b, t = outcome_arrays(
        {"beta": nonnegative("beta", beta), "time": nonnegative("time", time)},
        log_init=log_init,
        log_ref=log_ref,
        reward=reward,
    )
    return _relaxed(log_init, log_ref, reward, b, t)


def mirror_descent(
    log_init: LogProbs, log_ref: LogProbs, reward: Rewards, beta: Number, step: Number, num_steps: Number
) -> Policy:
    """Mirror descent on E_pi[reward] - beta KL(pi || ref) after k steps: init^(ρ^k) pi*^(1-ρ^k) / Z.

    Each step maximises E_pi[reward] - beta KL(pi || ref) - KL(pi || pi_k) / step, and ρ = 1 / (1 + step beta). At
    beta = 0 it is multiplicative weights, init exp(k step reward) / Z.

    Args:
        log_init: initial policy, `[..., outcomes]`.
        log_ref: reference policy, `[..., outcomes]`.
        reward: `[..., outcomes]`, `-inf` forbids an outcome.
        beta: KL coefficient in [0, inf), a number or `[...]`.
        step: step size in (0, inf), a number or `[...]`.
        num_steps: k, a number or `[...]`.

    Returns:
        log pi_k, normalised, `[..., outcomes]`.

    Raises:
        ValueError: a negative or NaN Python number.

    Example:
        >>> import jax.numpy as jnp
        >>> log_ref = jnp.log(jnp.array([0.5, 0.5]))
        >>> log_policy = mirror_descent(log_ref, log_ref, jnp.array([0.0, 1.0]), beta=1.0, step=1.0, num_steps=1)
        >>> print(f"{log_policy[1] - log_policy[0]:.4f}")
        0.5000

    References:
        Tomar et al., "Mirror Descent Policy Optimization", arXiv:2005.09814.
    """
    numbers = {"beta": beta, "step": step, "num_steps": num_steps}
    log_init, log_ref, reward, b, eta, k = outcome_arrays(
        {name: nonnegative(name, value) for name, value in numbers.items()},
        log_init=log_init,
        log_ref=log_ref,
        reward=reward,
    )
    product = jnp.minimum(eta * b, jnp.finfo(b.dtype).max)
    return _relaxed(log_init, log_ref, reward, b, k * eta * log1p_ratio(product))  # ρ^k = e^-βt


def _relaxed(
    log_init: LogProbs,
    log_ref: LogProbs,
    reward: Rewards,
    beta: Float[Array, "*#batch 1"],
    time: Float[Array, "*#batch 1"],
) -> Policy:
    """init^(e^-βt) ref^(1 - e^-βt) exp((1 - e^-βt) / β reward) / Z."""
    endless = jnp.isinf(time)
    t = jnp.where(endless, 0.0, time)
    decay = jnp.where(endless & (beta > 0), jnp.inf, beta * t)
    strength = jnp.where(endless, reciprocal(beta), -expm1_ratio(jnp.ones_like(t), jnp.exp(-beta * t), -t, beta))
    pool = log_pool(_fading(decay), log_init, -jnp.expm1(-decay), log_ref)
    return _tilt_since_start(pool, reward, strength, time > 0)


class Trajectory(NamedTuple):
    """A gradient flow at its saved times; after it has stopped, every later row repeats the stopped state.

    Attributes:
        time: saved times, none later than `stop_time`, `[times]`.
        params: parameters, each leaf `[times, ...]`.
        log_policy: the policy there, `[times, ..., outcomes]`.
        loss: the objective there, `[times]`.
        stop_time: when the stopping event fired, else the last time that was reached, a scalar.
        stopped: whether the stopping event fired, a boolean scalar.
        converged: whether the integrator met its tolerances throughout, a boolean scalar.
    """

    time: Float[Array, " times"]
    params: Params
    log_policy: Float[Array, "times ..."]
    loss: Float[Array, " times"]
    stop_time: Float[Array, ""]
    stopped: Bool[Array, ""]
    converged: Bool[Array, ""]


def gradient_flow(
    objective: Callable[[Float[Array, "..."]], Float[Array, ""]],
    params: Params,
    times: Real[Array, " times"],
    *,
    policy: Callable[[Any], Float[Array, "..."]] = softmax_policy,
    natural: bool = False,
    stop: Callable[[Any], Float[Array, ""]] | None = None,
    tolerance: float = 1e-8,
    max_steps: int = 100_000,
) -> Trajectory:
    """Gradient flow d params / dt = -G⁻¹ ∇ objective(policy(params)), from time 0 on.

    G is the identity (Euclidean flow) or the Fisher information of the policy, G = E_pi[∇log pi ∇log piᵀ], averaged
    over the leading axes of the log-policy (natural flow). Where G is singular the flow takes the shortest of the
    steepest directions, so redundant parameters, such as a shift of all logits, stay where they are.

    One problem; `jax.lax.map` or `jax.vmap` for more (vmapped flows all take the steps of the slowest). Call it under
    your own `jit` to compile once.

    Args:
        objective: log-policy -> scalar, to be minimised.
        params: initial parameters, a pytree of arrays.
        times: increasing times >= 0 to save at, `[times]`.
        policy: params -> normalised log-probabilities, `[..., outcomes]`; a softmax table unless given.
        natural: whether the metric is Fisher's rather than Euclid's.
        stop: params -> scalar; the flow stops as soon as it is at least zero.
        tolerance: of the integrator, relative and absolute, on the parameters.
        max_steps: of the integrator; a flow that needs more comes back with `converged` false.

    Returns:
        The `Trajectory`.

    Raises:
        TypeError: a leaf of `params` is not floating.
        ValueError: `params` is empty, or `times` is not a non-empty vector.

    Example:
        >>> import jax.numpy as jnp
        >>> from rlrazor import kl_divergence
        >>> log_target = jnp.log(jnp.array([0.7, 0.2, 0.1]))
        >>> flow = gradient_flow(
        ...     lambda log_policy: kl_divergence(log_target, log_policy), jnp.zeros(3), jnp.array([0.0, 100.0])
        ... )
        >>> print(*(f"{p:.3f}" for p in jnp.exp(flow.log_policy[-1])))
        0.700 0.200 0.100

    References:
        Amari, "Natural Gradient Works Efficiently in Learning", 1998; Kidger, "On Neural Differential Equations",
        arXiv:2202.02435 (the integrator).
    """
    import diffrax
    import optimistix

    params, times = _checked_start(params, times)
    direction = _natural_direction if natural else _euclidean_direction
    event = None
    if stop is not None:
        # Root tolerances below the rounding of time are never met, and diffrax compares in the default dtype.
        reachable = max(tolerance, 8 * float(jnp.finfo(times.dtype).eps))
        event = diffrax.Event(
            lambda t, y, args, **kwargs: stop(y).astype(jnp.result_type(float)),
            root_finder=optimistix.Newton(rtol=reachable, atol=reachable),
            direction=True,
        )
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(lambda t, y, args: direction(objective, policy, y)),
        diffrax.Tsit5(),
        t0=jnp.zeros_like(times[0]),
        t1=times[-1],
        dt0=None,
        y0=params,
        saveat=diffrax.SaveAt(subs=[diffrax.SubSaveAt(ts=times), diffrax.SubSaveAt(t1=True)]),
        stepsize_controller=diffrax.PIDController(rtol=tolerance, atol=tolerance),
        max_steps=max_steps,
        event=event,
        throw=False,
    )
    (_, (end,)), (saved, final) = solution.ts, solution.ys
    stopped = solution.result == diffrax.RESULTS.event_occurred
    if stop is not None:  # an event sees crossings only, not where it starts
        at_start = stop(params) >= 0
        end, stopped = jnp.where(at_start, 0.0, end), stopped | at_start
        final = jax.tree.map(lambda first, last: jnp.where(at_start, first, last), params, final)

    def hold(saved_leaf: Array, final_leaf: Array) -> Array:
        after = jnp.expand_dims(times > end, range(1, saved_leaf.ndim))
        return jnp.where(after, final_leaf, saved_leaf)

    path = jax.tree.map(hold, saved, final)
    log_policy = jax.vmap(policy)(path)
    return Trajectory(
        time=jnp.minimum(times, end),
        params=path,
        log_policy=log_policy,
        loss=jax.vmap(objective)(log_policy),
        stop_time=end,
        stopped=stopped,
        converged=stopped | (solution.result == diffrax.RESULTS.successful),
    )


def _checked_start(params: Params, times: Real[Array, " times"]) -> tuple[Params, Float[Array, " times"]]:
    """Floating parameters, and times in their dtype."""
    params = jax.tree.map(jnp.asarray, params)
    dtypes = {leaf.dtype for leaf in jax.tree.leaves(params)}
    if not dtypes:
        raise ValueError("params must hold at least one array")
    if not all(jnp.issubdtype(dtype, jnp.floating) for dtype in dtypes):
        raise TypeError(f"params must hold floating arrays, got {', '.join(sorted(map(str, dtypes)))}")
    times = jnp.asarray(times, jnp.result_type(*dtypes))
    if times.ndim != 1 or times.size == 0:
        raise ValueError(f"times must be a non-empty vector, got shape {times.shape}")
    return params, times


def _euclidean_direction(
    objective: Callable[[Any], Float[Array, ""]], policy: Callable[[Any], Float[Array, "..."]], params: Params
) -> Params:
    gradient = jax.grad(lambda p: objective(policy(p)))(params)
    return jax.tree.map(jnp.negative, gradient)


def _natural_direction(
    objective: Callable[[Any], Float[Array, ""]], policy: Callable[[Any], Float[Array, "..."]], params: Params
) -> Params:
    """-F⁻¹ Jᵀ h, with J = ∂log pi / ∂params and h = ∂objective / ∂log pi.

    F = Jᵀ diag(pi) J, so this is the least-squares solution of √pi J v = -h / √pi: half the condition number of the
    normal equations, and the shortest solution where they are singular.
    """
    flat, unravel = ravel_pytree(params)
    log_policy = policy(params)
    jacobian = jax.jacfwd(lambda v: policy(unravel(v)))(flat).reshape(-1, flat.size)
    root = jnp.exp(log_policy / 2)
    pull = jax.grad(objective)(log_policy)
    pull = jnp.where(root > 0, pull / jnp.where(root > 0, root, 1.0), 0.0)
    num_prompts = log_policy.size // log_policy.shape[-1]
    step = jnp.linalg.lstsq(root.reshape(-1, 1) * jacobian, -num_prompts * pull.reshape(-1))[0]
    return unravel(step)


def gradient_flows(
    objectives: Mapping[str, Callable[[Float[Array, "..."]], Float[Array, ""]]],
    params: Params,
    times: Real[Array, " times"],
    *,
    policy: Callable[[Any], Float[Array, "..."]] = softmax_policy,
    natural: bool = False,
    stop: Callable[[Any], Float[Array, ""]] | None = None,
) -> dict[str, Trajectory]:
    """The gradient flow of each objective from the same start, compiled once for all of them.

    Args:
        objectives: by name, log-policy -> scalar, to be minimised.
        params: initial parameters, a pytree of arrays.
        times: increasing times >= 0 to save at, `[times]`.
        policy: as in `gradient_flow`.
        natural: as in `gradient_flow`.
        stop: as in `gradient_flow`, for every objective.

    Returns:
        A `Trajectory` by name. Flows run in turn, so none takes the steps of the slowest.

    Raises:
        ValueError: there is no objective; see `gradient_flow`.

    Example:
        >>> import jax.numpy as jnp
        >>> from rlrazor import kl_divergence
        >>> log_target = jnp.log(jnp.array([0.7, 0.2, 0.1]))
        >>> directions = {
        ...     "forward": lambda log_policy: kl_divergence(log_target, log_policy),
        ...     "reverse": lambda log_policy: kl_divergence(log_policy, log_target),
        ... }
        >>> flows = gradient_flows(directions, jnp.zeros(3), jnp.array([0.0, 200.0]))
        >>> print(*(f"{name} {jnp.exp(flow.log_policy[-1, 0]):.3f}" for name, flow in flows.items()))
        forward 0.700 reverse 0.700
    """
    if not objectives:
        raise ValueError("objectives must hold at least one")
    branches = list(objectives.values())

    def flow(index: Int[Array, ""]) -> Trajectory:
        def objective(log_policy: Float[Array, "..."]) -> Float[Array, ""]:
            loss: Float[Array, ""] = jax.lax.switch(index, branches, log_policy)
            return loss

        return gradient_flow(objective, params, times, policy=policy, natural=natural, stop=stop)

    paths = jax.lax.map(flow, jnp.arange(len(branches)))
    return rows_by_name(objectives, paths)


def log_times(first: Number, last: Number, num: int) -> Float[Array, " times"]:
    """The start and times evenly spaced on a log scale: 0, first, ..., last.

    Args:
        first: the first time after 0, > 0.
        last: the last time, > first.
        num: how many in all, at least 3, static.

    Returns:
        Increasing times, `[num]`.

    Raises:
        ValueError: `num` is below 3.

    Example:
        >>> log_times(0.1, 10.0, 4).round(3).tolist()
        [0.0, 0.1, 1.0, 10.0]
    """
    if num < 3:
        raise ValueError(f"num must be at least 3, got {num}")
    return jnp.concatenate([jnp.zeros(1), jnp.geomspace(first, last, num - 1)])
