//! Clients that watch partitions from their beginning, and must be told of everything that is acknowledged to others.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use libring::{Node, Partition, Range, Revision, Watch, WatchError};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::journal::Tally;
use crate::{PATIENCE, text};

/// One watch a partition, of all of its keys.
#[derive(Debug)]
pub struct Followers {
    followers: JoinSet<Followed>,
    /// To which revision of each partition they are to come; none: further and further.
    upto: watch::Sender<Option<BTreeMap<String, Revision>>>,
}

/// What one was told.
#[derive(Debug)]
struct Followed {
    partition: String,
    told: Vec<(Revision, String, Option<String>)>,
    /// What was forgotten, after the first and up to the second: where it scanned, and watched from there.
    gaps: Vec<(Revision, Revision)>,
    /// What the scans found.
    scanned: BTreeMap<String, (Revision, String)>,
}

impl Followers {
    /// Starts them.
    #[must_use]
    pub fn start(runtime: &Runtime, client: &Node, partitions: &[String]) -> Self {
        let (upto, wanted) = watch::channel(None);
        let mut followers = JoinSet::new();
        for name in partitions {
            let partition = client.partition(name);
            followers.spawn_on(follow(partition, wanted.clone()), runtime.handle());
        }
        Self { followers, upto }
    }

    /// Waits until they were told of the last put that was acknowledged. Each put that was acknowledged was told once,
    /// with its value and revision, in the order of revisions, or fell into a time that was forgotten, and a scan found
    /// it; none was told that certainly did not happen.
    ///
    /// # Panics
    /// When that is not so, or [`PATIENCE`] ends first.
    pub fn judge(mut self, runtime: &Runtime, tally: &Tally) {
        let mut acknowledged = BTreeMap::<String, BTreeMap<String, (Revision, String)>>::new();
        for (put, &revision) in tally.acknowledged.iter().zip(&tally.revisions) {
            let puts = acknowledged.entry(put.partition.clone()).or_default();
            puts.insert(put.key.clone(), (revision, put.value.clone()));
        }
        let last = |(name, puts): (&String, &BTreeMap<String, (Revision, String)>)| {
            let revisions = puts.values().map(|(revision, _)| *revision);
            (name.clone(), revisions.max().expect("none is empty"))
        };
        self.upto.send_replace(Some(acknowledged.iter().map(last).collect()));
        let (mut told, mut gaps) = (0, 0);
        while let Some(followed) = runtime.block_on(async {
            let ended = timeout(PATIENCE, self.followers.join_next()).await;
            ended.expect("all is told in the end")
        }) {
            let followed = followed.expect("a follower does not panic");
            (told, gaps) = (told + followed.told.len(), gaps + followed.gaps.len());
            let of_it = acknowledged.get(&followed.partition).cloned().unwrap_or_default();
            followed.judge(&of_it, &tally.failed);
        }
        eprintln!("{told} changes were told to watches, which had to scan {gaps} times");
        assert!(told > 0, "nothing was told to any watch");
    }
}

impl Followed {
    fn judge(
        &self,
        acknowledged: &BTreeMap<String, (Revision, String)>,
        failed: &BTreeSet<(String, String)>,
    ) {
        let name = &self.partition;
        let in_order = self.told.windows(2).all(|pair| pair[0].0 <= pair[1].0);
        assert!(in_order, "{name}: told in another order than that of revisions");
        let mut told = BTreeMap::new();
        for (revision, key, value) in &self.told {
            let again = told.insert(key, (revision, value));
            assert!(again.is_none(), "{name}/{key} was written once and told twice, at {revision}");
            assert!(!failed.contains(&(name.clone(), key.clone())), "{name}/{key} did not happen");
        }
        for (key, (revision, value)) in acknowledged {
            match told.get(key) {
                Some(&(at, told)) => {
                    assert_eq!((at, told), (revision, &Some(value.clone())), "{name}/{key}");
                }
                None => {
                    let mut gaps = self.gaps.iter();
                    let is_forgotten = gaps.any(|(from, to)| from < revision && revision <= to);
                    assert!(
                        is_forgotten,
                        "{name}/{key} at {revision} was not told: {:?}",
                        self.gaps
                    );
                    assert_eq!(self.scanned.get(key), Some(&(*revision, value.clone())), "{name}");
                }
            }
        }
    }
}

async fn follow(
    partition: Partition,
    mut upto: watch::Receiver<Option<BTreeMap<String, Revision>>>,
) -> Followed {
    let name = partition.name().to_owned();
    let begin = |revision| partition.watch_after(Range::all(), revision);
    let mut watch = begin(Revision(0)).expect("the range is whole");
    let mut followed =
        Followed { partition: name, told: Vec::new(), gaps: Vec::new(), scanned: BTreeMap::new() };
    loop {
        let wanted =
            upto.borrow_and_update().as_ref().map(|upto| upto.get(&followed.partition).copied());
        if wanted.is_some_and(|wanted| wanted <= Some(followed.at(&watch))) {
            return followed;
        }
        let told = tokio::select! {
            told = watch.next() => told,
            changed = upto.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return followed,
            },
        };
        match told {
            Ok(changed) => {
                let value = changed.value.map(|value| text(&value));
                followed.told.push((changed.revision, text(&changed.key), value));
            }
            Err(WatchError::Compacted { .. }) => {
                let revision = followed.scan(&partition, followed.at(&watch)).await;
                watch = begin(revision).expect("the range is whole");
            }
            // Nobody could be asked: it is asked again.
            Err(WatchError::Call(_)) => tokio::time::sleep(AGAIN).await,
        }
    }
}

impl Followed {
    /// Everything up to here was told or scanned.
    fn at(&self, watch: &Watch) -> Revision {
        let told = self.told.last().map_or(Revision(0), |(revision, ..)| *revision);
        told.max(watch.revision())
    }

    /// What was told up to this revision is all that is known; gives the revision from which to watch.
    async fn scan(&mut self, partition: &Partition, from: Revision) -> Revision {
        loop {
            let mut scan = partition.scan(Range::all());
            let mut found = BTreeMap::new();
            let whole = loop {
                match scan.next().await {
                    Ok(Some(item)) => {
                        found.insert(text(&item.key), (item.revision, text(&item.value)));
                    }
                    Ok(None) => break true,
                    Err(_) => break false,
                }
            };
            if let Some(revision) = scan.revision().filter(|_| whole) {
                self.scanned.append(&mut found);
                self.gaps.push((from, revision));
                return revision;
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
}

/// Who could not be asked is asked again.
const AGAIN: Duration = Duration::from_millis(50);
