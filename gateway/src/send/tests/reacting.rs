//! Reactions on their way to the message service.

use confab_proto::message::v1::{NewChange, Op};

use super::*;

/// A sender to a message service that rejects its first `rejected` calls, and the contents of each call.
fn counted(rejected: usize) -> (Sender, Arc<Mutex<Vec<Vec<String>>>>) {
    let calls = Arc::<Mutex<Vec<Vec<String>>>>::default();
    let of_service = calls.clone();
    let message = fake(move |_, body| {
        let mut calls = of_service.lock();
        let events = AppendRequest::decode(body).unwrap().events;
        let name = |event: &NewEvent| event.change.as_ref().map_or_else(|| event.content.clone(), |it| it.name.clone());
        calls.push(events.iter().map(name).collect());
        let stored = calls.len() > rejected;
        let outcome = |event: NewEvent| {
            let refusal = Refusal { code: "unavailable".into(), detail: "not now".into() };
            let message = Event { id: event.id, ..Event::default() };
            let result = if stored { outcome::Result::Unchanged(message) } else { outcome::Result::Refusal(refusal) };
            Outcome { result: Some(result), duplicate: false }
        };
        let outcomes = events.into_iter().map(outcome).collect();
        Ok(AppendResponse { epoch: "e".into(), outcomes }.encode_to_vec())
    });
    let clients = Clients::new(Services { message, ..Services::none() }, TIMEOUT);
    (Sender::new(&clients), calls)
}

fn react(sender: &Sender, target: u64, name: &str) -> Result<Sending> {
    let user = UserRef { id: Uuid::from_u128(7).to_string(), username: "ada".into() };
    let change = NewChange { target, op: Op::React.into(), name: name.into(), on: true, ..NewChange::default() };
    let (id, room_id) = (Uuid::now_v7().to_string(), ROOM.into());
    let event = NewEvent { id, room_id, sender: Some(user), change: Some(change), ..NewEvent::default() };
    sender.begin(ROOM.parse().unwrap(), event, Credential::default(), TIMEOUT)
}

#[tokio::test(start_paused = true)]
async fn reactions_to_one_message_go_together_and_in_order() {
    let (sender, calls) = counted(0);
    let names = (0..300).map(|n| n.to_string()).collect::<Vec<_>>();
    let sent = names.iter().map(|name| react(&sender, 1, name).unwrap()).collect::<Vec<_>>();
    for sent in sent {
        sent.outcome().await.unwrap();
    }
    let calls = calls.lock();
    assert_eq!((calls.iter().map(Vec::len).collect::<Vec<_>>(), calls.concat()), (vec![256, 44], names));
}

#[tokio::test(start_paused = true)]
async fn rejected_reactions_are_repeated_before_later_ones() {
    let (sender, calls) = counted(1);
    let first = [react(&sender, 1, "a").unwrap(), react(&sender, 1, "b").unwrap()];
    eventually(|| !calls.lock().is_empty()).await;
    let last = react(&sender, 1, "c").unwrap();
    for sent in first.into_iter().chain([last]) {
        sent.outcome().await.unwrap();
    }
    assert_eq!(*calls.lock(), [vec!["a", "b"], vec!["a", "b", "c"]]);
}

#[tokio::test(start_paused = true)]
async fn waiting_reactions_are_bounded() {
    let (sender, _) = counted(usize::MAX);
    let sent = (0..4096).map(|n| react(&sender, n % 9 + 1, "a").unwrap()).collect::<Vec<_>>();
    assert_eq!(react(&sender, 1, "a").err().unwrap().code, Code::Unavailable);
    // Messages have their own space.
    let user = begin(&sender, 7, "text").unwrap();
    for sent in sent.into_iter().chain([user]) {
        assert!(matches!(sent.outcome().await.unwrap_err().code, Code::Unavailable | Code::Timeout));
    }
    assert!(react(&sender, 1, "a").is_ok());
}
