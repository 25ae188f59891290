//! `load storm`: all sockets disconnect at once, reconnect at once, and must miss no message, while senders continue.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use super::crowd::{Crowd, Handler, Outgoing, Target};
use super::figures::Figures;
use super::options::{say, show};
use super::process::{Cpu, Memory, Watched};
use super::talk::{Pace, Talk};
use super::wire::{Finder, Packet};
use crate::api::{Account, Api};
use crate::cluster::Cluster;
use crate::plan::Role;

/// Time limit until all clients are connected and complete again, in seconds.
const RETURN_TARGET: f64 = 30.0;
/// How long the scenario waits for them.
const RETURN_LIMIT: Duration = Duration::from_secs(120);
/// How long before the storm clients chat, so that there are messages to miss.
const WARM_UP: Duration = Duration::from_secs(3);
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Numbers and rates
#[derive(Debug, clap::Args)]
pub struct Storm {
    /// Number of sockets, each in one room
    #[arg(long, default_value_t = 5000)]
    sockets: usize,
    /// Number of rooms
    #[arg(long, default_value_t = 50)]
    rooms: usize,
    /// Messages per second in all rooms together
    #[arg(long, default_value_t = 100)]
    rate: u32,
    /// Maximum sockets that connect at the same time
    #[arg(long, default_value_t = 1000)]
    connecting: usize,
    /// Print results as one line of JSON
    #[arg(long)]
    json: bool,
}

/// Runs the scenario: first the network fails, then a gateway is killed and all clients move to the other gateway.
///
/// # Errors
/// When a client does not return in time, or misses a message.
pub async fn run(storm: Storm) -> anyhow::Result<()> {
    rlimit::increase_nofile_limit(u64::MAX).context("cannot raise the limit of open files")?;
    let cluster = Cluster::scratch(2, 2, &[]).await?;
    let [first, second] = [1, 2].map(|n| cluster.plan.url((Role::Gateway, n)));
    let api = Api::new(&second);
    let mut accounts = Vec::new();
    for _ in 0..8 {
        accounts.push(api.signup().await?);
    }
    let mut rooms = Vec::<Arc<str>>::new();
    for _ in 0..storm.rooms {
        rooms.push(api.room(&accounts[0]).await?.into());
    }
    let mut people = People::new(&rooms, storm.sockets, &accounts);
    let mut crowd = Crowd::new()?;
    people.come(&mut crowd, &Target::new(&first)?, storm.connecting)?;
    say(&format!("{} sockets in {} rooms.", storm.sockets, storm.rooms));
    let pace = Pace { speakers: 4, rate: storm.rate, bytes: 100 };
    let talk = Talk::begin(&second, &accounts[0].token, &rooms, &pace)?;
    let mut figures = Figures::default();

    people.listen(&mut crowd, WARM_UP)?;
    crowd.reset();
    people.all_lost();
    people.measure(&mut figures, "reset", &cluster, &mut crowd, &first, storm.connecting).await?;

    people.listen(&mut crowd, WARM_UP)?;
    cluster.kill((Role::Gateway, 1)).await?;
    people.measure(&mut figures, "kill -9", &cluster, &mut crowd, &second, storm.connecting).await?;

    let said = talk.end()?;
    let complete = |people: &People| {
        people.everyone.iter().all(|person| said.heads.get(&*rooms[person.room]) == Some(&person.seq))
    };
    let deadline = Instant::now() + RETURN_LIMIT;
    while !complete(&people) && Instant::now() < deadline {
        crowd.turn(&mut people, POLL_INTERVAL)?;
    }
    figures.add("sends refused", "", said.refusals as f64);
    figures.add("ack p99", "ms", said.ack_time.percentile(99.0));
    figures.add("out of order, lost, doubled", "", people.violations as f64);
    figures.add("joins asked again", "", people.repeated as f64);
    for gateway in
        Watched::directory(&cluster.plan.directory.join("pids"))?.iter().filter(|process| process.name == "gateway-2")
    {
        figures.add("memory of the gateway in the end", "MB", Memory::of(gateway)?.rss as f64 / 1e6);
    }
    show(
        storm.json,
        &format!("storm: {} sockets in {} rooms, {} messages a second", storm.sockets, storm.rooms, storm.rate),
        &figures,
    );
    ensure!(complete(&people), "not every client has every message");
    ensure!(people.slowest <= RETURN_TARGET, "the clients took longer than {RETURN_TARGET} s to return");
    ensure!(people.violations == 0 && said.refusals == 0, "{:?} {:?}", people.fault, said.fault);
    Ok(())
}

struct Person {
    room: usize,
    token: Arc<str>,
    /// The newest `seq` that it has received.
    seq: u64,
    /// Whether it is in its room and up to date.
    back: bool,
}

/// All clients, independent of their current sockets.
struct People {
    rooms: Vec<Arc<str>>,
    everyone: Vec<Person>,
    /// The client of each socket, by the socket's number in the crowd.
    sockets: Vec<usize>,
    /// The clients without a socket.
    lost: Vec<usize>,
    connecting: usize,
    /// The longest time until all clients had returned, in seconds.
    slowest: f64,
    replayed: u64,
    repeated: u64,
    violations: u64,
    fault: Option<String>,
    seq: Finder,
}

impl People {
    fn new(rooms: &[Arc<str>], count: usize, accounts: &[Account]) -> Self {
        let token = |number: usize| accounts[number % accounts.len()].token.as_str().into();
        let person = |number: usize| Person {
            room: number % rooms.len(),
            token: token(number / rooms.len()),
            seq: 0,
            back: false,
        };
        Self {
            rooms: rooms.to_vec(),
            everyone: (0..count).map(person).collect(),
            sockets: Vec::new(),
            lost: (0..count).collect(),
            connecting: 0,
            slowest: 0.0,
            replayed: 0,
            repeated: 0,
            violations: 0,
            fault: None,
            seq: Finder::default(),
        }
    }

