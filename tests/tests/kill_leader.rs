//! Leaders are killed under load: nothing acknowledged is lost, and writes go on soon.

use std::collections::BTreeMap;
use std::env;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use libring::{GroupId, MemberId, Node, Role, Term};
use serde_json::json;
use tests::PATIENCE;
use tests::journal::Journal;
use tests::load::{self, Load, Shape};
use tests::members::Members;
use tokio::runtime::Runtime;

/// Kill -9 of the leader of a loaded shard, again and again (`RING_CYCLES` times, 10 without it),
/// then of all members at once. After each kill every acknowledged write is read back while the
/// killed member is away, and writes to every shard that it led succeed again within two seconds of
/// the kill.
#[test]
fn no_acknowledged_write_is_lost_when_leaders_are_killed() {
    let cycles = cycles();
    let runtime = Runtime::new().expect("worker threads can be started");
    let mut members = Members::new(3, SHARDS);
    members.start_all();
    let client = runtime.block_on(members.client());
    let history = history(&members);
    let journal =
        Arc::new(Journal::create(&history, json!({ "cycles": cycles, "shards": SHARDS })));
    let load = Load::start(&runtime, &client, &journal, LOAD);

    let shards = runtime.block_on(shards_of(&client));

    let mut outages = Vec::new();
    let mut checked = 0;
    for cycle in 0..cycles {
        journal.await_puts(&load::partitions(PARTITIONS));
        let _: Duration = journal.wait_puts();
        let target = format!("load-{}", cycle % PARTITIONS);
        let leaders = runtime.block_on(leaders(&client));
        let leader = leaders[&shards[&target]];
        let k = usize::try_from(leader.0 - 1).expect("ids are counted from 1");
        let led: Vec<String> = shards
            .iter()
            .filter(|(_, shard)| leaders[*shard] == leader)
            .map(|(name, _)| name.clone())
            .collect();

        journal.fault("kill -9", &members.name(k));
        journal.await_puts(&led);
        members.kill(k);
        let outage = journal.wait_puts();
        outages.push(outage);

        let acknowledged = journal.tally().acknowledged;
        runtime.block_on(load::all_there(&client, &journal, &acknowledged[checked..]));
        eprintln!(
            "cycle {cycle}: {} killed, it led {} of {PARTITIONS} partitions; writes again after \
             {outage:?}; {} acknowledged writes read back",
            members.name(k),
            led.len(),
            acknowledged.len() - checked
        );
        checked = acknowledged.len();
        journal.fault("start", &members.name(k));
        members.start(k);
        members.wait_up(k);
        runtime.block_on(caught_up(&client, leader));
    }
    load.stop(&runtime);

    for k in 0..3 {
        journal.fault("kill -9", &members.name(k));
        members.kill(k);
    }
    members.start_all();
    let found = runtime.block_on(load::scan_all(&client, PARTITIONS));
    journal.flush();
    judge(&journal, &found, &outages);
}

fn judge(journal: &Journal, found: &load::Found, outages: &[Duration]) {
    let tally = journal.tally();
    tally.judge(found);
    let worst = outages.iter().max().copied().unwrap_or_default();
    let sum: Duration = outages.iter().sum();
    let count = u32::try_from(outages.len()).expect("few").max(1);
    eprintln!(
        "{} kills: {} writes acknowledged and all found, {} unknown, {} certainly not; writes \
         again after {:?} on average, {worst:?} at worst",
        outages.len(),
        tally.acknowledged.len(),
        tally.unknown,
        tally.failed.len(),
        sum / count,
    );
    assert!(worst <= OUTAGE_MOST, "writes again only after {worst:?}: {outages:?}");
}

/// The shard that holds each partition.
async fn shards_of(client: &Node) -> BTreeMap<String, GroupId> {
    let mut shards = BTreeMap::new();
    for name in load::partitions(PARTITIONS) {
        let info = client.partition(&name).info().await;
        let info = info.unwrap_or_else(|e| panic!("{name}: {e}"));
        shards.insert(name, info.shard);
    }
    shards
}

/// Who leads each shard: who says so in the highest term. Waits until somebody leads each.
async fn leaders(client: &Node) -> BTreeMap<GroupId, MemberId> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut found: BTreeMap<GroupId, (Term, Option<MemberId>)> = BTreeMap::new();
        for member in client.members() {
            let status = client.status(member.id).await;
            let status = status.unwrap_or_else(|e| panic!("{}: {e}", member.name));
            for replica in status.groups {
                let leads = (replica.role == Role::Leader).then_some(member.id);
                let known = found.entry(replica.group).or_insert((replica.term, leads));
                *known = (*known).max((replica.term, leads));
            }
        }
        let leaders: BTreeMap<GroupId, MemberId> = found
            .iter()
            .filter_map(|(group, (_, leader))| leader.map(|leader| (*group, leader)))
            .collect();
        if leaders.len() == found.len() {
            return leaders;
        }
        assert!(Instant::now() < deadline, "not every shard has a leader: {found:?}");
    }
}

/// Waits until a restarted member has applied, in every group, what was committed when this was
/// asked.
async fn caught_up(client: &Node, member: MemberId) {
    let mut wanted = BTreeMap::new();
    for other in client.members() {
        let status = client.status(other.id).await;
        let status = status.unwrap_or_else(|e| panic!("{}: {e}", other.name));
        for replica in status.groups {
            let commit = wanted.entry(replica.group).or_insert(replica.commit);
            *commit = replica.commit.max(*commit);
        }
    }
    let deadline = Instant::now() + PATIENCE;
    loop {
        let status = client.status(member).await;
        let status = status.unwrap_or_else(|e| panic!("{member}: {e}"));
        let behind = status.groups.iter().find(|replica| {
            let commit = wanted.get(&replica.group);
            commit.is_some_and(|commit| replica.applied < *commit)
        });
        let Some(behind) = behind else { return };
        assert!(Instant::now() < deadline, "{member} does not catch up: {behind:?}");
    }
}

fn cycles() -> usize {
    let text = env::var("RING_CYCLES").unwrap_or_else(|_| String::from("10"));
    text.parse().expect("RING_CYCLES is a number")
}

/// Where the history goes: where `RING_HISTORY` says, or away with the data.
fn history(members: &Members) -> PathBuf {
    let named = env::var_os("RING_HISTORY").map(PathBuf::from);
    named.unwrap_or_else(|| members.dir().join("history.jsonl"))
}

const SHARDS: u32 = 8;
const PARTITIONS: usize = 8;
const LOAD: Shape = Shape { partitions: PARTITIONS, writers: 16, bytes_max: 0 };
/// From the kill to the first acknowledged write that began after it, in the slowest of the dead
/// leader's shards.
const OUTAGE_MOST: Duration = Duration::from_secs(2);
