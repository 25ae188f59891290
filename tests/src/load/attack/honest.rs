//! Honest clients, which use the server as intended, at an even pace, during an attack.

mod acts;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::net::Route;
use super::tally::{Counts, Tally};
use crate::api::Account;

/// Clients that send in the hall and listen to it, and messages per second of each.
const SPEAKERS: u32 = 10;
const EACH_SPEAKS: Duration = Duration::from_millis(500);
/// Clients that listen to the hall over HTTP long-polling.
const POLLERS: u32 = 20;
/// How often each of the other acts is performed.
const JOINS: Duration = Duration::from_millis(100);
const CONNECTS: Duration = Duration::from_millis(250);
const LOGINS: Duration = Duration::from_millis(1000);
const TRANSFERS: Duration = Duration::from_millis(500);
const ADMIN_REQUESTS: Duration = Duration::from_millis(500);

/// Logins of each account: with the session of its signup less than 50, at which the server ends the oldest session.
const MAX_LOGINS: u64 = 45;

/// Time limit for acts that are not instant.
pub const ACT_LIMIT: Duration = Duration::from_secs(5);

/// The honest clients' accounts, rooms and routes.
#[derive(Debug, Clone)]
pub struct People {
    /// The route to the server.
    pub route: Route,
    /// The route to its admin port.
    pub admin: Route,
    /// At least one. Their sessions stay open, so the honest clients do not log in to them.
    pub accounts: Vec<Account>,
    /// The accounts that log in, in turn: as many as [`login_accounts`] returns.
    pub login_accounts: Vec<Account>,
    /// The room in which they chat.
    pub hall: String,
    /// Rooms that are joined and left.
    pub rooms: Vec<String>,
}

/// Running honest clients, on their own thread.
pub struct Honest {
    tally: Arc<Tally>,
    over: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Honest {
    /// Starts the clients.
    ///
    /// # Errors
    /// When the system cannot create a thread.
    pub fn begin(people: People) -> anyhow::Result<Self> {
        let (over, ended) = oneshot::channel();
        let tally = Arc::<Tally>::default();
        let theirs = tally.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let work = move || {
            runtime.block_on(async {
                let mut tasks = everything(people, &theirs);
                let _ = ended.await;
                tasks.abort_all();
            });
        };
        Ok(Self { tally, over, thread: thread::Builder::new().name("honest".into()).spawn(work)? })
    }

    /// Returns the results since the last call.
    pub fn take(&self) -> Counts {
        self.tally.take()
    }

    /// Stops the clients.
    pub fn end(self) {
        let _ = self.over.send(());
        let _ = self.thread.join();
    }
}

/// Returns the number of accounts that log in for this time, so that no login ends a session.
pub fn login_accounts(time: Duration) -> usize {
    let logins = time.as_millis().div_ceil(LOGINS.as_millis()) as u64 + 1;
    logins.div_ceil(MAX_LOGINS) as usize
}

fn everything(people: People, tally: &Arc<Tally>) -> JoinSet<()> {
    let people = Arc::new(people);
    let mut tasks = JoinSet::new();
    for number in 0..SPEAKERS {
        tasks.spawn(acts::speak(people.clone(), tally.clone(), number, EACH_SPEAKS, EACH_SPEAKS * number / SPEAKERS));
    }
    for number in 0..POLLERS {
        tasks.spawn(acts::poll(people.clone(), tally.clone(), number));
    }
    tasks.spawn(acts::join(people.clone(), tally.clone(), JOINS));
    tasks.spawn(acts::transfer(people.clone(), tally.clone(), TRANSFERS));
    tasks.spawn(acts::again("connect", tally.clone(), CONNECTS, people.clone(), acts::connect));
    let logins = AtomicUsize::new(0);
    let login = move |people| acts::login(people, logins.fetch_add(1, Ordering::Relaxed));
    tasks.spawn(acts::again("login", tally.clone(), LOGINS, people.clone(), login));
    tasks.spawn(acts::again(
        "upload by a newcomer",
        tally.clone(),
        TRANSFERS,
        people.clone(),
        acts::upload_as_newcomer,
    ));
    tasks.spawn(acts::again("admin port", tally.clone(), ADMIN_REQUESTS, people, acts::look));
    tasks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_account_logs_in_more_often_than_it_may_have_sessions() {
        for seconds in [0, 1, 44, 45, 90, 3600] {
            let accounts = login_accounts(Duration::from_secs(seconds)) as u64;
            // The first login is at once, and one follows each second.
            let logins_of_one = (seconds + 1).div_ceil(accounts);
            assert!(logins_of_one <= MAX_LOGINS, "{seconds} s: {logins_of_one} logins of one account");
        }
        assert_eq!([0, 44, 45, 90].map(|seconds| login_accounts(Duration::from_secs(seconds))), [1, 1, 2, 3]);
    }
}
