# `make` alone lists the targets.
.DEFAULT_GOAL := help
.PHONY: help run test images chaos lint fmt api-docs cluster-up cluster-down cluster-status cluster-test bench attack

PYTHON := python3:python3 venv:python3-venv
SERVERS := '/usr/lib/postgresql/*/bin/postgres:postgresql' redis-server:redis-server nginx:nginx $(PYTHON)
BETWEEN := pgbouncer:pgbouncer openssl:openssl
FORTUNES := /usr/share/games/fortunes
TEXTS := $(FORTUNES)/cookie:fortunes $(FORTUNES)/de:fortunes-de $(FORTUNES)/ru:fortunes-ru $(FORTUNES)/tang300:fortunes-zh
CLIENTS := node:nodejs npm:npm $(PYTHON)
BROWSER := chromium:chromium

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 24

run: ## everything in one process on http://127.0.0.1:8080
	cargo run --release

test: ## every test; installs or starts what they need
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
# The judge must notice the promise broken on purpose, and nothing else.
	target/debug/chaos --breakage publish-before-commit
	target/debug/chaos --breakage no-hints-no-heads
	target/debug/chaos --breakage skip-repeat-check
	target/debug/chaos

images: ## the image of every program, built and tried; needs docker or podman
	@scripts/build-images.sh

chaos: ## everything that can break does, for MINUTES=10, by SEED=; proves that nothing is lost, repeated or reordered
	@scripts/ensure-packages.sh $(SERVERS) $(CLIENTS)
	@scripts/ensure-seaweed.sh
	@scripts/ensure-clients.sh
	@scripts/build-failpoints.sh release
	target/release/chaos --profile long --minutes $(or $(MINUTES),10) $(and $(SEED),--seed $(SEED))

lint: ## format, clippy, and the rules for dependencies
	@scripts/ensure-deny.sh
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo clippy --workspace --features confab-message/failpoints,confab-gateway/failpoints -- -D warnings
# Advisories need the network and change over time; check them at each release with `cargo deny check advisories`.
	@scripts/check-features.sh
	.tools/bin/cargo-deny check bans licenses sources

fmt: ## format all code
	cargo fmt --all

api-docs: ## writes docs/openapi.json and the Postman collection anew, from the code
	@scripts/ensure-packages.sh $(CLIENTS)
	@scripts/renew-api.sh

cluster-up: ## the real cluster on this machine: GATEWAYS=2 REPLICAS=2; starts only what does not run
	@scripts/ensure-packages.sh $(SERVERS)
	@scripts/ensure-seaweed.sh
	cargo build --release --workspace
	@target/release/cluster up

cluster-down: ## end it; data and logs stay in .run
	@target/release/cluster down

cluster-status: ## what of it runs where
	@target/release/cluster status

cluster-test: ## 20 stock clients speak 5,000 lines in 5 rooms through its load balancer
	@scripts/ensure-packages.sh $(CLIENTS) $(TEXTS)
	@scripts/ensure-clients.sh
	cargo build --release --workspace
	@target/release/conversation http://127.0.0.1:8080

bench: ## how fast and how small it is: a scratch cluster, a scratch embedded server; ten minutes
	@scripts/ensure-packages.sh $(SERVERS)
	@scripts/ensure-seaweed.sh
	cargo build --release --workspace --bins --examples
	@target/release/load all

attack: ## hostile clients beside honest ones, with the memory that servers are shipped with: half an hour, or NAMES="acks logins"
	@scripts/ensure-packages.sh $(SERVERS)
	@scripts/ensure-seaweed.sh
	cargo build --release --workspace --bins
	@target/release/load attack $(NAMES)
