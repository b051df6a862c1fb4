"""Every experiment file loads, holds what its golden copy says, and the README's words are true.

After a deliberate change of a config or a default:

    python tests/configs_test.py        rewrites tests/golden/configs/, for review in the diff
"""

import dataclasses
import importlib.util
import json
import pathlib
import re
import shlex

import pytest

from jssd import presets
from jssd.config import STAGES, Config, to_dict
from jssd.data import templates
from jssd.evals import benchmarks
from jssd.evals.benchmarks import catalogue
from jssd.rules import validate

ROOT = pathlib.Path(__file__).parents[1]
FILES = sorted((ROOT / "configs").glob("*.py"))
RUNS = [path for path in FILES if path.stem != "toy"]  # The toy has no model to run.
GOLDEN = ROOT / "tests" / "golden" / "configs"
TEXTS = sorted(
    str(path.relative_to(ROOT))
    for pattern in ("*.md", "docs/*.md", "launch/**/*.md", "third_party/*.md")
    for path in ROOT.glob(pattern)
)


def load(path, variant=""):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(variant), module.__doc__


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_config_is_what_its_golden_copy_says(path):
    config, _ = load(path)
    golden = GOLDEN / f"{path.stem}.json"
    assert golden.exists(), f"{golden} is missing. Run: python tests/configs_test.py"
    assert to_dict(config) == json.loads(golden.read_text()), (
        "If the change is meant, run: python tests/configs_test.py"
    )


def test_no_golden_copy_is_left_over():
    assert {path.stem for path in GOLDEN.glob("*.json")} == {path.stem for path in FILES}


@pytest.mark.parametrize("variant", presets.VARIANTS)
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_config_is_valid_in_every_variant(path, variant):
    config, _ = load(path, variant)
    assert type(config) is Config
    validate(config)
    assert config.name == path.stem + (f"-{variant}" if variant else "")


@pytest.mark.parametrize("arm", ["raw", "soft", "passed"])
def test_every_arm_is_valid(arm):
    config, docstring = load(ROOT / "configs" / "arms_smollm2.py", arm)
    validate(config)
    assert f"`{arm}`" in (docstring or "")
    assert (config.train.targets == "law", config.filter.correct) == (
        arm == "soft",
        "passed" if arm == "passed" else "",
    )


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_both_models_have_their_own_decoding(path):
    config, _ = load(path)
    assert config.evaluate.base_decode and config.evaluate.student_decode
    assert set(config.evaluate.benchmarks) <= {*benchmarks.SPLITS, *catalogue.LIVECODEBENCH}
    for name in (config.prompts.template, config.evaluate.template):
        assert config.prompts.repeat <= len(templates.get(name).stdin)


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_export_serves_the_students_own_decoding(path):
    config, _ = load(path)
    (own,) = [d for d in config.evaluate.decodes if d.name == config.evaluate.student_decode]
    export = config.export
    assert (export.temperature, export.top_k, export.top_p) == (
        own.temperature,
        own.top_k,
        own.top_p,
    )


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_smoke_only_shrinks(path):
    full, smoke = load(path)[0], load(path, "smoke")[0]
    assert smoke.model == full.model
    assert smoke.filter == full.filter
    assert smoke.evaluate.decodes == full.evaluate.decodes
    law = lambda config: dataclasses.replace(config.sampling, max_new_tokens=1, n=1)
    assert law(smoke) == law(full)
    for section in ("sampling", "engine", "train", "evaluate"):
        for field in dataclasses.fields(getattr(full, section)):
            small, large = (getattr(getattr(c, section), field.name) for c in (smoke, full))
            if type(large) is int and not (field.name == "limit" and large == 0):
                assert small <= large, f"{section}.{field.name} grew from {large} to {small}."


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_null_changes_only_the_law_that_training_samples_by(path):
    full, null = load(path)[0], load(path, "null")[0]
    law = null.sampling
    assert (law.temperature, law.top_k, law.top_p, law.min_p) == (1.0, 0, 1.0, 0.0)
    assert len(null.sweep.train_temperatures) <= 1 and not null.sweep.train_truncations
    assert set(null.sweep.train_temperatures) <= {1.0}
    for name in ("temperature", "top_k", "top_p", "min_p"):
        setattr(null.sampling, name, getattr(full.sampling, name))
    for name in ("train_temperatures", "train_truncations"):
        setattr(null.sweep, name, getattr(full.sweep, name))
    if path.stem == "arms_smollm2":  # There it is an arm, and the base is scored in another.
        for decode in null.evaluate.decodes:
            decode.models = ("base", "student")
        null.engine.keep_law = full.engine.keep_law  # Of no use to it: it shares no samples.
        own = full.evaluate.base_decode, full.evaluate.student_decode
        null.evaluate.base_decode, null.evaluate.student_decode = own
    assert dataclasses.replace(null, name=full.name) == full


