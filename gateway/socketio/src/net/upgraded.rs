//! The TCP streams of upgraded connections.

use bytes::Bytes;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Extracts the TCP stream from an upgraded connection, with the bytes that were read after the request; `None` when
/// the connection has another type. An HTTP server with its own stream type passes its own function to
/// [`Server::in_cluster`](crate::Server::in_cluster).
pub type IntoTcp = fn(Upgraded) -> Option<(TcpStream, Bytes)>;

/// The [`IntoTcp`] for `axum::serve` and for hyper's HTTP/1.1 connections over a `TcpStream`.
pub fn from_hyper(upgraded: Upgraded) -> Option<(TcpStream, Bytes)> {
    let upgraded = match upgraded.downcast::<TokioIo<TcpStream>>() {
        Ok(parts) => return Some((parts.io.into_inner(), parts.read_buf)),
        Err(upgraded) => upgraded,
    };
    let parts = hyper_util::server::conn::auto::upgrade::downcast::<TokioIo<TcpStream>>(upgraded).ok()?;
    Some((parts.io.into_inner(), parts.read_buf))
}
