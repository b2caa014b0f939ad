# `make train` and `make test` do everything on a machine that has Python 3.11 or later, make and pip.

PYTHON ?= python3
PIP = .venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
ARGS ?=

.PHONY: train test check format docs bench clean

train: .venv/.train
	.venv/bin/twolayer train $(ARGS)

test: .venv/.test
	.venv/bin/python -m pytest $(ARGS)

check: .venv/.test
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/python docs/generate.py --check

format: .venv/.test
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

docs: .venv/.test
	.venv/bin/python docs/generate.py
	.venv/bin/python docs/picture.py

bench: .venv/.test
	.venv/bin/python benchmarks/process.py
	.venv/bin/python benchmarks/loop.py

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/.train: .venv/bin/python pyproject.toml constraints.txt
	@echo "installing PyTorch and the rest into .venv; this takes a minute or more"
	$(PIP) --editable .
	@touch $@

.venv/.test: .venv/bin/python pyproject.toml constraints.txt
	@echo "installing PyTorch and the rest into .venv; this takes a minute or more"
	$(PIP) --editable '.[dev]'
	@touch .venv/.train $@

clean:
	rm -rf .venv dist build .mypy_cache .pytest_cache .ruff_cache .hypothesis
