# One way to do each thing; `make` alone prints this list. Continuous integration calls the same targets.
PYTHON ?= python3
PIP_ARGS ?=
BIN := .venv/bin
RUN := .venv/.run
STAMP := .venv/.installed
CLIENTS := .venv-clients/bin
SERVED := .venv/.served
INSTALL = $(BIN)/python -m pip install $(PIP_ARGS) -c constraints.txt
COMPILER := torch numba llvmlite jaxtyping pydantic-settings safetensors threadpoolctl
TORCH_CPU := https://download.pytorch.org/whl/cpu
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
# with bytecode, whatever is set outside: pip writes none here, and the tests start half a hundred processes
export PYTHONDONTWRITEBYTECODE :=
.PHONY: help setup run test quick campaigns pytest clients lint kernels format audit browser readme constraints clean

help: ## print this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) $(if $(SERVE),$(SERVED)) ## make .venv for tests and evaluation too; SERVE=1: for several engines

$(RUN): pyproject.toml setup.py requirements.txt constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "RAMoLE needs Python 3.11 or newer, but $(PYTHON) is $$($(PYTHON) -V 2>&1); run: make run PYTHON=python3.12"; exit 1; }
	@[ -x $(BIN)/pip ] || $(PYTHON) -m venv --clear .venv || { echo "$(PYTHON) cannot make a virtual environment; on Debian or Ubuntu run: apt-get install python3-venv"; exit 1; }
	@# without a GPU torch's build for CPUs, which spares 3 GB; where it cannot be had, the usual one
	@[ -n "$(PIP_ARGS)" ] || [ "$$(uname -s)" != Linux ] || command -v nvidia-smi >/dev/null || $(BIN)/python -c 'import torch' 2>/dev/null || \
	  $(INSTALL) -q --no-deps --retries 0 --timeout 10 --index-url $(TORCH_CPU) torch || echo "torch's CPU build cannot be had; the usual one comes."
	@# without bytecode: a third of the time goes into that of modules which nothing imports; Python writes what it imports
	$(INSTALL) --no-compile $(COMPILER)
	@# the kernels are compiled while the rest comes; what cannot be compiled yet is compiled when it is needed
	@command -v nvidia-smi >/dev/null || $(BIN)/python -m ramole_core.kernels.all int4 >/dev/null 2>&1 & $(INSTALL) -e . --no-compile && wait
	@touch $(RUN)

$(STAMP): requirements-dev.txt requirements-lab.txt $(RUN)
	$(INSTALL) -e '.[lab,dev]'
	@touch $(STAMP)

$(SERVED): requirements-serve.txt $(STAMP)
	$(INSTALL) -e '.[serve]'
	@touch $(SERVED)

run: $(RUN) ## the page on http://127.0.0.1:7860; the base model loads behind it
	$(BIN)/python app.py

test: setup $(SERVED) browser ## the whole suite: ruff, pyright, pytest
	$(MAKE) --no-print-directory -j 2 lint pytest  # lint ends while the tests run

pytest: kernels ## the tests alone, after make test or make setup SERVE=1
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --durations=10 --second-try

quick: kernels ## what a developer runs while working: laws, units and core, without what is slow or needs a server
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -q --quick tests/units tests/laws tests/core

campaigns: kernels ## the long campaigns; CHANGED=1: those whose files have changed since they passed
	$(BIN)/python -m tests.campaigns.long $(if $(CHANGED),--changed)

clients: setup ## other people's clients of OpenAI's API against the page, in an environment of their own
	@[ -x $(CLIENTS)/pip ] || $(PYTHON) -m venv .venv-clients
	$(CLIENTS)/python -m pip install -q $(PIP_ARGS) -r tests/clients/requirements.txt
	$(CLIENTS)/python -m pytest -c tests/clients/pytest.ini --rootdir tests/clients -p no:cacheprovider tests/clients/check_clients.py

lint: setup $(SERVED) ## ruff and pyright, changing nothing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

kernels: setup ## compile them once, and not in every process of a test
	$(BIN)/python -m ramole_core.kernels.all

format: setup ## ruff, changing files
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Faults that the audit passes over, by id; each has a line of its own here, "# ID: the reason."
IGNORED :=
audit: setup ## known faults of what is installed (pip-audit), and of scripts and workflows
	@[ -x .venv/audit/bin/pip-audit ] || { $(BIN)/python -m venv .venv/audit && .venv/audit/bin/pip install -q $(PIP_ARGS) pip-audit zizmor; }
	$(BIN)/python -m pip freeze --exclude-editable > .venv/audit/installed.txt
	.venv/audit/bin/pip-audit --disable-pip --no-deps -r .venv/audit/installed.txt $(foreach one,$(IGNORED),--ignore-vuln $(one))
	@! grep -nE 'curl[^|]*[|] *(ba)?sh|--trusted-host|verify=False' .ci/run Dockerfile
	@if [ -d .github/workflows ]; then .venv/audit/bin/zizmor --offline .github/workflows; fi

browser: ## Chromium and nginx for the tests, by apt-get where we may
	@{ { command -v chromium-headless-shell || command -v chromium; } && { command -v nginx || [ -x /usr/sbin/nginx ]; }; } >/dev/null || { \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    export DEBIAN_FRONTEND=noninteractive install="apt-get install -q -y --no-install-recommends"; \
	    apt-get update -q && $$install fonts-dejavu-core nginx-light && { $$install chromium-headless-shell || $$install chromium; }; \
	  else echo "The tests of browser and proxy need 'chromium' and 'nginx' on the PATH and will fail (Debian: sudo apt-get install chromium nginx-light)."; fi; }

readme: setup ## write the generated parts of README and docs anew
	$(BIN)/python docs/readme.py

constraints: setup $(SERVED) ## upgrade .venv to the newest that the requirements allow, and pin it
	$(BIN)/python -m pip install $(PIP_ARGS) --upgrade --upgrade-strategy eager -e '.[lab,dev,serve]'
	@# torch's builds differ by machine: no word of theirs, and nothing that only its CUDA build brings
	{ echo "# Written by \`make constraints\`: the versions that the suite has passed with."; $(BIN)/python -m pip freeze --exclude-editable | sed -E 's/\+[A-Za-z0-9.]+$$//; / @ |^(triton|nvidia-|cuda-|setuptools|pip|wheel)/d'; } > constraints.txt

clean: ## remove .venv and caches; adapters and DATA_DIR stay
	rm -rf .venv .venv-clients .pytest_cache .ruff_cache