    /// Connects all clients without a socket, and waits until they are up to date.
    fn come(&mut self, crowd: &mut Crowd, target: &Target, connecting: usize) -> anyhow::Result<()> {
        let deadline = Instant::now() + RETURN_LIMIT;
        while !self.everyone.iter().all(|person| person.back) {
            while self.connecting < connecting
                && let Some(person) = self.lost.pop()
            {
                crowd.open(target, None, self.everyone[person].token.clone())?;
                self.sockets.push(person);
                self.connecting += 1;
            }
            crowd.turn(self, POLL_INTERVAL)?;
            let missing = self.everyone.iter().filter(|person| !person.back).count();
            ensure!(Instant::now() < deadline, "{missing} clients have not returned: {:?}", self.fault);
        }
        Ok(())
    }

    fn listen(&mut self, crowd: &mut Crowd, time: Duration) -> anyhow::Result<()> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            crowd.turn(self, POLL_INTERVAL)?;
        }
        Ok(())
    }

    fn all_lost(&mut self) {
        self.everyone.iter_mut().for_each(|person| person.back = false);
        (self.connecting, self.lost) = (0, (0..self.everyone.len()).collect());
    }

    async fn measure(
        &mut self,
        figures: &mut Figures,
        name: &str,
        cluster: &Cluster,
        crowd: &mut Crowd,
        url: &str,
        connecting: usize,
    ) -> anyhow::Result<()> {
        // Sockets of a killed gateway close one by one.
        while !crowd.is_over() {
            crowd.turn(self, POLL_INTERVAL)?;
        }
        let gateway = (Role::Gateway, if *url == cluster.plan.url((Role::Gateway, 1)) { 1 } else { 2 });
        let metrics = format!("http://127.0.0.1:{}/metrics", cluster.plan.admin_port(gateway));
        let watched = Watched::directory(&cluster.plan.directory.join("pids"))?;
        let watched =
            watched.into_iter().filter(|process| process.name == format!("gateway-{}", gateway.1)).collect::<Vec<_>>();
        let (reads, cpu, begin) = (reads(&metrics).await?, Cpu::now(&watched)?, Instant::now());
        self.replayed = 0;
        self.come(crowd, &Target::new(url)?, connecting)?;
        let back = begin.elapsed().as_secs_f64();
        self.slowest = self.slowest.max(back);
        figures.add(format!("{name}: all back and complete after"), "s", back);
        figures.add(format!("{name}: messages replayed"), "", self.replayed as f64);
        figures.add(format!("{name}: reads of history"), "", self::reads(&metrics).await? - reads);
        figures.add(
            format!("{name}: gateway cpu"),
            "s",
            Cpu::now(&watched)?.since(&cpu).watched.iter().sum::<Duration>().as_secs_f64(),
        );
        Ok(())
    }

    fn blame(&mut self, fault: impl FnOnce() -> String) {
        self.violations += 1;
        self.fault.get_or_insert_with(fault);
    }

    fn join(&self, person: usize, out: &mut Outgoing) {
        let Person { room, seq, .. } = &self.everyone[person];
        out.text(format!("420{}", json!(["joinRoom", {"roomId": *self.rooms[*room], "after": seq}])).as_bytes());
    }

    /// Handles the answer to a join: it continues where the client was, possibly not up to the head.
    fn joined(&mut self, number: usize, answer: &[u8], out: &mut Outgoing) {
        let (person, answer) = (self.sockets[number], serde_json::from_slice::<Value>(answer).unwrap_or_default());
        let answer = &answer[0];
        if answer["ok"] != true {
            self.repeated += 1;
            self.fault.get_or_insert_with(|| answer.to_string());
            return self.join(person, out);
        }
        for message in answer["messages"].as_array().into_iter().flatten() {
            self.replayed += 1;
            self.next(person, message["seq"].as_u64());
        }
        if answer["complete"] == true && answer["lastSeq"] == self.everyone[person].seq {
            self.everyone[person].back = true;
            self.connecting -= 1;
        } else {
            self.join(person, out);
        }
    }

    fn next(&mut self, person: usize, seq: Option<u64>) {
        let before = self.everyone[person].seq;
        if seq != Some(before + 1) {
            self.blame(|| format!("after {before} came {seq:?}"));
        }
        self.everyone[person].seq = seq.unwrap_or(before);
    }
}

impl Handler for People {
    fn packet(&mut self, socket: usize, packet: Packet<'_>, out: &mut Outgoing, _: Instant) {
        let person = self.sockets[socket];
        match packet {
            // Messages received before the client is up to date are repeated in the next answer.
            Packet::Event(event) if event.starts_with(b"[\"message\",") && self.everyone[person].back => {
                let seq = self.seq.number(event, b"\"seq\":");
                self.next(person, seq);
            }
            Packet::Connected => self.join(person, out),
            Packet::Ack(_, answer) => self.joined(socket, answer, out),
            _ => {}
        }
    }

    fn closed(&mut self, socket: usize, _: &str) {
        let person = self.sockets[socket];
        if !std::mem::take(&mut self.everyone[person].back) {
            self.connecting -= 1;
        }
        self.lost.push(person);
    }
}

/// Returns how often a gateway has read the history of rooms.
async fn reads(metrics: &str) -> anyhow::Result<f64> {
    let text = reqwest::get(metrics).await?.text().await?;
    let count = text.lines().find_map(|line| line.strip_prefix("confab_history_reads_total "));
    Ok(count.map_or(Ok(0.0), str::parse)?)
}
