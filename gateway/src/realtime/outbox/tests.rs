use super::*;
use crate::pulse::{self, Pulse};

#[test]
fn a_reader_that_is_too_slow_is_closed_and_one_frame_always_fits() {
    let outbox = Outbox::new(Arc::default());
    outbox.push(Frame::engine(&"x".repeat(MAX_BYTES * 2)));
    assert_eq!(outbox.closing(), None);
    outbox.push(Frame::engine("y"));
    assert_eq!(outbox.closing(), Some(Close::Now));
    outbox.close(Close::Flushed);
    assert_eq!(outbox.closing(), Some(Close::Now));
}

#[test]
fn small_frames_cost_what_they_take_in_memory() {
    let outbox = Outbox::new(Arc::default());
    let ping = Frame::engine("2");
    (0..MAX_BYTES / 100).for_each(|_| outbox.push(ping.clone()));
    assert_eq!(outbox.closing(), Some(Close::Now));
}

#[tokio::test]
async fn answers_never_close_and_are_paced() {
    let outbox = Outbox::new(Arc::default());
    let large = Frame::engine(&"x".repeat(MAX_BYTES * 2));
    outbox.answer(&[large.clone(), large.clone()]);
    outbox.push(Frame::engine("live"));
    assert_eq!(outbox.closing(), None);
    let mut roomy = std::pin::pin!(outbox.roomy());
    assert!(futures::poll!(&mut roomy).is_pending());
    assert_eq!(outbox.take_some(2, usize::MAX).len(), 2);
    roomy.await;
}

#[test]
fn what_waits_unasked_is_bounded_however_much_is_owed() {
    let outbox = Outbox::new(Arc::default());
    let [answer, live] = [600_000, 300_000].map(|bytes| Frame::engine(&"x".repeat(bytes)));
    outbox.answer(&[answer.clone(), answer.clone()]);
    (0..3).for_each(|_| outbox.push(live.clone()));
    assert_eq!(outbox.unasked(), 3 * live.cost());
    // Answers that were sent raise no bound, though much still waits.
    assert_eq!(outbox.take_some(2, usize::MAX).len(), 2);
    assert_eq!(outbox.unasked(), 3 * live.cost());
    outbox.push(live);
    assert_eq!(outbox.closing(), Some(Close::Now));
    assert_eq!((outbox.unasked(), outbox.queue().cost.all), (0, 0));
}

#[test]
fn the_end_takes_the_place_of_what_waits() {
    let outbox = Outbox::new(Arc::default());
    outbox.push(Frame::engine("never read"));
    outbox.end(&[Frame::engine("ended")]);
    outbox.push(Frame::engine("too late"));
    assert_eq!(outbox.look(), Some(Close::Flushed));
    assert_eq!(outbox.take_some(9, 999).iter().map(Frame::packet).collect::<Vec<_>>(), [b"ended"]);
}

#[test]
fn what_waits_is_counted_with_that_of_all_others() {
    let shared = Arc::new(Shared::new(500_000, Arc::default()));
    let [small, large] = [200_000, 400_000].map(|bytes| {
        let outbox = Outbox::new(shared.clone());
        outbox.push(Frame::engine(&"x".repeat(bytes)));
        outbox
    });
    assert!(shared.is_over() && large.unasked() > small.unasked());
    large.give_up();
    assert!(!shared.is_over() && large.is_empty() && large.closing() == Some(Close::Now));
    large.push(Frame::engine("too late"));
    assert_eq!((large.is_empty(), small.closing()), (true, None));
    small.answer(&[Frame::engine(&"x".repeat(400_000))]);
    assert!(shared.is_over() && small.unasked() < 300_000);
    drop(small);
    assert!(!shared.is_over());
}

#[test]
fn nothing_is_taken_after_a_pause() {
    let pulse = Arc::<Pulse>::default();
    let outbox = Outbox::new(Arc::new(Shared::new(usize::MAX, pulse.clone())));
    pulse.stand_still();
    outbox.push(Frame::engine("later"));
    assert_eq!(outbox.take_some(9, 999).len(), 0);
    assert!(pulse.resume(pulse::now()));
    assert_eq!(outbox.take_some(9, 999).len(), 1);
}

#[test]
fn a_polling_payload_is_bounded() {
    let outbox = Outbox::new(Arc::default());
    (0..40).for_each(|n| outbox.push(Frame::engine(&format!("{n:02}"))));
    assert_eq!(outbox.take_some(16, 1000).len(), 16);
    assert_eq!(outbox.take_some(16, 7).len(), 2);
    outbox.take_some(100, 1000);
    assert_eq!(outbox.queue().cost.all, 0);
    outbox.push(Frame::engine("large"));
    assert_eq!(outbox.take_some(16, 2).len(), 1);
}
