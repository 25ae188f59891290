//! The bucket of one key under one rule.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::gcra::{Charge, Outcome};
use super::link::{Link, PREFIX};
use super::local::{Cell, Id, Table};
use super::rule::{Decision, Rule};

/// Where buckets are.
pub struct Backend {
    pub table: Table,
    /// `None` if this process is the only replica.
    pub link: Option<Link>,
}

/// The bucket of one key under one rule. Cheap to create and to clone; it can be kept for any time.
#[derive(Clone)]
pub struct Bucket {
    backend: Arc<Backend>,
    rule: Rule,
    id: Id,
}

impl Bucket {
    pub(super) fn new(backend: Arc<Backend>, rule: Rule, id: Id) -> Self {
        Self { backend, rule, id }
    }

    pub fn rule(&self) -> &Rule {
        &self.rule
    }

    /// Charges an act, exactly over all replicas. For rare acts, because it waits for Redis.
    pub async fn check(&self, units: u32) -> Decision {
        let cost = self.rule.cost(units);
        let (cell, charge) = (self.cell(), self.rule.exact(cost));
        let outcome = match self.limited(&cell, cost) {
            Some(limited) => limited,
            None => match self.shared(&cell, charge).await {
                Some(outcome) => outcome,
                None => cell.charge(self.backend.table.now(), charge),
            },
        };
        Decision::of(&self.rule, cost, outcome)
    }

    /// Charges an act without waiting. For frequent acts; see the documentation of the module.
    ///
    /// # Panics
    /// Outside of a Tokio runtime, if there are other replicas.
    pub fn take(&self, units: u32) -> Decision {
        let cost = self.rule.cost(units);
        let cell = self.cell();
        let outcome = cell.charge(self.backend.table.now(), self.rule.careful(cost));
        if outcome.admitted {
            self.report(cell, cost);
        }
        Decision::of(&self.rule, cost, outcome)
    }

    /// Whether one unit is left, without charging it. For acts of which [`Bucket::penalize`] charges only the failures.
    pub async fn peek(&self) -> Decision {
        let unit = self.rule.cost(1);
        let cell = self.cell();
        if self.limited(&cell, unit).is_none() {
            self.shared(&cell, self.rule.forced(0)).await;
        }
        self.level(&cell)
    }

    /// Charges a failure, at most up to an empty bucket: acts that began together must not delay later ones for longer
    /// than one act does. Returns the decision about the next act.
    pub async fn penalize(&self, units: u32) -> Decision {
        let charge = self.rule.exact(self.rule.cost(units));
        let cell = self.cell();
        cell.charge(self.backend.table.now(), charge);
        self.shared(&cell, charge).await;
        self.level(&cell)
    }

    /// Refills the bucket, as after a success. Another replica that has just rejected an act of this key goes on until
    /// the time that it has returned.
    pub async fn forget(&self) {
        let cell = self.cell();
        self.shared(&cell, self.rule.forced(-self.rule.debt())).await;
        cell.refill();
    }

    fn cell(&self) -> Arc<Cell> {
        self.backend.table.cell(&self.id, self.rule.refill())
    }

    /// The rejection that is certain without a request to Redis: other replicas can only have charged more.
    fn limited(&self, cell: &Cell, cost: i64) -> Option<Outcome> {
        let ahead = cell.ahead(self.backend.table.now());
        (ahead.saturating_add(cost) > self.rule.size()).then_some(Outcome { admitted: false, ahead })
    }

    /// Charges in Redis and adopts its level.
    async fn shared(&self, cell: &Cell, charge: Charge) -> Option<Outcome> {
        let link = self.backend.link.as_ref()?;
        // Read before the question: the adopted level may then be lower than that in Redis, but never higher.
        let now = self.backend.table.now();
        let outcome = link.charge(&self.key(), charge).await?;
        cell.adopt(now.saturating_add(outcome.ahead));
        Some(outcome)
    }

    /// The decision about an act of one unit, from this process's copy.
    fn level(&self, cell: &Cell) -> Decision {
        let unit = self.rule.cost(1);
        let ahead = cell.ahead(self.backend.table.now());
        let admitted = ahead.saturating_add(unit) <= self.rule.size();
        Decision::of(&self.rule, unit, Outcome { admitted, ahead })
    }

    fn report(&self, cell: Arc<Cell>, cost: i64) {
        let Some(link) = &self.backend.link else { return };
        if !link.is_open() {
            // What happened while Redis was away is not reported later.
            cell.take_unreported();
        } else if cell.add_unreported(cost, self.rule.report_from()) {
            tokio::spawn(self.clone().report_all(cell));
        }
    }

    /// Reports until little is unreported.
    async fn report_all(self, cell: Arc<Cell>) {
        loop {
            let charge = self.rule.forced(cell.take_unreported());
            let is_reported = self.shared(&cell, charge).await.is_some();
            if !is_reported || cell.unreported() < self.rule.report_from() {
                break;
            }
        }
        cell.end_reporting();
    }

    fn key(&self) -> String {
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(self.id))
    }
}
