//! A session over a WebSocket. Frames from the client are parsed and unmasked by tungstenite, fed from a buffer that all sockets
//! of a thread share, so that an idle socket keeps none. Frames to the client come ready from the outbox, and everything that
//! is queued goes out in one write.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IoSlice, Read, Write};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};
use tungstenite::error::{CapacityError, Error as WsError};
use tungstenite::protocol::{Message, Role, WebSocketConfig, WebSocketContext};

use super::outbox::Close;
use super::packet::{Frame, Malformed};
use super::session::{Heartbeat, Session, Transport};

/// Read at once from a socket, into a buffer that all sockets of a thread share.
const SCRATCH: usize = 64 * 1024;
/// What the parser keeps for each socket.
const CODEC_BUFFER: usize = 256;
/// Most frames in one write.
const SLICES: usize = 64;
/// A client that takes nothing for so long is closed.
const STUCK: Duration = Duration::from_secs(10);
/// How long the probe of an upgrade may take.
const PROBE: Duration = Duration::from_secs(10);
/// How long what a client still sends is read after the end, so that it can read the end.
const LINGER: Duration = Duration::from_secs(2);

thread_local! {
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into_boxed_slice());
}

/// Why a connection ends.
enum End {
    /// The peer is gone.
    Gone,
    /// The peer, or what it sent, is not to be listened to any more; the RFC 6455 close code tells it why.
    Refused(u16),
}

impl From<io::Error> for End {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

struct Connection {
    stream: TcpStream,
    codec: WebSocketContext,
    /// Taken from the outbox and not written yet; of the first so many bytes are written.
    pending: VecDeque<Frame>,
    written: usize,
}

/// Carries a session over an upgraded connection until it ends.
pub async fn serve(upgraded: hyper::upgrade::Upgraded, session: Arc<Session>, probe: bool) {
    // The accept loop serves exactly this type.
    let Ok(parts) = upgraded.downcast::<TokioIo<TcpStream>>() else { return };
    let config = WebSocketConfig::default()
        .read_buffer_size(CODEC_BUFFER)
        .max_message_size(Some(session.edge.config.max_packet))
        .max_frame_size(Some(session.edge.config.max_packet));
    let codec = WebSocketContext::from_partially_read(parts.read_buf.into(), Role::Server, Some(config));
    let mut connection = Connection { stream: parts.io.into_inner(), codec, pending: VecDeque::new(), written: 0 };
    if probe && !connection.probe(&session).await {
        return;
    }
    let end = connection.run(&session).await;
    session.finish();
    drop(session);
    if let Err(End::Refused(code)) = end {
        connection.say_goodbye(code).await;
    }
}

impl Connection {
    /// Plays the upgrade: the client's `2probe`, our `3probe`, its `5`. `false`: it came to nothing, and polling goes on.
    async fn probe(&mut self, session: &Arc<Session>) -> bool {
        let mut probed = false;
        let mut upgraded = false;
        let played = timeout(PROBE, async {
            while !upgraded {
                self.stream.readable().await?;
                let answers = self.read(&mut Vec::new(), |packet| match packet {
                    Message::Text(text) if text.as_str() == "2probe" && !probed => {
                        probed = true;
                        Ok(Some(Frame::engine("3probe")))
                    }
                    Message::Text(text) if text.as_str() == "5" && probed && !upgraded => {
                        upgraded = true;
                        *session.transport() = Transport::WebSocket;
                        Ok(None)
                    }
                    // Packets may follow the upgrade at once.
                    Message::Text(text) if upgraded => session.receive(text.as_str()).map(|()| None),
                    Message::Binary(data) if upgraded => session.receive_binary(data).map(|()| None),
                    _ => Err(Malformed("not a probe")),
                })?;
                self.pending.extend(answers);
                while !self.write()? {
                    self.stream.writable().await?;
                }
            }
            Ok::<(), End>(())
        });
        if matches!(played.await, Ok(Ok(()))) {
            return true;
        }
        if upgraded {
            session.finish();
        } else {
            session.probe_failed();
        }
        false
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
        let mut sent = 0;
        // Since when the client has taken nothing.
        let mut stuck: Option<Instant> = None;
        loop {
            let close = session.outbox.take(&mut self.pending, sent);
            if close == Some(Close::Now) {
                return Err(End::Refused(1001));
            }
            let before = self.unwritten();
            let all = self.write_counted(&mut sent)?;
            if all && close.is_some() {
                return Err(End::Refused(1000));
            }
            stuck = match stuck {
                _ if all => None,
                Some(since) if self.unwritten() == before => Some(since),
                _ => Some(Instant::now()),
            };
            let next = stuck.map_or(heartbeat.next(session), |since| heartbeat.next(session).min(since + STUCK));
            if timer.deadline() != next {
                timer.as_mut().reset(next);
            }
            let ready = poll_fn(|context| {
                if session.outbox.poll(context).is_ready() {
                    return Poll::Ready(Ok(Ready::Outbox));
                }
                if !session.socket.is_full()
                    && let Poll::Ready(readable) = self.stream.poll_read_ready(context)
                {
                    return Poll::Ready(readable.map(|()| Ready::Read));
                }
                if !all && let Poll::Ready(writable) = self.stream.poll_write_ready(context) {
                    return Poll::Ready(writable.map(|()| Ready::Write));
                }
                timer.as_mut().poll(context).map(|()| Ok(Ready::Time))
            });
            match ready.await? {
                Ready::Read => {
                    let mut control = Vec::new();
                    self.read(&mut control, |message| match message {
                        Message::Text(text) => session.receive(text.as_str()).map(|()| None),
                        Message::Binary(data) => session.receive_binary(data).map(|()| None),
                        Message::Close(_) => {
                            session.outbox.close(Close::Flushed);
                            Ok(None)
                        }
                        Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => Ok(None),
                    })?;
                    if !control.is_empty() {
                        session.outbox.push(Frame::raw(control));
                    }
                }
                Ready::Write | Ready::Outbox => {}
                Ready::Time => {
                    if stuck.is_some_and(|since| since.elapsed() >= STUCK) {
                        metrics::counter!("confab_outbox_closes_total", "reason" => "stuck").increment(1);
                        return Err(End::Gone);
                    }
                    if Instant::now() >= heartbeat.next(session) && !heartbeat.tick(session) {
                        return Err(End::Refused(1000));
                    }
                    // What a burst needed is not kept by an idle socket.
                    self.pending.shrink_to(4);
                }
            }
        }
    }

