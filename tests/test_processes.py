"""Figures side by side: what one finds alone, a process that dies, and none that stays."""

import os
import signal
import subprocess
import sys
import time

import pytest

from experiments.harness import UserError, chapters, processes, running
from tests import figure_workers

PATIENCE = 120  # seconds, on a machine that is busy with the other tests


def quick_configs(*names):
    return {name: chapters.load(name).Config.quick() for name in names}


def test_figures_of_one_run_stay_in_one_process_which_is_this_one_if_there_is_no_other(tmp_path, monkeypatch):
    monkeypatch.setattr(running, "execute", lambda name, config, out: {"name": name, "process": os.getpid()})
    monkeypatch.setattr(running, "cores", lambda: 2)
    shared = ("razor/parity_law", "razor/parity_razor")
    found = list(processes.execute_all(quick_configs(*shared), tmp_path))
    assert found == [{"name": name, "process": os.getpid()} for name in shared]


def test_a_process_that_dies_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "_execute_group", figure_workers.die)
    monkeypatch.setattr(running, "cores", lambda: 2)
    with pytest.raises(UserError, match="a process that ran figures was killed"):
        list(processes.execute_all(quick_configs(*figure_workers.FIGURES), tmp_path))


@pytest.mark.parametrize(
    ("stop", "number", "code"),
    [(os.kill, signal.SIGKILL, -9), (os.kill, signal.SIGTERM, -15), (os.killpg, signal.SIGINT, 130)],
    ids=["killed", "terminated", "ctrl-c"],
)
def test_a_run_that_is_stopped_leaves_no_process(tmp_path, stop, number, code):
    command = [sys.executable, "-m", figure_workers.__name__, tmp_path]
    run = subprocess.Popen(command, cwd=chapters.ROOT, start_new_session=True, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: run.poll() is not None or len(list(tmp_path.iterdir())) == 2)
    stop(run.pid, number)
    _, errors = run.communicate(timeout=PATIENCE)
    assert run.returncode == code
    if number == signal.SIGINT:
        assert errors == "error: stopped; what had finished is saved\n"
    wait_until(lambda: not lives(run.pid))


def lives(group):
    """Whether a process of the group is left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def wait_until(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
