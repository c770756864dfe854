# Everything is installed and built under build/; nothing of the machine is changed. Start with: make help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-builtin-rules --no-print-directory
.DEFAULT_GOAL := help

PYTHON ?= python3
TOP := $(CURDIR)
BIN := $(TOP)/build/venv/bin
COLLECTIONS := $(TOP)/build/collections
STAGE := $(COLLECTIONS)/ansible_collections/ferry/vmware
STEP := tools/step.sh
# More arguments for the tool of a target: make test-unit ARGS='-k vmdk -x'
ARGS ?=

# make test starts a lab of its own beside the user's (build/lab, ports from 21000).
TEST_LAB := FERRY_LAB_BASE=$${FERRY_TEST_LAB_BASE:-21500} FERRY_LAB_DIR=$(TOP)/build/lab-test
export ANSIBLE_COLLECTIONS_PATH := $(COLLECTIONS)
# Compiled once, not at every start: some environments switch that off, and each module of a play is a start.
unexport PYTHONDONTWRITEBYTECODE

# ---------------------------------------------------------------------------------------------------------------------
##@ Start here

.PHONY: help
help: ## List the targets
	@awk 'BEGIN { FS = ":.*## " } /^##@ / { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z][a-z0-9-]*:.*## / { printf "  make %-20s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: need-lab venv collections venv-openstack stage ## Start the lab and migrate three VMs in it: about five minutes the first time
	@$(BIN)/python demo/run.py $(ARGS)

.PHONY: demo-clean
demo-clean: venv ## Stop the demo's lab and remove what the demo made
	@$(BIN)/python demo/run.py --clean $(ARGS)

.PHONY: test
test: need-test venv collections venv-openstack venv-rulebook ## All tests: lint, unit, sanity, and the tests on a lab of their own
	@$(PYTHON) tools/run_tests.py

# ---------------------------------------------------------------------------------------------------------------------
##@ Tests, one by one (ARGS='...' goes to the tool, V=1 shows its output)

.PHONY: test-unit
test-unit: venv stage ## Unit tests: seconds, no lab
	@$(STEP) unit env -C $(STAGE) PYTHONPATH=$(COLLECTIONS) $(BIN)/python -m pytest -n auto --dist worksteal -m 'not slow' \
	  $(if $(findstring tests/,$(ARGS)),,tests/unit) $(ARGS)

.PHONY: test-slow
test-slow: venv collections stage ## Unit tests that take longer: whole playbooks, kills, large files
	@$(STEP) unit-slow env -C $(STAGE) PYTHONPATH=$(COLLECTIONS) $(BIN)/python -m pytest -m 'slow and not long' -n 2 \
	  $(if $(findstring tests/,$(ARGS)),,tests/unit) $(ARGS)

.PHONY: test-unit-long
test-unit-long: venv collections stage ## Unit tests that take minutes: the whole of what make test samples
	@$(STEP) unit-long env -C $(STAGE) PYTHONPATH=$(COLLECTIONS) $(BIN)/python -m pytest -m long -n 2 \
	  $(if $(findstring tests/,$(ARGS)),,tests/unit) $(ARGS)

.PHONY: test-kills
test-kills: venv stage ## Copies killed between any two steps and run again: FERRY_KILL_RUNS histories (200) from FERRY_KILL_SEED (0) on
	@$(STEP) kills env -C $(STAGE) PYTHONPATH=$(COLLECTIONS) FERRY_KILL_RUNS=$${FERRY_KILL_RUNS:-200} $(BIN)/python -m pytest -n 2 \
	  tests/unit/plugins/module_utils/disk/test_kills.py $(ARGS)

.PHONY: fuzz
fuzz: venv stage ## Damage VMDKs at length: FERRY_FUZZ_COUNT mutations (50,000) from FERRY_FUZZ_SEED on; failures go to build/fuzz
	@mkdir -p build/fuzz
	@env -C $(STAGE) PYTHONPATH=$(COLLECTIONS):$(STAGE) FERRY_FUZZ_KEEP=$(TOP)/build/fuzz \
	  $(BIN)/python -m tests.unit.plugins.module_utils.disk.vmdk.fuzz

