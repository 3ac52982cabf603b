"""Strict mode for every test: x64, no silent rank or dtype promotion, shapes and types checked on every call."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# A test run is mostly compilation, on cores that its processes fill; these flags take two fifths of it away. Flags that
# are given win: XLA_FLAGS="--xla_backend_optimization_level=3 --xla_cpu_use_fusion_emitters=true" is what users run.
hasty = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
one_piece = "--xla_cpu_parallel_codegen_split_count=1"
os.environ["XLA_FLAGS"] = f"{hasty} {one_piece} {os.environ.get('XLA_FLAGS', '')}"

import jax
import jaxtyping
import pytest

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
jaxtyping.install_import_hook(["rlrazor", "experiments"], "beartype.beartype")


@pytest.fixture
def as_installed(monkeypatch):
    """Without the import hook's checks, so that a test meets the errors that a user meets."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
