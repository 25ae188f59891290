use std::time::Duration;

use futures::stream;

use super::*;

/// Yields chunks of `size` bytes, one after each pause.
fn sent(size: usize, pause: Duration) -> BoxStream<'static, Result<Part>> {
    let chunk = Bytes::from(vec![b'x'; size]);
    stream::repeat(chunk)
        .then(move |chunk| async move {
            tokio::time::sleep(pause).await;
            Ok(Part::Chunk(chunk))
        })
        .boxed()
}

/// Returns how long parts arrive, and the error that ends them.
async fn given_up(mut parts: BoxStream<'static, Result<Part>>) -> (Duration, Error) {
    let (begun, mut intake) = (Instant::now(), Intake::default());
    loop {
        if let Err(error) = intake.next(&mut parts).await {
            return (begun.elapsed(), error);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn stalled_or_trickling_sender_times_out() {
    let (time, error) = given_up(sent(1 << 20, Duration::from_secs(1)).take(5).chain(stream::pending()).boxed()).await;
    assert_eq!((time, error.code), (Duration::from_secs(35), Code::TooSlow));
    let (time, error) = given_up(sent(100, Duration::from_secs(1))).await;
    assert_eq!((time, error.code), (Duration::from_secs(30), Code::TooSlow));
    let (time, error) = given_up(sent(2048, Duration::from_secs(1))).await;
    assert_eq!((time, error.code), (Duration::from_secs(150), Code::TooSlow));
    // A sender that was fast before is not exempt.
    let slow = sent(1 << 20, Duration::from_secs(1)).take(30).chain(sent(1, Duration::from_secs(10)));
    assert_eq!(given_up(slow.boxed()).await.0, Duration::from_secs(60));
}

#[tokio::test(start_paused = true)]
async fn slow_sender_and_slow_store_do_not_time_out() {
    let mut parts = sent(20_000, Duration::from_secs(1));
    let mut intake = Intake::default();
    for _ in 0..3000 {
        intake.next(&mut parts).await.unwrap();
    }
    let mut parts = sent(10, Duration::from_millis(10));
    let mut intake = Intake::default();
    for _ in 0..100 {
        intake.next(&mut parts).await.unwrap();
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
}

#[tokio::test]
async fn upload_without_its_end_fails() {
    let (_, error) = given_up(stream::empty().boxed()).await;
    assert_eq!(error.code, Code::InvalidRequest);
    let (_, error) = given_up(stream::iter([Err(Error::unavailable("the sender"))]).boxed()).await;
    assert_eq!(error.code, Code::Unavailable);
}

#[test]
fn content_is_counted_hashed_and_typed() {
    let mut intake = Intake::default();
    for piece in [&b"\x89PN"[..], b"G\r\n\x1a\n", &[0; HEAD]] {
        intake.take(&Bytes::from_static(piece));
    }
    assert_eq!(intake.head.len(), HEAD);
    let content = intake.finish("text/plain");
    assert_eq!((content.size, content.media.content_type.as_str()), (8 + HEAD as u64, "image/png"));

    let mut intake = Intake::default();
    intake.take(&Bytes::from_static(b"abc"));
    let content = intake.finish("text/plain");
    assert_eq!(content.sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_eq!(content.media.content_type, "text/plain");
}
