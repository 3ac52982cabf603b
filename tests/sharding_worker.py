"""Every public function of arrays, and a process that runs them on sharded ones: `sharding_worker.py JSON`, see `main`.

The batch axis has 8 entries and the last axis, of outcomes, tokens, samples or points, has 16; no other axis has either
length, so an axis is known by its length and the table need not say which of its arguments have it.
"""

import json
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import rlrazor as rz
from rlrazor.methods import DFT, GRPO, SFT, SIMPO, plus_kl

BATCH, OUTCOMES, FEATURES, HORIZON = 8, 16, 3, 5
AXES = ("batch", "outcomes")


def normalized(x):
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def make_world(boundary=False):
    """The arguments by name, of NumPy: a process joins the others before it touches a device.

    At the boundary outcomes are impossible, rewards forbid some and tie, and numbers are at the ends of their range.
    """
    generator = np.random.default_rng(0)
    normal = generator.normal
    policy, ref, target = normalized(normal(size=(3, BATCH, OUTCOMES)))
    reward, other = normal(size=(2, BATCH, OUTCOMES))
    beta, order = np.linspace(0.3, 3.0, BATCH), np.linspace(0.4, 2.5, BATCH)
    weight, moment = np.linspace(0.1, 0.9, BATCH), np.linspace(0.2, 2.0, BATCH)
    if boundary:
        policy[[0, 4], 3] = ref[0, 3] = target[0, 3] = ref[5, 9] = -np.inf
        policy, ref, target = normalized(policy), normalized(ref), normalized(target)
        reward[1, :4], reward[2, 12], reward[6] = 1.0, -np.inf, 0.0
        beta[[0, 3]], order[:4], weight[[0, 2]], moment[[0, 7]] = (
            (0.0, np.inf),
            (0.0, 1.0, 2.0, np.inf),
            0.0,
            (0.0, 1.0),
        )
    accept = generator.random((BATCH, OUTCOMES)) < 0.4
    ended = np.arange(BATCH) > 5
    table = np.where(ended[:, None], np.arange(BATCH)[:, None], generator.integers(0, BATCH, (BATCH, OUTCOMES)))
    features = normal(size=(BATCH, OUTCOMES, FEATURES))
    root = normal(size=(BATCH, OUTCOMES, OUTCOMES))
    return {
        "policy": policy,
        "ref": ref,
        "target": target,
        "reward": reward,
        "other": other,
        "accept": accept,
        "beta": beta,
        "order": order,
        "weight": weight,
        "time": moment,
        "success": np.linspace(0.05, 0.95, BATCH),
        "count": np.linspace(1.0, 8.0, BATCH),
        "quantiles": generator.random((BATCH, OUTCOMES)),
        "progress": np.sort(generator.random((BATCH, OUTCOMES)), axis=-1),
        "outcome": generator.integers(0, OUTCOMES, BATCH),
        "length": generator.integers(1, 9, (BATCH, OUTCOMES)),
        "features": features,
        "moments": (np.exp(target)[..., None] * features).sum(-2),
        "kernel": root @ root.swapaxes(-1, -2),
        "prompts": normal(size=(BATCH, FEATURES)),
        "weights": normal(size=(FEATURES, OUTCOMES)),
        "components": normalized(normal(size=(FEATURES, OUTCOMES))),
        "log_weights": normalized(normal(size=(BATCH, FEATURES))),
        "policy_row": policy[1],
        "ref_row": ref[1],
        "reward_row": reward[3],
        "accept_row": np.arange(OUTCOMES) % 3 == 0,
        "items": normal(size=(OUTCOMES, FEATURES)),
        "other_items": normal(size=(OUTCOMES, FEATURES)),
        "grid": np.linspace(-3.0, 3.0, OUTCOMES),
        "logits": normal(size=(BATCH, OUTCOMES)),
        "next_state": table,
        "ended": ended,
        "tokens": generator.integers(0, OUTCOMES, (BATCH, HORIZON)),
    }


def in_automaton(function):
    """A function of a world of tokens, the world being its table and the states that end an answer."""
    return lambda table, ended, *rest: function(rz.Automaton(table, ended, jnp.array(0)), *rest)


