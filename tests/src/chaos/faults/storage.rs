//! Faults of the object store: away, slow, or resetting connections in mid-body. Chat must not be affected, and no
//! partial upload may remain.

use std::time::Duration;

use anyhow::ensure;
use tokio::time::timeout;

use super::super::clients::rest_outcome;
use super::super::history::Outcome;
use super::super::proxy::Mode;
use super::super::world::World;
use crate::api::unique;
use crate::form::Form;
use crate::objects::Objects;
use crate::plan::Role;
use crate::wait::eventually;

/// Larger than what passes before the store resets a connection, and than what a slow store takes in time.
const SIZE: usize = 3 * 1024 * 1024;
/// How many uploads are tried during the fault.
const TRIES: usize = 3;
/// Time limit until an upload is rejected: uploads wait longer for their store than messages do.
const REJECTION_LIMIT: Duration = Duration::from_secs(45);
/// Time limit until all orphans are removed.
const SWEEP_LIMIT: Duration = Duration::from_secs(45);

/// The store does not answer.
pub(super) async fn down(world: &World) -> anyhow::Result<String> {
    world.cluster.kill((Role::S3, 1)).await?;
    let refused = refused(world).await;
    world.cluster.start((Role::S3, 1)).await?;
    refused?;
    well_again(world).await?;
    Ok(format!("{TRIES} uploads were rejected without a store"))
}

/// The store accepts a few kilobytes per second.
pub(super) async fn slow(world: &World) -> anyhow::Result<String> {
    broken(world, Mode::Slow(4 * 1024), "the store is slow").await
}

/// Every connection is reset in mid-body.
pub(super) async fn reset(world: &World) -> anyhow::Result<String> {
    broken(world, Mode::CutAfter(600_000), "the store resets connections").await
}

async fn broken(world: &World, mode: Mode, of: &str) -> anyhow::Result<String> {
    let before = world.objects.harm();
    world.objects.set(mode);
    let refused = refused(world).await;
    world.objects.set(Mode::Pass);
    world.objects.cut();
    let harm = world.objects.harm() - before;
    refused?;
    ensure!(harm > 0, "no bytes passed the proxy");
    well_again(world).await?;
    Ok(format!("{TRIES} uploads were rejected because {of}"))
}

/// Checks that uploads during the fault are rejected with a typed error, in time.
async fn refused(world: &World) -> anyhow::Result<()> {
    for _ in 0..TRIES {
        let begun = world.recorder.now();
        let outcome = timeout(REJECTION_LIMIT, upload(world, "lost")).await.unwrap_or(Outcome::Silent);
        let unavailable = matches!(&outcome, Outcome::Refused(503 | 504, _));
        ensure!(unavailable, "an upload begun at {begun:?} ended with {outcome:?}");
    }
    Ok(())
}

/// Checks that an upload succeeds again, and that nothing remains of the rejected uploads.
async fn well_again(world: &World) -> anyhow::Result<()> {
    let taken = async || (upload(world, "kept").await == Outcome::Done).then_some(());
    eventually("an upload succeeds", Duration::from_secs(20), taken).await?;
    let objects = Objects::of(&world.cluster.daemon((Role::File, 1))?)?;
    let swept = async || {
        let stored = objects.all().await.ok()?.len();
        (stored == files(world).await?).then_some(())
    };
    eventually("orphans are removed", SWEEP_LIMIT, swept).await
}

async fn upload(world: &World, name: &str) -> Outcome {
    let bytes = vec![7; SIZE];
    let form = Form::new().file(&unique(name), "application/octet-stream", &bytes);
    rest_outcome(Some(world.api.upload(&world.owner, form).await))
}

/// Counts the files.
async fn files(world: &World) -> Option<usize> {
    let (mut count, mut path) = (0, "/api/files?limit=200".to_owned());
    loop {
        let page = world.api.get(&path, &world.owner).await.ok()?.expect(200).ok()?;
        count += page["items"].as_array()?.len();
        match page["nextCursor"].as_str() {
            Some(cursor) => path = format!("/api/files?limit=200&cursor={cursor}"),
            None => return Some(count),
        }
    }
}
