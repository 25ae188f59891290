"""Compares the output of the chart with that of kustomize, object by object: compare-chart.py KUSTOMIZED.yaml CHART.yaml

Two objects are equal if they have the same effect. They may differ in tool-specific parts: labels that name the tool, the hashed
names of ConfigMaps, and the annotations that define when Jobs run."""

import difflib
import re
import sys
from pathlib import Path

import yaml

TOOLS_LABELS = {"app.kubernetes.io/managed-by", "app.kubernetes.io/version", "helm.sh/chart"}
TOOLS_ANNOTATIONS = re.compile(r"helm\.sh/hook.*|argocd\.argoproj\.io/hook.*|kustomize\.toolkit\.fluxcd\.io/force|checksum/settings")
HASHED = re.compile(r"-[a-z0-9]{10}$")


def without(mapping: dict, names) -> dict | None:
    return {key: value for key, value in (mapping or {}).items() if not names(key)} or None


def normal(node, kind: str, path: tuple = ()):
    """A node without tool-specific and empty parts."""
    if isinstance(node, list):
        return [normal(item, kind, (*path, "[]")) for item in node]
    if not isinstance(node, dict):
        return node
    result = {key: normal(value, kind, (*path, key)) for key, value in node.items()}
    if "labels" in result and path[-1:] == ("metadata",):
        result["labels"] = without(result["labels"], TOOLS_LABELS.__contains__)
    if "annotations" in result:
        result["annotations"] = without(result["annotations"], TOOLS_ANNOTATIONS.fullmatch)
    if (kind == "ConfigMap" and path == ("metadata",)) or path[-1:] == ("configMapRef",):
        result["name"] = HASHED.sub("", result["name"])
    if path == ("metadata",):
        result.pop("namespace", None)
    return {key: value for key, value in result.items() if value is not None}


def objects(file: str) -> dict[str, list[str]]:
    found = {}
    for document in yaml.safe_load_all(Path(file).read_text()):
        annotations = (document or {}).get("metadata", {}).get("annotations") or {}
        # kustomize has no counterpart of the chart's test.
        if document and annotations.get("helm.sh/hook") != "test":
            document = normal(document, document["kind"])
            name = f"{document['kind']} {document['metadata']['name']}"
            if name in found:
                sys.exit(f"{file} contains {name} twice")
            found[name] = yaml.safe_dump(document, width=200).splitlines()
    return found


def main() -> None:
    kustomized, chart = map(objects, sys.argv[1:])
    differences = []
    for name in sorted(kustomized.keys() | chart.keys()):
        here, there = kustomized.get(name, []), chart.get(name, [])
        differences += difflib.unified_diff(here, there, f"kustomize: {name}", f"chart: {name}", lineterm="", n=6)
    if differences or not kustomized:
        print(*(differences or ["no objects to compare"]), sep="\n", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
