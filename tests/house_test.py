"""The house rules that a machine can check: docstrings, sizes, floors, and who loads what."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "jssd"
MODULES = sorted(PACKAGE.rglob("*.py"))
CHECKED = [
    *MODULES,
    *sorted((ROOT / "configs").glob("*.py")),
    *sorted((ROOT / "launch").glob("*.py")),
    *sorted((ROOT / "tests").rglob("*.py")),
    *sorted((ROOT / "third_party").glob("*.py")),
]
CEILING = 340  # Lines. A file much over 300 holds two things.
OWN_CEILING = {"jssd/config.py": 480}  # One page for every knob.
# A room, or a file of the top level, may import only from lower floors. Files of one room may
# import one another.
FLOORS = {
    "": 6,  # jssd/__init__.py
    "harness": 6,
    "main": 5,
    "api": 5,
    "stages": 4,
    "plan": 3,
    "analysis": 3,
    "sampling": 2,
    "train": 2,
    "weights": 2,
    "data": 1,
    "evals": 1,
    "model": 1,
    "bucket": 0,
    "config": 0,
    "goodput": 0,
    "growing": 0,
    "hosts": 0,
    "heartbeats": 0,
    "jsonl": 0,
    "metrics": 0,
    "trackers": 0,
    "owner": 0,
    "phases": 0,
    "places": 0,
    "presets": 0,
    "processes": 0,
    "rules": 0,
    "section_rules": 0,
    "sharding": 0,
    "status": 5,
    "survival": 0,
}
ON_ITS_OWN_FLOOR = {  # Floor 0 is the ground: these files build on one another.
    ("metrics", "growing"),
    ("metrics", "places"),
    ("metrics", "trackers"),
    ("goodput", "phases"),
    ("growing", "bucket"),
    ("growing", "places"),
    ("heartbeats", "places"),
    ("owner", "heartbeats"),
    ("owner", "places"),
    ("owner", "survival"),
    ("phases", "growing"),
    ("places", "bucket"),
    ("presets", "config"),
    ("processes", "config"),
    ("processes", "phases"),
    ("processes", "survival"),
    ("rules", "config"),
    ("rules", "section_rules"),
    ("section_rules", "config"),
    ("section_rules", "places"),
    ("sharding", "config"),
    ("survival", "config"),
    ("survival", "heartbeats"),
    ("survival", "phases"),
    ("trackers", "places"),
}
NUMPY_ONLY = ("data", "evals")
HEAVY = {"jax", "jaxlib", "flax", "optax", "orbax", "torch", "tensorflow", "transformers"}


def _name(path):
    return str(path.relative_to(ROOT))


def _room(path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return "" if parts == ("__init__",) else parts[0]


def _imports(path):
    """Full dotted names that `path` imports, at the top or inside a function."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{_name(path)}:{node.lineno} must import by its full name."
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", CHECKED, ids=_name)
def test_module_says_what_it_is(path):
    docstring = ast.get_docstring(ast.parse(path.read_text()))
    assert docstring, f"{_name(path)} needs a docstring."


@pytest.mark.parametrize("path", [*MODULES, *(ROOT / "launch").glob("*.py")], ids=_name)
def test_module_fits_the_head(path):
    lines = len(path.read_text().splitlines())
    ceiling = OWN_CEILING.get(_name(path), CEILING)
    assert lines <= ceiling, f"{_name(path)} has {lines} lines, more than {ceiling}. Split it."


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_imports_point_down(path):
    room = _room(path)
    for name in _imports(path):
        parts = name.split(".")
        if parts[0] != "jssd":
            continue
        other = parts[1] if len(parts) > 1 else ""
        if other == room or (room, other) in ON_ITS_OWN_FLOOR:
            continue
        assert other in FLOORS, f"{_name(path)} imports {name}, a room that has no floor."
        assert FLOORS[other] < FLOORS[room], (
            f"{_name(path)} (floor {FLOORS[room]}) imports {name} (floor {FLOORS[other]})."
        )


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_config_data_and_evals_stay_light(path):
    room = _room(path)
    roots = {name.split(".")[0] for name in _imports(path)}
    if room in NUMPY_ONLY:
        assert not roots & HEAVY, f"{_name(path)} imports {roots & HEAVY}; {room} is NumPy only."
    if room in ("config", "presets", "rules", "section_rules"):
        assert roots - {"jssd"} <= sys.stdlib_module_names


def test_there_is_no_drawer_for_odds_and_ends():
    names = {path.stem for path in MODULES}
    assert not names & {"utils", "util", "helpers", "common", "misc"}


def test_every_room_has_a_floor():
    rooms = {_room(path) for path in MODULES}
    assert rooms <= set(FLOORS), f"{rooms - set(FLOORS)} must be given a floor."


def test_no_tensorflow_and_a_face_that_costs_nothing():
    names = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in MODULES
        # These run as scripts inside the sandbox, on a bare interpreter.
        if _name(path) not in ("jssd/evals/child.py", "jssd/evals/inside.py")
    ]
    code = f"""
import importlib, sys
import jssd
print(sorted({HEAVY} & set(sys.modules)))
for name in {names}:
    importlib.import_module(name)
print(sorted({{"tensorflow", "torch"}} & set(sys.modules)))
"""
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=300
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines() == ["[]", "[]"]
