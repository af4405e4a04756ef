//! Events as lines for people.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use libring::{Event, GroupId, Member, MemberChange, MemberId, Standing, Table, Term};

use crate::out;

/// Names of members.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names(BTreeMap<MemberId, String>);

impl Names {
    /// The names of a cluster's members.
    pub(crate) fn of(members: &[Member]) -> Self {
        Self(members.iter().map(|m| (m.id, m.name.clone())).collect())
    }

    /// The names that stand in the directory.
    pub(crate) fn of_table(table: &Table) -> Self {
        Self(table.members.iter().map(|m| (m.id, m.name.clone())).collect())
    }

    /// A member's name; its id when it has none here.
    pub(crate) fn name(&self, member: MemberId) -> String {
        self.0.get(&member).cloned().unwrap_or_else(|| {
            if member.is_client() { String::from("a client") } else { member.to_string() }
        })
    }
}

/// What is known of who leads. Every replica of a shard tells of a new leader, and an election is
/// seldom alone: what several events say becomes one line.
#[derive(Debug, Default)]
pub(crate) struct Leaders {
    known: BTreeMap<GroupId, (Term, Option<MemberId>)>,
    changed: BTreeMap<GroupId, Option<MemberId>>,
}

impl Leaders {
    /// Takes an event in.
    pub(crate) fn note(&mut self, group: GroupId, term: Term, leader: Option<MemberId>) {
        // The directory is no shard.
        if group == GroupId::DIRECTORY {
            return;
        }
        let before = self.known.get(&group).copied();
        let newer = match before {
            None => true,
            // Within a term a leader only becomes known; that one replica lost sight of it says
            // little.
            Some((known, who)) => {
                term > known || (term == known && who.is_none() && leader.is_some())
            }
        };
        if newer {
            self.known.insert(group, (term, leader));
            self.changed.entry(group).or_insert(before.and_then(|(_, who)| who));
        }
    }

    /// Number of shards that have a leader.
    pub(crate) fn count(&self) -> usize {
        self.known.values().filter(|(_, leader)| leader.is_some()).count()
    }

    /// True when there is something to tell.
    pub(crate) fn has_news(&self) -> bool {
        !self.changed.is_empty()
    }

    /// What changed since the last time: a line for each leader.
    pub(crate) fn tell(&mut self, names: &Names) -> Vec<String> {
        let mut by_leader: BTreeMap<Option<MemberId>, Vec<GroupId>> = BTreeMap::new();
        for (group, before) in std::mem::take(&mut self.changed) {
            let now = self.known.get(&group).and_then(|(_, leader)| *leader);
            if now != before {
                by_leader.entry(now).or_default().push(group);
            }
        }
        by_leader
            .into_iter()
            .map(|(leader, groups)| {
                let shards = shards(&groups);
                match leader {
                    Some(leader) => format!("{} leads {shards}", names.name(leader)),
                    None => format!("{shards}: electing a leader"),
                }
            })
            .collect()
    }
}

/// Refusals, which come again with each attempt: the same one is told once a minute.
#[derive(Debug, Default)]
pub(crate) struct Repeats(BTreeMap<String, Instant>);

impl Repeats {
    /// What an event says that is to be told now; see [`describe`].
    pub(crate) fn line(&mut self, who: &str, event: &Event, names: &Names) -> Option<String> {
        describe(who, event, names).filter(|line| self.is_news(Instant::now(), event, line))
    }

    /// Whether this line about an event is to be told now.
    fn is_news(&mut self, now: Instant, event: &Event, line: &str) -> bool {
        let repeats = matches!(event, Event::PeerRefused { .. } | Event::ChangeRefused { .. });
        if !repeats {
            return true;
        }
        self.0.retain(|_, said| now.duration_since(*said) < QUIET);
        if self.0.contains_key(line) || self.0.len() >= REPEATS_MAX {
            return false;
        }
        self.0.insert(line.to_owned(), now);
        true
    }
}

