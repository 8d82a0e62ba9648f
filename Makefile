# Sandbar. `make demo` shows it working, `make test` proves it.
.DEFAULT_GOAL := help
.PHONY: help setup build check test unit sim sim-long sim-mutants guests e2e conformance conformance-long chaos swaps \
	hostile demo bench bench-commits bench-peer bench-broker bench-isolation bench-queries bench-restore bench-restart \
	bench-swaps docs stop-kafka

# The workspace is always built as a whole and in one profile where native libraries are linked: features are then
# resolved the same way everywhere, and RocksDB, librdkafka and wasmtime are compiled once.
CARGO_RELEASE := --release --workspace --locked

help: ## Show these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Install what this machine lacks, or say what is missing
	@scripts/setup.sh

build: setup ## Build the sandbar binary
	cargo build $(CARGO_RELEASE) --bin sandbar

check: setup ## Format, lints, house rules, dependencies (fails on every warning)
	@scripts/test.sh format lints rules dependencies

test: ## Everything, a real Kafka broker included
	@scripts/setup.sh test
	@scripts/test.sh

unit: setup ## The fast loop: the crates without native code
	@scripts/test.sh unit

sim: setup ## Replay one simulated schedule: SEED=17, KIND=exactly-once, at-least-once, zombies or clean
	@cargo run --quiet --locked --package sim -- replay $(or $(KIND),exactly-once) $(SEED)

sim-long: setup ## Simulate 100,000 schedules; goes on where it was stopped
	@cargo run --quiet --locked --profile sim --package sim -- long tests/sim/results.tsv 100000

sim-mutants: setup ## Prove that the simulation notices when something is taken out of the engine
	@cargo xtask mutants

guests: build ## Build the example modules and the test guests
	@scripts/guests.sh

e2e: ## The built binary against the embedded broker and a real Kafka broker
	@scripts/setup.sh test
	@scripts/test.sh build guests e2e

conformance: ## What a Kafka client may expect, checked on the embedded broker and on a real one
	@scripts/setup.sh test
	@scripts/test.sh conformance

conformance-long: ## The exactly-once loop under kills, 20 runs each
	@scripts/setup.sh
	@scripts/conformance.sh long

chaos: guests ## Hosts killed on a real Kafka and judged record by record; PROFILE=ci|long, or ROW=A4 COUNT=50
	@scripts/setup.sh test
	@scripts/chaos.sh $(if $(ROW),$(ROW) $(COUNT),$(or $(PROFILE),ci))

swaps: guests ## Versions that take over from each other under load, with a judge; PROFILE=ci|long
	@scripts/setup.sh test
	@scripts/swaps.sh $(or $(PROFILE),ci)

hostile: guests ## Modules and records that attack the host; ends with a line for each figure. FORM=long|short
	@scripts/hostile.sh $(or $(FORM),long)

demo: setup ## A majority vote over a year of weather reports, checked against the expected table
	@scripts/demo.sh

bench: ## What a record costs: the sandbox beside native code, the engine beside raw librdkafka
	@scripts/setup.sh test
	@scripts/bench.sh

bench-commits: ## What transactions cost: the time of a commit, exactly-once beside at-least-once
	@scripts/setup.sh test
	@scripts/bench.sh commits

bench-peer: ## Kafka Streams beside Sandbar on one real broker
	@scripts/setup.sh test
	@scripts/bench-peer.sh

bench-broker: ## What the embedded broker does beside a real Kafka broker: rates, delays, starts, memory
	@scripts/setup.sh test
	@scripts/bench-broker.sh

bench-isolation: ## What isolation costs: savepoints, poison records, a hostile neighbour
	@scripts/setup.sh test
	@scripts/bench-isolation.sh

bench-queries: ## What queries and writes by REST cost, beside a route that does nothing and RocksDB by itself
	@scripts/setup.sh test
	@scripts/bench-queries.sh

bench-restore: ## How fast a store is restored, beside a raw reader of its changelog
	@scripts/setup.sh test
	@scripts/bench.sh restore

bench-restart: ## How fast a killed host processes again, with its state directory kept and lost
	@scripts/setup.sh test
	@scripts/bench.sh restart

bench-swaps: guests ## What a swap costs: the pause of a task, the time of a deploy and of the way back
	@scripts/setup.sh test
	@scripts/swaps.sh bench

docs: build ## Write the generated reference pages anew and run the documented commands
	SANDBAR_UPDATE=1 cargo test $(CARGO_RELEASE) --test e2e_it -- reference
	cargo xtask doc-commands

stop-kafka: ## Stop the tests' Kafka broker and delete its data
	@scripts/kafka.sh clean
