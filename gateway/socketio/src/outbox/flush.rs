//! Writes queued frames to a WebSocket's stream. One flush runs at a time, so frames keep their order whichever task
//! flushes.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use crate::frame::Frame;
use tokio::net::TcpStream;

use super::queue::{Cost, Writer};
use super::{Close, Outbox};

/// Small frames are copied together up to this many bytes: one plain write of them costs less than a vectored one.
const COPIED: usize = 16 * 1024;

thread_local! {
    static COPY: RefCell<Vec<u8>> = RefCell::new(Vec::with_capacity(COPIED));
}

/// The outcome of a flush.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flushed {
    /// Everything queued at its beginning is written; the task is woken for later frames.
    All,
    /// The stream accepted some bytes and is full.
    Some,
    /// The stream accepts nothing now.
    Nothing,
    /// Another task flushes, and wakes the client's task if anything is left to do.
    Elsewhere,
}

impl Outbox {
    /// Frames are written to this stream from now on.
    pub fn attach(&self, stream: Arc<TcpStream>) {
        self.queue.lock().stream = Some(stream);
    }

    /// Nothing is written from now on. `false` when the last write ended within a frame.
    pub fn detach(&self) -> bool {
        let mut queue = self.queue.lock();
        queue.stream = None;
        queue.written == 0 && queue.writer != Writer::Flushing
    }

    /// Writes what the stream accepts and leaves the rest to the client's task. Never waits.
    pub fn flush(&self) {
        match self.write() {
            Ok(Flushed::All) if self.closing().is_none() => {}
            Ok(Flushed::Elsewhere) => {}
            Ok(_) => self.nudge(),
            Err(_) => self.close(Close::Now),
        }
    }

    /// [`flush`](Self::flush) for the client's task, which must call it again when the stream is writable.
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
            // These frames were queued in reliance on this flush. One flush writes once, so that other clients wait
            // less.
            self.wake_task(queue);
        }
        result.map(|all| match (all, batch.progress) {
            (true, _) => Flushed::All,
            (false, true) => Flushed::Some,
            (false, false) => Flushed::Nothing,
        })
    }
}

/// Frames on their way out.
struct Batch {
    frames: VecDeque<Frame>,
    /// This many bytes of the first frame are written.
    written: usize,
    /// The cost of the frames that are written whole.
    sent: Cost,
    progress: bool,
}

impl Batch {
    /// `true` when the whole batch is written, `false` when the stream is full.
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

    /// One write: the first frame as it is, or as many small frames as fit together.
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
    async fn a_promised_flush_writes_what_was_queued_before_it_and_lets_the_task_sleep() {
        let (outbox, mut client) = pair().await;
        let frames = ["a", "b", "c"].map(Frame::engine);
        assert!(outbox.push_to_flush(&frames[..1]));
        assert!(!outbox.push_to_flush(&frames[1..2]), "promised once is enough");
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
    async fn a_stream_that_takes_no_more_is_left_to_the_task() {
        let (outbox, mut client) = pair().await;
        let large = Frame::engine(&"x".repeat(16 * 1024 * 1024));
        assert!(outbox.push_to_flush(std::slice::from_ref(&large)));
        outbox.flush();
        woken(&outbox).await;
        assert_eq!(outbox.look(), None);
        let last = Frame::engine("last");
        assert!(!outbox.push_to_flush(std::slice::from_ref(&last)), "the bound holds for what is blocked");
        assert_eq!(outbox.look(), Some(Close::Now));
        // A frame that has begun is finished although the rest is replaced.
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
    async fn without_a_stream_the_task_is_woken() {
        let outbox = Outbox::new(Arc::default());
        assert!(!outbox.push_to_flush(&[Frame::engine("a")]));
        woken(&outbox).await;
    }

    #[tokio::test]
    async fn a_broken_stream_closes() {
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