.PHONY: storm
storm: venv collections stage ## Storms over copies at length: FERRY_STORM_COUNT of them (50) from the seed FERRY_STORM_SEED (1) on
	@env -C $(STAGE) PYTHONPATH=$(COLLECTIONS):$(STAGE) $(BIN)/python -m tests.lab_tests.storm $${FERRY_STORM_COUNT:-50} $${FERRY_STORM_SEED:-1}

.PHONY: storm-moves
storm-moves: venv collections stage ## Storms over moves, failover and drains at length: FERRY_STORM_COUNT of them (50) from the seed FERRY_STORM_SEED (1) on
	@env -C $(STAGE) PYTHONPATH=$(COLLECTIONS):$(STAGE) $(BIN)/python -m tests.lab_tests.moves_storm $${FERRY_STORM_COUNT:-50} $${FERRY_STORM_SEED:-1}

.PHONY: test-lab
test-lab: venv stage ## Tests against the running lab (make lab first)
	@$(STEP) lab-tests tools/with_lab.sh env -C $(STAGE) PYTHONPATH=$(COLLECTIONS):$(STAGE) $(BIN)/python -m pytest \
	  $(if $(findstring tests/,$(ARGS)),,tests/lab_tests) $(ARGS)

# make test runs the lab's tests in three processes: those of vCloud share nothing with the others, and those that start a
# vCenter of their own need no lab that runs.
lab_tests = $(addprefix tests/lab_tests/,$(sort $(notdir $(wildcard $(addprefix tests/lab_tests/test_,$(1))))))
VCLOUD_TESTS := $(call lab_tests,vcloud_*.py)
OWN_TESTS := $(call lab_tests,awx_*.py cbt.py copy_faults.py copy_running.py copy_storm.py doctor.py events*.py failover*.py hooks_source.py machine_register.py moves_*.py \
  placement_plays.py policy.py precheck_source.py quick_start.py sessions.py slices.py snapshots.py source_restore.py sources.py vcenter_*.py vm_move.py vm_placement.py warm.py)
.PHONY: test-lab-others test-lab-vcloud test-lab-vcenter
test-lab-others: venv stage
	@$(STEP) lab-tests tools/with_lab.sh env -C $(STAGE) PYTHONPATH=$(COLLECTIONS):$(STAGE) $(BIN)/python -m pytest \
	  -m 'not long' tests/lab_tests $(addprefix --ignore=,$(VCLOUD_TESTS) $(OWN_TESTS)) $(ARGS)

test-lab-vcloud: venv stage ## Those of the tests against the running lab that are of vCloud Director
	@$(STEP) lab-vcloud tools/with_lab.sh env -C $(STAGE) PYTHONPATH=$(COLLECTIONS):$(STAGE) $(BIN)/python -m pytest \
	  $(VCLOUD_TESTS) $(ARGS)

test-lab-vcenter: venv collections venv-rulebook stage ## Those of them that start a vCenter of their own: snapshots, changed areas, copies, precopy
	@$(STEP) lab-vcenter env -C $(STAGE) PYTHONPATH=$(COLLECTIONS):$(STAGE) $(BIN)/python -m pytest -n 2 --dist loadfile -m 'not long' \
	  $(if $(findstring tests/,$(ARGS)),,$(OWN_TESTS)) $(ARGS)

.PHONY: test-kubernetes
test-kubernetes: venv collections stage ## What drives MTV and Harvester, against an API server of its own (built at the first time: minutes)
	@$(STEP) kubernetes env -C $(STAGE) PYTHONPATH=$(COLLECTIONS):$(STAGE) $(BIN)/python -m pytest \
	  $(if $(findstring tests/,$(ARGS)),,tests/kubernetes) $(ARGS)

.PHONY: test-kubernetes-short
test-kubernetes-short: venv collections stage ## The short ones of them: make test runs these where the API server has been built
	@$(STEP) kubernetes env -C $(STAGE) PYTHONPATH=$(COLLECTIONS):$(STAGE) $(BIN)/python -m pytest tests/kubernetes -m 'not long' $(ARGS)

