//! The operations of a client that are the same over both transports.

use anyhow::Context;
use serde_json::Value;
use tokio::time::timeout;

use super::{Inbox, PACKET_LIMIT, event};

/// A client of either transport.
#[allow(async_fn_in_trait, reason = "callers know the type, and with it whether its futures may move between threads")]
pub trait Client {
    /// Its received packets.
    fn inbox(&mut self) -> &mut Inbox;

    /// Sends Engine.IO messages, together if the transport can.
    ///
    /// # Errors
    /// When they are rejected, or the connection has ended.
    async fn send_all(&mut self, packets: &[String]) -> anyhow::Result<()>;

    /// Waits for a packet and stores it in the inbox.
    ///
    /// # Errors
    /// When the session or its connection ends.
    async fn fill(&mut self) -> anyhow::Result<()>;

    /// Waits until the received packets satisfy a condition.
    ///
    /// # Errors
    /// When the session ends first, or after the time limit; the message contains `what`.
    async fn until<T>(&mut self, what: &str, condition: impl Fn(&mut Inbox) -> Option<T>) -> anyhow::Result<T> {
        let met = async {
            loop {
                if let Some(value) = condition(self.inbox()) {
                    return anyhow::Ok(value);
                }
                self.fill().await?;
            }
        };
        timeout(PACKET_LIMIT, met)
            .await
            .map_err(anyhow::Error::from)
            .flatten()
            .with_context(|| format!("waiting for {what}"))
    }

    /// Emits several events together; returns their acknowledgement numbers.
    ///
    /// # Errors
    /// When they cannot be sent.
    async fn emit_all(&mut self, name: &str, arguments: &[Value]) -> anyhow::Result<Vec<u64>> {
        let numbers = arguments.iter().map(|_| self.inbox().next_ack(name)).collect::<Vec<_>>();
        let packets = arguments.iter().zip(&numbers).map(|(argument, number)| event(name, argument, *number));
        self.send_all(&packets.collect::<Vec<_>>()).await?;
        Ok(numbers)
    }

    /// Emits an event without waiting for its acknowledgement; returns the acknowledgement's number.
    ///
    /// # Errors
    /// When it cannot be sent.
    async fn emit_later(&mut self, name: &str, argument: &Value) -> anyhow::Result<u64> {
        Ok(self.emit_all(name, std::slice::from_ref(argument)).await?[0])
    }

    /// Emits an event and waits for the acknowledgement's argument.
    ///
    /// # Errors
    /// When no acknowledgement arrives.
    async fn emit(&mut self, name: &str, argument: Value) -> anyhow::Result<Value> {
        let number = self.emit_later(name, &argument).await?;
        self.ack(number).await
    }

    /// Waits for the acknowledgement with this number.
    ///
    /// # Errors
    /// When it does not arrive.
    async fn ack(&mut self, number: u64) -> anyhow::Result<Value> {
        self.until(&format!("acknowledgement {number}"), |inbox| inbox.acks.remove(&number)).await
    }

    /// Takes the acknowledgement with this number, if it has been received.
    fn taken_ack(&mut self, number: u64) -> Option<Value> {
        self.inbox().acks.remove(&number)
    }

    /// Waits for the next event with this name.
    ///
    /// # Errors
    /// When it does not arrive.
    async fn event(&mut self, name: &str) -> anyhow::Result<Value> {
        self.until(name, |inbox| inbox.event(name)).await
    }

    /// Returns every offset that a stock client would have kept for its recovery, in order.
    fn offsets(&mut self) -> &[String] {
        &self.inbox().offsets
    }

    /// Takes every received event.
    fn taken_events(&mut self) -> Vec<(String, Value)> {
        self.inbox().events.drain(..).collect()
    }
}
