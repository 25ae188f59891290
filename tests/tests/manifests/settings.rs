//! Settings: programs support the settings that they receive, receive the settings that they need, and every URL
//! resolves.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::sync::LazyLock;

use anyhow::Context;
use confab_tests::manifests::{Manifests, Pod};
use confab_tests::programs;
use parking_lot::Mutex;

/// Settings whose default is only right on one machine, or that must be equal everywhere, in addition to those
/// recognised by their ending.
const NEEDED: &[&str] = &[
    "CONFAB_LISTEN",
    "CONFAB_ADMIN_LISTEN",
    "CONFAB_FORWARD_LISTEN",
    "CONFAB_FORWARD_ADDRESS",
    "CONFAB_BUS",
    "CONFAB_CLUSTER_KEY",
    "CONFAB_SIGNING_KEY",
    "CONFAB_OBJECTS",
    "CONFAB_S3_ENDPOINT",
    "CONFAB_S3_ACCESS_KEY_ID",
    "CONFAB_S3_SECRET_ACCESS_KEY",
    "CONFAB_ALLOWED_ORIGINS",
    "CONFAB_MIGRATE",
    "CONFAB_DRAIN",
    "CONFAB_ACCEPT_DRAIN",
    "CONFAB_REQUIRE_USER_TOKENS",
    "CONFAB_TLS_CERT_FILE",
    "CONFAB_TLS_KEY_FILE",
    "CONFAB_TLS_CA_FILE",
];

#[derive(Clone, Default)]
pub struct Help {
    pub settings: BTreeSet<String>,
    /// The whole text.
    pub text: String,
}

/// Runs a program's `--help`.
pub fn help(program: &str) -> anyhow::Result<Help> {
    static ASKED: LazyLock<Mutex<BTreeMap<String, Help>>> = LazyLock::new(Mutex::default);
    let mut asked = ASKED.lock();
    if let Some(help) = asked.get(program) {
        return Ok(help.clone());
    }
    let file = programs().join(program);
    let output =
        Command::new(&file).arg("--help").output().with_context(|| format!("cannot run {}", file.display()))?;
    let text = String::from_utf8(output.stdout)?;
    // `[env: NAME=value]`, or `[env: NAME]` for secrets; the text may mention other settings.
    let words = text.split_whitespace();
    let named = words.clone().zip(words.skip(1)).filter(|(before, _)| *before == "[env:");
    let settings = named.filter_map(|(_, name)| name.split(['=', ']']).next()).map(str::to_owned).collect();
    let help = Help { settings, text };
    asked.insert(program.to_owned(), help.clone());
    Ok(help)
}

pub fn complaints(manifests: &Manifests) -> anyhow::Result<Vec<String>> {
    let mut wrong = Vec::new();
    for pod in manifests.pods() {
        for mount in pod.mounts()? {
            if let Err(error) = manifests.secret(&mount.secret, &mount.key) {
                wrong.push(format!("{}: {error:#}", pod.name()));
            }
        }
        let Some(program) = pod.program() else { continue };
        let known = help(program)?;
        let environment = pod.environment(manifests, "10.0.0.1")?;
        let mut given = BTreeSet::new();
        for (name, value) in environment.iter().filter(|(name, _)| name.starts_with("CONFAB_")) {
            let setting = name.strip_suffix("_FILE").filter(|setting| known.settings.contains(*setting));
            // The value of such a setting is itself a path.
            let setting = setting.or(Some(name.as_str()).filter(|name| name.starts_with("CONFAB_TLS_")));
            match setting {
                None if known.settings.contains(name) => _ = given.insert(name.as_str()),
                Some(setting) if pod.mounts()?.iter().any(|mount| mount.path == *value) => _ = given.insert(setting),
                Some(_) => wrong.push(format!("{}: {name} names {value}, where no file is mounted", pod.name())),
                None => wrong.push(format!("{}: {program} has no setting {name}", pod.name())),
            }
        }
        let needed = |setting: &&String| {
            if pod.serves() {
                ["_URL", "_STORE"].iter().any(|end| setting.ends_with(end)) || NEEDED.contains(&setting.as_str())
            } else {
                setting.ends_with("_STORE")
            }
        };
        for setting in known.settings.iter().filter(needed).filter(|setting| !given.contains(setting.as_str())) {
            wrong.push(format!("{}: {setting} is missing", pod.name()));
        }
        if pod.serves() {
            serving_complaints(manifests, &pod, &environment, &mut wrong);
        } else if pod.arguments() != ["migrate"] || !known.text.contains("\n  migrate ") {
            wrong.push(format!("{}: {program} has no subcommand {:?}", pod.name(), pod.arguments()));
        }
    }
    Ok(wrong)
}

fn serving_complaints(
    manifests: &Manifests,
    pod: &Pod<'_>,
    environment: &BTreeMap<String, String>,
    wrong: &mut Vec<String>,
) {
    // It listens on the ports in its manifest, on all addresses.
    let named = if pod.component() == "gateway" { "http" } else { "grpc" };
    for (setting, port) in
        [("CONFAB_LISTEN", named), ("CONFAB_ADMIN_LISTEN", "metrics"), ("CONFAB_FORWARD_LISTEN", "forward")]
    {
        let given = environment.get(setting).cloned();
        let expected = pod.ports().get(port).map(|port| format!("[::]:{port}"));
        if given != expected {
            wrong.push(format!("{}: {setting} is {given:?}, and its port {port} {expected:?}", pod.name()));
        }
    }
    if let Some(address) = environment.get("CONFAB_FORWARD_ADDRESS")
        && address != "10.0.0.1"
    {
        wrong.push(format!("{}: its address for other gateways is {address}", pod.name()));
    }
    if environment.get("CONFAB_MIGRATE").is_some_and(|migrate| migrate != "off") {
        wrong.push(format!("{}: a program with only read and write permissions cannot migrate", pod.name()));
    }
    // `CONFAB_X_URL` leads to a Service with that port, and with pods of that kind.
    for (name, url) in environment {
        let Some(component) = name.strip_prefix("CONFAB_").and_then(|name| name.strip_suffix("_URL")) else { continue };
        // Services have certificates; gateways sign their requests to each other.
        let scheme = if component == "GATEWAY" { "http://" } else { "https://" };
        let Some((service, port)) = url.strip_prefix(scheme).and_then(|to| to.rsplit_once(':')) else {
            wrong.push(format!("{}: {name} is {url}", pod.name()));
            continue;
        };
        let found = manifests.service(service).ok().filter(|(service, pods)| {
            let ports = service["spec"]["ports"].as_array().into_iter().flatten();
            let has_port = ports.into_iter().any(|there| there["port"].as_u64() == port.parse().ok());
            has_port && pods.iter().all(|pod| pod.component() == component.to_lowercase())
        });
        if found.is_none() {
            wrong.push(format!("{}: {name} leads nowhere: {url}", pod.name()));
        }
    }
}
