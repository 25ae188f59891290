#!/usr/bin/env bash
# Renders the Kubernetes manifests and checks them: each object against its schema, all of them against good practice.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/ensure-checks.sh
PATH=$PWD/.tools/checks/bin:$PATH

rendered=$(mktemp -d)
trap 'rm -rf "$rendered"' EXIT
for overlay in dev prod; do
    mkdir "$rendered/$overlay"
    kubectl kustomize "k8s/overlays/$overlay" -o "$rendered/$overlay"
done
# And production with every optional component. kustomize requires relative paths.
mkdir "$rendered/everything" "$rendered/kustomization"
k8s=$(realpath --relative-to="$rendered/kustomization" k8s)
cat > "$rendered/kustomization/kustomization.yaml" << END
namespace: confab
resources: [$k8s/overlays/prod]
components: [$k8s/components/ingress, $k8s/components/tracing]
END
kubectl kustomize "$rendered/kustomization" -o "$rendered/everything"
rm -r "$rendered/kustomization"

# The oldest documented version, and a current one. Schemas of objects that are not Kubernetes's own are in this repository.
for version in 1.30 1.37; do
    kubernetes-validate -k "$version" --strict --quiet --no-warn "$rendered"/*/*.yaml
done
for schema in k8s/schemas/*.json; do
    kind=$(basename "$schema" .json)
    check-jsonschema --schemafile "$schema" "$rendered"/*/*_"${kind,,}"_*.yaml
done

# CKV_K8S_43, digests: set in an overlay at a release, for images of the operator's registry.
# CKV_K8S_15, always pulling: a version's tag names one image for ever, and an unreachable registry must not prevent a restart.
checkov --directory "$rendered" --framework kubernetes --skip-download --quiet --compact --skip-check CKV_K8S_43,CKV_K8S_15
echo "The Kubernetes manifests are in order."
