//! `chaos`: injects every fault that the system must survive into a whole cluster, and checks the promises of delivery
//! and of the rights of users.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use confab_tests::chaos::{self, Breakage, CASES, Options, Profile};
use confab_tests::programs;

/// Starts a cluster, lets stock and raw clients chat, changes members, rooms and sessions, injects each fault once, and
/// checks that no message was lost, duplicated or reordered, or delivered to a user without the right
#[derive(Parser)]
struct Arguments {
    /// Seed of all random choices [default: a new one for each run]
    #[arg(long)]
    seed: Option<u64>,
    /// Which faults to inject, and how long
    #[arg(long, value_enum, default_value_t = Profile::Short)]
    profile: Profile,
    /// Duration of the long profile, in minutes
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// Inject only this case, or these in this order; `--case list` prints all names
    #[arg(long = "case", value_name = "NAME")]
    cases: Vec<String>,
    /// Break a promise on purpose: the run succeeds when the checker detects it
    #[arg(long, value_enum)]
    breakage: Option<Breakage>,
    /// Directory of the programs with failpoints [default: failpoints beside this program]
    #[arg(long, value_name = "DIRECTORY")]
    programs: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let Arguments { seed, profile, minutes, cases, breakage, programs: given } = Arguments::parse();
    if cases.iter().any(|name| name == "list") {
        CASES.iter().for_each(|case| println!("{}", case.name));
        return Ok(ExitCode::SUCCESS);
    }
    let named = |name: &String| chaos::named(name).with_context(|| format!("there is no case {name}; see --case list"));
    let cases = cases.iter().map(named).collect::<Result<Vec<_>, _>>()?;
    let seed =
        seed.unwrap_or_else(|| u64::from(std::process::id()) ^ uuid::Uuid::new_v4().as_u64_pair().0 & 0xffff_ffff);
    println!("seed {seed}");
    let programs = given.unwrap_or_else(|| programs().join("failpoints"));
    let (records, verdict) = chaos::run(Options { seed, profile, minutes, cases, breakage, programs }).await?;
    chaos::print(seed, &records, &verdict);
    let good = match breakage {
        None => verdict.violations.is_empty(),
        Some(breakage) => breakage.is_noticed(&verdict),
    };
    match (good, breakage) {
        (true, None) => println!("\nThe promises were kept."),
        (true, Some(breakage)) => println!("\nThe judge noticed {breakage:?}."),
        (false, None) => println!("\nA promise was NOT kept; --seed {seed} repeats this run."),
        (false, Some(breakage)) => println!("\nThe checker did NOT detect {breakage:?}."),
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
