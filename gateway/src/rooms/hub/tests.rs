mod effects;

use super::tail::MAX_BYTES;
use super::*;

/// A client that records the frames that it receives, and when it is taken out of the room.
#[derive(Default)]
struct Client {
    id: u64,
    user: Option<Uuid>,
    received: Mutex<Vec<String>>,
}

impl Listener for Client {
    fn id(&self) -> u64 {
        self.id
    }

    fn user(&self) -> Option<Uuid> {
        self.user
    }

    fn deliver(&self, _: Uuid, first: u64, frames: &[Frame], joined: &Frame) -> bool {
        assert_eq!(joined.websocket(), frames.iter().map(Frame::websocket).collect::<Vec<_>>().concat());
        self.receive_from(first, frames);
        true
    }

    fn notify(&self, event: &Frame) {
        self.receive(std::slice::from_ref(event));
    }

    fn flush(&self) {}

    fn keeps_up(&self) -> bool {
        true
    }

    async fn caught_up(&self) {}

    fn arrive(&self, _: Uuid, last_seq: u64, arrival: &Arrival<'_>, missed: &[Frame]) {
        match arrival {
            Arrival::Joined { answer, .. } => self.receive(answer.as_slice()),
            Arrival::Restored(events) => self.receive_from(last_seq + 1 - events.len() as u64, events),
            Arrival::Stayed => {}
        }
        self.receive_from(last_seq + 1, missed);
    }

    fn evicted(&self, _: Uuid) {
        self.received.lock().push("evicted".into());
    }

    fn resync(self: &Arc<Self>, _: Uuid) {
        self.received.lock().push("resynced".into());
    }
}

impl Client {
    fn new(id: u64) -> Arc<Self> {
        Arc::new(Self { id, ..Self::default() })
    }

    fn receive(&self, frames: &[Frame]) {
        self.received.lock().extend(frames.iter().map(|frame| String::from_utf8(frame.packet().to_vec()).unwrap()));
    }

    /// In these tests an event holds only its number.
    fn receive_from(&self, first: u64, frames: &[Frame]) {
        for (seq, frame) in (first..).zip(frames) {
            let text = std::str::from_utf8(frame.packet()).unwrap().trim_matches('x');
            assert!(text.parse::<u64>().is_ok_and(|number| number == seq) || text == "deleted", "{seq}: {text}");
        }
        self.receive(frames);
    }

    fn received(&self) -> Vec<String> {
        std::mem::take(&mut self.received.lock())
    }
}

const ROOM: Uuid = Uuid::from_u128(7);

fn say(hub: &Hub<Client>, room: Uuid, seqs: std::ops::RangeInclusive<u64>) -> usize {
    let deliveries = seqs.map(|seq| Delivery { room, seq, effect: Effect::None, event: seq }).collect::<Vec<_>>();
    let mut writers = Vec::new();
    let delivered = hub.fan_out(&deliveries, |seq| Frame::engine(&seq.to_string()), &mut writers);
    assert!(writers.len() <= delivered && writers.is_empty() == (delivered == 0));
    hub.check_invariants();
    delivered
}

fn plain() -> Arrival<'static> {
    Arrival::Joined { answer: None, epoch: Uuid::nil() }
}

fn answered(answer: &str) -> Arrival<'static> {
    Arrival::Joined { answer: Some(Frame::engine(answer)), epoch: Uuid::nil() }
}

fn join(hub: &Hub<Client>, client: &Arc<Client>, last_seq: u64) {
    let joining = hub.begin_join(ROOM, 0, client);
    hub.go_live(&joining, client, last_seq, &plain()).unwrap();
    hub.check_invariants();
}

#[test]
fn only_events_above_the_floor_are_delivered() {
    let (hub, client) = (Hub::new(), Client::new(1));
    assert_eq!(say(&hub, ROOM, 1..=3), 0);
    join(&hub, &client, 5);
    assert_eq!(say(&hub, ROOM, 4..=7), 2);
    assert_eq!(client.received(), ["6", "7"]);
    assert_eq!(say(&hub, Uuid::from_u128(8), 1..=1), 0);
}

#[test]
fn events_during_a_join_follow_the_answer() {
    let (hub, client, other) = (Hub::new(), Client::new(1), Client::new(2));
    join(&hub, &other, 0);
    say(&hub, ROOM, 1..=2);
    let joining = hub.begin_join(ROOM, 0, &client);
    say(&hub, ROOM, 3..=6);
    assert!(client.received().is_empty());
    hub.go_live(&joining, &client, 4, &answered("answer")).unwrap();
    hub.check_invariants();
    say(&hub, ROOM, 7..=7);
    assert_eq!(client.received(), ["answer", "5", "6", "7"]);
    assert_eq!(other.received(), ["1", "2", "3", "4", "5", "6", "7"]);
}

#[test]
fn a_full_tail_makes_a_join_read_history_again() {
    let (hub, client) = (Hub::new(), Client::new(1));
    let joining = hub.begin_join(ROOM, 0, &client);
    let large = |seq: &u64| Frame::engine(&format!("{seq}{}", "x".repeat(MAX_BYTES / 4)));
    let events = (1..=9).map(|seq| Delivery { room: ROOM, seq, effect: Effect::None, event: seq }).collect::<Vec<_>>();
    hub.fan_out(&events, large, &mut Vec::new());
    hub.check_invariants();
    assert_eq!(hub.go_live(&joining, &client, 8, &plain()), Err(NotLive::Behind));
    assert_eq!(hub.go_live(&joining, &client, 9, &plain()), Ok(()));
    hub.check_invariants();
    say(&hub, ROOM, 10..=10);
    assert_eq!(client.received(), ["10"]);
}

