# make            set up .venv, then run the default experiment (snakemake --cores all)
# make digits     the quicker tour: the same on handwritten digits
# make test       set up .venv, then lint and tests
# make figures    redraw figures and tables from existing results
# make published  the paper's printed numbers through the same figures, tables and claims
# make convergence  more restarts and the standard AutoAttack beside the budgets of the two tours
# make power      how likely a rise of a given size is seen, into docs/method.md
# make test-models  200 models drawn at random and 15 of torchvision, against plain implementations
# make docs       copy figures, tables and models.csv of results to docs/results/
# make benchmark  our attacks and measures beside a plain and a frozen way, torchattacks and foolbox

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEV := $(VENV)/.ready-dev
CORES ?= all
# Index of another build of torch, e.g. the processor-only one: make TORCH_INDEX=URL
TORCH_INDEX ?=
SNAKEMAKE := PATH="$(CURDIR)/$(BIN):$$PATH" snakemake --cores $(CORES)
WORKERS ?= 2

.DELETE_ON_ERROR:
.PHONY: all digits convergence power setup dev dataset site test-page test-unpinned test lint format tests test-slurm test-models test-faults figures published docs benchmark lock

all: setup
	$(SNAKEMAKE)

digits: setup
	$(SNAKEMAKE) --configfile config/digits.yaml

setup: $(READY)

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "error: $$($(PYTHON) --version) found; Python 3.11 or later is needed (make PYTHON=...)"; exit 1; }
	@echo "$(VENV): $$($(PYTHON) --version) and the packages of requirements.lock; this takes some minutes"
	$(PYTHON) -m venv $(VENV)
	$(call install,requirements.lock)
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	@touch $@
	@echo "$(VENV) is ready; to use it: . $(BIN)/activate"

# The packages of tests, documentation and Slurm besides.
dev: $(DEV)

$(DEV): requirements-dev.lock $(READY)
	$(call install,requirements-dev.lock)
	@touch $@

# Install a lock file; with TORCH_INDEX, torch and torchvision come from there and CUDA's libraries are left out.
# Modules are compiled when they are first imported: few of them are.
define install
$(if $(TORCH_INDEX),$(BIN)/python -m pip install --quiet --no-compile --index-url $(TORCH_INDEX) torch torchvision
	awk '/^[^ ]/ {skip = /^(torch|torchvision|triton|nvidia-|cuda-)/} !skip' $(1) > $(VENV)/without-torch.txt
	$(BIN)/python -m pip install --quiet --no-compile --no-deps --requirement $(VENV)/without-torch.txt,$(BIN)/python -m pip install --quiet --no-compile --requirement $(1))
endef

test: lint site tests

lint: dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/lint-imports

# The documentation site, with every link checked; needs no network.
site: dev
	NO_MKDOCS_2_WARNING=1 PATH="$(CURDIR)/$(BIN):$$PATH" mkdocs build --quiet

format: dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/snakefmt Snakefile workflow

tests: dev
	PATH="$(CURDIR)/$(BIN):$$PATH" python -m pytest -n $(WORKERS) --dist loadfile -m "not slurm and not faults and not page"

# The newest versions of all packages instead of the pinned ones.
test-unpinned:
	$(PYTHON) -m venv .venv-unpinned
	.venv-unpinned/bin/python -m pip install --quiet --editable ".[dev]"
	PATH="$(CURDIR)/.venv-unpinned/bin:$$PATH" python -m pytest -n $(WORKERS) --dist loadfile \
	  -m "not slurm and not faults and not page"

test-slurm: dev
	PATH="$(CURDIR)/$(BIN):$$PATH" python -m pytest -m slurm

# 200 models drawn at random, and 15 of torchvision, against a plain implementation.
test-models: dev
	PATH="$(CURDIR)/$(BIN):$$PATH" ROBUST_FLATNESS_MODELS=200 \
	  python -m pytest tests/models/test_generated.py

test-faults: dev
	PATH="$(CURDIR)/$(BIN):$$PATH" python -m pytest -m faults

# A browser: Chromium of the system, or one that playwright has installed.
test-page: dev
	$(BIN)/python -m pip install --quiet playwright
	command -v chromium chromium-browser google-chrome >/dev/null \
	  || { apt-get update --quiet && apt-get install --quiet --yes chromium; } \
	  || $(BIN)/python -m playwright install chromium || true
	PATH="$(CURDIR)/$(BIN):$$PATH" python -m pytest -m page

figures: setup
	$(SNAKEMAKE) figures tables

published: setup
	$(SNAKEMAKE) --configfile config/published.yaml

docs: setup
	$(SNAKEMAKE) docs
	$(SNAKEMAKE) --configfile config/digits.yaml -- docs
	$(SNAKEMAKE) --configfile config/published.yaml -- docs

# All kept records as one table with a dictionary, ready for an archive.
dataset: setup
	$(BIN)/robust-flatness dataset $(dir $(wildcard docs/results/*/records.csv*))

# The table of power in docs/method.md, from the kept values of single examples.
power: setup
	$(BIN)/python benchmarks/power.py docs/results/fashion docs/results/cifar10-mini --write docs/method.md

CONVERGENCE := at,awp-0.01,trades-6,self-supervision-4,label-smoothing-0.3,entropy-sgd-1

convergence: setup
	for name in fashion digits; do \
	  $(SNAKEMAKE) --configfile config/$$name.yaml --config variants=$(CONVERGENCE) -- train && \
	  $(BIN)/python benchmarks/convergence.py config/$$name.yaml --write docs/method.md || exit 1; \
	done

# Libraries to compare with, beside the environment.
COMPARED := .compared
$(COMPARED)/.ready: $(DEV)
	$(BIN)/python -m pip install --quiet --no-deps --target $(COMPARED) \
	  torchattacks==3.5.1 foolbox==3.3.4 eagerpy==0.30.0 GitPython gitdb smmap requests urllib3 certifi idna charset-normalizer
	touch $@

benchmark: $(COMPARED)/.ready
	PYTHONPATH=$(COMPARED) $(BIN)/python benchmarks/run.py

# The pinned versions and the checksums of their files, resolved anew. Torch and torchvision are pinned as a pair.
lock: dev
	$(BIN)/python -m pip install --quiet uv
	printf 'torch==2.14.1\ntorchvision==0.29.1\n' > $(VENV)/pair.txt
	$(BIN)/uv pip compile pyproject.toml --universal --python-version 3.11 --constraint $(VENV)/pair.txt \
	  --no-header --no-annotate --generate-hashes --output-file requirements.lock
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 \
	  --constraint requirements.lock --no-header --no-annotate --generate-hashes --output-file requirements-dev.lock
