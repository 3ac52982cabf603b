"""Arrays that are spread over devices: the same numbers, over processes, without a gather, and in a training."""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import rlrazor as rz
from tests import sharding_worker
from tests.sharding_worker import AT_SCALE, AXES, CASES, EXPLICIT, GATHERS, ROW_SHAPE, ROWS, SPREAD

WORKER = Path(sharding_worker.__file__)
EXAMPLE = WORKER.parent.parent / "examples" / "sharded_loss.py"
DEVICES = 8
PATIENCE = 600  # seconds, for what takes a minute: only what hangs should fail

NOT_IN_THE_TABLE = {  # and why
    "check_distribution": "looks at values, so it is not for use under jit",
    "check_reward": "looks at values, so it is not for use under jit",
    "check_positive": "looks at values, so it is not for use under jit",
    "best_match": "compares numbers on the host and answers with a name",
    "automaton": "checks the values of its table on the host; what takes the world that it makes is in the table",
    "all_answers": "enumerates on the host",
    "log_times": "takes two numbers, and no array",
    "alpha_divergence": "takes one number and gives functions, which regularized_optimum and f_dpo_loss run",
    "gradient_flows": "maps gradient_flow, which is in the table, over its objectives; it would double the time of all",
}


def run(script, *arguments):
    """A process, with the two threads that XLA takes on two cores, however many there are."""
    flags = {"JAX_PLATFORMS": "cpu", "NPROC": "2"}
    command = [sys.executable, str(script), *arguments]
    return subprocess.Popen(command, env=os.environ | flags, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process):
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    return out


def work(out, *runs, devices=DEVICES, **options):
    return run(WORKER, json.dumps({"runs": runs, "out": str(out), "devices": devices, **options}))


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What one process finds on eight devices, with the table compiled once."""
    out = tmp_path_factory.mktemp("sharding") / "found.json"
    finish(work(out, "functions", "forgetful", "scale"))
    return json.loads(out.read_text())


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """What each of two processes with four devices finds."""
    folder, port = tmp_path_factory.mktemp("processes"), free_port()
    outs = [folder / f"{i}.json" for i in range(2)]
    workers = [work(out, "processes", devices=DEVICES // 2, process=i, port=port) for i, out in enumerate(outs)]
    for worker in workers:
        finish(worker)
    return [json.loads(out.read_text())["processes"] for out in outs]


def assert_same(got, want):
    """Equal to rounding: a sum over the parts of a row is added up in another order."""
    assert len(got) == len(want)
    for one, other in zip(got, want, strict=True):
        # What cancels to zero is only as exact as what it is made of, which are numbers about one.
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12, equal_nan=True)


def shardings():
    """Function and axis, for every axis that the function has."""
    world = sharding_worker.make_world()
    for name in CASES:
        for axis in (axis for axis in AXES if sharding_worker.is_sharded(name, axis, world)):
            yield name, axis
            if name in EXPLICIT:
                yield name, f"{axis}, explicitly"


@pytest.mark.parametrize(("name", "sharding"), list(shardings()))
def test_a_sharded_axis_gives_the_same_numbers(found, name, sharding):
    alone, spread = found["functions"][name]["alone"], found["functions"][name][sharding]
    assert "error" not in spread, spread["error"]
    assert (alone["pieces"], spread["pieces"]) == (1, DEVICES)
    for got, want in zip(spread["numbers"], alone["numbers"], strict=True):
        assert_same(got, want)


def test_inside_the_simplex_all_are_numbers(found):
    for name in CASES.keys() - {"peak_strength"}:  # whose answer is NaN where the gold reward has no peak
        inside, _ = found["functions"][name]["alone"]["numbers"]
        assert not any(np.isnan(np.asarray(leaf, float)).any() for leaf in inside), name


def test_a_sum_that_is_not_added_up_is_seen(found):
    with pytest.raises(AssertionError, match="Mismatched"):
        assert_same(*found["forgetful"])


def test_the_table_holds_every_public_function_of_arrays():
    public = {name for name, x in vars(rz).items() if callable(x) and not isinstance(x, type)}
    assert set(CASES) | set(NOT_IN_THE_TABLE) == public
    assert not set(CASES) & set(NOT_IN_THE_TABLE)


@pytest.mark.parametrize(
    "name", [f"{name}, {axis}" for name in SPREAD for axis in (AXES[:1] if name in ROWS else AXES)]
)
def test_two_processes_find_what_one_finds(together, name):
    for process in together:
        assert (process["processes"], process["devices"]) == (2, DEVICES)
        here = process["functions"][name]
        assert here["here"] == 0.5
        assert_same(here["together"], here["alone"])


def moved(collectives):
    """The lines that move more than the devices' parts of a number for each row, such as where each has its largest."""
    return [found["line"] for found in collectives if found["numbers"] > ROW_SHAPE[0] * DEVICES]


@pytest.mark.parametrize("name", AT_SCALE)
def test_a_sharded_vocabulary_stays_where_it_is(found, name):
    program = found["scale"][name]
    assert moved(program["collectives"]) == []
    shard = 4 * np.prod(ROW_SHAPE) / DEVICES  # bytes of an array, of which a device has this part
    assert program["argument"] == AT_SCALE[name][1] * shard
    assert program["temporary"] <= 4 * shard  # half of one array; whole rows would be all of it
    assert program["output"] <= AT_SCALE[name][1] * shard + 128  # and a few pointers


@pytest.mark.parametrize("name", GATHERS)
def test_what_ranks_outcomes_brings_them_together(found, name):
    program = found["scale"][name]
    assert moved(program["collectives"])
    assert program["temporary"] > 4 * np.prod(ROW_SHAPE)


def test_what_must_be_added_up_over_devices_is_one_number_a_row(found):
    sums = found["scale"]["kl_divergence"]["collectives"]
    assert [(found["kind"], found["numbers"]) for found in sums] == [("all-reduce", ROW_SHAPE[0])]


def test_the_example_learns_the_same_on_one_device():
    processes = [run(EXAMPLE, str(devices)) for devices in (1, DEVICES)]
    alone, spread = (finish(process) for process in processes)
    assert f"over {DEVICES} devices" in spread
    losses = [np.array([float(x) for x in re.findall(r"loss (\S+)", out)]) for out in (alone, spread)]
    assert losses[0].size >= 4
    assert (np.diff(losses[1]) < 0).all()
    # Sums of float32 are added up in another order, and forty steps of the optimizer carry the difference on.
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)
