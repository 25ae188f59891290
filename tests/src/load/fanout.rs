//! `load fanout`: every message goes to many sockets of a room.

use super::figures::Figures;
use super::options::{Bench, Options, Window};
use super::worker::Counts;

/// The numbers of rooms, sockets and messages
#[derive(Debug, clap::Args)]
pub struct Fanout {
    /// Number of rooms
    #[arg(long, default_value_t = 10)]
    rooms: usize,
    /// Sockets in each room, one of which sends
    #[arg(long, default_value_t = 100)]
    sockets: usize,
    /// Messages in flight in each room
    #[arg(long, default_value_t = 2)]
    in_flight: usize,
    #[command(flatten)]
    options: Options,
}

/// Runs the scenario.
///
/// # Errors
/// When the server does not answer, or loses, duplicates, reorders or rejects a message.
pub async fn run(fanout: Fanout) -> anyhow::Result<()> {
    let Fanout { rooms, sockets, in_flight, options } = fanout;
    let bench = options.begin().await?;
    let mut members = Vec::with_capacity(rooms * sockets);
    for room in bench.rooms(rooms).await? {
        for number in 0..sockets {
            let mut member = bench.member(members.len());
            (member.room, member.joins) = (Some(room.clone()), true);
            member.in_flight = if number == 0 { in_flight } else { 0 };
            members.push(member);
        }
    }
    let (crew, _) = bench.open(members)?;
    crew.speak();
    bench.warm_up();
    let (mut figures, mut faults) = (Figures::default(), Vec::new());
    for run in 1..=options.runs {
        let window = bench.measure(&crew, run)?;
        add(&bench, &mut figures, &window);
        faults.extend(window.counts.faults());
    }
    faults.extend(crew.finish()?.faults());
    options.finish(
        &format!("fan-out: {rooms} rooms of {sockets} sockets, {in_flight} in flight each"),
        &figures,
        &faults,
    )
}

fn add(bench: &Bench<'_>, figures: &mut Figures, window: &Window) {
    let Counts { deliveries, acks, delivery_time, ack_time, violations, refusals, closed, .. } = &window.counts;
    figures.add("deliveries", "/s", *deliveries as f64 / window.seconds);
    figures.add("messages acknowledged", "/s", *acks as f64 / window.seconds);
    for (name, times) in [("delivery", delivery_time), ("ack", ack_time)] {
        figures.add(format!("{name} p50"), "ms", times.percentile(50.0));
        figures.add(format!("{name} p99"), "ms", times.percentile(99.0));
    }
    bench.add_cpu(figures, window, "µs/del", *deliveries);
    figures.add("out of order, lost, doubled", "", *violations as f64);
    figures.add("refused or closed", "", (refusals + closed) as f64);
}
