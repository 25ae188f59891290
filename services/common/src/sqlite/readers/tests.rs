use super::*;
use crate::{Code, testing};

fn readers() -> Readers {
    let path = testing::directory().join("test.db");
    connect(&path, OpenFlags::default()).unwrap();
    Readers::new(path, 1)
}

#[tokio::test]
async fn slow_statement_is_interrupted_and_its_connection_reused() {
    let readers = readers();
    let count = |until: i64| {
        move |connection: &Connection| {
            let sql = "WITH RECURSIVE n (n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM n WHERE n < ?1) SELECT count(*) FROM n";
            Ok(connection.query_row(sql, [until], |row| row.get::<_, i64>(0))?)
        }
    };
    let ended = readers.read_within(Duration::from_millis(1), count(i64::MAX)).await.unwrap_err();
    assert_eq!(ended.code, Code::Timeout);
    assert_eq!(readers.read(count(10_000)).await.unwrap(), 10_000);
}

#[tokio::test]
async fn dropped_caller_frees_its_connection_when_the_work_ends() {
    let busy = readers();
    let (release, released) = std::sync::mpsc::channel::<()>();
    let (begin, begun) = tokio::sync::oneshot::channel();
    let mut left = Box::pin(busy.read(move |_| {
        let _ = begin.send(());
        released.recv().map_err(Error::internal)
    }));
    tokio::select! { _ = &mut left => panic!("the read must wait"), _ = begun => drop(left) }

    busy.apart(1).read(|_| Ok(())).await.unwrap();
    let mut next = Box::pin(busy.read(|_| Ok(())));
    assert!(futures::poll!(&mut next).is_pending());
    assert_eq!(busy.0.permits.available_permits(), 0);
    release.send(()).unwrap();
    next.await.unwrap();
}
