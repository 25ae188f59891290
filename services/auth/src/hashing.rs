//! The threads that hash, below the priority of all others, so that chat goes on. They take no lock that others take: one that the
//! system lets wait would hold up everything.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use confab_common::{Error, Result};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::turns::Turn;

/// Added to the nice value of these threads.
const NICE: i32 = 10;

type Work = Box<dyn FnOnce() + Send>;

/// As many threads as there are turns.
pub struct Threads(Sender<Work>);

impl Threads {
    /// Starts them; they end when this is dropped.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(count: usize) -> std::io::Result<Self> {
        let (sender, receiver) = channel();
        let receiver = Arc::new(Mutex::new(receiver));
        for _ in 0..count {
            let receiver = receiver.clone();
            std::thread::Builder::new().name("hash".into()).spawn(move || work_on(&receiver))?;
        }
        Ok(Self(sender))
    }

    /// Runs `work` on a thread that the turn is for. A caller that gives up leaves it to its end, and the turn with it.
    ///
    /// # Errors
    /// `unavailable` when it panicked.
    pub async fn run<T: Send + 'static>(&self, turn: Turn, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let (sender, receiver) = oneshot::channel();
        let work = Box::new(move || _ = sender.send(work()));
        self.0.send(work).map_err(Error::internal)?;
        let done = tokio::spawn(async move {
            let done = receiver.await;
            drop(turn);
            done
        });
        done.await.map_err(Error::internal)?.map_err(|_| Error::unavailable("password checking"))
    }
}

fn work_on(queue: &Mutex<Receiver<Work>>) {
    // Where it is not allowed the hashes run like everything else.
    let _ = rustix::process::nice(NICE);
    loop {
        let next = queue.lock().recv();
        let Ok(work) = next else { return };
        // A panic of one hash must not take the thread from all others; its caller finds the channel closed.
        let _ = catch_unwind(AssertUnwindSafe(work));
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use confab_common::Code;

    use super::*;
    use crate::turns::{Ticket, Turns};

    const TICKET: Ticket = Ticket { address: IpAddr::V4(Ipv4Addr::LOCALHOST), name: 0, is_known: false };

    #[tokio::test]
    async fn a_panic_ends_no_thread() {
        let (turns, threads) = (Turns::new(1), Threads::start(1).unwrap());
        let broken = threads.run(turns.take(TICKET).await.unwrap(), || panic!("on purpose")).await;
        assert_eq!(broken.map(|()| 0).unwrap_err().code, Code::Unavailable);
        assert_eq!(threads.run(turns.take(TICKET).await.unwrap(), || 3).await.unwrap(), 3);
    }

    #[tokio::test]
    async fn a_turn_lasts_as_long_as_its_work_though_the_caller_has_given_up() {
        let (turns, threads) = (Turns::new(1), Threads::start(1).unwrap());
        let (go_on, goes_on) = channel::<()>();
        let mut given_up = Box::pin(threads.run(turns.take(TICKET).await.unwrap(), move || goes_on.recv()));
        assert!(futures::poll!(&mut given_up).is_pending());
        drop(given_up);
        let mut next = Box::pin(turns.take(TICKET));
        for _ in 0..100 {
            tokio::task::yield_now().await;
            assert!(futures::poll!(&mut next).is_pending());
        }
        drop(go_on);
        next.await.unwrap();
    }
}
