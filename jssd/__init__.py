"""jssd: simple self-distillation of language models for code, in JAX.

    import jssd
    model = jssd.load("path/to/model")
    answers = model.generate(["def add(a, b):"], jssd.Sampling(temperature=0.7, top_p=0.9))

The names are loaded on first use, so that importing the package costs nothing.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jssd.api import Completion, Model, Sampling, load, save

__all__ = ["Completion", "Model", "Sampling", "load", "save"]


def __getattr__(name: str):
    if name not in __all__:
        raise AttributeError(f"module 'jssd' has no attribute {name!r}")
    return getattr(importlib.import_module("jssd.api"), name)
