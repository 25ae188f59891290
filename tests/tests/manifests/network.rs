//! The network lets each program reach the targets in its settings, and no other target.

use std::collections::BTreeSet;

use anyhow::{Context, bail};
use confab_tests::manifests::{Manifests, Pod, selects};
use serde_json::{Value, json};

/// Caller, callee and port. A target that is not a pod here is `outside`, or a namespace.
type Way = (String, String, u64);

pub fn complaints(manifests: &Manifests) -> anyhow::Result<Vec<String>> {
    let mut wrong = Vec::new();
    let denying =
        manifests.all("NetworkPolicy").filter(|policy| policy["spec"]["policyTypes"] == json!(["Ingress", "Egress"]));
    let denied = denying.flat_map(|policy| manifests.selected(&policy["spec"]["podSelector"])).map(|pod| pod.name());
    let denied = denied.collect::<BTreeSet<_>>();
    let open = manifests.pods().iter().map(Pod::name).filter(|name| !denied.contains(name)).collect::<Vec<_>>();
    wrong.extend(open.iter().map(|name| format!("{name}: traffic without a policy is permitted")));
    let (out, inward) = allowed(manifests)?;
    let needed = needed(manifests)?;
    let inside = manifests.pods().iter().map(|pod| pod.component().to_owned()).collect::<BTreeSet<_>>();
    // A connection between two pods must be permitted at both ends.
    for (what, open, end) in [("egress", &out, 1), ("ingress", &inward, 0)] {
        let known = |way: &&Way| inside.contains(if end == 1 { &way.0 } else { &way.1 });
        let needed = needed.iter().filter(known).cloned().collect::<BTreeSet<_>>();
        wrong.extend(needed.difference(open).map(|way| format!("{what} is closed: {way:?}")));
        wrong.extend(open.difference(&needed).map(|way| format!("{what} is open but not needed: {way:?}")));
    }
    Ok(wrong)
}

/// Returns the call graph according to the settings.
fn needed(manifests: &Manifests) -> anyhow::Result<BTreeSet<Way>> {
    let mut needed = BTreeSet::new();
    for pod in manifests.pods() {
        let component = pod.component().to_owned();
        needed.insert((component.clone(), "kube-system".into(), 53));
        for (_, url) in pod.urls(manifests)? {
            let (host, port) = target(&url)?;
            match (manifests.service(host), host.split_once('.')) {
                (Ok((_, pods)), _) => {
                    needed.extend(pods.iter().map(|pod| (component.clone(), pod.component().to_owned(), port)))
                }
                // A Service in another namespace, or a target outside.
                (_, Some((_, namespace))) if !namespace.contains('.') => {
                    _ = needed.insert((component.clone(), namespace.into(), port))
                }
                (_, Some(_)) => _ = needed.insert((component.clone(), "outside".into(), port)),
                (Err(error), None) => return Err(error),
            }
        }
    }
    needed.insert(("ingress".into(), "gateway".into(), 8080));
    for pod in manifests.pods().iter().filter(|pod| pod.program().is_some() && pod.serves()) {
        if manifests.all("ServiceMonitor").next().is_some() {
            needed.insert(("monitoring".into(), pod.component().into(), 9464));
        }
    }
    Ok(needed)
}

/// Returns the host and port of a URL.
fn target(url: &str) -> anyhow::Result<(&str, u64)> {
    let (scheme, rest) = url.split_once("://").with_context(|| format!("{url} is not a URL"))?;
    let place = rest.split(['/', '?']).next().unwrap_or_default().rsplit('@').next().unwrap_or_default();
    let usual = match scheme {
        "postgres" | "postgresql" => 5432,
        "redis" | "rediss" => 6379,
        "https" => 443,
        "http" => 80,
        _ => bail!("{url} leads nowhere"),
    };
    Ok(match place.rsplit_once(':') {
        Some((host, port)) => (host, port.parse()?),
        None => (place, usual),
    })
}

/// Returns the egress and ingress that the policies permit.
fn allowed(manifests: &Manifests) -> anyhow::Result<(BTreeSet<Way>, BTreeSet<Way>)> {
    let (mut out, mut inward) = (BTreeSet::new(), BTreeSet::new());
    for policy in manifests.all("NetworkPolicy") {
        for pod in manifests.selected(&policy["spec"]["podSelector"]) {
            for (rules, peers, ways) in [("egress", "to", &mut out), ("ingress", "from", &mut inward)] {
                for rule in policy["spec"][rules].as_array().into_iter().flatten() {
                    let peers = rule[peers]
                        .as_array()
                        .with_context(|| format!("{}: {rules} from or to anywhere", policy["metadata"]["name"]))?;
                    for (peer, port) in peers
                        .iter()
                        .flat_map(|peer| rule["ports"].as_array().into_iter().flatten().map(move |port| (peer, port)))
                    {
                        for other in named(manifests, peer)? {
                            let (from, to) = if rules == "egress" {
                                (pod.component(), other.as_str())
                            } else {
                                (other.as_str(), pod.component())
                            };
                            ways.insert((from.to_owned(), to.to_owned(), number(manifests, to, &pod, &port["port"])?));
                        }
                    }
                }
            }
        }
    }
    Ok((out, inward))
}

/// Returns the number of a port; a named port belongs to the called pod.
fn number(manifests: &Manifests, called: &str, pod: &Pod<'_>, port: &Value) -> anyhow::Result<u64> {
    let called = manifests.pods().into_iter().find(|pod| pod.component() == called).unwrap_or(*pod);
    port.as_u64().or_else(|| called.port(port)).with_context(|| format!("{} has no port {port}", called.name()))
}

/// Returns the components that a peer selects, or the namespace, or `outside`.
fn named(manifests: &Manifests, peer: &Value) -> anyhow::Result<BTreeSet<String>> {
    if !peer["ipBlock"].is_null() {
        return Ok(["outside".to_owned()].into());
    }
    if let Some(namespace) = peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"].as_str() {
        return Ok([namespace.to_owned()].into());
    }
    anyhow::ensure!(peer["namespaceSelector"].is_null() && peer["podSelector"].is_object(), "not understood: {peer}");
    let pods = manifests.pods();
    let named =
        pods.iter().filter(|pod| selects(&peer["podSelector"], pod.labels())).map(|pod| pod.component().to_owned());
    let named = named.collect::<BTreeSet<_>>();
    anyhow::ensure!(!named.is_empty(), "no pod matches {peer}");
    Ok(named)
}
