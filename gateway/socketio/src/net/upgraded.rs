//! The TCP streams under upgraded connections.

use bytes::Bytes;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Takes the TCP stream out of an upgraded connection, with the bytes that were read from it after the request; `None` when
/// the connection is of another kind. An HTTP server with a stream type of its own passes its own function.
pub type IntoTcp = fn(Upgraded) -> Option<(TcpStream, Bytes)>;

/// The [`IntoTcp`] of `axum::serve` and of hyper's HTTP/1.1 connections over a plain TCP stream.
pub fn from_hyper(upgraded: Upgraded) -> Option<(TcpStream, Bytes)> {
    let upgraded = match upgraded.downcast::<TokioIo<TcpStream>>() {
        Ok(parts) => return Some((parts.io.into_inner(), parts.read_buf)),
        Err(upgraded) => upgraded,
    };
    let parts = hyper_util::server::conn::auto::upgrade::downcast::<TokioIo<TcpStream>>(upgraded).ok()?;
    Some((parts.io.into_inner(), parts.read_buf))
}
