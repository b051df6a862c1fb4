"""Hostile programs: none may pass, end this process, or leave anything running or on disk."""

import os
import secrets
import socket
import time
from pathlib import Path

import pytest

from jssd.evals import grading, watch
from jssd.evals.benchmarks import CallTest, StdinTest, Task
from jssd.evals.protocol import Protocol

# What a program would have to know. Never sent to a sandbox.
SECRET = "only-the-grader-knows-7319"
CALLS = Task(
    id="attacked/calls",
    statement="",
    starter_code="def answer(x):",
    entry_point="answer",
    tests=(CallTest((1,), SECRET), CallTest((2,), SECRET)),
)
CHECK = Task(
    id="attacked/check",
    statement="",
    starter_code="def answer(x):",
    entry_point="answer",
    check_source=f"def check(candidate):\n    for x in (1, 2):\n"
    f"        assert candidate(x) == {SECRET!r}\n",
)
SCRIPT = Task(
    id="attacked/script", statement="", tests=(StdinTest("1\n", SECRET), StdinTest("2\n", SECRET))
)

# Name -> program and the verdicts that are right for it as a function.
ATTACKS = {
    "exits": ("import sys\nsys.exit(0)\n", {"runtime_error"}),
    "exits at once": ("import os\nos._exit(0)\n", {"runtime_error"}),
    "exits when called": (
        "import os\ndef answer(x):\n    os._exit(0)\n",
        {"runtime_error"},
    ),
    "loops": ("while True: pass\n", {"timeout"}),
    "sleeps": ("import time\ndef answer(x):\n    time.sleep(60)\n", {"timeout"}),
    "ignores signals": (
        "import signal\n"
        "for number in range(1, 65):\n"
        "    try: signal.signal(number, signal.SIG_IGN)\n"
        "    except (OSError, ValueError): pass\n"
        "while True: pass\n",
        {"timeout"},
    ),
    "eats memory": ("data = b'x' * (4 << 30)\n", {"memory"}),
    "eats memory slowly": ("data = []\nwhile True: data.append(' ' * (1 << 20))\n", {"memory"}),
    "recurses": ("def answer(x): return answer(x)\n", {"runtime_error"}),
    "crashes": ("import ctypes\nctypes.string_at(0)\n", {"runtime_error"}),
    "is not Python": ("def answer(x:\n", {"runtime_error"}),
    "floods errors": (
        "import os\nwhile True: os.write(2, b'x' * 65536)\n",
        {"output_limit"},
    ),
    "floods the replies": (
        "import os\nwhile True:\n"
        "    for fd in range(3, 30):\n"
        "        try: os.write(fd, b'x' * 65536)\n"
        "        except OSError: pass\n",
        {"output_limit"},
    ),
    "returns too much": ("def answer(x): return 'x' * (8 << 20)\n", {"output_limit"}),
    "writes a big file": (
        "file = open('big', 'wb')\nfor _ in range(1000): file.write(b'x' * (1 << 20))\n",
        {"runtime_error"},
    ),
    "closes all pipes": (
        "import os, time\nos.closerange(0, 64)\ntime.sleep(60)\n",
        {"timeout", "runtime_error"},
    ),
    "forges replies": (
        "import os\n"
        'forged = b\'{"value": null}\\n\' * 3 + b\'{"verdict": ["passed", ""]}\\n\' * 3\n'
        "for fd in range(3, 30):\n"
        "    try: os.write(fd, forged)\n"
        "    except OSError: pass\n"
        "def answer(x): return x\n",
        {"wrong_answer", "bad_output"},
    ),
    "claims a verdict": (
        "import os\n"
        "for fd in range(3, 30):\n"
        '    try: os.write(fd, b\'{"fail": ["passed", ""]}\\n\')\n'
        "    except OSError: pass\n",
        {"bad_output"},
    ),
    "sends garbage": (
        "import os\n"
        "for fd in range(3, 30):\n"
        "    try: os.write(fd, b'[' * 100000 + b'\\n')\n"
        "    except OSError: pass\n",
        {"bad_output"},
    ),
    "equals everything": (
        "class Same:\n"
        "    def __eq__(self, other): return True\n"
        "    __hash__ = object.__hash__\n"
        "def answer(x): return Same()\n",
        {"bad_output"},
    ),
    "equals everything as text": (
        "class Same(str):\n"
        "    def __eq__(self, other): return True\n"
        "    __hash__ = str.__hash__\n"
        "def answer(x): return Same('guess')\n",
        {"wrong_answer"},
    ),
    "patches the machinery": (
        "import builtins, json\n"
        "import __main__\n"
        "same = lambda *_, **__: True\n"
        "str.join  # plain types cannot be patched, modules can\n"
        "for name in ('encode', 'decode', '_call', '_failure', 'describe'):\n"
        "    setattr(__main__, name, same)\n"
        'json.dumps = lambda *_, **__: \'{"verdict": ["passed", ""]}\'\n'
        "builtins.isinstance = builtins.all = builtins.type = same\n"
        "def answer(x): return 1\n",
        {"bad_output", "runtime_error", "wrong_answer"},
    ),
    "searches for the answers": (
        "import gc, sys\n"
        "def texts(thing, depth=0):\n"
        "    if isinstance(thing, (str, bytes)): yield str(thing)\n"
        "    elif depth < 4 and isinstance(thing, dict):\n"
        "        for key, value in list(thing.items()):\n"
        "            yield from texts(key, depth + 1)\n"
        "            yield from texts(value, depth + 1)\n"
        "    elif depth < 4 and isinstance(thing, (list, tuple)):\n"
        "        for value in list(thing): yield from texts(value, depth + 1)\n"
        "def answer(x):\n"
        "    frame, places = sys._getframe(), list(gc.get_objects())\n"
        "    while frame:\n"
        "        places += [dict(frame.f_locals), dict(frame.f_globals)]\n"
        "        frame = frame.f_back\n"
        "    mark = 'only-the-grader' + '-knows-'\n"
        "    for place in places:\n"
        "        for text in texts(place):\n"
        "            if mark in text: return text[text.index(mark):][:26]\n",
        {"wrong_answer", "timeout", "runtime_error"},
    ),
    "nests without end": (
        "def answer(x):\n    deep = []\n"
        "    for _ in range(10000): deep = [deep]\n    return deep\n",
        {"bad_output"},
    ),
    "returns itself": (
        "def answer(x):\n    loop = []\n    loop.append(loop)\n    return loop\n",
        {"bad_output"},
    ),
}


