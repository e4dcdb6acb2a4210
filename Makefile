# Everything runs in .venv, which the first call makes; PYTHON chooses another interpreter for it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
TOOLS := $(VENV)/.tools

.DEFAULT_GOAL := help
.PHONY: help install demo test check clean
.DELETE_ON_ERROR:

help:
	@echo "make demo    archive, verify and restore the photographs in docs/demo, and show the result"
	@echo "make test    run the tests"
	@echo "make check   lint, formatting, types"
	@echo "make clean   remove what the other targets wrote (the environment in $(VENV) stays)"

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "recbatch needs Python 3.11 or newer. Name one: make PYTHON=python3.12" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing recbatch and what it needs into $(VENV); the first time takes some minutes ..."
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e .
	@echo "Compiling the search and entropy coding kernels, once ..."
	@$(BIN)/python -c 'from recbatch.codec import ImageCodec, Settings; [ImageCodec(Settings(mode=m)).warm_up() for m in ("lossy", "lossless")]'
	@touch $@

$(TOOLS): $(INSTALLED)
	@echo "Installing what tests and benchmarks need ..."
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(INSTALLED)
	@$(BIN)/recbatch demo docs/demo/photographs --output demo-out

test: $(TOOLS)
	@$(BIN)/python -m pytest $(ARGS)

check: $(TOOLS)
	@$(BIN)/ruff check --output-format concise .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

clean:
	@rm -rf demo-out build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find recbatch tests jobs -name __pycache__ -type d -prune -exec rm -rf {} +
