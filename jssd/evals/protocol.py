"""How answers are read, run and judged: one named choice per rule, and the imports a program finds.

The defaults are this project's own. The rules that the paper's evaluator follows instead, and why,
stand in `benchmarks/livecodebench.py`; what they do to a running program, in `released.py`.
"""

import dataclasses

# What programs find imported. Answers to contest problems often leave imports out.
PREAMBLES = {
    "standard": """
import bisect, collections, copy, datetime, functools, heapq, itertools, json, math, operator
import random, re, string, sys, typing
from bisect import bisect, bisect_left, bisect_right, insort
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from functools import cache, cmp_to_key, lru_cache, reduce
from heapq import heapify, heappop, heappush, heappushpop, heapreplace, nlargest, nsmallest
from itertools import accumulate, chain, combinations, count, cycle, groupby, islice
from itertools import permutations, product, repeat, zip_longest
from math import ceil, comb, factorial, floor, gcd, inf, isqrt, log, log2, pi, sqrt
from typing import Any, Callable, Dict, Iterable, List, Optional, Set, Tuple, Union
""",
    # The names that the paper's evaluator puts there: `bisect` is the module, `pi` is missing.
    "release": """
import bisect, collections, copy, functools, heapq, itertools, math, operator, random, re, string
import sys
from bisect import bisect_left, bisect_right, insort
from collections import Counter, OrderedDict, defaultdict, deque
from copy import deepcopy
from functools import cache, lru_cache, partial, reduce
from heapq import heapify, heappop, heappush, merge
from itertools import accumulate, chain, combinations, count, cycle, groupby, islice
from itertools import permutations, product, repeat, zip_longest
from math import ceil, comb, floor, gcd, inf, isqrt, log, log10, log2, prod, sqrt
from operator import iand, itemgetter, sub
from os.path import commonprefix
from random import randrange, shuffle
from re import search as re_search
from string import ascii_lowercase
from typing import Any, Callable, Dict, Generator, Iterable, Iterator, List, Optional, Set, Tuple
from typing import Union
""",
}
# Only where `evaluate.packages` brings them: the interpreter of the sandbox is bare.
PACKAGES_PREAMBLE = "import numpy as np\nimport pandas as pd\n"


@dataclasses.dataclass(frozen=True)
class Protocol:
    """The rules one benchmark's answers are graded by.

    Attributes:
      extraction: which part of an answer is the program, a name in `extract.RULES`.
      preamble: what is imported before it, a name in `PREAMBLES`.
      script: "main" runs a stdin program as a script. "function" runs it inside a function.
      streams: "pipes" are real. "text" are stand-ins with the whole input in memory.
      exit: "status" lets `exit()` end a program, which fails unless its status is 0. "none" has no
        `exit` and `quit`, and takes SystemExit with any status as a normal end.
      recursion: "deep" allows 50,000 frames, "default" what Python allows by itself.
      values: how a function's result is compared: "typed" (`compare.same_value`), "loose" (the
        same with tuples as lists), or "text" (what it prints as, by `compare.same_output`).
      leetcode: the function may be a method of a class `Solution`; every test gets a program loaded
        anew; the starter code's own definitions are not there.
      seconds: wall clock for all tests of a program together,
      seconds_per_test: and for each of its tests so much more.
      seconds_each: most that one test may take; 0 sets no such limit.
    """

    extraction: str = "last_fence"
    preamble: str = "standard"
    script: str = "main"
    streams: str = "pipes"
    exit: str = "status"
    recursion: str = "deep"
    values: str = "typed"
    leetcode: bool = False
    seconds: float = 10.0
    seconds_per_test: float = 0.0
    seconds_each: float = 0.0

    def budget(self, num_tests: int) -> float:
        """Seconds of wall clock for a program with so many tests."""
        return self.seconds + self.seconds_per_test * num_tests

    def orders(self) -> dict:
        """What the process that runs the program has to know of the rules."""
        names = ("script", "streams", "exit", "recursion", "values", "leetcode")
        return {name: getattr(self, name) for name in names}
