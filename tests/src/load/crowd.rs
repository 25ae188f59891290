//! Many client sockets on one thread: one epoll, one buffer, and one write for all output that a read caused.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with, sockopt};

use super::wire::{Frame, Packet, push_frame, upgrade};

const SCRATCH: usize = 256 * 1024;
const EVENTS: usize = 1024;

#[derive(Debug, Clone)]
pub struct Target {
    address: SocketAddr,
    upgrade: Arc<str>,
}

impl Target {
    /// Resolves the server at `http://host:port`.
    ///
    /// # Errors
    /// When the URL has another form, or the host is unknown.
    pub fn new(url: &str) -> anyhow::Result<Self> {
        let host = url
            .strip_prefix("http://")
            .with_context(|| format!("{url} does not begin with http://"))?
            .trim_end_matches('/');
        let address = if host.contains(':') { host.to_socket_addrs() } else { (host, 80).to_socket_addrs() };
        let address = address
            .with_context(|| format!("cannot resolve {url}"))?
            .next()
            .with_context(|| format!("{url} has no address"))?;
        Ok(Self { address, upgrade: upgrade(host).into() })
    }
}

/// Handles received packets.
pub trait Handler {
    /// Handles a packet that the transport does not handle itself.
    fn packet(&mut self, socket: usize, packet: Packet<'_>, out: &mut Outgoing, now: Instant);
    /// Called when the server has closed a socket, or the socket has failed.
    fn closed(&mut self, socket: usize, why: &str);
}

/// Output of one socket.
#[derive(Debug, Default)]
pub struct Outgoing {
    bytes: Vec<u8>,
}

impl Outgoing {
    /// Sends an Engine.IO packet.
    pub fn text(&mut self, packet: &[u8]) {
        push_frame(&mut self.bytes, 1, packet);
    }
}

struct Socket {
    stream: TcpStream,
    /// The token for CONNECT.
    token: Arc<str>,
    upgraded: bool,
    /// Bytes of an incomplete packet.
    rest: Vec<u8>,
    out: Outgoing,
    waits_to_write: bool,
}

pub struct Crowd {
    epoll: OwnedFd,
    sockets: Vec<Option<Socket>>,
    events: Vec<epoll::Event>,
    scratch: Box<[u8]>,
}

impl Crowd {
    /// Creates a crowd without sockets.
    ///
    /// # Errors
    /// When the system call fails.
    pub fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Self { epoll, sockets: Vec::new(), events: Vec::with_capacity(EVENTS), scratch: vec![0; SCRATCH].into() })
    }

    /// Begins to connect a socket; returns its number. `source` is its loopback address.
    ///
    /// # Errors
    /// When the system has no more sockets or ports.
    pub fn open(&mut self, target: &Target, source: Option<Ipv4Addr>, token: Arc<str>) -> anyhow::Result<usize> {
        let family = if target.address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let fd = socket_with(family, SocketType::STREAM, flags, None).context("no more sockets (ulimit -n)")?;
        sockopt::set_tcp_nodelay(&fd, true)?;
        if let Some(source) = source {
            bind(&fd, &SocketAddrV4::new(source, 0)).context("no more ports")?;
        }
        match connect(&fd, &target.address) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(error).with_context(|| format!("cannot connect to {}", target.address)),
        }
        let number = self.sockets.len();
        epoll::add(
            &self.epoll,
            &fd,
            epoll::EventData::new_u64(number as u64),
            epoll::EventFlags::IN | epoll::EventFlags::OUT,
        )?;
        let out = Outgoing { bytes: target.upgrade.as_bytes().to_vec() };
        self.sockets.push(Some(Socket {
            stream: fd.into(),
            token,
            upgraded: false,
            rest: Vec::new(),
            out,
            waits_to_write: true,
        }));
        Ok(number)
    }

    /// Returns how many sockets were ever opened.
    pub fn len(&self) -> usize {
        self.sockets.len()
    }

    /// Returns whether no socket was ever opened.
    pub fn is_empty(&self) -> bool {
        self.sockets.is_empty()
    }

    /// Returns whether no socket is open.
    pub fn is_over(&self) -> bool {
        self.sockets.iter().all(Option::is_none)
    }

    /// Resets all connections without closing them, as when a network fails.
    pub fn reset(&mut self) {
        for socket in self.sockets.iter_mut().filter_map(Option::take) {
            // Without this option the sockets are closed too, but gracefully.
            let _ = sockopt::set_socket_linger(&socket.stream, Some(Duration::ZERO));
        }
    }

    /// Sends unsolicited output.
    pub fn send(&mut self, number: usize, handler: &mut impl Handler, what: Outgoing) {
        let Some(socket) = &mut self.sockets[number] else { return };
        socket.out.bytes.extend(what.bytes);
        let written = socket.flush(&self.epoll, number);
        self.close_on_error(number, written.map_err(Into::into), handler);
    }

    /// Waits until bytes arrive, at most `most`, and handles them.
    ///
    /// # Errors
    /// When the system call fails.
    pub fn turn(&mut self, handler: &mut impl Handler, most: Duration) -> io::Result<()> {
        let mut events = std::mem::take(&mut self.events);
        let most = Timespec::try_from(most).map_err(io::Error::other)?;
        match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&most)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in events.drain(..) {
            let number = event.data.u64() as usize;
            let Some(socket) = &mut self.sockets[number] else { continue };
            let handled = socket.ready(event.flags, &mut self.scratch, number, handler);
            let handled = handled.and_then(|()| socket.flush(&self.epoll, number).map_err(Into::into));
            self.close_on_error(number, handled, handler);
        }
        self.events = events;
        Ok(())
    }

    fn close_on_error(&mut self, number: usize, outcome: anyhow::Result<()>, handler: &mut impl Handler) {
        if let Err(error) = outcome {
            self.sockets[number] = None;
            handler.closed(number, &format!("{error:#}"));
        }
    }
}

