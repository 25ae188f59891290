use super::*;
use confab_common::standstill::{self, PauseDetector};

#[test]
fn a_slow_reader_is_closed_but_one_frame_always_fits() {
    let outbox = Outbox::new(Arc::default());
    outbox.push(Frame::engine(&"x".repeat(MAX_BYTES * 2)));
    assert_eq!(outbox.closing(), None);
    outbox.push(Frame::engine("y"));
    assert_eq!(outbox.closing(), Some(Close::Now));
    outbox.close(Close::Flushed);
    assert_eq!(outbox.closing(), Some(Close::Now));
}

#[test]
fn the_cost_of_small_frames_includes_their_overhead() {
    let outbox = Outbox::new(Arc::default());
    let ping = Frame::engine("2");
    (0..MAX_BYTES / 100).for_each(|_| outbox.push(ping.clone()));
    assert_eq!(outbox.closing(), Some(Close::Now));
}

#[tokio::test]
async fn answers_have_their_own_bound() {
    let outbox = Outbox::new(Arc::default());
    let large = Frame::engine(&"x".repeat(MAX_ANSWERS / 4));
    outbox.answer(&[large.clone(), large.clone(), large.clone()]);
    outbox.push(Frame::engine("live"));
    assert_eq!(outbox.closing(), None);
    let mut space = std::pin::pin!(outbox.space());
    assert!(futures::poll!(&mut space).is_pending());
    assert_eq!(outbox.take_some(2, usize::MAX).len(), 2);
    assert_eq!(outbox.take_some(2, usize::MAX).len(), 2);
    space.await;
    // Only queued frames count, not those that were removed.
    (0..3).for_each(|_| outbox.answer(std::slice::from_ref(&large)));
    assert_eq!(outbox.closing(), None);
    outbox.answer(std::slice::from_ref(&large));
    assert_eq!((outbox.closing(), outbox.bytes()), (Some(Close::Now), 0));
    outbox.answer(&[large]);
    assert_eq!(outbox.bytes(), 0);
    let outbox = Outbox::new(Arc::default());
    outbox.answer(&[Frame::engine(&"x".repeat(2 * MAX_ANSWERS))]);
    assert_eq!(outbox.closing(), None, "an empty outbox accepts any frame");
}

#[test]
fn the_bound_of_events_excludes_answers() {
    let outbox = Outbox::new(Arc::default());
    let [answer, live] = [600_000, 300_000].map(|bytes| Frame::engine(&"x".repeat(bytes)));
    outbox.answer(&[answer.clone(), answer.clone()]);
    (0..3).for_each(|_| outbox.push(live.clone()));
    assert_eq!(outbox.bytes(), 2 * answer.cost() + 3 * live.cost());
    // Sent answers do not raise the bound of events.
    assert_eq!(outbox.take_some(2, usize::MAX).len(), 2);
    assert_eq!((outbox.bytes(), outbox.closing()), (3 * live.cost(), None));
    outbox.push(live);
    assert_eq!((outbox.closing(), outbox.bytes()), (Some(Close::Now), 0));
}

#[test]
fn one_small_bound_covers_all_bytes_before_connect() {
    let unknown = || Outbox::of_unknown(Arc::default());
    let kilobyte = || Frame::engine(&"x".repeat(1024 - 128 - 4));
    // Each method that queues a frame.
    let fills: [fn(&Outbox, Frame); 4] = [
        |outbox, frame| outbox.push(frame),
        |outbox, frame| outbox.answer(&[frame]),
        |outbox, frame| _ = outbox.push_to_flush(&[frame]),
        |outbox, frame| outbox.push(Frame::raw(frame.websocket().to_vec())),
    ];
    for fill in fills {
        let outbox = unknown();
        outbox.hold(8 * 1024);
        (0..8).for_each(|_| fill(&outbox, kilobyte()));
        assert_eq!((outbox.closing(), outbox.left_to_unknown()), (None, Some(0)));
        fill(&outbox, Frame::engine("2"));
        assert_eq!(outbox.closing(), Some(Close::Now));
    }
    let outbox = unknown();
    outbox.push(Frame::engine(&"x".repeat(MAX_UNKNOWN)));
    assert_eq!(outbox.closing(), Some(Close::Now), "even a single frame must fit");
    // Afterwards the normal bounds apply.
    let outbox = unknown();
    outbox.set_known();
    (0..100).for_each(|_| outbox.push(kilobyte()));
    assert_eq!((outbox.closing(), outbox.left_to_unknown()), (None, None));
}

