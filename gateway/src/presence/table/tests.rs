//! Gateways A and B tell of users that the socket 1 watches.

use std::time::Duration;

use super::*;

const A: Node = Uuid::from_u128(0xa);
const B: Node = Uuid::from_u128(0xb);
const ADA: Uuid = Uuid::from_u128(7);
const BOB: Uuid = Uuid::from_u128(8);

struct Stage {
    table: Table,
    start: Instant,
    counters: HashMap<Node, u64>,
}

impl Stage {
    /// Both gateways are known, without users, and the socket has the answer of its `watch`.
    fn new() -> Self {
        let (mut table, start) = (Table::default(), Instant::now());
        for user in [ADA, BOB] {
            assert_eq!(table.watch(1, user), Some(false));
        }
        for node in [A, B] {
            assert!(table.load(node, 0, &HashMap::new(), start));
        }
        table.tick(start);
        assert!(table.news().is_empty());
        for user in [ADA, BOB] {
            assert_eq!(table.answer(1, user), Shown::Unknown, "no offline before the boards are read");
            table.load_user(user, &[], start);
        }
        for user in [ADA, BOB] {
            assert_eq!(table.answer(1, user), Shown::Offline);
        }
        Self { table, start, counters: HashMap::new() }
    }

    fn at(&self, seconds: u64) -> Instant {
        self.start + Duration::from_secs(seconds)
    }

    fn tells(&mut self, seconds: u64, node: Node, changes: &[(Uuid, Option<Here>)]) {
        let counter = self.counters.entry(node).or_default();
        *counter += changes.len() as u64;
        let (counter, now) = (*counter, self.start + Duration::from_secs(seconds));
        assert_eq!(self.table.hear(node, counter, changes, now), Heed::Applied);
    }

    /// What the socket is sent at this time.
    fn news(&mut self, seconds: u64) -> Vec<(Uuid, Shown)> {
        let now = self.at(seconds);
        self.table.tick(now);
        let mut news: Vec<_> = self.table.news().iter().map(|news| (news.user, news.shown)).collect();
        news.sort_by_key(|(user, _)| *user);
        news
    }
}

fn live(said: Said) -> Option<Here> {
    Some(Here::Live(said))
}

fn left(said: Said) -> Option<Here> {
    Some(Here::Left(said))
}

#[test]
fn online_is_shown_at_once_and_offline_after_the_grace() {
    let mut stage = Stage::new();
    stage.tells(0, A, &[(ADA, live(Said::Online))]);
    assert_eq!(stage.news(0), [(ADA, Shown::Online)]);
    stage.tells(1, A, &[(ADA, left(Said::Online))]);
    assert_eq!(stage.news(10), []);
    assert_eq!(stage.news(11), [(ADA, Shown::Offline)]);
}

#[test]
fn a_status_that_was_left_does_not_come_back() {
    for (said, shown) in [(Said::Online, Shown::Online), (Said::Invisible, Shown::Offline)] {
        let mut stage = Stage::new();
        stage.tells(0, B, &[(ADA, live(Said::Busy))]);
        stage.tells(1, B, &[(ADA, left(Said::Busy))]);
        assert_eq!(stage.news(1), [(ADA, Shown::Busy)]);
        stage.tells(2, A, &[(ADA, live(said))]);
        assert_eq!(stage.news(2), [(ADA, shown)]);
        stage.tells(3, A, &[(ADA, left(said))]);
        assert_eq!(stage.news(3), []);
        // The board of B still has the entry, and is read by who watches now.
        let (board, now) = ((Here::Left(Said::Busy), Duration::from_secs(3)), stage.at(4));
        assert!(stage.table.load(B, 2, &HashMap::from([(ADA, board)]), now));
        assert_eq!(stage.news(4), []);
        let mut late = Table::default();
        for node in [A, B] {
            late.load(node, 2, &HashMap::new(), now);
        }
        assert_eq!(late.watch(9, ADA), Some(false));
        late.load_user(ADA, &[(A, Here::Left(said), Duration::from_secs(1)), (B, board.0, board.1)], now);
        assert_eq!(late.answer(9, ADA), shown);
        assert_eq!(stage.news(12), []);
        assert_eq!(stage.news(13), if shown == Shown::Offline { vec![] } else { vec![(ADA, Shown::Offline)] });
    }
}

#[test]
fn invisible_hides_the_sockets_at_all_gateways() {
    let mut stage = Stage::new();
    stage.tells(0, A, &[(ADA, live(Said::Online))]);
    assert_eq!(stage.news(0), [(ADA, Shown::Online)]);
    stage.tells(1, B, &[(ADA, live(Said::Invisible))]);
    assert_eq!(stage.news(1), [(ADA, Shown::Offline)]);
    stage.tells(2, B, &[(ADA, None)]);
    assert_eq!(stage.news(2), [(ADA, Shown::Online)]);
}

