use confab_proto::message::v1 as pb;
use tokio::sync::oneshot;

use super::*;
use crate::testing::{Fixture, message};

fn request(reader: Uuid, query: &str) -> pb::SearchRequest {
    pb::SearchRequest { reader: reader.to_string(), query: query.into(), limit: 50, ..Default::default() }
}

async fn search(service: &Fixture, request: pb::SearchRequest) -> Result<pb::SearchResponse> {
    Ok(service.client.clone().search(request).await?.into_inner())
}

/// Repeats a search until it finds this number of messages.
async fn found(service: &Fixture, request: &pb::SearchRequest, number: usize) -> pb::SearchResponse {
    let begun = Instant::now();
    loop {
        let answer = search(service, request.clone()).await.unwrap();
        if answer.items.len() == number {
            return answer;
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "{answer:?}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_found_with_their_highlights() {
    let (service, room, reader) = (Fixture::new().await, Uuid::now_v7(), Uuid::now_v7());
    let before = now_ms();
    let (first, _) = service.send(message(room, "👍 Crème brûlée")).await.unwrap();
    service.send(message(room, "crème fraîche")).await.unwrap();
    let request = pb::SearchRequest { room_id: room.to_string(), ..request(reader, "brulee creme") };
    let answer = found(&service, &request, 1).await;
    assert_eq!(answer.items[0].message.as_ref().unwrap().id, first.id);
    let highlights = answer.items[0].highlights.iter().map(|it| (it.start, it.end)).collect::<Vec<_>>();
    assert_eq!(highlights, [(2, 7), (8, 14)]);
    assert!(answer.up_to_ms >= before && !answer.epoch.is_empty() && answer.next_cursor.is_empty());
    // Without a room: the user is a member of none.
    let everywhere = pb::SearchRequest { room_id: String::new(), ..request };
    assert_eq!(search(&service, everywhere).await.unwrap().items.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_have_every_message_once() {
    let (service, room, reader) = (Fixture::new().await, Uuid::now_v7(), Uuid::now_v7());
    let batch = (0..25).map(|n| message(room, &format!("hello {n}"))).collect();
    service.append(batch).await;
    let all = pb::SearchRequest { room_id: room.to_string(), ..request(reader, "hello") };
    found(&service, &all, 25).await;
    let mut page = pb::SearchRequest { limit: 10, ..all };
    let (mut seqs, mut pages) = (Vec::new(), 0);
    loop {
        let answer = search(&service, page.clone()).await.unwrap();
        seqs.extend(answer.items.iter().map(|item| item.message.as_ref().unwrap().seq));
        pages += 1;
        if answer.next_cursor.is_empty() {
            break;
        }
        page.cursor = answer.next_cursor;
    }
    assert_eq!((pages, seqs), (3, (1..=25).rev().collect()));
    page.cursor = cursor::encode(&Place::new(i64::MAX, room, i64::MIN));
    assert_eq!(search(&service, page).await.unwrap().items.len(), 10, "a forged cursor");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_searches_are_rejected() {
    let (service, room, reader) = (Fixture::new().await, Uuid::now_v7(), Uuid::now_v7());
    service.send(message(room, "hello")).await.unwrap();
    let good = request(reader, "hello");
    let words = |number: usize| (0..number).map(|n| format!("w{n}")).collect::<Vec<_>>().join(" ");
    for (wrong, code, field) in [
        (pb::SearchRequest { query: String::new(), ..good.clone() }, Code::InvalidRequest, "q"),
        (pb::SearchRequest { query: "x".repeat(201), ..good.clone() }, Code::InvalidRequest, "q"),
        (pb::SearchRequest { query: words(11), ..good.clone() }, Code::InvalidRequest, "q"),
        (pb::SearchRequest { limit: 0, ..good.clone() }, Code::InvalidRequest, "limit"),
        (pb::SearchRequest { limit: 201, ..good.clone() }, Code::InvalidRequest, "limit"),
        (pb::SearchRequest { cursor: "x".into(), ..good.clone() }, Code::InvalidRequest, "cursor"),
        (pb::SearchRequest { room_id: "x".into(), ..good.clone() }, Code::InvalidRequest, "roomId"),
        (pb::SearchRequest { sender_id: "x".into(), ..good.clone() }, Code::InvalidRequest, "from"),
        (pb::SearchRequest { moderator: true, ..good.clone() }, Code::InvalidRequest, "roomId"),
        (pb::SearchRequest { room_id: Uuid::now_v7().to_string(), ..good.clone() }, Code::NotFound, ""),
    ] {
        let error = search(&service, wrong.clone()).await.unwrap_err();
        let fields = error.fields.iter().map(|it| it.field.clone()).collect::<Vec<_>>();
        assert_eq!(error.code, code, "{wrong:?}");
        assert!(field.is_empty() || fields == [field], "{wrong:?}: {fields:?}");
    }
    for good in [words(10), "é".repeat(200), "…".into()] {
        assert!(search(&service, request(reader, &good)).await.is_ok(), "{good}");
    }
}

#[tokio::test]
async fn searches_are_bounded() {
    let searches = Arc::new(Searches::new(1));
    let (end, ended) = oneshot::channel::<()>();
    let endless = searches.clone();
    let first = tokio::spawn(async move {
        let work = async move { ended.await.map_err(Error::internal) };
        endless.run(Box::pin(work)).await
    });
    let waiting = (0..WAITING + 3).map(|_| searches.run(Box::pin(async { Ok(()) })));
    while searches.admitted.available_permits() == 1 + WAITING {
        tokio::task::yield_now().await;
    }
    let outcomes = futures::future::join_all(waiting).await;
    let codes = outcomes.into_iter().map(|outcome| outcome.unwrap_err().code).collect::<Vec<_>>();
    assert_eq!(codes, vec![Code::Unavailable; WAITING + 3]);
    end.send(()).unwrap();
    first.await.unwrap().unwrap();
    searches.run(Box::pin(async { Ok(()) })).await.unwrap();
    let off = Searches::new(0).run(Box::pin(async { Ok(()) })).await;
    assert_eq!(off.unwrap_err().code, Code::Forbidden);
}

#[tokio::test(start_paused = true)]
async fn a_search_that_takes_too_long_still_counts() {
    let searches = Searches::new(1);
    let (end, ended) = oneshot::channel::<()>();
    let endless = async move { ended.await.map_err(Error::internal) };
    assert_eq!(searches.run(Box::pin(endless)).await.unwrap_err().code, Code::Unavailable);
    assert_eq!(searches.run(Box::pin(async { Ok(()) })).await.unwrap_err().code, Code::Unavailable);
    end.send(()).unwrap();
    while searches.running.as_ref().is_some_and(|running| running.available_permits() == 0) {
        tokio::task::yield_now().await;
    }
    searches.run(Box::pin(async { Ok(()) })).await.unwrap();
}
