//! Boards within one process.

use std::collections::HashMap;

use futures::future::{BoxFuture, ready};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{Change, Found, Implementation, LIFETIME, Name};
use crate::Result;

#[derive(Default)]
pub struct Local {
    // Locked for one call, never across an await.
    boards: Mutex<HashMap<String, Board>>,
}

struct Board {
    counter: u64,
    written: Instant,
    entries: HashMap<Name, Vec<u8>>,
}

impl Implementation for Local {
    fn write(&self, board: String, counter: u64, entries: Vec<(Name, Vec<u8>)>) -> BoxFuture<'_, Result<()>> {
        let written = Instant::now();
        let mut boards = self.boards.lock();
        boards.retain(|_, board| written - board.written < LIFETIME);
        boards.insert(board, Board { counter, written, entries: entries.into_iter().collect() });
        Box::pin(ready(Ok(())))
    }

    fn change(&self, board: String, counter: u64, changes: Vec<Change>) -> BoxFuture<'_, Result<()>> {
        let now = Instant::now();
        if let Some(board) = self.boards.lock().get_mut(&board).filter(|board| now - board.written < LIFETIME) {
            (board.counter, board.written) = (counter, now);
            for (name, value) in changes {
                match value {
                    Some(value) => drop(board.entries.insert(name, value)),
                    None => drop(board.entries.remove(&name)),
                }
            }
        }
        Box::pin(ready(Ok(())))
    }

    fn look_up(&self, board: String, names: Vec<Name>) -> BoxFuture<'_, Result<Option<Found>>> {
        let boards = self.boards.lock();
        let found = boards.get(&board).filter(|board| board.written.elapsed() < LIFETIME).map(|board| Found {
            counter: board.counter,
            values: names.iter().map(|name| board.entries.get(name).cloned()).collect(),
        });
        drop(boards);
        Box::pin(ready(Ok(found)))
    }

    fn remove(&self, board: String) -> BoxFuture<'_, Result<()>> {
        self.boards.lock().remove(&board);
        Box::pin(ready(Ok(())))
    }
}
