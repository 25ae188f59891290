//! Names, labels and ports: every reference resolves.

use confab_tests::manifests::{Manifests, selects};
use serde_json::{Value, json};

pub fn complaints(manifests: &Manifests) -> anyhow::Result<Vec<String>> {
    let mut wrong = Vec::new();
    for pod in manifests.pods() {
        let selector = &pod.object["spec"]["selector"];
        if !selector.is_null()
            && manifests.selected(selector).iter().map(|pod| pod.name()).collect::<Vec<_>>() != [pod.name()]
        {
            wrong.push(format!("{} does not select exactly its own pods", pod.name()));
        }
    }
    for service in manifests.all("Service") {
        service_complaints(manifests, service, &mut wrong)?;
    }
    for budget in manifests.all("PodDisruptionBudget") {
        let name = &budget["metadata"]["name"];
        if manifests
            .selected(&budget["spec"]["selector"])
            .iter()
            .map(|pod| &pod.object["metadata"]["name"])
            .collect::<Vec<_>>()
            != [name]
        {
            wrong.push(format!("PodDisruptionBudget {name} selects other pods"));
        }
    }
    // The Ingress or HTTPRoute leads to a port of a Service.
    let backend = |service: &Value, port: &Value| {
        let found = manifests.get("Service", service.as_str().unwrap_or_default());
        let mut ports = found.ok()?["spec"]["ports"].as_array()?.iter();
        ports.find(|there| there["name"] == *port || there["port"] == *port).map(drop)
    };
    for ingress in manifests.all("Ingress") {
        let to = &ingress["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"];
        if backend(&to["name"], &to["port"]["name"]).is_none() {
            wrong.push(format!("the Ingress has no target: {to}"));
        }
    }
    for route in manifests.all("HTTPRoute") {
        let to = &route["spec"]["rules"][0]["backendRefs"][0];
        if backend(&to["name"], &to["port"]).is_none() {
            wrong.push(format!("the HTTPRoute has no target: {to}"));
        }
    }
    for monitor in manifests.all("ServiceMonitor") {
        monitor_complaints(manifests, monitor, &mut wrong)?;
    }
    Ok(wrong)
}

fn service_complaints(manifests: &Manifests, service: &Value, wrong: &mut Vec<String>) -> anyhow::Result<()> {
    let name = service["metadata"]["name"].as_str().unwrap_or_default();
    let (_, pods) = manifests.service(name)?;
    if pods.len() != 1 {
        wrong.push(format!("Service {name} has {} kinds of pods behind it", pods.len()));
    }
    // The name of a headless Service resolves to the pods, which are called at the port in the caller's URL.
    let headless = service["spec"]["clusterIP"] == "None";
    for port in service["spec"]["ports"].as_array().into_iter().flatten() {
        for pod in &pods {
            match pod.port(&port["targetPort"]) {
                None => wrong.push(format!("Service {name}: {} has no port {}", pod.name(), port["targetPort"])),
                Some(number) if headless && port["port"] != number => {
                    wrong.push(format!(
                        "Service {name}: {} is called at {} and listens on {number}",
                        pod.name(),
                        port["port"]
                    ));
                }
                Some(_) => {}
            }
        }
        if port["name"] == "grpc" && (port["appProtocol"] != "https" || !headless) {
            wrong.push(format!("Service {name}: gRPC uses TLS, and is balanced by its callers"));
        }
    }
    // A gateway that drains still has sessions, which the other gateways must be able to reach.
    if service["spec"]["ports"].as_array().is_some_and(|ports| ports.iter().any(|port| port["name"] == "forward"))
        && service["spec"]["publishNotReadyAddresses"] != true
    {
        wrong.push(format!("Service {name}: a draining gateway cannot be reached"));
    }
    Ok(())
}

/// Each serving program is scraped at its metrics port.
fn monitor_complaints(manifests: &Manifests, monitor: &Value, wrong: &mut Vec<String>) -> anyhow::Result<()> {
    let mut scraped = Vec::new();
    for service in
        manifests.all("Service").filter(|service| selects(&monitor["spec"]["selector"], &service["metadata"]["labels"]))
    {
        for endpoint in monitor["spec"]["endpoints"].as_array().into_iter().flatten() {
            let port =
                service["spec"]["ports"].as_array().into_iter().flatten().find(|port| port["name"] == endpoint["port"]);
            let Some(port) = port else { continue };
            let pods = manifests.selected(&json!({"matchLabels": service["spec"]["selector"]}));
            scraped.extend(pods.iter().filter(|pod| pod.port(&port["targetPort"]) == Some(9464)).map(|pod| pod.name()));
        }
    }
    for pod in manifests.pods().iter().filter(|pod| pod.program().is_some() && pod.serves()) {
        let times = scraped.iter().filter(|name| **name == pod.name()).count();
        if times != 1 {
            wrong.push(format!("{} is scraped {times} times", pod.name()));
        }
    }
    Ok(())
}
