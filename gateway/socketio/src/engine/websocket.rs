//! A session over a WebSocket. The outbox holds encoded frames, and everything queued goes out in one write.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use hyper::upgrade::Upgraded;
use rustix::net::{Shutdown, shutdown};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};
use tungstenite::protocol::Message as Received;

use super::READ_STALL_LIMIT;
use super::decoder::{self, Decoder};
use crate::application::Application;
use crate::ending::Ending;
use crate::frame::Frame;
use crate::heartbeat::Heartbeat;
use crate::metrics::METRICS;
use crate::outbox::{Close, Flushed};
use crate::packet::Malformed;
use crate::server::Server;
use crate::session::Session;

/// How long the end of a session may take to reach its client.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);
/// How long the probe of an upgrade may take.
const PROBE_LIMIT: Duration = Duration::from_secs(10);
/// How long the client's remaining data is read after the end, so that the client can read the end.
const CLOSE_LINGER: Duration = Duration::from_secs(2);

/// Smaller changes of what the parser holds are not counted.
const STEP: usize = 4096;

struct Connection {
    stream: Arc<TcpStream>,
    decoder: Decoder,
    /// This many bytes of an unfinished message are counted in the outbox.
    held: usize,
}

/// Serves a session over an upgraded connection until it ends.
pub async fn serve<A: Application>(
    server: Arc<Server<A>>,
    upgraded: Upgraded,
    session: Arc<Session<A::Client>>,
    probe: bool,
) {
    let Some((stream, ahead)) = (server.into_tcp)(upgraded) else {
        return server.close(&session, Ending::ConnectionLost);
    };
    let decoder = Decoder::new(ahead, server.max_packet(&session));
    let mut connection = Connection { stream: Arc::new(stream), decoder, held: 0 };
    // What comes before and after is boxed, so that an idle socket has no space for it.
    if probe && !Box::pin(connection.probe(&server, &session)).await {
        return session.outbox.release(connection.held);
    }
    session.outbox.attach(connection.stream.clone());
    let ending = connection.run(&server, &session).await.map_or_else(|ending| ending, |()| Ending::ConnectionLost);
    session.outbox.release(connection.held);
    server.close(&session, ending);
    let code = match ending {
        // The client reads nothing any more.
        Ending::ConnectionLost | Ending::Stuck => None,
        _ => session.ending().close_code(),
    };
    // Within a frame nothing else can be sent.
    let whole = session.outbox.detach();
    drop(session);
    if let Some(code) = code {
        Box::pin(connection.close(whole.then_some(code))).await;
    }
}

