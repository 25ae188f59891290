//! The targets of an attack, in numbers.

use super::run::{Outcome, shown};

/// A condition that must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// No measured process ends.
    Survives,
    /// No message of the honest clients is rejected.
    SendsAccepted,
    /// The p99 of honest sends is at most twice the base plus 20 ms.
    SendsInTime,
    /// No honest socket is closed.
    NoneClosed,
    /// The p99 of `joinRoom` is at most 500 ms, and no join is rejected.
    JoinsInTime,
    /// New connections are accepted.
    NewcomersEnter,
    /// 90 % of the logins are answered within 5 s.
    LoginsInTime,
    /// Uploads of honest clients start at once.
    UploadsStart,
    /// Uploads and downloads on established connections continue.
    TransfersGoOn,
    /// The admin port answers.
    AdminAnswers,
    /// No answer and no log line reports an internal failure of the server.
    NothingInternal,
    /// Resident memory stays below the base plus this number of MiB.
    MemoryPeak(u64),
    /// Some time after the attack, memory is at most the base plus this number of MiB, and descriptors and tasks are
    /// back to normal.
    MemoryAfter(u64),
}

/// Time limit in milliseconds for an upload of 64 KiB that must start at once.
const SMALL_UPLOAD_LIMIT: f64 = 1000.0;
/// Descriptors and tasks that may be left over.
const LEFT_OVER: u64 = 20;

/// A target, and whether it was met.
#[derive(Debug)]
pub struct Judged {
    pub is_met: bool,
    /// The measured value, and the required value.
    pub text: String,
}

impl Target {
    /// Compares the results with the target.
    pub fn judge(self, outcome: &Outcome) -> Judged {
        let (base, attacked) = (&outcome.base, &outcome.attacked);
        match self {
            Self::Survives => {
                let killed = outcome
                    .victims
                    .iter()
                    .filter_map(|victim| Some(format!("{} {}", victim.name, victim.killed.as_ref()?)));
                let killed = killed.collect::<Vec<_>>();
                let confined = outcome.victims.iter().all(|victim| victim.is_confined);
                let place = if confined { "in its cgroup" } else { "not in a cgroup" };
                let text = if killed.is_empty() {
                    format!("survives, {place}")
                } else {
                    format!("{}, {place}", killed.join(", "))
                };
                Judged { is_met: killed.is_empty(), text }
            }
            Self::SendsAccepted => none_failed("sends", outcome, &["send"]),
            Self::NoneClosed => none_failed("honest sockets kept", outcome, &["stay", "come back"]),
            Self::TransfersGoOn => none_failed("transfers of those inside", outcome, &["upload", "download"]),
            Self::AdminAnswers => none_failed("looks at the admin port", outcome, &["admin port"]),
            Self::NewcomersEnter => none_failed("new connections", outcome, &["connect"]),
            Self::SendsInTime => {
                let (base, attacked) = (base.of("send").p99(), attacked.of("send"));
                within("p99 of sends", attacked.p99(), 2.0 * base + 20.0, base, attacked.done)
            }
            Self::JoinsInTime => {
                let joins = attacked.of("joinRoom");
                let mut judged = within("p99 of joinRoom", joins.p99(), 500.0, base.of("joinRoom").p99(), joins.done);
                judged.is_met &= joins.failed == 0;
                judged.text += &format!(", {} failed{}", joins.failed, because(joins.fault.as_deref()));
                judged
            }
            Self::LoginsInTime => {
                let logins = attacked.of("login");
                let text = format!(
                    "{:.0} % of {} logins within 5 s, at least 90 %",
                    logins.share(),
                    logins.done + logins.failed
                );
                let text = text + &because(logins.fault.as_deref());
                Judged { is_met: logins.done > 0 && logins.share() >= 90.0, text }
            }
            Self::UploadsStart => {
                let uploads = attacked.of("upload by a newcomer");
                let base = base.of("upload by a newcomer").p99();
                let mut judged = within(
                    "p99 of uploads of others",
                    uploads.p99(),
                    2.0 * base + SMALL_UPLOAD_LIMIT,
                    base,
                    uploads.done,
                );
                judged.is_met &= uploads.failed == 0;
                judged.text += &format!(", {} failed{}", uploads.failed, because(uploads.fault.as_deref()));
                judged
            }
            Self::NothingInternal => {
                let (answers, lines) = (attacked.internal, outcome.faults.len());
                let text = format!("{answers} answers and {lines} log lines about failures of the server's own, none");
                Judged {
                    is_met: answers == 0 && lines == 0,
                    text: text + &because(outcome.faults.first().map(String::as_str)),
                }
            }
            Self::MemoryPeak(mib) => {
                memory(outcome, "at most", mib, |victim| Some(victim.most.rss.max(victim.most.peak)))
            }
            Self::MemoryAfter(mib) => {
                let mut judged = memory(outcome, "afterwards", mib, |victim| Some(victim.after?.rss));
                for victim in &outcome.victims {
                    let Some(after) = victim.after else { continue };
                    for (what, base, after) in [
                        ("descriptors", victim.base.descriptors, after.descriptors),
                        ("tasks", victim.base.tasks, after.tasks),
                    ] {
                        judged.is_met &= after <= base + base / 2 + LEFT_OVER;
                        judged.text += &format!(", {what} {base} → {after}");
                    }
                }
                judged
            }
        }
    }
}

