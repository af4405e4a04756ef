//! `ring kv`: reading and writing a partition.

use std::ffi::OsStr;
use std::io::{self, BufWriter, Read, Write};
use std::time::Duration;

use libring::{
    Bytes, Change, Changed, Consistency, Error, Expect, Failure, GroupId, MemberId, Node,
    Partition, Range, Revision, ScanError, WatchError,
};
use serde_json::{Map, Value, json};
use tokio::task::JoinSet;

use crate::args::{Common, Kv, KvBatch, KvCas, KvRange, KvScan, KvVerb, KvWatch};
use crate::connect::connect;
use crate::follow::Names;
use crate::out;
use crate::stop::{Code, Stop};

/// One call on one partition.
pub(crate) async fn run(common: &Common, args: &Kv) -> Result<(), Stop> {
    // Read before connecting: whoever types the value may take longer than a call.
    let value = given_value(args, io::stdin)?;
    let node = connect(common, common.timeout_or(Duration::from_secs(10))).await?;
    let kv = Caller {
        node: &node,
        json: common.json,
        name: &args.partition,
        partition: node.partition(&args.partition),
        names: Names::of(&node.members()),
    };
    match &args.verb {
        KvVerb::Get { key, raw, local } => kv.get(bytes_of(key), *raw, *local).await,
        KvVerb::Put { key, .. } => kv.put(bytes_of(key), value.unwrap_or_default()).await,
        KvVerb::Del { key } => kv.delete(bytes_of(key)).await,
        KvVerb::Batch(batch) => kv.batch(batch).await,
        KvVerb::Scan(scan) => kv.scan(scan).await,
        KvVerb::Watch(watch) => kv.watch(watch).await,
        KvVerb::Cas(cas) => kv.compare_and_set(cas, value).await,
        KvVerb::Info => kv.info().await,
    }
}

/// A partition, and how to tell about it.
struct Caller<'a> {
    node: &'a Node,
    json: bool,
    name: &'a str,
    partition: Partition,
    names: Names,
}