def there(log_policy):
    """How far a uniform policy is, for the flows."""
    return rz.kl_divergence(jnp.full_like(log_policy, -np.log(OUTCOMES)), log_policy).mean()


def flow(logits):
    return rz.gradient_flow(there, logits, jnp.array([0.0, 1.0, 3.0]))


def problem(ref, accept, target, other):
    demonstrations = dict.fromkeys((SFT, DFT, SIMPO), target)
    return rz.Problem(ref, accept, demonstrations, log_rejected=jax.nn.log_softmax(other), group_size=4)


LEARNERS = (SFT, DFT, SIMPO, plus_kl(GRPO))


def exact_loss(policy, *given):
    return [rz.exact_loss(method, problem(*given))(policy) for method in LEARNERS]


def exact_losses(policy, *given):
    return [loss(policy) for loss in rz.exact_losses(LEARNERS[:1], problem(*given)).values()]


def sampled_loss(policy, quantiles, *given):
    return [rz.sampled_loss(method, problem(*given))(policy, quantiles, 1 - quantiles) for method in LEARNERS]


def em(logits, accept):
    def m_step(log_target, logits):
        return logits + 0.5 * (jnp.exp(log_target) - jax.nn.softmax(logits))

    return rz.alternate(m_step, logits, accept, num_steps=3)


def mean_k3(log_prob, log_prob_ref):
    return rz.k3(log_prob, log_prob_ref).mean()


def known(policy, ref, reward):
    return {name: objective(policy) for name, objective in rz.known_objectives(ref, reward).items()}


def gaussian_mixture(grid):
    ends = jnp.array([-1.0, 1.0])
    return rz.mixture_policy(rz.GaussianMixture(0.0 * ends, ends, 0.0 * ends), grid)


