# Every target sets up what it needs; `make help` lists them.
.DEFAULT_GOAL := help
SHELL := /bin/sh
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# A client without the plug-in may stand earlier on the PATH than the one that has it.
COMPOSE = $$(docker compose version >/dev/null 2>&1 && echo docker compose || echo docker-compose)
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: help setup demo up test lint types contracts unit unit-umbral fuzz-parsers bench lock audit soak vectors examples engine compose-up compose-demo compose-down compose-test chaos plans browser-test pictures fuzz fuzz-http fuzz-consent fuzz-revocation races clean

help: ## List the targets.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

setup: $(READY) ## Make .venv and install the project with its locked dependencies.

$(READY): pyproject.toml requirements/dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "PCEHR needs Python 3.11 or newer; name one with: make PYTHON=python3.11 demo"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || { echo "Python's venv module is missing; on Debian: apt-get install python3-venv"; exit 1; }
	@echo "Making .venv with the locked dependencies; this takes a minute the first time."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --require-hashes -r requirements/dev.txt
	@$(BIN)/pip install --quiet --no-deps --editable .
	@touch $@

demo: $(READY) ## Run the whole story on one machine: platform, two patients, a hospital, two recipients.
	@$(BIN)/pcehr demo

up: $(READY) ## Start the platform on this machine and print the Swagger addresses.
	@$(BIN)/pcehr up

test: lint types contracts unit ## Lint, types, import contracts and every test.

lint: $(READY)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/bandit --quiet --recursive --configfile pyproject.toml client services shared

types: $(READY)
	@$(BIN)/mypy

contracts: $(READY)
	@$(BIN)/lint-imports --no-cache

# In the order of the folders, which has the long ones among the first, so that the workers end at about the same time.
# They are three, since on two cores each waits for a fifth of its time.
unit: $(READY)
	@$(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder

# Where Umbral is called, alone and in the flow. All else does with one implementation what it does with the other.
WITH_UMBRAL := $(addprefix tests/,property vectors wycheproof unit/crypto e2e/test_flow.py) \
	$(addprefix tests/services/,proxy/test_kfrags.py proxy/test_reencryptions.py proxy/test_workers.py) \
	$(addprefix tests/unit/client/test_,consent.py dishonest_services.py envelopes.py opening.py patient.py pool.py verification.py)

unit-umbral: $(READY) ## The tests that call Umbral, with its second implementation.
	@PCEHR_UMBRAL_ENGINE=umbral $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder $(WITH_UMBRAL)

bench: $(READY) ## Measure the platform beside its limits and write bench/results.json (bench/README.md).
	@$(BIN)/python -m bench

# FUZZ passes options on, such as FUZZ='--executions 10000 --only "statement*"'; python -m tests.fuzz --help lists them.
fuzz-parsers: $(READY) ## A million executions of every decoder of untrusted bytes.
	@$(BIN)/python -m tests.fuzz $(FUZZ)

fuzz: fuzz-http fuzz-parsers fuzz-consent fuzz-revocation ## Try hostile input, sequences of consent and faults for a long time (a day).

fuzz-http: $(READY) ## Every operation of every service under Schemathesis, 500 examples of each.
	@PCEHR_FUZZ_EXAMPLES=500 $(BIN)/pytest -n 0 --timeout 0 tests/http_fuzzing

lock: ## Write requirements/*.txt anew from pyproject.toml (needs uv).
	@uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header pyproject.toml -o requirements/runtime.txt
	@uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header pyproject.toml --extra dev -o requirements/dev.txt

audit: $(READY) ## Write the list of locked dependencies and what is known of them.
	@$(BIN)/python -m tests.unit.hygiene.dependencies

soak: $(READY) ## Look whether the memory of each process stays: MINUTES of load (60).
	@$(BIN)/python -m bench.soak --minutes $(or $(MINUTES),60)

fuzz-consent: $(READY) ## Hold the platform against the model of consent, 1,000 runs of 50 steps (RUNS=n, FIRST=seed).
	@$(BIN)/python -m tests.consent_model --controls
	@$(BIN)/python -m tests.consent_model --runs $(or $(RUNS),1000) --first $(or $(FIRST),1)

fuzz-revocation: $(READY) ## Simulate revocation with faults and liars, 100,000 seeds of each group (SEEDS=n, FIRST=n).
	@$(BIN)/python -m tests.simulation --seeds $(or $(SEEDS),100000) --first $(or $(FIRST),0)

races: $(READY) ## Play 500 rounds of each race from fifty connections (ROUNDS=n, SEED=n).
	@$(BIN)/python -m tests.races --rounds $(or $(ROUNDS),500) --seed $(or $(SEED),1)

vectors: $(READY) ## Write fresh test vectors.
	@$(BIN)/python -m tests.vectors.generate

examples: $(READY) ## Write the examples that the OpenAPI documents show.
	@$(BIN)/python -m tests.examples.generate

engine: ## Make sure of a container engine, Compose and the base images (Debian, root).
	@.ci/engine

compose-up: ## Start the platform in containers and wait until it is healthy.
	@$(COMPOSE) up --build --detach --wait

compose-demo: ## Tell the story against the platform in containers.
	@$(COMPOSE) run --rm demo

compose-down: ## Stop the containers; their data stay (add -v by hand to delete those too).
	@$(COMPOSE) --profile '*' down

compose-test: $(READY) ## Test the containers on a real engine: isolation, faults, replicas, upgrades.
	@$(BIN)/pytest -m compose --timeout 900 tests/compose

plans: $(READY) ## Explain every statement of the services with a million records in the tables; takes some minutes.
	@PCEHR_PLAN_RECORDS=1000000 $(BIN)/pytest -n 0 tests/services/plans

chaos: $(READY) ## Kill every process at 1,000 random points and at every write, fill up every disk (an hour or two, root).
	@PCEHR_CHAOS=whole $(BIN)/pytest -n 0 tests/chaos

browser-test: $(READY) ## Use Swagger UI of each service in a headless Chromium, which must be installed.
	@$(BIN)/pytest -m browser tests/browser

pictures: $(READY) ## Take the pictures of docs/swagger.md anew (needs Chromium, and ports 8400 on).
	@PCEHR_PICTURES=docs/pictures $(BIN)/pytest -m browser tests/browser/test_pictures.py

clean: ## Remove what the targets made.
	@rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
