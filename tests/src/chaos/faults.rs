//! Every row of the fault table as named cases: each breaks something, heals it, and says how it is known that it bit.

mod people;
mod processes;
mod servers;
mod storage;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;

use super::history::{Fault, Terms};
use super::schedule::{Dice, Profile};
use super::world::World;
use crate::plan::Role;

/// A named fault.
pub struct Case {
    /// Its name.
    pub name: &'static str,
    /// Whom it needs for itself.
    pub touches: &'static [Role],
    /// What it may do.
    pub terms: Terms,
}

/// The case after which nothing else comes: it puts the database back to an older state.
pub const LAST: &str = "postgres-restored";

/// Within this everything is as before, of itself (I7).
const TERMS: Terms = Terms { recovers: Duration::from_secs(15), silences: false, spares_rest: false, live: None };
const FREEZES: Terms = Terms { silences: true, ..TERMS };
const GATEWAY: Terms = Terms { recovers: Duration::from_secs(10), ..TERMS };
const DATABASE: Terms = Terms { recovers: Duration::from_secs(10), silences: true, ..TERMS };
const BUS: Terms = Terms { recovers: Duration::from_secs(5), live: Some(Duration::from_secs(1)), ..TERMS };
const SPARES_CHAT: Terms = Terms { live: Some(Duration::from_secs(1)), ..TERMS };
const GENTLE: Terms = Terms { spares_rest: true, ..TERMS };

/// What must be whole for a message to be sent, and for a request to be answered as it is without a fault.
const SENDING: &[Role] = &[Role::Gateway, Role::Auth, Role::Room, Role::Message, Role::Postgres];
const LOGGING_OUT: &[Role] = &[Role::Redis, Role::Gateway, Role::Auth, Role::Room, Role::Message, Role::Postgres];
const ASKING: &[Role] = &[Role::Gateway, Role::Auth, Role::Room, Role::Message, Role::File, Role::S3, Role::Postgres];

const fn case(name: &'static str, touches: &'static [Role], terms: Terms) -> Case {
    Case { name, touches, terms }
}

/// All of them.
pub const CASES: &[Case] = &[
    case("message-killed", &[Role::Message], TERMS),
    case("message-killed-after-commit", &[Role::Message], TERMS),
    case("auth-killed", SENDING, SPARES_CHAT),
    case("room-killed", SENDING, SPARES_CHAT),
    case("file-killed", ASKING, SPARES_CHAT),
    case("gateway-killed", &[Role::Gateway], GATEWAY),
    case("redis-killed", &[Role::Redis], BUS),
    case("redis-away", LOGGING_OUT, BUS),
    case("redis-stopped", &[Role::Redis], BUS),
    case("redis-blackholed", &[Role::Redis], BUS),
    case("bus-garbage", &[Role::Redis, Role::Gateway], SPARES_CHAT),
    case("postgres-killed", &[Role::Postgres, Role::Message], DATABASE),
    case("postgres-restarted", &[Role::Postgres, Role::Message], DATABASE),
    case("postgres-stopped", &[Role::Postgres, Role::Message], DATABASE),
    case("message-stopped", &[Role::Message], FREEZES),
    case("gateway-stopped", LOGGING_OUT, FREEZES),
    case("s3-down", ASKING, SPARES_CHAT),
    case("s3-slow", ASKING, SPARES_CHAT),
    case("s3-reset", ASKING, SPARES_CHAT),
    case("client-stalled", SENDING, SPARES_CHAT),
    case("client-slow", SENDING, SPARES_CHAT),
    case("client-vanished", SENDING, SPARES_CHAT),
    case("crowd-dropped", SENDING, TERMS),
    case("rolling-restart", &Role::ALL, GENTLE),
    case("sent-thrice", SENDING, TERMS),
    case(LAST, &Role::ALL, FREEZES),
];

/// The case of that name.
pub fn named(name: &str) -> Option<&'static Case> {
    CASES.iter().find(|case| case.name == name)
}

/// Has a case happen, and writes it down.
///
/// # Errors
/// When it could not be brought about or healed.
pub async fn run(case: &'static Case, world: &Arc<World>, mut dice: Dice, profile: Profile) -> anyhow::Result<Duration> {
    let from = world.recorder.now();
    let n = dice.below(world.gateways.len() as u64) as u16 + 1;
    let bit = match case.name {
        "message-killed" => processes::killed(world, &[(Role::Message, n)]).await,
        "message-killed-after-commit" => processes::killed_after_commit(world).await,
        "auth-killed" => processes::service_killed(world, Role::Auth).await,
        "room-killed" => processes::service_killed(world, Role::Room).await,
        "file-killed" => processes::service_killed(world, Role::File).await,
        "gateway-killed" => processes::killed(world, &[(Role::Gateway, n)]).await,
        "message-stopped" => processes::stopped(world, (Role::Message, n), Duration::from_secs(20)).await,
        "gateway-stopped" => processes::gateway_stopped(world, n, Duration::from_secs(20)).await,
        "rolling-restart" => processes::rolling_restart(world).await,
        "redis-killed" => servers::away(world, Role::Redis, Duration::from_secs(3)).await,
        "redis-away" => servers::redis_away(world, absence(&mut dice, profile)).await,
        "redis-stopped" => processes::stopped(world, (Role::Redis, 1), Duration::from_secs(6)).await,
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
        other => anyhow::bail!("no case is called {other}"),
    };
    let healed = world.recorder.now();
    let bit = bit.with_context(|| case.name);
    let (bit, broken) = match bit {
        Ok(bit) => (bit, None),
        Err(error) => ("it failed".to_owned(), Some(format!("{error:#}"))),
    };
    world.recorder.note(|records| {
        records.faults.push(Fault { name: case.name, from, healed, terms: case.terms, bit });
        records.broken.extend(broken);
    });
    Ok(healed - from)
}

fn absence(dice: &mut Dice, profile: Profile) -> Duration {
    Duration::from_secs(match profile {
        Profile::Short => 20,
        Profile::Long => [60, 60, 300][dice.below(3) as usize],
    })
}
