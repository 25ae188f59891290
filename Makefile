# `make` alone lists the targets.
.DEFAULT_GOAL := help
.PHONY: help run test fuzz images chaos lint fmt api-docs cluster-up cluster-down cluster-status cluster-test bench bench-acts attack

PYTHON := python3:python3 venv:python3-venv
SERVERS := '/usr/lib/postgresql/*/bin/postgres:postgresql' redis-server:redis-server nginx:nginx openssl:openssl $(PYTHON)
BETWEEN := pgbouncer:pgbouncer
FORTUNES := /usr/share/games/fortunes
TEXTS := $(FORTUNES)/cookie:fortunes $(FORTUNES)/de:fortunes-de $(FORTUNES)/ru:fortunes-ru $(FORTUNES)/tang300:fortunes-zh
CLIENTS := node:nodejs npm:npm $(PYTHON)
BROWSER := chromium:chromium

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 24

run: ## run all services in one process on http://127.0.0.1:8080
	cargo run --release

test: ## run every test; installs or starts what the tests need
	@scripts/ensure-packages.sh $(SERVERS) $(BETWEEN) $(CLIENTS) $(TEXTS) $(BROWSER)
	@scripts/check-deploy.sh
	@scripts/check-proto.sh
	@scripts/ensure-seaweed.sh
	@scripts/ensure-newer-servers.sh
	@scripts/ensure-clients.sh
	@scripts/ensure-rust-client.sh
	@scripts/check-alerts.sh
	@scripts/check-k8s.sh
	@scripts/build-failpoints.sh
	target/debug/with-servers cargo test --workspace
	target/debug/with-servers --newer cargo test --workspace --lib -- postgres
	target/debug/with-servers --newer cargo test --workspace --test bus --test postgres --test transfer
	@scripts/check-api.sh
	@scripts/check-fuzz.sh
	@scripts/check-examples.sh
# The judge must detect each promise broken on purpose, and report no other fault.
	target/debug/chaos --breakage publish-before-commit
	target/debug/chaos --breakage no-hints-no-heads
	target/debug/chaos --breakage skip-repeat-check
	target/debug/chaos --breakage fold-out-of-order
	target/debug/chaos --breakage ordinal-counts-edits
	target/debug/chaos --breakage marker-moved-backwards
	target/debug/chaos --breakage reaction-lost
	target/debug/chaos --breakage reaction-doubled
	target/debug/chaos --breakage skip-eviction
	target/debug/chaos --breakage skip-membership
	target/debug/chaos --breakage skip-revocations
	target/debug/chaos

fuzz: ## fuzz every parser of bytes from clients and from the bus, each for MINUTES=10, without a sanitizer
	@scripts/fuzz.sh

images: ## build and test the image of every program; needs docker or podman
	@scripts/build-images.sh

chaos: ## inject random faults for MINUTES=10, reproducibly with SEED=; proves that no message is lost or reordered
	@scripts/ensure-packages.sh $(SERVERS) $(CLIENTS)
	@scripts/ensure-seaweed.sh
	@scripts/ensure-clients.sh
	@scripts/build-failpoints.sh release
	target/release/chaos --profile long --minutes $(or $(MINUTES),10) $(and $(SEED),--seed $(SEED))

lint: ## check the format, clippy and the dependency rules
	@scripts/ensure-cargo-tool.sh cargo-deny 0.20.2
	@scripts/ensure-cargo-tool.sh cargo-machete 0.9.2
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
# What `cargo run` builds: without S3 stores.
	cargo clippy -- -D warnings
	cargo clippy --workspace --features confab-message/failpoints,confab-gateway/failpoints -- -D warnings
# Advisories need the network and change over time; check them at each release with `cargo deny check advisories`.
	@scripts/check-features.sh
	.tools/bin/cargo-machete
	.tools/bin/cargo-deny check bans licenses sources

fmt: ## format all code
	cargo fmt --all

api-docs: ## regenerate docs/openapi.json and the Postman collection from the code
	@scripts/ensure-packages.sh $(CLIENTS)
	@scripts/renew-api.sh

cluster-up: ## start a real cluster on this machine: GATEWAYS=2 REPLICAS=2; starts only processes that do not run
	@scripts/ensure-packages.sh $(SERVERS)
	@scripts/ensure-seaweed.sh
	cargo build --release --workspace
	@target/release/cluster up

cluster-down: ## stop the cluster; data and logs stay in .run
	@target/release/cluster down

cluster-status: ## list the cluster's processes and addresses
	@target/release/cluster status

cluster-test: ## send 5,000 lines in 5 rooms with 20 stock clients, through the cluster's load balancer
	@scripts/ensure-packages.sh $(CLIENTS) $(TEXTS)
	@scripts/ensure-clients.sh
	cargo build --release --workspace
	@target/release/conversation http://127.0.0.1:8080

bench: ## measure speed and memory of a scratch cluster and a scratch embedded server; ten minutes
	@scripts/ensure-packages.sh $(SERVERS)
	@scripts/ensure-seaweed.sh
	cargo build --release --workspace --bins --examples
	@target/release/load all

bench-acts: ## measure reactions, read markers, unread counts and searches: NAMES="reactions unread marks search"
	@scripts/ensure-packages.sh $(SERVERS)
	@scripts/ensure-seaweed.sh
	cargo build --release --workspace --bins
	@target/release/load acts $(NAMES)

attack: ## run hostile clients next to honest ones, with the shipped memory limits: half an hour, or NAMES="acks logins"
	@scripts/ensure-packages.sh $(SERVERS)
	@scripts/ensure-seaweed.sh
	cargo build --release --workspace --bins
	@target/release/load attack $(NAMES)
