//! Streams: bodies of any length that are proxied as they arrive.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use confab_common::grpc::{self, Call, Transport};
use futures::future::{BoxFuture, FutureExt};
use futures::stream::{self, BoxStream, Stream, StreamExt};
use parking_lot::Mutex;
use tonic::body::Body;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::server::NamedService;
use tonic::{Code, Request, Response, Status, Streaming};
use tower::{Service, service_fn};

use crate::{ATTEMPT_LIMIT, Way, all_ways, connect, eventually, one_attempt_is_lost, reach, serve, warm_up};

const CHUNK: Bytes = Bytes::from_static(&[7; 64 * 1024]);
/// Chunks of a large stream.
const LARGE_STREAM_CHUNKS: usize = 512;
/// Maximum unread bytes in transit.
const AHEAD: u64 = 2 * 1024 * 1024;
const DOWNLOAD: Call = Call::within(Duration::from_secs(30)).streaming_answer();
/// Time limit for an answer; a call without an answer by then hangs.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// A scripted service with byte streams.
#[derive(Clone)]
struct Streams {
    behaviour: Arc<Mutex<Behaviour>>,
    /// Calls that began, and calls that ended in any way.
    begun: Arc<AtomicU64>,
    ended: Arc<AtomicU64>,
    /// Bytes that one side sent, and bytes that the other side accepted.
    sent: Arc<AtomicU64>,
    taken: Arc<AtomicU64>,
}

#[derive(Clone, Copy)]
enum Behaviour {
    /// Reads to the end, then returns the number of bytes.
    Counts,
    /// Sends this number of chunks.
    Sends(usize),
    /// Sends many chunks and checks how fast they are accepted.
    SendsWatching,
    /// Reads one chunk and rejects the call.
    Refuses,
    /// Reads one chunk, then stops reading.
    Stops,
    /// Reads nothing and sends nothing.
    Hangs,
}

type Chunks = BoxStream<'static, Result<Bytes, Status>>;

impl Streams {
    fn new(behaviour: Behaviour) -> Self {
        let behaviour = Arc::new(Mutex::new(behaviour));
        Self { behaviour, begun: Arc::default(), ended: Arc::default(), sent: Arc::default(), taken: Arc::default() }
    }

    /// Sets the behaviour.
    fn is(&self, behaviour: Behaviour) {
        *self.behaviour.lock() = behaviour;
    }

    fn begun(&self) -> u64 {
        self.begun.load(Ordering::SeqCst)
    }

    fn ended(&self) -> u64 {
        self.ended.load(Ordering::SeqCst)
    }

    /// Yields many chunks; the transport must not request them much faster than the reader accepts them.
    fn chunks(&self) -> impl Stream<Item = Bytes> + Send + 'static {
        let (sent, taken) = (self.sent.clone(), self.taken.clone());
        stream::repeat(CHUNK).take(LARGE_STREAM_CHUNKS).inspect(move |_| {
            let sent = sent.fetch_add(CHUNK.len() as u64, Ordering::SeqCst);
            let ahead = sent.saturating_sub(taken.load(Ordering::SeqCst));
            assert!(ahead <= AHEAD, "{ahead} bytes are in transit");
        })
    }

    /// Accepts a chunk, with a pause now and then, so that a sender without back pressure gets ahead.
    async fn take(&self, chunk: &Bytes) {
        let taken = self.taken.fetch_add(chunk.len() as u64, Ordering::SeqCst);
        if (taken / CHUNK.len() as u64).is_multiple_of(16) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        } else {
            tokio::task::yield_now().await;
        }
    }

    async fn handle(self, mut request: Streaming<Bytes>) -> Result<Response<Chunks>, Status> {
        let call = Ongoing::new(&self);
        let behaviour = *self.behaviour.lock();
        match behaviour {
            Behaviour::Counts => {
                let mut count = 0;
                while let Some(chunk) = request.message().await? {
                    count += chunk.len();
                    self.take(&chunk).await;
                }
                Ok(Response::new(stream::iter([Ok(Bytes::from(count.to_string()))]).boxed()))
            }
            Behaviour::Sends(count) => Ok(Response::new(call.lasting(stream::repeat(CHUNK).take(count)))),
            Behaviour::SendsWatching => Ok(Response::new(call.lasting(self.chunks()))),
            Behaviour::Refuses => {
                request.message().await?;
                Err(Status::out_of_range("as scripted"))
            }
            Behaviour::Stops => {
                request.message().await?;
                std::future::pending().await
            }
            Behaviour::Hangs => std::future::pending().await,
        }
    }
}

