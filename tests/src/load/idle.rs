//! `load idle`: the cost of connecting a socket, and of keeping it.

use std::net::Ipv4Addr;
use std::thread;
use std::time::Duration;

use super::figures::Figures;
use super::options::{Bench, Options, say};
use super::process::Memory;

/// A source address has 28,000 ports, and the ports of closed connections are unusable for a minute.
const SOCKETS_PER_SOURCE: usize = 5000;
/// How long the server is idle before and after its memory is read.
const IDLE_TIME: Duration = Duration::from_secs(3);

/// The number of sockets
#[derive(Debug, clap::Args)]
pub struct Idle {
    /// Number of sockets, connected and in no room
    #[arg(long, default_value_t = 10_000)]
    sockets: usize,
    #[command(flatten)]
    options: Options,
}

/// Runs the scenario.
///
/// # Errors
/// When the server does not answer, or closes a socket.
pub async fn run(idle: Idle) -> anyhow::Result<()> {
    let Idle { sockets, options } = idle;
    let bench = options.begin().await?;
    thread::sleep(IDLE_TIME);
    // The allocator keeps memory after the first run, which would flatter later runs, so all runs are compared with
    // this value.
    let before = memory(&bench)?;
    let (mut figures, mut faults) = (Figures::default(), Vec::new());
    let local = options.url.iter().all(|url| url.starts_with("http://127."));
    for run in 1..=options.runs {
        let member = |number: usize| {
            let mut member = bench.member(number);
            member.source = local
                .then(|| source(run as usize * sockets.div_ceil(SOCKETS_PER_SOURCE) + number / SOCKETS_PER_SOURCE));
            member
        };
        let (crew, took) = bench.open((0..sockets).map(member).collect())?;
        let opening = crew.take();
        figures.add("connects", "/s", sockets as f64 / took.as_secs_f64());
        figures.add("connect p50", "ms", opening.ready_time.percentile(50.0));
        figures.add("connect p99", "ms", opening.ready_time.percentile(99.0));
        thread::sleep(IDLE_TIME);
        for ((process, before), now) in bench.watched().iter().zip(&before).zip(memory(&bench)?) {
            let each = |now: u64, before: u64| (now as f64 - before as f64) / sockets as f64 / 1024.0;
            figures.add(format!("{} memory", process.name), "KiB/so", each(now.rss, before.rss));
        }
        let window = bench.measure(&crew, run)?;
        bench.add_cpu(&mut figures, &window, "µs/s·so", (sockets as f64 * window.seconds) as u64);
        figures.add("closed by the server", "", window.counts.closed as f64);
        faults.extend(window.counts.faults());
        faults.extend(crew.finish()?.faults());
        say("All sockets closed.");
        thread::sleep(IDLE_TIME);
    }
    options.finish(&format!("idle: {sockets} sockets"), &figures, &faults)
}

fn memory(bench: &Bench<'_>) -> anyhow::Result<Vec<Memory>> {
    bench.watched().iter().map(Memory::of).collect()
}

/// Returns the `number`th loopback address, from 127.0.1.1 on.
fn source(number: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 1 + (number / 250 % 250) as u8, 1 + (number % 250) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_distinct_loopback_addresses() {
        let sources = (0..1000).map(source).collect::<std::collections::HashSet<_>>();
        assert_eq!(sources.len(), 1000);
        assert!(sources.iter().all(|source| source.is_loopback() && *source != Ipv4Addr::LOCALHOST));
    }
}
