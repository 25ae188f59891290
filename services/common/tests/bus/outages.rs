//! Outages of Redis: listeners are notified, and afterwards receive all their channels again, including channels
//! requested during the outage.

use confab_common::Secret;
use confab_common::bus::{Bus, Notice, Notices, Subscriptions};
use confab_common::readiness::Readiness;
use confab_common::testing::{self, SilentProxy};

use super::redis_server::RedisServer;
use super::{NOTICE_LIMIT, channel, eventually, listen, next};

/// A listener with a channel, and a publisher.
pub struct Pair {
    publisher: Bus,
    subscriptions: Subscriptions,
    notices: Notices,
    channel: String,
}

impl Pair {
    pub async fn at(url: &Secret) -> Self {
        let open = || Bus::open(url, Some(&testing::cluster_key("a key").bus)).expect("a valid URL");
        let channel = channel("outage");
        let (subscriptions, notices) = listen(&open(), &[&channel]).await;
        let mut pair = Self { publisher: open(), subscriptions, notices, channel };
        pair.talk("before").await;
        pair
    }

    /// Publishes until the message is received: the publisher reconnects on its own and does not signal when it has.
    async fn receive(&mut self, channel: &str, said: &str) {
        let hearing = async {
            loop {
                self.publisher.publish(channel, said.to_owned());
                let soon = tokio::time::timeout(std::time::Duration::from_millis(50), self.notices.next());
                match soon.await {
                    Ok(Some(Notice::Message { channel: at, payload })) if *at == *channel && payload == said => return,
                    // A duplicate of an earlier message, or the end of an outage.
                    Ok(Some(_)) | Err(_) => {}
                    Ok(None) => panic!("the bus has ended"),
                }
            }
        };
        tokio::time::timeout(NOTICE_LIMIT, hearing).await.expect("the message must arrive");
    }

    async fn talk(&mut self, said: &str) {
        let channel = self.channel.clone();
        self.receive(&channel, said).await;
    }

    /// Waits for a change of the bus's state; messages may arrive first.
    async fn notified(&mut self, change: Notice) {
        loop {
            if next(&mut self.notices).await == change {
                return;
            }
        }
    }

    /// Subscribes to another channel while the bus is down, and receives it when the bus is back.
    pub async fn survives(mut self, back: impl AsyncFnOnce()) {
        self.notified(Notice::Down).await;
        let asked_meanwhile = channel("meanwhile");
        let (subscriptions, wanted) = (self.subscriptions.clone(), asked_meanwhile.clone());
        let confirmed = tokio::spawn(async move { subscriptions.subscribe(wanted).await });
        self.publisher.publish(&*self.channel, "no listener receives this");
        assert!(!confirmed.is_finished());
        back().await;
        self.notified(Notice::Up).await;
        tokio::time::timeout(NOTICE_LIMIT, confirmed).await.expect("a confirmation").expect("no panic");
        self.talk("back").await;
        self.receive(&asked_meanwhile, "also").await;
    }
}

#[tokio::test]
async fn redis_restarts_empty() {
    let mut redis = RedisServer::start().await;
    let pair = Pair::at(&redis.url()).await;
    redis.kill();
    pair.survives(async || redis.restart().await).await;
}

#[tokio::test]
async fn redis_is_killed_repeatedly() {
    let mut redis = RedisServer::start().await;
    let mut pair = Pair::at(&redis.url()).await;
    for _ in 0..5 {
        redis.kill();
        pair.notified(Notice::Down).await;
        redis.restart().await;
        pair.notified(Notice::Up).await;
    }
    pair.talk("still here").await;
}

#[tokio::test]
async fn stopped_and_continued() {
    let redis = RedisServer::start().await;
    let pair = Pair::at(&redis.url()).await;
    redis.signal("STOP");
    pair.survives(async || redis.signal("CONT")).await;
}

#[tokio::test]
async fn redis_stops_answering() {
    let redis = RedisServer::start().await;
    let proxy = SilentProxy::to(&redis.url()).await;
    let pair = Pair::at(&proxy.url()).await;
    proxy.silence();
    pair.survives(async || proxy.resume()).await;
}

#[tokio::test]
async fn redis_is_unreachable_at_start() {
    let mut redis = RedisServer::start().await;
    redis.kill();
    let bus = Bus::open(&redis.url(), None).expect("a valid URL");
    let ((subscriptions, mut notices), channel) = (bus.listen(), channel("early"));
    let (early, wanted) = (subscriptions.clone(), channel.clone());
    let confirmed = tokio::spawn(async move { early.subscribe(wanted).await });
    redis.restart().await;
    assert_eq!(next(&mut notices).await, Notice::Up);
    tokio::time::timeout(NOTICE_LIMIT, confirmed).await.expect("a confirmation").expect("no panic");
    let mut pair = Pair { publisher: bus, subscriptions, notices, channel };
    pair.talk("at last").await;
}

#[tokio::test]
async fn outage_is_reported_in_readiness_until_its_end() {
    let mut redis = RedisServer::start().await;
    redis.kill();
    let readiness = Readiness::default();
    let _bus = Bus::reporting(&redis.url(), None, &readiness).expect("a valid URL");
    for _ in 0..2 {
        // Without any publication.
        eventually("the outage is reported", async || readiness.notes().starts_with("; bus: ")).await;
        redis.restart().await;
        eventually("the outage has ended", async || readiness.notes().is_empty()).await;
        redis.kill();
    }
}

/// A lone message is delivered after the server has closed idle connections.
#[tokio::test]
async fn closed_idle_connections_lose_no_message() {
    let redis = RedisServer::start().await;
    let mut pair = Pair::at(&redis.url()).await;
    for said in ["one", "two", "three"] {
        // The listener's connection is of another type.
        let ended: usize = redis.ask("CLIENT KILL TYPE normal SKIPME yes").await.expect("an answer");
        assert!(ended >= 1, "the publisher's connection was open");
        pair.publisher.publish(&*pair.channel, said);
        loop {
            match next(&mut pair.notices).await {
                Notice::Message { payload, .. } if payload == said => break,
                // A duplicate of the first message.
                Notice::Message { payload, .. } => assert_eq!(payload, "before"),
                other => panic!("{other:?}"),
            }
        }
    }
}
