//! The users that this gateway's clients watch: what each gateway tells of them, what clients see, and which client has
//! seen it.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use confab_common::metrics::LIMITS;
use confab_common::tables::shrink;
use tokio::time::Instant;
use uuid::Uuid;

use super::{GRACE, Here, LAST_KNOWN, SILENCE, Said, Shown};

/// A start of a gateway.
pub type Node = Uuid;

/// Most watched users of one socket.
pub const WATCHED_BY_SOCKET: usize = 2000;
/// Most watched users of one gateway.
const WATCHED: usize = 1_000_000;
/// Most gateways. Without a cluster key, any program that reaches the bus can invent one.
const NODES: usize = 1000;

/// The watched users. The caller bounds the watches of one user's sockets by the limit of sockets.
#[derive(Default)]
pub struct Table {
    nodes: HashMap<Node, Gateway>,
    users: HashMap<Uuid, Watched>,
    sockets: HashMap<u64, Vec<Uuid>>,
    /// Users with possible news for clients.
    changed: HashSet<Uuid>,
    /// Since when the gateways cannot hear each other.
    deaf_since: Option<Instant>,
}

/// A gateway.
struct Gateway {
    /// The number of its last change.
    counter: u64,
    at: Instant,
}

struct Watched {
    /// What each gateway tells, since when.
    told: Vec<(Node, Here, Instant)>,
    /// The boards of all gateways are read. Until then, the user is unknown.
    is_loaded: bool,
    shown: Shown,
    /// Grows with each change of `shown`.
    revision: u64,
    /// The revision that each client has seen.
    seen: HashMap<u64, u64>,
}

/// What a gateway must do about a change of another one.
#[derive(Debug, PartialEq, Eq)]
pub enum Heed {
    /// The change is applied.
    Applied,
    /// Changes were missed: the caller must [`load`](Table::load) that gateway's board.
    Missed,
}

/// An event for a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct News {
    pub socket: u64,
    pub user: Uuid,
    pub shown: Shown,
}

impl Watched {
    fn tell(&mut self, node: Node, here: Option<Here>, since: Instant) {
        self.told.retain(|(other, ..)| *other != node);
        self.told.extend(here.map(|here| (node, here, since)));
    }

    fn of_all(&self, now: Instant) -> Shown {
        let live = self.told.iter().filter_map(|(_, here, _)| match here {
            Here::Live(said) => Some(*said),
            Here::Left(_) => None,
        });
        let left = self.told.iter().filter(|(_, here, at)| matches!(here, Here::Left(_)) && now - *at < GRACE);
        // Only the socket that was left last counts: what the user said before must not show again.
        let last = left.max_by_key(|(.., at)| *at).map(|(_, here, _)| match here {
            Here::Live(said) | Here::Left(said) => *said,
        });
        live.max().or(last).map_or(Shown::Offline, Said::shown)
    }

    /// Returns whether this changes what clients see.
    fn show(&mut self, shown: Shown) -> bool {
        let changes = self.is_loaded && self.shown != shown;
        if changes {
            self.shown = shown;
            self.revision += 1;
        }
        changes
    }
}

impl Table {
    /// A client watches a user from now on. Returns whether the user is known; otherwise the caller must
    /// [`load_user`](Self::load_user) before it answers. `None` beyond the limits.
    pub fn watch(&mut self, socket: u64, user: Uuid) -> Option<bool> {
        let known = self.users.get(&user);
        let is_repeat = known.is_some_and(|watched| watched.seen.contains_key(&socket));
        let of_socket = self.sockets.get(&socket).map_or(0, Vec::len);
        if !is_repeat && (of_socket >= WATCHED_BY_SOCKET || (known.is_none() && self.users.len() >= WATCHED)) {
            LIMITS.hit("watched_users");
            return None;
        }
        let new =
            || Watched { told: Vec::new(), is_loaded: false, shown: Shown::Unknown, revision: 0, seen: HashMap::new() };
        let watched = self.users.entry(user).or_insert_with(new);
        if !is_repeat {
            // No news before the answer.
            watched.seen.insert(socket, u64::MAX);
            self.sockets.entry(socket).or_default().push(user);
        }
        Some(watched.is_loaded)
    }

    /// What the client is answered. Events follow only for what changes from now on.
    pub fn answer(&mut self, socket: u64, user: Uuid) -> Shown {
        let Some(watched) = self.users.get_mut(&user) else { return Shown::Unknown };
        if let Some(seen) = watched.seen.get_mut(&socket) {
            *seen = watched.revision;
        }
        watched.shown
    }

    pub fn unwatch(&mut self, socket: u64, user: Uuid) {
        if let Some(users) = self.sockets.get_mut(&socket) {
            users.retain(|other| *other != user);
            if users.is_empty() {
                self.sockets.remove(&socket);
            }
        }
        self.release(socket, user);
    }

