# `make test` and `make demo` work on a fresh machine: each makes .venv and installs by itself.

PYTHON ?= python3
WORKERS ?= 2
BENCH ?=
BIN := .venv/bin
STAMP := .venv/.installed

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install test test-exhaustive demo check bench bench-env docs docs-serve format constraints clean

help:
	@echo "make test         run the tests (WORKERS=$(WORKERS) processes)"
	@echo "make test-exhaustive  run the long sweeps that the tests sample, before a release"
	@echo "make demo         draw a slide, train, segment it and score the result, into demo-output/"
	@echo "make check        lint, formatting and types"
	@echo "make bench        run the benchmarks (an hour) and write bench-report/README.md; BENCH=--quick: minutes"
	@echo "make bench-env    install the programs that benchmarks/peers.py compares with, into .bench-venv*"
	@echo "make docs         build the documentation into site/; make docs-serve shows it while one writes"
	@echo "make format       apply the formatting and the safe fixes of the linter"
	@echo "make constraints  write what .venv holds to constraints.txt"
	@echo "make clean        remove .venv and what tools leave behind"

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is not installed; Python 3.11 or later is needed." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "$$($(PYTHON) --version) is too old; expected 3.11 or later. Name another: make PYTHON=python3.12 …" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "$(PYTHON) cannot make virtual environments; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

# Half of the tests to each process, one after the other, so that tests of a file share what it starts; whoever is done
# first takes of the rest. Compiled tests are kept whatever the shell says: compiling them takes half of the collection.
PYTEST = env -u PYTHONDONTWRITEBYTECODE $(BIN)/pytest -n $(WORKERS) --dist worksteal

test: $(STAMP)
	$(PYTEST)

test-exhaustive: $(STAMP)
	$(PYTEST) -m exhaustive

demo: $(STAMP)
	$(BIN)/segment-slide demo --output demo-output

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(STAMP) bench-env
	$(BIN)/python benchmarks/run_all.py $(BENCH)

# peers that import torchvision want another torch, so they live apart
bench-env: .bench-venv/.installed .bench-venv-torchvision/.installed

.bench-venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --constraint constraints.txt '.[bench]'
	@touch $@

.bench-venv-torchvision/.installed: benchmarks/torchvision-requirements.txt
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --requirement $<
	@touch $@

# the variable keeps a notice of mkdocs-material about another project out of the log
docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

docs-serve: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

constraints: $(STAMP)
	@{ echo "# What the tests ran with: every package of \`pip install -e '.[dev]'\`, made by \`make constraints\`."; \
	   echo "# torch is pinned without a local label, so that pip may take the CPU build where one is offered."; \
	   $(BIN)/python -m pip freeze --exclude-editable | sed -e '/^#/d' -e 's/+cpu$$//'; } > constraints.new
	@! grep -E ' @ |file:|https?:' constraints.new || { echo "a package was not installed from an index" >&2; exit 1; }
	@mv constraints.new constraints.txt && touch $(STAMP)

clean:
	rm -rf .venv .bench-venv .bench-venv-torchvision build dist site demo-output bench-report ./*.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
