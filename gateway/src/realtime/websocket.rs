//! A session over a WebSocket. The outbox holds encoded frames, and everything queued goes out in one write.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use confab_socketio::Frame;
use confab_socketio::decoder::{self, Decoder, End};
use confab_socketio::packet::Malformed;
use hyper_util::rt::TokioIo;
use rustix::net::{Shutdown, shutdown};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};
use tungstenite::protocol::Message;

use super::outbox::{Close, Flushed};
use super::session::{Heartbeat, STUCK, Session};
use crate::metrics::METRICS;
use crate::server::Stream;

/// How long the end of a session may take to reach its client.
const ENDING: Duration = Duration::from_secs(2);
/// How long the probe of an upgrade may take.
const PROBE: Duration = Duration::from_secs(10);
/// How long the client's remaining data is read after the end, so that the client can read the end.
const LINGER: Duration = Duration::from_secs(2);

/// Smaller changes of what the parser holds are not counted.
const STEP: usize = 4096;

struct Connection {
    stream: Arc<TcpStream>,
    decoder: Decoder,
    /// This many bytes of an unfinished message are counted in the outbox.
    held: usize,
}

/// Serves a session over an upgraded connection until it ends.
pub async fn serve(upgraded: hyper::upgrade::Upgraded, session: Arc<Session>, probe: bool) {
    // The accept loop serves exactly this type.
    let Ok(parts) = upgraded.downcast::<TokioIo<Stream>>() else { return session.finish() };
    let decoder = Decoder::new(parts.read_buf, session.socket.max_packet(&session));
    let mut connection = Connection { stream: Arc::new(parts.io.into_inner().into_inner()), decoder, held: 0 };
    // What comes before and after is boxed, so that an idle socket has no room for it.
    if probe && !Box::pin(connection.probe(&session)).await {
        return session.outbox.release(connection.held);
    }
    session.outbox.attach(connection.stream.clone());
    let end = connection.run(&session).await;
    session.outbox.release(connection.held);
    session.finish();
    // Within a frame nothing else can be sent.
    let whole = session.outbox.detach();
    drop(session);
    if let Err(End::Refused(code)) = end {
        Box::pin(connection.say_goodbye(whole.then_some(code))).await;
    }
}

impl Connection {
    /// Performs the upgrade: the client's `2probe`, our `3probe`, its `5`. `false`: it failed, and polling continues.
    async fn probe(&mut self, session: &Arc<Session>) -> bool {
        let mut probed = false;
        let mut asked = false;
        let mut upgraded = false;
        // What follows the upgrade at once.
        let mut behind = Vec::new();
        let played = timeout(PROBE, async {
            while !asked {
                tokio::select! {
                    readable = self.stream.readable() => readable?,
                    () = session.outbox.closed() => return Err(End::Gone),
                }
                let (mut control, mut answers) = (Vec::new(), Vec::new());
                self.decoder.read(&self.stream, &mut control, |message| match message {
                    message if asked => {
                        behind.push(message);
                        Ok(())
                    }
                    Message::Text(text) if text.as_str() == "2probe" && !probed => {
                        probed = true;
                        answers.push(Frame::engine("3probe"));
                        Ok(())
                    }
                    Message::Text(text) if text.as_str() == "5" && probed => {
                        asked = true;
                        Ok(())
                    }
                    Message::Ping(_) | Message::Pong(_) => Ok(()),
                    _ => Err(Malformed("not a probe")),
                })?;
                self.count(session);
                for frame in &answers {
                    self.write_all(frame.websocket()).await?;
                }
                self.write_all(&control).await?;
            }
            loop {
                // A GET that still waits is answered within a moment.
                let over = session.last_poll.over.notified();
                upgraded = session.upgrade();
                if upgraded {
                    break;
                }
                tokio::select! {
                    () = over => {}
                    () = session.outbox.closed() => return Err(End::Gone),
                }
            }
            for message in behind {
                receive(session, message).map_err(|_| End::Refused(1002))?;
            }
            Ok::<(), End>(())
        });
        let played = matches!(played.await, Ok(Ok(())));
        if !played && upgraded {
            session.finish();
        } else if !played {
            session.probe_failed();
        }
        played
    }

