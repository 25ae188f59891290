#!/usr/bin/env bash
# Checks Prometheus's configuration and rules with promtool, runs the rules' tests, and parses the dashboard's queries.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/ensure-packages.sh promtool:prometheus python3:python3
# promtool resolves a configuration's file names relative to it.
cd deploy/prometheus
promtool check config prometheus.yml
# A duplicate rule is also an error.
promtool check rules --lint=all --lint-fatal rules.yml
promtool test rules ./*_test.yml

python3 - ../grafana/dashboards/confab.json <<'PYTHON' | promtool check rules /dev/stdin
import json, re, sys
panels = json.load(open(sys.argv[1]))["panels"]
asked = [target["expr"].replace("$__rate_interval", "5m") for panel in panels for target in panel.get("targets", [])]
whole = [expression for expression in asked if len(re.findall(r"\b(?:confab|process)[_:]", expression)) != expression.count('namespace=~"$namespace"')]
if whole:
    sys.exit(f"these queries do not select one installation: {whole}")
rules = [{"record": f"dashboard:{number}", "expr": expression} for number, expression in enumerate(asked)]
# JSON is YAML.
json.dump({"groups": [{"name": "dashboard", "rules": rules}]}, sys.stdout)
PYTHON
