//! `chaos`: injects every fault that the system promises to survive into a whole cluster, and proves that it did.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use confab_tests::chaos::{self, Breakage, CASES, Options, Profile};
use confab_tests::programs;

/// Starts a cluster, has stock and raw clients chat, breaks everything once, and checks that nothing was lost, repeated or reordered
#[derive(Parser)]
struct Arguments {
    /// What all chance comes from [default: another one each time]
    #[arg(long)]
    seed: Option<u64>,
    /// How much is broken
    #[arg(long, value_enum, default_value_t = Profile::Short)]
    profile: Profile,
    /// How long the long profile goes on
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// Only this case, or these in this order; `--case list` names all
    #[arg(long = "case", value_name = "NAME")]
    cases: Vec<String>,
    /// Break a promise on purpose: the run succeeds when that is noticed
    #[arg(long, value_enum)]
    breakage: Option<Breakage>,
    /// Where the programs are that have fail points [default: failpoints beside this program]
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
    let named = |name: &String| chaos::named(name).with_context(|| format!("no case is called {name}; see --case list"));
    let cases = cases.iter().map(named).collect::<Result<Vec<_>, _>>()?;
    let seed = seed.unwrap_or_else(|| u64::from(std::process::id()) ^ uuid::Uuid::new_v4().as_u64_pair().0 & 0xffff_ffff);
    println!("seed {seed}");
    let programs = given.unwrap_or_else(|| programs().join("failpoints"));
    let (records, verdict) = chaos::run(Options { seed, profile, minutes, cases, breakage, programs }).await?;
    chaos::print(seed, &records, &verdict);
    let good = match breakage {
        None => verdict.violations.is_empty(),
        Some(breakage) => breakage.is_noticed(&verdict),
    };
    match (good, breakage) {
        (true, None) => println!("\nThe promise was kept."),
        (true, Some(breakage)) => println!("\nThe judge noticed {breakage:?}."),
        (false, None) => println!("\nThe promise was NOT kept; --seed {seed} tries the same again."),
        (false, Some(breakage)) => println!("\nThe judge did NOT notice {breakage:?}."),
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
