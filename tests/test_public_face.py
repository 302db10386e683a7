"""What the packages hand on: all of it is there, costs nothing until it is asked for, and says how it is called."""

import ast
import importlib
import inspect
import json
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from minority.calibration.space import CalibrationSpace
from minority.guidance.registry import METHODS
from minority.sampling.settings import SamplerSettings

ROOT = Path(__file__).resolve().parent.parent
LIBRARIES = ("minority", "datasets")
PACKAGES = [
    ".".join(path.parent.relative_to(ROOT).parts)
    for library in LIBRARIES
    for path in sorted((ROOT / library).rglob("__init__.py"))
    if "__all__" in path.read_text(encoding="utf-8")
]
#: Types that stand for arrays in signatures.
ARRAYS = re.compile(r"\b(Tensor|NDArray|Features|UInt8|Int64|Float32|Float64)\b")
SHAPE = re.compile(r"\([A-Z][A-Za-z0-9_, */+.-]*\)|\bshape\b|\bscalar\b", re.I)


def public():
    """(package, name, object) of everything that is handed on, each object once."""
    seen = set()
    for package in PACKAGES:
        module = importlib.import_module(package)
        for name in module.__all__:
            thing = getattr(module, name)
            if id(thing) not in seen:
                seen.add(id(thing))
                yield package, name, thing


def described(thing):
    """A class or function with the docstrings that say how it is made and called."""
    parts = [inspect.getdoc(thing) or ""]
    if inspect.isclass(thing):
        parts.append(inspect.getdoc(thing.__init__) or "")
    return "\n".join(parts)


FUNCTIONS = [(package, name, thing) for package, name, thing in public() if inspect.isfunction(thing)]
CLASSES = [(package, name, thing) for package, name, thing in public() if inspect.isclass(thing)]


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_hands_on_what_it_says(package):
    module = importlib.import_module(package)

    assert sorted(module.__all__) == sorted(set(module.__all__))
    for name in module.__all__:
        assert getattr(module, name) is not None
        # A module of that name would take the name's place as soon as somebody imports it.
        assert importlib.util.find_spec(f"{package}.{name}") is None, f"{package}.{name} is a module too"
    with pytest.raises(AttributeError, match="nothing_of_that_name"):
        _ = module.nothing_of_that_name


def test_the_libraries_have_a_face():
    assert {"minority", "datasets", "minority.sampling", "datasets.readers"} <= set(PACKAGES)
    assert len(FUNCTIONS) > 50
    assert len(CLASSES) > 50


def test_importing_the_libraries_imports_nothing_heavy():
    code = "import json, sys, minority, datasets, minority.sampling, datasets.runs; print(json.dumps([*sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)

    loaded = {name.split(".")[0] for name in json.loads(done.stdout)}
    assert {"minority", "datasets"} <= loaded
    assert not loaded & {"torch", "diffusers", "pyarrow", "pandas", "sklearn", "PIL"}


def listed(text):
    """What the docstring explains under Args or Attributes: names before a colon at the start of a line."""
    heads = re.findall(r"^\s*((?:[*`]*[A-Za-z_][A-Za-z_0-9]*[`]*(?:, )?)+): ", text, re.M)
    return {name.strip("*` ") for head in heads for name in head.split(",")}


def test_a_public_function_says_what_it_takes():
    problems = []
    for package, name, function in FUNCTIONS:
        taken = {parameter.lstrip("*") for parameter in inspect.signature(function).parameters}
        missing = taken - listed(described(function)) if len(taken) > 1 else set()
        problems += [f"{package}.{name}: {', '.join(sorted(missing))}"] if missing or not described(function) else []

    assert problems == [], "\n".join(problems)


def test_a_public_function_gives_the_shapes_of_arrays():
    problems = [
        f"{package}.{name}"
        for package, name, function in FUNCTIONS
        if ARRAYS.search(str(inspect.signature(function))) and not SHAPE.search(described(function))
    ]

    assert problems == [], "\n".join(problems)


def test_a_public_class_says_what_it_holds():
    problems = []
    for package, name, kind in CLASSES:
        fields = [field for field in getattr(kind, "__dataclass_fields__", {}) if not field.startswith("_")]
        fields += getattr(kind, "_fields", ())
        text = "\n".join(described(base) for base in kind.__mro__ if base.__module__.split(".")[0] in LIBRARIES)
        missing = (
            set(fields) - listed(text) - set(METHODS if issubclass(kind, SamplerSettings | CalibrationSpace) else ())
        )
        problems += [f"{package}.{name}: {', '.join(sorted(missing))}"] if missing or len(text.split()) < 4 else []

    assert problems == [], "\n".join(problems)


def raised(function):
    """Names of the exceptions that a function's own code raises."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    nodes = [node.exc for node in ast.walk(tree) if isinstance(node, ast.Raise) and node.exc is not None]
    calls = [node.func if isinstance(node, ast.Call) else node for node in nodes]
    return {node.id for node in calls if isinstance(node, ast.Name) and node.id.endswith("Error")}


def test_a_public_function_says_what_it_raises():
    problems = []
    for package, name, function in FUNCTIONS:
        missing = [error for error in sorted(raised(function)) if error not in described(function)]
        problems += [f"{package}.{name}: {', '.join(missing)}"] if missing else []

    assert problems == [], "\n".join(problems)
