//! Hints announce committed events to the gateways that follow a partition. Hints may be lost; gateways then read the
//! events from the log.

use confab_common::bus::Bus;
use confab_common::telemetry::trace::{Kind, Span};
use confab_proto::channel;
use confab_proto::message::v1::{self as pb, Hint};
use prost::Message;

use crate::batch::Answer;
use crate::convert;
use crate::metrics::METRICS;
use crate::store::{Event, Outcome};

/// Maximum bytes of events in one hint, far below the bus's limit.
const HINT_BYTES: usize = 256 * 1024;

/// Publishes hints without waiting for the bus.
#[derive(Clone)]
pub struct Hints(Bus);

impl Hints {
    pub fn new(bus: Bus) -> Self {
        Self(bus)
    }

    /// Publishes the events of one batch: one hint per partition with dense positions, or several if one would be too
    /// large. Each answer comes with the span that publishes it, if any. Repeats are published again, because the
    /// replica that appended them first may have died before it published them.
    pub fn publish<'a>(&self, answers: impl Iterator<Item = (&'a Answer, Option<&'a Span>)> + Clone) {
        let mut events: Vec<_> = answers
            .clone()
            .filter_map(|(answer, span)| match answer {
                Ok((epoch, Outcome::Appended(event) | Outcome::Repeated(event))) => Some((*epoch, event, span)),
                Ok((epoch, Outcome::Reacted(event, _))) if event.position > 0 => Some((*epoch, event, span)),
                _ => None,
            })
            .collect();
        let appended = answers.filter(|(answer, _)| matches!(answer, Ok((_, Outcome::Appended(_))))).count();
        METRICS.appended.increment(appended as u64);
        events.sort_by_key(|(_, event, _)| (event.data.partition, event.position));
        // Repeats within the batch, and reactions with the same event.
        events.dedup_by_key(|(_, event, _)| (event.data.partition, event.position));
        let mut bytes = 0;
        let runs = events.chunk_by(|(epoch, event, _), (next_epoch, next, _)| {
            bytes += event.size();
            let goes_on = epoch == next_epoch && follows(event, next) && bytes + next.size() <= HINT_BYTES;
            if !goes_on {
                bytes = 0;
            }
            goes_on
        });
        for run in runs {
            let (epoch, first, _) = run[0];
            let hint = Hint {
                epoch: epoch.to_string(),
                partition: first.data.partition,
                first_position: first.position,
                events: run.iter().map(|(_, event, span)| published(event, *span)).collect(),
            };
            self.0.publish(channel::log(first.data.partition), hint.encode_to_vec());
        }
    }
}

/// Converts an event for a hint, with the span that its receivers continue.
fn published(event: &Event, span: Option<&Span>) -> pb::Event {
    let Some(span) = span else { return convert::event(event) };
    let publish = span.child(Kind::Producer, "publish");
    publish.set("confab.partition", || i64::from(event.data.partition));
    publish.set("confab.position", || event.position as i64);
    pb::Event { traceparent: publish.traceparent(), ..convert::event(event) }
}

fn follows(event: &Event, next: &Event) -> bool {
    event.data.partition == next.data.partition && event.position + 1 == next.position
}
