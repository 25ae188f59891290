//! A complete Socket.IO server that sends every event back: `cargo run -p confab-socketio --example echo [ADDRESS]`

use std::sync::Arc;

use axum::http::HeaderMap;
use confab_socketio::net::ClientAddress;
use confab_socketio::{Application, Config, Event, Malformed, Registry, Server, Session, routes};
use uuid::Uuid;

struct Echo(Arc<Registry<()>>);

impl Application for Echo {
    type Client = ();

    fn open(&self, _: &HeaderMap, _: ClientAddress) -> ((), usize) {
        ((), 0)
    }

    fn connect(self: &Arc<Self>, session: &Arc<Session<()>>, _auth: &str) {
        self.0.identify(session, Uuid::new_v4());
        session.accept(None);
    }

    fn event(self: &Arc<Self>, session: &Arc<Session<()>>, event: Event<'_>) -> Result<(), Malformed> {
        match event.ack {
            Some(id) => session.acknowledge(id, &event.argument, event.attachments),
            None => session.emit(&event.name, &event.argument, event.attachments),
        }
        Ok(())
    }
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let registry = Arc::new(Registry::default());
    let server = Server::new(Arc::new(Echo(registry.clone())), Config::default(), registry);
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:3000".into());
    let listener = tokio::net::TcpListener::bind(address).await?;
    println!("http://{}", listener.local_addr()?);
    axum::serve(listener, routes(&server)).await
}
