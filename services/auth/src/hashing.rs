//! The threads that hash passwords. They run below the priority of all other threads, so that chat is not slowed down.
//! They take no lock that another thread takes: a low-priority thread that holds a lock could delay all others.

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

/// The hashing threads, one per turn.
pub struct Threads(Sender<Work>);

impl Threads {
    /// Starts the threads; they end when the value is dropped.
    ///
    /// # Errors
    /// When the system cannot create a thread.
    pub fn start(count: usize) -> std::io::Result<Self> {
        let (sender, receiver) = channel();
        let receiver = Arc::new(Mutex::new(receiver));
        for _ in 0..count {
            let receiver = receiver.clone();
            std::thread::Builder::new().name("hash".into()).spawn(move || work_on(&receiver))?;
        }
        Ok(Self(sender))
    }

    /// Runs `work` on a thread while it holds the turn. If the caller is dropped, the work still runs to its end and
    /// keeps the turn until then.
    ///
    /// # Errors
    /// `unavailable` when `work` panicked.
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
    // If the system does not allow it, hashes run at normal priority.
    let _ = rustix::process::nice(NICE);
    loop {
        let next = queue.lock().recv();
        let Ok(work) = next else { return };
        // A panic in one hash must not end the thread; the caller sees its channel closed.
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
    async fn panic_does_not_end_the_thread() {
        let (turns, threads) = (Turns::new(1), Threads::start(1).unwrap());
        let broken = threads.run(turns.take(TICKET).await.unwrap(), || panic!("on purpose")).await;
        assert_eq!(broken.map(|()| 0).unwrap_err().code, Code::Unavailable);
        assert_eq!(threads.run(turns.take(TICKET).await.unwrap(), || 3).await.unwrap(), 3);
    }

    #[tokio::test]
    async fn turn_lasts_until_the_work_ends_even_without_caller() {
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
