//! The real programs run as the Kubernetes manifests and docker-compose.yml specify (arguments, environment, secrets,
//! ports, probes and jobs), and stock clients run the conversation through them. False manifests are detected.
#![allow(clippy::unwrap_used, reason = "all of it is tests, what they share included")]

mod lies;
mod rights;

use std::process::Command;

use confab_tests::api::Api;
use confab_tests::conversation::converse;
use confab_tests::manifests::{Manifests, documents, root};
use confab_tests::replay::{Plan, Replay, compose, kubernetes};
use reqwest::Method;
use serde_json::json;

/// An operator's passwords for roles.
const PASSWORDS: [(&str, &str); 6] = [
    ("POSTGRES_PASSWORD", "dev-only-password"),
    ("MIGRATE_DB_PASSWORD", "m-password"),
    ("AUTH_DB_PASSWORD", "a@/:%-password"),
    ("ROOM_DB_PASSWORD", "r-password"),
    ("MESSAGE_DB_PASSWORD", "l-password"),
    ("FILE_DB_PASSWORD", "f-password"),
];

/// Names that resolve to all replicas of a program, and the ports of their metrics.
type Scraped = Vec<(String, u16)>;

fn development() -> Manifests {
    Manifests::overlay("dev", &[], "").unwrap()
}

/// Returns the Services with metrics.
fn scraped(manifests: &Manifests) -> Scraped {
    let ports = manifests.all("Service").flat_map(|service| {
        let ports = service["spec"]["ports"].as_array().unwrap().iter().filter(|port| port["name"] == "metrics");
        ports.map(|port| {
            (service["metadata"]["name"].as_str().unwrap().into(), port["port"].as_u64().unwrap().try_into().unwrap())
        })
    });
    ports.collect()
}

/// Plans production, rendered with Secrets from the documented script; the other overlay's stores replace the
/// platform's.
fn production(render: impl FnOnce(&str) -> anyhow::Result<Manifests>) -> (Plan, Scraped) {
    let secrets = [
        ("POSTGRES", "postgres:5432/confab"),
        ("REDIS_URL", "redis://redis:6379"),
        ("CONFAB_CLUSTER_KEY", "9yXv2mQ1hJkT7rLdB0sWzC4fGpN8aUeE5oK3iVxR6tY="),
        ("CONFAB_SIGNING_KEY", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="),
        ("S3_ACCESS_KEY_ID", "confab"),
        ("S3_SECRET_ACCESS_KEY", "dev-only-secret"),
    ];
    let mut script = Command::new(root().join("scripts/k8s-secrets.sh"));
    let made = script.envs(PASSWORDS).envs(secrets).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let manifests = render(&String::from_utf8(made.stdout).unwrap()).unwrap();
    let stores = kubernetes::plan(&development()).unwrap();
    let mut plan = kubernetes::on_stores_of(kubernetes::plan(&manifests).unwrap(), &stores, &PASSWORDS).unwrap();
    let file = plan.containers.iter_mut().find(|container| container.name == "Deployment confab-file").unwrap();
    let endpoint = file.environment.insert("CONFAB_S3_ENDPOINT".into(), "http://seaweedfs:8333".into());
    assert_eq!(endpoint.as_deref(), Some("https://s3.example.org"));
    (plan, scraped(&manifests))
}

/// Runs the conversation, changes rows of every other kind, and checks metrics and health.
async fn is_of_use(plan: Plan, scraped: &Scraped) -> Replay {
    let replay = Replay::start(plan).await.unwrap();
    converse(&replay.url()).await.unwrap();

    let api = Api::new(replay.url());
    let ada = api.signup().await.unwrap();
    let room = api.room(&ada).await.unwrap();
    let file = api.share(&ada, Some(&room), "a.txt", b"bytes").await.unwrap();
    let (file, room) = (file["url"].as_str().unwrap(), format!("/api/rooms/{room}"));
    assert_eq!(api.get(file, &ada).await.unwrap().bytes, b"bytes");
    for gone in [file, &room] {
        api.call(Method::DELETE, gone, Some(&ada), None).await.unwrap().expect(204).unwrap();
    }
    api.post("/api/auth/logout", &ada, json!({})).await.unwrap().expect(200).unwrap();
    let documents = reqwest::get(format!("{}/docs/", replay.url())).await.unwrap();
    assert_eq!(documents.status(), 200);

    assert_eq!(scraped.len(), 5, "each program is scraped: {scraped:?}");
    for (name, port) in scraped {
        for address in replay.addresses(name, *port).unwrap() {
            let metrics = reqwest::get(format!("http://{address}/metrics")).await.unwrap().text().await.unwrap();
            assert!(metrics.contains("confab_"), "{name}: {metrics}");
        }
    }
    assert!(replay.traces().is_empty(), "root file systems are read-only: {:?}", replay.traces());
    replay
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn development_manifests_run() {
    let manifests = development();
    is_of_use(kubernetes::plan(&manifests).unwrap(), &scraped(&manifests)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn production_manifests_run() {
    let (plan, scraped) = production(|secrets| Manifests::overlay("prod", &[], secrets));
    is_of_use(plan, &scraped).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn production_chart_runs() {
    let (plan, scraped) = production(|secrets| Manifests::chart("production", secrets));
    is_of_use(plan, &scraped).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compose_file_runs() {
    let variables = compose::variables().unwrap();
    let plan = compose::plan(&compose::document().unwrap(), &variables).unwrap();
    let prometheus = std::fs::read_to_string(root().join("deploy/prometheus/prometheus.yml")).unwrap();
    let prometheus = documents(&prometheus).unwrap().remove(0);
    let scraped = prometheus["scrape_configs"].as_array().unwrap().iter().map(|of_program| {
        let found = &of_program["dns_sd_configs"][0];
        (found["names"][0].as_str().unwrap().to_owned(), found["port"].as_u64().unwrap().try_into().unwrap())
    });
    let replay = is_of_use(plan, &scraped.collect()).await;
    rights::are_few(&replay, &variables).await;
}
