//! Pods: their privileges, their probes, and their time to shut down.

use std::time::Duration;

use confab_tests::manifests::{Manifests, Pod};
use serde_json::json;

/// The minimum rest of the grace period after a program has used all its time.
const MARGIN: Duration = Duration::from_secs(15);

pub fn complaints(manifests: &Manifests) -> anyhow::Result<Vec<String>> {
    let mut wrong = Vec::new();
    for pod in manifests.pods() {
        let mut must = |what: &str, holds: bool| {
            if !holds {
                wrong.push(format!("{}: {what}", pod.name()));
            }
        };
        restricted(&pod, &mut must);
        let Some(program) = pod.program() else { continue };
        let tag = format!("{program}:{}", env!("CARGO_PKG_VERSION"));
        let image = pod.container["image"].as_str().unwrap_or_default();
        must("its image has another version", image == tag || image.ends_with(&format!("/{tag}")));
        must("its label has another version", pod.labels()["app.kubernetes.io/version"] == env!("CARGO_PKG_VERSION"));
        of_any_user(&pod, &mut must);
        if !pod.serves() {
            let (spec, annotations) = (&pod.object["spec"], &pod.object["metadata"]["annotations"]);
            let replaced =
                ["argocd.argoproj.io/hook", "helm.sh/hook"].iter().any(|hook| annotations[*hook].is_string());
            must("GitOps tools do not replace it", replaced && spec["ttlSecondsAfterFinished"].is_null());
        }
        if pod.serves() {
            probes(&pod, &mut must);
            leaving(manifests, &pod, &mut must)?;
            let strategy = &pod.object["spec"]["strategy"]["rollingUpdate"];
            must("a rollout removes one pod before its replacement is ready", strategy["maxUnavailable"] == 0);
            let spread = pod.spec["topologySpreadConstraints"].as_array().into_iter().flatten();
            let keys = spread.map(|constraint| &constraint["topologyKey"]).collect::<Vec<_>>();
            must(
                "it is not spread over zones and nodes",
                keys == ["topology.kubernetes.io/zone", "kubernetes.io/hostname"],
            );
        }
    }
    let enforced = manifests
        .all("Namespace")
        .all(|namespace| namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted");
    if !enforced {
        wrong.push("the namespace admits pods that are not restricted".into());
    }
    Ok(wrong)
}

/// The restricted profile of PodSecurity, and more.
fn restricted(pod: &Pod<'_>, must: &mut impl FnMut(&str, bool)) {
    let (of_pod, of_container) = (&pod.spec["securityContext"], &pod.container["securityContext"]);
    must("it may run as root", of_pod["runAsNonRoot"] == true && of_pod["runAsUser"].as_u64() != Some(0));
    must("every system call is open to it", of_pod["seccompProfile"]["type"] == "RuntimeDefault");
    must("it may gain privileges", of_container["allowPrivilegeEscalation"] == false);
    must("its root file system is writable", of_container["readOnlyRootFilesystem"] == true);
    must("it has capabilities", of_container["capabilities"] == json!({"drop": ["ALL"]}));
    must("it receives a token of the cluster's API", pod.spec["automountServiceAccountToken"] == false);
    must("variables named after Services are added to its settings", pod.spec["enableServiceLinks"] == false);
    must("there is more than one container", pod.spec["containers"].as_array().is_some_and(|all| all.len() == 1));
    let resources = &pod.container["resources"];
    let given = |of: &str| ["cpu", "memory"].iter().all(|what| resources[of][*what].is_string());
    must("its resources are not specified", given("requests") && given("limits"));
}

/// OpenShift gives each namespace its own users, which must be able to read the mounted Secrets.
fn of_any_user(pod: &Pod<'_>, must: &mut impl FnMut(&str, bool)) {
    let context = &pod.spec["securityContext"];
    must(
        "it requires a user or a group",
        ["runAsUser", "runAsGroup", "fsGroup"].iter().all(|what| context[*what].is_null()),
    );
    let volumes = pod.spec["volumes"].as_array().into_iter().flatten();
    let mut modes = volumes.filter_map(|volume| volume["projected"]["defaultMode"].as_u64());
    must("another user cannot read its Secrets", modes.all(|mode| mode & 0o444 == 0o444));
}

/// A program is probed at its admin port.
fn probes(pod: &Pod<'_>, must: &mut impl FnMut(&str, bool)) {
    for kind in ["startupProbe", "livenessProbe", "readinessProbe"] {
        let http = &pod.container[kind]["httpGet"];
        let path = if kind == "readinessProbe" { "/readyz" } else { "/livez" };
        must(
            &format!("{kind} leads nowhere"),
            http["path"] == path && pod.port(&http["port"]) == pod.ports().get("metrics").copied(),
        );
    }
}

/// There is time for all steps of a shutdown (`services/common/src/process.rs`).
fn leaving(manifests: &Manifests, pod: &Pod<'_>, must: &mut impl FnMut(&str, bool)) -> anyhow::Result<()> {
    let environment = pod.environment(manifests, "")?;
    let seconds = |value: Option<u64>| value.map(Duration::from_secs);
    let setting = |name: &str| seconds(environment.get(name)?.strip_suffix('s')?.parse().ok());
    // Without a pause callers would still be routed to a pod that has stopped.
    let pre_stop =
        seconds(pod.container["lifecycle"]["preStop"]["sleep"]["seconds"].as_u64().filter(|pause| *pause > 0));
    let grace = seconds(pod.spec["terminationGracePeriodSeconds"].as_u64());
    let times = [pre_stop, setting("CONFAB_ACCEPT_DRAIN"), setting("CONFAB_DRAIN"), Some(MARGIN)];
    let needed = times.into_iter().sum::<Option<Duration>>();
    let enough = grace.zip(needed).is_some_and(|(grace, needed)| grace >= needed);
    must(&format!("it needs {needed:?} to shut down and has {grace:?}"), enough);
    Ok(())
}
