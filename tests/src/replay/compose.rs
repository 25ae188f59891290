//! The containers of docker-compose.yml.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;

use anyhow::{Context, bail, ensure};
use serde_json::Value;

use super::{Container, Name, Plan, Probe, image, program, servers};
use crate::certificates;
use crate::guard::Guard;
use crate::manifests::root;

/// Monitoring services, which chat does not need and for which this machine has no programs.
const WATCHERS: [&str; 3] = ["otel-collector", "prometheus", "grafana"];

/// Parses docker-compose.yml.
///
/// # Errors
/// When it cannot be read.
pub fn document() -> anyhow::Result<Value> {
    Ok(serde_saphyr::from_str(&fs::read_to_string(root().join("docker-compose.yml"))?)?)
}

/// Returns values of the file's variables, from the script that it names.
///
/// # Errors
/// When the script fails.
pub fn variables() -> anyhow::Result<BTreeMap<String, String>> {
    let guard = Guard::new("compose")?;
    let file = guard.directory().join("env");
    let status = Command::new(root().join("scripts/compose-env.sh")).arg(&file).status()?;
    ensure!(status.success(), "scripts/compose-env.sh: {status}");
    let lines = fs::read_to_string(file)?;
    Ok(lines
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect())
}

/// Plans all services of a compose file except the monitoring ones; its load balancer is that of the replay.
///
/// # Errors
/// When a construct is unknown or a variable has no value.
pub fn plan(document: &Value, variables: &BTreeMap<String, String>) -> anyhow::Result<Plan> {
    let filled = filled(document, variables)?;
    let services = filled["services"].as_object().context("it has services")?;
    let mut plan = Plan { containers: vec![], names: BTreeMap::new(), door: door(&services["lb"])? };
    for (name, service) in services.iter().filter(|(name, _)| *name != "lb" && !WATCHERS.contains(&name.as_str())) {
        plan.names.insert(name.clone(), Name { containers: vec![name.clone()], ports: None });
        plan.containers.push(container(name, service)?);
    }
    let postgres = plan.container("postgres")?;
    if strings(&services["postgres"]["volumes"])?
        .iter()
        .any(|volume| volume.ends_with(":/docker-entrypoint-initdb.d/roles.sql:ro"))
    {
        let environment =
            postgres.environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect::<Vec<_>>();
        let roles = servers::roles("postgres", &environment, &root().join("deploy/postgres/roles.sql"))?;
        // It must be complete before other containers connect to the server.
        let others = plan.containers.iter_mut().filter(|container| container.after.contains("postgres"));
        others.for_each(|container| _ = container.after.insert(roles.name.clone()));
        plan.containers.push(roles);
    }
    Ok(plan)
}

fn container(name: &str, service: &Value) -> anyhow::Result<Container> {
    let environment: BTreeMap<String, String> = serde_json::from_value(service["environment"].clone())?;
    let mut container = Container {
        name: name.to_owned(),
        program: program(&service["image"])?,
        arguments: strings(&service["command"])?,
        environment,
        replicas: usize::try_from(service["deploy"]["replicas"].as_u64().unwrap_or(1))?,
        after: service["depends_on"].as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect(),
        ..Container::default()
    };
    let volumes = strings(&service["volumes"])?;
    let named = volumes.iter().filter(|volume| !volume.starts_with('.')).filter_map(|volume| volume.split(':').nth(1));
    container.volumes = named.map(str::to_owned).collect::<BTreeSet<_>>();
    // The certificates that an operator makes beside the file.
    for (program, path) in volumes.iter().filter_map(|volume| volume.strip_prefix("./certs/")?.split_once(':')) {
        let path = path.strip_suffix(":ro").with_context(|| format!("{name}: the certificates are writable"))?;
        for (file, content) in certificates::files(program)? {
            container.files.insert(format!("{path}/{file}"), content);
        }
    }
    if container.is_ours() {
        let (own, ports) = image(service["build"]["target"].as_str().context("a build has a target")?)?;
        container.environment = own.into_iter().chain(container.environment).collect();
        container.ends = container.arguments == ["migrate"];
        if !container.ends {
            container.probes = ports.into_iter().map(Probe::Tcp).collect();
            let test = strings(&service["healthcheck"]["test"])?;
            let [kind, command @ ..] = test.as_slice() else { bail!("{name} has no health check") };
            ensure!(kind == "CMD", "{name}: its image has no shell");
            container.probes.push(Probe::Command(command.to_vec()));
        }
    } else {
        // Their own checks need programs from their images.
        let port = [("postgres", 5432), ("redis", 6379), ("weed", 8333)]
            .into_iter()
            .find(|(program, _)| *program == container.program);
        container.probes = port.map(|(_, port)| Probe::Tcp(port)).into_iter().collect();
    }
    Ok(container)
}

/// Returns the gateways, which the load balancer's settings name; its published port must be the documented one.
fn door(balancer: &Value) -> anyhow::Result<(String, u16)> {
    ensure!(strings(&balancer["ports"])? == ["127.0.0.1:8080:8080"], "the README documents port 8080 on this machine");
    let settings = fs::read_to_string(root().join("deploy/nginx/nginx.conf"))?;
    let server = settings
        .lines()
        .find_map(|line| line.trim().strip_prefix("server ")?.split_whitespace().next()?.split_once(':'));
    let (name, port) = server.context("the load balancer has a server")?;
    Ok((name.to_owned(), port.parse()?))
}

fn strings(value: &Value) -> anyhow::Result<Vec<String>> {
    Ok(if value.is_null() { vec![] } else { serde_json::from_value(value.clone())? })
}

/// Replaces the variables of the document by their values.
fn filled(value: &Value, variables: &BTreeMap<String, String>) -> anyhow::Result<Value> {
    Ok(match value {
        Value::String(text) => Value::String(text_filled(text, variables)?),
        Value::Array(items) => {
            Value::Array(items.iter().map(|item| filled(item, variables)).collect::<anyhow::Result<_>>()?)
        }
        Value::Object(items) => {
            let items = items.iter().map(|(key, item)| Ok((key.clone(), filled(item, variables)?)));
            Value::Object(items.collect::<anyhow::Result<_>>()?)
        }
        other => other.clone(),
    })
}

/// Replaces `${NAME}`, `${NAME:-default}` and `${NAME:?why it is needed}`; `$$` is a dollar. Source:
/// <https://github.com/compose-spec/compose-spec/blob/main/12-interpolation.md>.
fn text_filled(text: &str, variables: &BTreeMap<String, String>) -> anyhow::Result<String> {
    let mut pieces = text.split("${");
    let mut whole = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (variable, rest) = piece.split_once('}').with_context(|| format!("not closed: {text}"))?;
        let (name, otherwise) = variable.split_at(variable.find(':').unwrap_or(variable.len()));
        let given = variables.get(name).map(String::as_str);
        let value =
            given.or(otherwise.strip_prefix(":-")).with_context(|| format!("{name} has no value{otherwise}"))?;
        whole += value;
        whole += rest;
    }
    Ok(whole.replace("$$", "$"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_have_values_or_defaults() {
        let variables = BTreeMap::from([("A".to_owned(), "1".to_owned())]);
        let filled = |text| text_filled(text, &variables);
        assert_eq!(filled("x${A:-2}y${B:-3}$$z").unwrap(), "x1y3$z");
        assert_eq!(filled("${A:?why}").unwrap(), "1");
        assert!(filled("${B:?why}").unwrap_err().to_string().contains("why"));
        assert!(filled("${B").is_err());
    }
}
