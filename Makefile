# Everything a user or a contributor runs; `make help` lists it.
#
# Set-up happens by itself, in $(VENV), and again only after its inputs changed:
# each finished step leaves a stamp there.

.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
SHELL := /bin/sh

VENV ?= .venv
# Simulators to install, too: EXTRAS=minigrid,vizdoom
EXTRAS ?=
BIN := $(VENV)/bin
ARGS ?=
LOGDIR ?= logs/pong
OUTPUT ?= curve.png
# One more than two cores, as some tests wait for processes of theirs.
TEST_PROCESSES ?= 3

# Of peers-setup: whose environment to make.
NAME ?=

# The environment's own, else the first that TensorFlow has wheels for, unless
# PYTHON says which.
PYTHONS := $(or $(PYTHON),\
  $(BIN)/python python3 python3.13 python3.12 python3.11 python3.10)
VERSIONS := 3.10 3.11 3.12 3.13
print_version = import sys; print("%d.%d" % sys.version_info[:2])
find_python := for python in $(PYTHONS); do \
  version=$$($$python -c '$(print_version)' 2>/dev/null); \
  case " $(VERSIONS) " in *" $${version:-none} "*) \
    echo "$$python $$version"; break;; \
  esac; done
# Asked once and only by targets that need it: `make help` stays instant.
found = $(eval found := $$(shell $$(find_python)))$(found)
python = $(word 1,$(found))
version = $(or $(word 2,$(found)),none)

# Each has a file of what it takes.
comma := ,
extras := $(subst $(comma), ,$(EXTRAS))
all_extras := $(filter-out dev,\
  $(patsubst requirements-%.txt,%,$(wildcard requirements-*.txt)))
unknown_extras := $(filter-out $(all_extras),$(extras))
ifneq ($(unknown_extras),)
  $(error EXTRAS=$(EXTRAS): there is no $(unknown_extras). Choose from: \
    $(all_extras))
endif

all_peers := $(patsubst benchmarks/peers/requirements-%.txt,%,\
  $(wildcard benchmarks/peers/requirements-*.txt))