def test_unknown_variant_is_refused_with_the_way_out():
    with pytest.raises(ValueError, match=r"variant='smok'.*:smoke"):
        load(ROOT / "configs" / "demo.py", "smok")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_docstring_gives_the_command_that_runs_it(path):
    _, doc = load(path)
    assert f"--config=configs/{path.name} " in (doc or "")


def _commands():
    """Command lines of the fenced and indented blocks of our texts, and of the config files."""
    for name in (*TEXTS, *(f"configs/{path.name}" for path in FILES)):
        text = (ROOT / name).read_text().replace("\\\n", " ")
        for line in text.splitlines():
            line = re.sub(r"^([A-Z_]+=\S+ )+", "", line.strip().removeprefix("$ "))
            if re.match(r"(\.venv/bin/)?(python|make|pip) ", line):
                yield name, line


@pytest.mark.parametrize(("where", "line"), sorted(set(_commands())))
def test_command_in_the_texts_is_true(where, line):
    words = shlex.split(line, comments=True)
    program, rest = pathlib.Path(words[0]).name, words[1:]
    if program == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M)
        assert {word for word in rest if "=" not in word} <= set(targets)
    elif program == "python" and rest[:2] == ["-m", "jssd.main"]:
        _check_run(rest[2:])
    elif program == "python" and rest[0] == "-m":
        assert importlib.util.find_spec(rest[1]), f"{where}: no module {rest[1]}."
    elif program == "python" and rest[0].endswith(".py"):
        assert (ROOT / rest[0]).exists(), f"{where}: {rest[0]} does not exist."
    elif program == "pip":
        extras = re.findall(r"jssd\[([\w,]+)\]|\.\[([\w,]+)\]", line)
        declared = re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(), re.M)
        for names in extras:
            assert set("".join(names).split(",")) <= set(declared)


def _check_run(flags):
    values = dict(flag.removeprefix("--").partition("=")[::2] for flag in flags)
    file, _, variant = values.pop("config").partition(":")
    config, _ = load(ROOT / file, variant)
    for flag in ("workdir", "distributed", "coordinator", "num_processes", "process_id"):
        values.pop(flag, None)
    assert set(values.pop("stages", "sample").split(",")) <= set(STAGES)
    for name in values:  # --config.section.field=value
        assert name.startswith("config."), f"--{name} is no flag."
        target = config
        for part in name.split(".")[1:]:
            assert hasattr(target, part), f"--{name} names no field of the config."
            target = getattr(target, part)


def test_tree_in_the_readme_names_only_what_exists():
    tree = (ROOT / "README.md").read_text().split("```text\njssd/", 1)[1].split("```", 1)[0]
    folders = ["jssd"]
    for line in tree.splitlines()[1:]:
        depth, name = (len(line) - len(line.lstrip())) // 2, line.split()[0]
        folders = [*folders[:depth], name.rstrip("/")]
        path = ROOT.joinpath(*folders)
        assert path.exists(), f"README.md's tree names {path.relative_to(ROOT)}."


if __name__ == "__main__":
    GOLDEN.mkdir(parents=True, exist_ok=True)
    for old in GOLDEN.glob("*.json"):
        old.unlink()
    for file in FILES:
        text = json.dumps(to_dict(load(file)[0]), indent=1) + "\n"
        (GOLDEN / f"{file.stem}.json").write_text(text)
