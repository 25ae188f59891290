//! What a client does in the same way over both transports.

use anyhow::Context;
use serde_json::Value;
use tokio::time::timeout;

use super::{Inbox, PATIENCE, event};

/// A client of either transport.
#[allow(async_fn_in_trait, reason = "callers know the type, and with it whether its futures may move between threads")]
pub trait Client {
    /// What it has received.
    fn inbox(&mut self) -> &mut Inbox;

    /// Sends Engine.IO messages, together where the transport can.
    ///
    /// # Errors
    /// When they are refused, or the connection is gone.
    async fn send_all(&mut self, packets: &[String]) -> anyhow::Result<()>;

    /// Waits until something is received, and takes it into the inbox.
    ///
    /// # Errors
    /// When the session or its connection ends.
    async fn fill(&mut self) -> anyhow::Result<()>;

    /// Waits until what was received satisfies a condition.
    ///
    /// # Errors
    /// When the session ends before, or it takes too long; the message says `what` was waited for.
    async fn until<T>(&mut self, what: &str, condition: impl Fn(&mut Inbox) -> Option<T>) -> anyhow::Result<T> {
        let met = async {
            loop {
                if let Some(value) = condition(self.inbox()) {
                    return anyhow::Ok(value);
                }
                self.fill().await?;
            }
        };
        timeout(PATIENCE, met).await.map_err(anyhow::Error::from).flatten().with_context(|| format!("waiting for {what}"))
    }

    /// Emits several events together; the numbers of their acknowledgements.
    ///
    /// # Errors
    /// When they cannot be sent.
    async fn emit_all(&mut self, name: &str, arguments: &[Value]) -> anyhow::Result<Vec<u64>> {
        let numbers = arguments.iter().map(|_| self.inbox().next_ack(name)).collect::<Vec<_>>();
        let packets = arguments.iter().zip(&numbers).map(|(argument, number)| event(name, argument, *number));
        self.send_all(&packets.collect::<Vec<_>>()).await?;
        Ok(numbers)
    }

    /// Emits without waiting for the acknowledgement, whose number is returned.
    ///
    /// # Errors
    /// When it cannot be sent.
    async fn emit_later(&mut self, name: &str, argument: &Value) -> anyhow::Result<u64> {
        Ok(self.emit_all(name, std::slice::from_ref(argument)).await?[0])
    }

    /// Emits and waits for the acknowledgement's argument.
    ///
    /// # Errors
    /// When none comes.
    async fn emit(&mut self, name: &str, argument: Value) -> anyhow::Result<Value> {
        let number = self.emit_later(name, &argument).await?;
        self.ack(number).await
    }

    /// The acknowledgement of that number.
    ///
    /// # Errors
    /// When it does not come.
    async fn ack(&mut self, number: u64) -> anyhow::Result<Value> {
        self.until(&format!("acknowledgement {number}"), |inbox| inbox.acks.remove(&number)).await
    }

    /// The acknowledgement of that number, if it has been received.
    fn taken_ack(&mut self, number: u64) -> Option<Value> {
        self.inbox().acks.remove(&number)
    }

    /// The next event of that name that has not been taken yet.
    ///
    /// # Errors
    /// When it does not come.
    async fn event(&mut self, name: &str) -> anyhow::Result<Value> {
        self.until(name, |inbox| inbox.event(name)).await
    }

    /// Every offset that a stock client would have kept for its recovery, one after another.
    fn offsets(&mut self) -> &[String] {
        &self.inbox().offsets
    }

    /// Every event that has been received and not been taken yet.
    fn taken_events(&mut self) -> Vec<(String, Value)> {
        self.inbox().events.drain(..).collect()
    }
}
