//! The containers that Kubernetes would run for manifests.

use std::collections::BTreeMap;

use anyhow::{Context, bail, ensure};
use serde_json::Value;

use super::{Container, Name, Plan, Probe, image, program, servers};
use crate::manifests::{Manifests, Pod, root};

/// Plans all containers of the manifests, reached through their Ingress or HTTPRoute.
///
/// # Errors
/// When a referenced object is missing, or a construct is unknown.
pub fn plan(manifests: &Manifests) -> anyhow::Result<Plan> {
    let pods = manifests.pods();
    let containers = pods.iter().map(|pod| container(manifests, pod)).collect::<anyhow::Result<_>>()?;
    let mut names = BTreeMap::new();
    for service in manifests.all("Service") {
        let name = service["metadata"]["name"].as_str().context("a Service has a name")?;
        let (_, behind) = manifests.service(name)?;
        let ports = service["spec"]["ports"].as_array().into_iter().flatten();
        let ports = ports.filter_map(|port| {
            let own = behind.iter().find_map(|pod| pod.port(&port["targetPort"]))?;
            Some((u16::try_from(port["port"].as_u64()?).ok()?, u16::try_from(own).ok()?))
        });
        // The name of a headless Service resolves to the pods themselves, at any port.
        let ports = (service["spec"]["clusterIP"] != "None").then(|| ports.collect());
        names.insert(name.to_owned(), Name { containers: behind.iter().map(Pod::name).collect(), ports });
    }
    Ok(Plan { containers, names, door: door(manifests)? })
}

/// Completes manifests that expect a platform's stores: another plan's stores replace them, with roles created as
/// documented.
///
/// # Errors
/// When the other plan has no such stores.
pub fn on_stores_of(mut plan: Plan, other: &Plan, passwords: &[(&str, &str)]) -> anyhow::Result<Plan> {
    let mut stores = Vec::new();
    for store in ["postgres", "redis", "seaweedfs"] {
        let name = other.names.get(store).with_context(|| format!("there is no {store}"))?;
        for container in &name.containers {
            stores.push(other.container(container)?.clone());
        }
        plan.names.insert(store.into(), name.clone());
    }
    let mut roles = servers::roles("postgres", passwords, &root().join("deploy/postgres/roles.sql"))?;
    // A platform's administrator is not a superuser.
    let administrator = [
        "CREATE ROLE administrator CREATEROLE",
        "ALTER DATABASE confab OWNER TO administrator",
        "SET SESSION AUTHORIZATION administrator",
    ];
    roles
        .arguments
        .splice(1..1, administrator.iter().flat_map(|command| ["--command".to_owned(), command.to_string()]));
    roles.after = other.names["postgres"].containers.iter().cloned().collect();
    // An operator creates the roles before applying the manifests.
    plan.containers.iter_mut().for_each(|container| _ = container.after.insert(roles.name.clone()));
    plan.containers.push(roles);
    plan.containers.extend(stores);
    Ok(plan)
}

fn container(manifests: &Manifests, pod: &Pod<'_>) -> anyhow::Result<Container> {
    let mut container = Container {
        name: pod.name(),
        program: program(&pod.container["image"])?,
        arguments: pod.arguments(),
        // A placeholder for each replica's address.
        environment: pod.environment(manifests, "0.0.0.0")?,
        replicas: replicas(manifests, pod),
        ends: !pod.serves(),
        ..Container::default()
    };
    if let Some(program) = pod.program() {
        ensure!(pod.container["command"].is_null(), "{}: the image defines its program", pod.name());
        let (own, _) = image(program.trim_start_matches("confab-"))?;
        container.environment = own.into_iter().chain(container.environment).collect();
    }
    for mount in pod.mounts()? {
        container.files.insert(mount.path, manifests.secret(&mount.secret, &mount.key)?);
    }
    plain_volumes(manifests, pod, &mut container)?;
    if pod.serves() {
        container.probes = pod
            .ports()
            .into_values()
            .map(|port| Ok(Probe::Tcp(u16::try_from(port)?)))
            .collect::<anyhow::Result<_>>()?;
        for kind in ["startupProbe", "livenessProbe", "readinessProbe"] {
            let written = &pod.container[kind];
            if !written.is_null() {
                container.probes.push(probe(pod, written)?);
            }
        }
    }
    Ok(container)
}

