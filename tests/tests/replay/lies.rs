//! False manifests are detected: one more replica according to changed manifests does not become ready.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use confab_tests::manifests::Manifests;
use confab_tests::replay::{Plan, Replay, compose, kubernetes};
use serde_json::{Value, json};
use tokio::task::{JoinSet, LocalSet};

/// A replica of unchanged manifests is ready long before this limit…
const FALSE_MANIFEST_LIMIT: Duration = Duration::from_secs(20);
/// …but a busy machine gets more time.
const READY_LIMIT: Duration = Duration::from_secs(60);

/// Starts a replica of the container according to each plan, all at once; every plan except the unchanged one must
/// fail.
async fn are_found_out(honest: Plan, lies: Vec<(&'static str, &'static str, Plan)>) {
    let replay = Rc::new(Replay::start(honest.clone()).await.unwrap());
    let unchanged = lies.iter().map(|(_, container, _)| *container).collect::<BTreeSet<_>>();
    let unchanged = unchanged.into_iter().map(|container| ("", container, honest.clone())).collect();
    for (_, container, found) in trials(&replay, unchanged, READY_LIMIT).await {
        found.unwrap_or_else(|error| panic!("the unchanged plan of {container}: {error:#}"));
    }
    for (lie, container, found) in trials(&replay, lies, FALSE_MANIFEST_LIMIT).await {
        assert!(found.is_err(), "not detected: {lie} of {container}");
    }
}

type Tried = (&'static str, &'static str, anyhow::Result<()>);

async fn trials(replay: &Rc<Replay>, plans: Vec<(&'static str, &'static str, Plan)>, limit: Duration) -> Vec<Tried> {
    let (mut trials, here) = (JoinSet::new(), LocalSet::new());
    for (what, container, plan) in plans {
        let replay = replay.clone();
        trials.spawn_local_on(async move { (what, container, replay.one_more(&plan, container, limit).await) }, &here);
    }
    here.run_until(trials.join_all()).await
}

/// Returns the path of a variable in a container's environment.
fn variable(manifests: &Manifests, kind: &str, object: &str, name: &str) -> String {
    let object = manifests.get(kind, object).unwrap();
    let variables = object["spec"]["template"]["spec"]["containers"][0]["env"].as_array().unwrap();
    let n = variables.iter().position(|variable| variable["name"] == name).unwrap();
    format!("/spec/template/spec/containers/0/env/{n}/value")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_manifests() {
    let manifests = super::development();
    let honest = kubernetes::plan(&manifests).unwrap();
    let container = |field: &str| format!("/spec/template/spec/containers/0/{field}");
    let lie = |what: &'static str, kind: &str, name: &str, pointer: &str, value: Value, container: &'static str| {
        (what, container, kubernetes::plan(&manifests.but(kind, name, pointer, value)).unwrap())
    };
    let at = |object: &str, name: &str| variable(&manifests, "Deployment", object, name);
    let gateway = "Deployment confab-gateway";
    let lies = vec![
        lie(
            "a path of a probe",
            "Deployment",
            "confab-gateway",
            &container("readinessProbe/httpGet/path"),
            json!("/ready"),
            gateway,
        ),
        lie(
            "a port of a probe",
            "Deployment",
            "confab-auth",
            &container("livenessProbe/httpGet/port"),
            json!("grpc"),
            "Deployment confab-auth",
        ),
        lie(
            "a port listened on",
            "Deployment",
            "confab-gateway",
            &at("confab-gateway", "CONFAB_LISTEN"),
            json!("0.0.0.0:8090"),
            gateway,
        ),
        lie(
            "a port for gateways",
            "Deployment",
            "confab-gateway",
            &at("confab-gateway", "CONFAB_FORWARD_LISTEN"),
            json!("0.0.0.0:7251"),
            gateway,
        ),
        lie(
            "a file that does not exist",
            "Deployment",
            "confab-auth",
            &at("confab-auth", "CONFAB_SIGNING_KEY_FILE"),
            json!("/etc/key"),
            "Deployment confab-auth",
        ),
        lie(
            "a password",
            "Secret",
            "confab-room-store",
            "/data/url",
            json!("cG9zdGdyZXM6Ly9hOmJAcG9zdGdyZXMvY29uZmFi"),
            "Deployment confab-room",
        ),
        lie(
            "an address of a service",
            "ConfigMap",
            "confab-gateway",
            "/data/CONFAB_AUTH_URL",
            json!("https://confab-auth:50052"),
            gateway,
        ),
        lie(
            "calls without TLS",
            "ConfigMap",
            "confab-gateway",
            "/data/CONFAB_AUTH_URL",
            json!("http://confab-auth:50051"),
            gateway,
        ),
        lie(
            "the role of a certificate",
            "Certificate",
            "confab-room",
            "/spec/dnsNames/0",
            json!("file.confab"),
            "Deployment confab-room",
        ),
        lie(
            "the target of a Service",
            "Service",
            "confab-message",
            "/spec/selector",
            json!({"app.kubernetes.io/component": "auth"}),
            gateway,
        ),
        lie(
            "the work of a Job",
            "Job",
            "confab-migrate-file",
            &container("args"),
            json!(["migration"]),
            "Job confab-migrate-file",
        ),
    ];
    are_found_out(honest, lies).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_compose() {
    let (document, variables) = (compose::document().unwrap(), compose::variables().unwrap());
    let honest = compose::plan(&document, &variables).unwrap();
    let lie = |what: &'static str, container: &'static str, pointer: &str, value: &str| {
        let mut document = document.clone();
        *document.pointer_mut(&format!("/services/{container}/{pointer}")).unwrap() = json!(value);
        (what, container, compose::plan(&document, &variables).unwrap())
    };
    let lies = vec![
        lie("a port listened on", "message", "environment/CONFAB_LISTEN", "0.0.0.0:50052"),
        lie("a port of metrics", "gateway", "environment/CONFAB_ADMIN_LISTEN", "0.0.0.0:9465"),
        lie("an address of a service", "gateway", "environment/CONFAB_MESSAGE_URL", "https://messages:50053"),
        lie(
            "a role",
            "room",
            "environment/CONFAB_ROOM_STORE",
            "postgres://confab_unknown:${ROOM_DB_PASSWORD}@postgres/confab",
        ),
        lie("a health check", "auth", "healthcheck/test/2", "health"),
        lie("the role of a certificate", "room", "volumes/0", "./certs/file:/etc/confab:ro"),
        lie(
            "what migrates",
            "migrate",
            "environment/CONFAB_FILE_STORE",
            "postgres://confab_file:${FILE_DB_PASSWORD}@postgre/confab",
        ),
    ];
    are_found_out(honest, lies).await;
}
