//! The application's calls: what is allowed, and which shard each goes to.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use core::time::Duration;

use bytes::Bytes;

use super::Node;
use super::directory::TEXT_MAX;
use crate::config::{Config, ConfigError, Limits, Timers};
use crate::ids::{GroupId, RequestId};
use crate::io::{Action, Call, Consistency, Failure, Output, Refused};
use crate::ring::shard_of;
use crate::shard::command::{Command, Query, Scan, Watch};
use crate::time::Now;
use crate::wire::bounded::MEMBERS_MAX;
use crate::wire::message::Leave;

/// Most members that found a cluster together.
const EXPECT_MAX: usize = 255;

impl Node {
    /// The only way for the application to act on the node. Accepted calls are answered by one
    /// [`Output::Reply`] each, at their deadline at the latest.
    ///
    /// # Errors
    /// The call was not accepted; nothing changed.
    pub fn submit(&mut self, now: Now, request: RequestId, call: Call) -> Result<(), Refused> {
        if self.halted {
            return Err(Refused::Halted);
        }
        let limits = &self.config.limits;
        let bytes = check_call(&call, limits)?;
        if let Some((what, limit)) = self.router.full(bytes) {
            return Err(Refused::Full { what, limit: crate::ids::len_u64(limit) });
        }
        let group = match &self.genesis {
            Some(genesis) => shard_of(call.partition.as_bytes(), genesis.shards),
            // The number of shards is part of what a client has yet to learn; a member knows it.
            None if self.config.client => {
                return Err(Refused::Invalid { what: "a call before the cluster is known" });
            }
            None => shard_of(call.partition.as_bytes(), self.config.shards),
        };
        self.route_call(now, request, group, call);
        Ok(())
    }

    fn route_call(&mut self, now: Now, request: RequestId, group: GroupId, call: Call) {
        let (now, deadline) = (now.instant, call.deadline);
        let partition = Bytes::from(call.partition.into_bytes());
        let linear = |consistency| consistency == Consistency::Linearizable;
        let mut write = |command: Command<Bytes>| {
            self.router.write(now, request, deadline, group, &command);
        };
        match call.action {
            Action::Put { key, value } => write(Command::Put { partition, key, value }),
            Action::Delete { key } => write(Command::Delete { partition, key }),
            Action::CompareAndSet { key, expect, value } => {
                write(Command::CompareAndSet { partition, key, expect, value });
            }
            Action::Batch { changes } => write(Command::Batch { partition, changes }),
            Action::Get { key, consistency } => {
                let query = Query::Get { partition, key };
                self.router.query(now, request, deadline, group, query, linear(consistency));
            }
            Action::Scan { from, to, reverse, limit, consistency } => {
                let cursor = self.router.new_cursor();
                let scan = Scan { partition, from, to, reverse, limit, cursor };
                let query = Query::Scan(Box::new(scan));
                self.router.query(now, request, deadline, group, query, linear(consistency));
            }
            Action::ScanNext { cursor, limit } => {
                self.next_page(now, request, deadline, cursor, Some(limit));
            }
            Action::ScanClose { cursor } => self.next_page(now, request, deadline, cursor, None),
            Action::Watch { from, to, after, limit } => {
                let watch = Watch { partition, from, to, after, limit, wait: true };
                let query = Query::Watch(Box::new(watch));
                self.router.query(now, request, deadline, group, query, true);
            }
            Action::Info => {
                let query = Query::Info { partition };
                self.router.query(now, request, deadline, group, query, true);
            }
            Action::Status { member } => {
                self.router.status(now, request, deadline, member, Leave::No);
            }
            Action::Leave { member, force } => {
                let leave = if force { Leave::Forced } else { Leave::Drained };
                self.router.status(now, request, deadline, member, leave);
            }
        }
    }

    fn next_page(
        &mut self,
        now: crate::time::Instant,
        request: RequestId,
        deadline: crate::time::Instant,
        cursor: crate::ids::CursorId,
        limit: Option<u32>,
    ) {
        if !self.router.page(now, request, deadline, cursor, limit) {
            let result = Err(Failure::Interrupted);
            self.outputs.0.push(Output::Reply { request, result });
        }
    }
}