impl Caller<'_> {
    async fn get(&self, key: Bytes, raw: bool, local: bool) -> Result<(), Stop> {
        let what = self.what("get", &key);
        let (found, staleness) = if local {
            let found = self.partition.get_local(key.clone()).await;
            let found = found.map_err(|e| Stop::call(&what, &e))?;
            (found.value, Some(found.staleness))
        } else {
            let found = self.partition.get(key.clone()).await;
            (found.map_err(|e| Stop::call(&what, &e))?, None)
        };
        if let Some(staleness) = staleness.filter(|_| !self.json) {
            // Beside the value, which may go into a pipe.
            out::aside(&stale(staleness));
        }
        let Some(found) = found else {
            return Err(self.missing(&key));
        };
        if raw {
            out::write(&found.value)
        } else if self.json {
            let mut item = item(&key, Some(&found.value), found.revision);
            if let Some(staleness) = staleness {
                item["staleness_ms"] = json!(staleness.map(|age| age.as_millis()));
            }
            out::json(&item)
        } else {
            out::line(out::show_value(&found.value))
        }
    }

    async fn put(&self, key: Bytes, value: Bytes) -> Result<(), Stop> {
        let what = self.what("put", &key);
        let written = self.partition.put(key, value).await;
        let revision = written.map_err(|e| Stop::call(&what, &e))?;
        self.tell(|| format!("revision {}", revision.0), || json!({ "revision": revision.0 }))
    }

    async fn delete(&self, key: Bytes) -> Result<(), Stop> {
        let what = self.what("del", &key);
        let existed = self.partition.delete(key.clone()).await;
        if !existed.map_err(|e| Stop::call(&what, &e))? {
            return Err(self.missing(&key));
        }
        self.tell(|| String::from("deleted"), || json!({ "deleted": true }))
    }

    async fn compare_and_set(&self, args: &KvCas, value: Option<Bytes>) -> Result<(), Stop> {
        let key = bytes_of(&args.key);
        let what = self.what("cas", &key);
        let expect = match (&args.expect.expect, args.expect.expect_revision) {
            (Some(old), _) => Expect::Value(Some(bytes_of(old))),
            (None, Some(revision)) => Expect::Revision(Revision(revision)),
            (None, None) => Expect::Value(None),
        };
        let compared = self.partition.compare_and_set(key, expect, value).await;
        let compared = compared.map_err(|e| Stop::call(&what, &e))?;
        if !compared.swapped {
            let now = match compared.revision {
                Revision(0) => String::from("there is no such key"),
                Revision(revision) => format!("its revision is {revision}"),
            };
            return Err(Stop::new(Code::No, format!("{what}: not as expected: {now}")));
        }
        self.tell(
            || match compared.revision {
                Revision(0) => String::from("deleted"),
                Revision(revision) => format!("revision {revision}"),
            },
            || json!({ "swapped": true, "revision": compared.revision.0 }),
        )
    }

    async fn batch(&self, args: &KvBatch) -> Result<(), Stop> {
        let puts = args
            .put
            .chunks_exact(2)
            .map(|pair| Change { key: bytes_of(&pair[0]), value: Some(bytes_of(&pair[1])) });
        let dels = args.del.iter().map(|key| Change { key: bytes_of(key), value: None });
        let changes: Vec<_> = puts.chain(dels).collect();
        let mut keys: Vec<&Bytes> = changes.iter().map(|change| &change.key).collect();
        keys.sort_unstable();
        if let Some(twice) = keys.windows(2).find(|pair| pair[0] == pair[1]) {
            let key = out::show(twice[0]);
            return Err(Stop::new(Code::Usage, format!("batch: '{key}' is given twice")));
        }
        let what = format!("batch in partition \"{}\"", self.name);
        let written = self.partition.batch(changes).await;
        let revision = written.map_err(|e| Stop::call(&what, &e))?;
        self.tell(|| format!("revision {}", revision.0), || json!({ "revision": revision.0 }))
    }

    async fn scan(&self, args: &KvScan) -> Result<(), Stop> {
        let mut scan = self.partition.scan(range(args));
        let mut stdout = BufWriter::new(io::stdout());
        loop {
            let next = match scan.next().await {
                Ok(next) => next,
                Err(error) => {
                    out::done(stdout.flush())?;
                    return Err(self.scan_stopped(&error, args.reverse));
                }
            };
            let Some(found) = next else {
                out::done(stdout.flush())?;
                if args.local {
                    out::aside(&stale(scan.staleness()));
                }
                return Ok(());
            };
            let value = (!args.keys_only).then_some(&found.value[..]);
            let line = if self.json {
                item(&found.key, value, found.revision).to_string()
            } else {
                match value {
                    Some(value) => format!("{}\t{}", out::show(&found.key), out::show(value)),
                    None => out::show(&found.key),
                }
            };
            out::done(writeln!(stdout, "{line}"))?;
        }
    }

    fn scan_stopped(&self, error: &ScanError, reverse: bool) -> Stop {
        let what = format!("scan of partition \"{}\"", self.name);
        match error {
            ScanError::Call(error) => Stop::call(&what, error),
            ScanError::Interrupted { resume } => Stop::new(
                Code::Unreachable,
                format!(
                    "{what}: its snapshot is gone; a newer one goes on with {} '{}'",
                    if reverse { "--reverse --to" } else { "--from" },
                    out::show(resume)
                ),
            ),
        }
    }

    /// Shows changes until interrupted, or until there were enough.
    async fn watch(&self, args: &KvWatch) -> Result<(), Stop> {
        let what = format!("watch of partition \"{}\"", self.name);
        let range = keys(&args.keys);
        let watch = match args.after {
            Some(after) => self.partition.watch_after(range, Revision(after)),
            None => self.partition.watch(range).await,
        };
        let mut watch = watch.map_err(|e| Stop::call(&what, &e))?;
        let mut left = args.limit;
        while left != Some(0) {
            let next = tokio::select! {
                next = watch.next() => next,
                _ = tokio::signal::ctrl_c() => return Ok(()),
            };
            match next {
                Ok(changed) => {
                    out::line(self.describe(&changed, args.keys_only))?;
                    left = left.map(|left| left - 1);
                }
                // A leader is being elected, or the members are away: they may come back.
                Err(WatchError::Call(Error::Failed(Failure::Deadline))) => {}
                Err(WatchError::Call(error)) => return Err(Stop::call(&what, &error)),
                Err(error @ WatchError::Compacted { .. }) => {
                    return Err(Stop::new(Code::No, format!("{what}: {error}")));
                }
            }
        }
        Ok(())
    }

    /// A change in one line.
    fn describe(&self, changed: &Changed, keys_only: bool) -> String {
        let value = changed.value.as_deref().filter(|_| !keys_only);
        if self.json {
            let mut object = item(&changed.key, value, changed.revision);
            object["removed"] = Value::from(changed.value.is_none());
            return object.to_string();
        }
        let verb = if changed.value.is_some() { "put" } else { "del" };
        let key = out::show(&changed.key);
        match value {
            Some(value) => format!("{}\t{verb}\t{key}\t{}", changed.revision.0, out::show(value)),
            None => format!("{}\t{verb}\t{key}", changed.revision.0),
        }
    }

    async fn info(&self) -> Result<(), Stop> {
        let info = self.partition.info().await;
        let info =
            info.map_err(|e| Stop::call(&format!("info of partition \"{}\"", self.name), &e))?;
        let leader = match info.leader {
            Some(leader) => Some(leader),
            None => self.leader(info.shard, &info.replicas).await,
        };
        let leader = leader.map(|leader| self.names.name(leader));
        let replicas: Vec<String> = info.replicas.iter().map(|m| self.names.name(*m)).collect();
        self.tell(
            || {
                out::table(
                    &["PARTITION", "SHARD", "LEADER", "REPLICAS", "KEYS", "BYTES", "REVISION"],
                    vec![vec![
                        out::show(self.name.as_bytes()),
                        info.shard.0.to_string(),
                        leader.clone().unwrap_or_else(|| String::from("none")),
                        replicas.join(","),
                        info.keys.to_string(),
                        info.bytes.to_string(),
                        info.revision.0.to_string(),
                    ]],
                )
                .trim_end()
                .to_owned()
            },
            || {
                json!({
                    "partition": self.name,
                    "shard": info.shard.0,
                    "leader": leader,
                    "replicas": replicas,
                    "keys": info.keys,
                    "bytes": info.bytes,
                    "revision": info.revision.0,
                    "applied": info.applied.0,
                })
            },
        )
    }

    /// Who leads a shard, in the words of the first replica that knows.
    async fn leader(&self, shard: GroupId, replicas: &[MemberId]) -> Option<MemberId> {
        let mut asked = JoinSet::new();
        for replica in replicas {
            let (node, replica) = (self.node.clone(), *replica);
            asked.spawn(async move { node.status(replica).await });
        }
        while let Some(answer) = asked.join_next().await {
            if let Ok(Ok(status)) = answer
                && let Some(group) = status.groups.iter().find(|group| group.group == shard)
                && group.leader.is_some()
            {
                return group.leader;
            }
        }
        None
    }

    fn tell(
        &self,
        text: impl FnOnce() -> String,
        json: impl FnOnce() -> Value,
    ) -> Result<(), Stop> {
        if self.json { out::json(&json()) } else { out::line(text()) }
    }

    fn what(&self, verb: &str, key: &[u8]) -> String {
        format!("{verb} \"{}\" in partition \"{}\"", out::show(key), self.name)
    }

    fn missing(&self, key: &[u8]) -> Stop {
        let key = out::show(key);
        Stop::new(Code::No, format!("no key \"{key}\" in partition \"{}\"", self.name))
    }
}

