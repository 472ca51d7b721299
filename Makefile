# Every target sets up what it needs; nothing but Python 3.11+ (with venv), git and make is assumed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CODEX := @openai/codex@0.169.0

# Tests of whole processes wait for most of their time: more of them than processors run at once.
TESTERS ?= 4

.PHONY: setup dev quickstart check lint test pytest soak bench clean help

help:  ## show the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	@echo "Codeswarm and what it needs are being installed into $(VENV); the first time it takes half a minute or so."
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@ $(VENV)/.installed

# The real Codex CLI, for the tests; without npm those are skipped.
$(VENV)/agents/.$(notdir $(CODEX)): | $(BIN)/python
	@if command -v npm >/dev/null; then \
	  npm install --prefix $(VENV)/agents --no-audit --no-fund --loglevel=error $(CODEX) && touch $@; \
	else echo "npm is not installed: the tests with the Codex CLI are skipped"; fi

setup: $(VENV)/.installed  ## install codeswarm into .venv

dev: $(VENV)/.dev $(VENV)/agents/.$(notdir $(CODEX))  ## install what developers need as well

quickstart: setup  ## run the main job on examples/quickstart
	@PATH="$(CURDIR)/$(BIN):$$PATH" sh examples/quickstart/run.sh

lint: dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/vermin --no-tips --quiet -t=3.9- worker  # nodes may have Python 3.9

check: lint  ## lint, types and unit tests, under a minute
	$(BIN)/pytest -q -n 2 -m "not e2e and not cluster and not soak" tests/domain tests/resources

test: lint pytest  ## everything but the soak tests

pytest: dev
	$(BIN)/pytest -q -n $(TESTERS) --dist loadfile --no-loadscope-reorder -r fEsR -m "not soak"

soak: dev  ## random kills for minutes
	$(BIN)/pytest -q -m soak --timeout=1800

bench: dev  ## measure; figures go to docs/performance.md
	$(BIN)/python -m bench

clean:  ## remove what the targets made
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .codeswarm-quickstart
