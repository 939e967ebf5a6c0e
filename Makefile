# Everything a newcomer runs. `make` lists it; `make demo` and `make test` are the two that matter.

VENV ?= .venv
PYTHON ?= $(firstword $(foreach python,python3 python3.13 python3.12 python3.11 python3.14,$(shell $(python) -c 'import sys; print(sys.executable if sys.version_info >= (3, 11) else "")' 2>/dev/null)) python3)
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
PYTEST := $(BIN)/python -m pytest -q
WORKERS ?= 3
CRASH_WORKERS ?= 4
ARGS ?=
NODE := $(and $(shell command -v node),$(shell command -v npm))

.DEFAULT_GOAL := help
.PHONY: help demo test check lint types unit property integration crash soak examples bench bench-scale format lock hooks clean

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*  ## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

demo: $(VENV)/.installed  ## one process on SQLite, no server: places orders and shows what happened
	@$(BIN)/antiphon demo $(ARGS)

test: check  ## everything: lint, types, unit, property, integration and crash tests on real servers
	@$(BIN)/python -m tests.services \
	  "$(PYTEST) -n $(WORKERS) --dist loadgroup --ignore tests/crash -m 'not soak$(if $(NODE),, and not node)' $(ARGS)" \
	  "$(PYTEST) -n $(CRASH_WORKERS) --maxschedchunk 1 -m 'not soak' tests/crash $(ARGS)"
	@$(if $(NODE),,echo "Not run: the tests of the participant in Node.js, because node and npm are not here. With them: make examples")

check: $(VENV)/.installed-dev  ## what is checked without running the code
	@$(MAKE) --no-print-directory --jobs 2 --output-sync lint types

lint: $(VENV)/.installed-dev  ## style, format and the import rules between the packages
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet . || { echo "Not formatted; \`make format\` does it."; exit 1; }
	@$(BIN)/lint-imports --no-cache --no-logo

types: $(VENV)/.installed-dev  ## mypy, strict, tests included
	@$(BIN)/mypy

unit: $(VENV)/.installed-dev  ## tests that need no server
	@$(PYTEST) -n $(WORKERS) -m unit $(ARGS)

property: $(VENV)/.installed-dev  ## generated tests
	@$(PYTEST) -n $(WORKERS) -m property $(ARGS)

integration: $(VENV)/.installed-dev  ## tests on PostgreSQL and RabbitMQ
	@$(PYTEST) -n $(WORKERS) -m 'integration and not node' --both-drivers $(ARGS)

crash: $(VENV)/.installed-dev  ## tests that kill processes and cut connections
	@$(PYTEST) -n $(CRASH_WORKERS) --maxschedchunk 1 -m 'not soak' tests/crash $(ARGS)

soak: $(VENV)/.installed-dev  ## half an hour of orders under fire (SOAK="--minutes 3"), then tests that take minutes, or the rights of root
	@$(BIN)/python -m tests.crash.soak $(SOAK)
	@$(BIN)/python -m tests.services "$(PYTEST) -m soak tests/crash tests/bench $(ARGS)"

examples: $(VENV)/.installed-dev  ## tests of the examples, that in Node.js too
	@$(BIN)/python -m tests.services "$(PYTEST) tests/examples $(ARGS)"

bench: $(VENV)/.installed-dev  ## how fast it is here, beside services written by hand and other products
	@$(BIN)/python -m bench $(ARGS)

bench-scale: $(VENV)/.installed-dev  ## what becomes of it with a million instances, ten saga types, a backlog, a long history, four processes
	@$(BIN)/python -m bench.scale $(ARGS)

format: $(VENV)/.installed-dev  ## format the code and sort its imports
	@$(BIN)/ruff check --quiet --fix . ; $(BIN)/ruff format --quiet .

lock:  ## write the lock files anew from pyproject.toml; needs uv
	@uv=$$(command -v uv || command -v $(BIN)/uv) || { echo "uv writes the locks and is not here: $(BIN)/python -m pip install uv"; exit 1; }; \
	export='export --quiet --frozen --no-header --no-annotate --no-emit-project --no-default-groups --group build'; \
	"$$uv" lock --quiet --default-index https://pypi.org/simple && \
	"$$uv" $$export --extra psycopg --extra uvloop --output-file requirements.lock >/dev/null && \
	"$$uv" $$export --all-extras --output-file requirements-dev.lock >/dev/null

hooks: $(VENV)/.installed-dev  ## run the checks before every commit
	@$(BIN)/pre-commit install

clean:  ## remove what was installed and built
	@rm -rf $(VENV) .bench build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(VENV)/.installed: requirements.lock pyproject.toml | $(VENV)/.created
	@test -e $(VENV)/.installed-dev || { echo "Installing Antiphon into $(VENV) ..."; $(PIP) install --require-hashes -r requirements.lock; }
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.installed-dev: requirements-dev.lock pyproject.toml | $(VENV)/.created
	@echo "Installing Antiphon and its development tools into $(VENV) ..."
	@$(PIP) install --require-hashes -r requirements-dev.lock
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@ $(VENV)/.installed

$(VENV)/.created:
	@command -v $(PYTHON) >/dev/null || { echo "Antiphon needs Python 3.11 or newer, and there is no $(PYTHON) here. Debian, Ubuntu: apt-get install python3 python3-venv"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Antiphon needs Python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) -V 2>&1). Install a newer one, or name it: make PYTHON=/path/to/python3.11 ..."; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "$(PYTHON) cannot make virtual environments. Debian, Ubuntu: apt-get install python3-venv"; exit 1; }
	@$(PYTHON) -m venv $(VENV)
	@touch $@
