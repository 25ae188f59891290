//! The real programs run as the Kubernetes manifests and docker-compose.yml say – their arguments, environment, secrets, ports,
//! probes and jobs – and stock clients have the conversation through them. Manifests that lie are found out.
#![allow(clippy::unwrap_used, reason = "all of it is tests, what they share included")]

mod lies;

use std::process::Command;

use confab_tests::api::Api;
use confab_tests::conversation::converse;
use confab_tests::manifests::{Manifests, root};
use confab_tests::replay::{Plan, Replay, compose, kubernetes};

/// What an operator chose, for roles and secrets.
const PASSWORDS: [(&str, &str); 6] = [
    ("POSTGRES_PASSWORD", "dev-only-password"),
    ("MIGRATE_DB_PASSWORD", "m-password"),
    ("AUTH_DB_PASSWORD", "a-password"),
    ("ROOM_DB_PASSWORD", "r-password"),
    ("MESSAGE_DB_PASSWORD", "l-password"),
    ("FILE_DB_PASSWORD", "f-password"),
];
/// Where the programs are, by the names that lead to all of their replicas, and the port of their metrics.
const PROGRAMS: [&str; 4] = ["auth", "room", "message", "file"];
const METRICS: u16 = 9464;

fn development() -> Manifests {
    Manifests::overlay("dev", &[], "").unwrap()
}

/// The overlay for production, with secrets as the script makes them that the documents name, and the stores of the other overlay
/// as the platform's.
fn production() -> Plan {
    let secrets = [
        ("POSTGRES", "postgres:5432/confab"),
        ("REDIS_URL", "redis://redis:6379"),
        ("CONFAB_CLUSTER_KEY", "a cluster's key"),
        ("CONFAB_SIGNING_KEY", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="),
        ("S3_ACCESS_KEY_ID", "confab"),
        ("S3_SECRET_ACCESS_KEY", "dev-only-secret"),
    ];
    let mut script = Command::new(root().join("scripts/k8s-secrets.sh"));
    let made = script.envs(PASSWORDS).envs(secrets).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let manifests = Manifests::overlay("prod", &[], &String::from_utf8(made.stdout).unwrap()).unwrap();
    let stores = kubernetes::plan(&development()).unwrap();
    let mut plan = kubernetes::on_stores_of(kubernetes::plan(&manifests).unwrap(), &stores, &PASSWORDS).unwrap();
    let file = plan.containers.iter_mut().find(|container| container.name == "Deployment file").unwrap();
    let endpoint = file.environment.insert("CONFAB_S3_ENDPOINT".into(), "http://seaweedfs:8333".into());
    assert_eq!(endpoint.as_deref(), Some("https://s3.example.org"));
    plan
}

/// Has the conversation, shares a file, and looks at what people who run it look at.
async fn is_of_use(plan: Plan, gateways: &str) {
    let replay = Replay::start(plan).await.unwrap();
    converse(&replay.url()).await.unwrap();

    let api = Api::new(replay.url());
    let ada = api.signup().await.unwrap();
    let file = api.share(&ada, None, "a.txt", b"bytes").await.unwrap();
    let bytes = api.get(file["url"].as_str().unwrap(), &ada).await.unwrap().bytes;
    assert_eq!(bytes, b"bytes");
    let documents = reqwest::get(format!("{}/docs/", replay.url())).await.unwrap();
    assert_eq!(documents.status(), 200);

    for name in PROGRAMS.into_iter().chain([gateways]) {
        for address in replay.addresses(name, METRICS).unwrap() {
            let metrics = reqwest::get(format!("http://{address}/metrics")).await.unwrap().text().await.unwrap();
            assert!(metrics.contains("confab_"), "{name}: {metrics}");
        }
    }
    assert!(replay.traces().is_empty(), "root file systems are read-only: {:?}", replay.traces());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn development_runs_as_its_manifests_say() {
    let plan = kubernetes::plan(&development()).unwrap();
    is_of_use(plan, "gateway-peers").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn production_runs_as_its_manifests_say() {
    is_of_use(production(), "gateway-peers").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compose_runs_as_it_says() {
    let plan = compose::plan(&compose::document().unwrap(), &compose::variables().unwrap()).unwrap();
    is_of_use(plan, "gateway").await;
}