#[test]
fn received_bytes_count_until_they_are_released() {
    let (budget, owner) = (Arc::new(Budget::new(500_000, Arc::default())), Arc::<Share>::default());
    let outbox = Outbox::new(budget.clone());
    outbox.hold(300_000);
    outbox.count_in(owner.clone());
    outbox.push(Frame::engine(&"x".repeat(200_000)));
    assert!(budget.excess() > 0 && owner.bytes() == budget.bytes());
    outbox.release(300_000);
    assert_eq!((budget.excess(), owner.bytes()), (0, outbox.bytes()));
    drop(outbox);
    assert_eq!((budget.bytes(), owner.bytes()), (0, 0));
}

#[test]
fn an_empty_queue_frees_the_capacity_of_a_burst() {
    let outbox = Outbox::new(Arc::default());
    (0..5000).for_each(|_| outbox.push(Frame::engine("2")));
    assert_eq!(outbox.take_some(5000, usize::MAX).len(), 5000);
    assert!(outbox.queue.lock().frames.capacity() <= 64);
}

#[test]
fn disconnect_replaces_queued_frames() {
    let outbox = Outbox::new(Arc::default());
    outbox.push(Frame::engine("never read"));
    outbox.disconnect(&[Frame::engine("ended")]);
    outbox.push(Frame::engine("too late"));
    assert_eq!(outbox.look(), Some(Close::Flushed));
    assert_eq!(outbox.take_some(9, 999).iter().map(Frame::packet).collect::<Vec<_>>(), [b"ended"]);
}

#[test]
fn queued_bytes_count_in_the_total() {
    let budget = Arc::new(Budget::new(500_000, Arc::default()));
    let [small, large] = [200_000, 400_000].map(|bytes| {
        let outbox = Outbox::new(budget.clone());
        outbox.push(Frame::engine(&"x".repeat(bytes)));
        outbox
    });
    assert!(budget.excess() > 0 && large.bytes() > small.bytes());
    large.evict("total");
    assert!(budget.excess() == 0 && large.is_empty() && large.closing() == Some(Close::Now));
    large.push(Frame::engine("too late"));
    assert_eq!((large.is_empty(), small.closing()), (true, None));
    small.answer(&[Frame::engine(&"x".repeat(400_000))]);
    assert!(budget.excess() > 0);
    drop(small);
    assert_eq!(budget.excess(), 0);
}

#[test]
fn no_frame_is_removed_during_a_pause() {
    let pauses = Arc::<PauseDetector>::default();
    let outbox = Outbox::new(Arc::new(Budget::new(usize::MAX, pauses.clone())));
    pauses.stand_still();
    outbox.push(Frame::engine("later"));
    assert_eq!(outbox.take_some(9, 999).len(), 0);
    assert!(pauses.resume(standstill::now()));
    assert_eq!(outbox.take_some(9, 999).len(), 1);
}

#[test]
fn a_polling_payload_is_bounded_in_packets_and_bytes() {
    let outbox = Outbox::new(Arc::default());
    (0..40).for_each(|n| outbox.push(Frame::engine(&format!("{n:02}"))));
    assert_eq!(outbox.take_some(16, 1000).len(), 16);
    assert_eq!(outbox.take_some(16, 7).len(), 2);
    outbox.take_some(100, 1000);
    assert_eq!(outbox.queue.lock().cost.all, 0);
    outbox.push(Frame::engine("large"));
    assert_eq!(outbox.take_some(16, 2).len(), 1);
}

#[test]
fn an_ended_session_counts_no_bytes() {
    let budget = Arc::new(Budget::new(usize::MAX, Arc::default()));
    let outbox = Outbox::new(budget.clone());
    outbox.push(Frame::engine(&"x".repeat(100_000)));
    outbox.hold(100_000);
    outbox.release_all();
    assert_eq!((budget.bytes(), outbox.closing()), (0, Some(Close::Now)));
    outbox.release(100_000);
    drop(outbox);
    assert_eq!(budget.bytes(), 0);
}