/// Counts a call as ended when it is dropped, even midway.
struct Ongoing(Arc<AtomicU64>);

impl Ongoing {
    fn new(streams: &Streams) -> Self {
        streams.begun.fetch_add(1, Ordering::SeqCst);
        Self(streams.ended.clone())
    }

    /// Returns the answer to a call; the call lasts as long as this stream.
    fn lasting(self, chunks: impl Stream<Item = Bytes> + Send + 'static) -> Chunks {
        chunks
            .map(move |chunk| {
                let _call = &self;
                Ok(chunk)
            })
            .boxed()
    }
}

impl Drop for Ongoing {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl NamedService for Streams {
    const NAME: &'static str = "test.Streams";
}

impl Service<http::Request<Body>> for Streams {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let streams = self.clone();
        let handler =
            service_fn(move |request: Request<Streaming<Bytes>>| streams.clone().handle(request.into_inner()));
        async move { Ok(tonic::server::Grpc::new(Raw).streaming(handler, request).await) }.boxed()
    }
}

/// The codec: messages are plain bytes.
#[derive(Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, target: &mut EncodeBuf<'_>) -> Result<(), Status> {
        target.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, source: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(source.copy_to_bytes(source.remaining())))
    }
}

/// Makes a streaming call and returns the stream of the answer.
async fn call(
    transport: &Transport,
    call: Call,
    request: impl Stream<Item = Bytes> + Send + 'static,
) -> Result<Streaming<Bytes>, Status> {
    let mut client = tonic::client::Grpc::new(transport.clone());
    client.ready().await.expect("it is always ready");
    let path = http::uri::PathAndQuery::from_static("/test.Streams/Call");
    let answer = client.streaming(grpc::request(request, call), path, Raw);
    let answer = tokio::time::timeout(ANSWER_LIMIT, answer).await.expect("must not hang");
    answer.map(Response::into_inner)
}

async fn upload(transport: &Transport, request: impl Stream<Item = Bytes> + Send + 'static) -> Result<usize, Code> {
    let mut answer = call(transport, Call::streaming(), request).await.map_err(|status| status.code())?;
    let count = answer.message().await.map_err(|status| status.code())?.expect("a count");
    Ok(std::str::from_utf8(&count).unwrap().parse().unwrap())
}

async fn download(transport: &Transport) -> Result<Streaming<Bytes>, Code> {
    download_by(transport, DOWNLOAD).await
}

async fn download_by(transport: &Transport, way: Call) -> Result<Streaming<Bytes>, Code> {
    call(transport, way, stream::iter([CHUNK])).await.map_err(|status| status.code())
}

async fn next(answer: &mut Streaming<Bytes>) -> Result<Option<Bytes>, Code> {
    let message = tokio::time::timeout(ANSWER_LIMIT, answer.message()).await.expect("must not hang");
    message.map_err(|status| status.code())
}

async fn all(answer: &mut Streaming<Bytes>) -> Result<usize, Code> {
    let mut count = 0;
    while let Some(chunk) = next(answer).await? {
        count += chunk.len();
    }
    Ok(count)
}

async fn upload_respects_back_pressure(way: Way) {
    let streams = Streams::new(Behaviour::Counts);
    let (transport, _served) = reach(streams.clone(), way).await;
    assert_eq!(upload(&transport, streams.chunks()).await, Ok(LARGE_STREAM_CHUNKS * CHUNK.len()));
}

async fn download_respects_back_pressure(way: Way) {
    let streams = Streams::new(Behaviour::SendsWatching);
    let (transport, _served) = reach(streams.clone(), way).await;
    let mut answer = download(&transport).await.unwrap();
    let mut count = 0;
    while let Some(chunk) = next(&mut answer).await.unwrap() {
        count += chunk.len();
        streams.take(&chunk).await;
    }
    assert_eq!(count, LARGE_STREAM_CHUNKS * CHUNK.len());
}

async fn rejection_midway_arrives_at_once(way: Way) {
    let (transport, _served) = reach(Streams::new(Behaviour::Refuses), way).await;
    // One sender waits, the other sender never ends.
    assert_eq!(upload(&transport, stream::iter([CHUNK]).chain(stream::pending())).await, Err(Code::OutOfRange));
    assert_eq!(upload(&transport, stream::repeat(CHUNK)).await, Err(Code::OutOfRange));
}

