//! Every row of the fault table as named cases. Each case injects a fault, heals it, and reports evidence that the
//! fault had an effect.

mod people;
mod processes;
mod servers;
mod storage;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;

use super::history::Fault;
use super::schedule::{Dice, Profile};
use super::terms::{
    AUTH, BUS, CARRIES_ON, DATABASE, DATABASE_REFUSES, FREEZES, GATEWAY, GENTLE, RESTORES, SPARES_CHAT, TERMS, Terms,
};
use super::world::World;
use crate::plan::Role;

pub struct Case {
    pub name: &'static str,
    /// The roles that it breaks.
    pub breaks: &'static [Role],
    /// The other roles that must be healthy during the case.
    pub needs: &'static [Role],
    /// What the fault may cause.
    pub terms: Terms,
}

/// The longest case: Redis is away for minutes.
pub const LONGEST: &str = "redis-away";
/// The last case: it restores the database to an older state.
pub const LAST: &str = "postgres-restored";

/// The roles that must be healthy for a message to be sent and for a request to succeed.
const SENDING: &[Role] = &[Role::Gateway, Role::Auth, Role::Room, Role::Message, Role::Postgres];
const ASKING: &[Role] = &[Role::Gateway, Role::Auth, Role::Room, Role::Message, Role::File, Role::S3, Role::Postgres];
const TALKING: &[Role] = &[Role::Gateway, Role::Auth, Role::Room, Role::Message, Role::Postgres, Role::Redis];

const fn case(name: &'static str, breaks: &'static [Role], needs: &'static [Role], terms: Terms) -> Case {
    Case { name, breaks, needs, terms }
}

/// All cases.
pub const CASES: &[Case] = &[
    case("message-killed", &[Role::Message], &[], CARRIES_ON),
    case("message-killed-before-commit", &[Role::Message], &[], CARRIES_ON),
    case("message-killed-after-commit", &[Role::Message], &[], CARRIES_ON),
    case("message-stopped", &[Role::Message], &[], CARRIES_ON),
    case("auth-killed", &[Role::Auth], SENDING, AUTH),
    case("room-killed", &[Role::Room], SENDING, SPARES_CHAT),
    case("file-killed", &[Role::File], ASKING, SPARES_CHAT),
    case("gateway-killed", &[Role::Gateway], SENDING, GATEWAY),
    case("gateway-stopped", &[Role::Gateway], SENDING, FREEZES),
    case("redis-killed", &[Role::Redis], &[], BUS),
    case(LONGEST, &[Role::Redis], &[], BUS),
    case("redis-stopped", &[Role::Redis], SENDING, BUS),
    case("redis-blackholed", &[Role::Redis], &[], BUS),
    case("bus-garbage", &[], TALKING, BUS),
    case("postgres-killed", &[Role::Postgres, Role::Message], &[], DATABASE),
    case("postgres-restarted", &[Role::Postgres, Role::Message], &[], DATABASE),
    case("postgres-stopped", &[Role::Postgres, Role::Message], &[], DATABASE_REFUSES),
    case("s3-down", &[Role::S3], ASKING, SPARES_CHAT),
    case("s3-slow", &[Role::S3], ASKING, SPARES_CHAT),
    case("s3-reset", &[Role::S3], ASKING, SPARES_CHAT),
    case("client-stalled", &[], SENDING, SPARES_CHAT),
    case("client-slow", &[], SENDING, SPARES_CHAT),
    case("client-vanished", &[], SENDING, SPARES_CHAT),
    case("crowd-dropped", &[], SENDING, TERMS),
    case("rolling-restart", &Role::ALL, &[], GENTLE),
    case("sent-thrice", &[], SENDING, TERMS),
    case(LAST, &Role::ALL, &[], RESTORES),
];

impl Case {
    /// Returns whether both cases can overlap: neither breaks a role that the other breaks or needs.
    pub fn goes_with(&self, other: &Case) -> bool {
        let spares = |one: &Case, other: &Case| {
            !one.breaks.iter().any(|role| other.breaks.contains(role) || other.needs.contains(role))
        };
        spares(self, other) && spares(other, self)
    }
}

/// Returns the case with this name.
pub fn named(name: &str) -> Option<&'static Case> {
    CASES.iter().find(|case| case.name == name)
}

/// Runs a case and records it.
///
/// # Errors
/// When the fault could not be injected or healed.
pub async fn run(
    case: &'static Case,
    world: &Arc<World>,
    mut dice: Dice,
    profile: Profile,
) -> anyhow::Result<Duration> {
    let from = world.recorder.now();
    let n = dice.below(world.gateways.len() as u64) as u16 + 1;
    let bit = match case.name {
        "message-killed" => processes::killed(world, &[(Role::Message, n)]).await,
        "message-killed-before-commit" => processes::killed_at(world, "before-commit").await,
        "message-killed-after-commit" => processes::killed_at(world, "after-commit").await,
        "auth-killed" => processes::service_killed(world, Role::Auth).await,
        "room-killed" => processes::service_killed(world, Role::Room).await,
        "file-killed" => processes::service_killed(world, Role::File).await,
        "gateway-killed" => processes::gateway_killed(world, n).await,
        "message-stopped" => processes::stopped(world, (Role::Message, n), Duration::from_secs(20)).await,
        "gateway-stopped" => processes::gateway_stopped(world, n, Duration::from_secs(20)).await,
        "rolling-restart" => processes::rolling_restart(world).await,
        "redis-killed" => servers::away(world, Role::Redis, Duration::from_secs(3)).await,
        LONGEST => servers::away(world, Role::Redis, absence(world, profile)).await,
        "redis-stopped" => servers::redis_stopped(world).await,
        "redis-blackholed" => servers::redis_blackholed(world).await,
        "bus-garbage" => servers::garbage(world).await,
        "postgres-killed" => servers::away(world, Role::Postgres, Duration::from_secs(2)).await,
        "postgres-restarted" => servers::postgres_restarted(world).await,
        "postgres-stopped" => processes::stopped(world, (Role::Postgres, 1), Duration::from_secs(20)).await,
        LAST => servers::postgres_restored(world).await,
        "s3-down" => storage::down(world).await,
        "s3-slow" => storage::slow(world).await,
        "s3-reset" => storage::reset(world).await,
        "client-stalled" => people::stalled(world, n).await,
        "client-slow" => people::slow(world, n).await,
        "client-vanished" => people::vanished(world, n).await,
        "crowd-dropped" => people::crowd_dropped(world, profile).await,
        "sent-thrice" => people::sent_thrice(world, &mut dice).await,
        other => anyhow::bail!("there is no case {other}"),
    };
    let healed = world.recorder.now();
    let bit = match (bit, case.terms.hints) {
        (Ok(bit), true) => servers::hints_arrive(world, case.terms.recovers).await.map(|()| bit),
        (bit, _) => bit,
    };
    let bit = bit.with_context(|| case.name);
    let (bit, broken) = match bit {
        Ok(bit) => (bit, None),
        Err(error) => (format!("it failed: {error:#}"), Some(format!("{error:#}"))),
    };
    world.recorder.note(|records| {
        records.faults.push(Fault { name: case.name, from, healed, terms: case.terms, bit });
        records.broken.extend(broken);
    });
    Ok(healed - from)
}

/// How long Redis is away: in the long profile one minute, then five, and so on.
fn absence(world: &World, profile: Profile) -> Duration {
    let before = world.recorder.with(|records| records.faults.iter().filter(|fault| fault.name == LONGEST).count());
    Duration::from_secs(match profile {
        Profile::Short => 20,
        Profile::Long => [60, 300][before % 2],
    })
}
