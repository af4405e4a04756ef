//! `ring status`: members, ring, shards and leaders, and what is not as it should be.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::time::Duration;

use libring::{
    Assignment, Error, Failure, GroupId, Member, MemberId, MemberState, MemberStatus, Node,
    Placement, Replica, Role, SLOTS, Standing, Table, Term,
};
use serde_json::{Value, json};

use crate::args::{Common, Status};
use crate::connect::connect;
use crate::follow::{self, Names};
use crate::members::await_directory;
use crate::out;
use crate::stop::{Code, Stop};

/// Shows the cluster once, or until interrupted.
pub(crate) async fn run(common: &Common, args: &Status) -> Result<(), Stop> {
    let patience = common.timeout_or(Duration::from_secs(3));
    let node = connect(common, patience).await?;
    await_directory(&node, patience).await;
    let mut every = tokio::time::interval(Duration::from_secs(1));
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let report = Report::of(&node, patience).await;
        if common.json {
            out::json(&report.json())?;
        } else if args.watch && io::stdout().is_terminal() {
            out::write(format!("{CLEAR}{}", report.text()).as_bytes())?;
        } else {
            out::write(report.text().as_bytes())?;
        }
        if !args.watch {
            return report.verdict();
        }
        if !common.json {
            out::line("")?;
        }
        tokio::select! {
            _ = every.tick() => {}
            _ = tokio::signal::ctrl_c() => return Ok(()),
        }
    }
}

/// What the members say.
#[derive(Debug)]
struct Report {
    members: Vec<(Member, Result<MemberStatus, String>)>,
    directory: Option<Arc<Table>>,
    /// Who owns which keys, as this client sees it.
    ring: Arc<Placement>,
    /// How many replicas a shard is to have.
    replication: usize,
    shards: Vec<Shard>,
    names: Names,
}

/// What the members say about one shard, taken together.
#[derive(Debug, PartialEq, Eq)]
struct Shard {
    group: GroupId,
    leader: Option<MemberId>,
    term: Term,
    /// The highest commit index that a replica knows.
    commit: u64,
    /// Every replica that was reached, with how far what it has applied lies behind `commit`.
    lag: BTreeMap<MemberId, u64>,
}

impl Report {
    /// Asks all members at once.
    async fn of(node: &Node, patience: Duration) -> Self {
        let founders = node.members();
        let names = Names::of(&founders);
        let asked: Vec<_> = founders
            .into_iter()
            .map(|founder| {
                let node = node.clone();
                let id = founder.id;
                (founder, tokio::spawn(async move { node.status(id).await }))
            })
            .collect();
        let mut members = Vec::new();
        for (founder, answer) in asked {
            let status = match answer.await {
                Ok(Ok(status)) => Ok(status),
                Ok(Err(Error::Failed(Failure::Deadline))) => {
                    Err(format!("no answer within {}", out::span(patience)))
                }
                Ok(Err(e)) => Err(e.to_string()),
                Err(e) => Err(e.to_string()),
            };
            members.push((founder, status));
        }
        let mut shards = shards(members.iter().filter_map(|(_, status)| status.as_ref().ok()));
        shards.retain(|shard| shard.group != GroupId::DIRECTORY);
        let replication = usize::try_from(node.replication()).unwrap_or(usize::MAX);
        let (directory, ring) = (node.directory(), node.ring());
        Self { members, shards, names, directory, ring, replication }
    }

    /// Fails when a shard has no leader, or no member could say.
    fn verdict(&self) -> Result<(), Stop> {
        let leaderless: Vec<String> = self
            .shards
            .iter()
            .filter(|shard| shard.leader.is_none())
            .map(|shard| shard.group.0.to_string())
            .collect();
        if self.shards.is_empty() {
            return Err(Stop::new(Code::No, "no member could be asked"));
        }
        if leaderless.is_empty() {
            return Ok(());
        }
        Err(Stop::new(
            Code::No,
            format!(
                "{} without a leader ({}): start the members that are missing",
                out::count(leaderless.len(), "shard"),
                leaderless.join(", ")
            ),
        ))
    }