async fn dropped_caller_ends_the_work(way: Way) {
    let streams = Streams::new(Behaviour::Stops);
    let (transport, _served) = reach(streams.clone(), way).await;
    let uploading =
        tokio::spawn(async move { upload(&transport, stream::iter([CHUNK]).chain(stream::pending())).await });
    eventually(|| streams.begun() == 1).await;
    uploading.abort();
    eventually(|| streams.ended() == 1).await;

    let streams = Streams::new(Behaviour::Sends(LARGE_STREAM_CHUNKS));
    let (transport, _served) = reach(streams.clone(), way).await;
    let mut answer = download(&transport).await.unwrap();
    assert_eq!(next(&mut answer).await, Ok(Some(CHUNK)));
    assert_eq!(streams.ended(), 0);
    drop(answer);
    eventually(|| streams.ended() == 1).await;
}

async fn answer_must_begin_before_the_deadline(way: Way) {
    let (transport, _served) = reach(Streams::new(Behaviour::Hangs), way).await;
    let hasty = Call::within(Duration::from_millis(200)).streaming_answer();
    assert_eq!(call(&transport, hasty, stream::iter([CHUNK])).await.unwrap_err().code(), Code::DeadlineExceeded);
}

all_ways!(
    upload_respects_back_pressure,
    download_respects_back_pressure,
    rejection_midway_arrives_at_once,
    dropped_caller_ends_the_work,
    answer_must_begin_before_the_deadline,
);

#[tokio::test]
async fn late_transport_proxies_streams() {
    let (transport, binder) = grpc::late();
    assert_eq!(upload(&transport, stream::iter([CHUNK])).await, Err(Code::Unavailable));
    binder.bind(grpc::in_process(Streams::new(Behaviour::Counts)));
    assert_eq!(upload(&transport, stream::iter([CHUNK])).await, Ok(CHUNK.len()));
}

#[tokio::test]
async fn dead_replica_is_skipped_before_the_body_is_read() {
    let (gone, well) = (serve(Streams::new(Behaviour::Counts)).await, serve(Streams::new(Behaviour::Counts)).await);
    let (transport, address) = (connect(&[&gone, &well]), gone.address);
    drop(gone);
    eventually(|| std::net::TcpStream::connect(address).is_err()).await;
    for _ in 0..10 {
        assert_eq!(upload(&transport, stream::iter([CHUNK, CHUNK])).await, Ok(2 * CHUNK.len()));
    }
}

#[tokio::test]
async fn hanging_replica_costs_a_download_one_attempt() {
    let (stuck, well) = (Streams::new(Behaviour::Sends(3)), Streams::new(Behaviour::Sends(3)));
    let (serve_stuck, serve_well) = (serve(stuck.clone()).await, serve(well.clone()).await);
    let transport = connect(&[&serve_stuck, &serve_well]);
    let call = async || {
        let mut answer = download_by(&transport, DOWNLOAD.attempt(ATTEMPT_LIMIT)).await.unwrap();
        assert_eq!(all(&mut answer).await, Ok(3 * CHUNK.len()));
    };
    warm_up(&call, || stuck.begun() > 0 && well.begun() > 0).await;
    stuck.is(Behaviour::Hangs);
    let before = well.begun();
    one_attempt_is_lost(&call, || stuck.begun()).await;
    assert_eq!(well.begun() - before, 10);
}

#[tokio::test]
async fn replica_death_midway_is_an_error() {
    let streams = Streams::new(Behaviour::Stops);
    let served = serve(streams.clone()).await;
    let transport = connect(&[&served]);
    let uploading =
        tokio::spawn(async move { upload(&transport, stream::iter([CHUNK]).chain(stream::pending())).await });
    eventually(|| streams.begun() == 1).await;
    drop(served);
    // The outcome is unknown: the replica may have executed the call.
    assert_eq!(uploading.await.unwrap(), Err(Code::Unknown));

    let served = serve(Streams::new(Behaviour::Sends(LARGE_STREAM_CHUNKS))).await;
    let mut answer = download(&connect(&[&served])).await.unwrap();
    assert_eq!(next(&mut answer).await, Ok(Some(CHUNK)));
    drop(served);
    assert!(all(&mut answer).await.is_err());
}

#[tokio::test]
async fn slow_readers_do_not_block_other_streams() {
    let served = serve(Streams::new(Behaviour::Sends(16))).await;
    let transport = connect(&[&served]);
    let mut waiting = Vec::new();
    for _ in 0..64 {
        let mut answer = download(&transport).await.unwrap();
        assert_eq!(next(&mut answer).await, Ok(Some(CHUNK)));
        waiting.push(answer);
    }
    assert_eq!(all(&mut download(&transport).await.unwrap()).await, Ok(16 * CHUNK.len()));
}
