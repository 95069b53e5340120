# The front door. `make help` lists what can be done; each target makes its environment (.venv) first.

BIN := .venv/bin
TIERS := .venv/bin/python tools/run_tiers.py

.DEFAULT_GOAL := help
.PHONY: help setup run test lint format test-unit test-simulation test-integration test-oldest \
	test-chaos test-chart test-e2e bench cluster cluster-down image docs dashboards lock sbom audit fuzz clean

help: ## List the targets
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/  make \1 \t\2/p' $(MAKEFILE_LIST) | expand -t 27

setup: ## Make .venv from the locks (PYTHON=… for a certain Python); instant when it is current
	@tools/setup.sh

run: setup ## Run all of GoQueue on this machine: API, worker, scheduler, PostgreSQL, Valkey
	@exec $(BIN)/goqueue dev

test: setup ## Run every check and every test
	@$(TIERS) lint unit simulation integration oldest fuzz chaos chart e2e

lint: setup ## Check style, types and the dependency rules
	@failed=; for check in "ruff check" "ruff format --check" mypy lint-imports; do \
		echo "$$check"; $(BIN)/$$check || failed="$$failed, $$check"; \
	done; [ -z "$$failed" ] || { echo "lint failed: $${failed#, }"; exit 1; }

format: setup ## Put the code into the project's style
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

test-unit: setup ## Test the pure logic (seconds)
	@$(TIERS) unit

test-simulation: setup ## Explore interleavings of the engine's protocol with seeds (SEED=… repeats one)
	@$(if $(SEED),$(BIN)/python -m tests.simulation --seed $(SEED),$(TIERS) simulation)

test-integration: setup ## Test on real PostgreSQL, Valkey, SMTP and HTTP
	@$(TIERS) integration

test-oldest: setup ## Test the engine on the oldest Python that this machine has (3.11 or later)
	@$(TIERS) oldest

test-chaos: setup ## Kill every part under load and count the jobs
	@$(TIERS) chaos

test-chart: setup ## Test the Helm chart: what it renders, and what it refuses
	@$(TIERS) chart

test-e2e: setup ## Test on a real Kubernetes (needs Go, and root or a container engine)
	@$(TIERS) e2e

bench: setup ## Measure throughput and latency beside River
	@$(BIN)/python -m benchmarks

cluster: setup ## Start a real Kubernetes on this machine with GoQueue in it
	@$(BIN)/python -m tests.cluster install

cluster-down: setup ## Remove that Kubernetes
	@$(BIN)/python -m tests.cluster down

image: setup ## Build the container image as IMAGE=… (default: the chart's), with a container engine or without one
	@$(BIN)/python tools/image.py $(if $(ENGINE),--engine $(ENGINE)) $(or $(IMAGE),$(shell sed -n \
		's/^version = "\(.*\)"/docker.io\/goqueue\/goqueue:\1/p' pyproject.toml))

docs: setup ## Write the generated tables in docs/ anew
	@for page in settings metrics; do \
		$(BIN)/goqueue $$page --markdown > docs/$$page.md.new && mv docs/$$page.md.new docs/$$page.md || exit 1; \
	done

dashboards: setup ## Write the Grafana dashboards into the chart
	@$(BIN)/python -m grafana

lock: setup ## Write requirements/*.lock anew from pyproject.toml (UPGRADE=1: newest versions)
	@tools/lock.sh

sbom: setup ## Write the bill of materials of the images (CycloneDX) to .build/sbom/
	@$(BIN)/python tools/sbom.py

fuzz: setup ## Make up inputs for MINUTES=… (5) and count them
	@GOQUEUE_FUZZ_SECONDS=$$(( $(or $(MINUTES),5) * 60 / $$(grep -h "^def test_" tests/fuzz/*.py | wc -l) )) \
		$(BIN)/pytest tests/fuzz -o timeout=86400

audit: setup ## Look up the locked packages in the database of known vulnerabilities (needs the network)
	@$(BIN)/python tools/audit.py requirements/*.lock

clean: ## Remove .venv, caches and build products (what `make run` keeps in .goqueue stays)
	rm -rf .venv .build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