CASES = {  # name: (function, its arguments, by their names in the world)
    "entropy": (rz.entropy, "policy"),
    "cross_entropy": (rz.cross_entropy, "policy ref"),
    "kl_divergence": (rz.kl_divergence, "policy ref"),
    "jeffreys_divergence": (rz.jeffreys_divergence, "policy ref"),
    "jensen_shannon_divergence": (rz.jensen_shannon_divergence, "policy ref weight"),
    "renyi_divergence": (rz.renyi_divergence, "policy ref order"),
    "chi2_divergence": (rz.chi2_divergence, "policy ref"),
    "total_variation": (rz.total_variation, "policy ref"),
    "hellinger_distance": (rz.hellinger_distance, "policy ref"),
    "bhattacharyya_coefficient": (rz.bhattacharyya_coefficient, "policy ref"),
    "binary_kl": (rz.binary_kl, "success weight"),
    "log_partition": (rz.log_partition, "ref reward beta"),
    "tilt": (rz.tilt, "ref reward beta"),
    "implied_reward": (rz.implied_reward, "policy ref beta"),
    "condition": (rz.condition, "ref accept"),
    "tilt_to_reward": (rz.tilt_to_reward, "ref reward weight"),
    "tilt_to_kl": (rz.tilt_to_kl, "ref reward weight"),
    "frontier": (lambda *given: rz.frontier(*given, betas=jnp.array([0.1, 1.0, 9.0])), "ref reward"),
    "best_of_n": (rz.best_of_n, "ref reward count"),
    "fisher_metric": (rz.fisher_metric, "policy"),
    "fisher_rao_distance": (rz.fisher_rao_distance, "policy ref"),
    "e_geodesic": (rz.e_geodesic, "policy ref weight"),
    "m_geodesic": (rz.m_geodesic, "policy ref weight"),
    "i_projection": (rz.i_projection, "ref features moments"),
    "m_projection": (rz.m_projection, "target ref features"),
    "softmax_policy": (rz.softmax_policy, "logits"),
    "linear_softmax_policy": (rz.linear_softmax_policy, "weights prompts"),
    "mixture_policy": (gaussian_mixture, "grid"),
    "log_prob": (rz.log_prob, "policy outcome"),
    "point_mass": (lambda outcome: rz.point_mass(outcome, OUTCOMES), "outcome"),
    "sequence_log_prob": (rz.sequence_log_prob, "policy accept"),
    "inverse_cdf": (rz.inverse_cdf, "policy quantiles"),
    "sft_loss": (rz.sft_loss, "policy target"),
    "expected_reward": (rz.expected_reward, "policy reward"),
    "regularized_reward": (rz.regularized_reward, "policy ref reward beta"),
    "grpo_objective": (partial(rz.grpo_objective, group_size=4), "policy accept"),
    "grpo_coefficient": (partial(rz.grpo_coefficient, group_size=4), "success"),
    "dr_grpo_objective": (partial(rz.dr_grpo_objective, group_size=4), "policy accept"),
    "ppo_clip_objective": (rz.ppo_clip_objective, "policy ref reward weight"),
    "rloo_advantage": (rz.rloo_advantage, "reward"),
    "dr_grpo_advantage": (rz.dr_grpo_advantage, "reward"),
    "grpo_advantage": (rz.grpo_advantage, "reward"),
    "reinforce_loss": (rz.reinforce_loss, "policy reward mask=accept"),
    "ppo_clip_loss": (rz.ppo_clip_loss, "policy ref reward weight"),
    "kl_penalty_loss": (rz.kl_penalty_loss, "policy ref mask=accept"),
    "penalized_reward": (rz.penalized_reward, "policy ref reward beta"),
    "adapted_beta": (rz.adapted_beta, "success weight count beta"),
    "entropy_regularized_reward": (rz.entropy_regularized_reward, "policy reward beta"),
    "entropy_bonus_loss": (rz.entropy_bonus_loss, "policy"),
    "ppo_ptx_objective": (rz.ppo_ptx_objective, "policy ref target reward beta weight"),
    "ppo_ptx_loss": (rz.ppo_ptx_loss, "policy target reward weight"),
    "bradley_terry_loss": (rz.bradley_terry_loss, "reward other"),
    "bradley_terry_pairs": (rz.bradley_terry_pairs, "policy reward"),
    "dpo_loss": (rz.dpo_loss, "reward other count"),
    "dpo_nll_loss": (partial(rz.dpo_nll_loss, alpha=0.5), "reward other policy length count"),
    "f_dpo_loss": (partial(rz.f_dpo_loss, divergence=rz.FORWARD_KL), "reward other count"),
    "hinge_loss": (rz.hinge_loss, "reward other count"),
    "ipo_loss": (rz.ipo_loss, "reward other count"),
    "nll_loss": (rz.nll_loss, "policy length"),
    "per_token": (rz.per_token, "policy length"),
    "simpo_loss": (rz.simpo_loss, "policy ref count weight"),
    "expected_simpo_loss": (rz.expected_simpo_loss, "policy target ref count weight"),
    "displacement": (partial(rz.displacement, chosen=0, rejected=9), "policy kernel"),
    "regularized_optimum": (partial(rz.regularized_optimum, divergence=rz.CHI2), "ref reward beta"),
    "ppo_ptx_optimum": (rz.ppo_ptx_optimum, "ref target reward count weight"),
    "peak_strength": (partial(rz.peak_strength, strengths=np.arange(0.5, 3.0)), "policy reward other"),
    "ipo_gap": (rz.ipo_gap, "success count"),
    "margin_gap": (rz.margin_gap, "success weight"),
    "k1": (rz.k1, "policy ref"),
    "k2": (rz.k2, "policy ref"),
    "k3": (rz.k3, "policy ref"),
    "moments": (rz.moments, "policy reward"),
    "covariance": (rz.covariance, "policy reward other"),
    "best_control_variate": (rz.best_control_variate, "policy reward other"),
    "expected_loss": (lambda policy, ref: rz.expected_loss(mean_k3, ref, group_size=2)(policy), "policy_row ref_row"),
    "gradient_moments": (partial(rz.gradient_moments, mean_k3), "policy_row ref_row"),
    "known_objectives": (known, "policy ref reward"),
    "sequence_kl": (in_automaton(partial(rz.sequence_kl, horizon=HORIZON)), "next_state ended policy ref"),
    "occupancy": (in_automaton(partial(rz.occupancy, horizon=HORIZON)), "next_state ended policy"),
    "expected_sum": (in_automaton(partial(rz.expected_sum, horizon=HORIZON)), "next_state ended policy reward"),
    "tilt_tokens": (in_automaton(partial(rz.tilt_tokens, beta=0.5, horizon=HORIZON)), "next_state ended ref reward"),
    "states_of": (in_automaton(rz.states_of), "next_state ended tokens"),
    "answer_log_prob": (in_automaton(rz.answer_log_prob), "next_state ended policy tokens"),
    "sample_answers": (
        in_automaton(lambda world, policy: rz.sample_answers(jax.random.key(0), world, policy, HORIZON, num=4)),
        "next_state ended policy",
    ),
    "top_k": (partial(rz.top_k, k=5), "policy"),
    "top_p": (rz.top_p, "policy success"),
    "exact_loss": (exact_loss, "policy ref accept target other"),
    "exact_losses": (exact_losses, "policy ref accept target other"),
    "sampled_loss": (sampled_loss, "policy quantiles ref accept target other"),
    "forward_kl_flow": (rz.forward_kl_flow, "policy target time"),
    "reverse_kl_flow": (rz.reverse_kl_flow, "policy target time"),
    "reward_flow": (rz.reward_flow, "policy reward time"),
    "success_gradient_path": (rz.success_gradient_path, "policy accept weight"),
    "regularized_reward_flow": (rz.regularized_reward_flow, "policy ref reward beta time"),
    "mirror_descent": (rz.mirror_descent, "policy ref reward beta weight count"),
    "gradient_flow": (flow, "logits"),
    "alternate": (em, "logits accept"),
    "partial_m_steps": (partial(rz.partial_m_steps, rate=0.5, num_inner=2, num_steps=5), "policy_row accept_row"),
    "mixture": (rz.mixture, "log_weights components"),
    "fit_mixture": (partial(rz.fit_mixture, num_steps=3), "target log_weights components"),
    "success_rate": (rz.success_rate, "policy accept"),
    "log_success": (rz.log_success, "policy accept"),
    "success_frontier": (rz.success_frontier, "success weight"),
    "drifts": (rz.drifts, "policy ref"),
    "forward_drift": (rz.forward_drift, "policy ref"),
    "reverse_drift": (rz.reverse_drift, "policy ref"),
    "value_at_crossing": (rz.value_at_crossing, "progress other success"),
    "pareto_optimal": (rz.pareto_optimal, "reward other"),
    "quadratic_r2": (rz.quadratic_r2, "grid reward_row"),
    "isotonic_fit": (rz.isotonic_fit, "policy_row reward_row"),
    "isotonic_r2": (rz.isotonic_r2, "policy_row reward_row"),
    "rank_correlation": (rz.rank_correlation, "policy_row reward_row"),
    "bootstrap": (lambda x: rz.bootstrap(jnp.mean, jax.random.key(0), x, num_resamples=20), "reward_row"),
    "mean_interval": (lambda x: rz.mean_interval(x, jax.random.key(0), num_resamples=20), "reward_row"),
    "cknna": (partial(rz.cknna, num_neighbors=5), "items other_items"),
    "parameter_distance": (rz.parameter_distance, "policy ref"),
    "spectral_norm": (rz.spectral_norm, "reward"),
}

