//! The bytes held for one request: a head or a body that is arriving, or an answer that is not sent completely.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use super::Budget;
use super::share::{Cut, Entry, Holder, Share};

/// Requests with at most this many bytes are not counted: every connection has buffers of about this size.
pub const SMALL: usize = 4096;

static NEXT: AtomicU64 = AtomicU64::new(0);

/// Bytes of one request, counted for their holder until this value is dropped.
pub struct Held {
    budget: Arc<Budget>,
    holder: Holder,
    cut: Weak<dyn Cut>,
    bytes: usize,
    counted: Option<(Arc<Share>, u64)>,
}

impl Held {
    /// Starts with 0 bytes for a request of `holder` over the connection `cut`, which the server ends to free memory.
    pub fn of(budget: Arc<Budget>, holder: Holder, cut: Weak<dyn Cut>) -> Self {
        Self { budget, holder, cut, bytes: 0, counted: None }
    }

    /// Adds this many bytes.
    pub fn with(mut self, bytes: usize) -> Self {
        self.add(bytes);
        self
    }

    /// The number of bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Resets the number of bytes to 0.
    pub fn clear(&mut self) {
        if let Some((share, number)) = self.counted.take() {
            share.requests().remove(&number);
            self.budget.release(&share, self.bytes);
        }
        self.bytes = 0;
    }

    /// Adds this many bytes. They count once the sum exceeds [`SMALL`].
    pub fn add(&mut self, bytes: usize) {
        self.bytes += bytes;
        if self.bytes <= SMALL {
            return;
        }
        match &self.counted {
            Some((share, number)) => {
                if let Some(entry) = share.requests().get_mut(number) {
                    entry.bytes = self.bytes;
                }
                self.budget.take(share, bytes);
            }
            None => {
                let (share, number) = (self.budget.share(self.holder), NEXT.fetch_add(1, Ordering::Relaxed));
                share.requests().insert(number, Entry { bytes: self.bytes, cut: self.cut.clone() });
                self.budget.take(&share, self.bytes);
                self.counted = Some((share, number));
            }
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::sync::atomic::AtomicBool;

    use super::*;

    struct Connection(AtomicBool);

    impl Cut for Connection {
        fn cut(&self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_request_counts_above_4_kib_until_it_is_dropped() {
        let budget = Arc::new(Budget::new(3 * SMALL, Arc::default()));
        let holder = Holder::Address(IpAddr::V4(Ipv4Addr::LOCALHOST).into());
        let connection = Arc::new(Connection(AtomicBool::new(false)));
        let cut: Weak<dyn Cut> = Arc::downgrade(&connection) as Weak<dyn Cut>;
        let mut held = Held::of(budget.clone(), holder, cut.clone()).with(SMALL);
        assert!(budget.bytes() == 0 && budget.largest().is_empty());
        held.add(1);
        held.add(SMALL);
        let answer = Held::of(budget.clone(), holder, cut).with(2 * SMALL);
        assert_eq!((budget.bytes(), budget.excess()), (4 * SMALL + 1, SMALL + 1));
        let (of, share) = budget.largest().pop().unwrap();
        assert_eq!((of, share.bytes()), (holder, budget.bytes()));
        assert_eq!(share.held().iter().map(|(bytes, _)| *bytes).collect::<Vec<_>>(), [2 * SMALL + 1, 2 * SMALL]);
        share.held().iter().for_each(|(_, cut)| cut.upgrade().unwrap().cut());
        assert!(connection.0.load(Ordering::Relaxed));
        drop((held, answer, share));
        assert!(budget.bytes() == 0 && budget.largest().is_empty() && budget.shares.lock().is_empty());
    }
}