impl Connection {
    /// Performs the upgrade: the client's `2probe`, our `3probe`, its `5`. `false`: it failed, and polling continues.
    async fn probe<A: Application>(&mut self, server: &Arc<Server<A>>, session: &Arc<Session<A::Client>>) -> bool {
        let mut probed = false;
        let mut asked = false;
        let mut upgraded = false;
        // What follows the upgrade at once.
        let mut behind = Vec::new();
        let played = timeout(PROBE_LIMIT, async {
            while !asked {
                tokio::select! {
                    readable = self.stream.readable() => readable?,
                    () = session.outbox.closed() => return Err(Ending::ConnectionLost),
                }
                let (mut control, mut answers) = (Vec::new(), Vec::new());
                self.decoder.read(&self.stream, &mut control, |received| match received {
                    received if asked => {
                        behind.push(received);
                        Ok(())
                    }
                    Received::Text(text) if text.as_str() == "2probe" && !probed => {
                        probed = true;
                        answers.push(Frame::engine("3probe"));
                        Ok(())
                    }
                    Received::Text(text) if text.as_str() == "5" && probed => {
                        asked = true;
                        Ok(())
                    }
                    Received::Ping(_) | Received::Pong(_) => Ok(()),
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
                    () = session.outbox.closed() => return Err(Ending::ConnectionLost),
                }
            }
            for received in behind {
                receive(server, session, received)?;
            }
            Ok::<(), Ending>(())
        });
        let played = matches!(played.await, Ok(Ok(())));
        if !played && upgraded {
            server.close(session, Ending::Malformed);
        } else if !played {
            session.probe_failed();
        }
        played
    }

    async fn run<A: Application>(
        &mut self,
        server: &Arc<Server<A>>,
        session: &Arc<Session<A::Client>>,
    ) -> Result<(), Ending> {
        enum Ready {
            Read,
            Write,
            Outbox,
            Time,
        }
        let mut heartbeat = Heartbeat::new(&server.config);
        let mut timer = pin!(sleep_until(heartbeat.next(&*server.app, session)));
        // When the connection ends unless the client takes something, or everything, before.
        let mut give_up: Option<Instant> = None;
        self.decoder.feed(&[], &mut Vec::new(), |received| receive(server, session, received))?;
        server.settled(session);
        let mut is_known = false;
        loop {
            if !is_known && session.is_known() {
                is_known = true;
                self.decoder.allow(server.max_packet(session));
            }
            let close = session.outbox.look();
            if close == Some(Close::Now) {
                return Err(session.ending());
            }
            let flushed = session.outbox.write()?;
            if flushed == Flushed::All && close.is_some() {
                return Err(session.ending());
            }
            give_up = match (flushed, give_up) {
                (_, None) if close.is_some() => Some(Instant::now() + CLOSE_LIMIT),
                (Flushed::All, _) => None,
                // Once the session is closing, progress alone does not extend the deadline.
                (_, Some(at)) if close.is_some() => Some(at.min(Instant::now() + CLOSE_LIMIT)),
                (Flushed::Elsewhere, at) | (Flushed::Nothing, at @ Some(_)) => at,
                (Flushed::Some | Flushed::Nothing, _) => Some(Instant::now() + READ_STALL_LIMIT),
            };
            let blocked = matches!(flushed, Flushed::Some | Flushed::Nothing);
            let next = give_up
                .map_or(heartbeat.next(&*server.app, session), |at| heartbeat.next(&*server.app, session).min(at));
            if timer.deadline() != next {
                timer.as_mut().reset(next);
            }
            let ready = poll_fn(|context| {
                if session.outbox.poll(context).is_ready() {
                    return Poll::Ready(Ok(Ready::Outbox));
                }
                if !server.app.is_paused(session)
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
                    self.decoder.read(&self.stream, &mut control, |received| receive(server, session, received))?;
                    server.settled(session);
                    self.count(session);
                    if !control.is_empty() {
                        session.outbox.push(Frame::raw(control));
                    }
                }
                Ready::Write | Ready::Outbox => {}
                Ready::Time => {
                    if give_up.is_some_and(|at| at <= Instant::now()) {
                        METRICS.outbox_closes.hit("stuck");
                        return Err(Ending::Stuck);
                    }
                    heartbeat.tick(&server.app, &server.config, session)?;
                    // An idle socket does not keep the memory of a burst.
                    session.outbox.shrink();
                }
            }
        }
    }

    /// Updates the counted bytes of an unfinished message.
    fn count<C>(&mut self, session: &Session<C>) {
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
    async fn close(self, code: Option<u16>) {
        let closing = async {
            if let Some([high, low]) = code.map(u16::to_be_bytes) {
                self.write_all(&[0x88, 2, high, low]).await?;
            }
            shutdown(&self.stream, Shutdown::Write)?;
            while decoder::discard(&self.stream) {
                self.stream.readable().await?;
            }
            Ok::<(), io::Error>(())
        };
        let _ = timeout(CLOSE_LINGER, closing).await;
    }
}

fn receive<A: Application>(
    server: &Server<A>,
    session: &Arc<Session<A::Client>>,
    received: Received,
) -> Result<(), Malformed> {
    match received {
        Received::Text(text) => server.receive(session, text.as_str()),
        Received::Binary(data) => server.receive_binary(session, data),
        Received::Close(_) => {
            session.close_after_flush(Ending::ClientClosed);
            Ok(())
        }
        Received::Ping(_) | Received::Pong(_) | Received::Frame(_) => Ok(()),
    }
}
