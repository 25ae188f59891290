//! A session over a WebSocket (RFC 6455). The outbox contains encoded frames; a flush writes all queued frames.

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

/// How long the server tries to send the last frames of a session.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);
/// The time limit for the probe of an upgrade.
const PROBE_LIMIT: Duration = Duration::from_secs(10);
/// How long the server reads and discards data after the close frame, so that the client can read the close frame.
const CLOSE_LINGER: Duration = Duration::from_secs(2);

/// Smaller changes of the parser's incomplete bytes are not counted.
const STEP: usize = 4096;

struct Connection {
    stream: Arc<TcpStream>,
    decoder: Decoder,
    /// The number of bytes of an incomplete packet that the outbox counts.
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
    // The probe and the close are boxed, so that an idle connection has no memory for them.
    if probe && !Box::pin(connection.probe(&server, &session)).await {
        return session.outbox.release(connection.held);
    }
    session.outbox.attach(connection.stream.clone());
    let ending = connection.run(&server, &session).await.map_or_else(|ending| ending, |()| Ending::ConnectionLost);
    session.outbox.release(connection.held);
    server.close(&session, ending);
    let code = match ending {
        // The client reads no more frames.
        Ending::ConnectionLost | Ending::Stuck => None,
        _ => session.ending().close_code(),
    };
    // After a partly written frame, no close frame can follow.
    let whole = session.outbox.detach();
    drop(session);
    if let Some(code) = code {
        Box::pin(connection.close(whole.then_some(code))).await;
    }
}

impl Connection {
    /// Performs the upgrade: the client sends `2probe`, the server `3probe`, the client `5`. `false` when it fails and
    /// polling continues. <https://github.com/socketio/engine.io-protocol#upgrade>
    async fn probe<A: Application>(&mut self, server: &Arc<Server<A>>, session: &Arc<Session<A::Client>>) -> bool {
        let mut probed = false;
        let mut upgrade_requested = false;
        let mut upgraded = false;
        // Packets that arrived together with `5`.
        let mut after_upgrade = Vec::new();
        let probed_in_time = timeout(PROBE_LIMIT, async {
            while !upgrade_requested {
                tokio::select! {
                    readable = self.stream.readable() => readable?,
                    () = session.outbox.closed() => return Err(Ending::ConnectionLost),
                }
                let (mut control, mut answers) = (Vec::new(), Vec::new());
                self.decoder.read(&self.stream, &mut control, |received| match received {
                    received if upgrade_requested => {
                        after_upgrade.push(received);
                        Ok(())
                    }
                    Received::Text(text) if text.as_str() == "2probe" && !probed => {
                        probed = true;
                        answers.push(Frame::engine("3probe"));
                        Ok(())
                    }
                    Received::Text(text) if text.as_str() == "5" && probed => {
                        upgrade_requested = true;
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
                // A pending GET is answered within 100 ms.
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
            for received in after_upgrade {
                receive(server, session, received)?;
            }
            Ok::<(), Ending>(())
        });
        let probed_in_time = matches!(probed_in_time.await, Ok(Ok(())));
        if !probed_in_time && upgraded {
            server.close(session, Ending::Malformed);
        } else if !probed_in_time {
            session.probe_failed();
        }
        probed_in_time
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
        // The connection ends at this time unless the client reads some frames or, while the session closes, all
        // frames.
        let mut stall_deadline: Option<Instant> = None;
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
            stall_deadline = match (flushed, stall_deadline) {
                (_, None) if close.is_some() => Some(Instant::now() + CLOSE_LIMIT),
                (Flushed::All, _) => None,
                // While the session closes, progress does not extend the deadline.
                (_, Some(at)) if close.is_some() => Some(at.min(Instant::now() + CLOSE_LIMIT)),
                (Flushed::Elsewhere, at) | (Flushed::Nothing, at @ Some(_)) => at,
                (Flushed::Some | Flushed::Nothing, _) => Some(Instant::now() + READ_STALL_LIMIT),
            };
            let blocked = matches!(flushed, Flushed::Some | Flushed::Nothing);
            let next = stall_deadline
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
                    // A large packet may take longer than the ping timeout.
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
                    if stall_deadline.is_some_and(|at| at <= Instant::now()) {
                        METRICS.outbox_closes.hit("stuck");
                        return Err(Ending::Stuck);
                    }
                    heartbeat.tick(&server.app, &server.config, session)?;
                    // Frees the memory of a burst on an idle connection.
                    session.outbox.shrink();
                }
            }
        }
    }

    /// Updates the counted bytes of an incomplete packet.
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

    /// Sends the close frame, then reads for up to 2 s: closing with unread data resets the connection, and the peer
    /// could lose the close frame.
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
