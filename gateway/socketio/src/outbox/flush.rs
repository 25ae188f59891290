//! Writes queued frames to a WebSocket's stream. Any task may flush, but only one flush runs at a time, so frames keep
//! their order.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use crate::frame::Frame;
use tokio::net::TcpStream;

use super::queue::{Cost, Writer};
use super::{Close, Outbox};

/// Small frames are copied into one buffer of up to this many bytes: a plain write costs less than a vectored one.
const COPIED: usize = 16 * 1024;

thread_local! {
    static COPY: RefCell<Vec<u8>> = RefCell::new(Vec::with_capacity(COPIED));
}

/// The outcome of a flush.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flushed {
    /// All frames that were queued when the flush began are written. The client's task is woken for later frames.
    All,
    /// The stream has accepted some bytes and is full.
    Some,
    /// The stream is full and has accepted no byte.
    Nothing,
    /// Another task flushes, and wakes the client's task if frames remain; or the process resumes after a pause.
    Elsewhere,
}

impl Outbox {
    /// Sets the stream that later flushes write to.
    pub fn attach(&self, stream: Arc<TcpStream>) {
        self.queue.lock().stream = Some(stream);
    }

    /// Removes the stream, so later flushes write nothing. `false` when the last write ended within a frame.
    pub fn detach(&self) -> bool {
        let mut queue = self.queue.lock();
        queue.stream = None;
        queue.written == 0 && queue.writer != Writer::Flushing
    }

    /// Writes as much as the stream accepts and leaves the rest to the client's task. Never blocks.
    pub fn flush(&self) {
        match self.write() {
            Ok(Flushed::All) if self.closing().is_none() => {}
            Ok(Flushed::Elsewhere) => {}
            Ok(_) => self.nudge(),
            Err(_) => self.close(Close::Now),
        }
    }

    /// Flushes for the client's task, which must call this again when the stream is writable.
    ///
    /// # Errors
    /// When the stream is broken.
    pub fn write(&self) -> io::Result<Flushed> {
        let mut queue = self.queue.lock();
        if queue.writer == Writer::Flushing || self.budget.is_paused() {
            return Ok(Flushed::Elsewhere);
        }
        let stream = match &queue.stream {
            Some(stream) if !queue.frames.is_empty() => stream.clone(),
            _ => {
                queue.writer = Writer::Unassigned;
                return Ok(Flushed::All);
            }
        };
        queue.writer = Writer::Flushing;
        let (frames, written) = (std::mem::take(&mut queue.frames), std::mem::take(&mut queue.written));
        let mut batch = Batch { frames, written, sent: Cost::default(), progress: false };
        drop(queue);
        let result = batch.write(&stream);
        let mut queue = self.queue.lock();
        let more = !queue.frames.is_empty();
        queue.written = batch.written;
        batch.frames.append(&mut queue.frames);
        let blocked = matches!(result, Ok(false));
        queue.frames = batch.frames;
        queue.writer = if blocked { Writer::Blocked } else { Writer::Unassigned };
        if batch.sent.all > 0 {
            queue.subtract(batch.sent, &self.changed, &self.budget);
        }
        if more && !blocked {
            // The tasks that queued these frames relied on this flush. It does not write again, so that the outboxes of
            // other clients are flushed sooner.
            self.wake_task(queue);
        }
        result.map(|all| match (all, batch.progress) {
            (true, _) => Flushed::All,
            (false, true) => Flushed::Some,
            (false, false) => Flushed::Nothing,
        })
    }
}

/// The frames of one flush.
struct Batch {
    frames: VecDeque<Frame>,
    /// This many bytes of the first frame are written.
    written: usize,
    /// The cost of the frames that are written completely.
    sent: Cost,
    progress: bool,
}