    /// Reads what has arrived and hands each message to `take`; frames that it returns are collected. Answers of the protocol
    /// itself (pongs) are appended to `control`.
    fn read(
        &mut self,
        control: &mut Vec<u8>,
        mut take: impl FnMut(Message) -> Result<Option<Frame>, Malformed>,
    ) -> Result<Vec<Frame>, End> {
        let mut answers = Vec::new();
        BUFFER.with_borrow_mut(|buffer| {
            let length = match self.stream.try_read(buffer) {
                Ok(0) => return Err(End::Gone),
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                Err(error) => return Err(error.into()),
            };
            let mut feed = Feed { input: &buffer[..length], output: control };
            loop {
                match self.codec.read(&mut feed) {
                    Ok(message) => answers.extend(take(message).map_err(|_| End::Refused(1002))?),
                    Err(WsError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => return Ok(answers),
                    Err(WsError::Capacity(CapacityError::MessageTooLong { .. })) => return Err(End::Refused(1009)),
                    Err(WsError::ConnectionClosed | WsError::Io(_)) => return Ok(answers),
                    Err(WsError::Utf8(_)) => return Err(End::Refused(1007)),
                    Err(_) => return Err(End::Refused(1002)),
                }
            }
        })
    }

    fn unwritten(&self) -> (usize, usize) {
        (self.pending.len(), self.written)
    }

    /// Writes what is pending; `true` when all of it is written.
    fn write(&mut self) -> io::Result<bool> {
        self.write_counted(&mut 0)
    }

    /// The same; `sent` becomes the bytes of the frames that are written whole.
    fn write_counted(&mut self, sent: &mut usize) -> io::Result<bool> {
        *sent = 0;
        while !self.pending.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let mut count = 0;
            for (slice, frame) in slices.iter_mut().zip(&self.pending) {
                *slice = IoSlice::new(if count == 0 { &frame.websocket()[self.written..] } else { frame.websocket() });
                count += 1;
            }
            match self.stream.try_write_vectored(&slices[..count]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(length) => self.written += length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
            while let Some(first) = self.pending.front().map(|frame| frame.websocket().len())
                && self.written >= first
            {
                self.written -= first;
                *sent += first;
                self.pending.pop_front();
            }
        }
        Ok(true)
    }

    /// Says why, and reads on for a moment: closing with unread data resets the connection, and the peer might lose the end.
    async fn say_goodbye(mut self, code: u16) {
        let goodbye = async {
            if self.pending.is_empty() {
                let [high, low] = code.to_be_bytes();
                self.stream.write_all(&[0x88, 2, high, low]).await?;
            }
            self.stream.shutdown().await?;
            loop {
                self.stream.readable().await?;
                match BUFFER.with_borrow_mut(|buffer| self.stream.try_read(buffer)) {
                    Ok(0) => return Ok::<(), io::Error>(()),
                    Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                    _ => {}
                }
            }
        };
        let _ = timeout(LINGER, goodbye).await;
    }
}

/// What has been read, as the parser's stream.
struct Feed<'a> {
    input: &'a [u8],
    output: &'a mut Vec<u8>,
}

impl Read for Feed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.input.is_empty() {
            true => Err(io::ErrorKind::WouldBlock.into()),
            false => self.input.read(buffer),
        }
    }
}

impl Write for Feed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.output.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
