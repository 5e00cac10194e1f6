# `make demo` and `make test` set up .venv first; both are safe to repeat.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt
SIZE ?= full

.PHONY: demo test test-slow lint clean
demo: $(VENV)/.train
	$(BIN)/python -m sparseq.demo --size $(SIZE)

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2

test-slow: $(VENV)/.dev
	$(BIN)/python -m pytest -m slow

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m bench.tables --check

$(VENV)/.train: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing sparseq[train] into $(VENV): once, and torch is large"
	@$(PIP) torch
	@$(PIP) --editable '.[train]'
	@touch $@

$(VENV)/.dev: $(VENV)/.train
	@echo "Installing sparseq[dev] into $(VENV): once"
	@$(PIP) --editable '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) runs
