//! Boards in Redis: one hash for each. Its fields are the names of the entries, and two shorter ones: the counter, and a
//! mark that the board was written whole. A hash without the mark is what changes made of a board that was lost.

use futures::future::BoxFuture;
use redis::aio::MultiplexedConnection;
use redis::{FromRedisValue, Pipeline, RedisResult};
use tokio::sync::Mutex;

use super::{Change, Found, Implementation, LIFETIME, Name};
use crate::bus::RedisAddress;
use crate::{Error, Result};

/// The beginning of every key. Its hash tag puts all boards into one slot of a cluster, so one connection reaches them.
const PREFIX: &str = "confab.presence.{all}.";
const COUNTER: &[u8] = b"counter";
const WHOLE: &[u8] = b"whole";
/// Most entries in one command.
const CHUNK: usize = 1000;

pub struct Redis {
    address: RedisAddress,
    /// Locked while a call connects, so that all others wait for the same connection; their time is limited.
    connection: Mutex<Option<MultiplexedConnection>>,
}

impl Redis {
    pub fn new(address: RedisAddress) -> Self {
        Self { address, connection: Mutex::default() }
    }

    async fn connection(&self) -> Result<MultiplexedConnection> {
        let mut connection = self.connection.lock().await;
        match &*connection {
            Some(open) => Ok(open.clone()),
            None => Ok(connection.insert(connect(&self.address).await.map_err(away)?).clone()),
        }
    }

    /// Runs commands in one transaction.
    async fn run<T: FromRedisValue>(&self, commands: &Pipeline) -> Result<T> {
        let mut connection = self.connection().await?;
        // A call that is dropped at its time limit leaves no connection that does not answer.
        let mut reset = Reset { redis: self, done: false };
        let answer: RedisResult<T> = commands.query_async(&mut connection).await;
        reset.done = answer.is_ok();
        answer.map_err(|error| away(error.to_string()))
    }
}

/// Gives up the connection unless its call has succeeded.
struct Reset<'a> {
    redis: &'a Redis,
    done: bool,
}

impl Drop for Reset<'_> {
    fn drop(&mut self) {
        if !self.done
            && let Ok(mut connection) = self.redis.connection.try_lock()
        {
            *connection = None;
        }
    }
}

/// Connects to the server with the boards: in a cluster, the node that owns their slot.
async fn connect(address: &RedisAddress) -> std::result::Result<MultiplexedConnection, String> {
    let mut connection = address.connection(None).await?;
    let mut probe = redis::cmd("HGET");
    probe.arg(format!("{PREFIX}probe")).arg(COUNTER);
    match probe.query_async::<Option<u64>>(&mut connection).await {
        Ok(_) => Ok(connection),
        Err(error) => match error.redirect_node() {
            Some((node, _)) => address.connection(Some(node)).await,
            None => Err(error.to_string()),
        },
    }
}

fn away(why: String) -> Error {
    tracing::debug!(why, "Redis has no boards");
    Error::unavailable("Redis")
}

fn set(commands: &mut Pipeline, key: &str, entries: &[(Name, Vec<u8>)]) {
    for chunk in entries.chunks(CHUNK) {
        let command = commands.cmd("HSET").arg(key);
        for (name, value) in chunk {
            command.arg(name).arg(value);
        }
        command.ignore();
    }
}

fn keep(commands: &mut Pipeline, key: &str, counter: u64) {
    commands.cmd("HSET").arg(key).arg(COUNTER).arg(counter).ignore();
    commands.cmd("PEXPIRE").arg(key).arg(LIFETIME.as_millis() as u64).ignore();
}

impl Implementation for Redis {
    fn write(&self, board: String, counter: u64, entries: Vec<(Name, Vec<u8>)>) -> BoxFuture<'_, Result<()>> {
        let key = format!("{PREFIX}{board}");
        Box::pin(async move {
            let mut commands = redis::pipe();
            commands.atomic().cmd("UNLINK").arg(&key).ignore();
            commands.cmd("HSET").arg(&key).arg(WHOLE).arg(1).ignore();
            set(&mut commands, &key, &entries);
            keep(&mut commands, &key, counter);
            self.run(&commands).await
        })
    }

    fn change(&self, board: String, counter: u64, changes: Vec<Change>) -> BoxFuture<'_, Result<()>> {
        let key = format!("{PREFIX}{board}");
        Box::pin(async move {
            let mut commands = redis::pipe();
            commands.atomic();
            let (mut present, mut absent) = (Vec::new(), Vec::new());
            for (name, value) in changes {
                match value {
                    Some(value) => present.push((name, value)),
                    None => absent.push(name),
                }
            }
            set(&mut commands, &key, &present);
            for chunk in absent.chunks(CHUNK) {
                let command = commands.cmd("HDEL").arg(&key);
                chunk.iter().for_each(|name| {
                    command.arg(name);
                });
                command.ignore();
            }
            keep(&mut commands, &key, counter);
            self.run(&commands).await
        })
    }

    fn look_up(&self, board: String, names: Vec<Name>) -> BoxFuture<'_, Result<Option<Found>>> {
        let key = format!("{PREFIX}{board}");
        Box::pin(async move {
            let mut commands = redis::pipe();
            commands.atomic();
            commands.cmd("HMGET").arg(&key).arg(COUNTER).arg(WHOLE);
            if !names.is_empty() {
                let command = commands.cmd("HMGET").arg(&key);
                names.iter().for_each(|name| {
                    command.arg(name);
                });
            }
            let mut answers: Vec<Vec<Option<Vec<u8>>>> = self.run(&commands).await?;
            let values = if names.is_empty() { Vec::new() } else { answers.pop().unwrap_or_default() };
            let marks = answers.pop().unwrap_or_default();
            let [Some(counter), Some(_)] = &marks[..] else { return Ok(None) };
            let counter = std::str::from_utf8(counter).ok().and_then(|counter| counter.parse().ok());
            Ok(counter.map(|counter| Found { counter, values }))
        })
    }

    fn remove(&self, board: String) -> BoxFuture<'_, Result<()>> {
        let key = format!("{PREFIX}{board}");
        Box::pin(async move {
            let mut commands = redis::pipe();
            commands.atomic().cmd("UNLINK").arg(&key).ignore();
            self.run(&commands).await
        })
    }
}
