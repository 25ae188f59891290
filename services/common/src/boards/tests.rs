//! The contract of boards, within a process and over a real Redis.

use std::time::Instant;

use super::*;
use crate::{Code, Secret, testing};

const ADA: Name = [1; 16];
const BOB: Name = [2; 16];

fn local() -> Boards {
    Boards::open(&Bus::open(&Secret::from("local:".to_owned()), None).unwrap())
}

fn redis() -> Boards {
    Boards::open(&Bus::open(&testing::redis(), None).unwrap())
}

/// Returns a board for this test only, because tests share one Redis.
fn board() -> String {
    uuid::Uuid::now_v7().to_string()
}

macro_rules! contract {
    ($($test:ident),+ $(,)?) => {
        mod in_process {
            $(#[tokio::test]
            async fn $test() {
                super::$test(super::local()).await;
            })+
        }

        mod in_redis {
            $(#[tokio::test]
            async fn $test() {
                super::$test(super::redis()).await;
            })+
        }
    };
}

contract!(a_board_is_read_as_it_was_written, a_lost_board_stays_lost_until_it_is_written, large_boards_are_written);

fn found(counter: u64, values: [Option<&[u8]>; 2]) -> Option<Found> {
    Some(Found { counter, values: values.into_iter().map(|value| value.map(Vec::from)).collect() })
}

async fn a_board_is_read_as_it_was_written(boards: Boards) {
    let (mine, other) = (board(), board());
    let look_up = async || boards.look_up(&mine, vec![ADA, BOB]).await.unwrap();
    assert_eq!(look_up().await, None);
    boards.write(&mine, 1, vec![(ADA, b"a".to_vec())]).await.unwrap();
    boards.write(&other, 9, vec![(BOB, b"x".to_vec())]).await.unwrap();
    assert_eq!(look_up().await, found(1, [Some(b"a"), None]));
    boards.change(&mine, 3, vec![(BOB, Some(vec![0, 255])), (ADA, None)]).await.unwrap();
    assert_eq!(look_up().await, found(3, [None, Some(&[0, 255])]));
    boards.change(&mine, 4, Vec::new()).await.unwrap();
    boards.write(&mine, 5, vec![(ADA, Vec::new())]).await.unwrap();
    assert_eq!(look_up().await, found(5, [Some(b""), None]), "a whole board replaces the earlier one");
    assert_eq!(boards.look_up(&mine, Vec::new()).await.unwrap().unwrap().counter, 5);
    boards.remove(&mine).await.unwrap();
    assert_eq!(look_up().await, None);
    assert_eq!(boards.look_up(&other, vec![ADA, BOB]).await.unwrap(), found(9, [None, Some(b"x")]));
}

async fn a_lost_board_stays_lost_until_it_is_written(boards: Boards) {
    let mine = board();
    boards.change(&mine, 7, vec![(ADA, Some(b"a".to_vec()))]).await.unwrap();
    assert_eq!(boards.look_up(&mine, vec![ADA]).await.unwrap(), None, "who has other entries is not absent");
    boards.write(&mine, 8, vec![(BOB, b"b".to_vec())]).await.unwrap();
    assert_eq!(boards.look_up(&mine, vec![ADA, BOB]).await.unwrap(), found(8, [None, Some(b"b")]));
}

async fn large_boards_are_written(boards: Boards) {
    let (mine, name) = (board(), |number: u128| number.to_be_bytes());
    let entries = |count| (0..count).map(|number| (name(number), vec![1])).collect::<Vec<_>>();
    boards.write(&mine, 1, entries(2500)).await.unwrap();
    let names: Vec<_> = (2490..2510).map(name).collect();
    let values = boards.look_up(&mine, names).await.unwrap().unwrap().values;
    assert_eq!(values.iter().filter(|value| value.is_some()).count(), 10);
    let removed = (0..2499).map(|number| (name(number), None)).collect();
    boards.change(&mine, 2, removed).await.unwrap();
    let names: Vec<_> = (2499 - MAX_LOOK_UP as u128 + 1..2510).map(name).collect();
    let values = boards.look_up(&mine, names).await.unwrap().unwrap().values;
    assert_eq!(values.len(), MAX_LOOK_UP, "a look-up is bounded");
    assert_eq!(values.iter().filter(|value| value.is_some()).count(), 1);
}

#[tokio::test]
async fn boards_in_redis_expire() {
    let (boards, mine) = (redis(), board());
    boards.write(&mine, 1, Vec::new()).await.unwrap();
    let client = ::redis::Client::open(testing::redis().expose()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let key = format!("confab.presence.{{all}}.{mine}");
    let left = ::redis::cmd("PTTL").arg(&key).query_async::<i64>(&mut connection).await.unwrap();
    assert!((1..=35_000).contains(&left), "{left}");
}

#[tokio::test]
async fn a_redis_that_is_away_is_said_in_time() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let boards = Boards::open(&Bus::open(&Secret::from(format!("redis://{closed}")), None).unwrap());
    let started = Instant::now();
    let error = boards.look_up(&board(), vec![ADA]).await.unwrap_err();
    assert_eq!(error.code, Code::Unavailable);
    assert!(started.elapsed() < Duration::from_secs(5));
}
