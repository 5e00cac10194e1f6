# `make demo` and `make test` set up .venv first; both are safe to repeat.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt
# A worker that is done takes over what another has left.
PYTEST := $(BIN)/python -m pytest -n 2 --dist worksteal
SIZE ?= full

.PHONY: demo test test-kernels test-slow test-exhaustive test-processors test-lowest test-newest compile-check gpu \
	bench-model wheel docs lint clean
demo: $(VENV)/.train
	$(BIN)/python -m sparseq.demo --size $(SIZE)

# SLOW=1 takes the slow tests along.
test: $(VENV)/.dev test-kernels
	$(PYTEST) --ignore tests/triton $(if $(SLOW),-m "not exhaustive")

# Triton's kernels on the CPU, in a process of their own: Triton reads the switch once.
test-kernels: $(VENV)/.dev
	TRITON_INTERPRET=1 $(PYTEST) tests/triton

# The tests marked `processor`, as on other processors: older instruction sets, fp32 and bf16, threads, orders of summation.
test-processors: $(VENV)/.dev
	$(BIN)/python tests/processors.py --jobs 2

test-slow: $(VENV)/.dev
	$(PYTEST) -m slow

# Every alteration of every format's file, of which the other runs take samples, and all of `make gpu` on the CPU.
test-exhaustive: $(VENV)/.dev
	$(PYTEST) -m exhaustive

# A part of the tests at the lowest versions that pyproject.toml allows, and at the newest on the package index. Into
# VERSIONS. They get a torch of their own, of several GB where the index has CUDA builds alone.
VERSIONS ?= runs/versions
test-lowest: $(VENV)/.dev
	$(BIN)/python -m tools.versions lowest --out $(VERSIONS)

test-newest: $(VENV)/.dev
	$(BIN)/python -m tools.versions newest --out $(VERSIONS)

# Triton's kernels compiled for GPUs that need not be there, and their machine code checked.
compile-check: $(VENV)/.dev
	$(BIN)/python -m tools.compile_check $(if $(filter ci,$(SIZE)),--smallest)

# On a machine with a GPU, with the Python that has its torch: tests, tuning, benchmarks, into the folder OUT.
OUT ?= runs/gpu
gpu:
	PYTHONPATH=.:kernels $(PYTHON) -m tools.gpu --out $(OUT)

# A whole model's latency beside other runtimes (pip install -r bench/runtimes.txt has them), into bench/results.
bench-model: $(VENV)/.dev
	$(BIN)/python -m bench.studies.model --peers

# A source distribution, and from it a wheel with native code, into dist. It fails where that cannot be built, where the
# platform in its name is wrong, and where the wheel does not work with nothing but what it requires.
wheel: $(VENV)/.dev
	rm -rf build dist
	$(BIN)/python -m build --no-isolation --outdir dist . > /dev/null
	$(BIN)/python -m auditwheel show dist/sparseq-*-py3-none-manylinux_*.whl
	$(BIN)/python -m tools.bare dist/sparseq-*-py3-none-manylinux_*.whl
	rm -rf build

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m bench.tables --check
	$(BIN)/python -m bench.studies.published --check
	$(BIN)/python -m bench.studies.findings --check
	$(BIN)/python -m tools.reference --check

# The documentation's site, into the folder site, and its links checked. The variable leaves a notice of the theme out.
docs: $(VENV)/.dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet
	$(BIN)/python -m tools.site.check

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
	rm -rf $(VENV) runs build dist site
