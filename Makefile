# drillproof: `make drills` runs the main job, `make test` passes the tests, `make help` lists the rest.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
WORLD  ?= local
POLICY ?=
SETS   ?= phase2 ops state
SEED   ?= 1
SEEDS  ?= 0..99
SHARDS ?= 2
JOBS   ?=
TO     ?= evidence/nightly.md
ACTIONLINT := .drillproof/bin/actionlint
ACTIONLINT_VERSION := v1.7.12
STAMP  := $(VENV)/.ready

.PHONY: help setup toxiproxy engine image test drills mutants placebos rehearse specificity soak attack nightly nightly-summary workflows check lint bench clean
.DEFAULT_GOAL := help

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 24

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "setup: Python 3.11 or newer is needed ($(PYTHON) is not); name one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 2; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv --clear $(VENV) || { rm -rf $(VENV); \
	  echo "setup: $(PYTHON) cannot make a virtual environment (Debian, Ubuntu: apt install python3-venv)" >&2; exit 2; }
	@echo "setup: installing into $(VENV), once; a minute or so" >&2
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test,clock]'
	@touch $@

setup: $(STAMP) ## a virtual environment in .venv/, and the Toxiproxy server
	@$(BIN)/drillproof toxiproxy --quiet || true

test: setup ## pass the tests
	@$(BIN)/python -m pytest -n 2 --dist worksteal -q

engine: $(STAMP) ## a container engine, a base image and our images, each where it is missing; needs root to install
	@$(BIN)/python -m harness.engine

image: $(STAMP) ## the images of the docker world, where this checkout's are missing
	@$(BIN)/python -m harness.engine images

drills: $(STAMP) ## all drills of Phase 2 (SETS=ops: only those), a verified pack, the gate's decision; WORLD=docker: in containers
	@$(BIN)/python -m harness.mainjob --world $(WORLD) --seed $(SEED) --policy "$(POLICY)" --sets "$(SETS)"

mutants: $(STAMP) ## every sabotage under every drill, in the simulator: who notices what; some minutes
	@$(BIN)/drillproof mutants --seed $(SEED) --drills $(SETS)

placebos: $(STAMP) ## every drill without its force, in the simulator: each must FAIL; a minute or so
	@$(BIN)/drillproof run $(SETS) --world sim --seed $(SEED) --placebo

rehearse: $(STAMP) ## the same drills in the simulator under the reference policy, in a minute or so; says how fast
	@$(BIN)/python -m harness.rehearsal --seed $(SEED) --sets "$(SETS)"

specificity: $(STAMP) ## a healthy trader under a hundred seeds in the simulator, both policies; long
	@$(BIN)/drillproof run $(SETS) --world sim --policy drill --seeds $(SEEDS) --jobs 2 --out evidence/specificity
	@$(BIN)/drillproof run $(SETS) --world sim --policy reference --seeds $(SEEDS) --jobs 2 --out evidence/specificity

soak: $(STAMP) ## five whole runs in real processes with every core busy with other work, compared with the simulator
	@$(BIN)/python -m bench.load $(BIN)/drillproof run phase2 --world local --seeds 1..5 --jobs 2 --out evidence/soak
	@$(BIN)/drillproof run phase2 --world sim --policy drill --seed 1 --jobs 2 --out evidence/soak
	@$(BIN)/drillproof compare sim local --out evidence/soak

attack: setup ## the toolkit under attack: every campaign at its full number, and what each did
	@ATTACK=full $(BIN)/python -m pytest tests/attack -n 2 -q -rP

nightly: $(STAMP) ## the whole night on one machine: shards, one pack, compared, drawn, the gate; WORLD=sim to try it
	@$(BIN)/python -m harness.nightly --world $(if $(filter command line environment,$(origin WORLD)),$(WORLD),docker) \
	  --policy $(or $(POLICY),reference) --shards $(SHARDS) $(if $(JOBS),--jobs $(JOBS))

nightly-summary: $(STAMP) ## gate, comparison and first page of the newest pack, added to the file TO
	@$(BIN)/python -m harness.nightly --summary "$(TO)"

workflows: ## the workflow files under actionlint, which Go builds once
	@test -x $(ACTIONLINT) || { command -v go >/dev/null || { echo "workflows: actionlint is not here, and Go to build it neither" >&2; exit 3; }; \
	  echo "workflows: building actionlint $(ACTIONLINT_VERSION), once" >&2; \
	  GOBIN="$(CURDIR)/.drillproof/bin" go install github.com/rhysd/actionlint/cmd/actionlint@$(ACTIONLINT_VERSION) >&2 || exit 3; }
	@$(ACTIONLINT) -version | head -1 && $(ACTIONLINT) .github/workflows/*.yml && echo "workflows: nothing to object to"

check: $(STAMP) ## style, types, what is generated, drill files; seconds, and nothing is run (first thing before a commit)
	$(BIN)/ruff check harness system_under_test tests bench
	$(BIN)/mypy harness
	$(BIN)/python -m harness.contracts.generate --check
	$(BIN)/python -m harness.drill.schema --check
	$(BIN)/python -m harness.pack.phases --check
	$(BIN)/drillproof check $(SETS)

bench: $(STAMP) ## what things cost, measured side by side; never fails on time
	@$(BIN)/python -m bench

clean: ## remove what setup and runs made, but never the evidence
	rm -rf $(VENV) .drillproof build *.egg-info
