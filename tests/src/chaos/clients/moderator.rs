//! The owner of two rooms, who changes them while faults are injected: members and roles of a private room, and the
//! visibility of another room. All changes of a room are made one after another, so they are in history in this order.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::super::access::{Change, Role};
use super::super::schedule::Dice;
use super::super::world::World;
use super::acts::change;
use super::id;
use crate::api::Account;

/// How long a member is removed, or a room is hidden, in milliseconds: at least, and at random in addition.
const AWAY: (u64, u64) = (900, 1500);
/// How long the rooms stay unchanged after that, in milliseconds.
const BACK: (u64, u64) = (500, 1500);
/// The owner passes the room on once in this many rounds.
const PASSES_EVERY: usize = 3;

/// Removes the guests and adds them back, changes roles and passes the room on, until the run ends. After each round
/// the room is as it was before.
///
/// # Errors
/// When an account is invalid.
pub async fn moderate(world: Arc<World>, deputy: Account, guests: Vec<Uuid>, mut dice: Dice) -> anyhow::Result<()> {
    let (room, owner, heir) = (world.private_room, id(&world.owner)?, id(&deputy)?);
    let role = |user, role| Change::Roles([(user, role)].into());
    for round in 1.. {
        let (guest, other) = (guests[round % guests.len()], guests[(round + 1) % guests.len()]);
        change(&world, &world.owner, room, Change::Left { user: guest }).await;
        pause(&world, AWAY, &mut dice).await;
        change(&world, &world.owner, room, role(other, Role::Admin)).await;
        change(&world, &world.owner, room, Change::Joined { user: guest, role: Role::Member }).await;
        change(&world, &world.owner, room, role(other, Role::Member)).await;
        if round % PASSES_EVERY == 0 {
            let passed = |from, to| Change::Roles([(from, Role::Admin), (to, Role::Owner)].into());
            change(&world, &world.owner, room, passed(owner, heir)).await;
            pause(&world, BACK, &mut dice).await;
            change(&world, &deputy, room, passed(heir, owner)).await;
        }
        if world.is_ending() {
            break;
        }
        pause(&world, BACK, &mut dice).await;
    }
    Ok(())
}

/// Makes a room private and public again, until the run ends. It is public at the end.
pub async fn hide_and_show(world: Arc<World>, mut dice: Dice) {
    loop {
        for (private, time) in [(true, AWAY), (false, BACK)] {
            change(&world, &world.owner, world.changing_room, Change::Visibility { private }).await;
            pause(&world, time, &mut dice).await;
        }
        // Clients that were closed return within a second or two.
        pause(&world, BACK, &mut dice).await;
        if world.is_ending() {
            return;
        }
    }
}

async fn pause(world: &World, (least, more): (u64, u64), dice: &mut Dice) {
    world.rest(Duration::from_millis(least + dice.below(more))).await;
}