fn none_failed(what: &str, outcome: &Outcome, acts: &[&'static str]) -> Judged {
    let all = acts.iter().map(|name| outcome.attacked.of(name)).collect::<Vec<_>>();
    let (done, failed) = all.iter().fold((0, 0), |(done, failed), acts| (done + acts.done, failed + acts.failed));
    let fault = all.iter().find_map(|acts| acts.fault.as_deref());
    // If successes are counted, there must be at least one.
    let silent = done == 0 && acts.iter().any(|name| outcome.base.of(name).done > 0);
    Judged {
        is_met: failed == 0 && !silent,
        text: format!("{what}: {failed} failed, {done} done, none may fail{}", because(fault)),
    }
}

fn within(what: &str, found: f64, bound: f64, base: f64, count: u64) -> Judged {
    let is_met = count > 0 && found <= bound;
    Judged { is_met, text: format!("{what} {found:.1} ms of {count}, at most {bound:.1} ms (base {base:.1} ms)") }
}

fn memory(outcome: &Outcome, when: &str, mib: u64, of: impl Fn(&super::run::Victim) -> Option<u64>) -> Judged {
    let mut judged = Judged { is_met: true, text: String::new() };
    for victim in &outcome.victims {
        let (base, Some(found)) = (victim.base.rss, of(victim)) else {
            return Judged { is_met: false, text: format!("{} has ended", victim.name) };
        };
        judged.is_met &= found <= base + (mib << 20);
        let more = found.saturating_sub(base) >> 20;
        let between = if judged.text.is_empty() { "" } else { ", " };
        judged.text +=
            &format!("{between}memory of {} {when} base {} + {more} MiB, bound + {mib} MiB", victim.name, base >> 20);
    }
    judged
}

fn because(fault: Option<&str>) -> String {
    fault.map_or(String::new(), |fault| format!("; the first: {}", shown(fault)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::run::Victim;
    use super::super::tally::Tally;
    use super::super::usage::Usage;
    use super::*;

    fn outcome(attacked: &Tally) -> Outcome {
        let base = Tally::default();
        for what in ["send", "joinRoom", "connect", "login", "upload by a newcomer", "upload", "download", "admin port"]
        {
            base.done(what, Duration::from_millis(10));
        }
        let usage = Usage { rss: 30 << 20, peak: 30 << 20, descriptors: 50, threads: 9, tasks: 70 };
        let most = Usage { rss: 100 << 20, peak: 200 << 20, ..usage };
        let victim = Victim { name: "confab", base: usage, most, after: Some(usage), is_confined: true, killed: None };
        let (after, hostile) = (base.take(), attacked.take());
        let base = Tally::default();
        base.done("send", Duration::from_millis(10));
        Outcome {
            base: base.take(),
            attacked: hostile,
            after,
            hostile: Default::default(),
            victims: vec![victim],
            faults: vec![],
        }
    }

    #[test]
    fn sends_are_compared_with_their_base() {
        let slow = |ms| {
            let tally = Tally::default();
            tally.done("send", Duration::from_millis(ms));
            outcome(&tally)
        };
        assert!(Target::SendsInTime.judge(&slow(38)).is_met);
        assert!(!Target::SendsInTime.judge(&slow(45)).is_met);
        assert!(Target::SendsAccepted.judge(&slow(45)).is_met);
        // Without sends, the target is missed.
        let none = outcome(&Tally::default());
        assert!(!Target::SendsInTime.judge(&none).is_met && !Target::SendsAccepted.judge(&none).is_met);
    }

    #[test]
    fn failures_are_shown_with_their_text() {
        let tally = Tally::default();
        tally.done("login", Duration::from_millis(1));
        tally.failed("login", "503 busy");
        tally.failed("stay", "a poller: closed");
        let found = outcome(&tally);
        let logins = Target::LoginsInTime.judge(&found);
        assert!(
            !logins.is_met && logins.text.starts_with("50 % of 2 logins") && logins.text.ends_with("503 busy"),
            "{}",
            logins.text
        );
        assert!(!Target::NoneClosed.judge(&found).is_met && Target::NothingInternal.judge(&found).is_met);
    }

    #[test]
    fn memory_descriptors_and_tasks_are_compared_with_base() {
        let mut found = outcome(&Tally::default());
        assert!(Target::MemoryPeak(170).judge(&found).is_met && !Target::MemoryPeak(169).judge(&found).is_met);
        assert!(Target::MemoryAfter(0).judge(&found).is_met && Target::Survives.judge(&found).is_met);
        found.victims[0].after = Some(Usage { tasks: 1000, ..found.victims[0].base });
        assert!(!Target::MemoryAfter(40).judge(&found).is_met);
        (found.victims[0].after, found.victims[0].killed) = (None, Some("ended".into()));
        assert!(!Target::MemoryAfter(40).judge(&found).is_met && !Target::Survives.judge(&found).is_met);
    }
}