def grade(
    task: Task, program: str, sandbox, timeout: float = 5.0, memory_mb: int = 400
) -> grading.Grade:
    return grading.grade_program(
        task, program, sandbox=sandbox, protocol=Protocol(seconds=timeout), memory_mb=memory_mb
    )


@pytest.mark.parametrize("name", ATTACKS)
def test_attack_does_not_pass_and_leaves_nothing(any_way, name, temp_root):
    program, verdicts = ATTACKS[name]
    mark, ours = secrets.token_hex(7), watch.tree(os.getpid())
    result = grade(CALLS, _named(mark) + program, any_way, _patience(verdicts))
    assert result.verdict in verdicts, result
    assert "\n" not in result.detail
    assert result.seconds < 4
    assert _left(mark) == []
    assert watch.tree(os.getpid()) == ours  # Of the wall, too.
    assert os.listdir(temp_root) == []


@pytest.mark.parametrize("name", ATTACKS)
def test_attack_does_not_pass_a_check(sandbox, name):
    program, verdicts = ATTACKS[name]
    result = grade(CHECK, program, sandbox, _patience(verdicts))
    assert result.verdict in verdicts, result


@pytest.mark.parametrize("name", ATTACKS)
def test_attack_does_not_pass_as_a_script(sandbox, name):
    program = f"{ATTACKS[name][0]}\nprint(answer(int(input())))\n"
    result = grade(SCRIPT, program, sandbox, 0.5)
    assert not result.passed, result


def test_script_that_floods_its_output_is_stopped(any_way):
    result = grade(SCRIPT, "while True: print('x' * 1000)\n", any_way)
    assert result.verdict == "output_limit"


