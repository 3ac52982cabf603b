"""The package as a whole: what an import costs, the names it promises, and the shape of every docstring."""

import importlib
import inspect
import json
import pkgutil
import subprocess
import sys

import pytest

import rlrazor

CORE = [
    "entropy",
    "cross_entropy",
    "kl_divergence",
    "jeffreys_divergence",
    "jensen_shannon_divergence",
    "renyi_divergence",
    "chi2_divergence",
    "total_variation",
    "hellinger_distance",
    "bhattacharyya_coefficient",
    "binary_kl",
    "log_partition",
    "tilt",
    "implied_reward",
    "condition",
    "tilt_to_reward",
    "tilt_to_kl",
    "frontier",
    "best_of_n",
    "fisher_metric",
    "fisher_rao_distance",
    "e_geodesic",
    "m_geodesic",
    "i_projection",
    "m_projection",
    "forward_kl_flow",
    "reverse_kl_flow",
    "reward_flow",
    "regularized_reward_flow",
    "mirror_descent",
    "gradient_flow",
    "sft_loss",
    "expected_reward",
    "regularized_reward",
    "success_gradient_path",
    "linear_softmax_policy",
    "point_mass",
    "reinforce_loss",
    "rloo_advantage",
    "grpo_advantage",
    "grpo_objective",
    "grpo_coefficient",
    "dr_grpo_advantage",
    "dr_grpo_objective",
    "ppo_clip_loss",
    "ppo_clip_objective",
    "simpo_loss",
    "expected_simpo_loss",
    "kl_penalty_loss",
    "penalized_reward",
    "adapted_beta",
    "entropy_regularized_reward",
    "entropy_bonus_loss",
    "ppo_ptx_objective",
    "ppo_ptx_loss",
    "ppo_ptx_optimum",
    "peak_strength",
    "regularized_optimum",
    "alpha_divergence",
    "margin_gap",
    "ipo_gap",
    "bradley_terry_pairs",
    "bradley_terry_loss",
    "dpo_loss",
    "ipo_loss",
    "hinge_loss",
    "f_dpo_loss",
    "nll_loss",
    "dpo_nll_loss",
    "per_token",
    "displacement",
    "log_prob",
    "sequence_log_prob",
    "k1",
    "k2",
    "k3",
    "moments",
    "covariance",
    "best_control_variate",
    "expected_loss",
    "gradient_moments",
    "known_objectives",
    "best_match",
    "automaton",
    "tilt_tokens",
    "expected_sum",
    "sequence_kl",
    "occupancy",
    "states_of",
    "answer_log_prob",
    "sample_answers",
    "all_answers",
    "top_k",
    "top_p",
    "forward_drift",
    "reverse_drift",
    "drifts",
    "success_rate",
    "log_success",
    "success_frontier",
    "value_at_crossing",
    "gradient_flows",
    "log_times",
    "quadratic_r2",
    "isotonic_fit",
    "isotonic_r2",
    "rank_correlation",
    "bootstrap",
]
RECORDS = ["Tilt", "Frontier", "Projection", "Trajectory", "GaussianMixture", "Estimate", "Drifts"]
RECORDS += ["FDivergence", "PreferencePairs", "Displacement", "Moments", "ControlVariate", "GradientMoments", "Match"]
RECORDS += ["Automaton", "TokenTilt"]
HEAVY = ["flax", "matplotlib", "diffrax", "optimistix", "equinox", "optax", "scipy"]

IMPORT = f"""
import json, sys
import jax
before = dict(jax.config.values)
import rlrazor
print(json.dumps({{
    "loaded": [name for name in {HEAVY} if name in sys.modules],
    "changed": [name for name, value in jax.config.values.items() if value != before[name]],
    "x64": jax.config.jax_enable_x64,
    "version": rlrazor.__version__,
}}))
"""


def public_functions():
    modules = [rlrazor] + [
        importlib.import_module(found.name) for found in pkgutil.walk_packages(rlrazor.__path__, "rlrazor.")
    ]
    for module in modules:
        if any(part.startswith("_") for part in module.__name__.split(".")):
            continue
        for name, value in vars(module).items():
            if inspect.isfunction(value) and value.__module__ == module.__name__ and not name.startswith("_"):
                yield pytest.param(value, id=f"{module.__name__}.{name}")


@pytest.fixture(scope="module")
def imported():
    """What a fresh interpreter says after `import rlrazor`."""
    done = subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_import_loads_no_heavy_library(imported):
    assert imported["loaded"] == []


def test_import_leaves_the_configuration_of_jax_alone(imported):
    assert imported["changed"] == []
    assert imported["x64"] is False


def test_version_is_that_of_the_package(imported):
    assert imported["version"] == rlrazor.__version__


@pytest.mark.parametrize("name", CORE)
def test_core_function_is_exported(name):
    assert inspect.isfunction(getattr(rlrazor, name))


@pytest.mark.parametrize("name", RECORDS)
def test_record_is_exported_and_documents_each_field(name):
    record = getattr(rlrazor, name)
    assert "Attributes:" in record.__doc__
    for field in record._fields:
        assert f"{field}: " in record.__doc__


EVERY_FUNCTION = pytest.mark.parametrize("function", list(public_functions()))


@EVERY_FUNCTION
def test_docstring_has_arguments_result_and_example(function):
    doc = inspect.getdoc(function) or ""
    sections = ["Returns:", "Example:", ">>> "] + ["Args:"] * bool(inspect.signature(function).parameters)
    if "Yields:" in doc:  # a context manager
        sections.remove("Returns:")
    assert [section for section in sections if section not in doc] == []


@EVERY_FUNCTION
def test_docstring_describes_every_parameter(function):
    described = (inspect.getdoc(function) or "").partition("Args:")[2].partition("Returns:")[0]
    parameters = inspect.signature(function).parameters
    assert [name for name in parameters if f"{name}: " not in described] == []


def test_the_search_for_functions_finds_the_core():
    found = {parameter.id.rpartition(".")[2] for parameter in public_functions()}
    assert set(CORE) <= found