    /// The share of all keys that a member owns, in percent, and how many shards it is to hold.
    fn share(&self, member: MemberId) -> f64 {
        f64::from(self.ring.load(member)) * 100.0 / f64::from(SLOTS)
    }

    fn holds(&self, member: MemberId) -> usize {
        let groups = self.directory.iter().flat_map(|table| &table.groups);
        let shards = groups.filter(|group| group.group != GroupId::DIRECTORY);
        shards.filter(|group| group.on_member(member).is_some()).count()
    }

    fn is_reached(&self, member: MemberId) -> bool {
        self.members.iter().any(|(listed, status)| listed.id == member && status.is_ok())
    }

    /// What is not as it should be, why, and what to do.
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for (member, status) in &self.members {
            let name = &member.name;
            match (status, member.standing) {
                (Err(why), Standing::Lost) => problems.push(format!(
                    "{name} is lost ({why}): what it held moves to others as far as there are any; start it, or \
                     another member in its place"
                )),
                (Err(why), Standing::Active | Standing::Leaving) => {
                    problems.push(format!("{name} cannot be asked: {why}; start it, or look at its network"));
                }
                (Ok(_), Standing::Lost) => {
                    problems.push(format!("{name} was lost and is back: it gets replicas again"));
                }
                (Ok(status), Standing::Active | Standing::Leaving) => {
                    let missing = self.members.iter().filter(|(other, answer)| {
                        other.id != member.id
                            && answer.is_ok()
                            && !status.connected.contains(&other.id)
                    });
                    let missing: Vec<&str> = missing.map(|(other, _)| other.name.as_str()).collect();
                    if !missing.is_empty() {
                        let missing = missing.join(", ");
                        problems.push(format!(
                            "{name} is not connected to {missing}: look at the network between them"
                        ));
                    }
                }
            }
        }
        problems.extend(self.doubts());
        problems.extend(self.shard_problems());
        problems
    }

    /// Whom others do not take for alive though it answers here.
    fn doubts(&self) -> Vec<String> {
        let reached = self.members.iter().filter(|(_, status)| status.is_ok());
        let doubt = |(member, _): &(Member, Result<MemberStatus, String>)| {
            let doubts = |said: &MemberStatus| {
                let thought = said.members.iter().find(|(id, _)| *id == member.id)?;
                let is_doubted = !matches!(thought.1, MemberState::Alive | MemberState::Left);
                is_doubted.then(|| self.names.name(said.member))
            };
            let said = self.members.iter().filter_map(|(_, status)| status.as_ref().ok());
            let doubters: Vec<String> = said.filter_map(doubts).collect();
            (!doubters.is_empty()).then(|| {
                let (name, doubters) = (&member.name, doubters.join(", "));
                format!(
                    "{name} does not answer the gossip of {doubters}: look at its load, and whether UDP gets through \
                     between them"
                )
            })
        };
        reached.filter_map(doubt).collect()
    }

    fn shard_problems(&self) -> Vec<String> {
        let groups = self.directory.iter().flat_map(|table| &table.groups);
        let (mut stuck, mut thin, mut few) = (Vec::new(), Vec::new(), Vec::new());
        for group in groups {
            let here = group.voters.iter().filter(|voter| self.is_reached(voter.member)).count();
            if here * 2 <= group.voters.len() {
                stuck.push(group.group);
            } else if here < group.voters.len() {
                thin.push(group.group);
            } else if group.group != GroupId::DIRECTORY && here < self.replication {
                few.push(group.group);
            }
        }
        let tell = |groups: &[GroupId], what: &str| {
            let list = follow::shards(groups);
            (!groups.is_empty()).then(|| format!("{list}: {what}"))
        };
        [
            tell(&stuck, "no majority of the replicas can be asked: nothing can be written or read until they are back"),
            tell(&thin, "not all replicas can be asked: the loss of more members may stop it"),
            tell(&few, "fewer replicas than asked for, for want of members: start more"),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn leads(&self, member: MemberId) -> usize {
        self.shards.iter().filter(|shard| shard.leader == Some(member)).count()
    }

    fn text(&self) -> String {
        let members = self.members.iter().map(|(founder, status)| {
            let mut row =
                vec![founder.name.clone(), founder.id.to_string(), founder.address.clone()];
            match status {
                Ok(status) => row.extend([
                    String::from(match founder.standing {
                        Standing::Active | Standing::Lost => "up",
                        Standing::Leaving => "leaving",
                    }),
                    status.boot.count().to_string(),
                    out::span(Duration::from_nanos(status.uptime)),
                    self.name_all(&status.connected),
                    status.clients.to_string(),
                    out::bytes(status.log_bytes),
                    self.leads(founder.id).to_string(),
                ]),
                Err(_) => {
                    row.push(String::from("no answer"));
                    row.extend((0..6).map(|_| String::from("-")));
                }
            }
            row.push(self.holds(founder.id).to_string());
            row.push(format!("{:.1} %", self.share(founder.id)));
            row
        });
        let head = [
            "MEMBER",
            "ID",
            "ADDRESS",
            "STATE",
            "BOOT",
            "UPTIME",
            "CONNECTED",
            "CLIENTS",
            "LOG",
            "LEADS",
            "HOLDS",
            "KEYS",
        ];
        let mut text = out::table(&head, members.collect());
        if let Some(table) = &self.directory {
            let moving = table.moving();
            text.push_str(&format!("directory: version {}, {}", table.version, moves(moving)));
            for group in table.groups.iter().filter(|group| !group.settled) {
                text.push_str(&format!("  {}\n", self.describe_move(group)));
            }
        }
        for problem in self.problems() {
            text.push_str(&format!("! {problem}\n"));
        }
        let shards = self.shards.iter().map(|shard| {
            let lag = shard.lag.iter().map(|(member, lag)| match lag {
                0 => self.names.name(*member),
                lag => format!("{}(-{lag})", self.names.name(*member)),
            });
            vec![
                shard.group.0.to_string(),
                self.leader_name(shard).unwrap_or_else(|| String::from("NONE")),
                shard.term.0.to_string(),
                shard.commit.to_string(),
                shard.lag.values().max().map_or_else(String::new, u64::to_string),
                lag.collect::<Vec<_>>().join(" "),
            ]
        });
        text.push('\n');
        text.push_str(&out::table(
            &["SHARD", "LEADER", "TERM", "COMMIT", "LAG", "REPLICAS"],
            shards.collect(),
        ));
        text
    }

    fn json(&self) -> Value {
        let members = self.members.iter().map(|(founder, status)| match status {
            Ok(status) => json!({
                "name": founder.name,
                "id": founder.id.0,
                "address": founder.address,
                "up": true,
                "boot": status.boot.count(),
                "uptime_ms": status.uptime / 1_000_000,
                "connected": status.connected.iter().map(|m| m.0).collect::<Vec<_>>(),
                "clients": status.clients,
                "log_bytes": status.log_bytes,
                "leads": self.leads(founder.id),
                "holds": self.holds(founder.id),
                "slots": self.ring.load(founder.id),
            }),
            Err(why) => json!({
                "name": founder.name,
                "id": founder.id.0,
                "address": founder.address,
                "up": false,
                "why": why,
            }),
        });
        let shards = self.shards.iter().map(|shard| {
            let lag =
                shard.lag.iter().map(|(member, lag)| json!({ "member": member.0, "lag": lag }));
            json!({
                "shard": shard.group.0,
                "leader": shard.leader.map(|leader| leader.0),
                "term": shard.term.0,
                "commit": shard.commit,
                "replicas": lag.collect::<Vec<_>>(),
            })
        });
        json!({
            "members": members.collect::<Vec<_>>(),
            "shards": shards.collect::<Vec<_>>(),
            "directory": self.directory.as_ref().map(|table| json!({
                "version": table.version,
                "moving": table.moving(),
            })),
            "healthy": self.verdict().is_ok(),
            "problems": self.problems(),
        })
    }

    /// Which replicas a shard is to have, and which it is about to lose.
    fn describe_move(&self, group: &Assignment) -> String {
        let name = |replica: Replica| self.names.name(replica.member);
        let target: Vec<String> = group.target().map(name).collect();
        let retiring: Vec<String> = group.retiring.iter().copied().map(name).collect();
        let target = target.join(" ");
        let of = follow::shards(&[group.group]);
        match retiring.is_empty() {
            true => format!("{of}: to {target}"),
            false => format!("{of}: to {target}, away from {}", retiring.join(" ")),
        }
    }

    fn leader_name(&self, shard: &Shard) -> Option<String> {
        shard.leader.map(|leader| self.names.name(leader))
    }

    fn name_all(&self, members: &[MemberId]) -> String {
        if members.is_empty() {
            return String::from("none");
        }
        let names: Vec<String> = members.iter().map(|m| self.names.name(*m)).collect();
        names.join(",")
    }
}

fn moves(moving: u64) -> String {
    match moving {
        0 => String::from("nothing on the move\n"),
        n => format!("{n} on the move\n"),
    }
}

/// Puts together what members say. A shard's leader is the one that says so in the highest term
/// that anyone knows: one that is cut off may still think that it leads, in an older term.
fn shards<'a>(statuses: impl Iterator<Item = &'a MemberStatus>) -> Vec<Shard> {
    let mut shards: BTreeMap<GroupId, Shard> = BTreeMap::new();
    let mut applied: BTreeMap<(GroupId, MemberId), u64> = BTreeMap::new();
    for status in statuses {
        for replica in &status.groups {
            let shard = shards.entry(replica.group).or_insert_with(|| Shard {
                group: replica.group,
                leader: None,
                term: replica.term,
                commit: 0,
                lag: BTreeMap::new(),
            });
            if replica.term > shard.term {
                shard.term = replica.term;
                shard.leader = None;
            }
            if replica.role == Role::Leader && replica.term == shard.term {
                shard.leader = Some(status.member);
            }
            shard.commit = shard.commit.max(replica.commit.0);
            applied.insert((replica.group, status.member), replica.applied.0);
        }
    }
    for ((group, member), applied) in applied {
        if let Some(shard) = shards.get_mut(&group) {
            shard.lag.insert(member, shard.commit.saturating_sub(applied));
        }
    }
    shards.into_values().collect()
}