@pytest.mark.parametrize("how", ["detaches", "forks"])
def test_processes_do_not_outlive_the_run(any_way, how, temp_root):
    mark = secrets.token_hex(8)
    become = f"os.execv('/bin/sh', ['sh', '-c', 'sleep 300; : {mark}'])"
    program = {
        "detaches": "import os\nif os.fork() == 0:\n    os.setsid()\n"
        f"    if os.fork() == 0:\n        {become}\n    os._exit(0)\n",
        # As many as a bomb gets where their number is limited; small enough where it is not.
        "forks": f"import os\nfor _ in range(80):\n    if os.fork() == 0:\n        {become}\n",
    }[how]
    result = grade(CALLS, f"{program}\nimport time\ntime.sleep(1)\n", any_way, 0.5)
    assert not result.passed
    assert _left(mark, "cmdline") == []
    assert os.listdir(temp_root) == []


def test_program_that_kills_its_parent_ends_only_itself(any_way):
    mark = secrets.token_hex(7)
    program = (
        f"{_named(mark)}import os, signal, time\nparent = os.getppid()\n"
        "if os.fork() == 0:\n    os.setsid()\n    time.sleep(300)\n"
        "os.kill(parent, signal.SIGKILL)\ntime.sleep(300)\n"
    )
    result = grade(CALLS, program, any_way, 1.0)
    # Where the wall is out of its reach, it only waits until its time is over.
    assert result.verdict in {"runtime_error", "wrong_answer", "timeout"}
    assert _left(mark) == []


def test_program_that_kills_all_it_can_ends_only_itself(not_same_user):
    mark, ours = secrets.token_hex(7), watch.tree(os.getpid())
    program = (
        f"{_named(mark)}import os, signal, time\n"
        "if os.fork() == 0:\n    os.setsid()\n    time.sleep(300)\n"
        "os.kill(-1, 9)\ndef answer(x): return 1\n"
    )
    assert not grade(CALLS, program, not_same_user).passed
    assert _left(mark) == []
    assert watch.tree(os.getpid()) == ours


@pytest.mark.parametrize("how", ["in their group", "each on its own", "shut"])
def test_memory_of_all_processes_together_is_limited(any_way, how):
    mark = secrets.token_hex(7)
    # 4 GB in all, each far below the limit. What shares its pages with its parent is held once.
    hide = {
        "in their group": "",
        "each on its own": "os.setsid(); os.fork() and os._exit(0)",
        "shut": "ctypes.CDLL(None).prctl(4, 0)",  # Others may not read how much it shares.
    }[how]
    program = (
        f"{_named(mark)}import os, time\nfor _ in range(20):\n    if os.fork() == 0:\n"
        f"        {hide}\n        data = bytearray(200 << 20)\n"
        "        for place in range(0, len(data), 4096): data[place] = 1\n        time.sleep(300)\n"
        "time.sleep(300)\n"
    )
    result = grade(CALLS, program, any_way, 20.0, memory_mb=512)
    assert result.verdict == "memory" and "its processes together held" in result.detail, result
    assert "more than 512" in result.detail and result.seconds < 15
    assert _left(mark) == []


def test_memory_that_processes_share_is_counted_once(any_way):
    program = (
        "import os, time\ndata = bytearray(b'x' * (150 << 20))\nchildren = []\n"
        "for _ in range(8):\n    pid = os.fork()\n    if pid == 0:\n"
        "        total = sum(data[::4096])\n        time.sleep(0.5)\n        os._exit(0)\n"
        "    children.append(pid)\n"
        f"for pid in children: os.waitpid(pid, 0)\nprint({SECRET!r})\n"
    )
    task = Task(id="shares", statement="", tests=(StdinTest("", SECRET),))
    assert grade(task, program, any_way, 20.0, memory_mb=512).passed  # Nine times 150 is more.


def test_no_network(walled):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        program = (
            "import socket\n"
            f"socket.create_connection(('127.0.0.1', {port}), timeout=1)\n"
            f"print({SECRET!r})\n"
        )
        result = grade(SCRIPT, program, walled)
    assert result.verdict == "runtime_error"
    assert "OSError" in result.detail or "Refused" in result.detail


