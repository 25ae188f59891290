//! `load access`: what the checks of callers cost: the processor time of a token, and the time of a limited act.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use reqwest::Method;
use rustix::process::Signal;
use serde_json::json;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::figures::{Figures, median};
use super::histogram::Histogram;
use super::options::{say, show};
use super::process::{Cpu, Watched};
use crate::api::{Account, Api, unique};
use crate::cluster::Cluster;
use crate::issuer::{Issuer, Key};
use crate::plan::Role;

/// Longest check of a token of the app's issuer, in microseconds of the gateway's processor time.
const MAX_TOKEN: f64 = 40.0;
/// Largest delay of a rare act by its limit, in milliseconds.
const MAX_SHARED: f64 = 1.0;
/// Largest delay of a rare act by its limit while Redis does not answer, in milliseconds.
const MAX_STALLED: f64 = 30.0;
/// Users of the app's issuer.
const USERS: usize = 8;
/// Connections over which tokens are sent.
const CONNECTIONS: usize = 4;
/// Rejected by the gateway alone, but after the check of the token.
const NO_ROOM: &str = "/api/rooms/malformed";

/// Numbers of requests
#[derive(Debug, clap::Args)]
pub struct Access {
    /// Requests with tokens in each run
    #[arg(long, default_value_t = 10_000)]
    tokens: usize,
    /// Rooms that each gateway creates in each run
    #[arg(long, default_value_t = 200)]
    rooms: usize,
    /// Number of runs; the median is shown
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Print results as one line of JSON
    #[arg(long)]
    json: bool,
}

/// Runs the scenario: the second gateway has no limit of new rooms.
///
/// # Errors
/// When a request fails, or a check takes too long.
pub async fn run(access: Access) -> anyhow::Result<()> {
    let issuer = Issuer::start("https://id.example.com/", Key::new("k")?)?;
    let issuers = json!([issuer.entry()]).to_string();
    let settings = [
        ("CONFAB_ISSUERS", &*issuers),
        ("CONFAB_ANONYMOUS_READ", "true"),
        ("CONFAB_LIMIT_CREATE_ROOM", "1000000,1000/s"),
    ];
    let cluster = Cluster::scratch(2, 1, &settings).await?;
    let mut unlimited = cluster.daemon((Role::Gateway, 2))?;
    unlimited.environment.push(("CONFAB_LIMIT_CREATE_ROOM".into(), "0".into()));
    unlimited.spawn().await?;
    cluster.ready((Role::Gateway, 2)).await?;
    let mut figures = Figures::default();
    let token = tokens(&access, &cluster, &issuer, &mut figures).await?;
    let (shared, stalled) = acts(&access, &cluster, &mut figures).await?;
    show(access.json, "access: the checks of callers", &figures);
    ensure!(token <= MAX_TOKEN, "a token of the app's issuer takes {token:.1} µs to check, more than {MAX_TOKEN} µs");
    ensure!(shared <= MAX_SHARED, "a limit delays a rare act by {shared:.2} ms, more than {MAX_SHARED} ms");
    ensure!(stalled <= MAX_STALLED, "a limit without Redis delays an act by {stalled:.2} ms, not {MAX_STALLED} ms");
    Ok(())
}

/// Returns the processor time that a gateway takes to check a token of the app's issuer, in microseconds.
async fn tokens(access: &Access, cluster: &Cluster, issuer: &Issuer, figures: &mut Figures) -> anyhow::Result<f64> {
    let pid = cluster.daemon((Role::Gateway, 1))?.running().context("the gateway runs")?;
    let gateway = [Watched { name: "gateway".into(), pid }];
    let api = Arc::new(Api::new(cluster.plan.url((Role::Gateway, 1))));
    let own = api.signup().await?.token;
    // Each token is another one, so that none can be remembered.
    let foreign =
        |number: usize| issuer.account(&format!("user_{}", number % USERS), "", &json!({"jti": Uuid::new_v4()}));
    for number in 0..USERS {
        api.get("/api/auth/me", &foreign(number)).await?.expect(200)?;
    }
    let mut checks = Vec::new();
    for run in 1..=access.runs {
        say(&format!(
            "Run {run} of {}: {} requests without a token, with our own, and with the app's…",
            access.runs, access.tokens
        ));
        let foreign = (0..access.tokens).map(|number| Some(foreign(number).token)).collect::<Vec<_>>();
        let (none, own) = (vec![None; access.tokens], vec![Some(own.clone()); access.tokens]);
        let cost = async |tokens| anyhow::Ok(cost(&api, tokens, &gateway).await? / access.tokens as f64);
        let (none, own, foreign) = (cost(none).await?, cost(own).await?, cost(foreign).await?);
        figures.add("gateway cpu without a token", "µs", none);
        figures.add("check of an own token", "µs", own - none);
        figures.add("check of a token of the app's issuer", "µs", foreign - none);
        checks.push(foreign - none);
    }
    Ok(median(&checks))
}

