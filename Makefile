# `make quickstart` and `make test` set up everything: .venv, the dependencies, the operators.

.DEFAULT_GOAL := help
.PHONY: help quickstart quickstart-face quickstart-ood test lint docs bench gpu clean env \
	operators-in-place FORCE
.DELETE_ON_ERROR:

VENV := .venv
PYTHON := $(VENV)/bin/python
CXX_NAME := $(if $(filter default,$(origin CXX)),g++,$(CXX))
REQUIREMENTS := $(addprefix requirements/,runtime.txt dev.txt export.txt serve.txt supervision.txt tune.txt weights.txt compress.txt docs.txt constraints.txt)
SOURCES := $(shell find negvision/ops/csrc -type f 2>/dev/null)

# Python versions that the pins support, the main test version first.
BASE_PYTHON = $(shell for name in python3.11 python3.12 python3.13 python3; do \
	"$$name" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
	2>/dev/null && echo "$$name" && break; done)

# The CUDA kernels are compiled if there is a GPU. Many machines have nvcc without one;
# FORCE_CUDA=1 or NEGVISION_CUDA=1 compiles the kernels there too.
NEGVISION_CUDA ?= $(if $(filter 1,$(FORCE_CUDA))$(shell nvidia-smi -L 2>/dev/null | grep ^GPU),1,0)
export NEGVISION_CUDA
# Without it, a failure to compile would leave plain PyTorch.
NEGVISION_COMPILE ?= 1
export NEGVISION_COMPILE
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# These would point into another environment.
unexport PYTHONPATH PYTHONHOME

help:
	@echo "make quickstart        train a small ATSS detector on generated images, draw its detections"
	@echo "make quickstart-face   train a small face recognizer with UNPG on generated glyphs"
	@echo "make quickstart-ood    train AbeT on boxes, pixels and images; held-out digits are the unknown"
	@echo "make test              run the tests; COVERAGE=1 reports the lines they reach"
	@echo "make lint              style, spelling, layers of imports, types"
	@echo "make docs              build the documentation site in site/"
	@echo "make bench             run the CPU benchmarks, results in benchmarks/results"
	@echo "make gpu               run the CUDA tests and benchmarks, or PART=... of them"
	@echo "make clean             remove build products and caches (keeps .venv, data, work_dirs)"

quickstart: env
	@$(PYTHON) tools/train.py configs/quickstart/atss_lite0_digits.py --resume auto

quickstart-face: env
	@$(PYTHON) tools/train.py configs/quickstart/unpg_glyphs.py --resume auto

quickstart-ood: env
	@for task in boxes pixels images; do \
	$(PYTHON) tools/train.py configs/quickstart/abet_$$task.py --resume auto || exit; done

# One thread per worker: more would compete for the same cores.
test: env
	@OMP_NUM_THREADS=1 $(PYTHON) -m pytest -q -n auto --maxprocesses 8 --dist worksteal \
	$(if $(COVERAGE),--cov=negvision --cov-report=term:skip-covered)

lint: $(VENV)/dependencies
	@$(PYTHON) -m ruff check --quiet .
	@$(PYTHON) -m ruff format --check --quiet .
	@$(VENV)/bin/clang-format --dry-run -Werror $$(find negvision/ops/csrc -type f)
	@$(VENV)/bin/codespell
	@$(VENV)/bin/lint-imports --no-logo --verbose > $(VENV)/imports.log || { cat $(VENV)/imports.log; exit 1; }
	@$(VENV)/bin/ty check --quiet negvision
	@echo "lint: no findings"

docs: env
	@$(PYTHON) docs/write_reference.py
	@$(PYTHON) docs/build_site.py && echo "docs: site/index.html"

bench: env
	@$(PYTHON) benchmarks/kernels.py
	@$(PYTHON) benchmarks/assign.py
	@$(PYTHON) benchmarks/train_step.py
	@$(PYTHON) benchmarks/coco_eval.py
	@$(PYTHON) benchmarks/unpg.py
	@$(PYTHON) benchmarks/ood_stream.py
	@$(PYTHON) benchmarks/abet_overhead.py
	@$(PYTHON) benchmarks/dataloader.py --workers
	@$(PYTHON) benchmarks/scaling.py
	@$(PYTHON) benchmarks/export_speed.py

# `make gpu PYTHON=python3` uses the installed torch and builds the operators against it.
gpu: $(if $(filter $(VENV)/%,$(PYTHON)),env,operators-in-place)
	@$(PYTHON) -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' \
	|| { echo "make gpu: torch sees no CUDA device here (.venv/bin/negvision doctor says more)" >&2; \
	     exit 1; }
	@$(PYTHON) -c 'import sys; from negvision.ops import extension_info as info; \
	sys.exit(not info()["cuda"])' || { echo "make gpu: the operators were compiled without CUDA;" \
	"put nvcc on PATH, then FORCE_CUDA=1 make gpu (docs/install.md)" >&2; exit 1; }
	@$(PYTHON) benchmarks/suite.py --device cuda $(if $(PART),--part $(PART))

# This overwrites the library that .venv uses, so its stamp is removed.
operators-in-place:
	@rm -f $(VENV)/operators
	@$(PYTHON) -m pip install -qq --no-build-isolation --no-deps -e .

clean:
	@rm -rf build dist site negvision.egg-info negvision/ops/_C*.so $(VENV)/operators
	@rm -rf .cache .pytest_cache .ruff_cache .hypothesis
	@find negvision tests tools benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

env: $(VENV)/operators

# Stamp files: a step runs again only if something it depends on has changed. Missing tools are
# reported in one line, by $(error), before anything is downloaded.
$(VENV)/dependencies: $(REQUIREMENTS)
	$(if $(BASE_PYTHON),,$(error Python 3.11, 3.12 or 3.13 is missing: install it, e.g. \
	apt install python3.11 python3.11-venv))
	$(if $(shell $(BASE_PYTHON) -c 'import ensurepip, venv; print(1)' 2>/dev/null),,$(error \
	$(BASE_PYTHON) lacks venv: install it, e.g. apt install $(BASE_PYTHON)-venv))
	$(if $(shell command -v $(firstword $(CXX_NAME)) 2>/dev/null),,$(error A C++ compiler \
	($(CXX_NAME)) is missing: install it, e.g. apt install g++))
	@echo "creating $(VENV) and installing the dependencies (6 GB, some minutes)"
	@$(BASE_PYTHON) -m venv $(VENV)
	@$(PYTHON) -m pip install -qq -r requirements/dev.txt -c requirements/constraints.txt
	@touch $@

# Rewritten only if the setting has changed, e.g. on the GPU node of a cluster.
$(VENV)/cuda-setting: FORCE | $(VENV)/dependencies
	@echo $(NEGVISION_CUDA) | cmp -s - $@ || echo $(NEGVISION_CUDA) > $@

$(VENV)/operators: $(VENV)/dependencies $(VENV)/cuda-setting setup.py pyproject.toml $(SOURCES)
	$(if $(shell command -v $(firstword $(CXX_NAME)) 2>/dev/null),,$(error A C++ compiler \
	($(CXX_NAME)) is missing: install it, e.g. apt install g++))
	@echo "compiling the operators"
	@PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(PYTHON) -m pip install -qq --no-build-isolation \
	--no-deps -e .
	@touch $@
