//! `cluster up | down | status`: the cluster of `make cluster-up` in `.run`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::bail;
use clap::Parser;
use confab_tests::cluster::{Cluster, running};
use confab_tests::plan::{MAX_REPLICAS, Member, Plan, Role};

/// The directory of `make cluster-up` and `make cluster-down`.
const USUAL: &str = ".run";

/// A real cluster on this machine, without containers
#[derive(Parser)]
struct Arguments {
    #[arg(value_enum)]
    verb: Verb,
    /// Directory of all data and logs
    #[arg(long, default_value = USUAL)]
    directory: PathBuf,
    /// Number of gateways [default: the previous number, or 2]
    #[arg(long, env = "GATEWAYS", value_parser = clap::value_parser!(u16).range(1..=i64::from(MAX_REPLICAS)))]
    gateways: Option<u16>,
    /// Number of replicas of each service [default: the previous number, or 2]
    #[arg(long, env = "REPLICAS", value_parser = clap::value_parser!(u16).range(1..=i64::from(MAX_REPLICAS)))]
    replicas: Option<u16>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Verb {
    /// Start all processes that are not running, and wait until they are ready
    Up,
    /// Stop all processes; data and logs are kept
    Down,
    /// Print which processes run, and their addresses
    Status,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    std::fs::create_dir_all(&arguments.directory)?;
    let directory = arguments.directory.canonicalize()?;
    let had = running(&directory);
    let count = |role| had.iter().filter(|member| member.0 == role).map(|member| member.1).max();
    let gateways = arguments.gateways.or(count(Role::Gateway)).unwrap_or(2);
    let replicas = arguments.replicas.or(Role::SERVICES.into_iter().filter_map(count).max()).unwrap_or(2);
    let cluster = Cluster::new(Plan::fixed(&directory, gateways, replicas))?;
    match arguments.verb {
        Verb::Up => {
            up(&cluster, &directory).await?;
            // `make` supports only the default directory.
            let end = if arguments.directory == Path::new(USUAL) {
                "make cluster-down".to_string()
            } else {
                format!("{} down --directory {}", std::env::current_exe()?.display(), directory.display())
            };
            println!("End: {end}");
            Ok(())
        }
        Verb::Down => {
            cluster.down().await?;
            println!(
                "The cluster is down. Its data and logs are kept in {}; remove that directory to start with an empty cluster.",
                directory.display()
            );
            Ok(())
        }
        Verb::Status => {
            let down =
                cluster.plan.members().into_iter().filter(|member| list(&cluster, *member, "runs").is_none()).count();
            if down > 0 { bail!("{down} not running") } else { Ok(()) }
        }
    }
}

async fn up(cluster: &Cluster, directory: &Path) -> anyhow::Result<()> {
    let begin = Instant::now();
    let started = cluster.up().await?;
    for member in cluster.plan.members() {
        list(cluster, member, if started.contains(&member) { "started" } else { "was running" });
    }
    let lb = cluster.plan.url((Role::Lb, 1));
    println!("\nReady after {:.1} s: {lb}, over {} gateways.", begin.elapsed().as_secs_f32(), cluster.plan.gateways);
    println!("Logs: {0}/logs. Database: psql \"$(cat {0}/secrets/postgres-url)\".", directory.display());
    if !cluster.daemon((Role::Postgres, 1))?.work.starts_with(directory) {
        println!(
            "Postgres has no access to this checkout, so its data is in {}.",
            cluster.daemon((Role::Postgres, 1))?.work.display()
        );
    }
    Ok(())
}

/// Prints one line about a process; `None` when it does not run.
fn list(cluster: &Cluster, member: Member, note: &str) -> Option<()> {
    let daemon = cluster.daemon(member).ok()?;
    let pid = daemon.running();
    let state = match pid {
        None => "not running",
        Some(_) if !daemon.is_current() => "runs an older build; cluster-down and -up replace it",
        Some(_) => note,
    };
    let admin = if member.0.is_ours() { format!("admin {}", cluster.plan.admin_port(member)) } else { String::new() };
    let (name, pid_text) = (format!("{}-{}", member.0.name(), member.1), pid.map_or("-".into(), |pid| pid.to_string()));
    println!("{name:<12} 127.0.0.1:{:<6} {admin:<12} pid {pid_text:<8} {state}", cluster.plan.port(member));
    pid.map(drop)
}
