//! `load acts`: what users do beside sending: reactions, read markers, unread counts and searches, on a scratch cluster
//! of two gateways whose database does not wait for the disk.

mod marks;
mod reactions;
mod search;
mod unread;

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::ValueEnum;
use serde_json::json;
use tokio::task::JoinSet;

use super::figures::Figures;
use super::histogram::Histogram;
use super::options::{say, show};
use crate::api::{Account, Api};
use crate::cluster::Cluster;
use crate::exposition::Exposition;
use crate::issuer::{Issuer, Key};
use crate::plan::{Member, Role};

/// Requests that are in progress at the same time.
const LANES: usize = 32;

/// Numbers of users, rooms and messages
#[derive(Debug, clap::Args)]
pub struct Acts {
    /// The figures to measure; all if none is named
    names: Vec<Name>,
    /// Users who react to one message
    #[arg(long, default_value_t = 5_000)]
    reactors: usize,
    /// Unread messages in each of 200 rooms
    #[arg(long, default_value_t = 10_000)]
    unread: usize,
    /// Users who mark messages of one room as read
    #[arg(long, default_value_t = 1_000)]
    readers: usize,
    /// Messages that are searched
    #[arg(long, default_value_t = 1_000_000)]
    messages: usize,
    /// Print results as one line of JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Name {
    /// Many users react to one message within two seconds
    Reactions,
    /// One request for the unread messages of 200 rooms
    Unread,
    /// Many users mark messages of one room as read
    Marks,
    /// Searches by members of 3 and of 300 rooms
    Search,
}

/// The cluster, and users of an app who can sign in without a password.
struct Stage {
    cluster: Cluster,
    issuer: Issuer,
}

/// Runs the figures.
///
/// # Errors
/// When a request fails, or a figure misses its mark.
pub async fn run(acts: Acts) -> anyhow::Result<()> {
    let issuer = Issuer::start("https://id.example.com/", Key::new("k")?)?;
    let issuers = json!([issuer.entry()]).to_string();
    let stage = Stage { cluster: Cluster::scratch(2, 1, &[("CONFAB_ISSUERS", &issuers)]).await?, issuer };
    let (mut figures, mut missed) = (Figures::default(), Vec::new());
    for name in Name::value_variants().iter().filter(|name| acts.names.is_empty() || acts.names.contains(name)) {
        say(&format!("{name:?}…"));
        let marks = match name {
            Name::Reactions => reactions::run(&stage, acts.reactors, &mut figures).await?,
            Name::Unread => unread::run(&stage, acts.unread, &mut figures).await?,
            Name::Marks => marks::run(&stage, acts.readers, &mut figures).await?,
            Name::Search => search::run(&stage, acts.messages, &mut figures).await?,
        };
        missed.extend(marks.into_iter().filter_map(Mark::missed));
    }
    show(acts.json, "acts: reactions, markers, unread counts and searches", &figures);
    ensure!(missed.is_empty(), "{}", missed.join("; "));
    Ok(())
}

/// A figure with the most that it may be.
struct Mark {
    name: &'static str,
    value: f64,
    most: f64,
}

impl Mark {
    fn missed(self) -> Option<String> {
        let Self { name, value, most } = self;
        (value > most).then(|| format!("{name}: {value:.2}, more than {most}"))
    }
}

impl Stage {
    fn api(&self, gateway: u16) -> Arc<Api> {
        Arc::new(Api::new(self.cluster.plan.url((Role::Gateway, gateway))))
    }

    /// Returns users of the app that are known to the cluster.
    async fn users(&self, count: usize, prefix: &str) -> anyhow::Result<Vec<Account>> {
        say(&format!("  {count} users sign in…"));
        let api = self.api(1);
        let users =
            (0..count).map(|n| self.issuer.account(&format!("{prefix}-{n}"), &format!("{prefix} {n}"), &json!({})));
        let users = users.collect::<Vec<_>>();
        let known = move |user: Account| {
            let api = api.clone();
            async move { api.get("/api/auth/me", &user).await?.expect(200) }
        };
        each(users.clone(), known).await?;
        Ok(users)
    }

    /// Returns the value of a metric of one program.
    async fn metric(&self, member: Member, series: &str) -> anyhow::Result<f64> {
        let seen = Exposition::scrape(self.cluster.plan.admin_port(member)).await?;
        Ok(seen.value(series).unwrap_or_default())
    }
}

/// Performs an act for each item, some at the same time, and returns their durations.
async fn each<T, F, V>(items: Vec<T>, act: impl Fn(T) -> F + Clone + Send + 'static) -> anyhow::Result<Histogram>
where
    T: Send + 'static,
    F: Future<Output = anyhow::Result<V>> + Send,
{
    let mut lanes = JoinSet::new();
    let mut shares = (0..LANES).map(|_| Vec::new()).collect::<Vec<_>>();
    for (n, item) in items.into_iter().enumerate() {
        shares[n % LANES].push(item);
    }
    for share in shares {
        let act = act.clone();
        lanes.spawn(async move {
            let mut times = Histogram::default();
            for item in share {
                let begun = Instant::now();
                act(item).await?;
                times.record(begun.elapsed());
            }
            anyhow::Ok(times)
        });
    }
    let mut all = Histogram::default();
    while let Some(times) = lanes.join_next().await {
        all.merge(&times.context("an act panicked")??);
    }
    Ok(all)
}

/// Sends a message with this text.
async fn send(api: &Api, who: &Account, room: &str, text: String) -> anyhow::Result<u64> {
    let sent = api.post("/api/messages", who, json!({"roomId": room, "content": text})).await?.expect(201)?;
    sent["seq"].as_u64().context("a seq")
}

/// Measures how long a message takes, at this many messages a second, until `until`.
async fn pace(api: Arc<Api>, who: Account, room: String, until: impl Future<Output = ()>) -> anyhow::Result<Histogram> {
    let mut times = Histogram::default();
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    tokio::pin!(until);
    loop {
        tokio::select! {
            () = &mut until => return Ok(times),
            _ = ticks.tick() => {
                let begun = Instant::now();
                send(&api, &who, &room, "a message beside the storm".into()).await?;
                times.record(begun.elapsed());
            }
        }
    }
}