EXPLICIT = (  # run where shardings are part of the types, too: a mesh of jax.make_mesh is such a one by default
    "entropy",
    "cross_entropy",
    "kl_divergence",
    "jensen_shannon_divergence",
    "renyi_divergence",
    "chi2_divergence",
    "total_variation",
    "hellinger_distance",
    "log_partition",
    "tilt",
    "condition",
    "regularized_reward",
    "grpo_objective",
    "ppo_clip_objective",
    "reinforce_loss",
)

SPREAD = (  # over two processes, each of which has half of the devices
    "kl_divergence",
    "tilt",
    "log_partition",
    "jensen_shannon_divergence",
    "renyi_divergence",
    "grpo_objective",
    "best_of_n",
)
ROWS = ("best_of_n",)  # over their batch axis alone, since a sort needs the outcomes in one place

ROW_SHAPE = (4, 16384)  # of the vocabulary that must stay where it is


def kl_of_logits(logits, log_ref):
    return rz.kl_divergence(jax.nn.log_softmax(logits), log_ref).sum()


def tilted_reward(log_ref, reward):
    return rz.expected_reward(rz.tilt(log_ref, reward, 0.5), reward).sum()


AT_SCALE = {  # functions of arrays of `ROW_SHAPE`, and how many
    "kl_divergence": (rz.kl_divergence, 2),
    "gradient of kl_divergence": (jax.grad(lambda *given: rz.kl_divergence(*given).sum(), (0, 1)), 2),
    "gradient of kl_divergence in logits": (jax.grad(kl_of_logits), 2),
    "total_variation": (rz.total_variation, 2),
    "hellinger_distance": (rz.hellinger_distance, 2),
    "jensen_shannon_divergence": (rz.jensen_shannon_divergence, 2),
    "entropy": (rz.entropy, 1),
    "cross_entropy": (rz.cross_entropy, 2),
    "log_partition": (partial(rz.log_partition, beta=0.5), 2),
    "tilt": (partial(rz.tilt, beta=0.5), 2),
    "gradient of tilt": (jax.grad(tilted_reward, (0, 1)), 2),
    "renyi_divergence": (partial(rz.renyi_divergence, order=0.5), 2),
}
GATHERS = {  # the controls: whoever ranks outcomes has to see them all
    "best_of_n": (partial(rz.best_of_n, n=4), 2),
    "top_p": (partial(rz.top_p, p=0.9), 1),
}
COLLECTIVE = re.compile(
    r" = (?P<results>.*?) (?P<kind>all-gather|all-reduce|all-to-all|collective-permute|collective-broadcast"
    r"|reduce-scatter|ragged-all-to-all)(?:-start)?\("
)