impl Batch {
    /// Returns `true` when the batch is written, `false` when the stream is full.
    fn write(&mut self, stream: &TcpStream) -> io::Result<bool> {
        while !self.frames.is_empty() {
            match self.write_once(stream) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(length) => self.written += length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
            self.progress = true;
            while let Some(first) = self.frames.front()
                && self.written >= first.websocket().len()
            {
                self.written -= first.websocket().len();
                self.sent.add(first);
                self.frames.pop_front();
            }
        }
        Ok(true)
    }

    /// Writes once: the first frame alone, or a copy of as many small frames as fit into the buffer.
    fn write_once(&self, stream: &TcpStream) -> io::Result<usize> {
        let Some(first) = self.frames.front() else { return Ok(0) };
        let first = &first.websocket()[self.written..];
        if self.frames.len() == 1 || first.len() >= COPIED {
            return stream.try_write(first);
        }
        COPY.with_borrow_mut(|copy| {
            copy.clear();
            copy.extend_from_slice(first);
            for frame in self.frames.iter().skip(1) {
                if copy.len() + frame.websocket().len() > COPIED {
                    break;
                }
                copy.extend_from_slice(frame.websocket());
            }
            stream.try_write(copy)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    async fn pair() -> (Outbox, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let outbox = Outbox::new(Arc::default());
        outbox.attach(Arc::new(listener.accept().await.unwrap().0));
        (outbox, client)
    }

    async fn woken(outbox: &Outbox) {
        let look = std::future::poll_fn(|context| outbox.poll(context));
        tokio::time::timeout(Duration::from_secs(5), look).await.unwrap();
    }

    #[tokio::test]
    async fn a_promised_flush_writes_all_frames_without_waking_the_task() {
        let (outbox, mut client) = pair().await;
        let frames = ["a", "b", "c"].map(Frame::engine);
        assert!(outbox.push_to_flush(&frames[..1]));
        assert!(!outbox.push_to_flush(&frames[1..2]), "one promise is enough");
        outbox.push(frames[2].clone());
        assert!(!outbox.queue.lock().woken);
        outbox.flush();
        assert!(!outbox.queue.lock().woken && outbox.is_empty());
        assert_eq!(outbox.queue.lock().cost.all, 0);
        let expected = frames.iter().map(Frame::websocket).collect::<Vec<_>>().concat();
        let mut read = vec![0; expected.len()];
        client.read_exact(&mut read).await.unwrap();
        assert_eq!(read, expected);
        assert!(outbox.push_to_flush(&frames[..1]));
    }

    #[tokio::test]
    async fn the_task_continues_when_the_stream_is_full() {
        let (outbox, mut client) = pair().await;
        let large = Frame::engine(&"x".repeat(16 * 1024 * 1024));
        assert!(outbox.push_to_flush(std::slice::from_ref(&large)));
        outbox.flush();
        woken(&outbox).await;
        assert_eq!(outbox.look(), None);
        let last = Frame::engine("last");
        assert!(!outbox.push_to_flush(std::slice::from_ref(&last)), "the bound applies to a blocked stream");
        assert_eq!(outbox.look(), Some(Close::Now));
        // A partly written frame is completed although the others are dropped.
        let reader = tokio::spawn(async move {
            let mut read = vec![0; large.websocket().len()];
            client.read_exact(&mut read).await.unwrap();
            read == large.websocket()
        });
        while outbox.write().unwrap() != Flushed::All {
            tokio::task::yield_now().await;
        }
        assert!(reader.await.unwrap());
    }

    #[tokio::test]
    async fn the_task_is_woken_without_a_stream() {
        let outbox = Outbox::new(Arc::default());
        assert!(!outbox.push_to_flush(&[Frame::engine("a")]));
        woken(&outbox).await;
    }

    #[tokio::test]
    async fn a_broken_stream_closes_the_transport() {
        let (outbox, client) = pair().await;
        drop(client);
        while outbox.closing().is_none() {
            outbox.push_to_flush(&[Frame::engine("a")]);
            outbox.flush();
            tokio::task::yield_now().await;
        }
        assert_eq!(outbox.closing(), Some(Close::Now));
    }
}
