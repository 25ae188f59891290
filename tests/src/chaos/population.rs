//! The clients that chat: senders and listeners in public rooms, the members, guests and strangers of two rooms that
//! change, and users who log in and out.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context;
use serde_json::Value;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;
use uuid::Uuid;

use super::access::{Change, Role};
use super::clients::acts::change;
use super::clients::{editor, guest, id, leaver, listener, moderator, reactor, reader, sender, stock};
use super::history::Receiver;
use super::message::{Seen, Stored};
use super::schedule::Dice;
use super::world::World;
use crate::api::Account;
use crate::stock::{Socket, Stock};
use crate::wait::eventually;

/// How long one sender waits between messages.
const SEND_INTERVAL: Duration = Duration::from_millis(40);
/// Time limit for the last acknowledgements and deliveries.
const DELIVERY_LIMIT: Duration = Duration::from_secs(60);
/// Authors who change their messages.
const EDITORS: usize = 2;
/// Friends who react and reply to each other.
const FRIENDS: usize = 5;
/// Users who log in and out.
const LEAVERS: usize = 2;

/// The clients of a run.
pub struct Population {
    senders: JoinSet<anyhow::Result<()>>,
    listeners: Vec<JoinHandle<()>>,
    javascript: Stock,
    python: Stock,
}

impl Population {
    /// Starts all clients.
    ///
    /// # Errors
    /// When an account or the stock clients are not available.
    pub async fn start(world: &Arc<World>, dice: &mut Dice) -> anyhow::Result<Self> {
        let (javascript, python) = (Stock::javascript()?, Stock::python()?);
        let mut population = Self { senders: JoinSet::new(), listeners: Vec::new(), javascript, python };
        population.senders(world, dice).await?;
        population.listeners(world).await?;
        population.private_room(world, dice).await?;
        population.changing_room(world, dice).await?;
        for _ in 0..EDITORS {
            let account = world.api.signup().await?;
            population.senders.spawn(editor::edit(world.clone(), account, dice.split()));
        }
        for room in &world.rooms {
            population.senders.spawn(reader::mark(world.clone(), *room, dice.split()));
        }
        population.friends(world, dice).await?;
        for _ in 0..LEAVERS {
            let account = world.api.signup().await?;
            population.senders.spawn(leaver::come_and_go(world.clone(), account, dice.split()));
        }
        Ok(population)
    }

    /// Users who react to each other's messages.
    async fn friends(&mut self, world: &Arc<World>, dice: &mut Dice) -> anyhow::Result<()> {
        let mut friends = Vec::new();
        for _ in 0..FRIENDS {
            friends.push(world.api.signup().await?);
        }
        self.senders.spawn(reactor::react(world.clone(), friends, dice.split()));
        Ok(())
    }

    /// Users who send to the public rooms.
    async fn senders(&mut self, world: &Arc<World>, dice: &mut Dice) -> anyhow::Result<()> {
        for _ in 0..2 {
            let (account, rooms) = (world.api.signup().await?, world.rooms.clone());
            self.senders.spawn(sender::by_rest(world.clone(), account, rooms, dice.split(), SEND_INTERVAL));
            let account = world.api.signup().await?;
            self.senders.spawn(sender::by_socket(world.clone(), account, dice.split(), SEND_INTERVAL));
        }
        for process in [&self.javascript, &self.python] {
            let account = world.api.signup().await?;
            let socket = stock::open(process, world, &account, stock::UPGRADE);
            self.senders.spawn(stock::send(world.clone(), account, socket, dice.split(), SEND_INTERVAL));
        }
        Ok(())
    }

    /// Users in the public rooms and in the private room, of which they stay members.
    async fn listeners(&mut self, world: &Arc<World>) -> anyhow::Result<()> {
        let rooms = world.rooms.iter().copied().chain([world.private_room]).collect::<Vec<_>>();
        for n in 0..4 {
            let account = member(world, world.private_room).await?;
            let receiver = receiver(&account, format!("raw listener {n}"), &rooms, false)?;
            self.raw(world, account, receiver, n);
        }
        let account = member(world, world.private_room).await?;
        let js = &self.javascript;
        let sockets = [
            ("JavaScript listener", stock::open(js, world, &account, stock::UPGRADE)),
            ("JavaScript listener over WebSocket", stock::open(js, world, &account, stock::WEBSOCKET)),
            ("JavaScript listener with recovery", stock::open_with_recovery(js, world, &account)),
            ("Python listener", stock::open(&self.python, world, &account, stock::UPGRADE)),
        ];
        for (name, socket) in sockets {
            let recovers = name.ends_with("recovery");
            let receiver = Receiver { recovers, ..receiver(&account, name, &rooms, false)? };
            self.stock(world, Arc::new(socket), receiver);
        }
        Ok(())
    }