/// Moves a terminal's cursor home and clears what it shows.
const CLEAR: &str = "\x1b[H\x1b[2J";

#[cfg(test)]
mod tests {
    use libring::{GroupStatus, LogIndex, Registered, ReplicaId};

    use super::*;

    fn says(member: u64, term: u64, role: Role, commit: u64, applied: u64) -> MemberStatus {
        MemberStatus {
            member: MemberId(member),
            groups: vec![GroupStatus {
                group: GroupId(1),
                replica: ReplicaId(member),
                term: Term(term),
                role,
                leader: None,
                last: LogIndex(commit),
                commit: LogIndex(commit),
                applied: LogIndex(applied),
            }],
            ..MemberStatus::default()
        }
    }

    #[test]
    fn the_leader_is_that_of_the_highest_term() {
        let cut_off = says(1, 4, Role::Leader, 7, 7);
        let leader = says(2, 5, Role::Leader, 9, 8);
        let follower = says(3, 5, Role::Follower, 8, 5);
        let expected = Shard {
            group: GroupId(1),
            leader: Some(MemberId(2)),
            term: Term(5),
            commit: 9,
            lag: [(MemberId(1), 2), (MemberId(2), 1), (MemberId(3), 4)].into(),
        };
        assert_eq!(shards([&cut_off, &leader, &follower].into_iter()), [expected]);
    }