/// Checks every length of a call; returns the bytes it holds.
fn check_call(call: &Call, limits: &Limits) -> Result<usize, Refused> {
    let within = |what, len: usize, limit: usize| {
        if len > limit {
            let (len, limit) = (crate::ids::len_u64(len), crate::ids::len_u64(limit));
            return Err(Refused::TooLarge { what, len, limit });
        }
        Ok(len)
    };
    let key = |key: &Bytes| within("key", key.len(), limits.key_bytes);
    let value = |value: &Bytes| within("value", value.len(), limits.value_bytes);
    let name = within("partition name", call.partition.len(), limits.name_bytes)?;
    let needs_name = !matches!(
        call.action,
        Action::Status { .. }
            | Action::Leave { .. }
            | Action::ScanNext { .. }
            | Action::ScanClose { .. }
    );
    if name == 0 && needs_name {
        return Err(Refused::Invalid { what: "an empty partition name" });
    }
    let bytes = match &call.action {
        Action::Put { key: k, value: v } => key(k)? + value(v)?,
        Action::Delete { key: k } | Action::Get { key: k, .. } => key(k)?,
        Action::CompareAndSet { key: k, expect, value: v } => {
            let expected = match expect {
                crate::shard::command::Expect::Value(Some(expected)) => value(expected)?,
                crate::shard::command::Expect::Value(None)
                | crate::shard::command::Expect::Revision(_) => 0,
            };
            let bytes = key(k)? + expected + v.as_ref().map_or(Ok(0), value)?;
            within("compare-and-set (both values)", bytes, limits.batch_bytes)?
        }
        Action::Batch { changes } => {
            within("batch (operations)", changes.len(), limits.batch_ops)?;
            let mut bytes = 0;
            for change in changes {
                bytes += key(&change.key)? + change.value.as_ref().map_or(Ok(0), value)?;
            }
            within("batch", bytes, limits.batch_bytes)?
        }
        Action::Scan { from, to, .. } | Action::Watch { from, to, .. } => {
            key(from)? + to.as_ref().map_or(Ok(0), key)?
        }
        Action::ScanNext { .. }
        | Action::ScanClose { .. }
        | Action::Info
        | Action::Leave { .. }
        | Action::Status { .. } => 0,
    };
    Ok(name + bytes)
}

/// A configuration that can be used, or the field that cannot.
pub(super) fn validate(config: &Config) -> Result<(), ConfigError> {
    let wrong = |field, problem| Err(ConfigError { field, problem });
    for (field, name) in [("cluster", &config.cluster), ("name", &config.name)] {
        check_text(field, name)?;
        if name.is_empty() {
            return wrong(field, String::from("empty; 1 to 255 bytes are allowed"));
        }
    }
    check_text("address", &config.address)?;
    validate_limits(&config.limits)?;
    validate_timers(&config.timers)?;
    if config.client {
        if config.members.is_empty() {
            return wrong("members", String::from("a client needs an address to begin with"));
        }
        return Ok(());
    }
    if !config.join.is_empty() {
        if !config.members.is_empty() {
            let problem = "given together with members: a member either joins a cluster or is one of its founders";
            return wrong("join", String::from(problem));
        }
        if config.address.is_empty() {
            let problem = "missing: say where the others reach this member (host:port), which joins a cluster";
            return wrong("address", String::from(problem));
        }
    }
    validate_expect(config)?;
    if !config.members.is_empty() {
        let mut names: alloc::vec::Vec<&str> =
            config.members.iter().map(|member| member.0.as_str()).collect();
        names.sort_unstable();
        if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return wrong("members", format!("{:?} stands there twice", pair[0]));
        }
        for (name, address) in &config.members {
            check_text("members", name)?;
            check_text("members", address)?;
        }
        if names.contains(&"") {
            return wrong("members", String::from("a name is empty; 1 to 255 bytes are allowed"));
        }
        if !names.contains(&config.name.as_str()) {
            let problem = format!("{:?} is not one of the members {names:?}", config.name);
            return wrong("name", problem);
        }
        if names.len() > 255 {
            return wrong("members", format!("{} members; 255 are allowed", names.len()));
        }
    }
    super::alive::validate(config)?;
    if config.shards == 0 || config.shards > 65_536 {
        return wrong("shards", format!("{}; 1 to 65536 are allowed", config.shards));
    }
    if config.replication == 0 || config.replication > 9 {
        return wrong("replication", format!("{}; 1 to 9 are allowed", config.replication));
    }
    Ok(())
}

