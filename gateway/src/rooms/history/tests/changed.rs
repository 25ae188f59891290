//! Readers with different numbers share reads, and receive the changed messages of their own numbers.

use confab_proto::message::v1::State;

use super::*;

/// A room: the revisions of its messages by `seq`; 0 for a change.
#[derive(Clone)]
struct Room(Vec<u64>);

impl Room {
    /// A room of `last` events, of which about a third are changes of earlier messages.
    fn random(last: u64, random: &mut impl FnMut(u64) -> u64) -> Self {
        let mut revisions: Vec<u64> = Vec::new();
        for seq in 1..=last {
            let messages = (0..revisions.len()).filter(|at| revisions[*at] > 0).collect::<Vec<_>>();
            if !messages.is_empty() && random(3) == 0 {
                revisions[messages[random(messages.len() as u64) as usize]] = seq;
                revisions.push(0);
            } else {
                revisions.push(seq);
            }
        }
        Self(revisions)
    }

    fn last(&self) -> u64 {
        self.0.len() as u64
    }

    fn messages(&self) -> impl Iterator<Item = (u64, u64)> {
        (1..).zip(self.0.iter().copied()).filter(|(_, revision)| *revision > 0)
    }

    fn after(&self, after: u64) -> Vec<u64> {
        self.messages().map(|(seq, _)| seq).filter(|seq| *seq > after).collect()
    }

    fn changed(&self, after: u64, from: u64) -> Vec<u64> {
        let held = self.messages().filter(|(seq, revision)| (from..=after).contains(seq) && *revision > after);
        let mut changed = held.map(|(seq, revision)| (revision, seq)).collect::<Vec<_>>();
        changed.sort_unstable();
        changed.into_iter().map(|(_, seq)| seq).collect()
    }

    /// The answer of the message service, with at most `most` messages.
    fn answer(&self, request: &ListEventsRequest, most: usize) -> ListEventsResponse {
        let event = |seq: u64| {
            let revision = self.0[seq as usize - 1];
            Event { seq, state: Some(State { revision, ..State::default() }), ..Event::default() }
        };
        let after = request.after.unwrap();
        let (mut events, mut changed) = (self.after(after), Vec::new());
        let more = events.len() > most;
        events.truncate(most);
        if let Some(from) = request.changed_from {
            changed = self.changed(after, from);
        }
        let more_changed = changed.len() > most - events.len();
        changed.truncate(most - events.len());
        let [events, changed] = [events, changed].map(|seqs| seqs.into_iter().map(event).collect());
        let (epoch, last_seq) = ("e".into(), self.last());
        ListEventsResponse { epoch, last_seq, events, more, changed, more_changed, ..ListEventsResponse::default() }
    }
}

fn shared(room: &Room, most: usize) -> (Arc<AtomicU64>, Arc<History>) {
    let reads = Arc::<AtomicU64>::default();
    let (room, count) = (room.clone(), reads.clone());
    let message = fake(move |_, body: Bytes| {
        count.fetch_add(1, Ordering::SeqCst);
        Ok(room.answer(&ListEventsRequest::decode(body).unwrap(), most).encode_to_vec())
    });
    let clients = Clients::new(Services { message, ..Services::none() }, std::time::Duration::from_secs(20));
    (reads, History::new(clients))
}

#[tokio::test]
async fn every_reader_receives_the_changes_of_its_own_numbers() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    for most in [200, 40, 7] {
        let room = Room::random(90, &mut random);
        let (_, history) = shared(&room, most);
        let wanted = (0..60).map(|_| (random(100), 1 + random(90))).collect::<Vec<_>>();
        let reading = wanted
            .iter()
            .map(|(after, from)| history.read(ROOM, Wanted::After { after: *after, changed_from: Some(*from) }, None));
        for ((after, from), page) in wanted.iter().copied().zip(join_all(reading).await) {
            let page = page.unwrap();
            let (expected, of) = (room.after(after), format!("after {after} from {from}, at most {most}"));
            let seqs = seqs(&page);
            assert!(expected.starts_with(&seqs) && seqs.len() >= expected.len().min(most / 2), "{of}: {seqs:?}");
            assert_eq!(page.more(), seqs.len() < expected.len(), "{of}");
            let (changed, is_all) = page.changed(after, from);
            let changed = changed.iter().map(|entry| entry.seq).collect::<Vec<_>>();
            let expected = room.changed(after, from);
            assert!(expected.starts_with(&changed), "{of}: {changed:?} of {expected:?}");
            assert!(!is_all || changed.len() == expected.len(), "{of}");
            assert!(is_all || most < 200, "{of}");
        }
    }
}

#[tokio::test]
async fn readers_with_complete_answers_share_one_read() {
    let room = Room(vec![9, 2, 10, 4, 5, 6, 7, 8, 0, 0]);
    let (reads, history) = shared(&room, 200);
    let wanted = [(4, Some(1)), (6, Some(2)), (8, Some(1)), (5, None), (3, None), (10, Some(1)), (50, Some(1))];
    let reading = wanted.map(|(after, changed_from)| history.read(ROOM, Wanted::After { after, changed_from }, None));
    let pages = join_all(reading).await;
    assert_eq!(reads.load(Ordering::SeqCst), 1);
    let changed = wanted.iter().zip(pages).filter_map(|((after, from), page)| {
        let page = page.unwrap();
        let (changed, is_all) = page.changed(*after, (*from)?);
        assert!(is_all);
        Some(changed.iter().map(|entry| entry.seq).collect::<Vec<_>>())
    });
    let expected = [vec![1, 3], vec![3], vec![1, 3], vec![], vec![]];
    assert_eq!(changed.collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn incomplete_answers_share_reads_too() {
    // 400 messages, then an edit of each: twice as many as fit into an answer.
    let room = Room((401..=800).chain(std::iter::repeat_n(0, 400)).collect());
    let (reads, history) = shared(&room, 200);
    let wanted = (1..=400).rev().map(|from| (400 + from % 3, from));
    let reading =
        wanted.clone().map(|(after, from)| history.read(ROOM, Wanted::After { after, changed_from: Some(from) }, None));
    for ((after, from), page) in wanted.zip(join_all(reading).await) {
        let page = page.unwrap();
        let (changed, expected) = (page.changed(after, from).0, room.changed(after, from));
        let changed = changed.iter().map(|entry| entry.seq).collect::<Vec<_>>();
        assert!(expected.starts_with(&changed) && changed.len() >= expected.len().min(90), "{from}: {}", changed.len());
    }
    let reads = reads.load(Ordering::SeqCst);
    assert!(reads <= 15, "{reads} reads for 400 readers");
}
