# Everything runs in .venv, made by the first target that needs it. Needs Python 3.11 or later, with
# venv and pip. `make demo PYTHON=python3.11` picks another Python.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
MODEL := assets/SmolLM2-135M-Instruct.Q4_1.gguf
STAMPS := $(VENV)/.stamps
WORKERS ?= 2

.PHONY: help demo test lint venv model clean

help:
	@echo "make demo    sample, train, export, evaluate and report on a small model, on a CPU"
	@echo "make test    lint, type check and all tests"
	@echo "make lint    ruff and pyright only"
	@echo "make venv    .venv with everything a contributor needs"
	@echo "make model   the demo's model, 98 MB, into assets/"
	@echo "make clean   removes caches; runs/, assets/ and .venv stay"

# Large buffers in huge pages: fewer page faults, a training step some tenth faster (docs/scale.md).
demo: export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1
demo: $(STAMPS)/demo $(MODEL)
	$(BIN)/python -m jssd.main --config=configs/demo.py --workdir=runs/demo
	@echo "The report is in runs/demo/report/index.html."

test: lint $(MODEL)
	$(BIN)/python -m pytest -n $(WORKERS)

lint: $(STAMPS)/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

venv: $(STAMPS)/test

model: $(MODEL)

$(MODEL): third_party/fetch_smollm2.py | $(STAMPS)
	$(BIN)/python third_party/fetch_smollm2.py
	@touch $@

$(STAMPS)/demo: pyproject.toml constraints.txt | $(STAMPS)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[demo]'
	@touch $@

$(STAMPS)/test: pyproject.toml constraints.txt | $(STAMPS)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	@touch $@ $(STAMPS)/demo

$(STAMPS):
	@$(PYTHON) -c 'import sys; sys.exit("jssd needs Python 3.11 or later; this is %d.%d. Use make PYTHON=..." % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	@mkdir -p $@

clean:
	rm -rf .cache .pytest_cache .ruff_cache .hypothesis build dist *.egg-info
	find jssd configs tests third_party -name __pycache__ -prune -exec rm -rf {} +
