"""The benchmarks run. What they measure depends on the machine, so nothing here is about time."""

import os
import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def test_the_report_has_every_table():
    environment = os.environ | {"JAX_ENABLE_X64": "0"}
    command = [sys.executable, BENCHMARKS / "report.py", "--smoke"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    for what in ("`kl_divergence` [4, 64]", "`best_of_n` [4, 64]", "two-mode RL runs", "`solve_ivp`", "`import jax`"):
        assert what in done.stdout
    for head in (
        "| kernel | arrays |",
        "| KL, nats |",
        "| function | first, s |",
        "| growing | what | time | memory |",
    ):
        assert head in done.stdout
    assert "nan" not in done.stdout.lower()


def test_the_readme_is_what_the_report_writes():
    text = (BENCHMARKS / "README.md").read_text()
    assert text.count("<!-- measured: python benchmarks/report.py -->") == text.count("<!-- end -->") == 1
    assert (BENCHMARKS / "scaling.png").exists()
