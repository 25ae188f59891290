//! docker-compose.yml and deploy/ agree with the programs and with each other.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use confab_tests::replay::stage;
use serde_json::Value;

/// Variables that may have a default, because none is a secret.
const OPEN: [&str; 6] =
    ["VERSION", "REVISION", "CONFAB_LOG", "CONFAB_ALLOWED_ORIGINS", "CONFAB_PUBLIC_HOSTS", "OTEL_TRACES_SAMPLER_ARG"];
/// A program's default drain time, and how long it may take to end after that, in seconds.
const DRAIN: u64 = 30;
const END: u64 = 5;

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name)
}

fn text(name: &str) -> String {
    fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn yaml(name: &str) -> Value {
    serde_saphyr::from_str(&text(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Returns the services of docker-compose.yml.
fn services() -> BTreeMap<String, Value> {
    serde_json::from_value(yaml("docker-compose.yml")["services"].clone())
        .expect("/// Returns the program that a service runs, if it is one of Confab's.")
}

/// The program that a service runs, if it is one of ours.
fn program(service: &Value) -> Option<&str> {
    service["build"].is_object().then(|| service["image"].as_str()?.split(':').next())?
}

fn ours() -> Vec<(String, String, Value)> {
    let ours =
        services().into_iter().filter_map(|(name, service)| Some((name, program(&service)?.to_owned(), service)));
    let ours = ours.collect::<Vec<_>>();
    assert_eq!(ours.len(), 6, "five programs and the migration");
    ours
}

fn environment(service: &Value) -> BTreeMap<String, String> {
    serde_json::from_value(service["environment"].clone()).expect("a map of texts")
}

fn strings(value: &Value) -> Vec<&str> {
    value
        .as_array()
        .into_iter()
        .flatten()
        .map(|item| item.as_str().expect("/// Yields the `${…}` expressions of a text."))
        .collect()
}

/// Returns the port of a listening address.
fn variables(text: &str) -> impl Iterator<Item = &str> {
    text.match_indices("${").map(|(at, _)| text[at + 2..].split('}').next().unwrap_or_default())
}

/// The port of a listening address.
fn port(address: &str) -> &str {
    address.rsplit(':').next().unwrap_or_default()
}

#[test]
fn every_setting_is_known_to_its_program() {
    let dockerfile = text("deploy/Dockerfile");
    for (name, program, service) in ours() {
        let help = Command::new(confab_tests::programs().join(&program)).arg("--help").output().unwrap();
        let help = String::from_utf8(help.stdout).unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
        let known = |setting: &str| {
            // `--help` shows secrets without their value.
            ["=", "]"].iter().any(|end| help.contains(&format!("[env: {setting}{end}"))) || setting.starts_with("OTEL_")
        };
        let target = service["build"]["target"].as_str().unwrap();
        let image = [stage(&dockerfile, "runtime"), stage(&dockerfile, target)].concat().join("\n");
        let in_image = image.split([' ', '\n']).filter_map(|word| word.split_once('=')).map(|(setting, _)| setting);
        let in_image = in_image.filter(|setting| setting.starts_with("CONFAB_")).map(String::from);
        let settings = environment(&service).into_keys().chain(in_image).collect::<BTreeSet<_>>();
        assert!(settings.len() > 4, "{name}");
        for setting in settings {
            assert!(known(&setting), "{program} has no setting {setting}, which {name} sets");
        }
    }
}

#[test]
fn programs_listen_at_the_addresses_that_others_call() {
    let (services, dockerfile) = (services(), text("deploy/Dockerfile"));
    for (name, program, service) in ours() {
        let settings = environment(&service);
        let image = stage(&dockerfile, service["build"]["target"].as_str().unwrap());
        assert!(image.contains(&format!("ENTRYPOINT [\"{program}\"]").as_str()), "{program}");
        let exposed =
            image.iter().find_map(|line| line.strip_prefix("EXPOSE ")).unwrap().split(' ').collect::<Vec<_>>();
        let listens = ["CONFAB_LISTEN", "CONFAB_FORWARD_LISTEN", "CONFAB_ADMIN_LISTEN"];
        for address in listens.iter().filter_map(|setting| settings.get(*setting)) {
            assert!(address.starts_with("0.0.0.0:") && exposed.contains(&port(address)), "{name} listens on {address}");
        }
        for (setting, url) in
            settings.iter().filter(|(setting, _)| setting.starts_with("CONFAB_") && setting.ends_with("_URL"))
        {
            // Services have certificates; gateways sign their requests to each other.
            let (scheme, own) = if setting == "CONFAB_GATEWAY_URL" {
                ("http://", "CONFAB_FORWARD_LISTEN")
            } else {
                ("https://", "CONFAB_LISTEN")
            };
            let (host, port) = url.strip_prefix(scheme).unwrap().split_once(':').unwrap();
            assert_eq!(environment(&services[host])[own], format!("0.0.0.0:{port}"), "{name}: {setting}");
        }
        // A service can reach the services that it names: they share a network.
        for (setting, value) in &settings {
            let authority = value.split("//").nth(1).unwrap_or_default().rsplit('@').next().unwrap();
            let host = authority.split([':', '/']).next().unwrap();
            let Some(other) = services.get(host) else { continue };
            let networks = strings(&service["networks"]);
            assert!(
                strings(&other["networks"]).iter().any(|network| networks.contains(network)),
                "{name}: {setting} {host}"
            );
        }
    }
    let balancer = text("deploy/nginx/nginx.conf");
    let gateway = environment(&services["gateway"]);
    assert!(balancer.contains(&format!("server gateway:{} resolve", port(&gateway["CONFAB_LISTEN"]))));
}

#[test]
fn services_wait_for_their_dependencies_and_have_health_checks() {
    let services = services();
    for (name, service) in &services {
        let wanted = service["depends_on"].as_object().into_iter().flatten();
        for (other, how) in wanted {
            let asked = services[other]["healthcheck"]["test"].is_array();
            let condition = if asked { "service_healthy" } else { "service_completed_successfully" };
            assert_eq!(how["condition"], condition, "{name} waits for {other}");
            assert!(
                asked || services[other]["restart"] == "on-failure",
                "{other} runs permanently and has no health check"
            );
        }
        match program(service) {
            Some("confab") => assert_eq!(strings(&service["command"]), ["migrate"]),
            Some(program) => assert_eq!(strings(&service["healthcheck"]["test"]), ["CMD", program, "healthcheck"]),
            None => assert!(name == "otel-collector" || service["healthcheck"]["test"].is_array(), "{name}"),
        }
    }
}

#[test]
fn containers_have_least_privilege() {
    let seconds = |text: &Value| text.as_str().unwrap().trim_end_matches('s').parse::<u64>().unwrap();
    for (name, service) in services() {
        let limits = &service["deploy"]["resources"]["limits"];
        assert!(limits["cpus"].is_string() && limits["memory"].is_string(), "{name} has no limits");
        assert_eq!(service["read_only"], true, "{name}");
        assert_eq!((strings(&service["cap_drop"]), &service["cap_add"]), (vec!["ALL"], &Value::Null), "{name}");
        assert_eq!(strings(&service["security_opt"]), ["no-new-privileges:true"], "{name}");
        for port in strings(&service["ports"]) {
            assert!(port.starts_with("127.0.0.1:"), "{name} publishes {port}");
        }
        // Of the host's files, only the settings in this repository and a program's own certificate are mounted,
        // read-only.
        let certificate = format!("./certs/{name}");
        let mut has_certificate = false;
        for volume in strings(&service["volumes"]).into_iter().filter(|volume| volume.starts_with(['.', '/', '~'])) {
            let file = volume.split(':').next().unwrap();
            has_certificate |= file == certificate;
            assert!(
                volume.ends_with(":ro")
                    && (file == certificate || file.starts_with("./deploy/") && path(file).exists()),
                "{name}: {volume}"
            );
        }
        assert_eq!(has_certificate, program(&service).is_some_and(|program| program != "confab"), "{name}");
        if program(&service).is_some_and(|program| program != "confab") {
            assert_eq!(service["deploy"]["replicas"], 2, "{name}");
            let accepts = environment(&service)
                .get("CONFAB_ACCEPT_DRAIN")
                .map_or(0, |drain| seconds(&Value::from(drain.as_str())));
            assert!(
                seconds(&service["stop_grace_period"]) >= accepts + DRAIN + END,
                "{name} is killed while it drains"
            );
        }
    }
}

#[test]
fn no_secret_has_a_default() {
    let (compose, script) = (text("docker-compose.yml"), text("scripts/compose-env.sh"));
    let mut secrets = BTreeSet::new();
    for variable in variables(&compose) {
        let (name, rest) = variable.split_at(variable.find(':').unwrap_or(variable.len()));
        if OPEN.contains(&name) {
            assert!(rest.starts_with(":-"), "{variable}")
        } else {
            assert_eq!(rest, ":?scripts/compose-env.sh makes it", "{name}")
        }
        secrets.extend((!OPEN.contains(&name)).then_some(name));
    }
    assert_eq!(secrets.len(), 11);
    for secret in secrets {
        assert!(
            script.split([' ', '\n', '"', ';', '=']).any(|word| word == secret),
            "compose-env.sh does not create {secret}"
        );
    }
    for (name, service) in services() {
        for (variable, value) in environment_of_any(&service) {
            let is_secret = ["PASSWORD", "SECRET", "KEY", "TOKEN"].iter().any(|word| variable.ends_with(word));
            assert!(!is_secret || value.starts_with("${"), "{name}: {variable} has a literal value");
        }
    }
}

fn environment_of_any(service: &Value) -> BTreeMap<String, String> {
    if service["environment"].is_null() { BTreeMap::new() } else { environment(service) }
}

#[test]
fn the_database_has_enough_connections() {
    let services = services();
    let pools = ours().into_iter().filter(|(_, _, service)| service["deploy"]["replicas"].is_u64());
    let wanted: u64 = pools
        .filter_map(|(_, _, service)| {
            let pool = environment(&service).get("CONFAB_POSTGRES_CONNECTIONS")?.parse::<u64>().unwrap();
            Some(pool * service["deploy"]["replicas"].as_u64()?)
        })
        .sum();
    let given = strings(&services["postgres"]["command"])
        .iter()
        .find_map(|word| word.strip_prefix("max_connections="))
        .unwrap();
    assert!(wanted > 0 && wanted + 20 <= given.parse().unwrap(), "{wanted} of {given}");
}

#[test]
fn images_use_the_project_compiler_and_run_unprivileged() {
    let dockerfile = text("deploy/Dockerfile");
    let toolchain = text("rust-toolchain.toml");
    let version = toolchain.lines().find_map(|line| line.strip_prefix("channel = ")).unwrap().trim_matches('"');
    assert!(
        dockerfile.contains(&format!("FROM rust:{version}-bookworm AS chef\n")),
        "rust-toolchain.toml says {version}"
    );
    // Debian 12 is bookworm: programs linked there run here.
    assert!(stage(&dockerfile, "runtime")[0].contains("debian12"));
    assert!(stage(&dockerfile, "runtime").contains(&"USER 65532:65532"));
    for (_, program, service) in ours() {
        let image = stage(&dockerfile, service["build"]["target"].as_str().unwrap());
        assert!(image[0].starts_with("FROM runtime AS "), "{program}");
        assert!(image.iter().any(|line| line.ends_with(&format!("CMD [\"{program}\", \"healthcheck\"]"))), "{program}");
        assert!(!image.iter().any(|line| line.starts_with("USER")), "{program}");
    }
}

#[test]
fn the_collectors_pipelines_name_existing_parts() {
    let collector = yaml("deploy/otel/collector.yaml");
    let pipelines = collector["service"]["pipelines"].as_object().unwrap();
    assert!(pipelines.contains_key("traces"));
    for (name, pipeline) in pipelines {
        for (kind, parts) in pipeline.as_object().unwrap() {
            assert!(!strings(parts).is_empty());
            for part in strings(parts) {
                assert!(!collector[kind][part].is_null(), "{name} names {part}, which is not among the {kind}");
            }
        }
    }
    let (_, _, gateway) = ours().into_iter().find(|(name, ..)| name == "gateway").unwrap();
    let endpoint = collector["receivers"]["otlp"]["protocols"]["grpc"]["endpoint"].as_str().unwrap();
    assert_eq!(
        environment(&gateway)["OTEL_EXPORTER_OTLP_ENDPOINT"],
        format!("http://otel-collector:{}", port(endpoint))
    );
}