.PHONY: build-kubernetes
build-kubernetes: venv ## Build the API server that these need: minutes and 2 GB of memory, once
	@$(STEP) build-kubernetes $(BIN)/python -m tests.lab build kubernetes

.PHONY: test-long
test-long: venv stage ## Those of the lab's tests that take minutes: warm migrations with real waits (make lab first)
	@$(STEP) lab-long tools/with_lab.sh env -C $(STAGE) PYTHONPATH=$(COLLECTIONS):$(STAGE) $(BIN)/python -m pytest -m long \
	  $(if $(findstring tests/,$(ARGS)),,tests/lab_tests) $(ARGS)

.PHONY: test-boot
test-boot: need-boot venv collections venv-libvirt stage ## Migrate guests that boot, and see them boot under libvirt, in a lab of its own: minutes
	@$(STEP) boot env FERRY_LAB_BASE=$${FERRY_BOOT_LAB_BASE:-21700} FERRY_LAB_DIR=$(TOP)/build/lab-boot tools/boot_tests.sh $(STAGE) $(ARGS)

.PHONY: test-guest
test-guest: need-guest venv collections venv-libvirt stage ## Migrate a Debian guest that needs converting, and see it boot: a quarter of an hour
	@$(STEP) guest env FERRY_LAB_BASE=$${FERRY_GUEST_LAB_BASE:-21900} FERRY_LAB_DIR=$(TOP)/build/lab-guest tools/boot_tests.sh $(STAGE) \
	  tests/lab_tests/test_guest_convert.py tests/lab_tests/test_guest_windows.py $(ARGS)

.PHONY: test-demo
test-demo: need-lab venv collections venv-openstack stage ## make demo from nothing, twice, and demo-clean; it ends the demo's lab
	@$(STEP) demo env FERRY_CHECKOUT=$(TOP) $(BIN)/python -m pytest tests/demo $(ARGS)

.PHONY: test-integration
test-integration: venv collections stage ## ansible-test integration against the running lab (ARGS=target for one)
	@$(STEP) integration tools/with_lab.sh tools/integration.sh $(ARGS)

.PHONY: test-molecule test-molecule-all
test-molecule: venv collections stage ## Molecule's scenario without a lab; ARGS='-s warm' for another: warm, vcd, vmdk_import, failover
	@$(STEP) molecule env -C $(STAGE)/extensions PATH=$(BIN):$$PATH sh -c "molecule reset && molecule test $(ARGS)"

test-molecule-all: need-lab venv collections venv-openstack stage ## All of Molecule's scenarios, each on a lab of its own: five minutes
	@$(STEP) molecule-all env -C $(STAGE)/extensions PATH=$(BIN):$$PATH molecule test --all $(ARGS)

.PHONY: test-cores
test-cores: venv collections dist ## The archive on ansible-core 2.17, 2.18, 2.19: unit tests, and playbooks on a lab's vCenter (CORES='2.17' for one)
	@$(STEP) cores tools/core_tests.sh $${CORES:-2.17 2.18 2.19}