    /// The guests of the private room, and its moderator. A deputy sends to both rooms that change.
    async fn private_room(&mut self, world: &Arc<World>, dice: &mut Dice) -> anyhow::Result<()> {
        let room = world.private_room;
        let deputy = member(world, room).await?;
        change(world, &world.owner, room, Change::Roles([(id(&deputy)?, Role::Admin)].into())).await;
        join(world, &deputy, world.changing_room).await?;
        let rooms = vec![room, world.changing_room];
        self.senders.spawn(sender::by_rest(world.clone(), deputy.clone(), rooms, dice.split(), SEND_INTERVAL));
        let mut guests = Vec::new();
        let clients = [
            ("JavaScript guest", Some((self.javascript.clone(), stock::UPGRADE))),
            ("JavaScript guest over WebSocket", Some((self.javascript.clone(), stock::WEBSOCKET))),
            ("Python guest", Some((self.python.clone(), stock::UPGRADE))),
            ("raw guest", None),
        ];
        for (n, (name, process)) in clients.into_iter().enumerate() {
            let account = member(world, room).await?;
            guests.push(id(&account)?);
            let receiver = receiver(&account, name, &[room], true)?;
            let mut own = None;
            match process {
                Some((process, transports)) => {
                    let socket = Arc::new(stock::open(&process, world, &account, transports));
                    own = Some(socket.clone());
                    self.stock(world, socket, receiver);
                }
                None => self.raw(world, account.clone(), receiver, n),
            }
            self.guest(world, account, room, own, dice);
        }
        self.senders.spawn(moderator::moderate(world.clone(), deputy, guests, dice.split()));
        Ok(())
    }

    /// Members and strangers in the room whose visibility changes, and its moderator.
    async fn changing_room(&mut self, world: &Arc<World>, dice: &mut Dice) -> anyhow::Result<()> {
        let room = world.changing_room;
        let account = member(world, room).await?;
        let socket = Arc::new(stock::open(&self.python, world, &account, stock::UPGRADE));
        self.stock(world, socket, receiver(&account, "Python member of the changing room", &[room], true)?);
        let name = "raw member of the changing room";
        self.raw(world, account.clone(), receiver(&account, name, &[room], true)?, 0);
        let account = world.api.signup().await?;
        let socket = Arc::new(stock::open(&self.javascript, world, &account, stock::UPGRADE));
        self.stock(world, socket, receiver(&account, "JavaScript stranger", &[room], true)?);
        self.raw(world, account.clone(), receiver(&account, "raw stranger", &[room], true)?, 1);
        self.guest(world, account, room, None, dice);
        let (world, dice) = (world.clone(), dice.split());
        self.senders.spawn(async move {
            moderator::hide_and_show(world, dice).await;
            Ok(())
        });
        Ok(())
    }

    /// A user who sends and reads all the time, with the right or without it.
    fn guest(
        &mut self,
        world: &Arc<World>,
        account: Account,
        room: Uuid,
        socket: Option<Arc<Socket>>,
        dice: &mut Dice,
    ) {
        self.senders.spawn(guest::send(world.clone(), account.clone(), room, socket, dice.split()));
        self.senders.spawn(guest::read(world.clone(), account, room));
    }

    fn raw(&mut self, world: &Arc<World>, account: Account, receiver: Receiver, gateway: usize) {
        let receiver = world.recorder.receiver(receiver);
        self.listeners.push(tokio::spawn(listener::listen(world.clone(), account, receiver, gateway, false)));
    }

