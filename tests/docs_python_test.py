"""The Python of the texts runs, on a tiny model in the place of the one that it names."""

import contextlib
import io
import re
from typing import Any

import numpy as np
import pytest

import jssd
from tests.docs_test import PAGES, ROOT
from tests.e2e import conftest
from tests.sampling import jetstream_test

pytestmark = pytest.mark.filterwarnings("ignore")  # Of lm-evaluation-harness.
BLOCKS = {
    f"{path.relative_to(ROOT)}:{text[: match.start()].count(chr(10)) + 1}": match[1]
    for path in PAGES
    for text in [path.read_text()]
    for match in re.finditer(r"^```python\n(.*?)^```", text, re.M | re.S)
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return jssd.load(str(conftest.make_model(tmp_path_factory.mktemp("docs") / "model")))


def _jetstream(model, monkeypatch) -> dict[str, Any]:
    """The page's names for what one has. JetStream's package is 3.2 GB: its interface stands in."""
    jetstream_test._install(monkeypatch, jetstream_test.OLD)
    return {
        "params": model.params, "cfg": model.cfg, "tokenizer": model.tokenizer,
        "ids": np.arange(1, 9, dtype=np.int32),
    }  # fmt: skip


def _harness(model, monkeypatch) -> dict[str, Any]:
    """gsm8k would be fetched: that the model is one of the harness's is what is left."""
    lm_eval = pytest.importorskip("lm_eval")

    def evaluate(model, tasks):
        assert isinstance(model, lm_eval.api.model.LM) and tasks == ["gsm8k"]

    monkeypatch.setattr(lm_eval, "simple_evaluate", evaluate)
    return {}


GIVEN = {"docs/jetstream.md": _jetstream, "docs/evaluation.md": _harness}


@pytest.mark.parametrize("place", BLOCKS)
def test_python_of_the_texts_runs(place, model, tmp_path, monkeypatch):
    """What a block prints goes unread: the tiny model's words are random."""
    page = place.split(":")[0]
    given = GIVEN[page](model, monkeypatch) if page in GIVEN else {}
    load = jssd.load
    monkeypatch.setattr(jssd, "load", lambda path: load(str(model.folder)))
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = dict(given)
    with contextlib.redirect_stdout(io.StringIO()):
        exec(compile(BLOCKS[place], place, "exec"), names)
    if "jssd.save" in BLOCKS[place]:
        assert (tmp_path / "runs/copy/model.safetensors").exists()
    if page == "docs/jetstream.md":
        assert names["result"].data.shape[0] == 32
    elif page in ("README.md", "docs/quickstart.md"):
        assert len(names["answers"]) in (1, 4)


def test_blocks_are_found_in_each_page_that_has_them():
    assert {place.split(":")[0] for place in BLOCKS} == {
        "README.md", "docs/quickstart.md", *GIVEN,
    }  # fmt: skip
