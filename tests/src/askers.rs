//! A load of requests of which none may be left unanswered.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use libring::{Node, Request};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::{PATIENCE, lock};

/// Askers that ask the owners of many keys, and the leaders of many partitions, who they are, one request after
/// another. Such a request may be tried again, so every one must succeed.
#[derive(Debug)]
pub struct Askers {
    askers: JoinSet<()>,
    shared: Arc<Shared>,
}

/// What became of all requests of a load.
#[derive(Clone, Debug, Default)]
pub struct Answers {
    /// The longest time that one took, by what had been done to the cluster last when it began.
    pub worst: BTreeMap<String, Duration>,
    /// How many each member answered, by name.
    pub by: BTreeMap<String, usize>,
    /// What went wrong.
    pub failed: Vec<String>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    seen: Mutex<Seen>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Seen {
    answers: Answers,
    /// What was done to the cluster last.
    fault: String,
    /// Requests that began after this are waited for...
    since: Option<Instant>,
    /// ... and so many of them were answered.
    count: usize,
}

impl Askers {
    /// Starts them.
    #[must_use]
    pub fn start(runtime: &Runtime, client: &Node) -> Self {
        let shared = Arc::new(Shared::default());
        let mut askers = JoinSet::new();
        for asker in 0..ASKERS {
            askers.spawn_on(ask(asker, client.clone(), Arc::clone(&shared)), runtime.handle());
        }
        Self { askers, shared }
    }

    /// Something is done to the cluster: what the requests suffer that begin from now on is put down to it.
    pub fn blame(&self, fault: &str) {
        let mut seen = lock(&self.shared.seen);
        fault.clone_into(&mut seen.fault);
    }

    /// Waits until so many requests were answered that began after this call, each with success.
    ///
    /// # Panics
    /// When [`PATIENCE`] ends first, or one has failed.
    pub fn go_on(&self, count: usize) {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = lock(&self.shared.seen);
        (seen.since, seen.count) = (Some(Instant::now()), 0);
        while seen.count < count {
            assert!(seen.answers.failed.is_empty(), "{:?}", seen.answers.failed);
            let left = deadline.checked_duration_since(Instant::now());
            let left = left.unwrap_or_else(|| {
                panic!("{} of {count} requests are answered in {PATIENCE:?}", seen.count)
            });
            let woken = self.shared.changed.wait_timeout(seen, left);
            seen = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Lets them end what they are at; every request was answered with success, and none that began after a fault
    /// took longer than such a fault may hold it up.
    ///
    /// # Panics
    /// When that is not so.
    #[must_use]
    pub fn end(mut self, runtime: &Runtime) -> Answers {
        self.shared.stop.store(true, Ordering::Relaxed);
        runtime.block_on(async {
            while let Some(ended) = self.askers.join_next().await {
                ended.expect("an asker does not panic");
            }
        });
        let seen = lock(&self.shared.seen);
        let answers = seen.answers.clone();
        assert!(answers.failed.is_empty(), "{:?}", answers.failed);
        for (fault, worst) in &answers.worst {
            assert!(*worst < bound(fault), "after \"{fault}\" a request took {worst:?}");
        }
        answers
    }
}

async fn ask(asker: usize, client: Node, shared: Arc<Shared>) {
    for n in 0.. {
        if shared.stop.load(Ordering::Relaxed) {
            return;
        }
        let request = Request::new("monitoring/info").deadline(DEADLINE);
        let fault = {
            let seen = lock(&shared.seen);
            seen.fault.clone()
        };
        let began = Instant::now();
        // Every asker comes to every key, and each fourth time to a leader.
        let number = (asker + n * ASKERS) % KEYS;
        let (whom, result) = match n % 4 {
            0 => {
                let name = format!("load-{}", number % 8);
                let result = client.partition(&name).request(request).await;
                (format!("the leader of {name}"), result)
            }
            _ => {
                let key = format!("key {number}");
                let result = client.request(key.clone(), request).await;
                (format!("the owner of {key}"), result)
            }
        };
        let took = began.elapsed();
        let mut seen = lock(&shared.seen);
        let worst = seen.answers.worst.entry(fault).or_default();
        *worst = took.max(*worst);
        match result {
            Ok(response) => {
                let info: serde_json::Value =
                    serde_json::from_slice(&response.body).expect("a member says JSON of itself");
                let name = info["name"].as_str().expect("a member has a name").to_owned();
                *seen.answers.by.entry(name).or_default() += 1;
                if seen.since.is_some_and(|since| began >= since) {
                    seen.count += 1;
                }
            }
            Err(error) => seen.answers.failed.push(format!("{whom}, after {took:?}: {error}")),
        }
        drop(seen);
        shared.changed.notify_all();
    }
}

/// How long a request may take at most after a fault: what it takes to notice the fault, three times over, for machines
/// that are slow. Of who is silent the connection is believed for four of the longest election time-outs, 4 s; all else
/// is noticed at once, and what follows is one election and one dial.
fn bound(fault: &str) -> Duration {
    match fault {
        "SIGSTOP" | "cut" => Duration::from_secs(12),
        _ => Duration::from_secs(8),
    }
}

/// When a request is given up: past every bound, so that one that takes too long tells how long.
const DEADLINE: Duration = Duration::from_secs(20);
const ASKERS: usize = 8;
/// No multiple of the number of askers.
const KEYS: usize = 97;
