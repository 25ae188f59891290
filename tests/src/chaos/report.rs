//! Prints the results of a run.

use std::time::Duration;

use super::checker::Verdict;
use super::history::{Records, Uses};

/// Maximum violations that are printed in full.
const SHOWN: usize = 20;

/// Prints what has happened since the last call, after `before` faults.
pub(super) fn progress(records: &Records, before: usize) {
    for fault in &records.faults[before..] {
        let lasted = fault.healed.saturating_sub(fault.from);
        println!(
            "{:>7.1} s  {:<28} {:>5.1} s  {}",
            fault.from.as_secs_f32(),
            fault.name,
            lasted.as_secs_f32(),
            fault.bit
        );
    }
}

/// Prints the verdict.
pub fn print(seed: u64, records: &Records, verdict: &Verdict) {
    let counts = &verdict.counts;
    println!(
        "\nseed {seed}, {:.0} s, {} faults; time to recover after each:",
        records.ended.as_secs_f32(),
        records.faults.len()
    );
    for (name, took) in &verdict.recoveries {
        println!("  {name:<28} {:>5.1} s", took.as_secs_f32());
    }
    println!(
        "\nsent {}, acknowledged {}, retried {}; delivered {}, of these repaired {}, resumed {} times, recovered {}",
        counts.sent,
        counts.acknowledged,
        counts.retried,
        counts.delivered,
        counts.repaired,
        counts.resumed,
        counts.recovered
    );
    println!(
        "removed {} members, changed {} roles and {} visibilities; rejected {} posts and reads without the right",
        counts.removals, counts.role_changes, counts.visibility_changes, counts.rejected
    );
    println!(
        "ended sessions by {} logouts, {} new passwords and {} suspensions",
        counts.logouts, counts.password_changes, counts.suspensions
    );
    println!(
        "changed messages {} times, reacted {} times, replied {} times, marked messages as read or unread {} times",
        counts.changes, counts.reactions, counts.replies, counts.marks
    );
    println!("live delivery after the acknowledgement: median {}, p99 {}", ms(verdict.lag.0), ms(verdict.lag.1));
    for (what, attacks) in &records.attacks {
        println!("attackers: {what}: {}, rejected or cut off {} times", attacks.made, attacks.refused);
    }
    println!("start, maximum and end: memory in MiB, descriptors, tasks");
    for (name, Uses { first, most, last }) in records.uses() {
        let all = [first, most, last].map(|used| (used.rss >> 20, used.descriptors, used.tasks.unwrap_or_default()));
        println!("  {name:<12} {:?} {:?} {:?}", all.map(|used| used.0), all.map(|used| used.1), all.map(|used| used.2));
    }
    println!(
        "lost {}, repeated {}, reordered {}, invented {}, in a wrong state {}; markers moved back {}, wrong numbers of unread messages {}",
        counts.lost,
        counts.repeated,
        counts.reordered,
        counts.invented,
        counts.misfolded,
        counts.receded,
        counts.miscounted
    );
    println!("wrong reactions {}, wrong counts of replies {}", counts.misreacted, counts.misreplied);
    println!(
        "without the right: received {}, posted or read {}; received after the end of the session {}",
        counts.leaked, counts.trespassed, counts.outlived
    );
    for violation in verdict.violations.iter().take(SHOWN) {
        println!("  NOT KEPT {}: {}", violation.promise, violation.evidence);
    }
    if verdict.violations.len() > SHOWN {
        println!("  and {} more", verdict.violations.len() - SHOWN);
    }
}

fn ms(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1000.0)
}