OP_SOURCES := dynamic_batching/build.py $(wildcard dynamic_batching/cc/*)
UV_VERSION := 0.13.8
pip := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: help
help: ## This list.
	@echo 'Usage: make TARGET [ARGS="--flag=value ..."] [PYTHON=python3.12]'
	@sed -n 's/^\([a-z-]*\):.*## /  \1\t/p' $(MAKEFILE_LIST) | expand -t 16

.PHONY: train
train: setup ## Trains (IMPALA on Pong), or resumes. ARGS='--level_name=breakout'
	$(BIN)/python experiment.py $(ARGS)

.PHONY: evaluate
evaluate: setup ## Tests the agent in LOGDIR=logs/pong. ARGS='--video_dir=videos'
	$(BIN)/python experiment.py --mode=test --logdir='$(LOGDIR)' $(ARGS)

.PHONY: plot
plot: setup ## Draws learning curves of LOGDIR='logs/pong ...' to OUTPUT=curve.png
	$(BIN)/python benchmarks/plot.py $(LOGDIR:%=--logdir='%') \
	  --output='$(OUTPUT)' $(ARGS)

.PHONY: benchmark
benchmark: setup ## Measures training and its parts; --output=throughput.json
	$(BIN)/python benchmarks/throughput.py $(ARGS)

.PHONY: benchmark-accelerator
benchmark-accelerator: setup ## Measures all that needs a GPU; small without one.
	$(BIN)/python benchmarks/accelerator.py $(ARGS)

.PHONY: benchmark-distributed
benchmark-distributed: setup ## Measures 1 to 8 actor processes beside one machine.
	$(BIN)/python benchmarks/distributed.py $(ARGS)

.PHONY: benchmark-service
benchmark-service: setup ## Measures what it costs a learner to serve actors.
	$(BIN)/python benchmarks/service.py $(ARGS)

.PHONY: soak
soak: setup ## Breaks a distributed training 10,000 times. ARGS='--faults=500'
	$(BIN)/python benchmarks/soak.py $(ARGS)

.PHONY: probe
probe: setup ## Trains shortly on some levels. ARGS='--levels=pong -- --lstm'
	$(BIN)/python benchmarks/probe.py $(ARGS)

.PHONY: worlds
worlds: setup ## Tries all levels of a suite. ARGS='--suite=envpool --output=x.csv'
	$(BIN)/python benchmarks/worlds.py $(ARGS)

.PHONY: benchmark-batcher
benchmark-batcher: setup ## Measures the dynamic batcher beside TensorFlow's.
	$(BIN)/python benchmarks/batcher.py $(ARGS)

.PHONY: benchmark-peers
benchmark-peers: setup ## Measures what else trains on Pong. ARGS='--peers=rllib'
	$(BIN)/python benchmarks/peers.py $(ARGS)

.PHONY: peers-setup
peers-setup: ## Makes the environment of a peer. NAME=sample_factory
ifeq ($(filter $(NAME),$(all_peers)),)
	@echo >&2 'make: NAME=$(NAME): choose from: $(all_peers)'; exit 1
else
	@$(MAKE) .venv-peers-$(NAME)/.requirements
endif

.PHONY: test
test: setup-dev ## Runs all Python tests. ARGS='-k vtrace' runs some.
	$(BIN)/python -m pytest --numprocesses=$(TEST_PROCESSES) --dist=worksteal \
	  $(ARGS)

.PHONY: version
version: ## The version of Python that is used.
	@echo $(version)

.PHONY: nightly
nightly: setup-dev ## Runs the tests that take minutes: on real games, a soak.
	$(BIN)/python -m pytest -m nightly $(ARGS)

.PHONY: test-hosts
test-hosts: setup-dev ## Runs a training across network namespaces; needs root.
	$(BIN)/python -m pytest tests/test_hosts.py tests/test_deploy_hosts.py $(ARGS)

.PHONY: test-cc
test-cc: setup ## Runs the C++ stress test under the sanitizers.
	$(BIN)/python -m dynamic_batching.build --test

.PHONY: test-asan
test-asan: setup-dev ## Runs tests of the native ops under AddressSanitizer.
	$(BIN)/python tests/dynamic_batching/asan.py

.PHONY: lint
lint: setup-dev ## Checks format, style and types.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

.PHONY: format
format: setup-dev ## Formats the code.
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.PHONY: setup
setup: packages $(VENV)/.op ## Makes the environment. EXTRAS=minigrid,vizdoom

.PHONY: packages
packages: $(VENV)/.requirements $(extras:%=$(VENV)/.requirements-%)

.PHONY: setup-dev
setup-dev: setup $(VENV)/.requirements-dev ## The same with development tools.

.PHONY: requirements
requirements: setup ## Pins requirements*.txt anew from pyproject.toml.
	$(pip) install --quiet uv==$(UV_VERSION)
	$(call pin,pyproject.toml,requirements.txt)
	$(call pin,--group=dev --constraints=requirements.txt,requirements-dev.txt,\
	  -r requirements.txt\n)
	@for extra in $(all_extras); do \
	  $(MAKE) pin-extra EXTRA=$$extra || exit 1; \
	done

# Of an extra, what it takes beside the rest.
.PHONY: pin-extra
pin-extra:
	$(call pin,--extra=$(EXTRA) --constraints=requirements.txt pyproject.toml,\
	  requirements-$(EXTRA).txt,-r requirements.txt\n,\
	  grep -vxFf requirements.txt)

.PHONY: clean
clean: ## Removes what was built or installed; keeps logs.
	rm -rf $(VENV) .venv-peers-* build dist *.egg-info
	rm -rf .pytest_cache .ruff_cache .mypy_cache
	rm -f dynamic_batching/*.so dynamic_batching/.libbatcher.lock
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# An environment that fits is kept; one of another Python, or broken, is not.
$(VENV)/.python-%:
	@[ '$*' != none ] || { echo >&2 \
	  'make: needs Python 3.10 to 3.13 but found none among: $(PYTHONS).' \
	  'Install one (apt-get install python3 python3-venv) or name it:' \
	  'make PYTHON=/path/to/python3.12 ...'; exit 1; }
	@$(python) -c 'import ensurepip, venv' 2>/dev/null || { echo >&2 \
	  'make: $(python) cannot make virtual environments. Install its venv' \
	  'module: apt-get install python3-venv (or python$*-venv)'; exit 1; }
	@[ "$$($(BIN)/python -c '$(print_version)' 2>/dev/null)" = '$*' ] && \
	  $(pip) --version >/dev/null 2>&1 || \
	  { echo 'Making $(VENV) with Python $*'; \
	    $(python) -m venv --clear $(VENV); }
	@rm -f $(VENV)/.python-* && touch $@

# Expanded a second time, when the rule is used: see `found`.
.SECONDEXPANSION:
$(VENV)/.requirements: requirements.txt $(VENV)/.python-$$(version)
	$(pip) install --requirement=$<
	@touch $@

$(VENV)/.requirements-%: requirements-%.txt $(VENV)/.requirements
	$(pip) install --requirement=$<
	@touch $@

.venv-peers-%/.requirements: benchmarks/peers/requirements-%.txt
	@[ '$(version)' != none ] || { echo >&2 \
	  'make: needs Python 3.10 to 3.13: make peers-setup NAME=$* PYTHON=...'; \
	  exit 1; }
	@echo 'Making $(@D) with Python $(version)'
	@$(python) -m venv --clear $(@D)
	$(@D)/bin/python -m pip --disable-pip-version-check install --requirement=$<
	@[ ! -f benchmarks/peers/unisolated-$*.txt ] || \
	  $(@D)/bin/python -m pip --disable-pip-version-check install \
	  --no-build-isolation --requirement=benchmarks/peers/unisolated-$*.txt
	@touch $@

# Without a compiler there is no stamp, so that the next run looks again.
$(VENV)/.op: $(VENV)/.requirements $(OP_SOURCES)
	@for compiler in $${CXX:-g++ clang++ c++}; do \
	  if command -v $$compiler >/dev/null; then \
	    echo 'Building the native ops of dynamic_batching'; \
	    if $(BIN)/python -m dynamic_batching.build >$@.log 2>&1; then \
	      touch $@; \
	    else \
	      cat >&2 $@.log; \
	      echo >&2 'make: no native ops; training batches in Python instead.'; \
	    fi; \
	    exit 0; \
	  fi; \
	done; \
	echo >&2 'make: no C++ compiler, so training batches in Python, which is' \
	  'slower. To get the native ops: apt-get install g++'

# One file for all Pythons and platforms; what holds for all of them is implied.
define pin
@echo 'Resolving $(strip $(2))'
@printf '# Made by `make requirements` from pyproject.toml.\n$(strip $(3))' >$(strip $(2))
@$(BIN)/uv pip compile --quiet --universal --python-version=3.10 --no-header \
  --no-annotate --no-emit-index-url --no-python-downloads \
  --python=$(BIN)/python $(1) | sed \
  -e "s/ and sys_platform != 'win32'//; s/ and python_full_version < '3.14'//" \
  -e "s/python_full_version < '3.14' and //" \
  -e "s/ ; python_full_version < '3.14'$$//" | $(or $(4),cat) >>$(strip $(2))
endef
