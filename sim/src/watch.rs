//! Logical watchers: each follows what changes in a range, over whatever happens to the cluster, and tells the oracle
//! what it was told.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ring_core::ids::{Revision, len_u64, len_usize};
use ring_core::io::{Action, Consistency, Reply};
use ring_core::rng::Rng;

use crate::call::{Ask, Ended};
use crate::client::{name_of, parse, partition_name};
use crate::history::Key;
use crate::oracle::WatchId;
use crate::plan::Workload;
use crate::world::Sim;

/// A watcher, a client of one machine's node while that is up.
pub(crate) struct Watcher {
    sim: Arc<Sim>,
    rng: Rng,
    home: usize,
    timeout: Duration,
    watch: WatchId,
    from: Key,
    to: Option<Key>,
}

/// How long a watcher waits when nobody could be asked, at most.
const PAUSE: Duration = Duration::from_millis(300);

/// In one of so many rounds it is busy elsewhere...
const IS_BUSY: u64 = 30;
/// ... for at most this long.
const BUSY: Duration = Duration::from_secs(3);
/// What that is for each round, in nanoseconds.
pub(crate) const PAUSES: u64 = BUSY.as_secs() * 1_000_000_000 / 2 / IS_BUSY;

impl Watcher {
    pub(crate) fn new(sim: Arc<Sim>, mut rng: Rng, home: usize, workload: &Workload) -> Self {
        let partition = partition_name(rng.below(workload.partitions));
        let bound = |rng: &mut Rng| Key::new(&partition, &format!("k{}", rng.below(4)));
        let from = match rng.chance(1, 2) {
            true => Key::new(&partition, ""),
            false => bound(&mut rng),
        };
        let to = rng.chance(1, 3).then(|| bound(&mut rng)).filter(|to| *to > from);
        let watch = sim.oracle(|oracle| oracle.on_watch_begun(from.clone(), to.clone()));
        Self { sim, rng, home, timeout: workload.timeout, watch, from, to }
    }

    /// Watches for ever.
    pub(crate) async fn work(mut self) {
        let mut at = None;
        loop {
            let next = match at {
                Some(after) => self.next(after).await,
                None => self.begin().await,
            };
            match next {
                Some(next) => at = next,
                None => {
                    let pause = self.rng.duration(Duration::from_millis(1), PAUSE);
                    self.sim.time.sleep(pause).await;
                }
            }
            // Whoever is busy elsewhere falls behind.
            if self.rng.chance(1, IS_BUSY) {
                let pause = self.rng.duration(Duration::ZERO, BUSY);
                self.sim.time.sleep(pause).await;
            }
        }
    }

    /// A revision to watch from: the one that is, or that of a scan. None: nobody could be asked.
    async fn begin(&mut self) -> Option<Option<u64>> {
        let action = match self.rng.chance(1, 2) {
            true => self.action(None, 1),
            false => Action::Scan {
                from: name_of(&self.from),
                to: self.to.as_ref().map(name_of),
                reverse: false,
                limit: 1,
                consistency: Consistency::Linearizable,
            },
        };
        let known = self.sim.oracle(|oracle| oracle.known_to_watch(self.watch));
        let reply = self.ask(action).await?;
        let revision = if let Reply::Page { page, .. } = reply {
            page.revision
        } else if let Reply::Changes { changes, upto } = reply {
            if let Some(changed) = changes.first() {
                let problem = format!("what was committed before is told: {changed:?}");
                self.sim.oracle(|oracle| oracle.fail("WATCH", problem));
            }
            upto
        } else {
            self.is_wrong(&reply);
            return None;
        };
        self.sim.oracle(|oracle| oracle.on_watch_set(self.watch, revision.0, known));
        Some(Some(revision.0))
    }

    /// What comes after a revision, and up to where; none within: it must begin anew.
    async fn next(&mut self, after: u64) -> Option<Option<u64>> {
        let limit = if self.rng.chance(1, 4) { 1 + self.rng.below(3) } else { 1_000 };
        let limit = u32::try_from(limit).expect("small");
        let action = self.action(Some(Revision(after)), limit);
        let (reply, watch) = (self.ask(action).await?, self.watch);
        if let Reply::Compacted { first } = reply {
            self.sim.oracle(|oracle| oracle.on_watch_compacted(watch, after, first.0));
            return Some(None);
        }
        let Reply::Changes { changes, upto } = reply else {
            self.is_wrong(&reply);
            return None;
        };
        let partition = self.from.partition();
        let changes = changes.into_iter().map(|changed| {
            let name = String::from_utf8_lossy(&changed.key).into_owned();
            let value = changed.value.as_ref().map(|value: &Bytes| parse(value));
            (changed.revision.0, Key::new(partition, &name), value)
        });
        let changes: Vec<_> = changes.collect();
        self.sim.trace(|trace| trace.mix(upto.0 ^ len_u64(changes.len()) << 40));
        self.sim.oracle(|oracle| oracle.on_watched(watch, after, &changes, upto.0));
        Some(Some(upto.0))
    }

    fn is_wrong(&self, reply: &Reply) {
        let problem = format!("an answer to something else: {reply:?}");
        self.sim.oracle(|oracle| oracle.fail("WATCH", problem));
    }

    fn action(&self, after: Option<Revision>, limit: u32) -> Action {
        let (from, to) = (name_of(&self.from), self.to.as_ref().map(name_of));
        Action::Watch { from, to, after, limit }
    }

    async fn ask(&mut self, action: Action) -> Option<Reply> {
        let machines = len_u64(self.sim.machines.len());
        if !self.sim.machines[self.home].inbox.is_up() || self.rng.chance(1, 40) {
            self.home = len_usize(self.rng.below(machines));
        }
        let partition = self.from.partition().to_owned();
        let ask = Ask { timeout: self.timeout, partition, action };
        match self.sim.machines[self.home].inbox.call(ask).await {
            Ended::Answered(Ok(reply)) => Some(reply),
            Ended::Answered(Err(_)) | Ended::Refused(_) | Ended::Lost { .. } => None,
        }
    }
}
