"""Checks which values the chart rejects, and its output for values that no file in its ci/ has."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import helm_python
import yaml

import helm

ROOT = helm.CHART.parents[2]
NAME, INSTANCE, COMPONENT = "app.kubernetes.io/name", "app.kubernetes.io/instance", "app.kubernetes.io/component"
PROGRAMS = ["gateway", "auth", "room", "message", "file"]

# Values, and a part of the error for them.
REJECTED = [
    ("{gatway: {replicas: 3}}", "gatway"),
    ("{gateway: {settings: {confab_log: debug}}}", "confab_log"),
    ("{labels: {app.kubernetes.io/name: a}}", NAME),
    ("{pods: {labels: {app.kubernetes.io/instance: a}}}", INSTANCE),
    ("{file: {pods: {labels: {app.kubernetes.io/component: a}}}}", COMPONENT),
    ("{monitoring: {serviceMonitor: {additionalLabels: {helm.sh/chart: a}}}}", "helm.sh/chart"),
    ("{ingress: {enabled: true}}", "ingress.hosts must list"),
    ("{gateway: {service: {externalTrafficPolicy: Local}}}", "externalTrafficPolicy requires"),
    ("{gateway: {service: {type: NodePort, loadBalancerClass: a}}}", "loadBalancerClass requires"),
    ("{gateway: {autoscaling: {minReplicas: 21}}}", "gateway.autoscaling: minReplicas, 21, is above"),
    ("{file: {autoscaling: {maxReplicas: 1}}}", "file.autoscaling: minReplicas, 2, is above"),
    ("{gateway: {scaledObject: {enabled: true, maxReplicas: 1}}}", "gateway.scaledObject: minReplicas, 2, is above"),
    ("{serviceAccount: {name: a}, file: {serviceAccount: {annotations: {b: c}}}}", "share the account a"),
    ("{gatewayApi: {httpRoute: {enabled: true}}}", "parentRefs must name"),
]

# Values, a text that the notes contain for them, and one that they do not contain.
ROUTE = "gatewayApi: {httpRoute: {enabled: true, hostnames: [a.org]"
NOTES = [
    ("{}", "It is not reachable", "https://"),
    ("{gateway: {service: {type: NodePort}}}", "its port on every node", "not reachable"),
    ("{gateway: {service: {type: LoadBalancer}}}", "loadBalancer is empty", "not reachable"),
    ("{gateway: {service: {type: LoadBalancer}}, networkPolicy: {loadBalancer: [{ipBlock: {cidr: 10.0.0.0/8}}]}}", "its address", "loadBalancer is empty"),
    (f"{{{ROUTE}, parentRefs: [{{name: public}}]}}}}}}", "\n  a.org\n", "://a.org"),
    (f"{{{ROUTE}}}, gateway: {{enabled: true, className: a}}}}}}", "http://a.org", "not reachable"),
    (f"{{{ROUTE}}}, gateway: {{enabled: true, className: a, listeners: [{{protocol: HTTPS}}]}}}}}}", "https://a.org", "http://a.org"),
    ("{gatewayApi: {httpRoute: {enabled: true, parentRefs: [{name: public}]}}}", "any host name that resolves to it", "not reachable"),
    ("{ingress: {enabled: true, hosts: [a.org]}}", "http://a.org", "https://a.org"),
    ("{ingress: {enabled: true, hosts: [a.org, b.c.org], tls: [{hosts: ['*.c.org']}]}}", "http://a.org\n  https://b.c.org", "not reachable"),
]


class Strict(yaml.SafeLoader):
    """Rejects a duplicate key."""

    def construct_mapping(self, node, deep=False):
        keys = [key.value for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"duplicate key: {keys}"
        return super().construct_mapping(node, deep)


def files(values: str, release: str = "confab", chart: Path = helm.CHART) -> dict[str, str]:
    return helm.render(yaml.safe_load(values), release, "chat", chart)


def objects(*arguments) -> list[dict]:
    texts = (text for path, text in files(*arguments).items() if path.endswith(".yaml"))
    found = [document for text in texts for document in yaml.load_all(text, Strict) if document]
    names = [(each["kind"], each["metadata"]["name"]) for each in found]
    assert len(names) == len(set(names)), f"duplicate object: {names}"
    return found


def of(kind: str, found: list[dict]) -> list[dict]:
    return [each for each in found if each["kind"] == kind]


def rejected(values: dict | str) -> str:
    try:
        helm.render(yaml.safe_load(values) if isinstance(values, str) else values, "confab", "chat")
    except helm_python.HelmError as error:
        return str(error)
    return ""


def wrong_values_are_rejected() -> None:
    for values, said in REJECTED:
        assert said in rejected(values), f"{values}: {rejected(values) or 'accepted'}"


def settings_of_the_chart_are_rejected() -> None:
    """The chart rejects all variables that it renders and that are not in its values."""
    found = objects("{tracing: {endpoint: 'http://a:4317'}}")
    containers = [each["spec"]["template"]["spec"]["containers"][0] for each in of("Deployment", found)]
    names = {variable["name"] for container in containers for variable in container["env"]}
    names |= {name for each in of("ConfigMap", found) for name in each["data"]}
    defaults = yaml.safe_load((helm.CHART / "values.yaml").read_text())
    names -= {"POD_IP", *defaults["settings"], *(name for program in PROGRAMS for name in defaults[program]["settings"])}
    assert len(names) > 20, names
    for name in names | {name.removesuffix("_FILE") for name in names}:
        for values in [{"settings": {name: "a"}}, {"file": {"settings": {name: "a"}}}]:
            assert name in rejected(values), f"the chart accepts {name}"


def secrets_have_the_names_of_the_script() -> None:
    script = [ROOT / "scripts/k8s-secrets.sh", "chat-confab"]
    passwords = [f"{role}_DB_PASSWORD" for role in ("MIGRATE", "AUTH", "ROOM", "MESSAGE", "FILE")]
    keys = ["POSTGRES", "REDIS_URL", "CONFAB_CLUSTER_KEY", "CONFAB_SIGNING_KEY", "S3_ACCESS_KEY_ID", "S3_SECRET_ACCESS_KEY"]
    variables = {"PATH": os.environ["PATH"], **dict.fromkeys(passwords + keys, "a")}
    for values, without in [("{}", []), ("{secrets: {objects: {enabled: false}}}", ["S3_ACCESS_KEY_ID", "S3_SECRET_ACCESS_KEY"])]:
        environment = {name: value for name, value in variables.items() if name not in without}
        made = subprocess.run(script, env=environment, capture_output=True, text=True, check=True).stdout
        pods = [each["spec"]["template"]["spec"] for kind in ("Deployment", "Job") for each in of(kind, objects(values, "chat"))]
        mounted = {source["secret"]["name"] for pod in pods for source in pod["volumes"][0]["projected"]["sources"]}
        certificates = {f"chat-confab-{program}-tls" for program in PROGRAMS}
        assert mounted - certificates == {secret["metadata"]["name"] for secret in yaml.safe_load_all(made)}, mounted
        assert certificates <= mounted, mounted
    for missing in variables.keys() - {"PATH"}:
        environment = {name: value for name, value in variables.items() if name != missing}
        said = subprocess.run(script, env=environment, capture_output=True, text=True)
        assert said.returncode and not said.stdout and missing in said.stderr, f"without {missing}: {said}"
    assert "unset S3_SECRET_ACCESS_KEY" in subprocess.run(script, env=variables | {"S3_ACCESS_KEY_ID": ""}, capture_output=True, text=True).stderr


def empty_lists_permit_nothing() -> None:
    lists = "dns: [], clients: [], loadBalancer: [], prometheus: [], collector: {to: []}"
    found = objects(f"{{networkPolicy: {{{lists}}}, tracing: {{endpoint: 'http://a:4317'}}, monitoring: {{serviceMonitor: {{enabled: true}}}}}}")
    for policy in of("NetworkPolicy", found):
        name = policy["metadata"]["name"]
        assert all(rule["from"] for rule in policy["spec"].get("ingress", [])), name
        to_a_store = name.endswith(("-to-postgres", "-to-redis", "-to-objects"))
        assert to_a_store or all(rule["to"] for rule in policy["spec"].get("egress", [])), name


def a_named_account_is_shared() -> None:
    account, = of("ServiceAccount", objects("{serviceAccount: {name: shared, annotations: {a: b}}}"))
    assert account["metadata"]["name"] == "shared" and account["metadata"]["annotations"] == {"a": "b"}, account


def certificates_have_an_authority() -> None:
    found = objects("{tls: {certManager: {enabled: true}}}")
    certificates = {each["metadata"]["name"]: each["spec"] for each in of("Certificate", found)}
    assert len(certificates) == 1 + len(PROGRAMS) and len(of("Issuer", found)) == 2, found
    assert all(certificates[f"confab-{program}"]["dnsNames"] == [f"{program}.confab"] for program in PROGRAMS), certificates
    found = objects("{tls: {certManager: {enabled: true, issuerRef: {kind: ClusterIssuer, name: a}}, existingSecrets: {auth: b}}}")
    specs = [each["spec"] for each in of("Certificate", found)]
    assert not of("Issuer", found) and all(spec["issuerRef"] == {"kind": "ClusterIssuer", "name": "a"} for spec in specs), found
    auth, = (each for each in of("Deployment", found) if each["metadata"]["name"] == "confab-auth")
    mounted = [source["secret"]["name"] for source in auth["spec"]["template"]["spec"]["volumes"][0]["projected"]["sources"]]
    assert "b" in mounted and "b" in [spec["secretName"] for spec in specs], mounted


def autoscaled_deployments_have_no_replicas() -> None:
    found = objects("{gateway: {autoscaling: {enabled: false}, scaledObject: {enabled: true}}, auth: {autoscaling: {enabled: false}}}")
    replicas = {each["metadata"]["labels"][COMPONENT]: each["spec"].get("replicas") for each in of("Deployment", found)}
    assert replicas == dict.fromkeys(PROGRAMS) | {"auth": 2}, replicas
    assert len(of("ScaledObject", found)) == 1 and len(of("HorizontalPodAutoscaler", found)) == 3


def labels_are_merged() -> None:
    mine = "{app.kubernetes.io/part-of: shop, team: a}"
    monitoring = f"{{serviceMonitor: {{enabled: true, additionalLabels: {mine}}}, prometheusRule: {{enabled: true, additionalLabels: {mine}}}}}"
    found = objects(f"{{labels: {mine}, pods: {{labels: {mine}, annotations: {{checksum/settings: mine}}}}, monitoring: {monitoring}}}")
    templates = [each["spec"]["template"] for kind in ("Deployment", "Job") for each in of(kind, found)]
    for each in found + templates:
        labels = each["metadata"]["labels"]
        assert labels["app.kubernetes.io/part-of"] == "shop" and labels["team"] == "a" and labels[NAME] == "confab", labels


def jobs_and_tests_have_no_sidecar() -> None:
    found = objects("{pods: {labels: {sidecar.istio.io/inject: 'true'}, annotations: {linkerd.io/inject: enabled}}}")
    once = [each["spec"]["template"]["metadata"] for each in of("Job", found)] + [each["metadata"] for each in of("Pod", found)]
    assert len(once) == 5
    for pod in once:
        assert pod["labels"]["sidecar.istio.io/inject"] == "false" and pod["annotations"]["linkerd.io/inject"] == "disabled", pod


def maintenance_jobs_belong_to_the_release() -> None:
    """The commands of docs/backup.md, with a kubectl that returns the Deployments and prints the objects to create."""
    document = (ROOT / "docs/backup.md").read_text()
    block = document[document.index("name=confab instance=confab") :].split("\n```")[0].replace("confab instance=confab", "chat-confab instance=chat", 1)
    kubectl = """kubectl() { case $3 in get) jq "select(.metadata.name == \\"$5\\")" deployments ;; create) jq -c . ;; esac; }\n"""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, "deployments").write_text("\n".join(map(json.dumps, of("Deployment", objects("{}", "chat")))))
        jobs = subprocess.run(["sh", "-euc", kubectl + block], cwd=directory, capture_output=True, text=True, check=True).stdout
    made = [json.loads(job) for job in jobs.splitlines()]
    assert [job["metadata"]["generateName"] for job in made] == ["chat-confab-message-renew-epoch-", "chat-confab-file-claim-objects-"]
    for job in made:
        pod = job["spec"]["template"]
        wanted = {NAME: "confab", INSTANCE: "chat", COMPONENT: "maintenance", "sidecar.istio.io/inject": "false"}
        assert wanted.items() <= pod["metadata"]["labels"].items(), pod["metadata"]
        assert pod["metadata"]["annotations"] == {"linkerd.io/inject": "disabled"}, pod["metadata"]
        assert all(source["secret"]["name"].startswith("chat-confab-") for source in pod["spec"]["volumes"][0]["projected"]["sources"])


def selectors(node):
    """All label selectors below a node, except those of Deployments."""
    if isinstance(node, list):
        for item in node:
            yield from selectors(item)
    elif isinstance(node, dict):
        for key, value in node.items():
            if key == "matchLabels" or (key == "selector" and "matchLabels" not in value):
                yield value
            elif not (key == "selector" and "template" in node):
                yield from selectors(value)


def selectors_match_only_our_pods() -> None:
    """In a parent chart, all pods have the same instance, and other pods may have the same component."""
    other = {NAME: "other", INSTANCE: "shop"}
    with tempfile.TemporaryDirectory() as directory:
        parent = Path(directory, "shop")
        shutil.copytree(helm.CHART, parent / "charts/confab")
        depends = {"name": "confab", "version": "0.1.0", "condition": "confab.enabled"}
        (parent / "Chart.yaml").write_text(yaml.safe_dump({"apiVersion": "v2", "name": "shop", "version": "0.1.0", "dependencies": [depends]}))
        block = "{ipBlock: {cidr: 10.0.0.0/8}}"
        policies = f"networkPolicy: {{loadBalancer: [{block}], extraIngress: [{{from: [{block}]}}]}}"
        more = f"tracing: {{endpoint: 'http://a:4317'}}, monitoring: {{serviceMonitor: {{enabled: true}}}}, {policies}"
        found = objects(f"confab: {{enabled: true, {more}}}", "shop", parent)
    ours = [labels for each in found for labels in selectors(each["spec"] if "spec" in each else {}) if INSTANCE in labels]
    assert len(ours) > 50, len(ours)
    for labels in ours:
        assert any(other.get(key, value) != value for key, value in labels.items()), f"selects other pods: {labels}"


def notes_show_how_clients_connect() -> None:
    for values, said, unsaid in NOTES:
        notes = files(values)["confab/templates/NOTES.txt"]
        assert said in notes and unsaid not in notes, f"{values}: {notes}"


def main() -> None:
    for check in [
        wrong_values_are_rejected,
        settings_of_the_chart_are_rejected,
        secrets_have_the_names_of_the_script,
        empty_lists_permit_nothing,
        a_named_account_is_shared,
        certificates_have_an_authority,
        autoscaled_deployments_have_no_replicas,
        labels_are_merged,
        jobs_and_tests_have_no_sidecar,
        maintenance_jobs_belong_to_the_release,
        selectors_match_only_our_pods,
        notes_show_how_clients_connect,
    ]:
        try:
            check()
        except Exception as error:
            sys.exit(f"{check.__name__.replace('_', ' ')}: {type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
