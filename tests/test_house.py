"""The house: imports run one way, the method needs little, and no room or function is too large to be read."""

import ast
import graphlib
import sys
from pathlib import Path

import pytest

import ndlib

PACKAGE = Path(ndlib.__file__).parent
METHOD = ("functional", "layers", "conversion", "averages", "diagnostics", "_conversion", "_core")
WINGS = ("files", "pictures", "experiments", "evidence", "bookwork", "cli", "__main__")  # each may import earlier ones
LARGEST_MODULE, LARGEST_FUNCTION = 420, 40  # lines; of a function without those of its documentation


def name_of(file):
    return ".".join(["ndlib", *file.relative_to(PACKAGE).with_suffix("").parts]).removesuffix(".__init__")


SOURCES = {name_of(file): ast.parse(file.read_text()) for file in sorted(PACKAGE.rglob("*.py"))}
IS_PACKAGE = {name_of(file) for file in PACKAGE.rglob("__init__.py")}


def for_types(node):
    """Whether a statement is ``if TYPE_CHECKING``, whose imports never run."""
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def imported(name):
    """All that a module imports when it runs, relative names resolved."""
    hidden = {inner for node in ast.walk(SOURCES[name]) if for_types(node) for inner in ast.walk(node)}
    for node in set(ast.walk(SOURCES[name])) - hidden:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = name.split(".")[: len(name.split(".")) - node.level + (name in IS_PACKAGE)] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            for alias in node.names:
                yield whole if (whole := f"{base}.{alias.name}") in SOURCES else base


def floor(name):
    """0 for the method and the facade, then by wing."""
    room = name.split(".")[1] if "." in name else ""
    return 0 if room in ("", *METHOD) else 1 + WINGS.index(room)


def test_every_module_stands_in_a_known_wing():
    assert [name for name in SOURCES if "." in name and name.split(".")[1] not in (*METHOD, *WINGS)] == []


@pytest.mark.parametrize("name", SOURCES)
def test_module_imports_no_later_wing(name):
    upwards = [f"{name} imports {other}" for other in imported(name) if other in SOURCES and floor(other) > floor(name)]
    assert upwards == []


def test_modules_import_each_other_in_no_circle():
    graph = {name: {other for other in imported(name) if other in SOURCES and other != name} for name in SOURCES}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" is imported by ".join(error.args[1]))


@pytest.mark.parametrize("name", [name for name in SOURCES if floor(name) == 0])
def test_method_imports_torch_numpy_and_the_standard_library_alone(name):
    foreign = {other.split(".")[0] for other in imported(name)} - {"ndlib", "torch", "numpy"}
    assert foreign - sys.stdlib_module_names == set()


@pytest.mark.parametrize("name", SOURCES)
def test_module_and_its_functions_can_be_read_on_a_few_screens(name):
    file = PACKAGE.joinpath(*name.split(".")[1:])
    file = file / "__init__.py" if name in IS_PACKAGE else file.with_suffix(".py")
    assert len(file.read_text().splitlines()) <= LARGEST_MODULE
    long = {}
    for node in ast.walk(SOURCES[name]):
        if isinstance(node, ast.FunctionDef):
            documentation = node.body[0] if ast.get_docstring(node) else None
            said = documentation.end_lineno - documentation.lineno + 1 if documentation else 0
            long[node.name] = node.end_lineno - node.lineno + 1 - said
    assert {function: lines for function, lines in long.items() if lines > LARGEST_FUNCTION} == {}
