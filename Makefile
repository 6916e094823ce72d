# Two commands on a fresh Debian-like machine do everything: `make demo` and `make test`.
SHELL := /bin/bash
.DELETE_ON_ERROR:

BIN := .venv/bin
STAMP := .venv/.ready
BPF := $(shell find src -name '*.bpf.c' -o -path '*/bpf/*.h' -o -path '*/stub/*.[ch]')

.PHONY: all fuzz demo test unit cluster check bench accuracy clean setup layout
all: $(STAMP)

# What the machine must have; installs what is missing.
setup:
	@scripts/setup.sh build

$(STAMP): pyproject.toml hatch_build.py $(BPF)
	@scripts/setup.sh build
	@test -x $(BIN)/python || python3 -m venv .venv
	@$(BIN)/python -m pip install -q --upgrade 'pip>=25.1' 'hatchling>=1.24' editables
	@$(BIN)/python -m pip install -q --no-build-isolation --group dev -e .
	@$(BIN)/python hatch_build.py
	@touch $@

# The main job on the real kernel: reproduce the stall, explain it, fix it, prove it. Fails unless it improved.
demo: $(STAMP)
	@scripts/setup.sh lab
	$(BIN)/ackward lab run standoff --report standoff.html

# Others may be at work on this machine: see tests/steady.py.
AGAIN := --reruns 1 --max-suite-reruns 4 --rerun-show-tracebacks --rerun-except 'left behind'

test: $(STAMP)
	@scripts/setup.sh lab
	@scripts/setup.sh tests
	@echo 'Unit and cluster tests, side by side: some two minutes.'
	@$(MAKE) --no-print-directory -j2 --output-sync=target unit cluster
	$(BIN)/python -m pytest $(AGAIN) tests/kernel $(ARGS)

unit: $(STAMP)
	$(BIN)/python -m pytest -n auto tests/unit $(ARGS)

# Waits for containers more than for a processor; tests/kernel measures times, and runs alone.
cluster: $(STAMP)
	$(BIN)/python -m pytest $(AGAIN) tests/cluster $(ARGS)

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python scripts/generate_event_layout.py --check
	$(BIN)/python scripts/generate_report_schema.py --check

# Writes what is generated: the layouts of BPF structs, and the published JSON Schema.
layout: $(STAMP)
	$(BIN)/python scripts/generate_event_layout.py
	$(BIN)/python scripts/generate_report_schema.py

# The others, and which page has the figures of which: CONTRIBUTING.md.
bench: $(STAMP)
	@scripts/setup.sh lab
	@scripts/setup.sh bench
	$(BIN)/python benchmarks/watching.py
	$(BIN)/python benchmarks/sockets.py
	$(BIN)/python -m benchmarks.steering
	$(BIN)/python benchmarks/reading.py
	$(BIN)/python -m benchmarks.remedies
	$(BIN)/python -m benchmarks.cni
	$(BIN)/python -m benchmarks.node_memory
	$(BIN)/python -m benchmarks.bypass
	$(BIN)/python -m benchmarks.gateway
	$(BIN)/python -m benchmarks.gateway_distance
	$(BIN)/python -m benchmarks.gateway_copying

# Coverage-guided fuzzing of the capture readers (atheris has wheels for few Pythons: it stays out of the dev group), and
# nonsense for the CNI plugin and its agent.
fuzz: $(STAMP)
	$(BIN)/python -m pip install -q atheris
	$(BIN)/python tests/fuzz/fuzz_capture.py -max_total_time=120
	$(BIN)/python tests/fuzz/fuzz_cni.py 120

# How often the diagnosis of a capture is right, on the labelled corpus.
accuracy: $(STAMP)
	$(BIN)/python benchmarks/accuracy.py tests/data/corpus

clean:
	rm -rf .venv dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find src \( -name '*.bpf.o' -o -name 'ackward-cni-*' \) -delete
