"""The house: a module imports only from the floors below it, and nothing in it is dead or heavy."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "rlrazor"
FLOORS = [
    {"_numerics", "checks"},
    {"divergences"},
    {"tilting"},
    {"geometry"},
    {"policies", "objectives"},
    {"flows", "training"},
    {"forgetting", "sweeps"},
    {"tasks", "plotting"},
]
FLOOR = {name: floor for floor, names in enumerate(FLOORS) for name in names}
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
