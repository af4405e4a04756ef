//! A cluster of one with a log so small that it turns over within a hundred writes, and a fixed
//! workload for it: what the program `one` runs, and what must be found afterwards.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use libring::{Data, Limits, Node, Options, Partition, Range, Timers};

/// How the cluster is set up.
#[must_use]
pub fn options(dir: &Path) -> Options {
    Options {
        data: Data::Dir(dir.to_path_buf()),
        shards: 2,
        limits: Limits { segment_bytes: 4 << 10, log_bytes: 16 << 10, ..Limits::default() },
        timers: Timers {
            election_min: Duration::from_millis(10),
            election_max: Duration::from_millis(20),
            heartbeat: Duration::from_millis(5),
            ..Timers::default()
        },
        ..Options::default()
    }
}

/// Where the `k`th write goes.
#[must_use]
pub fn partition(node: &Node, k: u64) -> Partition {
    node.partition(&format!("p{}", k % PARTITIONS))
}

/// The key of the `k`th write.
#[must_use]
pub fn key(k: u64) -> String {
    format!("key {k}")
}

/// The value of the `k`th write.
#[must_use]
pub fn value(k: u64) -> String {
    let filler = "x".repeat(usize::try_from(k * 37 % 200).expect("less than 200"));
    format!("value {k} {filler}")
}

/// Opens the cluster on a directory and compares what it holds with what was promised: every write
/// in `acknowledged`, and nothing else but what is in `tried`, all with their own values.
///
/// # Errors
/// What is wrong.
pub async fn check(
    dir: &Path,
    acknowledged: &BTreeSet<u64>,
    tried: &BTreeSet<u64>,
) -> Result<(), String> {
    let node = Node::open(options(dir)).await.map_err(|e| format!("does not start again: {e}"))?;
    let mut found = BTreeSet::new();
    for place in 0..PARTITIONS {
        let mut scan = partition(&node, place).scan(Range::all());
        while let Some(item) = scan.next().await.map_err(|e| format!("cannot be read: {e}"))? {
            let k = tried.iter().find(|k| *k % PARTITIONS == place && key(**k) == item.key);
            let k = k.ok_or_else(|| format!("{item:?} was never written to p{place}"))?;
            if value(*k) != item.value {
                return Err(format!("{item:?} has the wrong value"));
            }
            found.insert(*k);
        }
    }
    let lost: Vec<&u64> = acknowledged.difference(&found).collect();
    if !lost.is_empty() {
        return Err(format!("writes {lost:?} were acknowledged and are lost"));
    }
    node.close().await.map_err(|e| format!("does not close: {e}"))
}

const PARTITIONS: u64 = 4;
