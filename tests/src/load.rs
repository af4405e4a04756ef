//! A load of writes whose fate is recorded, and what must be found of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use libring::{Node, Range};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::journal::{Journal, Put};
use crate::{PATIENCE, text};

/// What a scan of all partitions finds: by partition and key, the value.
pub type Found = BTreeMap<(String, String), String>;

/// What a load is like.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Number of partitions written to.
    pub partitions: usize,
    /// Number of clients.
    pub writers: usize,
    /// Values are drawn out to lengths up to this; 0: as short as they can be.
    pub bytes_max: usize,
}

/// Clients that write unique values to unique keys, one call after another.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    writers: JoinSet<()>,
}

impl Load {
    /// Starts the clients.
    #[must_use]
    pub fn start(runtime: &Runtime, client: &Node, journal: &Arc<Journal>, shape: Shape) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut writers = JoinSet::new();
        for number in 0..shape.writers {
            let writer =
                write(number, shape, client.clone(), Arc::clone(journal), Arc::clone(&stop));
            writers.spawn_on(writer, runtime.handle());
        }
        Self { stop, writers }
    }

    /// Lets the clients end what they are at.
    ///
    /// # Panics
    /// When one of them has.
    pub fn stop(mut self, runtime: &Runtime) {
        self.stop.store(true, Ordering::Relaxed);
        runtime.block_on(async {
            while let Some(ended) = self.writers.join_next().await {
                ended.expect("a writer does not panic");
            }
        });
    }
}

async fn write(
    number: usize,
    shape: Shape,
    client: Node,
    journal: Arc<Journal>,
    stop: Arc<AtomicBool>,
) {
    let name = name(number % shape.partitions);
    let partition = client.partition(&name);
    let mut process = journal.process();
    for count in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let put = Put {
            partition: name.clone(),
            key: format!("{number}-{count:08}"),
            value: shape.value(number, count),
        };
        journal.invoke_put(&process, &put);
        let began = Instant::now();
        let result = partition.put(put.key.clone(), put.value.clone()).await;
        process = journal.end_put(process, put, began, &result);
    }
}

/// Reads writes back, each with a linearizable get.
///
/// # Panics
/// When one is not there, or cannot be read.
pub async fn all_there(client: &Node, journal: &Arc<Journal>, puts: &[Put]) {
    let mut readers = JoinSet::new();
    for part in puts.chunks(puts.len().div_ceil(READERS).max(1)) {
        let (client, journal, part) = (client.clone(), Arc::clone(journal), part.to_vec());
        readers.spawn(async move {
            let process = journal.process();
            for put in part {
                let partition = client.partition(&put.partition).with_deadline(PATIENCE);
                let found = partition.get(put.key.clone()).await;
                let found = match found {
                    Ok(found) => found,
                    Err(e) => panic!("{put:?} cannot be read: {e}; {}", describe(&client).await),
                };
                let found = found.map(|found| text(&found.value));
                journal.got(&process, &put, found.as_deref());
                assert!(found.as_ref() == Some(&put.value), "{put:?} was acknowledged: {found:?}");
            }
        });
    }
    while let Some(read) = readers.join_next().await {
        if let Err(e) = read {
            std::panic::resume_unwind(e.into_panic());
        }
    }
}

/// What the members say of themselves, for messages.
async fn describe(client: &Node) -> String {
    let mut text = String::from("the members say:");
    // Twice, as what does not change is what one looks for; who is away delays the second round.
    for _round in 0..2 {
        for member in client.members() {
            let status = client.status(member.id).await;
            text.push_str(&format!("\n{}: {status:?}", member.name));
        }
    }
    text
}

/// Everything that stands in a load's partitions.
///
/// # Panics
/// When it cannot be read.
pub async fn scan_all(client: &Node, partitions: usize) -> Found {
    let mut found = BTreeMap::new();
    for name in self::partitions(partitions) {
        let partition = client.partition(&name).with_deadline(PATIENCE);
        let mut scan = partition.scan(Range::all());
        while let Some(item) = scan.next().await.unwrap_or_else(|e| panic!("{name}: {e}")) {
            found.insert((name.clone(), text(&item.key)), text(&item.value));
        }
    }
    found
}

/// The names of a load's partitions.
#[must_use]
pub fn partitions(count: usize) -> Vec<String> {
    (0..count).map(name).collect()
}

fn name(partition: usize) -> String {
    format!("load-{partition}")
}

impl Shape {
    /// A value that no other write of the load has. Its length is anything up to the most, so that
    /// batches end anywhere in a block of the disk.
    fn value(&self, writer: usize, count: usize) -> String {
        let mut value = format!("value {count} of writer {writer}");
        if self.bytes_max > 0 {
            // A full cycle through all lengths, in great steps.
            let len = (count * 7_919 + writer * 104_729) % self.bytes_max;
            while value.len() < len {
                value.push(char::from(b'a' + u8::try_from(value.len() % 26).expect("less")));
            }
        }
        value
    }
}

const READERS: usize = 64;
