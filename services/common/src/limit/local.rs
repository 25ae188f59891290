//! This process's copies of buckets, in a table of bounded size.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use moka::Expiry;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use tokio::time::Instant;

use super::gcra::{self, Charge, Outcome};

/// The HMAC of a rule and a key, truncated to 128 bits.
pub type Id = [u8; 16];

/// Most buckets in this process; each takes less than 500 bytes, so all take less than 25 MB. Beyond that, the bucket
/// is forgotten that was not used for the longest time. Redis still has it; without Redis, a client can refill one bucket
/// early by using 50,000 keys.
const CAPACITY: u64 = 50_000;
/// A bucket is kept at least this long after its last use.
const MIN_IDLE: Duration = Duration::from_secs(1);

/// The bucket of one key. All times are microseconds since the start of the table.
pub struct Cell {
    full_at: AtomicI64,
    /// The cost of admitted acts that Redis does not have yet.
    unreported: AtomicI64,
    /// Whether a task is reporting.
    reporting: AtomicBool,
    refill: Duration,
}

impl Cell {
    fn new(refill: Duration) -> Self {
        Self { full_at: AtomicI64::new(0), unreported: AtomicI64::new(0), reporting: AtomicBool::new(false), refill }
    }

    pub fn charge(&self, now: i64, charge: Charge) -> Outcome {
        let mut outcome = Outcome::default();
        let update = |full_at| {
            let next;
            (outcome, next) = gcra::charge(full_at, now, charge);
            (next != full_at).then_some(next)
        };
        let _ = self.full_at.fetch_update(Ordering::AcqRel, Ordering::Acquire, update);
        outcome
    }

    /// How long the bucket takes to refill.
    pub fn ahead(&self, now: i64) -> i64 {
        (self.full_at.load(Ordering::Acquire) - now).max(0)
    }

    /// Adopts what Redis knows: the bucket is full at this time, or later if this process knows of more charges.
    pub fn adopt(&self, full_at: i64) {
        self.full_at.fetch_max(full_at, Ordering::AcqRel);
    }

    pub fn refill(&self) {
        self.full_at.store(0, Ordering::Release);
    }

    /// Records a cost to report. Returns whether the caller must start a task that reports.
    pub fn add_unreported(&self, cost: i64, report_from: i64) -> bool {
        let unreported = self.unreported.fetch_add(cost, Ordering::AcqRel).saturating_add(cost);
        unreported >= report_from && !self.reporting.swap(true, Ordering::AcqRel)
    }

    pub fn unreported(&self) -> i64 {
        self.unreported.load(Ordering::Acquire)
    }

    /// Returns the unreported cost, which then counts as reported.
    pub fn take_unreported(&self) -> i64 {
        self.unreported.swap(0, Ordering::AcqRel)
    }

    pub fn end_reporting(&self) {
        self.reporting.store(false, Ordering::Release);
    }
}

pub struct Table {
    cells: Cache<Id, Arc<Cell>>,
    started: Instant,
}

impl Table {
    pub fn new() -> Self {
        let started = Instant::now();
        let cells = Cache::builder()
            .max_capacity(CAPACITY)
            .eviction_policy(EvictionPolicy::lru())
            .expire_after(UntilFull { started });
        Self { cells: cells.build(), started }
    }

    /// Returns the bucket of a key. A bucket without an entry is full, and so is one whose entry has expired.
    pub fn cell(&self, id: &Id, refill: Duration) -> Arc<Cell> {
        self.cells.get_with_by_ref(id, || Arc::new(Cell::new(refill)))
    }

    /// Microseconds since the start of this table.
    pub fn now(&self) -> i64 {
        micros_since(self.started)
    }

    #[cfg(test)]
    pub fn len(&self) -> u64 {
        self.cells.run_pending_tasks();
        self.cells.entry_count()
    }
}

fn micros_since(started: Instant) -> i64 {
    i64::try_from(started.elapsed().as_micros()).unwrap_or(i64::MAX)
}

/// An entry expires when its bucket is certainly full.
struct UntilFull {
    started: Instant,
}

impl Expiry<Id, Arc<Cell>> for UntilFull {
    fn expire_after_create(&self, _: &Id, cell: &Arc<Cell>, _: std::time::Instant) -> Option<Duration> {
        Some(cell.refill.max(MIN_IDLE))
    }

    fn expire_after_read(
        &self,
        _: &Id,
        cell: &Arc<Cell>,
        _: std::time::Instant,
        _: Option<Duration>,
        _: std::time::Instant,
    ) -> Option<Duration> {
        // The use that follows can add as much as the size of the bucket.
        let debt = Duration::from_micros(cell.ahead(micros_since(self.started)).unsigned_abs());
        Some((cell.refill + debt).max(MIN_IDLE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u64) -> Id {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&n.to_le_bytes());
        id
    }

    #[test]
    fn keys_of_an_attacker_do_not_grow_the_table() {
        let table = Table::new();
        let charge = Charge { cost: 10, size: 10, most: 10 };
        let honest = table.cell(&id(0), Duration::from_secs(3600));
        for n in 1..=2 * CAPACITY {
            assert!(table.cell(&id(n), Duration::from_secs(3600)).charge(0, charge).admitted);
            if n % 1000 == 0 {
                // The cache removes entries in batches.
                assert!(table.len() <= CAPACITY + CAPACITY / 100);
                let again = table.cell(&id(0), Duration::from_secs(3600));
                assert!(Arc::ptr_eq(&honest, &again), "a bucket in use is kept, also beside {n} others");
            }
        }
    }

    #[test]
    fn parallel_charges_are_exact() {
        let cell = Cell::new(Duration::from_secs(1));
        let charge = Charge { cost: 1, size: 5000, most: 5000 };
        let admitted = std::thread::scope(|scope| {
            let threads =
                [(); 8].map(|()| scope.spawn(|| (0..1000).filter(|_| cell.charge(7, charge).admitted).count()));
            threads.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>()
        });
        assert_eq!((admitted, cell.ahead(7)), (5000, 5000));
    }

    #[test]
    fn one_task_reports_at_a_time() {
        let cell = Cell::new(Duration::from_secs(1));
        assert!(!cell.add_unreported(40, 100));
        assert!(cell.add_unreported(60, 100));
        assert!(!cell.add_unreported(500, 100), "a task reports already");
        assert_eq!((cell.take_unreported(), cell.unreported()), (600, 0));
        cell.end_reporting();
        assert!(cell.add_unreported(100, 100));
    }
}
