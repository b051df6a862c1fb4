"""What runs inside the sandbox: reads its orders, limits itself, then runs the program under test.

The text of `plain.py`, `released.py` and this file is handed to a bare interpreter
(`child.joined_text`), so it imports the standard library only. Orders arrive on standard input: ten
digits, the length, and that many bytes of JSON. Whatever the program does to this code, it only
changes what it hands back: the expected results are never here.
"""

import builtins
import contextlib
import functools
import json
import os
import sys
import types

from jssd.evals.plain import decode, encode
from jssd.evals.released import as_function, deliver, text_streams

READY = b"ready\n"  # On standard error before the program starts; from then on its time counts.

# Deep recursion is ordinary in contest answers; LiveCodeBench's own harness allows it as well.
RECURSION_LIMIT = 50_000


def main() -> None:
    """Runs one program to its end, as a script or as a server of calls."""
    orders = json.loads(_read_exactly(int(_read_exactly(10))))
    rules = orders["rules"]
    _limit(orders["limits"])
    if rules["recursion"] == "deep":
        sys.setrecursionlimit(RECURSION_LIMIT)
    # `site` would have added them; the paper's evaluator takes them away.
    builtins.exit = builtins.quit = None if rules["exit"] == "none" else sys.exit
    if orders["packages"]:
        sys.path.append(orders["packages"])
    sys.argv = ["solution.py"]
    serve = bool(orders["entry_point"])
    namespace = _namespace(orders, "__main__" if not serve and rules["script"] == "main" else "")
    if serve:
        calls, replies = private_channel()
        os.write(2, READY)
        _serve(orders, namespace, calls, replies)
    else:
        os.write(2, READY)
        _run(orders["source"], namespace, rules)


def _namespace(orders: dict, name: str = "") -> dict:
    """That of a new module, with what a program may take for granted."""
    module = types.ModuleType(name or "solution")
    sys.modules[module.__name__] = module
    exec(compile(orders["preamble"], "preamble.py", "exec"), module.__dict__)
    if orders["entry_point"] and not orders["rules"]["leetcode"]:
        load_starter(orders["starter_code"], orders["entry_point"], module.__dict__)
    return module.__dict__


def load_starter(starter_code: str, entry_point: str, namespace: dict) -> None:
    """Defines what the starter code gives (imports, helpers), except the function to be written.

    The answer then redefines what it likes, and what it takes for granted is there. Starter code
    may end in a bare signature.
    """
    for ending in ("", "    pass", "        pass"):
        with contextlib.suppress(SyntaxError):
            exec(compile(f"{starter_code}\n{ending}\n", "starter.py", "exec"), namespace)
            namespace.pop(entry_point, None)
            return
    raise ValueError("the starter code of this task is not Python, even with a body added")


def _run(source: str, namespace: dict, rules: dict) -> None:
    """The stdin form: the program owns standard input and output."""
    printed = status = None
    try:
        if rules["script"] == "function":
            exec(as_function(source), namespace)
            program = namespace["program"]
        else:
            program = functools.partial(exec, compile(source, "solution.py", "exec"), namespace)
        if rules["streams"] == "text":
            printed = text_streams()
        program()
    except SystemExit as end:
        status = end
    except Exception as error:
        os.write(2, f"\n{describe(error)}\n".encode("utf8", "replace"))
        sys.stdout.flush()
        os._exit(1)
    if printed is not None:
        deliver(printed)
    if status is not None and rules["exit"] != "none":
        raise status


def _serve(orders: dict, namespace: dict, calls: int, replies: int) -> None:
    """The function form: one line of arguments in, one line of result out, until input ends."""
    rules = orders["rules"]
    reply = {"value": None}
    try:
        function = _load(orders, namespace)
    except BaseException as error:
        reply = {"fail": _failure(error)}
    with open(replies, "wb", buffering=0) as out, open(calls, "rb") as lines:
        send(out, reply)
        if "fail" in reply:
            os._exit(0)
        for number, line in enumerate(lines):
            args, kwargs = decode(json.loads(line))
            if number and rules["leetcode"]:
                again = lambda *args: _load(orders, _namespace(orders))(*args)
                send(out, _call(again, args, kwargs, rules))
            else:
                send(out, _call(function, args, kwargs, rules))
    os._exit(0)  # Threads the program left behind must not keep this process.


def _load(orders: dict, namespace: dict):
    """Runs the program and finds the function that the tests call."""
    name, source = orders["entry_point"], orders["source"]
    exec(compile(source, "solution.py", "exec"), namespace)
    owner = namespace.get("Solution") if orders["rules"]["leetcode"] else None
    function = getattr(owner(), name, None) if isinstance(owner, type) else namespace.get(name)
    if function is None:
        raise NameError(f"the answer does not define {name}")
    return function


def _call(function, args: list, kwargs: dict, rules: dict) -> dict:
    try:
        value = function(*args, **kwargs)
    except BaseException as error:
        return {"fail": _failure(error)}
    try:
        return {"value": _text(value) if rules["values"] == "text" else encode(value)}
    except BaseException as error:
        return {"fail": ["bad_output", describe(error)]}


def _text(value) -> str:
    """What a result prints as, an outermost tuple as a list."""
    value = list(value) if isinstance(value, tuple) else value
    return value if isinstance(value, str) else str(value)


def _failure(error: BaseException) -> list[str]:
    memory = isinstance(error, MemoryError)
    return ["memory" if memory else "runtime_error", describe(error)]


def describe(error: BaseException) -> str:
    """One line about an error, whatever its own methods do."""
    try:
        text = " ".join(str(error).split())
    except BaseException:
        text = ""
    name = type(error).__name__
    return f"{name}: {text}"[:300] if text else name


def send(out, reply: dict) -> None:
    """Writes one line of JSON, however little of it the pipe takes at once."""
    data = json.dumps(reply).encode() + b"\n"
    while data:
        data = data[out.write(data) :]


def private_channel() -> tuple[int, int]:
    """Moves the pipes away from 0 and 1, so that prints and reads of the program do not disturb."""
    calls, replies = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.close(null)
    return calls, replies


def _read_exactly(size: int) -> bytes:
    """Bytes straight from the pipe: a buffer would swallow the start of the program's input."""
    data = b""
    while len(data) < size:
        chunk = os.read(0, size - len(data))
        if not chunk:
            raise EOFError("the orders ended early")
        data += chunk
    return data


def _limit(limits: dict[str, int]) -> None:
    """Sets hard resource limits, by the names of the `resource` module."""
    import resource

    for name, value in limits.items():
        resource.setrlimit(getattr(resource, name), (value, value))
