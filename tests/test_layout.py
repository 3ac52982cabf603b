"""The house: a module imports only from the floors below it, and nothing in it is dead or heavy."""

import ast
from pathlib import Path

import pytest

from rlrazor.methods import METHODS

SOURCE = Path(__file__).parent.parent / "src" / "rlrazor"
FLOORS = [
    {"_numerics", "_trees", "_types", "checks"},
    {"divergences"},
    {"tilting"},
    {"geometry", "optima"},
    {"policies"},
    {"objectives"},
    {"estimators", "sequences"},
    {"methods"},
    {"flows", "training", "em"},
    {"forgetting", "laws", "representations", "sweeps"},
    {"tasks", "plotting"},
]
FLOOR = {name: floor for floor, names in enumerate(FLOORS) for name in names}
EXPERIMENTS = SOURCE.parent.parent / "experiments"
MODULES = sorted(path for path in SOURCE.rglob("*.py") if path.name != "__init__.py")


def imported(path):
    """Modules of the package that a file imports, by their first name below the package."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("rlrazor."):
            yield node.module.split(".")[1]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_imports_go_down(path):
    here = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    assert here in FLOOR, f"{here} has no floor"
    assert all(FLOOR[name] < FLOOR[here] for name in imported(path) if name != here)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_every_private_function_is_used(path):
    text = "".join(other.read_text() for other in MODULES)
    private = [node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)]
    assert all(text.count(name) > 1 for name in private if name.startswith("_"))


def spelled_methods(text):
    """Method names among the string constants of a module; prose that mentions one, and docstrings, are no names."""
    tree = ast.parse(text)
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    strings = [x for x in ast.walk(tree) if isinstance(x, ast.Constant) and id(x) not in prose]
    return [x.value for x in strings if isinstance(x.value, str) and x.value.strip() in METHODS]


SPELLERS = sorted({*SOURCE.rglob("*.py"), *EXPERIMENTS.glob("*/*.py")} - {SOURCE / "methods.py"})


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: path.stem)
def test_what_is_no_number_is_not_taken_for_impossible(path):
    # NaN > -inf is false, NaN != -inf is true: a policy that has diverged must not look like one without mass.
    assert "> -jnp.inf" not in path.read_text()


@pytest.mark.parametrize("path", SPELLERS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_no_method_is_spelled_outside_methods(path):
    assert spelled_methods(path.read_text()) == []


def test_a_spelled_method_is_found_wherever_it_stands():
    for text in ('x = results["GRPO"]', 'f(label="SFT 1 + KL")', "NAMES = {'oracle SFT': 1}", 'f"{x}GRPO"'):
        assert len(spelled_methods(text)) == 1, text
    assert spelled_methods('"""SFT"""\n\ndef f():\n    """GRPO"""\n    return "SFT forgets more"') == []


FIGURE_FILES = sorted(path for path in EXPERIMENTS.glob("*/*.py") if path.parent.name != "harness")
EVERY_FIGURE_FILE = pytest.mark.parametrize("path", FIGURE_FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")


@EVERY_FIGURE_FILE
def test_a_figure_is_read_on_a_few_screens(path):
    assert len(path.read_text().splitlines()) <= 300


@EVERY_FIGURE_FILE
def test_a_figure_borrows_only_a_run_and_its_types(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("experiments."):
            chapter = node.module.split(".")[1]
            assert chapter in ("harness", path.parent.name), node.module
            if chapter != "harness":
                borrowed = EXPERIMENTS.parent.joinpath(*node.module.split(".")).with_suffix(".py").read_text()
                assert "def run(" in borrowed
                assert "def claims(" not in borrowed
                assert all(
                    alias.name == "run" or f"class {alias.name}(" in borrowed or f"class {alias.name}:" in borrowed
                    for alias in node.names
                )


@EVERY_FIGURE_FILE
def test_no_program_is_compiled_for_a_whole_config(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef) and any("jit" in ast.unparse(d) for d in node.decorator_list):
            annotations = [ast.unparse(argument.annotation) for argument in node.args.args if argument.annotation]
            assert "Config" not in annotations, node.name


@pytest.mark.parametrize("path", sorted((EXPERIMENTS / "harness").glob("*.py")), ids=lambda path: path.stem)
def test_a_module_of_the_harness_is_short(path):
    assert len(path.read_text().splitlines()) <= 150
