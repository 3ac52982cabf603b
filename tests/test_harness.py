"""The harness of the figures, tried on a toy: configs, claims, files, records, gallery, README and command line."""

import dataclasses
import functools
import importlib
import importlib.util
import io
import json
import math
import os
import shutil
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments import CHAPTERS
from experiments import __main__ as command_line
from experiments.harness import (
    Caption,
    Claim,
    UserError,
    arrays,
    at_least,
    at_most,
    chapters,
    check_sum,
    claims,
    config,
    files,
    gallery,
    near,
    readme,
    running,
)

NAME = "geometry/toy"


def loaded(path, name):
    """A module from its file, under another name."""
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """The toy as the only figure, with folders of its own."""
    for name in CHAPTERS:
        chapter, figures = importlib.import_module(f"experiments.{name}"), ("toy",) if name == "geometry" else ()
        monkeypatch.setattr(chapter, "FIGURES", figures)
    monkeypatch.setattr(running, "FIGURES", tmp_path / "figures")
    monkeypatch.setattr(running, "BUILD", tmp_path / "build")
    monkeypatch.setitem(sys.modules, "experiments.geometry.toy", None)
    monkeypatch.setattr(running, "_RUNS", {})
    return loaded(Path(__file__).with_name("toy_figure.py"), "experiments.geometry.toy")


