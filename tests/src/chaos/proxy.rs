//! A TCP proxy that injects faults: between the services and their servers, and between clients and gateways.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::sleep;

/// Maximum bytes forwarded at once.
const CHUNK: usize = 16 * 1024;

/// The behaviour of the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Forwards everything.
    Pass,
    /// Forwards nothing, but keeps the bytes: they arrive afterwards.
    Stall,
    /// Accepts everything and forwards nothing, like a network that loses packets. Affected connections are reset
    /// afterwards.
    Blackhole,
    /// Resets every connection, old and new.
    Refuse,
    /// Forwards this number of bytes per second, each way.
    Slow(u32),
    /// Resets each connection before more than this number of bytes pass it, one way.
    CutAfter(u64),
}

#[derive(Clone, Copy)]
struct Order {
    mode: Mode,
    /// The target of new connections.
    upstream: SocketAddr,
    /// Connections of an older generation are reset.
    generation: u64,
}

/// A listening proxy; it ends when it is dropped.
pub struct Proxy {
    port: u16,
    order: watch::Sender<Order>,
    harm: Arc<AtomicU64>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Proxy {
    /// Starts a proxy on a free port, to a port on this machine.
    ///
    /// # Errors
    /// When there is no free port.
    pub async fn to(port: u16) -> io::Result<Self> {
        let upstream = loopback(port);
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let port = listener.local_addr()?.port();
        let (order, orders) = watch::channel(Order { mode: Mode::Pass, upstream, generation: 0 });
        let harm = Arc::<AtomicU64>::default();
        let harmed = harm.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(connection(client, orders.clone(), harmed.clone()));
            }
        });
        Ok(Self { port, order, harm, accepting })
    }

    /// The port that it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Changes the behaviour.
    pub fn set(&self, mode: Mode) {
        self.order.send_modify(|order| {
            // The bytes that a blackhole swallowed are missing from its streams, and `Refuse` resets every connection.
            order.generation += u64::from(order.mode == Mode::Blackhole || mode == Mode::Refuse);
            order.mode = mode;
        });
    }

    /// Directs new connections to another port of this machine, as when a name has a new address; existing connections
    /// stay.
    pub fn lead_to(&self, port: u16) {
        self.order.send_modify(|order| order.upstream = loopback(port));
    }

    /// Resets every existing connection; new ones are accepted.
    pub fn cut(&self) {
        self.order.send_modify(|order| order.generation += 1);
    }

    /// Returns how often the proxy did harm: connections reset or stalled, chunks swallowed or delayed.
    pub fn harm(&self) -> u64 {
        self.harm.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

fn loopback(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

async fn connection(mut client: TcpStream, mut orders: watch::Receiver<Order>, harm: Arc<AtomicU64>) {
    let Order { mode, upstream, generation } = *orders.borrow_and_update();
    let mut server = match mode {
        Mode::Refuse => None,
        _ => TcpStream::connect(upstream).await.ok(),
    };
    let served = async {
        let Some(server) = &mut server else { return Err(Cut) };
        let _ = (server.set_nodelay(true), client.set_nodelay(true));
        let ((client_in, client_out), (server_in, server_out)) = (client.split(), server.split());
        let (up, down) =
            (pump(client_in, server_out, orders.clone(), &harm), pump(server_in, client_out, orders.clone(), &harm));
        tokio::try_join!(up, down).map(drop)
    };
    let mut other = orders.clone();
    let ended = tokio::select! {
        ended = served => ended,
        _ = other.wait_for(|order| order.generation != generation) => Err(Cut),
    };
    if ended.is_err() {
        harm.fetch_add(1, Ordering::Relaxed);
        // A reset sends no FIN.
        let _ = (client.set_zero_linger(), server.map(|server| server.set_zero_linger()));
    }
}

/// The error of a connection that must be reset.
struct Cut;

/// Forwards bytes one way until their end, or until the mode ends the connection.
async fn pump(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut orders: watch::Receiver<Order>,
    harm: &AtomicU64,
) -> Result<(), Cut> {
    let mut buffer = vec![0; CHUNK];
    let mut passed = 0_u64;
    let hurt = || harm.fetch_add(1, Ordering::Relaxed);
    loop {
        let mode = orders.borrow_and_update().mode;
        let most = match mode {
            Mode::Slow(rate) => (rate as usize / 10).clamp(1, CHUNK),
            _ => CHUNK,
        };
        let read = tokio::select! {
            read = from.read(&mut buffer[..most]), if mode != Mode::Stall => read,
            changed = orders.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return Err(Cut),
            },
        };
        let count = match read {
            Ok(0) => return Ok(_ = to.shutdown().await),
            Ok(count) => count,
            Err(_) => return Err(Cut),
        };
        passed += count as u64;
        // The mode may have changed while no bytes arrived.
        let mode = orders.borrow().mode;
        match mode {
            Mode::CutAfter(bytes) if passed > bytes => return Err(Cut),
            Mode::Blackhole => {
                hurt();
                continue;
            }
            Mode::Stall => {
                hurt();
                orders.wait_for(|order| order.mode != Mode::Stall).await.map_err(|_| Cut)?;
            }
            Mode::Slow(rate) => {
                hurt();
                sleep(Duration::from_secs_f64(count as f64 / f64::from(rate.max(1)))).await;
            }
            _ => {}
        }
        to.write_all(&buffer[..count]).await.map_err(|_| Cut)?;
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    const ANSWER_LIMIT: Duration = Duration::from_secs(10);

    /// Starts a server that returns every byte.
    async fn echo() -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut input, mut output) = stream.split();
                    tokio::io::copy(&mut input, &mut output).await
                });
            }
        });
        port
    }

    async fn said(stream: &mut TcpStream, text: &str) -> io::Result<String> {
        stream.write_all(text.as_bytes()).await?;
        received(stream, text.len()).await
    }

    async fn received(stream: &mut TcpStream, count: usize) -> io::Result<String> {
        let mut answer = vec![0; count];
        timeout(ANSWER_LIMIT, stream.read_exact(&mut answer)).await??;
        Ok(String::from_utf8(answer).unwrap())
    }

    #[tokio::test]
    async fn each_mode_does_harm_and_ends() {
        let proxy = Proxy::to(echo().await).await.unwrap();
        let open = async || TcpStream::connect(("127.0.0.1", proxy.port())).await.unwrap();
        let mut first = open().await;
        assert_eq!(said(&mut first, "one").await.unwrap(), "one");
        assert_eq!(proxy.harm(), 0);

        proxy.set(Mode::Stall);
        first.write_all(b"two").await.unwrap();
        assert!(
            timeout(Duration::from_millis(100), first.peek(&mut [0])).await.is_err(),
            "the connection must be stalled"
        );
        proxy.set(Mode::Slow(100));
        assert_eq!(received(&mut first, 3).await.unwrap(), "two");
        assert!(proxy.harm() > 0);

        proxy.set(Mode::Blackhole);
        first.write_all(b"three").await.unwrap();
        assert!(timeout(Duration::from_millis(100), first.peek(&mut [0])).await.is_err(), "no byte must return");
        proxy.set(Mode::Pass);
        assert!(received(&mut first, 5).await.is_err(), "swallowed bytes must end the stream");

        let mut second = open().await;
        assert_eq!(said(&mut second, "four").await.unwrap(), "four");
        proxy.cut();
        assert!(said(&mut second, "five").await.is_err());
        proxy.set(Mode::Refuse);
        assert!(said(&mut open().await, "six").await.is_err());

        proxy.set(Mode::CutAfter(4));
        let mut third = open().await;
        assert_eq!(said(&mut third, "1234").await.unwrap(), "1234");
        let _ = third.write_all(b"5").await;
        assert!(received(&mut third, 1).await.is_err());
    }
}