#[test]
fn leaving_ends_delivery_and_cancels_a_join() {
    let (hub, client) = (Hub::new(), Client::new(1));
    let joining = hub.begin_join(ROOM, 0, &client);
    assert!(hub.leave(ROOM, 1));
    assert!(!hub.leave(ROOM, 1));
    assert_eq!(hub.go_live(&joining, &client, 0, &plain()), Err(NotLive::Cancelled));
    assert!(!hub.cancel_join(&joining, &client));
    assert_eq!(say(&hub, ROOM, 1..=1), 0);
    assert!(hub.partitions().is_empty());
}

#[test]
fn a_newer_join_replaces_an_older_join() {
    let (hub, client) = (Hub::new(), Client::new(1));
    let first = hub.begin_join(ROOM, 0, &client);
    let second = hub.begin_join(ROOM, 0, &client);
    hub.check_invariants();
    assert_eq!(hub.go_live(&first, &client, 0, &plain()), Err(NotLive::Cancelled));
    assert!(!hub.cancel_join(&first, &client));
    hub.go_live(&second, &client, 0, &plain()).unwrap();
    say(&hub, ROOM, 1..=1);
    assert_eq!(client.received(), ["1"]);
}

#[test]
fn joining_again_continues_from_the_new_answer() {
    let (hub, client) = (Hub::new(), Client::new(1));
    join(&hub, &client, 0);
    say(&hub, ROOM, 1..=2);
    let again = hub.begin_join(ROOM, 0, &client);
    say(&hub, ROOM, 3..=4);
    hub.go_live(&again, &client, 3, &answered("answer")).unwrap();
    assert_eq!(client.received(), ["1", "2", "answer", "4"]);
}

#[test]
fn a_failed_second_join_leaves_no_hole() {
    let (hub, client) = (Hub::new(), Client::new(1));
    join(&hub, &client, 0);
    say(&hub, ROOM, 1..=2);
    let again = hub.begin_join(ROOM, 0, &client);
    say(&hub, ROOM, 3..=4);
    assert!(hub.cancel_join(&again, &client));
    say(&hub, ROOM, 5..=5);
    assert_eq!(client.received(), ["1", "2", "3", "4", "5"]);
}

#[test]
fn a_deleted_room_evicts_after_its_last_event() {
    let (hub, client, late) = (Hub::new(), Client::new(1), Client::new(2));
    join(&hub, &client, 0);
    let joining = hub.begin_join(ROOM, 0, &late);
    let last = [Delivery { room: ROOM, seq: 1, effect: Effect::Closes, event: () }];
    hub.fan_out(&last, |()| Frame::engine("deleted"), &mut Vec::new());
    hub.check_invariants();
    assert_eq!(
        (client.received(), late.received()),
        (vec!["deleted".into(), "evicted".into()], vec!["evicted".into()])
    );
    assert_eq!(hub.go_live(&joining, &late, 1, &plain()), Err(NotLive::Cancelled));
}

#[test]
fn a_new_epoch_closes_only_the_clients_of_its_partition() {
    let (hub, here, there) = (Hub::new(), Client::new(1), Client::new(2));
    hub.begin_join(ROOM, 3, &here);
    hub.begin_join(Uuid::from_u128(8), 4, &there);
    assert_eq!(hub.partitions(), [3, 4].into());
    hub.resync(3);
    hub.check_invariants();
    assert_eq!((here.received(), there.received()), (vec!["resynced".into()], vec![]));
    assert_eq!(hub.partitions(), [4].into());
}

/// Returns pseudo-random numbers below a bound, always in the same sequence.
fn random() -> impl FnMut(u64) -> u64 {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    move |below| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    }
}

/// For any sequence of operations, the events that a client receives after an answer are dense, in rising order and
/// above the answer's `lastSeq`.
#[test]
fn random_joins_and_leaves_never_cause_a_hole() {
    let mut random = random();
    let (hub, clients) = (Hub::new(), (0..8).map(Client::new).collect::<Vec<_>>());
    // Commits are ahead of the fan-out.
    let (mut committed, mut fanned) = (0, 0);
    let mut joins = vec![None; clients.len()];
    for _ in 0..20_000 {
        let who = random(clients.len() as u64) as usize;
        match random(6) {
            0 | 1 => committed += 1 + random(3),
            2 | 3 if fanned < committed => {
                let to = fanned + 1 + random(committed - fanned);
                say(&hub, ROOM, fanned + 1..=to);
                fanned = to;
            }
            4 if joins[who].is_none() => joins[who] = Some(hub.begin_join(ROOM, 0, &clients[who])),
            4 => {
                if let Some(joining) = joins[who].take() {
                    hub.go_live(&joining, &clients[who], committed, &answered(&format!("answer {committed}"))).unwrap();
                }
            }
            _ if random(4) == 0 => {
                hub.leave(ROOM, who as u64);
                joins[who] = None;
                clients[who].received.lock().push("left".into());
            }
            _ => {}
        }
    }
    for client in &clients {
        let mut next = None;
        for line in client.received() {
            match (line.strip_prefix("answer "), &*line) {
                (Some(answer), _) => next = Some(answer.parse::<u64>().unwrap() + 1),
                (None, "left") => next = None,
                (None, seq) => {
                    assert_eq!(Some(seq.parse().unwrap()), next);
                    next = next.map(|next| next + 1);
                }
            }
        }
    }
}