def make_mesh(kind=AxisType.Auto):
    return jax.make_mesh((jax.device_count(),), ("shard",), axis_types=(kind,))


def arguments(name, world):
    """(Positional, by keyword)."""
    names = CASES[name][1].split()
    keywords = dict(entry.split("=") for entry in names if "=" in entry)
    return [world[key] for key in names if "=" not in key], {key: world[value] for key, value in keywords.items()}


def placed(array, axis):
    """The partition of an array: the first axis as long as the batch, or the last as long as the outcomes."""
    places = [at for at, length in enumerate(array.shape) if length == {"batch": BATCH, "outcomes": OUTCOMES}[axis]]
    at = (places[0] if axis == "batch" else places[-1]) if places else None
    return PartitionSpec(*("shard" if place == at else None for place in range(array.ndim)))


def is_sharded(name, axis, world):
    """Whether a function has an argument with the axis."""
    return any("shard" in placed(array, axis) for array in jax.tree.leaves(arguments(name, world)))


def sharded(array, axis, mesh):
    """A global array, of which each process makes what its own devices hold."""
    return jax.make_array_from_callback(array.shape, NamedSharding(mesh, placed(array, axis)), lambda at: array[at])


def numbers(results):
    """Leaves as lists, which JSON can hold."""
    return [np.asarray(leaf).tolist() for leaf in jax.tree.leaves(results)]


def tasks():
    """Name, label and how to place an argument: for every function alone first, and then for every mesh and axis."""
    world, meshes = make_world(), {"auto": make_mesh(), "explicit": make_mesh(AxisType.Explicit)}
    for name in CASES:
        yield name, "alone", jnp.asarray
        for axis in (axis for axis in AXES if is_sharded(name, axis, world)):
            yield name, axis, partial(sharded, axis=axis, mesh=meshes["auto"])
            if name in EXPLICIT:
                yield name, f"{axis}, explicitly", partial(sharded, axis=axis, mesh=meshes["explicit"])


