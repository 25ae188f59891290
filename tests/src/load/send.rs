//! `load send`: messages at the rate at which they become durable.

use super::figures::Figures;
use super::options::Options;

/// The numbers of senders and rooms
#[derive(Debug, clap::Args)]
pub struct Send {
    /// Number of senders, spread over the rooms
    #[arg(long, default_value_t = 100)]
    senders: usize,
    /// Number of rooms
    #[arg(long, default_value_t = 100)]
    rooms: usize,
    /// Messages in flight of each sender
    #[arg(long, default_value_t = 1)]
    in_flight: usize,
    /// Senders join their room, and so also receive its messages
    #[arg(long)]
    join: bool,
    #[command(flatten)]
    options: Options,
}

/// Runs the scenario.
///
/// # Errors
/// When the server does not answer, or rejects a message.
pub async fn run(send: Send) -> anyhow::Result<()> {
    let Send { senders, rooms, in_flight, join, options } = send;
    let bench = options.begin().await?;
    let ids = bench.rooms(rooms).await?;
    let member = |number| {
        let mut member = bench.member(number);
        (member.room, member.joins, member.in_flight) = (Some(ids[number % ids.len()].clone()), join, in_flight);
        member
    };
    let (crew, _) = bench.open((0..senders).map(member).collect())?;
    crew.speak();
    bench.warm_up();
    let (mut figures, mut faults) = (Figures::default(), Vec::new());
    for run in 1..=options.runs {
        let window = bench.measure(&crew, run)?;
        let counts = &window.counts;
        figures.add("messages acknowledged", "/s", counts.acks as f64 / window.seconds);
        figures.add("ack p50", "ms", counts.ack_time.percentile(50.0));
        figures.add("ack p99", "ms", counts.ack_time.percentile(99.0));
        bench.add_cpu(&mut figures, &window, "µs/msg", counts.acks);
        figures.add("refused or closed", "", (counts.refusals + counts.closed) as f64);
        faults.extend(counts.faults());
    }
    faults.extend(crew.finish()?.faults());
    let joined = if join { ", which join their room" } else { "" };
    options.finish(
        &format!("send: {senders} senders in {rooms} rooms, {in_flight} in flight each{joined}"),
        &figures,
        &faults,
    )
}
