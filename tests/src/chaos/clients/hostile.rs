//! Clients that take as much as they can get, at rates that leave a small machine usable. They are promised nothing,
//! but the promises to other clients must hold beside them.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::super::history::Attacks;
use super::super::schedule::Dice;
use super::super::world::World;
use super::ANSWER_LIMIT;
use crate::api::{Account, unique};
use crate::form::{BOUNDARY, content_type, file_headers};
use crate::load::attack::net::{Http, Route, open_session};
use crate::plan::Role;
use crate::raw::{connect, event};

/// The source address of hostile clients.
const SOURCE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);
/// Polling sessions that never poll; repeats of a long message per POST; pause between POSTs.
const SILENT: usize = 4;
const REPEATS: usize = 20;
const POSTS: Duration = Duration::from_millis(500);
/// Handshakes on one connection; pause before the next ones.
const HANDSHAKES: usize = 50;
const FLOODS: Duration = Duration::from_millis(500);
/// Clients that log in with a wrong password; their pause.
const LOGINS: usize = 2;
const GUESSES: Duration = Duration::from_millis(500);
/// Uploads at 1 kB/s; their duration.
const UPLOADS: usize = 3;
const PIECES: usize = 20;
/// Pause between two searches.
const SEARCHES: Duration = Duration::from_millis(250);

/// One hostile client.
struct Hostile {
    /// The attack, for the report.
    what: &'static str,
    world: Arc<World>,
    account: Account,
    room: String,
    key: String,
    dice: Dice,
}

/// The running attackers.
pub struct Crowd {
    tasks: JoinSet<()>,
}

impl Crowd {
    /// Starts the attackers.
    ///
    /// # Errors
    /// When the server rejects their account.
    pub async fn begin(world: &Arc<World>, dice: &mut Dice) -> anyhow::Result<Self> {
        let account = world.api.signup().await?;
        let (room, key) = (world.api.room(&account).await?, unique("original"));
        let message = json!({"roomId": room, "content": "x".repeat(16_000), "clientMessageId": key});
        world.api.post("/api/messages", &account, message).await?.expect(201)?;
        let mut tasks = JoinSet::new();
        let mut one = |what| Hostile {
            what,
            world: world.clone(),
            account: account.clone(),
            room: room.clone(),
            key: key.clone(),
            dice: dice.split(),
        };
        for _ in 0..SILENT {
            tasks.spawn(one("repeats that are never read").again(POSTS, Hostile::stay_silent));
        }
        for _ in 0..LOGINS {
            tasks.spawn(one("logins with a wrong password").again(GUESSES, Hostile::guess));
        }
        for _ in 0..UPLOADS {
            tasks.spawn(one("slow uploads").again(POSTS, Hostile::upload));
        }
        tasks.spawn(one("handshakes").again(FLOODS, Hostile::shake_hands));
        tasks.spawn(one("searches").again(SEARCHES, Hostile::search));
        Ok(Self { tasks })
    }

    /// Ends the attackers and closes their connections.
    pub async fn end(mut self) {
        self.tasks.shutdown().await;
    }
}

impl Hostile {
    /// Attacks one gateway after another.
    async fn again(mut self, gap: Duration, attack: impl AsyncFn(&Self, Route) -> anyhow::Result<()>) {
        loop {
            let n = self.dice.below(self.world.gateways.len() as u64) as u16 + 1;
            let port = self.world.cluster.plan.port((Role::Gateway, n));
            let refused = attack(&self, Route { to: ([127, 0, 0, 1], port).into(), from: SOURCE }).await.is_err();
            self.note(|attacks| attacks.refused += u64::from(refused));
            sleep(gap + Duration::from_millis(self.dice.below(100))).await;
        }
    }

    fn made(&self, times: usize) {
        self.note(|attacks| attacks.made += times as u64);
    }

    fn note(&self, change: impl FnOnce(&mut Attacks)) {
        self.world.recorder.note(|records| change(records.attacks.entry(self.what).or_default()));
    }

    /// A session that repeats a long message until the server closes it.
    async fn stay_silent(&self, route: Route) -> anyhow::Result<()> {
        let mut http = timeout(ANSWER_LIMIT, route.http()).await??;
        let path = timeout(ANSWER_LIMIT, open_session(&mut http)).await??;
        let enter = connect(&self.account.token);
        timeout(ANSWER_LIMIT, http.post(&path, "", enter.as_bytes())).await??.expect(200)?;
        let message = json!({"roomId": self.room, "content": "x", "clientMessageId": self.key});
        let packets =
            (0..REPEATS).map(|number| event("message", &message, number as u64)).collect::<Vec<_>>().join("\u{1e}");
        loop {
            timeout(ANSWER_LIMIT, http.post(&path, "", packets.as_bytes())).await??.expect(200)?;
            self.made(REPEATS);
            sleep(POSTS).await;
        }
    }

    /// Sessions that are opened and then abandoned.
    async fn shake_hands(&self, route: Route) -> anyhow::Result<()> {
        let mut http = timeout(ANSWER_LIMIT, route.http()).await??;
        for _ in 0..HANDSHAKES {
            timeout(ANSWER_LIMIT, open_session(&mut http)).await??;
            self.made(1);
        }
        Ok(())
    }

    async fn guess(&self, route: Route) -> anyhow::Result<()> {
        let body = json!({"username": self.account.username, "password": unique("guess")}).to_string();
        let mut http = timeout(ANSWER_LIMIT, route.http()).await??;
        let answer =
            timeout(ANSWER_LIMIT, http.post("/api/auth/login", "Content-Type: application/json\r\n", body.as_bytes()))
                .await??;
        self.made(1);
        ensure!(answer.status == 401, "{}", answer.status);
        Ok(())
    }

    async fn search(&self, route: Route) -> anyhow::Result<()> {
        let mut http = timeout(ANSWER_LIMIT, route.http()).await??;
        let bearer = self.bearer();
        timeout(ANSWER_LIMIT, http.get(&format!("GET /api/rooms?q={}", unique("zz")), &bearer)).await??.expect(200)?;
        self.made(1);
        Ok(())
    }

    /// A slow upload that is abandoned.
    async fn upload(&self, route: Route) -> anyhow::Result<()> {
        let mut http: Http = timeout(ANSWER_LIMIT, route.http()).await??;
        let headers = format!("{}Content-Type: {}\r\nContent-Length: 1000000\r\n", self.bearer(), content_type());
        let head = http.head("POST /api/files/upload", &headers);
        let part = format!("--{BOUNDARY}\r\n{}\r\n", file_headers("slow.bin", "application/octet-stream"));
        http.stream().write_all([head, part].concat().as_bytes()).await?;
        self.made(1);
        for _ in 0..PIECES {
            http.stream().write_all(&[b'x'; 1000]).await?;
            sleep(Duration::from_secs(1)).await;
        }
        Ok(())
    }

    fn bearer(&self) -> String {
        format!("Authorization: Bearer {}\r\n", self.account.token)
    }
}