/// Returns the number of replicas without load.
fn replicas(manifests: &Manifests, pod: &Pod<'_>) -> usize {
    let scaled = |scaler: &&Value| scaler["spec"]["scaleTargetRef"]["name"] == pod.object["metadata"]["name"];
    let least = manifests
        .all("HorizontalPodAutoscaler")
        .find(scaled)
        .map_or(&Value::Null, |scaler| &scaler["spec"]["minReplicas"]);
    let said = pod.object["spec"]["replicas"].as_u64().or(least.as_u64());
    said.and_then(|replicas| usize::try_from(replicas).ok()).unwrap_or(1)
}

/// Adds Secrets mounted as a whole, and writable volumes.
fn plain_volumes(manifests: &Manifests, pod: &Pod<'_>, container: &mut Container) -> anyhow::Result<()> {
    for mount in pod.container["volumeMounts"].as_array().into_iter().flatten() {
        let path = mount["mountPath"].as_str().context("a mount has a path")?;
        let volumes = pod.spec["volumes"].as_array().into_iter().flatten();
        let volume = volumes.into_iter().find(|volume| volume["name"] == mount["name"]).unwrap_or(&Value::Null);
        if let Some(name) = volume["secret"]["secretName"].as_str() {
            for key in manifests.get("Secret", name)?["data"].as_object().context("a Secret has data")?.keys() {
                container.files.insert(format!("{path}/{key}"), manifests.secret(name, key)?);
            }
        } else if volume["projected"].is_null() {
            container.volumes.insert(path.to_owned());
        }
    }
    Ok(())
}

fn probe(pod: &Pod<'_>, written: &Value) -> anyhow::Result<Probe> {
    let port = |given: &Value| -> anyhow::Result<u16> {
        let port = pod.port(given).with_context(|| format!("{} has no port {given}", pod.name()))?;
        Ok(u16::try_from(port)?)
    };
    if let Some(path) = written["httpGet"]["path"].as_str() {
        return Ok(Probe::Http(port(&written["httpGet"]["port"])?, path.into()));
    }
    // A gRPC probe names a port number, declared or not.
    if let Some(port) = written["grpc"]["port"].as_u64() {
        return Ok(Probe::Grpc(u16::try_from(port)?));
    }
    if written["tcpSocket"].is_object() {
        return Ok(Probe::Tcp(port(&written["tcpSocket"]["port"])?));
    }
    match serde_json::from_value(written["exec"]["command"].clone()) {
        Ok(command) => Ok(Probe::Command(command)),
        Err(_) => bail!("not understood: {written}"),
    }
}

/// Returns the Service and its port that clients connect to.
fn door(manifests: &Manifests) -> anyhow::Result<(String, u16)> {
    let ingress = manifests.all("Ingress").map(|ingress| {
        let service = &ingress["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"];
        let port =
            if service["port"]["name"].is_null() { &service["port"]["number"] } else { &service["port"]["name"] };
        (&service["name"], port)
    });
    let route = manifests.all("HTTPRoute").map(|route| &route["spec"]["rules"][0]["backendRefs"][0]);
    let (name, port) =
        ingress.chain(route.map(|to| (&to["name"], &to["port"]))).next().context("there is no Ingress or HTTPRoute")?;
    let name = name.as_str().context("a backend has a name")?;
    let ports = manifests.get("Service", name)?["spec"]["ports"].as_array().context("a Service has ports")?;
    let found = ports.iter().find(|there| there["name"] == *port || there["port"] == *port);
    let number = found.and_then(|port| port["port"].as_u64()).with_context(|| format!("{name} has no port {port}"))?;
    Ok((name.to_owned(), u16::try_from(number)?))
}
