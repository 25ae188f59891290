//! `load attack`: hostile clients beside honest ones, against a real server with the memory of its default container.

mod honest;
mod hostile;
mod line;
pub(crate) mod net;
mod run;
mod scenarios;
mod stage;
mod tally;
mod target;
pub(crate) mod usage;

use anyhow::{Context, ensure};

use self::scenarios::{SCENARIOS, Scenario};
use super::options::{say, show};

/// Which attacks, and how long
#[derive(Debug, clap::Args)]
#[command(after_help = scenarios::help())]
pub struct Attack {
    /// Attacks to run, one after another; all attacks if none is named
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// How long the honest clients are measured alone, in seconds
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    base: u64,
    /// Duration of the attack in seconds [default: 20, for some attacks longer]
    #[arg(long)]
    seconds: Option<u64>,
    /// How long after the attack the process's resource use is measured, in seconds
    #[arg(long, default_value_t = 60)]
    after: u64,
    /// All clients connect from one address, as behind a load balancer
    #[arg(long)]
    one_address: bool,
    /// Print results as lines of JSON
    #[arg(long)]
    json: bool,
}

/// Runs the attacks.
///
/// # Errors
/// When a target is missed, or the server does not start.
pub async fn run(attack: Attack) -> anyhow::Result<()> {
    rlimit::increase_nofile_limit(u64::MAX).context("cannot raise the limit of open files")?;
    let named = |name: &String| {
        SCENARIOS.iter().find(|scenario| scenario.name == name).with_context(|| format!("there is no attack {name}"))
    };
    let chosen = match attack.names.as_slice() {
        [] => SCENARIOS.iter().collect(),
        names => names.iter().map(named).collect::<anyhow::Result<Vec<_>>>()?,
    };
    let mut missed = Vec::new();
    for scenario in chosen {
        missed.extend(one(&attack, scenario).await.with_context(|| format!("attack {}", scenario.name))?);
    }
    ensure!(missed.is_empty(), "missed: {}", missed.join("; "));
    Ok(())
}

/// Runs one attack. Returns the targets that the server missed.
async fn one(attack: &Attack, scenario: &'static Scenario) -> anyhow::Result<Vec<String>> {
    say(&format!("\nattack {}: {}", scenario.name, scenario.about));
    let times =
        run::Times { base: attack.base, attack: attack.seconds.unwrap_or(scenario.seconds), after: attack.after };
    let outcome = run::run(scenario, &times, attack.one_address).await?;
    show(attack.json, &format!("attack {}", scenario.name), &outcome.figures());
    let judged = scenario.targets.iter().copied().flatten().map(|target| target.judge(&outcome)).collect::<Vec<_>>();
    let missed =
        judged.iter().filter(|judged| !judged.is_met).map(|judged| format!("{}: {}", scenario.name, judged.text));
    let missed = missed.collect();
    if !attack.json {
        outcome.failures().iter().for_each(|failure| println!("  {failure}"));
        for judged in &judged {
            println!("  {}  {}", if judged.is_met { "met   " } else { "MISSED" }, judged.text);
        }
    }
    Ok(missed)
}