def test_files_of_the_machine_are_out_of_sight(walled, tmp_path):
    mine = tmp_path / "mine.txt"
    mine.write_text(SECRET)
    for place in [
        mine,
        Path(grading.__file__),
        Path("/etc/passwd"),
        Path("/proc/sys/kernel/core_pattern"),
    ]:
        access = "w" if str(place).startswith("/proc") else "r"
        result = grade(SCRIPT, f"open({str(place)!r}, {access!r})\n", walled)
        assert result.verdict == "runtime_error", place


def test_environment_of_this_process_is_not_handed_on(any_way, monkeypatch):
    monkeypatch.setenv("MY_TOKEN", SECRET)
    result = grade(SCRIPT, "import os\nprint(os.environ['MY_TOKEN'])\n", any_way)
    assert result.verdict == "runtime_error"


def test_private_files_of_this_user_cannot_be_read_or_changed(not_same_user, tmp_path):
    tmp_path.chmod(0o755)
    secret = tmp_path / "secret.txt"
    secret.write_text(SECRET)
    secret.chmod(0o600)
    for program in (f"print(open({str(secret)!r}).read())", f"open({str(secret)!r}, 'w')"):
        assert grade(SCRIPT, program, not_same_user).verdict == "runtime_error"
    assert secret.read_text() == SECRET


def test_files_written_elsewhere_do_not_stay(not_same_user):
    mark = f"jssd-left-{secrets.token_hex(8)}"
    folders = ["/tmp", "/var/tmp", "/dev/shm", os.path.expanduser("~"), "/"]
    program = (
        f"import os\nfor folder in {folders!r}:\n"
        f"    try:\n        os.mkdir(f'{{folder}}/{mark}')\n"
        f"        open(f'{{folder}}/{mark}/file', 'w').write('x')\n"
        f"        os.chmod(f'{{folder}}/{mark}', 0)\n"
        "    except OSError: pass\n"
    )
    assert not grade(SCRIPT, program, not_same_user).passed
    assert [f for f in folders if os.path.exists(f"{f}/{mark}")] == []


def test_own_folder_without_rights_is_removed(any_way, temp_root):
    program = (
        "import os\nos.makedirs('a/b')\nopen('a/b/c', 'w')\nos.chmod('a', 0)\nos.chmod('.', 0)"
    )
    grade(SCRIPT, program, any_way)
    assert os.listdir(temp_root) == []


def test_slow_comparison_is_stopped(sandbox):
    # All these have hash 0, so building a set of them takes quadratic time.
    program = "def answer(x): return {k * (2**61 - 1) for k in range(1, 60000)}\n"
    crafted = (
        "import os\nreply = '{\"set\": [' + ','.join(str(k * (2**61 - 1)) for k in range(90000))"
        " + ']}'\ndata = b'{\"value\": ' + reply.encode() + b'}\\n'\n"
        "start = b'{\"value\": null}\\n'\n"
        "for fd in range(3, 30):\n"
        "    try:\n"
        "        sent = os.write(fd, start + data)\n"
        "    except OSError: continue\n"
        "while True: pass\n"
    )
    for task in (CALLS, CHECK):
        for text in (program, crafted):
            result = grade(task, text, sandbox, 1.0)
            assert not result.passed
            assert result.seconds < 3


def test_fork_bomb_ends_without_a_trace(not_same_user, temp_root):
    mark = secrets.token_hex(7)
    program = f"{_named(mark)}import os\nwhile True: os.fork()\n"
    result = grade(CALLS, program, not_same_user, 1.0)
    assert result.verdict in {"runtime_error", "timeout", "memory", "output_limit"}, result
    assert result.seconds < 4
    assert _left(mark) == []
    assert os.listdir(temp_root) == []


def test_memory_of_the_grader_cannot_be_read(not_same_user):
    program = (
        "import os\nfound = []\n"
        f"for name in ('mem', 'environ', 'maps', 'fd/0', 'root', 'cwd'):\n"
        f"    try: found.append(os.stat(path := '/proc/{os.getpid()}/' + name))\n"
        "    except OSError: continue\n"
        "    try: open(path, 'rb').read(1)\n"
        "    except OSError: found.pop()\n"
        f"print(found or {SECRET!r})\n"
    )
    task = Task(id="peeks", statement="", tests=(StdinTest("", SECRET),))
    assert grade(task, program, not_same_user).passed  # Here a pass says that nothing was found.


