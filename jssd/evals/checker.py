"""The trusted process that runs a HumanEval-style `check(candidate)`.

`candidate` is a stand-in: it sends its arguments out, and the results come back as plain data from
the sandboxed program by way of the grader. So each assertion is evaluated here, with plain values,
where the program has no reach. The text of this file follows `plain.py` and `inside.py` in a bare
interpreter; it runs in a process of its own, because a check on hostile data must be stoppable.
"""

import json
import os
import resource

from jssd.evals.inside import READY, describe, load_starter, private_channel, send
from jssd.evals.plain import decode, encode

_MEMORY = 2 << 30  # Bytes of address space: a few times the largest reply, decoded.


class CandidateGone(BaseException):
    """The stand-in got no value. Not an Exception, so that no check can swallow it."""


def judge() -> None:
    """Runs one check: reads its orders, asks for calls, and ends with a verdict."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    requests, replies = private_channel()
    with open(requests, "rb") as lines, open(replies, "wb", buffering=0) as out:
        orders = json.loads(lines.readline())

        def candidate(*args, **kwargs):
            send(out, {"call": encode([list(args), kwargs])})
            line = lines.readline()
            if not line:
                raise CandidateGone("the grader hung up")
            try:
                return decode(json.loads(line))
            except (ValueError, TypeError, RecursionError) as error:
                raise CandidateGone(describe(error)) from error

        namespace: dict = {"__name__": "check"}
        load_starter(orders["starter_code"], orders["entry_point"], namespace)
        namespace[orders["entry_point"]] = candidate  # HumanEval/33 calls it by its name as well.
        exec(compile(orders["check_source"], "check.py", "exec"), namespace)
        os.write(2, READY)
        verdict = _verdict(namespace["check"], candidate)
        send(out, {"verdict": verdict, "token": orders["token"]})


def _verdict(check, candidate) -> list[str]:
    try:
        check(candidate)
    except CandidateGone as error:
        return ["bad_output", str(error)]
    except (
        Exception
    ) as error:  # A result of the wrong type makes a check stumble; that is wrong too.
        return ["wrong_answer", describe(error)]
    return ["passed", ""]
