//! The Kubernetes manifests are consistent: every name resolves, every setting is known to its program, shutdowns have
//! enough time, and the network permits exactly the necessary connections. `scripts/check-k8s.sh` checks their form.

mod broken;
mod certificates;
mod network;
mod pods;
mod scaling;
mod settings;
mod wiring;

use std::collections::BTreeMap;
use std::process::Command;

use confab_tests::manifests::{Manifests, Pod, documents, root};

/// Returns the Secrets that an operator creates, from the documented script.
fn made_secrets() -> String {
    let values = [
        ("POSTGRES", "db.example.org:5432/confab?sslmode=require"),
        ("REDIS_URL", "rediss://confab:it's@redis.example.org:6379"),
        ("MIGRATE_DB_PASSWORD", "m@/:%é"),
        ("AUTH_DB_PASSWORD", "a"),
        ("ROOM_DB_PASSWORD", "r"),
        ("MESSAGE_DB_PASSWORD", "m"),
        ("FILE_DB_PASSWORD", "f"),
        ("CONFAB_CLUSTER_KEY", "9yXv2mQ1hJkT7rLdB0sWzC4fGpN8aUeE5oK3iVxR6tY="),
        ("CONFAB_SIGNING_KEY", "s"),
        ("S3_ACCESS_KEY_ID", "i"),
        ("S3_SECRET_ACCESS_KEY", "s"),
    ];
    let output = Command::new(root().join("scripts/k8s-secrets.sh")).envs(values).output().expect("a script of ours");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("YAML")
}

fn development() -> Manifests {
    Manifests::overlay("dev", &[], "").expect("the overlay is rendered")
}

fn production() -> Manifests {
    Manifests::overlay("prod", &[], &made_secrets()).expect("the overlay is rendered")
}

fn chart() -> Manifests {
    Manifests::chart("production", &made_secrets()).expect("the chart is rendered")
}

/// Finds faults of one kind.
type Check = fn(&Manifests) -> anyhow::Result<Vec<String>>;

/// Returns all faults of the manifests.
fn complaints(manifests: &Manifests) -> Vec<String> {
    let checks: [Check; 6] = [
        wiring::complaints,
        settings::complaints,
        certificates::complaints,
        pods::complaints,
        scaling::complaints,
        network::complaints,
    ];
    checks.iter().flat_map(|check| check(manifests).unwrap_or_else(|error| vec![format!("{error:#}")])).collect()
}

#[test]
fn development_is_consistent() {
    assert_eq!(complaints(&development()), [""; 0]);
}

#[test]
fn production_is_consistent() {
    let manifests = production();
    assert_eq!(complaints(&manifests), [""; 0]);
    assert_eq!(manifests.secret("confab-bus", "url").unwrap(), "rediss://confab:it's@redis.example.org:6379");
    let url = "postgres://confab_migrate:m%40%2F%3A%25%C3%A9@db.example.org:5432/confab?sslmode=require";
    assert_eq!(manifests.secret("confab-migrations", "url").unwrap(), url);
}

#[test]
fn chart_is_consistent() {
    assert_eq!(complaints(&chart()), [""; 0]);
}

#[test]
fn production_with_the_other_components_is_consistent() {
    let manifests = Manifests::overlay("prod", &["ingress", "tracing", "scale-by-sockets"], &made_secrets()).unwrap();
    assert_eq!(complaints(&manifests), [""; 0]);
    assert_eq!(manifests.all("Ingress").count(), 1);
    let traced = |pod: &Pod<'_>| pod.environment(&manifests, "").unwrap().contains_key("OTEL_EXPORTER_OTLP_ENDPOINT");
    assert!(manifests.pods().iter().filter(|pod| pod.serves()).all(traced));
}

#[test]
fn alerts_equal_those_of_prometheus() {
    let rules = documents(&std::fs::read_to_string(root().join("deploy/prometheus/rules.yml")).unwrap()).unwrap();
    let manifests = production();
    let copy = &manifests.get("PrometheusRule", "confab").unwrap()["spec"]["groups"];
    assert_eq!(*copy, rules[0]["groups"], "scripts/prometheus-rule.sh copies them");
}

#[test]
fn missing_values_are_requested() {
    let output = Command::new(root().join("scripts/k8s-secrets.sh")).env("POSTGRES", "db/confab").output().unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("MIGRATE_DB_PASSWORD"), "{said}");
}

/// The number of objects for each program, so that no object can go missing undetected.
#[test]
fn every_program_is_present() {
    for manifests in [development(), production(), chart()] {
        let mut count = BTreeMap::<_, (u32, u32)>::new();
        for pod in manifests.pods() {
            let Some(program) = pod.program() else { continue };
            let (serving, migrating) = count.entry(program.to_owned()).or_default();
            *(if pod.serves() { serving } else { migrating }) += 1;
        }
        let expected = [("auth", (1, 1)), ("file", (1, 1)), ("gateway", (1, 0)), ("message", (1, 1)), ("room", (1, 1))];
        assert_eq!(count, expected.map(|(name, count)| (format!("confab-{name}"), count)).into());
    }
}