    fn stock(&mut self, world: &Arc<World>, socket: Arc<Socket>, receiver: Receiver) {
        let receiver = world.recorder.receiver(receiver);
        self.listeners.push(tokio::spawn(stock::listen(world.clone(), socket, receiver)));
    }

    /// Stops new messages, waits for pending ones, and waits until all messages are received.
    ///
    /// # Errors
    /// When an actor has failed, or history is not readable.
    pub async fn end(&mut self, world: &Arc<World>) -> anyhow::Result<()> {
        world.ending.store(true, Ordering::Relaxed);
        let finished = async {
            while let Some(sender) = self.senders.join_next().await {
                sender??;
            }
            anyhow::Ok(())
        };
        let finished = timeout(DELIVERY_LIMIT, finished).await;
        if let Ok(finished) = finished {
            finished?;
        }
        let logs = logs(world).await?;
        let heads = logs.iter().map(|(room, history)| (*room, history.len() as u64)).collect::<HashMap<_, _>>();
        let complete = async || world.recorder.with(|records| records.all_hold(&heads)).then_some(());
        // The checker reports receivers that are incomplete.
        let _ = eventually("every receiver is complete", Duration::from_secs(15), complete).await;
        self.listeners.iter().for_each(JoinHandle::abort);
        let (histories, members) = (histories(world).await?, members(world).await?);
        let markers = reader::markers(world).await?;
        world.recorder.note(|records| {
            records.history = logs;
            records.present = histories;
            records.members = members;
            records.markers = markers;
        });
        Ok(())
    }
}

fn receiver(account: &Account, name: impl Into<String>, rooms: &[Uuid], restless: bool) -> anyhow::Result<Receiver> {
    Ok(Receiver { name: name.into(), user: id(account)?, rooms: rooms.to_vec(), restless, ..Receiver::default() })
}

/// Creates an account that is a member of a room.
async fn member(world: &World, room: Uuid) -> anyhow::Result<Account> {
    let account = world.api.signup().await?;
    join(world, &account, room).await?;
    Ok(account)
}

async fn join(world: &World, account: &Account, room: Uuid) -> anyhow::Result<()> {
    change(world, &world.owner, room, Change::Joined { user: id(account)?, role: Role::Member }).await;
    Ok(())
}

/// Reads the raw log of every room.
async fn logs(world: &World) -> anyhow::Result<HashMap<Uuid, Vec<Stored>>> {
    let mut logs = HashMap::new();
    for room in world.all_rooms() {
        let entries = read(world, &format!("/api/messages/{room}?events=true&limit=200")).await?;
        let entries = entries.iter().map(|entry| Stored::of(room, entry)).collect::<Option<Vec<_>>>();
        logs.insert(room, entries.context("an entry of a log")?);
    }
    Ok(logs)
}

/// Reads the history of every room.
async fn histories(world: &World) -> anyhow::Result<HashMap<Uuid, Vec<Seen>>> {
    let mut histories = HashMap::new();
    for room in world.all_rooms() {
        let items = read(world, &format!("/api/messages/{room}?limit=200")).await?;
        histories.insert(room, items.iter().map(Seen::of).collect::<Option<_>>().context("an item of history")?);
    }
    Ok(histories)
}

async fn read(world: &World, path: &str) -> anyhow::Result<Vec<Value>> {
    let read = async || world.api.pages(path, "after=0", &world.owner).await.ok();
    eventually("history is readable", DELIVERY_LIMIT, read).await
}

/// Reads the members of the rooms that change; each has fewer members than a page.
async fn members(world: &World) -> anyhow::Result<HashMap<Uuid, BTreeMap<Uuid, Role>>> {
    let mut members = HashMap::new();
    for room in [world.private_room, world.changing_room] {
        let path = format!("/api/rooms/{room}/members?limit=200");
        let read = async || world.api.get(&path, &world.owner).await.ok()?.expect(200).ok();
        let list = eventually("members are readable", DELIVERY_LIMIT, read).await?;
        let items = list["items"].as_array().context("a page has items")?.iter();
        let member =
            |item: &Value| Some((item["user"]["id"].as_str()?.parse::<Uuid>().ok()?, Role::of(&item["role"])?));
        members.insert(room, items.map(member).collect::<Option<_>>().context("a member has an id and a role")?);
    }
    Ok(members)
}
