"""What runs inside the sandbox: reads its orders, limits itself, then runs the program under test.

The text of `plain.py` and of this file is handed to a bare interpreter (`child.joined_text`), so it
imports the standard library only. Orders arrive on standard input: ten digits, the length, and that
many bytes of JSON. Whatever the program does to this code, it only changes what it hands back: the
expected results are never here.
"""

import builtins
import contextlib
import json
import os
import sys
import types

from jssd.evals.plain import decode, encode

READY = b"ready\n"  # On standard error before the program starts; from then on its time counts.

# Deep recursion is ordinary in contest answers; the paper's harness raises the limit as well.
RECURSION_LIMIT = 50_000


def main() -> None:
    """Runs one program to its end, as a script or as a server of calls."""
    orders = json.loads(_read_exactly(int(_read_exactly(10))))
    _limit(orders["limits"])
    sys.setrecursionlimit(RECURSION_LIMIT)
    builtins.exit = builtins.quit = sys.exit  # `site` would have added them.
    serve = bool(orders["entry_point"])
    name = "solution" if serve else "__main__"
    module = types.ModuleType(name)
    sys.modules[name] = module
    sys.argv = ["solution.py"]
    exec(compile(orders["preamble"], "preamble.py", "exec"), module.__dict__)
    if serve:
        load_starter(orders["starter_code"], orders["entry_point"], module.__dict__)
        calls, replies = private_channel()
        os.write(2, READY)
        _serve(orders, module.__dict__, calls, replies)
    else:
        os.write(2, READY)
        _run(orders["source"], module.__dict__)


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


def _run(source: str, namespace: dict) -> None:
    """The stdin form: the program owns standard input and output."""
    try:
        exec(compile(source, "solution.py", "exec"), namespace)
    except Exception as error:
        os.write(2, f"\n{describe(error)}\n".encode("utf8", "replace"))
        sys.stdout.flush()
        os._exit(1)


def _serve(orders: dict, namespace: dict, calls: int, replies: int) -> None:
    """The function form: one line of arguments in, one line of result out, until input ends."""
    reply = {"value": None}
    try:
        exec(compile(orders["source"], "solution.py", "exec"), namespace)
        function = namespace.get(orders["entry_point"])
        if function is None:
            raise NameError(f"the answer does not define {orders['entry_point']}")
    except BaseException as error:
        reply = {"fail": _failure(error)}
    with open(replies, "wb", buffering=0) as out, open(calls, "rb") as lines:
        send(out, reply)
        if "fail" in reply:
            os._exit(0)
        for line in lines:
            args, kwargs = decode(json.loads(line))
            send(out, _call(function, args, kwargs))
    os._exit(0)  # Threads the program left behind must not keep this process.


def _call(function, args: list, kwargs: dict) -> dict:
    try:
        value = function(*args, **kwargs)
    except BaseException as error:
        return {"fail": _failure(error)}
    try:
        return {"value": encode(value)}
    except BaseException as error:
        return {"fail": ["bad_output", describe(error)]}


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