    /// A socket has ended: nothing of it stays.
    pub fn end(&mut self, socket: u64) {
        for user in self.sockets.remove(&socket).unwrap_or_default() {
            self.release(socket, user);
        }
        shrink(&mut self.users);
        shrink(&mut self.sockets);
    }

    fn release(&mut self, socket: u64, user: Uuid) {
        if let Some(watched) = self.users.get_mut(&user) {
            watched.seen.remove(&socket);
            if watched.seen.is_empty() {
                self.users.remove(&user);
            }
        }
    }

    pub fn watched(&self) -> impl Iterator<Item = Uuid> {
        self.users.keys().copied()
    }

    /// A gateway tells that it is there, after its change with this number, with the changes up to it.
    pub fn hear(&mut self, node: Node, counter: u64, changes: &[(Uuid, Option<Here>)], now: Instant) -> Heed {
        let expected = match self.nodes.get_mut(&node) {
            Some(received) => {
                received.at = now;
                received.counter + changes.len() as u64
            }
            None => return Heed::Missed,
        };
        if counter < expected {
            // Loaded meanwhile.
            return Heed::Applied;
        }
        if counter > expected {
            return Heed::Missed;
        }
        self.nodes.entry(node).and_modify(|received| received.counter = counter);
        for (user, here) in changes {
            self.tell(node, *user, *here, now);
        }
        Heed::Applied
    }

    fn tell(&mut self, node: Node, user: Uuid, here: Option<Here>, now: Instant) {
        let Some(watched) = self.users.get_mut(&user) else { return };
        watched.tell(node, here, now);
        if watched.show(watched.of_all(now)) {
            self.changed.insert(user);
        }
    }

    /// Takes what the boards of all gateways say of a user who is watched since now, and for how long. What a gateway
    /// has told meanwhile is newer.
    pub fn load_user(&mut self, user: Uuid, boards: &[(Node, Here, Duration)], now: Instant) {
        let Some(watched) = self.users.get_mut(&user) else { return };
        for (node, here, age) in boards.iter().filter(|(node, ..)| self.nodes.contains_key(node)) {
            if watched.told.iter().all(|(other, ..)| other != node) {
                watched.tell(*node, Some(*here), now.checked_sub(*age).unwrap_or(now));
            }
        }
        watched.is_loaded = true;
        if watched.show(watched.of_all(now)) {
            self.changed.insert(user);
        }
    }

    /// Replaces all that is known of a gateway with its board, as of the change with this number; each entry with its
    /// age. Returns `false` when there are too many gateways.
    pub fn load(&mut self, node: Node, counter: u64, board: &HashMap<Uuid, (Here, Duration)>, now: Instant) -> bool {
        if self.nodes.len() >= NODES && !self.nodes.contains_key(&node) {
            return false;
        }
        self.nodes.insert(node, Gateway { counter, at: now });
        for (user, watched) in &mut self.users {
            let here = board.get(user);
            let since = here.and_then(|(_, age)| now.checked_sub(*age)).unwrap_or(now);
            watched.tell(node, here.map(|(here, _)| *here), since);
            if watched.show(watched.of_all(now)) {
                self.changed.insert(*user);
            }
        }
        true
    }

    /// The bus and the boards are away, or are back.
    pub fn set_deaf(&mut self, is_deaf: bool, now: Instant) {
        self.deaf_since = is_deaf.then(|| self.deaf_since.unwrap_or(now));
        if !is_deaf {
            // No gateway could be received meanwhile.
            self.nodes.values_mut().for_each(|received| received.at = now);
        }
    }

    /// Drops gateways that are silent, and shows what changes by time alone. To be called each second.
    pub fn tick(&mut self, now: Instant) {
        if let Some(since) = self.deaf_since {
            // Their silence means nothing.
            if now - since >= LAST_KNOWN {
                for (user, watched) in &mut self.users {
                    if watched.show(Shown::Unknown) {
                        self.changed.insert(*user);
                    }
                }
            }
            return;
        }
        self.nodes.retain(|_, received| now - received.at < SILENCE);
        for (user, watched) in &mut self.users {
            watched.told.retain(|(node, here, at)| {
                self.nodes.contains_key(node) && (matches!(here, Here::Live(_)) || now - *at < GRACE)
            });
            if watched.show(watched.of_all(now)) {
                self.changed.insert(*user);
            }
        }
    }

    /// The events that clients have not seen, each once.
    pub fn news(&mut self) -> Vec<News> {
        let mut news = Vec::new();
        for user in self.changed.drain() {
            let Some(watched) = self.users.get_mut(&user) else { continue };
            for (socket, seen) in &mut watched.seen {
                if *seen < watched.revision {
                    *seen = watched.revision;
                    news.push(News { socket: *socket, user, shown: watched.shown });
                }
            }
        }
        news
    }
}

#[cfg(test)]
mod tests;