UNSHIPPED := tests/demo tests/kubernetes tests/lab tests/lab_tests tests/bench tools demo
.PHONY: sanity
sanity: venv collections stage ## ansible-test sanity over what is shipped
	@$(STEP) sanity tools/ansible_test.sh sanity $(foreach d,$(UNSHIPPED),$(if $(wildcard $d/*),--exclude $d/)) $(ARGS)

.PHONY: galaxy-importer
galaxy-importer: build ## What Galaxy would say to the built collection
	@$(STEP) galaxy-importer tools/galaxy_importer.sh

# ---------------------------------------------------------------------------------------------------------------------
##@ Lint

LINTS := lint-ruff lint-format lint-types lint-layers lint-yaml lint-shell lint-go lint-docs lint-ansible lint-licences
.PHONY: lint $(LINTS)
lint: $(LINTS) ## All of these

lint-ruff: venv ## Python: ruff
	@$(STEP) ruff $(BIN)/ruff check --output-format concise .

lint-format: venv ## Python: format (make format mends it)
	@$(STEP) format $(BIN)/ruff format --check .

lint-types: venv stage ## Python: mypy --strict
	@$(STEP) mypy tools/mypy.sh

lint-layers: venv stage ## Python: who imports whom
	@$(STEP) plain-imports $(PYTHON) tools/check_imports.py
	@$(STEP) layers env -C $(COLLECTIONS) PYTHONPATH=$(COLLECTIONS) $(BIN)/lint-imports --no-logo --no-cache --config $(STAGE)/pyproject.toml

lint-yaml: venv ## YAML: yamllint
	@$(STEP) yamllint $(BIN)/yamllint --strict .

lint-shell: need-lint ## Shell scripts: shellcheck
	@$(STEP) shellcheck tools/shell_lint.sh

lint-go: venv ## The lab's Go program: gofmt, go vet
	@$(STEP) go tools/go_lint.sh

lint-licences: venv ## Copyright and licence of every file: REUSE
	@$(STEP) reuse $(BIN)/reuse lint --lines

lint-docs: venv collections stage ## Documentation of modules, plugins and roles: antsibull-docs
	@$(STEP) plugin-docs env -C $(STAGE) NO_COLOR=1 PATH=$(BIN):$$PATH antsibull-docs lint-collection-docs --plugin-docs \
	  --validate-collection-refs=all --disallow-unknown-collection-refs .

lint-ansible: venv collections stage ## Roles and playbooks: ansible-lint, production profile
	@$(STEP) ansible-lint env -C $(STAGE) NO_COLOR=1 PATH=$(BIN):$$PATH ansible-lint --profile production --offline --strict

.PHONY: format
format: venv ## Format the Python files
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

# ---------------------------------------------------------------------------------------------------------------------
##@ The lab: a vCenter, an OpenStack and a vCloud Director on loopback (FERRY_LAB_BASE moves its ports, FERRY_LAB_DIR its files)

.PHONY: lab lab-vcenter lab-openstack lab-openstack-libvirt lab-vcloud lab-kubernetes lab-status lab-down
lab: need-lab venv venv-openstack ## Start it and write build/lab/env.sh
	@$(BIN)/python -m tests.lab up $(ARGS)

lab-vcenter: need-disks venv ## Start the vCenter alone
	@$(BIN)/python -m tests.lab up vcenter $(ARGS)

lab-openstack: need-openstack venv venv-openstack ## Start OpenStack alone
	@$(BIN)/python -m tests.lab up openstack $(ARGS)

lab-openstack-libvirt: need-openstack need-libvirt venv venv-libvirt ## The same with Nova on libvirt: servers that run (emulated, no rights needed)
	@$(BIN)/python -m tests.lab up openstack --nova libvirt $(ARGS)

lab-vcloud: venv ## Start the vCloud Director alone
	@$(BIN)/python -m tests.lab up vcloud $(ARGS)

lab-kubernetes: venv ## Start an API server with MTV's and Harvester's kinds (built at the first time: minutes, 2 GB of memory)
	@$(BIN)/python -m tests.lab up kubernetes $(ARGS)

lab-status: venv ## Say what of it runs, and where
	@$(BIN)/python -m tests.lab status

lab-down: venv ## Stop it
	@$(BIN)/python -m tests.lab down

# ---------------------------------------------------------------------------------------------------------------------
##@ Figures (each writes build/bench/NAME.json)

BENCHES := $(sort $(patsubst tests/bench/bench_%.py,bench-%,$(wildcard tests/bench/bench_*.py)))
.PHONY: bench $(BENCHES)
bench: $(filter-out bench-scale,$(BENCHES)) ## Measure everything but bench-scale; bench-inventory, bench-vmdk ... one of them
$(BENCHES): bench-%: need-lab venv collections venv-openstack stage
	@mkdir -p build/bench
	@PYTHONPATH=$(COLLECTIONS):$(TOP) $(BIN)/python -m tests.bench.bench_$* $(ARGS)

# ---------------------------------------------------------------------------------------------------------------------
##@ Building

.PHONY: docs
docs: venv collections stage ## The documentation as HTML: build/docs/html/index.html
	@$(STEP) docs tools/docs.sh

.PHONY: docs-reliability
docs-reliability: ## The fault matrix in docs/reliability.md, from the marks of the tests
	@$(PYTHON) tools/fault_matrix.py --write

.PHONY: docs-moves
docs-moves: venv stage ## The table of moves in the guide, from the tests of the plans
	@env -C $(STAGE) PYTHONPATH=$(COLLECTIONS) FERRY_WRITE_DOCS=$(TOP)/docs/docsite/rst/moving_vms.rst $(BIN)/python -m pytest -q \
	  tests/unit/plugins/module_utils/vsphere/test_move_matrix.py -k guide

.PHONY: docs-precheck
docs-precheck: venv stage ## The tables of concerns in the guide, from the catalogues
	@env -C $(STAGE) PYTHONPATH=$(COLLECTIONS) FERRY_WRITE_DOCS=$(TOP)/docs/docsite/rst/precheck.rst $(BIN)/python -m pytest -q \
	  tests/unit/plugins/module_utils/vsphere/test_precheck_docs.py

.PHONY: build
build: dist
.PHONY: dist
dist: venv ## The collection's archive, in build/dist, from a clean stage: the same tree gives the same bytes
	@$(STEP) dist tools/build.sh

.PHONY: ee
ee: venv dist ## The execution environment with that archive (podman or docker)
	@$(STEP) ee $(BIN)/python tools/ee.py $(ARGS)

.PHONY: changelog
changelog: venv collections stage ## Write CHANGELOG.rst from the fragments, for the version in galaxy.yml
	@tools/changelog.sh

.PHONY: lock
lock: uv ## Write requirements/dev.lock anew from requirements/dev.txt (UPGRADE=--upgrade for newer versions)
	@build/uv/bin/uv pip compile -q $(UPGRADE) --universal --python-version 3.11 --no-annotate --no-emit-index-url \
	  --custom-compile-command "make lock" requirements/dev.txt -o requirements/dev.lock

.PHONY: clean
clean: ## Remove what tests and builds wrote; what was installed stays
	@rm -rf build/logs build/dist build/docs build/bench build/pycache .mypy_cache .pytest_cache .ruff_cache

.PHONY: distclean
distclean: ## Stop the labs and remove build/ altogether
	@if [ -x $(BIN)/python ] && [ -d tests/lab ]; then $(BIN)/python -m tests.lab down; $(TEST_LAB) $(BIN)/python -m tests.lab down; fi
	@rm -rf build .mypy_cache .pytest_cache .ruff_cache

# ---------------------------------------------------------------------------------------------------------------------
# What the others need. Each asks for a hash of its input first, so that a second run costs next to nothing.

.PHONY: uv venv venv-openstack venv-rulebook venv-libvirt collections stage
uv:
	@$(PYTHON) tools/bootstrap.py uv
venv: need-install
	@$(PYTHON) tools/bootstrap.py venv
venv-openstack: need-openstack
	@$(PYTHON) tools/bootstrap.py openstack
venv-libvirt: need-openstack need-libvirt
	@$(PYTHON) tools/bootstrap.py libvirt
venv-rulebook: need-install
	@$(PYTHON) tools/bootstrap.py rulebook
collections: need-install
	@$(PYTHON) tools/bootstrap.py collections
stage:
	@tools/stage.sh >/dev/null

.PHONY: need-install need-openstack need-libvirt need-disks need-lint need-lab need-test need-guest need-boot
need-install need-openstack need-libvirt need-disks need-lint:
	@$(PYTHON) tools/require_system.py $(@:need-%=%)
need-lab:
	@$(PYTHON) tools/require_system.py install openstack disks
need-boot:
	@$(PYTHON) tools/require_system.py install openstack libvirt disks guest
need-guest:
	@$(PYTHON) tools/require_system.py install openstack libvirt disks convert
need-test:
	@$(PYTHON) tools/require_system.py install openstack disks nbd tests lint
