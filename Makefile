# `make train` and `make test` do everything on a machine that has Python 3.11 or later, make and pip.

PYTHON ?= python3
INSTALL = -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable
# One more process than there are cores: tests also wait, for signals and for other processes.
PARALLEL = --numprocesses $(shell $(PYTHON) -c 'import os; print(os.cpu_count() + 1)') --dist worksteal
ARGS ?=

.PHONY: train test test-fast test-deep test-versions torture fuzz release-check gpu check lint types types-on-windows \
  docs-check format docs bench clean

train: .venv/.train
	.venv/bin/twolayer train $(ARGS)

# All tests, but the long forms of some.
test: .venv/.test
	.venv/bin/python -m pytest $(PARALLEL) $(ARGS)

# For the loop of writing: the tests that took less than a quarter of a second when they last ran here.
test-fast: .venv/.test
	.venv/bin/python -m pytest $(PARALLEL) --fast 0.25 $(ARGS)

# What `make test` leaves out: the long forms, and ten times the examples from hypothesis.
test-deep: .venv/.test
	.venv/bin/python -m pytest $(PARALLEL) -m 'deep or hypothesis' --hypothesis-profile deep $(ARGS)

# Kills, damage, forged runs, full disks, any input, many at once: the figures of docs/reliability.md.
DRIVERS ?= kills ranks flips strangers disks inputs crowds
MINUTES ?= 2
SEED ?= 0
torture: .venv/.test
	@failed=; for driver in $(DRIVERS); do \
	  .venv/bin/python -m tests.torture.$$driver --minutes $(MINUTES) --seed $(SEED) || failed="$$failed $$driver"; \
	done; test -z "$$failed" || { echo "lost something:$$failed"; exit 1; }

# Guided by coverage, each target for SECONDS. New inputs are kept in .fuzz; tests/fuzz/corpus is what `make test` runs.
TARGETS ?= yaml rows history safetensors run_json
SECONDS ?= 60
fuzz: .venv-fuzz/.fuzz
	@for target in $(TARGETS); do \
	  .venv-fuzz/bin/python -m tests.fuzz.fuzz $$target -max_total_time=$(SECONDS) || exit 1; done

# Build, twine check, install into empty environments, run; see docs/releasing.md.
release-check: .venv-release/.release
	.venv-release/bin/python docs/release_check.py $(ARGS)

# The suite with other Pythons and other versions of what is needed, in environments outside this folder (tests/versions.py).
test-versions:
	$(PYTHON) tests/versions.py $(ARGS)

# On a machine with a GPU (docs/gpu.md): the tests of CUDA, `doctor`, and benchmarks of at most six minutes. Elsewhere
# the parts that need none, and one line. $(GPU) is a Python that has torch with CUDA and twolayer[dev].
GPU ?= .venv/bin/python
gpu: .venv/.test
	$(GPU) -m pytest -m 'not deep' tests/engines/test_other_devices.py tests/engines/test_cuda_graph.py
	$(GPU) -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' || exec $(GPU) benchmarks/gpu.py
	$(GPU) -m pytest -m cuda
	$(GPU) -m twolayer doctor --device cuda
	$(GPU) benchmarks/gpu.py

# `make --jobs 2 check` takes half the time.
check: lint types types-on-windows docs-check

lint: .venv/.test
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

types: .venv/.test
	.venv/bin/mypy

types-on-windows: .venv/.test
	.venv/bin/mypy --platform win32 --cache-dir .mypy_cache/win32 twolayer

docs-check: .venv/.test
	.venv/bin/python docs/generate.py --check

format: .venv/.test
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

docs: .venv/.test
	.venv/bin/python docs/generate.py
	.venv/bin/python docs/pictures.py

# The peers have an environment of their own; results, plots and two sections of docs/performance.md are tracked. Some of them:
# make bench BENCH='roofline million'
BENCH ?= loop batches roofline process million memory saving tables reading looking growth threads steps products skinny
bench: .venv-bench/.bench
	for name in $(BENCH); do .venv-bench/bin/python benchmarks/$$name.py --json benchmarks/results/$$name.json || exit 1; done
	.venv-bench/bin/python benchmarks/plot.py

%/bin/python:
	$(PYTHON) -m venv $*

.venv/.train: .venv/bin/python pyproject.toml constraints.txt
	@echo "installing PyTorch and the rest into .venv; this takes a minute or more"
	.venv/bin/python $(INSTALL) '.[all]'
	@touch $@

.venv/.test: .venv/bin/python pyproject.toml constraints.txt
	@echo "installing PyTorch and the rest into .venv; this takes a minute or more"
	.venv/bin/python $(INSTALL) '.[dev]'
	@touch .venv/.train $@

.venv-bench/.bench: .venv-bench/bin/python pyproject.toml constraints.txt
	@echo "installing PyTorch, JAX, scikit-learn, skorch and Lightning into .venv-bench; this takes minutes"
	.venv-bench/bin/python $(INSTALL) '.[bench]'
	@touch $@

.venv-fuzz/.fuzz: .venv-fuzz/bin/python
	.venv-fuzz/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt atheris pyyaml
	@touch $@

.venv-release/.release: .venv-release/bin/python
	.venv-release/bin/python -m pip install --quiet --disable-pip-version-check build twine
	@touch $@

clean:
	rm -rf .venv .venv-bench .venv-fuzz .venv-release .fuzz dist build .mypy_cache .pytest_cache .ruff_cache .hypothesis