    #[test]
    fn a_leader_of_the_past_is_none() {
        let cut_off = says(1, 4, Role::Leader, 7, 7);
        let candidate = says(2, 5, Role::Candidate, 7, 7);
        for order in [[&cut_off, &candidate], [&candidate, &cut_off]] {
            let shards = shards(order.into_iter());
            assert_eq!(shards.first().and_then(|shard| shard.leader), None);
        }
    }

    fn report(reached: &[u64], standing: Standing) -> Report {
        let member = |id: u64| Member {
            id: MemberId(id),
            name: format!("m{id}"),
            address: String::new(),
            weight: 1,
            standing: if id == 3 { standing } else { Standing::Active },
            state: None,
            tags: Vec::new(),
            connected: false,
        };
        let listed = |member: &Member| Registered {
            id: member.id,
            name: member.name.clone(),
            address: String::new(),
            birth: member.id.0,
            weight: 1,
            standing: member.standing,
        };
        let voters = (1..=3).map(|id| Replica { id: ReplicaId(id), member: MemberId(id) });
        let assignment = |group| Assignment {
            group: GroupId(group),
            order: 0,
            voters: voters.clone().collect(),
            learners: Vec::new(),
            retiring: Vec::new(),
            settled: true,
        };
        let members: Vec<Member> = (1..=3).map(member).collect();
        let connected: Vec<MemberId> = reached.iter().copied().map(MemberId).collect();
        let status = |member: &Member| match reached.contains(&member.id.0) {
            true => Ok(MemberStatus { connected: connected.clone(), ..MemberStatus::default() }),
            false => Err(String::from("no answer within 3 s")),
        };
        let placed = members.iter().map(|member| (member.id, 1));
        Report {
            ring: Arc::new(Placement::new(placed)),
            replication: 3,
            shards: Vec::new(),
            names: Names::of(&members),
            members: members.iter().map(|member| (member.clone(), status(member))).collect(),
            directory: Some(Arc::new(Table {
                version: 1,
                next_replica: ReplicaId(9),
                groups: vec![assignment(0), assignment(1), assignment(2)],
                members: members.iter().map(listed).collect(),
            })),
        }
    }