/// What an event says, from the view of the member `who`; none for what [`Leaders`] tells and for
/// the daily coming and going of clients.
pub(crate) fn describe(who: &str, event: &Event, names: &Names) -> Option<String> {
    let peer = |member: &Option<MemberId>| match member {
        Some(member) => names.name(*member),
        None => String::from("somebody"),
    };
    let other = |member: &Option<MemberId>, address: &Option<String>| match (member, address) {
        (None, Some(address)) => format!("whoever is at {address}"),
        (Some(_), Some(address)) => format!("{} at {address}", peer(member)),
        (_, None) => peer(member),
    };
    match event {
        Event::Up { genesis } => Some(format!(
            "{who} is up: cluster \"{}\", {}, {}",
            genesis.name,
            out::count(genesis.members.len(), "member"),
            count_shards(genesis.shards)
        )),
        Event::PeerConnected { member, .. } if !member.is_client() => {
            Some(format!("{who} is connected to {}", names.name(*member)))
        }
        Event::PeerDisconnected { member, .. } if !member.is_client() => {
            Some(format!("{who} has lost {}", names.name(*member)))
        }
        Event::Gathering { found, expect, missing: None } => Some(gathering(who, found, *expect)),
        Event::Gathering { missing: Some(missing), .. } => Some(format!(
            "{who} waits for {missing}, which alone knows whether the cluster exists: start it"
        )),
        Event::Ready => Some(format!("{who} reaches a majority")),
        Event::NotReady => Some(format!(
            "{who} reaches no majority: what needs one waits until more members are connected"
        )),
        Event::PeerConnected { .. }
        | Event::PeerDisconnected { .. }
        | Event::PeerReconnecting { .. }
        | Event::PeerFailed { .. }
        // Said in other words, when the command ends.
        | Event::Halted { .. }
        | Event::LeaderChanged { .. }
        | Event::RingChanged { .. }
        | Event::Ring(_) => None,
        Event::PeerRefused { member, address, reason, by_us } => {
            let other = other(member, address);
            let (from, to) =
                if *by_us { (String::from(who), other) } else { (other, String::from(who)) };
            Some(format!("{from} refused {to}: {}", libring::explain(reason)))
        }
        Event::PeerFault { member, address, what } => {
            Some(format!("{who} dropped something from {}: {what}", other(member, address)))
        }
        Event::DirectoryChanged { table } => {
            let members: Vec<String> = table
                .members
                .iter()
                .map(|member| match member.standing {
                    Standing::Active => names.name(member.id),
                    Standing::Leaving => format!("{} (leaving)", names.name(member.id)),
                    Standing::Lost => format!("{} (lost)", names.name(member.id)),
                })
                .collect();
            let moving = match table.moving() {
                0 => String::new(),
                n => format!("; {n} on the move"),
            };
            Some(format!("{who}: directory {}: {}{moving}", table.version, members.join(", ")))
        }
        // Named by what it said: this may be the first that is heard of it.
        Event::Member { peer, change } => Some(format!(
            "{who}: {} {}",
            peer.name,
            match change {
                MemberChange::Joined => "is alive",
                MemberChange::Suspect => "does not answer somebody: it may be dead",
                MemberChange::Recovered => "answers again",
                MemberChange::Failed => "is dead: it did not answer in time",
                MemberChange::Left => "has left",
                MemberChange::Updated => "was started again, or says something else of itself",
            }
        )),
        Event::ChangeRefused { reason } => Some(format!("{who} is refused: {reason}")),
        Event::Left => Some(format!("{who} has left: it holds nothing any more")),
    }
}

/// Who is there to found the cluster with.
fn gathering(who: &str, found: &[String], expect: u16) -> String {
    let (here, expect) = (found.join(", "), usize::from(expect));
    match expect.saturating_sub(found.len()) {
        0 => format!(
            "{who} founds the cluster: all {} are here: {here}",
            out::count(expect, "member")
        ),
        missing => format!(
            "{who} waits to found the cluster: {missing} of {} missing; here: {here}",
            out::count(expect, "member")
        ),
    }
}

/// A refusal is not told again before this has passed.
const QUIET: Duration = Duration::from_secs(60);
/// So many different ones are told in that time.
const REPEATS_MAX: usize = 64;

/// How long changes of leaders are gathered before they are told.
pub(crate) const GATHER: Duration = Duration::from_millis(200);

/// A number of shards with its word.
pub(crate) fn count_shards(shards: u32) -> String {
    out::count(usize::try_from(shards).unwrap_or(usize::MAX), "shard")
}