def tree(folder):
    """Every file below a folder, by its path there."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def refused(capsys, *args):
    """Run the command line in this process; returns the one line of the error."""
    assert command_line.main([str(arg) for arg in args]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert line.startswith("error: ")
    return line


# Claims


def test_an_interval_holds_inside_and_never_for_nan():
    assert near(1.0, 0.1).holds(1.05)
    assert not near(1.0, 0.1).holds(1.2)
    assert at_most(3).holds(-np.inf)
    assert at_least(3).holds(np.inf)
    assert not any(interval.holds(np.nan) for interval in (near(0, 1), at_most(0), at_least(0)))
    assert [str(i) for i in (near(1, 0.1), at_most(2), at_least(3))] == ["1 ± 0.1", "≤ 2", "≥ 3"]


@pytest.mark.parametrize(
    ("measured", "control", "published", "at_published", "verdict"),
    [
        (1.0, 2.0, False, True, "holds"),
        (1.0, 2.0, False, False, "holds"),
        (1.0, 2.0, True, True, "holds"),
        (2.0, 1.0, True, False, "not applicable"),
        (math.nan, 1.0, True, False, "not applicable"),
        (math.nan, 2.0, False, True, "not reached"),
        (1.0, math.nan, False, True, "no control"),
        (2.0, 3.0, False, True, "does not hold"),
        (2.0, math.nan, False, True, "does not hold"),
        (1.0, 1.05, False, True, "control holds, too"),
        (1.0, math.inf, False, True, "holds"),
    ],
)
def test_verdicts(measured, control, published, at_published, verdict):
    claim = Claim("id", "it is one", "us", near(1.0, 0.1), measured, "two", control, published=published)
    assert claim.verdict(at_published) == verdict
    record = claim.record(at_published)
    assert record["verdict"] == verdict
    assert math.isclose(float(record["measured"]), measured) or math.isnan(measured)
    json.dumps(record, allow_nan=False)


def test_only_claims_that_apply_and_fail_are_failures():
    verdicts = ["holds", "not applicable", "not reached", "no control", "does not hold", "control holds, too"]
    record = {"claims": [{"verdict": verdict} for verdict in verdicts], "departures": {}}
    assert [claim["verdict"] for claim in claims.fails(record)] == verdicts[2:]
    assert claims.summary(record) == "1 of 5 claims hold"
    away = claims.summary(record | {"departures": {"slow_factor": [0.05, 0.005]}})
    assert away == "away from the published settings (slow_factor 0.05, not 0.005): 1 of 5 claims hold, 1 do not apply"


def test_captions_name_their_panels_in_order():
    assert str(Caption("What it shows.", a="One.", b="Two.")) == "What it shows. (a) One. (b) Two."
    with pytest.raises(ValueError, match="lettered"):
        Caption("What it shows.", b="Two.")


# Configs


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("size", 0, "size must be at least 1, got 0"),
        ("size", 101, "size must be at most 100, got 101"),
        ("size", 10**26, "size must be at most"),
        ("rate", 0.0, "rate must be above 0, got 0"),
        ("rate", 1.0, "rate must be below 1, got 1"),
        ("rate", math.nan, "rate must be finite, got nan"),
        ("rate", -math.inf, "rate must be finite, got -inf"),
        ("weights", (1.0,), "weights must hold 2 values, got 1"),
        ("weights", (-0.5, 1.5), "weights must be at least 0, got -0.5"),
        ("weights", (0.5, 0.4), "weights must sum to 1, but 0.5 + 0.4 = 0.9"),
        ("radii", (), "radii must hold at least 1 values, got ()"),
        ("radii", (1.0, 0.0), "radii must be above 0, got 0"),
    ],
)
def test_a_field_says_its_range_and_length(toy, field, value, words):
    with pytest.raises(UserError) as error:
        config.check_config(toy.Config(**{field: value}))
    assert words in str(error.value)


def test_a_run_refuses_what_its_fields_refuse_and_float32(toy):
    with pytest.raises(UserError, match="size must be at most 100"):
        toy.run(toy.Config(size=200))
    with jax.enable_x64(False), pytest.raises(UserError, match="experiments need float64"):
        toy.run(toy.Config())
    assert toy.run(toy.Config()).count == 5


def test_probabilities_must_sum_to_one():
    check_sum("weights", (0.1,) * 10)
    with pytest.raises(UserError, match="weights must sum to 1"):
        check_sum("weights", (math.nan, 0.5))


def test_settings_of_the_published_or_the_quick_run_are_no_departure(toy):
    assert config.departures(toy.Config()) == config.departures(toy.Config.quick()) == {}
    assert config.departures(toy.Config(size=6, radii=(1.0,))) == {"size": (6, 5), "radii": ([1.0], [1.0, 2.0])}


def test_a_command_names_what_differs(toy):
    assert config.command(NAME, toy.Config()) == f"python -m experiments {NAME}"
    assert config.command(NAME, toy.Config.quick()) == f"python -m experiments {NAME} --quick"
    changed = toy.Config(size=6, radii=(0.5, 3.0))
    assert config.command(NAME, changed) == f"python -m experiments {NAME} --size 6 --radii 0.5 3.0"


# Files


def test_arrays_have_a_key_a_leaf_and_come_back_under_their_names(toy):
    results = toy.run(toy.Config())
    content = arrays.pack(results)
    with np.load(io.BytesIO(content), allow_pickle=False) as leaves:
        names = {"paths/geometric/alternating/total", "paths/geometric/plain/total", "count"}
        assert set(leaves.files) == names
    again = arrays.unpack(toy.Results, content, Path("toy.npz"))
    assert list(again.paths["geometric"]) == ["alternating", "plain"]
    jax.tree.map(np.testing.assert_array_equal, again, results)
    assert arrays.pack(again) == content == arrays.pack(toy.run(toy.Config()))


@pytest.mark.parametrize("damage", ["more", "less", "renamed", "no dict"])
def test_arrays_of_another_version_are_refused(toy, damage):
    with np.load(io.BytesIO(arrays.pack(toy.run(toy.Config())))) as leaves:
        left = dict(leaves)
    if damage == "more":
        left["paths/geometric/plain/more"] = np.zeros(1)
    else:
        lost = {"less": ["count"], "renamed": ["paths/geometric/plain/total"], "no dict": [k for k in left if "/" in k]}
        for key in lost[damage]:
            value = left.pop(key)
            if damage == "renamed":
                left["paths/geometric/plain/sum"] = value
    buffer = io.BytesIO()
    np.savez(buffer, **left)
    with pytest.raises(UserError, match=r"toy\.npz was saved by another version"):
        arrays.unpack(toy.Results, buffer.getvalue(), Path("toy.npz"))


def test_pickled_arrays_are_not_executed(toy, tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "exploded"),)

    buffer = io.BytesIO()
    np.savez(buffer, count=np.array([Bomb()], dtype=object))
    with pytest.raises(ValueError, match="allow_pickle"):
        arrays.unpack(toy.Results, buffer.getvalue(), Path("toy.npz"))
    assert not (tmp_path / "exploded").exists()


def test_a_failed_write_leaves_the_old_file_and_no_rubbish(tmp_path, monkeypatch):
    path = tmp_path / "figure.png"
    path.write_bytes(b"old")
    monkeypatch.setattr(files.os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk gone")))
    with pytest.raises(OSError, match="disk gone"):
        files.write_atomically(path, b"new")
    assert tree(tmp_path) == {"figure.png": b"old"}


def test_a_full_disk_is_one_line_and_leaves_the_old_set(toy, tmp_path, monkeypatch, capsys):
    assert command_line.main([NAME]) == 0
    before = tree(tmp_path / "figures")
    made = files.tempfile.TemporaryFile

    class Full:
        def __init__(self, **options):
            self.file = made(**options)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def write(self, content):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.tempfile, "TemporaryFile", Full)
    capsys.readouterr()
    line = refused(capsys, NAME)
    assert str(tmp_path / "figures") in line
    assert "No space left on device" in line
    assert tree(tmp_path / "figures") == before


@pytest.mark.parametrize(
    "content",
    ["[]", "null", "3", '"simplex"', "{}", '{"name": "geo', '{"name": 3, "config": {}}', "\ufffe"],
)
@pytest.mark.parametrize("how", ["replot", "gallery"])
def test_a_file_that_is_no_record_is_one_line(toy, tmp_path, capsys, content, how):
    assert command_line.main([NAME]) == 0
    (tmp_path / "figures/geometry/toy.json").write_text(content)
    capsys.readouterr()
    if how == "replot":
        assert "toy.json" in refused(capsys, NAME, "--replot")
    else:
        with pytest.raises(UserError, match=r"toy\.json"):
            gallery.gallery(tmp_path / "figures")


@pytest.mark.parametrize("key", ["config", "claims", "caption", "results_sha256"])
@pytest.mark.parametrize("value", [None, "text", 3])
def test_a_record_without_its_parts_is_one_line(toy, tmp_path, capsys, key, value):
    assert command_line.main([NAME]) == 0
    path = tmp_path / "figures/geometry/toy.json"
    record = json.loads(path.read_text())
    record[key] = value
    path.write_text(json.dumps(record))
    capsys.readouterr()
    if (key, value) == ("caption", "text"):  # drawn anew from the arrays
        assert command_line.main([NAME, "--replot"]) == 0
    else:
        assert "toy" in refused(capsys, NAME, "--replot")


@pytest.mark.parametrize(("field", "value"), [("rate", 7.0), ("rate", "fast"), ("weights", [0.5]), ("colour", 1)])
def test_a_record_with_a_config_that_cannot_be_is_one_line(toy, tmp_path, capsys, field, value):
    assert command_line.main([NAME]) == 0
    path = tmp_path / "figures/geometry/toy.json"
    record = json.loads(path.read_text())
    record["config"][field] = value
    path.write_text(json.dumps(record))
    capsys.readouterr()
    assert field in refused(capsys, NAME, "--replot")


# Runs


def test_the_published_run_goes_to_figures_and_any_other_to_build(toy, tmp_path):
    assert command_line.main([NAME]) == 0
    published = tree(tmp_path / "figures")
    assert set(published) == {"index.html", "names.html"} | {
        f"geometry/toy.{e}" for e in ("png", "svg", "npz", "json", "run.json")
    }
    assert command_line.main([NAME, "--rate", "0.4"]) == 0
    assert command_line.main([NAME, "--quick"]) == 0
    assert tree(tmp_path / "figures") == published
    built = {"index.html", "names.html"} | {f"toy.{e}" for e in ("png", "svg", "npz", "json", "run.json")}
    assert set(tree(tmp_path / "build/geometry/toy")) == built
    assert command_line.main([NAME, "--rate", "0.4", "--out", str(tmp_path / "mine")]) == 0
    assert set(tree(tmp_path / "mine")) == set(published)


def test_what_is_committed_has_the_same_bytes_after_a_second_run(toy, tmp_path):
    seen = []
    for _ in range(2):
        running._RUNS.clear()
        shutil.rmtree(tmp_path / "figures", ignore_errors=True)
        assert command_line.main([NAME]) == 0
        seen.append({name: content for name, content in tree(tmp_path / "figures").items() if "run.json" not in name})
    assert seen[0] == seen[1]
    record = json.loads((tmp_path / "figures/geometry/toy.json").read_text())
    assert set(record) == {"name", "config", "departures", "caption", "claims", "results_sha256"}
    went = json.loads((tmp_path / "figures/geometry/toy.run.json").read_text())
    assert {"seconds", "reproduced", "versions", "device", "cores", "revision", "drawn_by"} == set(went)


def on_another_processor(toy, monkeypatch, change):
    """Run with results that are off by a relative change."""
    monkeypatch.setattr(running, "_RUNS", {})
    run = toy.run

    @functools.wraps(run)
    def rounded(config):
        return jax.tree.map(lambda leaf: leaf * (1 + change), run(config))

    monkeypatch.setattr(toy, "run", rounded)
    code = command_line.main([NAME])
    monkeypatch.setattr(toy, "run", run)
    return code


def test_rounding_of_another_processor_changes_no_file(toy, tmp_path, monkeypatch, capsys):
    def computed():
        return {name: content for name, content in tree(tmp_path / "figures").items() if "run.json" not in name}

    def reproduced():
        return json.loads((tmp_path / "figures/geometry/toy.run.json").read_text())["reproduced"]

    assert command_line.main([NAME]) == 0
    first = computed()
    assert not reproduced()
    capsys.readouterr()
    assert on_another_processor(toy, monkeypatch, 1e-8) == 0
    assert computed() == first
    assert reproduced()
    assert "as saved before" in capsys.readouterr().err
    assert on_another_processor(toy, monkeypatch, 1e-4) == 1  # no rounding: the claim of the closed form breaks
    assert computed()["geometry/toy.npz"] != first["geometry/toy.npz"]
    assert not reproduced()


def test_results_of_another_config_or_damaged_ones_are_replaced(toy, tmp_path):
    path, out = tmp_path / "mine/geometry/toy.npz", ["--out", str(tmp_path / "mine")]
    assert command_line.main([NAME, "--rate", "0.5", *out]) == 0
    first = path.read_bytes()
    assert command_line.main([NAME, "--rate", "0.5000000001", *out]) == 0
    second = path.read_bytes()
    assert second != first
    path.write_bytes(first)
    assert command_line.main([NAME, "--rate", "0.5000000001", *out]) == 0
    assert path.read_bytes() == second


def test_results_agree_but_for_rounding():
    ours = {"a": {"b": np.array([1.0, np.nan, np.inf])}, "flag": np.array([True, False])}
    assert arrays.agree(ours, {"flag": ours["flag"], "a": {"b": ours["a"]["b"] * (1 + 1e-8)}})
    assert not arrays.agree(ours, ours | {"flag": np.array([True, True])})
    assert not arrays.agree(ours, ours | {"a": {"b": np.array([1.0, 1.0, np.inf])}})
    assert not arrays.agree(ours, ours | {"a": {"b": ours["a"]["b"].astype(np.float32)}})
    assert not arrays.agree(ours, ours | {"a": {"b": ours["a"]["b"][:2]}})
    assert not arrays.agree(ours, ours | {"c": np.array(1.0)})
    roots = {"roots": np.array([0.5 + 0.5j, np.nan])}
    assert arrays.agree(roots, {"roots": roots["roots"] * (1 + 1e-8)})
    assert not arrays.agree(roots, {"roots": roots["roots"] * (1 + 1e-5j)})


def test_a_redrawn_figure_says_which_code_drew_it(toy, tmp_path, monkeypatch):
    assert command_line.main([NAME]) == 0
    before = tree(tmp_path / "figures")
    (tmp_path / "figures/geometry/toy.png").unlink()
    monkeypatch.setattr(running, "revision", lambda: "another")
    assert command_line.main([NAME, "--replot"]) == 0
    after = tree(tmp_path / "figures")
    went = json.loads(after.pop("geometry/toy.run.json"))
    assert went == json.loads(before.pop("geometry/toy.run.json")) | {"drawn_by": "another"}
    assert after == before


def test_a_clone_without_runs_can_be_redrawn(toy, tmp_path):
    assert command_line.main([NAME]) == 0
    (tmp_path / "figures/geometry/toy.run.json").unlink()
    assert command_line.main([NAME, "--replot"]) == 0
    assert set(json.loads((tmp_path / "figures/geometry/toy.run.json").read_text())) == {"drawn_by"}


@pytest.mark.parametrize("content", ["[]", "null", "{"])
def test_a_damaged_account_of_a_run_is_one_line(toy, tmp_path, capsys, content):
    assert command_line.main([NAME]) == 0
    (tmp_path / "figures/geometry/toy.run.json").write_text(content)
    capsys.readouterr()
    assert "toy.run.json" in refused(capsys, NAME, "--replot")


def test_a_revision_is_marked_where_the_code_has_changed(monkeypatch, tmp_path):
    monkeypatch.setattr(running, "ROOT", tmp_path)
    assert running.revision() is None


# The command line


def test_a_claim_that_applies_and_fails_is_named_with_exit_code_1(toy, capsys):
    assert command_line.main([NAME]) == 0
    assert "3 of 3 claims hold" in capsys.readouterr().err
    assert command_line.main([NAME, "--rate", "0.7"]) == 1
    told = capsys.readouterr().err
    assert "away from the published settings (rate 0.7, not 0.5): 1 of 2 claims hold, 1 do not apply" in told
    assert f"{NAME}/small: does not hold; measured 2.773, expected 1.5 ± 0.5" in told
    assert f"{NAME}/published" not in told


@pytest.mark.parametrize(
    ("args", "culprit"),
    [
        (["geometry/toi"], "geometry/toi"),
        (["toy"], "toy"),
        ([NAME, "--ratte", "1"], "ratte"),
        ([NAME, "--rate", "much"], "rate"),
        ([NAME, "--rate", "nan"], "rate"),
        ([NAME, "--size", "1.5"], "size"),
        ([NAME, "--size", "99999999999999999999999999"], "size"),
        ([NAME, "--radii"], "radii"),
        ([NAME, "--weights", "1"], "weights"),
        ([NAME, "--rate", "0.95", "--size", "60"], "rate"),
        (["geometry", "--rate", "0.5"], "--rate"),
        (["--rate", "0.5"], "--rate"),
        ([NAME, "--replot", "--rate", "0.5"], "--rate"),
    ],
)
def test_wrong_arguments_are_named_in_one_line_and_nothing_is_written(toy, args, culprit, tmp_path, capsys):
    line = refused(capsys, *args, "--out", tmp_path / "out")
    assert culprit in line
    assert not tree(tmp_path)


def test_a_folder_that_cannot_be_written_is_named(toy, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    line = refused(capsys, NAME, "--out", tmp_path / "file" / "out")
    assert str(tmp_path / "file" / "out") in line
    assert (tmp_path / "file").read_text() == "in the way"


def test_options_reach_the_config(toy, monkeypatch, tmp_path):
    seen = {}
    record = {"name": NAME, "claims": [], "departures": {}, "seconds": 0.0, "reproduced": False}
    monkeypatch.setattr(running, "execute", lambda name, config, out: seen.update({name: config}) or record)
    monkeypatch.setattr(running, "refresh_gallery", lambda folder, name: None)
    assert command_line.main([NAME, "--quick", "--rate", "0.25", "--radii", "0.1", "0.2", "0.3"]) == 0
    assert seen == {NAME: dataclasses.replace(toy.Config.quick(), rate=0.25, radii=(0.1, 0.2, 0.3))}


def test_help_and_list_explain_themselves(toy, capsys):
    assert command_line.main(["--list"]) == 0
    assert NAME in capsys.readouterr().out
    for args in (["--help"], [NAME, "--help"]):
        with pytest.raises(SystemExit) as stop:
            command_line.main(args)
        assert stop.value.code == 0
    assert "--rate" in capsys.readouterr().out


# Gallery and README


def test_the_gallery_has_every_claim_and_command_and_needs_no_network(toy, tmp_path):
    assert command_line.main([NAME]) == 0
    page = (tmp_path / "figures/index.html").read_text()
    record = json.loads((tmp_path / "figures/geometry/toy.json").read_text())
    assert 'src="geometry/toy.png"' in page
    assert page.count(f"python -m experiments {NAME}") == 1
    assert all(claim["statement"] in page for claim in record["claims"])
    assert record["caption"] in page
    assert "://" not in page
    assert "<script" not in page


@pytest.fixture
def published(toy, tmp_path, monkeypatch):
    """A README, and both runs of the toy at one clean revision."""
    monkeypatch.setattr(running, "revision", lambda: "clean")
    for module in (readme, chapters):
        monkeypatch.setattr(module, "FIGURES", tmp_path / "figures")
    monkeypatch.setattr(readme, "SMOKE", tmp_path / "smoke")
    monkeypatch.setattr(readme, "README", tmp_path / "README.md")
    (tmp_path / "README.md").write_text(f"before\n{readme.START}old\n{readme.END}after\n")
    assert command_line.main([NAME]) == 0
    assert command_line.main([NAME, "--quick", "--out", str(tmp_path / "smoke")]) == 0
    return tmp_path


def test_the_readme_is_refreshed_once_and_then_current(published):
    assert command_line.main(["--check-readme"]) == 1  # no seconds yet
    assert command_line.main(["--readme"]) == 0
    text = (published / "README.md").read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "A figure for the tests of the harness" in text
    assert f"`python -m experiments {NAME}`" in text
    assert "| The sum is 1.9. |" in (published / "figures/claims.md").read_text()
    assert command_line.main(["--check-readme"]) == 0


def test_other_seconds_change_the_readme_only_when_they_are_asked_for(published):
    assert command_line.main(["--readme"]) == 0
    path = published / "figures/geometry/toy.run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"seconds": 1234.0}))
    assert command_line.main(["--check-readme"]) == 0
    assert "1234" not in (published / "README.md").read_text()
    assert command_line.main(["--readme"]) == 0
    assert "1234" in (published / "README.md").read_text()


@pytest.mark.parametrize("revision", [None, "clean+changes", "another"])
def test_seconds_come_from_one_clean_revision(published, capsys, revision):
    path = published / "figures/geometry/toy.run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"revision": revision}))
    capsys.readouterr()
    assert "one clean revision" in refused(capsys, "--readme")


def test_a_stale_record_is_named(published, capsys):
    path = published / "figures/geometry/toy.json"
    record = json.loads(path.read_text())
    record["config"]["rate"] = 0.75
    path.write_text(json.dumps(record))
    capsys.readouterr()
    assert "toy.json is stale: its config differs in rate" in refused(capsys, "--check-readme")


def test_a_readme_without_its_marks_is_named(published, capsys):
    (published / "README.md").write_text("nothing here")
    capsys.readouterr()
    assert "README.md lacks the lines" in refused(capsys, "--check-readme")
