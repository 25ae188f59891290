#!/usr/bin/env bash
# Copies the alert rules into the format of the Prometheus operator, and into the chart.
set -euo pipefail
cd "$(dirname "$0")/.."
{
    echo "# Generated from deploy/prometheus/rules.yml by scripts/prometheus-rule.sh."
    printf 'apiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nmetadata:\n  name: confab\n'
    echo "  labels: {app.kubernetes.io/name: confab, app.kubernetes.io/instance: confab, app.kubernetes.io/part-of: confab}"
    echo "spec:"
    sed -n '/^groups:/,$ s/^./  &/p; /^groups:/,$ {/^$/p}' deploy/prometheus/rules.yml
} > k8s/components/monitoring/rules.yaml
cp deploy/prometheus/rules.yml deploy/helm/confab/files/rules.yml