impl Socket {
    fn ready(
        &mut self,
        flags: epoll::EventFlags,
        scratch: &mut [u8],
        number: usize,
        handler: &mut impl Handler,
    ) -> anyhow::Result<()> {
        if !flags.intersects(epoll::EventFlags::IN | epoll::EventFlags::HUP | epoll::EventFlags::ERR) {
            return Ok(());
        }
        let length = match self.stream.read(scratch) {
            Ok(0) => anyhow::bail!("closed by the server"),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        // Almost all frames arrive whole, and are parsed in place.
        if self.rest.is_empty() {
            let used = self.take(&scratch[..length], number, handler)?;
            self.rest.extend_from_slice(&scratch[used..length]);
        } else {
            let mut bytes = std::mem::take(&mut self.rest);
            bytes.extend_from_slice(&scratch[..length]);
            let used = self.take(&bytes, number, handler)?;
            self.rest = bytes.split_off(used);
        }
        Ok(())
    }

    /// Handles the complete packets; returns their length in bytes.
    fn take(&mut self, bytes: &[u8], number: usize, handler: &mut impl Handler) -> anyhow::Result<usize> {
        let now = Instant::now();
        let mut at = 0;
        if !self.upgraded {
            let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(0) };
            if !bytes.starts_with(b"HTTP/1.1 101") {
                anyhow::bail!("no WebSocket: {}", String::from_utf8_lossy(&bytes[..end.min(200)]));
            }
            self.upgraded = true;
            at = end + 4;
        }
        while let Some(Frame { opcode, payload }) = Frame::parse(bytes, at)? {
            at = payload.end;
            let payload = &bytes[payload];
            match (opcode, Packet::parse(payload)) {
                (1, Packet::Open) => self.out.text(format!("40{{\"token\":\"{}\"}}", self.token).as_bytes()),
                (1, Packet::Ping) => self.out.text(b"3"),
                (1, Packet::End(text)) => anyhow::bail!("ended: {}", String::from_utf8_lossy(text)),
                (1, packet) => handler.packet(number, packet, &mut self.out, now),
                (8, _) => anyhow::bail!(
                    "closed with {:?}",
                    payload.get(..2).map(|code| u16::from_be_bytes([code[0], code[1]]))
                ),
                (9, _) => push_frame(&mut self.out.bytes, 10, payload),
                _ => {}
            }
        }
        Ok(at)
    }

    fn flush(&mut self, epoll: &OwnedFd, number: usize) -> io::Result<()> {
        let mut written = 0;
        while written < self.out.bytes.len() {
            match self.stream.write(&self.out.bytes[written..]) {
                Ok(length) => written += length,
                // A socket that is not connected yet also returns would-block.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        self.out.bytes.drain(..written);
        let waits = !self.out.bytes.is_empty();
        if waits != self.waits_to_write {
            self.waits_to_write = waits;
            let flags = if waits { epoll::EventFlags::IN | epoll::EventFlags::OUT } else { epoll::EventFlags::IN };
            epoll::modify(epoll, &self.stream, epoll::EventData::new_u64(number as u64), flags)?;
        }
        Ok(())
    }
}
