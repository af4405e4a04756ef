//! The power of members' disks is cut: what was acknowledged is there when it is back.

use std::env;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tests::disks::{Disk, cut_power};
use tests::journal::{Journal, Put};
use tests::load::{self, Load, Shape};
use tests::members::Members;
use tests::native;
use tests::skip::skip;
use tokio::runtime::Runtime;

/// Power cuts of one, two or all three members under load (`RING_POWER_CUTS` times, 3 without it).
/// After each cut a majority that holds every cut member, and as few others as can be, must have
/// every acknowledged write; then all go on. At last all are cut once more and everything is read.
#[test]
fn no_acknowledged_write_is_lost_to_power_cuts() {
    let Some((mut members, disks)) = on_disks("no_acknowledged_write_is_lost_to_power_cuts") else {
        return;
    };
    let cuts = cuts();
    let runtime = Runtime::new().expect("worker threads can be started");
    members.start_all();
    let client = runtime.block_on(members.client());
    let file = members.dir().join("history.jsonl");
    let file = env::var_os("RING_HISTORY").map_or(file, Into::into);
    let journal = Arc::new(Journal::create(&file, json!({ "cuts": cuts, "shards": SHARDS })));
    let load = Load::start(&runtime, &client, &journal, LOAD);

    let mut checked = 0;
    for cut in 0..cuts {
        wait_puts(&journal);
        let hit = WHO[cut % WHO.len()];
        let spared: Vec<usize> = (0..MEMBERS).filter(|k| !hit.contains(k)).collect();
        cut_members(&mut members, &disks, hit, &journal);
        // Who is not needed for a majority is not asked: what it has proves nothing about the cut.
        let away = &spared[..spared.len().min(MEMBERS - MAJORITY)];
        for k in away {
            journal.fault("kill -9", &members.name(*k));
            members.kill(*k);
        }
        for k in hit {
            members.start(*k);
        }
        for k in hit {
            members.wait_up(*k);
        }
        let acknowledged = journal.tally().acknowledged;
        let began = Instant::now();
        runtime.block_on(load::all_there(&client, &journal, &acknowledged[checked..]));
        eprintln!(
            "cut {cut}: the power of {hit:?}, with {away:?} away; {} acknowledged writes read back \
             in {:?}",
            acknowledged.len() - checked,
            began.elapsed(),
        );
        checked = acknowledged.len();
        members.start_all();
    }
    wait_puts(&journal);
    load.stop(&runtime);

    cut_members(&mut members, &disks, &[0, 1, 2], &journal);
    members.start_all();
    let found = runtime.block_on(load::scan_all(&client, LOAD.partitions));
    journal.flush();
    let tally = journal.tally();
    tally.judge(&found);
    eprintln!(
        "{} power cuts: {} writes acknowledged and all found, {} unknown, {} certainly not",
        cuts + 1,
        tally.acknowledged.len(),
        tally.unknown,
        tally.failed.len(),
    );
}

/// Members on disks that say they have synced and have not lose what they acknowledged, and this is
/// seen: otherwise the test above would prove nothing.
#[test]
fn a_power_cut_of_disks_that_lie_is_seen() {
    const NAME: &str = "a_power_cut_of_disks_that_lie_is_seen";
    let Some((mut members, disks)) = on_disks(NAME) else {
        return;
    };
    let Some(faults) = native::faults() else {
        return skip(NAME, "there is no C compiler");
    };
    members.set_env("LD_PRELOAD", faults);
    members.set_env("RING_FAULT_DIR", members.dir().canonicalize().expect("it is there"));
    members.set_env("RING_FAULT", "nosync");
    let runtime = Runtime::new().expect("worker threads can be started");
    members.start_all();
    let client = runtime.block_on(members.client());
    let journal = Arc::new(Journal::create(&members.dir().join("history.jsonl"), json!({})));
    let load = Load::start(&runtime, &client, &journal, LOAD);
    wait_puts(&journal);
    cut_members(&mut members, &disks, &[0, 1, 2], &journal);
    drop(load);
    drop(client);

    members.clear_env();
    for k in 0..MEMBERS {
        members.start(k);
    }
    // Members that find half of what they knew may refuse to start: they have noticed.
    let mut up = true;
    for k in 0..MEMBERS {
        if !members.program(k).says_before_its_end(" is up: ") {
            members.take(k).wait_exit().refused(6, &[]);
            up = false;
        }
    }
    if up {
        let client = runtime.block_on(members.client());
        let found = runtime.block_on(load::scan_all(&client, LOAD.partitions));
        let is_lost = |put: &&Put| !found.contains_key(&(put.partition.clone(), put.key.clone()));
        let lost = journal.tally().acknowledged.iter().filter(is_lost).count();
        assert!(lost > 0, "nothing was synced, and all {} writes are there", found.len());
        eprintln!("{lost} acknowledged writes are lost");
    }
}

/// A cluster whose members have a disk each, not started yet; none where there can be no such.
fn on_disks(test: &str) -> Option<(Members, Vec<Disk>)> {
    let members = Members::new(3, SHARDS);
    let mounted: Result<Vec<Disk>, String> =
        (0..MEMBERS).map(|k| Disk::mount(&members.disk(k), DISK_BYTES)).collect();
    // Tried out before anything depends on it.
    let usable = mounted.and_then(|disks| {
        cut_power(&disks)?;
        disks.iter().try_for_each(Disk::power_on)?;
        Ok(disks)
    });
    match usable {
        Ok(disks) => Some((members, disks)),
        Err(why) => {
            skip(test, &why);
            None
        }
    }
}

/// Cuts the power of some members, all at the same moment, and brings it back; they are not started
/// again.
///
/// The members stop first, as processors do when the power goes. A process that runs on beside a
/// disk that is cut off may be told lies: a sync that is under way at that moment can succeed
/// although the kernel has thrown away what it was about.
fn cut_members(members: &mut Members, disks: &[Disk], hit: &[usize], journal: &Journal) {
    for k in hit {
        journal.fault("power cut", &members.name(*k));
        members.program(*k).freeze();
    }
    cut_power(hit.iter().map(|k| &disks[*k])).unwrap_or_else(|e| panic!("{e}"));
    for k in hit {
        members.kill(*k);
        disks[*k].power_on().unwrap_or_else(|e| panic!("{e}"));
    }
}

/// Waits until all partitions take writes, and for some more.
fn wait_puts(journal: &Journal) {
    journal.await_puts(&load::partitions(LOAD.partitions));
    let _: Duration = journal.wait_puts();
    journal.wait_acknowledged(PUTS);
}

fn cuts() -> usize {
    let text = env::var("RING_POWER_CUTS").unwrap_or_else(|_| String::from("3"));
    text.parse().expect("RING_POWER_CUTS is a number")
}

const MEMBERS: usize = 3;
const MAJORITY: usize = 2;
const SHARDS: u32 = 8;
const LOAD: Shape = Shape { partitions: 8, writers: 8, bytes_max: 6_000 };
/// Acknowledged between two cuts, at least.
const PUTS: usize = 1_000;
/// Whose power is cut, one after the other.
const WHO: [&[usize]; 7] = [&[0, 1, 2], &[0], &[1, 2], &[1], &[0, 1], &[2], &[0, 2]];
/// Blocks that are never written take no room.
const DISK_BYTES: u64 = 8 << 30;
