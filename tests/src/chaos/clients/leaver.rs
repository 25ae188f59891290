//! A user who logs in and out, changes the password, ends all sessions and is suspended, and chats in between. Each
//! session has a socket, which must receive nothing after the end of the session.

use std::sync::Arc;
use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::super::history::{At, Outcome, Receiver, What};
use super::super::schedule::Dice;
use super::super::world::World;
use super::acts::{Acted, Request, act};
use super::sender::{Letter, deliver};
use super::{id, listener};
use crate::api::{Account, PASSWORD, unique};

/// The pause between two acts.
const PAUSE: Duration = Duration::from_millis(500);
/// How long a session waits for its socket to join a room before it ends.
const JOIN_LIMIT: Duration = Duration::from_secs(3);

/// Logs in and out until the run ends.
///
/// # Errors
/// When an answer has no account.
pub async fn come_and_go(world: Arc<World>, account: Account, dice: Dice) -> anyhow::Result<()> {
    let user = id(&account)?;
    let mut leaver = Leaver {
        world,
        user,
        name: account.username.clone(),
        password: PASSWORD.into(),
        listening: JoinSet::new(),
        dice,
    };
    let mut main = leaver.listen(account);
    while !leaver.world.is_ending() {
        leaver.round(&mut main).await?;
    }
    // The task ends, and with it its sockets.
    leaver.world.recorder.note(|records| {
        let own = records.receivers.iter_mut().filter(|receiver| receiver.user == user);
        own.for_each(|receiver| receiver.ended = true);
    });
    Ok(())
}

/// A session with a socket.
struct Session {
    account: Account,
    receiver: usize,
}

struct Leaver {
    world: Arc<World>,
    user: Uuid,
    name: String,
    password: String,
    /// The sockets of all sessions. Those of ended sessions go on, because late events are violations.
    listening: JoinSet<()>,
    dice: Dice,
}

impl Leaver {
    /// Ends sessions in each of the four ways.
    async fn round(&mut self, main: &mut Session) -> anyhow::Result<()> {
        let second = self.log_in().await?;
        self.chat(main, &second).await;
        let ended = self.ends(&second.account, What::LogOut, Method::POST, "/api/auth/logout", json!(null), 401).await;
        self.ended(&[&second], ended);

        let third = self.log_in().await?;
        self.chat(main, &third).await;
        let new = unique("a new password");
        let change = json!({"currentPassword": self.password, "newPassword": new});
        let path = "/api/auth/password";
        // A repeat finds that the current password is another one.
        let ended = self.ends(&main.account, What::ChangePassword, Method::PUT, path, change, 403).await;
        self.password = new;
        self.ended(&[&third], ended);

        let fourth = self.log_in().await?;
        self.chat(main, &fourth).await;
        let (path, all) = ("/api/auth/logout-all", json!({"current": true}));
        let ended = self.ends(&main.account, What::LogOutEverywhere, Method::POST, path, all, 401).await;
        self.ended(&[main, &fourth], ended);

        *main = self.log_in().await?;
        let fifth = self.log_in().await?;
        self.chat(main, &fifth).await;
        let ended = self.manage(What::Suspend, "suspend").await;
        self.ended(&[main, &fifth], ended);
        let forbidden = |outcome: &Outcome| *outcome == Outcome::Refused(403, "forbidden".into());
        act(&self.world, What::LogInSuspended, self.login(), forbidden).await;
        self.manage(What::Restore, "restore").await;
        *main = self.log_in().await?;
        Ok(())
    }

    async fn log_in(&mut self) -> anyhow::Result<Session> {
        let Acted { body, .. } = act(&self.world, What::LogIn, self.login(), |outcome| *outcome == Outcome::Done).await;
        Ok(self.listen(Account::of(&body)?))
    }

    fn login(&self) -> Request<'static> {
        let body = Some(json!({"username": self.name, "password": self.password}));
        Request { account: None, method: Method::POST, path: "/api/auth/login".into(), body }
    }

    /// Makes an act of the app's back end about the user.
    async fn manage(&self, what: What, path: &str) -> At {
        let path = format!("/api/admin/users/{}/{path}", self.user);
        let request = Request { account: Some(&self.world.key), method: Method::POST, path, body: None };
        act(&self.world, what, request, |outcome| *outcome == Outcome::Done).await.at
    }

    /// Opens the socket of a session.
    fn listen(&mut self, account: Account) -> Session {
        // Ended tasks need no memory.
        while self.listening.try_join_next().is_some() {}
        let (user, rooms) = (self.user, self.world.rooms.clone());
        let name = format!("session of {}", self.name);
        let receiver =
            self.world.recorder.receiver(Receiver { name, user, rooms, restless: true, ..Receiver::default() });
        let gateway = self.dice.below(2) as usize;
        self.listening.spawn(listener::listen(self.world.clone(), account.clone(), receiver, gateway, false));
        Session { account, receiver }
    }

    /// Waits for the socket of a session, and sends a message.
    async fn chat(&mut self, main: &Session, other: &Session) {
        let world = &self.world;
        // During a fault, the session may end before its socket joins a room.
        world.rest_until(JOIN_LIMIT, || world.recorder.has_joined(other.receiver)).await;
        let letter = Letter::new(world, self.user, &world.rooms, &mut self.dice);
        deliver(world, &main.account, &letter).await;
        world.rest(PAUSE).await;
    }

    /// Makes an act that ends sessions; `repeated` is the status of a repeat.
    async fn ends(
        &self,
        account: &Account,
        what: What,
        method: Method,
        path: &str,
        body: serde_json::Value,
        repeated: u64,
    ) -> At {
        let body = (!body.is_null()).then_some(body);
        let request = Request { account: Some(account), method, path: path.into(), body };
        let stands = |outcome: &Outcome| match outcome {
            Outcome::Refused(status, _) => *status == repeated,
            outcome => *outcome == Outcome::Done,
        };
        act(&self.world, what, request, stands).await.at
    }

    fn ended(&self, sessions: &[&Session], at: At) {
        self.world.recorder.note(|records| {
            sessions.iter().for_each(|session| records.receivers[session.receiver].logged_out = Some(at));
        });
    }
}