fn validate_expect(config: &Config) -> Result<(), ConfigError> {
    let Some(expect) = config.expect else { return Ok(()) };
    let wrong = |field, problem| Err(ConfigError { field, problem });
    if !config.members.is_empty() {
        let problem = "given together with members: the list says how many they are";
        return wrong("expect", String::from(problem));
    }
    if expect == 0 || usize::from(expect) > config.limits.members.min(EXPECT_MAX) {
        let most = config.limits.members.min(EXPECT_MAX);
        return wrong("expect", format!("{expect}; 1 to {most} are allowed"));
    }
    if config.address.is_empty() {
        let problem = "missing: say where the others reach this member (host:port)";
        return wrong("address", String::from(problem));
    }
    let mut told: alloc::vec::Vec<&String> = config.join.iter().collect();
    told.sort_unstable();
    told.dedup();
    if told.len() > usize::from(expect) {
        let problem = format!(
            "{} addresses, but {expect} members are expected, and who is at these addresses is to be one of them",
            told.len()
        );
        return wrong("join", problem);
    }
    Ok(())
}

/// A name or an address as the directory's table takes it: longer ones, and those with control characters, which
/// stand for members that have lost their name, are nobody's.
fn check_text(field: &'static str, text: &str) -> Result<(), ConfigError> {
    if text.len() > TEXT_MAX {
        let problem = format!("{} bytes; {TEXT_MAX} are allowed", text.len());
        return Err(ConfigError { field, problem });
    }
    if text.contains(char::is_control) {
        let problem = format!("{text:?} holds a control character; none is allowed");
        return Err(ConfigError { field, problem });
    }
    Ok(())
}

fn validate_limits(limits: &Limits) -> Result<(), ConfigError> {
    let wrong = |problem| Err(ConfigError { field: "limits", problem });
    if !(1..=MEMBERS_MAX).contains(&limits.members) {
        let problem = format!("members: {}; 1 to {MEMBERS_MAX} are allowed", limits.members);
        return wrong(problem);
    }
    // More than this a peer refuses to decode.
    let counts = [limits.append_entries, limits.batch_ops, limits.scan_keys];
    if counts.iter().any(|&count| count == 0 || count > 65_536)
        || !(1..=4096).contains(&limits.session_window)
    {
        let problem = String::from(
            "append_entries, batch_ops and scan_keys must be 1 to 65536, session_window 1 to 4096",
        );
        return wrong(problem);
    }
    if limits.transfer_bytes < 4 << 10 {
        let problem = format!("transfer_bytes: {}; at least 4096 a second", limits.transfer_bytes);
        return wrong(problem);
    }
    let sizes = [
        limits.key_bytes,
        limits.value_bytes,
        limits.batch_bytes,
        limits.append_bytes,
        limits.scan_bytes,
        limits.chunk_bytes,
        limits.body_bytes,
    ];
    let large = sizes.iter().any(|&size| size > 12 << 20) || limits.headers_bytes > 1 << 20;
    if large || limits.name_bytes > 255 {
        let problem = String::from(
            "lengths of keys, values, batches, appends, pages, chunks and bodies may be 12 MiB, headers 1 MiB, names \
             255",
        );
        return wrong(problem);
    }
    Ok(())
}

fn validate_timers(timers: &Timers) -> Result<(), ConfigError> {
    let wrong = |problem| Err(ConfigError { field: "timers", problem });
    let all = [
        timers.election_min,
        timers.election_max,
        timers.heartbeat,
        timers.redial_min,
        timers.redial_max,
        timers.handshake,
        timers.retry,
        timers.session_ttl,
        timers.cursor_ttl,
    ];
    if all.iter().any(|time| time.is_zero() || *time > Duration::from_secs(3600)) {
        return wrong(String::from("each must be above zero and at most an hour"));
    }
    if timers.session_ttl > Duration::from_secs(60) {
        return wrong(String::from("session_ttl may be 60 s: groups forget a session then"));
    }
    if timers.election_min.is_zero() || timers.election_min > timers.election_max {
        let problem = String::from("election_min must be above zero and at most election_max");
        return wrong(problem);
    }
    if timers.heartbeat.is_zero() || timers.heartbeat * 2 > timers.election_min {
        let problem = String::from("heartbeat must be above zero and at most half of election_min");
        return wrong(problem);
    }
    Ok(())
}
