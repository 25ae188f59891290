//! The rows of one caller.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use confab_common::Error;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Pending;
use crate::batch::Answer;
use crate::metrics::METRICS;

/// The rows that one caller sends to one lane at once. The rows of one partition are never split between two appends,
/// so that a failure cannot reorder them.
pub struct Group {
    /// Each row with its index in the caller's request.
    rows: Vec<(usize, Pending)>,
    pub bytes: usize,
    pub arrived: Instant,
    answers: mpsc::UnboundedSender<Vec<(usize, Answer)>>,
}

impl Group {
    pub fn new(rows: Vec<(usize, Pending)>, answers: mpsc::UnboundedSender<Vec<(usize, Answer)>>) -> Self {
        let bytes = rows.iter().map(|(_, row)| row.data.size()).sum();
        Self { rows, bytes, arrived: Instant::now(), answers }
    }

    pub fn rows(&self) -> impl Iterator<Item = &Pending> {
        self.rows.iter().map(|(_, row)| row)
    }

    pub fn waited(&self, now: Instant) -> Duration {
        now - self.arrived
    }

    /// Returns whether the caller was dropped.
    pub fn is_orphan(&self) -> bool {
        self.answers.is_closed()
    }

    /// Answers the rows in their order. Returns the rows without an answer.
    pub fn answer(mut self, mut answer: impl FnMut(&Pending) -> Option<Answer>) -> Option<Self> {
        let mut answered = Vec::with_capacity(self.rows.len());
        self.rows.retain(|(index, row)| match answer(row) {
            Some(answer) => {
                answered.push((*index, answer));
                self.bytes -= row.data.size();
                false
            }
            None => true,
        });
        if !answered.is_empty() {
            let _ = self.answers.send(answered);
        }
        (!self.rows.is_empty()).then_some(self)
    }

    pub fn refuse(self, reason: &'static str) {
        METRICS.refused.hit(reason);
        self.answer(|_| Some(Err(Error::unavailable("the log"))));
    }

    /// Splits the group: the rows of each partition that is aside separately, all other rows together.
    pub fn divide(self, aside: &BTreeMap<u32, VecDeque<Self>>) -> Vec<(Option<u32>, Self)> {
        let mut parts = BTreeMap::<_, Vec<_>>::new();
        for (index, row) in self.rows {
            let partition = row.data.partition;
            parts.entry(aside.contains_key(&partition).then_some(partition)).or_default().push((index, row));
        }
        let (arrived, answers) = (self.arrived, self.answers);
        parts.into_iter().map(|(aside, rows)| (aside, Self { arrived, ..Self::new(rows, answers.clone()) })).collect()
    }
}
