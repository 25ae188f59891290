//! The budget is respected, and no upload waits without end.

use confab_common::Code;
use futures::future::join_all;
use tokio::time::Instant;

use super::*;

const MIB: usize = 1024 * 1024;
const FULL: usize = 5 * MIB;

fn user() -> Uuid {
    Uuid::now_v7()
}

/// Returns a part that has taken as much as it gets without waiting, at most `bytes` bytes.
async fn filled(parts: &Parts, bytes: usize) -> Filling {
    let mut filling = parts.part(FULL);
    let mut chunk = Bytes::from(vec![0; bytes]);
    let _ = timeout(Duration::from_millis(1), filling.take(&mut chunk)).await;
    filling
}

/// Returns as many parts of `bytes` bytes as are available without waiting.
async fn many(parts: &Parts, bytes: usize) -> Vec<Filling> {
    let mut many = Vec::new();
    for _ in 0..20 {
        many.push(filled(parts, bytes).await);
    }
    many
}

fn is_untouched(memory: &Memory, bytes: usize) -> bool {
    let state = memory.0.lock();
    state.free == bytes && state.under_way == 0 && state.users.is_empty() && state.parts.is_empty()
}

#[tokio::test(start_paused = true)]
async fn one_user_leaves_memory_for_others() {
    let memory = Memory::new(90 * MIB);
    let (ada, bob) = (memory.parts(user()), memory.parts(user()));
    let hers = many(&ada, FULL).await;
    let has = |user: Uuid| memory.0.lock().users.get(&user).copied().unwrap_or_default();
    assert!((55 * MIB..=61 * MIB).contains(&has(ada.user)), "{}", has(ada.user));
    let his = many(&bob, FULL).await;
    assert!(has(bob.user) >= 15 * MIB, "{}", has(bob.user));
    let late = memory.parts(user());
    assert!(filled(&late, FULL).await.is_full(), "a further part must be available");
    drop((hers, his));
    assert!(is_untouched(&memory, 90 * MIB));
}

/// Uploads of several users, together larger than the budget; each fills part after part.
#[tokio::test(start_paused = true)]
async fn all_uploads_progress_within_the_budget() {
    for (total, uploads, users) in [(5 * MIB, 7, 1), (6 * MIB, 12, 3), (16 * MIB, 40, 1), (32 * MIB, 100, 7)] {
        let memory = Memory::new(total);
        let users = (0..users).map(|_| user()).collect::<Vec<_>>();
        let upload = async |n: usize| {
            let parts = memory.parts(users[n % users.len()]);
            for _ in 0..3 {
                let mut filling = parts.part(FULL);
                let mut chunk = Bytes::from_static(&[0; FULL]);
                while !filling.is_full() {
                    let mut piece = chunk.split_to(100_003.min(chunk.len()));
                    filling.take(&mut piece).await.unwrap();
                    tokio::time::sleep(Duration::from_micros(n as u64 * 37 % 101)).await;
                }
                let (bytes, under_way) = filling.send();
                tokio::time::sleep(Duration::from_millis(1)).await;
                drop((bytes, under_way));
            }
        };
        join_all((0..uploads).map(upload)).await;
        assert!(is_untouched(&memory, total));
    }
}

#[tokio::test(start_paused = true)]
async fn waiting_for_memory_times_out() {
    let memory = Memory::new(16 * MIB);
    let (ada, bob) = (memory.parts(user()), memory.parts(user()));
    let hers = many(&ada, FULL - 1).await;
    let his = many(&bob, FULL - 1).await;
    let begun = Instant::now();
    let error = loop {
        let mut filling = bob.part(FULL);
        if let Err(error) = filling.take(&mut Bytes::from_static(&[0; FULL])).await {
            break error;
        }
    };
    assert_eq!((error.code, begun.elapsed()), (Code::Unavailable, STEP_WAIT_LIMIT));
    drop((hers, his));
    assert!(is_untouched(&memory, 16 * MIB));
    assert!(filled(&bob, FULL).await.is_full());
}

#[tokio::test(start_paused = true)]
async fn memory_is_free_after_a_part_is_sent() {
    let memory = Memory::new(10 * MIB);
    let ada = memory.parts(user());
    let (bytes, under_way) = filled(&ada, FULL).await.send();
    let seen = { memory.0.lock().free };
    assert_eq!((bytes.len(), seen), (FULL, 5 * MIB));
    drop((bytes, under_way));
    // A small file takes little memory.
    let small = filled(&ada, 10).await;
    assert_eq!(memory.0.lock().free, 10 * MIB - FIRST);
    drop(small);
    assert!(is_untouched(&memory, 10 * MIB));
}