def test_folders_in_sight_are_read_only_and_the_temporary_one_is_small(walled):
    shown = ["/", "/usr", "/usr/lib", "/bin", "/dev", "/proc", *walled.interpreter.prefixes]
    program = (
        "import os\nwritten = []\n"
        f"for folder in {shown!r}:\n"
        "    try: written.append(open(folder + '/x', 'w').name)\n"
        "    except OSError: pass\n"
        "total = 0\n"
        "try:\n"
        "    while total < 1 << 30:\n"
        "        with open(f'/tmp/{total}', 'wb') as file: total += file.write(bytes(100000))\n"
        "except OSError: pass\n"
        f"limit = {16 << 20}\n"
        f"print(written or (total if not limit / 2 < total <= limit else {SECRET!r}))\n"
    )
    task = Task(id="writes", statement="", tests=(StdinTest("", SECRET),))
    assert grade(task, program, walled).passed


def test_links_in_its_own_folder_are_not_followed_when_it_is_removed(any_way, tmp_path, temp_root):
    tmp_path.chmod(0o755)
    (tmp_path / "target").write_text("kept")
    (tmp_path / "target").chmod(0o400)
    program = (
        f"import os\nos.makedirs('a/b')\nos.symlink({str(tmp_path)!r}, 'a/b/link')\n"
        f"os.symlink({str(tmp_path / 'target')!r}, 'link')\nos.symlink('/', 'root')\n"
        "os.chmod('a', 0)\n"
    )
    grade(SCRIPT, program, any_way)
    assert os.listdir(temp_root) == []
    assert (tmp_path / "target").read_text() == "kept"
    assert (tmp_path / "target").stat().st_mode & 0o777 == 0o400
    assert tmp_path.stat().st_mode & 0o777 == 0o755


def test_honest_programs_among_attackers_get_their_own_verdicts(sandbox, temp_root):
    honest = f"def answer(x): return {SECRET!r}\n"
    names = ["exits at once", "is not Python", "forges replies", "floods errors", "crashes"]
    programs = [text for name in names for text in (ATTACKS[name][0], honest)]
    fenced = [f"```python\n{text}# {place}\n```" for place, text in enumerate(programs)]
    found = grading.grade_many(
        [CALLS] * len(fenced), fenced, sandbox=sandbox, workers=8, memory_mb=400
    )
    assert [grade.passed for grade in found] == [False, True] * len(names)
    assert all(found[2 * i].verdict in ATTACKS[name][1] for i, name in enumerate(names))
    assert os.listdir(temp_root) == []


def test_link_left_behind_does_not_change_what_it_points_to(not_same_user, tmp_path):
    tmp_path.chmod(0o755)
    target = tmp_path / "target"
    target.write_text("x")
    target.chmod(0o400)
    link = f"/tmp/jssd-link-{secrets.token_hex(8)}"
    grade(SCRIPT, f"import os\nos.symlink({str(target)!r}, {link!r})\n", not_same_user)
    assert not os.path.lexists(link)
    assert target.stat().st_mode & 0o777 == 0o400


def _patience(verdicts: set[str]) -> float:
    """Seconds: short for what only time can end, long where a busy machine must not decide."""
    return 0.5 if "timeout" in verdicts else 5.0


def _named(mark: str) -> str:
    """The start of a program that gives its process a name. Its forks inherit it."""
    assert len(mark) < 16  # The kernel keeps no more.
    return f"import ctypes\nctypes.CDLL(None).prctl(15, b'{mark}')\n"


def _left(mark: str, file: str = "comm") -> list[str]:
    """Processes that still have the mark once they had time to die."""
    deadline = time.monotonic() + 3
    while (found := _processes_with(mark, file)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return found


def _processes_with(mark: str, file: str) -> list[str]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (folder / file).read_bytes():
                found.append(folder.name)
        except OSError:
            continue
    return found