fn keys(args: &KvRange) -> Range {
    let mut range = match &args.prefix {
        Some(prefix) => Range::prefix(bytes_of(prefix)),
        None => Range::all(),
    };
    if let Some(from) = &args.from {
        range = range.from(bytes_of(from));
    }
    if let Some(to) = &args.to {
        range = range.to(bytes_of(to));
    }
    range
}

fn range(args: &KvScan) -> Range {
    let mut range = keys(&args.keys);
    if args.reverse {
        range = range.reverse();
    }
    if let Some(limit) = args.limit {
        range = range.limit(limit);
    }
    if args.local {
        range = range.consistency(Consistency::Local);
    }
    range
}

fn item(key: &[u8], value: Option<&[u8]>, revision: Revision) -> Value {
    let mut object = Map::new();
    out::put_bytes(&mut object, "key", key);
    if let Some(value) = value {
        out::put_bytes(&mut object, "value", value);
    }
    object.insert(String::from("revision"), Value::from(revision.0));
    Value::from(object)
}

/// How stale a local read can be.
fn stale(staleness: Option<Duration>) -> String {
    match staleness {
        Some(age) if age < Duration::from_secs(1) => {
            format!("(what was written up to {} ms ago may be missing)", age.as_millis())
        }
        Some(age) => format!("(what was written up to {} ago may be missing)", out::span(age)),
        None => String::from(
            "(how old this is cannot be said: the replica has not reached its leader since it was started)",
        ),
    }
}