pub(crate) fn shards(groups: &[GroupId]) -> String {
    const SHOWN: usize = 8;
    let mut text = out::count(groups.len(), "shard");
    let number = |group: &GroupId| match *group {
        GroupId::DIRECTORY => String::from("directory"),
        group => group.0.to_string(),
    };
    let numbers: Vec<String> = groups.iter().take(SHOWN).map(number).collect();
    let more = if groups.len() > SHOWN { ", ..." } else { "" };
    text.push_str(&format!(" ({}{more})", numbers.join(", ")));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        Names([(MemberId(1), "a".into()), (MemberId(2), "b".into())].into())
    }

    #[test]
    fn many_tellers_of_one_election_make_one_line() {
        let mut leaders = Leaders::default();
        for shard in 1..=10 {
            for _teller in 0..3 {
                leaders.note(GroupId(shard), Term(1), Some(MemberId(1)));
            }
        }
        assert!(leaders.has_news());
        assert_eq!(leaders.count(), 10);
        assert_eq!(leaders.tell(&names()), ["a leads 10 shards (1, 2, 3, 4, 5, 6, 7, 8, ...)"]);
        assert!(!leaders.has_news());
    }

    #[test]
    fn old_news_is_no_news() {
        let mut leaders = Leaders::default();
        leaders.note(GroupId(1), Term(2), Some(MemberId(1)));
        leaders.tell(&names());

        leaders.note(GroupId(1), Term(1), Some(MemberId(2)));
        leaders.note(GroupId(1), Term(2), None);
        assert!(!leaders.has_news());

        leaders.note(GroupId(1), Term(3), None);
        leaders.note(GroupId(1), Term(3), Some(MemberId(1)));
        assert_eq!(leaders.tell(&names()), Vec::<String>::new(), "a leads as before");

        leaders.note(GroupId(1), Term(4), None);
        assert_eq!(leaders.count(), 0);
        assert_eq!(leaders.tell(&names()), ["1 shard (1): electing a leader"]);
        leaders.note(GroupId(1), Term(4), Some(MemberId(2)));
        assert_eq!(leaders.tell(&names()), ["b leads 1 shard (1)"]);
    }

    #[test]
    fn a_refusal_is_told_once_a_minute() {
        let (mut repeats, start) = (Repeats::default(), Instant::now());
        let refusal = Event::ChangeRefused { reason: libring::ChangeRefused::NameTaken };
        let late = start + Duration::from_secs(61);
        assert!(repeats.is_news(start, &refusal, "name"));
        assert!(!repeats.is_news(start, &refusal, "name"));
        assert!(repeats.is_news(start, &refusal, "another"));
        assert!(repeats.is_news(start, &Event::Left, "name"), "no refusal");
        assert!(repeats.is_news(late, &refusal, "name"));
        for n in 0..1000 {
            repeats.is_news(late, &refusal, &n.to_string());
        }
        assert_eq!(repeats.0.len(), REPEATS_MAX);
    }

    #[test]
    fn who_waits_says_who_is_here_and_how_many_are_missing() {
        let event = |found: &[&str]| Event::Gathering {
            found: found.iter().map(|&name| name.into()).collect(),
            expect: 3,
            missing: None,
        };
        let told = |found| describe("a", &event(found), &names()).expect("it is told");
        assert_eq!(
            told(&["a", "c"]),
            "a waits to found the cluster: 1 of 3 members missing; here: a, c"
        );
        assert_eq!(told(&["a", "b", "c"]), "a founds the cluster: all 3 members are here: a, b, c");
    }

    #[test]
    fn who_refuses_is_named_with_the_address() {
        let reason = libring::Refusal::Stranger;
        let refused = |member, address: Option<&str>, by_us| Event::PeerRefused {
            member,
            address: address.map(String::from),
            reason: reason.clone(),
            by_us,
        };
        let why = libring::explain(&reason);
        for (event, line) in [
            (refused(None, Some("h:1"), false), "whoever is at h:1 refused a"),
            (refused(Some(MemberId(2)), Some("h:1"), false), "b at h:1 refused a"),
            (refused(Some(MemberId(2)), None, true), "a refused b"),
            (refused(None, None, true), "a refused somebody"),
        ] {
            assert_eq!(describe("a", &event, &names()), Some(format!("{line}: {why}")));
        }
    }

    #[test]
    fn clients_come_and_go_unmentioned() {
        let member = MemberId::client(7);
        assert_eq!(describe("a", &Event::PeerConnected { member, address: None }, &names()), None);
        assert_eq!(
            describe(
                "a",
                &Event::PeerDisconnected { member: MemberId(2), address: None },
                &names()
            ),
            Some("a has lost b".into())
        );
    }
}