    #[test]
    fn a_whole_cluster_has_no_problem() {
        let whole = report(&[1, 2, 3], Standing::Active);
        assert_eq!(whole.problems(), [""; 0]);
        let shares: f64 = (1..=3).map(|id| whole.share(MemberId(id))).sum();
        assert!((shares - 100.0).abs() < 0.1, "{shares}");
        assert_eq!(whole.holds(MemberId(2)), 2);
    }

    #[test]
    fn problems_say_what_and_what_to_do() {
        let thin = report(&[1, 2], Standing::Active).problems();
        assert_eq!(thin.len(), 2, "{thin:?}");
        assert!(thin[0].starts_with("m3 cannot be asked: no answer"), "{thin:?}");
        assert!(thin[1].starts_with("3 shards (directory, 1, 2): not all"), "{thin:?}");

        let lost = report(&[1, 2], Standing::Lost).problems();
        assert!(lost[0].starts_with("m3 is lost (no answer"), "{lost:?}");

        let stuck = report(&[2], Standing::Active).problems();
        assert!(stuck.last().is_some_and(|last| last.contains("no majority")), "{stuck:?}");

        let mut few = report(&[1, 2, 3], Standing::Active);
        few.replication = 5;
        assert_eq!(few.problems().len(), 1);
        assert!(few.problems()[0].starts_with("2 shards (1, 2): fewer replicas"));

        let mut apart = report(&[1, 2, 3], Standing::Active);
        if let Ok(status) = &mut apart.members[0].1 {
            status.connected = vec![MemberId(2)];
        }
        assert_eq!(
            apart.problems(),
            ["m1 is not connected to m3: look at the network between them"]
        );
    }
}
