# Ranvier. `make demo` shows it at work, `make test` runs its tests; both set everything up first, in .venv.
#
#   make demo     train a recurrent spiking network on spoken digits, export it to C and Verilog, verify both, write a report
#   make test     run the tests, on every core           (PYTEST_ARGS="-k lif -x" to choose)
#   make lint     ruff and basedpyright
#   make setup    only set up the environment
#   make clean    remove what was built; runs/ stays
#
# PYTHON=python3.12 picks another Python, VENV=folder another environment, and
# TORCH_INDEX=https://download.pytorch.org/whl/cpu fetches torch's small build for CPUs instead of the one for NVIDIA GPUs.

PYTHON ?= python3
VENV ?= .venv
TORCH_INDEX ?=
PYTEST_ARGS ?= -n auto
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed-from-pyproject
ROOMS := neurons networks datasets deploy experiments
TYPING := build/typing/ranvier

.DEFAULT_GOAL := help
.PHONY: help demo test lint setup clean system typing

help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' Makefile

demo: setup
	@$(BIN)/ranvier demo

test: setup
	@$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: setup typing
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/basedpyright --pythonpath $(BIN)/python

setup: $(STAMP)

# Says what is missing and how to get it; it installs nothing outside this folder.
system:
	@missing=; \
	for tool in git make gcc g++ perl; do command -v $$tool >/dev/null 2>&1 || missing="$$missing $$tool"; done; \
	if ! command -v $(PYTHON) >/dev/null 2>&1; then missing="$$missing python3 python3-venv"; \
	elif ! $(PYTHON) -c 'import ensurepip, venv' >/dev/null 2>&1; then missing="$$missing python3-venv"; fi; \
	if [ -n "$$missing" ]; then \
		echo "Ranvier needs:$$missing" >&2; \
		echo "On Debian and Ubuntu:  sudo apt install$$missing" >&2; exit 1; fi
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Ranvier needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V 2>&1)." >&2; \
		echo "If another is installed, name it:  make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }

$(STAMP): pyproject.toml | system
	@echo "Setting up $(VENV) (a few minutes: most of it is torch) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --disable-pip-version-check --upgrade "pip>=24"
	@if [ -n "$(TORCH_INDEX)" ]; then $(BIN)/python -m pip install --index-url $(TORCH_INDEX) torch torchvision; fi
	@$(BIN)/python -m pip install --disable-pip-version-check -e ".[interop,dev]"
	@touch $@

# The rooms lie at the top but are imported as ranvier.neurons, ...: links show type checkers where that is.
typing:
	@mkdir -p $(TYPING)
	@for room in $(ROOMS); do ln -sfn ../../../$$room $(TYPING)/$$room; done
	@for file in src/ranvier/*.py src/ranvier/py.typed; do ln -sf ../../../$$file $(TYPING)/; done

clean:
	rm -rf $(VENV) build dist *.egg-info src/*.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
