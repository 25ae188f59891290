//! Options of all scenarios that use a running server.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use serde_json::json;

use super::crowd::Target;
use super::figures::Figures;
use super::process::{Cpu, Watched};
use super::worker::{Counts, Crew, Member};
use crate::api::{Account, Api};

/// The target, the processes to watch, and the duration
#[derive(Debug, clap::Args)]
pub struct Options {
    /// URL of a server or load balancer; if given several times, sockets are spread over them
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    pub url: Vec<String>,
    /// A process whose resource use is measured, including its children; may be given several times
    #[arg(long, value_name = "NAME=PID", value_parser = Watched::parse)]
    pub pid: Vec<Watched>,
    /// A directory of NAME.pid files, such as .run/pids
    #[arg(long, value_name = "DIR")]
    pub pids_dir: Option<PathBuf>,
    /// Duration of each run in seconds
    #[arg(long, default_value_t = 10)]
    pub seconds: u64,
    /// Number of runs; the median is shown
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub runs: u32,
    /// Seconds of load before the first run
    #[arg(long, default_value_t = 2)]
    pub warm_up: u64,
    /// Threads of the load generator
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    pub threads: u16,
    /// Accounts that the sockets share (signup is slow by design)
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..))]
    pub users: u16,
    /// Maximum sockets that connect at the same time
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    pub connecting: u16,
    /// Print results as one line of JSON
    #[arg(long)]
    pub json: bool,
}

/// A scenario in progress.
pub struct Bench<'a> {
    options: &'a Options,
    targets: Vec<Target>,
    watched: Vec<Watched>,
    api: Api,
    accounts: Vec<Account>,
}

/// The measurements of a run.
pub struct Window {
    /// The duration in seconds.
    pub seconds: f64,
    /// Counts of the sockets.
    pub counts: Counts,
    /// Processor time of the processes.
    pub cpu: Cpu,
}

/// Prints progress for the user.
pub fn say(text: &str) {
    eprintln!("{text}");
}

impl Options {
    /// Finds the processes and signs up the accounts.
    ///
    /// # Errors
    /// When the server does not answer or a process does not run.
    pub async fn begin(&self) -> anyhow::Result<Bench<'_>> {
        rlimit::increase_nofile_limit(u64::MAX).context("cannot raise the limit of open files")?;
        let targets = self.url.iter().map(|url| Target::new(url)).collect::<anyhow::Result<Vec<_>>>()?;
        let mut watched = self.pid.clone();
        if let Some(directory) = &self.pids_dir {
            watched.extend(Watched::directory(directory)?);
        }
        Cpu::now(&watched)?;
        if watched.is_empty() {
            say("No --pid and no --pids-dir: the server's resource use is not measured.");
        }
        let api = Api::new(self.url[0].trim_end_matches('/'));
        let mut accounts = Vec::new();
        for _ in 0..self.users {
            accounts.push(api.signup().await.with_context(|| format!("cannot sign up at {}", api.url))?);
        }
        Ok(Bench { options: self, targets, watched, api, accounts })
    }

    /// Prints the results.
    ///
    /// # Errors
    /// When there are faults.
    pub fn finish(&self, title: &str, figures: &Figures, faults: &[String]) -> anyhow::Result<()> {
        show(self.json, title, figures);
        anyhow::ensure!(faults.is_empty(), "{}", faults.join("; "));
        Ok(())
    }
}

/// Prints results, as a table or as JSON.
pub fn show(as_json: bool, title: &str, figures: &Figures) {
    if as_json {
        println!("{}", json!({"scenario": title, "figures": figures.json()}))
    } else {
        println!("{title}\n{}", figures.table())
    }
}

impl Bench<'_> {
    pub fn watched(&self) -> &[Watched] {
        &self.watched
    }

    /// Creates rooms.
    ///
    /// # Errors
    /// When a room is rejected.
    pub async fn rooms(&self, count: usize) -> anyhow::Result<Vec<Arc<str>>> {
        let mut rooms = Vec::with_capacity(count);
        for number in 0..count {
            rooms.push(self.api.room(&self.accounts[number % self.accounts.len()]).await?.into());
        }
        Ok(rooms)
    }

    /// Returns the `number`th socket: its server and its account.
    pub fn member(&self, number: usize) -> Member {
        Member {
            target: self.targets[number % self.targets.len()].clone(),
            source: None,
            // The divisor makes this independent of the target, so that every account is used at every server.
            token: self.accounts[number / self.targets.len() % self.accounts.len()].token.as_str().into(),
            room: None,
            joins: false,
            in_flight: 0,
        }
    }

    /// Connects sockets and waits until all are ready. Returns the duration.
    ///
    /// # Errors
    /// When a socket is rejected.
    pub fn open(&self, members: Vec<Member>) -> anyhow::Result<(Crew, Duration)> {
        let (options, count) = (self.options, members.len());
        let crew = Crew::open(members, options.threads.into(), options.connecting.into())?;
        let took = crew.ready(count)?;
        say(&format!("{count} sockets ready after {:.2} s.", took.as_secs_f64()));
        Ok((crew, took))
    }

    /// Waits until the load is steady.
    pub fn warm_up(&self) {
        std::thread::sleep(Duration::from_secs(self.options.warm_up));
    }

    /// Measures one run.
    ///
    /// # Errors
    /// When a watched process or a socket has ended.
    pub fn measure(&self, crew: &Crew, run: u32) -> anyhow::Result<Window> {
        say(&format!("Run {run} of {}: {} s…", self.options.runs, self.options.seconds));
        let before = Cpu::now(&self.watched)?;
        let begin = std::time::Instant::now();
        crew.take();
        std::thread::sleep(Duration::from_secs(self.options.seconds));
        let counts = crew.take();
        let seconds = begin.elapsed().as_secs_f64();
        let cpu = Cpu::now(&self.watched)?.since(&before);
        Ok(Window { seconds, counts, cpu })
    }

    /// Adds the processor time of processes, in microseconds per unit of `count`.
    pub fn add_cpu(&self, figures: &mut Figures, window: &Window, unit: &'static str, count: u64) {
        let each = |used: Duration| used.as_secs_f64() * 1e6 / count.max(1) as f64;
        let role = |process: &Watched| process.name.split('-').next().unwrap_or_default().to_string();
        let mut roles = indexed(self.watched.iter().map(role));
        roles.retain(|role, count| *count > 1 && !role.is_empty());
        for (process, used) in self.watched.iter().zip(&window.cpu.watched) {
            figures.add(format!("{} cpu", process.name), unit, each(*used));
        }
        for name in roles.keys() {
            let of_role = self.watched.iter().zip(&window.cpu.watched).filter(|(process, _)| role(process) == *name);
            figures.add(format!("every {name} cpu"), unit, each(of_role.map(|(_, used)| *used).sum()));
        }
        let share = |used: Duration| used.as_secs_f64() / window.seconds * 100.0;
        let known = window.cpu.watched.iter().sum::<Duration>() + window.cpu.own;
        figures.add("watched, all cpu", "%core", share(window.cpu.watched.iter().sum()));
        figures.add("load generator cpu", "%core", share(window.cpu.own));
        figures.add("other programs cpu", "%core", share(window.cpu.machine.saturating_sub(known)));
        figures.add("stolen by the host", "%core", share(window.cpu.stolen));
    }
}

fn indexed(names: impl Iterator<Item = String>) -> std::collections::BTreeMap<String, usize> {
    names.fold(Default::default(), |mut counts, name| {
        *counts.entry(name).or_default() += 1;
        counts
    })
}