/// Sends one request with each token. Returns the processor time that this takes the gateway, in microseconds.
async fn cost(api: &Arc<Api>, tokens: Vec<Option<String>>, gateway: &[Watched]) -> anyhow::Result<f64> {
    let before = Cpu::now(gateway)?;
    let mut connections = JoinSet::new();
    let share = tokens.len().div_ceil(CONNECTIONS).max(1);
    for tokens in tokens.chunks(share).map(<[_]>::to_vec) {
        let api = api.clone();
        connections.spawn(async move {
            for token in tokens {
                let request = api.request(Method::GET, NO_ROOM);
                let request = token.iter().fold(request, |request, token| request.bearer_auth(token));
                let status = request.send().await?.status().as_u16();
                ensure!([400, 404].contains(&status), "expected a rejection of the id, got {status}");
            }
            Ok(())
        });
    }
    connections.join_all().await.into_iter().collect::<anyhow::Result<()>>()?;
    Ok(Cpu::now(gateway)?.since(&before).watched[0].as_secs_f64() * 1e6)
}

/// Returns the delay of a new room by its limit in milliseconds: the median with Redis, and the 99th percentile while
/// Redis does not answer.
async fn acts(access: &Access, cluster: &Cluster, figures: &mut Figures) -> anyhow::Result<(f64, f64)> {
    let [limited, unlimited] = [1, 2].map(|n| Api::new(cluster.plan.url((Role::Gateway, n))));
    let mut delays = Vec::new();
    for run in 1..=access.runs {
        say(&format!("Run {run} of {}: {} rooms with a limit, and without…", access.runs, access.rooms));
        let (with, without) = alternate(access.rooms, &limited, &unlimited).await?;
        figures.add("new room without a limit, p50", "ms", without.percentile(50.0));
        figures.add("new room with a limit, p50", "ms", with.percentile(50.0));
        delays.push(with.percentile(50.0) - without.percentile(50.0));
    }
    let redis = cluster.daemon((Role::Redis, 1))?;
    ensure!(redis.signal(Signal::STOP), "Redis does not run");
    let stalled = alternate(access.rooms, &limited, &unlimited).await;
    redis.signal(Signal::CONT);
    let (with, without) = stalled?;
    let (with, without) = (with.percentile(99.0), without.percentile(99.0));
    figures.add("Redis stalled: new room without a limit, p99", "ms", without);
    figures.add("Redis stalled: new room with a limit, p99", "ms", with);
    Ok((median(&delays), with - without))
}

/// Creates rooms at two gateways in turn. Returns the times of each.
async fn alternate(count: usize, one: &Api, other: &Api) -> anyhow::Result<(Histogram, Histogram)> {
    // A user of each run: no user may have too many rooms.
    let (first, second) = (one.signup().await?, other.signup().await?);
    let (mut times, mut others) = (Histogram::default(), Histogram::default());
    for _ in 0..count {
        times.record(create(one, &first).await?);
        others.record(create(other, &second).await?);
    }
    Ok((times, others))
}

async fn create(api: &Api, owner: &Account) -> anyhow::Result<Duration> {
    let request = api.request(Method::POST, "/api/rooms").bearer_auth(&owner.token);
    let request = request.json(&json!({"name": unique("room")}));
    let begin = Instant::now();
    let response = request.send().await?;
    let took = begin.elapsed();
    ensure!(response.status() == 201, "a new room is rejected with {}", response.status());
    response.bytes().await?;
    Ok(took)
}