#[test]
fn reconnects_make_no_news() {
    let mut stage = Stage::new();
    stage.tells(0, A, &[(ADA, live(Said::Online)), (BOB, live(Said::Away))]);
    assert_eq!(stage.news(0).len(), 2);
    for second in 1..60 {
        let (from, to) = if second % 2 == 1 { (A, B) } else { (B, A) };
        stage.tells(second, from, &[(ADA, left(Said::Online))]);
        stage.tells(second, to, &[(ADA, live(Said::Online))]);
        stage.tells(second, A, &[]);
        stage.tells(second, B, &[]);
        assert_eq!(stage.news(second), []);
    }
}

#[test]
fn the_users_of_a_gateway_that_falls_silent_go_offline_and_no_other() {
    let mut stage = Stage::new();
    stage.tells(0, A, &[(ADA, live(Said::Online))]);
    stage.tells(0, B, &[(BOB, live(Said::Busy))]);
    assert_eq!(stage.news(0).len(), 2);
    for second in [10, 20, 30, 40] {
        stage.tells(second, B, &[]);
        let expected = if second < 40 { vec![] } else { vec![(ADA, Shown::Offline)] };
        assert_eq!(stage.news(second), expected);
    }
}

#[test]
fn while_the_bus_is_away_the_last_known_is_shown_for_a_minute() {
    let mut stage = Stage::new();
    stage.tells(0, A, &[(ADA, live(Said::Online))]);
    assert_eq!(stage.news(0), [(ADA, Shown::Online)]);
    let away = stage.at(1);
    stage.table.set_deaf(true, away);
    assert_eq!(stage.news(60), []);
    assert_eq!(stage.news(61), [(ADA, Shown::Unknown), (BOB, Shown::Unknown)]);
    let back = stage.at(90);
    stage.table.set_deaf(false, back);
    assert_eq!(stage.news(90), [(ADA, Shown::Online), (BOB, Shown::Offline)], "never offline by mistake");
}

#[test]
fn a_missed_change_is_found_and_loaded() {
    let mut stage = Stage::new();
    let now = stage.at(1);
    let changes = [(ADA, live(Said::Online))];
    assert_eq!(stage.table.hear(A, 2, &changes, now), Heed::Missed);
    assert_eq!(stage.table.hear(Uuid::from_u128(0xc), 1, &changes, now), Heed::Missed, "a new start");
    assert!(stage.table.load(A, 2, &HashMap::from([(ADA, (Here::Live(Said::Busy), Duration::ZERO))]), now));
    assert_eq!(stage.table.hear(A, 2, &changes, now), Heed::Applied, "an old change, which is not applied");
    assert_eq!(stage.news(1), [(ADA, Shown::Busy)]);
}

#[test]
fn no_event_repeats_an_answer() {
    let mut stage = Stage::new();
    stage.tells(0, A, &[(ADA, live(Said::Online))]);
    assert_eq!(stage.table.watch(2, ADA), Some(true));
    assert_eq!(stage.table.answer(2, ADA), Shown::Online);
    assert_eq!(stage.table.watch(3, ADA), Some(true));
    let news = stage.table.news();
    assert_eq!(news, [News { socket: 1, user: ADA, shown: Shown::Online }], "none before the answer, none after it");
    // A second `watch` of the same user answers anew.
    stage.tells(1, A, &[(ADA, live(Said::Busy))]);
    assert_eq!(stage.table.watch(1, ADA), Some(true));
    assert_eq!(stage.table.answer(1, ADA), Shown::Busy);
    assert!(stage.table.news().iter().all(|news| news.socket == 2));
}

#[test]
fn what_a_gateway_tells_meanwhile_is_newer_than_its_board() {
    let mut stage = Stage::new();
    let (eve, now) = (Uuid::from_u128(9), stage.at(1));
    assert_eq!(stage.table.watch(1, eve), Some(false));
    stage.tells(1, A, &[(eve, live(Said::Busy))]);
    assert_eq!(stage.news(1), [], "not before the answer");
    stage.table.load_user(eve, &[(A, Here::Left(Said::Online), Duration::ZERO)], now);
    assert_eq!(stage.table.answer(1, eve), Shown::Busy);
    assert_eq!(stage.news(1), []);
}

#[test]
fn an_ended_watch_leaves_nothing() {
    let mut stage = Stage::new();
    assert_eq!(stage.table.watch(2, ADA), Some(true));
    stage.table.end(2);
    stage.table.unwatch(1, ADA);
    assert_eq!(stage.table.watched().collect::<Vec<_>>(), [BOB]);
    stage.table.end(1);
    stage.table.end(1);
    assert!(stage.table.users.is_empty() && stage.table.sockets.is_empty());
}

#[test]
fn the_watched_users_of_a_socket_are_bounded() {
    let mut table = Table::default();
    for user in 0..WATCHED_BY_SOCKET as u128 {
        assert_eq!(table.watch(1, Uuid::from_u128(user)), Some(false));
    }
    assert_eq!(table.watch(1, Uuid::from_u128(u128::MAX)), None);
    assert_eq!(table.watch(1, Uuid::from_u128(0)), Some(false), "a repeat takes no place");
    assert_eq!(table.watch(2, Uuid::from_u128(u128::MAX)), Some(false));
}
