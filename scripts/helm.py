"""Renders and lints the chart with Helm itself, from the package helm-python-sdk:

    helm.py lint   [-f VALUES]…
    helm.py template [-f VALUES]… [--release NAME] [--namespace NAME]

As in Helm, later files override earlier ones."""

import argparse
import sys
from pathlib import Path

import helm_python as helm

CHART = Path(__file__).resolve().parent.parent / "deploy/helm/confab"


def merged(below: dict, above: dict) -> dict:
    both = {key: merged(below[key], above[key]) for key in below.keys() & above.keys() if isinstance(below[key], dict) and isinstance(above[key], dict)}
    return {**below, **above, **both}


def values(files: list[str]) -> dict:
    result: dict = {}
    for file in files:
        result = merged(result, helm.values_from_yaml(Path(file).read_text()))
    return result


def lint(given: dict) -> bool:
    report = helm.lint(CHART, given, strict=True, kube_version="v1.30.0")
    # Severity 1 is information: Helm recommends an icon.
    found = [f"{message['path']}: {message['error']}" for message in report["messages"] if message["severity"] != 1] + report["errors"]
    print("\n".join(dict.fromkeys(found)), end="\n" if found else "", file=sys.stderr)
    return not found


def render(given: dict, release: str, namespace: str, directory: Path = CHART) -> dict[str, str]:
    with helm.Chart.load(directory) as chart:
        chart.validate_schema(given)
        return chart.render(given, name=release, namespace=namespace)


def template(given: dict, release: str, namespace: str) -> str:
    files = render(given, release, namespace)
    objects = [text for path, text in sorted(files.items()) if not path.endswith(".txt") and text.strip()]
    return "".join(f"---\n{text.removeprefix('---')}\n" for text in objects)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("command", choices=["lint", "template"])
    arguments.add_argument("-f", "--values", action="append", default=[])
    arguments.add_argument("--release", default="confab")
    arguments.add_argument("--namespace", default="confab")
    given = arguments.parse_args()
    try:
        if given.command == "template":
            print(template(values(given.values), given.release, given.namespace), end="")
        elif not lint(values(given.values)):
            sys.exit(1)
    except helm.HelmError as error:
        sys.exit(f"{error}")


if __name__ == "__main__":
    main()