def run_functions():
    """By function and axis, in both worlds, the numbers; or the error, so that it fails one test and not all."""
    worlds = [make_world(), make_world(boundary=True)]
    functions = {name: jax.jit(function) for name, (function, _) in CASES.items()}  # each is traced once

    found = {name: {} for name in CASES}
    with ThreadPoolExecutor(2) as pool:  # XLA compiles without the interpreter's lock, so while the next is traced
        compiling = []
        for name, label, place in tasks():
            given = [jax.tree.map(place, arguments(name, world)) for world in worlds]
            args, keywords = given[0]
            try:
                compiling.append((name, label, given, pool.submit(functions[name].lower(*args, **keywords).compile)))
            except Exception as error:  # of any kind: it is what the test of this function reports
                found[name][label] = {"error": f"{type(error).__name__}: {error}"}
        for name, label, given, compiled in compiling:
            found[name][label] = {
                "pieces": max(array.size // array.addressable_data(0).size for array in jax.tree.leaves(given)),
                "numbers": [numbers(compiled.result()(*args, **keywords)) for args, keywords in given],
            }
    return found


def run_forgetful():
    """The control: each device's own part of an entropy, as it is where nobody adds the parts up."""
    mesh, (log_p,) = make_mesh(), arguments("entropy", make_world())[0]
    specs = {"in_specs": PartitionSpec(None, "shard"), "out_specs": PartitionSpec(), "check_vma": False}
    forgetful = jax.jit(jax.shard_map(rz.entropy, mesh=mesh, **specs))
    return numbers(forgetful(sharded(log_p, "outcomes", mesh))), numbers(jax.jit(rz.entropy)(log_p))


def run_processes():
    """By function and axis, what this process reads of the global result, and what it computes alone."""
    mesh, found = make_mesh(), {}
    everywhere = NamedSharding(mesh, PartitionSpec())
    for name in SPREAD:
        args, keywords = arguments(name, make_world())
        alone = numbers(jax.jit(CASES[name][0])(*args, **keywords))
        for axis in AXES if name not in ROWS else AXES[:1]:
            spread, by_keyword = jax.tree.map(partial(sharded, axis=axis, mesh=mesh), (args, keywords))
            together = jax.jit(CASES[name][0], out_shardings=everywhere)(*spread, **by_keyword)
            found[f"{name}, {axis}"] = {
                "here": sum(shard.data.size for shard in spread[0].addressable_shards) / args[0].size,
                "together": numbers(together),
                "alone": alone,
            }
    return {"processes": jax.process_count(), "devices": jax.device_count(), "functions": found}


def run_at_scale():
    """By function, what its program moves between devices and what it needs on each of them."""
    mesh, found = make_mesh(), {}
    by_outcome = NamedSharding(mesh, PartitionSpec(None, "shard"))
    rows = jax.ShapeDtypeStruct(ROW_SHAPE, jnp.float32, sharding=by_outcome)
    for name, (function, count) in (AT_SCALE | GATHERS).items():
        given = [rows] * count
        outputs = jax.eval_shape(function, *given)
        kept = jax.tree.map(
            lambda x: by_outcome if x.shape == ROW_SHAPE else NamedSharding(mesh, PartitionSpec()), outputs
        )
        compiled = jax.jit(function, out_shardings=kept).lower(*given).compile()
        memory = compiled.memory_analysis()
        found[name] = {
            "collectives": [
                {"kind": match["kind"], "numbers": most_numbers(match["results"]), "line": line.strip()}
                for line in compiled.as_text().splitlines()
                if (match := COLLECTIVE.search(line))
            ],
            "argument": memory.argument_size_in_bytes,
            "temporary": memory.temp_size_in_bytes,
            "output": memory.output_size_in_bytes,
        }
    return found


def most_numbers(results):
    """The size of the largest array among HLO's result shapes, such as `(f32[4]{0}, f32[])`."""
    return max(int(np.prod([int(n) for n in dims.split(",") if n])) for dims in re.findall(r"\w+\[([\d,]*)\]", results))


RUNS = {"functions": run_functions, "forgetful": run_forgetful, "processes": run_processes, "scale": run_at_scale}


def main(runs, out, devices, process=None, port=None):
    """Writes what the runs find, by run, to `out`: with a port as one of two processes."""
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_num_cpu_devices", devices)
    if port is not None:
        jax.distributed.initialize(f"127.0.0.1:{port}", 2, process)
    Path(out).write_text(json.dumps({run: RUNS[run]() for run in runs}))


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
