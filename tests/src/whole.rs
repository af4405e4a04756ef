//! A cluster that is whole again: not by what a client was told some time ago, but by what its members say now.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use libring::{
    GroupId, GroupStatus, LogIndex, MemberId, MemberState, MemberStatus, Node, Role, Standing,
    Table, Term,
};
use tokio::task::JoinSet;

use crate::PATIENCE;

/// Members' ids by name.
pub type Ids = BTreeMap<String, MemberId>;

/// How far each group had committed at some time.
type Marks = BTreeMap<GroupId, LogIndex>;

/// Waits until exactly these members are registered, none of them on its way out, each taking all others for alive; and
/// until every shard has as many voters as it can have, with nothing on the move, each of which is there, *is* the
/// replica that the directory means, and has applied all that was committed when this was called. Gives their ids.
///
/// # Panics
/// When [`PATIENCE`] ends first: with what is missing.
pub async fn wait_whole(client: &Node, shards: u32, names: &[&str]) -> Ids {
    let deadline = Instant::now() + PATIENCE;
    let mut events = client.events();
    let mut marks = Marks::new();
    loop {
        let statuses = statuses(client).await;
        let missing = match client.directory() {
            None => String::from("the directory is not known"),
            // Looked at anew afterwards: what was committed before the call is what a later leader has.
            Some(table) if marks.is_empty() => match self::marks(&table, &statuses) {
                Ok(found) => {
                    marks = found;
                    continue;
                }
                Err(group) => format!("{group:?} has no leader"),
            },
            Some(table) => {
                let replication = usize::try_from(client.replication()).expect("few");
                let wanted = Wanted { names, shards, replicas: replication.min(names.len()) };
                match wanted.missing(&table, &statuses, &marks) {
                    None => return ids(&table),
                    Some(missing) => missing,
                }
            }
        };
        assert!(Instant::now() < deadline, "{names:?} are not whole: {missing}\n{statuses:#?}");
        // Nobody tells how far a replica is: it is asked again.
        drop(tokio::time::timeout(AGAIN, events.next()).await);
    }
}

/// The registered members' ids by name, as far as a client knows.
///
/// # Panics
/// When it knows nothing.
#[must_use]
pub fn ids(table: &Table) -> Ids {
    table.members.iter().map(|member| (member.name.clone(), member.id)).collect()
}

/// What a cluster is to be like.
struct Wanted<'a> {
    names: &'a [&'a str],
    shards: u32,
    replicas: usize,
}

impl Wanted<'_> {
    /// What is not as it should be.
    fn missing(
        &self,
        table: &Table,
        statuses: &BTreeMap<MemberId, MemberStatus>,
        marks: &Marks,
    ) -> Option<String> {
        let mut listed: Vec<&str> = table.members.iter().map(|m| m.name.as_str()).collect();
        listed.sort_unstable();
        if listed != self.names || table.moving() != 0 {
            return Some(format!("{listed:?} are registered, {} on the move", table.moving()));
        }
        for member in &table.members {
            let Some(status) = statuses.get(&member.id) else {
                return Some(format!("{} does not answer", member.name));
            };
            let alive = status.members.iter().filter(|(_, state)| *state == MemberState::Alive);
            if member.standing != Standing::Active || alive.count() + 1 != self.names.len() {
                return Some(format!("{member:?} takes for alive: {:?}", status.members));
            }
        }
        let of_shards = table.groups.iter().filter(|group| group.group != GroupId::DIRECTORY);
        if of_shards.clone().count() != usize::try_from(self.shards).expect("few")
            || of_shards.clone().any(|group| group.voters.len() != self.replicas)
        {
            return Some(format!("not {} replicas everywhere: {table:#?}", self.replicas));
        }
        for group in &table.groups {
            for voter in &group.voters {
                let held = statuses
                    .get(&voter.member)
                    .and_then(|status| status.groups.iter().find(|held| held.group == group.group));
                let mark = marks.get(&group.group).copied();
                let is_whole =
                    |held: &GroupStatus| held.replica == voter.id && Some(held.applied) >= mark;
                if !held.is_some_and(is_whole) {
                    return Some(format!("{voter:?} of {:?} is {held:?}", group.group));
                }
            }
        }
        None
    }
}

/// What the members that answer say of themselves.
async fn statuses(client: &Node) -> BTreeMap<MemberId, MemberStatus> {
    let mut asked = JoinSet::new();
    for member in client.members() {
        let client = client.clone();
        // Who is away is not waited for.
        asked.spawn(async move { tokio::time::timeout(ANSWER, client.status(member.id)).await });
    }
    let answers = asked.join_all().await.into_iter().flatten().flatten();
    answers.map(|status| (status.member, status)).collect()
}

/// What the leaders of all groups have committed, each the one of the highest term that anyone knows; or a group
/// without one.
fn marks(table: &Table, statuses: &BTreeMap<MemberId, MemberStatus>) -> Result<Marks, GroupId> {
    let held = || statuses.values().flat_map(|status| &status.groups);
    let mark = |group: GroupId| {
        let mut replicas = held().filter(|held| held.group == group);
        let term = replicas.clone().map(|held| held.term).max().unwrap_or(Term(0));
        let leader = replicas.find(|held| held.role == Role::Leader && held.term == term);
        Ok((group, leader.ok_or(group)?.commit))
    };
    table.groups.iter().map(|group| mark(group.group)).collect()
}

const AGAIN: Duration = Duration::from_millis(100);
const ANSWER: Duration = Duration::from_secs(2);
