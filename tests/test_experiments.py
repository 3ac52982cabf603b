"""The command line as a stranger meets it: quick figures, saved results, and every way to get it wrong."""

import dataclasses
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest

from experiments import __main__ as command_line
from experiments import _harness as harness
from rlrazor.tasks.parity import Measures

NAMES = harness.names()


def experiments(*args, **options):
    environment = {key: value for key, value in os.environ.items() if not key.startswith("JAX_")}
    return subprocess.run(
        [sys.executable, "-m", "experiments", *map(str, args)],
        cwd=harness.ROOT, env=environment, capture_output=True, text=True, check=False, **options,
    )  # fmt: skip


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """The quick figures: a copy of those in the folder RLRAZOR_QUICK if it is set, else made here."""
    out = tmp_path_factory.mktemp("quick")
    if made := os.environ.get("RLRAZOR_QUICK"):
        return shutil.copytree(made, out, dirs_exist_ok=True)
    done = experiments("--quick", "--out", out)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture
def copy(quick, tmp_path):
    return shutil.copytree(quick, tmp_path / "copy")


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def refused(capsys, *args):
    """Run in this process; returns the one line of the error."""
    assert command_line.main([str(arg) for arg in args]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert line.startswith("error: ")
    return line


def test_there_are_experiments():
    assert NAMES == [
        "forgetting_dynamics",
        "forgetting_law",
        "mode_covering",
        "on_policy",
        "parity_mnist",
        "razor",
        "simplex",
    ]


@pytest.mark.parametrize("name", NAMES)
def test_quick_run_writes_every_file_and_nothing_else(quick, name):
    endings = {path.suffix for path in quick.glob(f"{name}.*")}
    assert endings >= {".png", ".svg", ".npz", ".json"}
    assert not list(quick.glob(".*"))


@pytest.mark.parametrize("name", NAMES)
def test_every_claim_holds_and_every_control_breaks_it(quick, name):
    for claim in json.loads((quick / f"{name}.json").read_text())["claims"]:
        assert claim["holds"], claim
        assert claim["control_fails"], claim


@pytest.mark.parametrize("name", NAMES)
def test_record_has_what_a_reader_needs(quick, name):
    record = json.loads((quick / f"{name}.json").read_text())
    assert {"name", "config", "claims", "seconds", "versions", "device", "revision"} <= set(record)
    assert record["config"] == harness.as_json(harness.load_experiment(name).Config.quick())
    assert harness.command(record) == f"python -m experiments {name} --quick"


@pytest.mark.parametrize("name", NAMES)
def test_saved_arrays_need_no_pickle_and_are_complete(quick, name):
    with np.load(quick / f"{name}.npz", allow_pickle=False) as arrays:
        assert set(arrays.files) == set(harness.load_experiment(name).Results._fields)
        assert all(arrays[key].dtype != object for key in arrays.files)


def test_gallery_shows_every_figure_and_claim_without_the_network(quick):
    page = (quick / "index.html").read_text()
    assert not re.search(r"(src|href)=\"(https?:)?//", page)
    assert "<script" not in page
    for name in NAMES:
        record = json.loads((quick / f"{name}.json").read_text())
        assert f'src="{name}.png"' in page
        assert page.count(harness.command(record)) == 1
        assert all(harness.html.escape(claim["statement"]) in page for claim in record["claims"])
    assert 'src="forgetting_dynamics.gif"' in page


def test_replot_draws_the_same_picture_and_keeps_the_arrays(copy):
    before = contents(copy)
    (copy / "simplex.png").unlink()
    assert experiments("simplex", "--replot", "--out", copy).returncode == 0
    after = contents(copy)
    assert after["simplex.png"] == before["simplex.png"]
    assert after["simplex.npz"] == before["simplex.npz"]
    assert after["simplex.json"] == before["simplex.json"]


@pytest.mark.parametrize("damage", ["truncated", "altered", "missing"])
def test_damaged_arrays_are_named_and_leave_the_figures_untouched(copy, capsys, damage):
    path = copy / "simplex.npz"
    content = path.read_bytes()
    if damage == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "altered":
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    else:
        path.unlink()
    before = contents(copy)
    line = refused(capsys, "simplex", "--replot", "--out", copy)
    assert "simplex.npz" in line
    assert contents(copy) == before


def test_arrays_of_another_version_are_named(copy, capsys):
    buffer = io.BytesIO()
    np.savez(buffer, something_else=np.zeros(3))
    (copy / "simplex.npz").write_bytes(buffer.getvalue())
    record = json.loads((copy / "simplex.json").read_text())
    record["results_sha256"] = harness.hashlib.sha256(buffer.getvalue()).hexdigest()
    (copy / "simplex.json").write_text(json.dumps(record))
    line = refused(capsys, "simplex", "--replot", "--out", copy)
    assert "simplex.npz" in line
    assert "another version" in line


def test_broken_record_is_named(copy, capsys):
    (copy / "simplex.json").write_text('{"name": "simp')
    assert "simplex.json" in refused(capsys, "simplex", "--replot", "--out", copy)


def test_replot_before_the_first_run_says_so(tmp_path, capsys):
    assert "run the experiment first" in refused(capsys, "simplex", "--replot", "--out", tmp_path)


@pytest.mark.parametrize(
    ("args", "culprit"),
    [
        (["simplecks"], "simplecks"),
        (["simplex", "--betta", "1"], "betta"),
        (["simplex", "--beta", "0"], "beta"),
        (["simplex", "--beta", "-1"], "beta"),
        (["simplex", "--beta", "nan"], "beta"),
        (["simplex", "--beta", "much"], "beta"),
        (["simplex", "--ref", "0.5", "0.5", "0.5"], "ref"),
        (["simplex", "--accept", "True", "True", "True"], "accept"),
        (["simplex", "--resolution", "0"], "resolution"),
        (["mode_covering", "--weights", "0.5", "0.4"], "weights"),
        (["mode_covering", "--weights", "0.2", "0.3", "0.5"], "weights"),
        (["mode_covering", "--scales", "1.0", "0.0"], "scales"),
        (["forgetting_dynamics", "--num-seeds", "1.5"], "num-seeds"),
        (["forgetting_dynamics", "--slow-factor", "-0.1"], "slow_factor"),
        (["simplex", "mode_covering", "--beta", "1"], "--beta"),
        (["--beta", "1"], "--beta"),
        (["simplex", "--replot", "--beta", "1"], "--beta"),
    ],
)
def test_wrong_arguments_are_named_in_one_line_and_nothing_is_written(args, culprit, tmp_path, capsys):
    line = refused(capsys, *args, "--out", tmp_path / "out")
    assert culprit in line
    assert not (tmp_path / "out").exists() or not contents(tmp_path / "out")


def test_folder_that_cannot_be_written_is_named(tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    line = refused(capsys, "simplex", "--out", tmp_path / "file" / "out")
    assert str(tmp_path / "file" / "out") in line
    assert (tmp_path / "file").read_text() == "in the way"


def test_options_reach_the_config(monkeypatch, tmp_path):
    seen = {}
    monkeypatch.setattr(
        harness, "execute", lambda name, config, out: seen.update({name: config}) or {"claims": [], "seconds": 0.0}
    )
    args = ["simplex", "--quick", "--beta", "1.25", "--radii", "0.1", "0.2", "--out", str(tmp_path)]
    assert command_line.main(args) == 0
    quick_config = harness.load_experiment("simplex").Config.quick()
    assert seen["simplex"] == harness.dataclasses.replace(quick_config, beta=1.25, radii=(0.1, 0.2))


def test_changed_settings_show_in_the_command_of_the_gallery():
    config = harness.dataclasses.replace(harness.load_experiment("simplex").Config(), beta=1.25, radii=(0.1, 0.2))
    record = {"name": "simplex", "config": harness.as_json(config)}
    assert harness.command(record) == "python -m experiments simplex --beta 1.25 --radii 0.1 0.2"


def test_help_and_list_explain_themselves(capsys):
    assert command_line.main(["--list"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in NAMES)
    for args in (["--help"], ["simplex", "--help"]):
        with pytest.raises(SystemExit) as stop:
            command_line.main(args)
        assert stop.value.code == 0
    assert "--beta" in capsys.readouterr().out


def test_failed_write_leaves_the_old_file_and_no_rubbish(tmp_path, monkeypatch):
    path = tmp_path / "figure.png"
    path.write_bytes(b"old")
    monkeypatch.setattr(harness.os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk gone")))
    with pytest.raises(OSError, match="disk gone"):
        harness.write_atomically(path, b"new")
    assert contents(tmp_path) == {"figure.png": b"old"}


KILLED_AT_THE_SECOND_FILE = """
import os, signal, sys
from experiments.__main__ import main
replace, done = os.replace, []
def killed(source, target):
    if done:
        os.kill(os.getpid(), signal.SIGKILL)
    done.append(replace(source, target))
os.replace = killed
main(sys.argv[1:])
"""


def test_killed_run_leaves_every_file_whole(copy):
    new = contents(copy)["simplex.png"]
    for ending in ("png", "svg"):
        (copy / f"simplex.{ending}").write_bytes(b"old")
    before = contents(copy)
    arguments = ["simplex", "--quick", "--replot", "--out", str(copy)]
    killed = subprocess.run(
        [sys.executable, "-c", KILLED_AT_THE_SECOND_FILE, *arguments], cwd=harness.ROOT, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    after = {name: content for name, content in contents(copy).items() if not name.startswith(".")}
    assert after == before | {"simplex.png": new}


def test_interval_holds_inside_and_never_for_nan():
    assert harness.near(1.0, 0.1).holds(1.05)
    assert not harness.near(1.0, 0.1).holds(1.2)
    assert harness.at_most(3).holds(-np.inf)
    assert harness.at_least(3).holds(np.inf)
    assert not any(interval.holds(np.nan) for interval in (harness.near(0, 1), harness.at_most(0), harness.at_least(0)))
    assert [str(i) for i in (harness.near(1, 0.1), harness.at_most(2), harness.at_least(3))] == [
        "1 ± 0.1",
        "≤ 2",
        "≥ 3",
    ]


def test_committed_figures_and_readme_belong_to_the_code(tmp_path):
    readme = tmp_path / "README.md"
    shutil.copy(harness.README, readme)
    assert not harness.update_readme(harness.FIGURES, readme)
    for name in NAMES:
        assert all((harness.FIGURES / f"{name}.{ending}").exists() for ending in ("png", "svg", "npz", "json"))


def test_stale_record_is_named(tmp_path):
    shutil.copytree(harness.FIGURES, tmp_path, dirs_exist_ok=True)
    record = json.loads((tmp_path / "simplex.json").read_text())
    record["config"]["beta"] = 0.75
    (tmp_path / "simplex.json").write_text(json.dumps(record))
    with pytest.raises(harness.UserError, match=r"simplex\.json is stale: its config differs in beta"):
        harness.readme_table(tmp_path)


def test_missing_image_files_are_named(tmp_path, capsys):
    line = refused(capsys, "parity_mnist", "--data-dir", tmp_path, "--out", tmp_path / "out")
    assert str(tmp_path) in line
    assert "mnist" in line


def test_the_published_grid_of_parity_mnist_is_that_of_the_paper():
    config = harness.load_experiment("parity_mnist").Config.published("data")
    assert len(config.rates) * len(config.cosine) * len(config.epochs) == 60
    assert (min(config.rates), max(config.rates)) == pytest.approx((3e-6, 1e-3))
    assert config.data_dir == "data"


def test_parity_mnist_joins_trainings_of_different_lengths(monkeypatch):
    experiment = harness.load_experiment("parity_mnist")

    def untrained(train, settings, **_):
        """Every measure is the number of steps that the training would take."""
        *_, num_steps, num_checkpoints = train.args
        return Measures(*[np.full((len(settings.method), num_checkpoints + 1), num_steps) for _ in Measures._fields])

    monkeypatch.setattr(experiment, "sweep", untrained)
    monkeypatch.setattr(experiment, "pretrained", lambda *_: None)
    config = dataclasses.replace(experiment.Config.quick(), cosine=(False, True), epochs=(1, 2), num_checkpoints=3)
    results = experiment.run(config)
    half = len(experiment.all_settings(config, jax.random.key(0)).method)
    assert results.forward.shape == (2 * half, 4)
    np.testing.assert_array_equal(results.forward, np.repeat([39, 78], half)[:, None].repeat(4, 1))
    for values in (results.method, results.rate, results.base):
        np.testing.assert_array_equal(values[:half], values[half:])
