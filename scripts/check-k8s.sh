#!/usr/bin/env bash
# Renders the Kubernetes manifests and the Helm chart. Checks each object against its schema and against best practices,
# and the chart against the manifests.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/ensure-checks.sh
scripts/ensure-crds.sh
scripts/ensure-packages.sh jq:jq
PATH=$PWD/.tools/checks/bin:$PATH

rendered=$(mktemp -d)
trap 'rm -rf "$rendered"' EXIT
for name in base overlays/dev overlays/prod; do
    kubectl kustomize "k8s/$name" > "$rendered/$(basename "$name").yaml"
done

# Production with additional components at the end of the list, as docs/kubernetes.md describes. The components of a set
# work together, and each component is in one set.
sets=(
    "ingress tracing load-balancer scale-by-sockets openshift ca reloader mesh-istio"
    "gateway keda s3-by-role ipv4 mesh-istio-ambient"
    "mesh-linkerd"
)
for n in "${!sets[@]}"; do
    cp -r k8s "$rendered/k8s"
    for component in ${sets[n]}; do
        sed -i "/^images:/i\\  - ../../components/$component" "$rendered/k8s/overlays/prod/kustomization.yaml"
    done
    kubectl kustomize "$rendered/k8s/overlays/prod" > "$rendered/components-$n.yaml"
    rm -r "$rendered/k8s"
done
for component in k8s/components/*; do
    [[ " ${sets[*]} httproute cert-manager monitoring " == *" $(basename "$component") "* ]] || { echo "no set contains $component" >&2; exit 1; }
done
# The components also change objects of the overlay: the route uses this installation's own Gateway, and Prometheus
# scrapes through the mesh.
python - "$rendered/components-1.yaml" << 'PYTHON'
import sys, yaml
objects = {(each["kind"], each["metadata"]["name"]): each["spec"] for each in yaml.safe_load_all(open(sys.argv[1])) if "spec" in each}
parents = objects["HTTPRoute", "confab"]["parentRefs"]
assert parents == [{"name": "confab"}], f"gateway: {parents}"
ports = objects["NetworkPolicy", "confab-metrics"]["ingress"][0]["ports"]
assert {"port": 15008} in ports, f"mesh-istio-ambient: {ports}"
PYTHON
# The base is compared with the chart; the components have the same selectors.
if grep -rn 'instance: confab' k8s/components | grep -v 'app.kubernetes.io/name: confab'; then
    echo "these selectors also match other pods of the release" >&2
    exit 1
fi

# The chart, rendered by Helm itself: with its default values, as production, and with every option.
chart=deploy/helm/confab
python scripts/helm.py lint
python scripts/helm.py template > "$rendered/chart.yaml"
for values in production everything; do
    python scripts/helm.py lint -f "$chart/ci/$values.yaml"
    python scripts/helm.py template -f "$chart/ci/$values.yaml" > "$rendered/chart-$values.yaml"
done
python scripts/compare-chart.py "$rendered/base.yaml" "$rendered/chart.yaml"
python scripts/compare-chart.py "$rendered/prod.yaml" "$rendered/chart-production.yaml"
# All names begin with the release's name.
python scripts/helm.py template --release other | sed 's/other-confab/confab/g; s/instance: "\?other"\?$/instance: confab/' > "$rendered/other"
python scripts/compare-chart.py "$rendered/base.yaml" "$rendered/other"
python scripts/check-chart.py
# compare-chart.py detects a difference.
sed 's/containerPort: 50052/containerPort: 50062/' "$rendered/chart.yaml" > "$rendered/other"
if python scripts/compare-chart.py "$rendered/base.yaml" "$rendered/other" 2> "$rendered/said" || ! grep -q 50062 "$rendered/said"; then
    echo "compare-chart.py does not detect a different port in the chart" >&2
    exit 1
fi

# The oldest documented version, and a current one; each distinct object once. scripts/crds/check.js checks kinds that
# are not Kubernetes's own.
awk 'BEGIN { RS = "---\n" } !seen[$0]++ { printf "---\n%s", $0 }' "$rendered"/*.yaml > "$rendered/objects"
mv "$rendered/objects" "$rendered/objects.yaml"
kubernetes-validate -k 1.30 --strict --quiet --no-warn "$rendered/objects.yaml" &
kubernetes-validate -k 1.37 --strict --quiet --no-warn "$rendered/objects.yaml"
wait "$!"
node scripts/crds/check.js "$rendered/objects.yaml"

# CKV_K8S_43, digests: an operator's overlay sets them at a release, for the images in the operator's registry.
# CKV_K8S_15, always pulling: a version's tag always names the same image; a restart must not need the registry.
# CKV_K8S_40, a user above 10000: the image sets 65532; OpenShift rejects pods that name a user.
# Not checked: the base, because an overlay names the namespace; chart-everything, because it has extra containers.
rm "$rendered"/{objects,base,chart-everything}.yaml
checkov --directory "$rendered" --framework kubernetes --skip-download --quiet --compact --skip-check CKV_K8S_43,CKV_K8S_15,CKV_K8S_40
echo "The Kubernetes manifests and the Helm chart pass all checks."
