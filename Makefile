# `make demo` and `make test` set up .venv first; both are safe to repeat.
PYTHON ?= python3
VENV := .venv
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check
SIZE ?= demo

.PHONY: demo test lint bench clean
demo: $(VENV)/.installed
	$(VENV)/bin/python -m sparseq.demo --size $(SIZE)

test: $(VENV)/.installed
	$(VENV)/bin/python -m pytest

lint: $(VENV)/.installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

bench: $(VENV)/.installed
	$(VENV)/bin/python -m bench.bench_qat_step

# Made anew when what it is made from changes. torch first, by itself: so that its CPU build is taken where there is one.
$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV) (once; torch is large)"
	$(PIP) install --quiet --constraint constraints.txt torch
	$(PIP) install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) runs