/// The value that the command line gives; `-` stands for all of stdin.
fn given_value<R: Read>(args: &Kv, stdin: impl FnOnce() -> R) -> Result<Option<Bytes>, Stop> {
    let value = match &args.verb {
        KvVerb::Put { value, .. } => value,
        KvVerb::Cas(KvCas { value: Some(value), .. }) => value,
        KvVerb::Cas(_)
        | KvVerb::Get { .. }
        | KvVerb::Del { .. }
        | KvVerb::Batch(_)
        | KvVerb::Scan(_)
        | KvVerb::Watch(_)
        | KvVerb::Info => {
            return Ok(None);
        }
    };
    if value != "-" {
        return Ok(Some(bytes_of(value)));
    }
    // One byte more than any value may have: enough for the cluster to refuse it with its words.
    let most = ring_core::ids::len_u64(libring::Limits::default().value_bytes) + 1;
    let mut read = Vec::new();
    let result = stdin().take(most).read_to_end(&mut read);
    result.map_err(|e| Stop::io("stdin", &e))?;
    Ok(Some(Bytes::from(read)))
}

fn bytes_of(text: &OsStr) -> Bytes {
    Bytes::copy_from_slice(text.as_encoded_bytes())
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;
    use crate::args::{self, Command};

    fn kv(line: &str) -> Kv {
        let cli = args::parse(line.split(' ').map(OsString::from)).expect(line);
        let Command::Kv(kv) = cli.command else {
            panic!("{line}");
        };
        kv
    }

    #[test]
    fn a_dash_is_stdin() {
        let read = |line: &str| given_value(&kv(line), || &b"from stdin"[..]).expect(line);
        assert_eq!(read("ring kv put k -"), Some(Bytes::from("from stdin")));
        assert_eq!(read("ring kv put k v"), Some(Bytes::from("v")));
        assert_eq!(read("ring kv cas k - --absent"), Some(Bytes::from("from stdin")));
        assert_eq!(read("ring kv cas k --delete --expect v"), None);
        assert_eq!(read("ring kv get k"), None);
    }

    #[test]
    fn stdin_is_read_no_further_than_a_value_may_be_long() {
        let read = given_value(&kv("ring kv put k -"), || io::repeat(b'x')).expect("endless");
        let limit = libring::Limits::default().value_bytes;
        assert_eq!(read.map(|value| value.len()), Some(limit + 1));
    }
}