    async fn run(&mut self, session: &Arc<Session>) -> Result<(), End> {
        enum Ready {
            Read,
            Write,
            Outbox,
            Time,
        }
        let mut heartbeat = Heartbeat::new(session);
        let mut timer = pin!(sleep_until(heartbeat.next(session)));
        // When the connection ends unless the client takes something, or everything, before.
        let mut give_up: Option<Instant> = None;
        self.decoder.feed(&[], &mut Vec::new(), |message| receive(session, message))?;
        session.socket.start_lanes(session);
        let mut is_known = false;
        loop {
            if !is_known && session.socket.identity().is_some() {
                is_known = true;
                self.decoder.allow(session.socket.max_packet(session));
            }
            let close = session.outbox.look();
            if close == Some(Close::Now) {
                return Err(End::Refused(1001));
            }
            let flushed = session.outbox.write()?;
            if flushed == Flushed::All && close.is_some() {
                return Err(End::Refused(1000));
            }
            give_up = match (flushed, give_up) {
                (_, None) if close.is_some() => Some(Instant::now() + ENDING),
                (Flushed::All, _) => None,
                // Once the session is closing, progress alone does not extend the deadline.
                (_, Some(at)) if close.is_some() => Some(at.min(Instant::now() + ENDING)),
                (Flushed::Elsewhere, at) | (Flushed::Nothing, at @ Some(_)) => at,
                (Flushed::Some | Flushed::Nothing, _) => Some(Instant::now() + STUCK),
            };
            let blocked = matches!(flushed, Flushed::Some | Flushed::Nothing);
            let next = give_up.map_or(heartbeat.next(session), |at| heartbeat.next(session).min(at));
            if timer.deadline() != next {
                timer.as_mut().reset(next);
            }
            let ready = poll_fn(|context| {
                if session.outbox.poll(context).is_ready() {
                    return Poll::Ready(Ok(Ready::Outbox));
                }
                if !session.socket.is_paused()
                    && let Poll::Ready(readable) = self.stream.poll_read_ready(context)
                {
                    return Poll::Ready(readable.map(|()| Ready::Read));
                }
                if blocked && let Poll::Ready(writable) = self.stream.poll_write_ready(context) {
                    return Poll::Ready(writable.map(|()| Ready::Write));
                }
                timer.as_mut().poll(context).map(|()| Ok(Ready::Time))
            });
            match ready.await? {
                Ready::Read => {
                    // A large message may take longer than the answer to a ping.
                    session.touch();
                    let mut control = Vec::new();
                    self.decoder.read(&self.stream, &mut control, |message| receive(session, message))?;
                    session.socket.start_lanes(session);
                    self.count(session);
                    if !control.is_empty() {
                        session.outbox.push(Frame::raw(control));
                    }
                }
                Ready::Write | Ready::Outbox => {}
                Ready::Time => {
                    if give_up.is_some_and(|at| at <= Instant::now()) {
                        METRICS.outbox_closes.hit("stuck");
                        return Err(End::Gone);
                    }
                    if !heartbeat.tick(session) {
                        return Err(End::Refused(1000));
                    }
                    // An idle socket does not keep the memory of a burst.
                    session.outbox.shrink();
                }
            }
        }
    }

    /// Updates the counted bytes of an unfinished message.
    fn count(&mut self, session: &Session) {
        let unfinished = self.decoder.unfinished();
        if unfinished.abs_diff(self.held) >= STEP || (unfinished == 0 && self.held > 0) {
            session.outbox.hold(unfinished);
            session.outbox.release(std::mem::replace(&mut self.held, unfinished));
        }
    }

    async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.stream.try_write(bytes) {
                Ok(length) => bytes = &bytes[length..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.stream.writable().await?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Sends the reason, and reads on for a moment: closing with unread data resets the connection, and the peer might
    /// lose the close frame.
    async fn say_goodbye(self, code: Option<u16>) {
        let goodbye = async {
            if let Some([high, low]) = code.map(u16::to_be_bytes) {
                self.write_all(&[0x88, 2, high, low]).await?;
            }
            shutdown(&self.stream, Shutdown::Write)?;
            while decoder::discard(&self.stream) {
                self.stream.readable().await?;
            }
            Ok::<(), io::Error>(())
        };
        let _ = timeout(LINGER, goodbye).await;
    }
}

fn receive(session: &Arc<Session>, message: Message) -> Result<(), Malformed> {
    match message {
        Message::Text(text) => session.receive(text.as_str()),
        Message::Binary(data) => session.receive_binary(data),
        Message::Close(_) => {
            session.outbox.close(Close::Flushed);
            Ok(())
        }
        Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => Ok(()),
    }
}
