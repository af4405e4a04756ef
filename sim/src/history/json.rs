//! Histories as JSON lines.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, BufRead, Write};

use serde_json::{Map, Value as Json, json};

use super::{Done, Event, History, Key, Op, Phase, ProcessId, Value, What};

impl History {
    /// Writes it as JSON lines, `meta` first.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let mut meta = self.meta.clone();
        meta.insert("type".to_owned(), json!("meta"));
        writeln!(out, "{}", Json::Object(meta))?;
        let mut open: BTreeMap<ProcessId, &Op> = BTreeMap::new();
        for event in &self.events {
            if let What::Client { process, phase: Phase::Invoke(op), .. } = &event.what {
                open.insert(*process, op);
            }
            writeln!(out, "{}", Json::Object(event_json(event, &open)))?;
            if let What::Client { process, phase, .. } = &event.what
                && !matches!(phase, Phase::Invoke(_))
            {
                open.remove(process);
            }
        }
        Ok(())
    }

    /// Reads JSON lines. Operations of workloads other than `kv` are kept as they are.
    ///
    /// # Errors
    /// A line that cannot be read, is not of the format, or breaks the order of a process.
    pub fn read(lines: impl BufRead) -> Result<Self, ReadError> {
        let mut history = Self::default();
        let mut reader = Reader::default();
        for (at, line) in lines.lines().enumerate() {
            let wrong = |problem: String| ReadError { line: at + 1, problem };
            let line = line.map_err(|error| wrong(error.to_string()))?;
            let parsed: Json = serde_json::from_str(&line).map_err(|e| wrong(e.to_string()))?;
            let Json::Object(mut fields) = parsed else {
                return Err(wrong("not a JSON object".to_owned()));
            };
            let kind = text(&fields, "type").map_err(wrong)?.to_owned();
            if kind == "meta" {
                if at != 0 {
                    return Err(wrong("meta must be the first line".to_owned()));
                }
                fields.remove("type");
                history.meta = fields;
                continue;
            }
            let event = reader.event(&kind, &fields).map_err(wrong)?;
            history.events.push(event);
        }
        Ok(history)
    }
}

/// A line of a history that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadError {
    /// The line, counted from 1.
    pub line: usize,
    /// What is wrong with it.
    pub problem: String,
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {} of the history: {}", self.line, self.problem)
    }
}

impl std::error::Error for ReadError {}

fn event_json(event: &Event, open: &BTreeMap<ProcessId, &Op>) -> Map<String, Json> {
    let mut fields = Map::new();
    let (process, node, phase) = match &event.what {
        What::Client { process, node, phase } => (process, node, phase),
        What::Fault { name, fields: more } => {
            fields.extend(more.clone());
            put(&mut fields, "fault", json!(name));
            put(&mut fields, "type", json!("fault"));
            put(&mut fields, "index", json!(event.index));
            put(&mut fields, "time", json!(event.time));
            return fields;
        }
    };
    put(&mut fields, "index", json!(event.index));
    put(&mut fields, "time", json!(event.time));
    put(&mut fields, "process", json!(process.0));
    if let Some(node) = node {
        put(&mut fields, "node", json!(node));
    }
    if let Some(op) = open.get(process) {
        let (w, f, key, argument) = op_json(op);
        put(&mut fields, "w", json!(w));
        put(&mut fields, "f", json!(f));
        put(&mut fields, "key", key);
        put(&mut fields, "value", argument);
        if let Phase::Ok(done) = phase {
            done_json(op, done, &mut fields);
        }
    }
    let kind = match phase {
        Phase::Invoke(_) => "invoke",
        Phase::Ok(_) => "ok",
        Phase::Fail { error } => {
            put(&mut fields, "error", json!(error));
            "fail"
        }
        Phase::Info { error } => {
            put(&mut fields, "error", json!(error));
            "info"
        }
    };
    put(&mut fields, "type", json!(kind));
    fields
}

fn put(fields: &mut Map<String, Json>, name: &str, value: Json) {
    fields.insert(name.to_owned(), value);
}

fn op_json(op: &Op) -> (&str, &str, Json, Json) {
    match op {
        Op::Put { key, value } => ("kv", "put", json!(key.text()), value_json(value)),
        Op::Get { key, local } => {
            let f = if *local { "get_local" } else { "get" };
            ("kv", f, json!(key.text()), Json::Null)
        }
        Op::Delete { key } => ("kv", "del", json!(key.text()), Json::Null),
        Op::Cas { key, old, new } => {
            let argument = json!([option_json(old.as_ref()), option_json(new.as_ref())]);
            ("kv", "cas", json!(key.text()), argument)
        }
        Op::CasRev { key, revision, new } => {
            let argument = json!([revision, option_json(new.as_ref())]);
            ("kv", "cas_rev", json!(key.text()), argument)
        }
        Op::Batch { changes } => {
            let changes = changes.iter().map(|(key, value)| match value {
                Some(value) => json!(["put", key.text(), value_json(value)]),
                None => json!(["del", key.text()]),
            });
            ("kv", "batch", Json::Null, changes.collect())
        }
        Op::Scan { from, to, limit, reverse, local } => {
            let to = to.as_ref().map(Key::text);
            let mut argument = json!({"from": from.text(), "to": to, "limit": limit});
            if *reverse {
                argument["reverse"] = json!(true);
            }
            let f = if *local { "scan_local" } else { "scan" };
            ("kv", f, Json::Null, argument)
        }
        Op::Other { w, f, key, value } => (w, f, key.clone(), value.clone()),
    }
}

fn done_json(op: &Op, done: &Done, fields: &mut Map<String, Json>) {
    let (value, revision) = match done {
        Done::Written { revision } => {
            if matches!(op, Op::Batch { .. }) {
                put(fields, "value", json!(revision));
                return;
            }
            (fields.get("value").cloned().unwrap_or_default(), revision)
        }
        Done::Deleted { existed, revision } => {
            if let Some(existed) = existed {
                put(fields, "existed", json!(existed));
            }
            (Json::Null, revision)
        }
        Done::Compared { swapped, revision } => {
            if matches!(op, Op::CasRev { .. }) {
                put(fields, "value", json!({"ok": swapped, "rev": revision}));
                return;
            }
            (json!(swapped), revision)
        }
        Done::Value(None) => (Json::Null, &None),
        Done::Value(Some((value, revision))) => (value_json(value), revision),
        Done::Page { items, more, revision } => {
            let pairs = items.iter().map(|(k, v, _)| json!([k.text(), value_json(v)]));
            let revisions: Vec<_> = items.iter().map(|(_, _, revision)| revision).collect();
            if revisions.iter().any(|revision| revision.is_some()) {
                put(fields, "revs", json!(revisions));
            }
            put(fields, "more", json!(more));
            (pairs.collect(), revision)
        }
        Done::Other(value) => (value.clone(), &None),
    };
    put(fields, "value", value);
    if let Some(revision) = revision {
        put(fields, "rev", json!(revision));
    }
}

fn value_json(value: &Value) -> Json {
    match value {
        Value::Number(number) => json!(number),
        Value::Text(text) => json!(&**text),
    }
}

fn option_json(value: Option<&Value>) -> Json {
    value.map_or(Json::Null, value_json)
}

#[derive(Default)]
struct Reader {
    last: Option<u64>,
    open: BTreeMap<ProcessId, Op>,
    retired: BTreeMap<ProcessId, u64>,
}

impl Reader {
    fn event(&mut self, kind: &str, fields: &Map<String, Json>) -> Result<Event, String> {
        let index = number(fields, "index")?;
        let time = number(fields, "time")?;
        if let Some(last) = self.last
            && index <= last
        {
            return Err(format!("index {index} does not rise over {last}"));
        }
        self.last = Some(index);
        let what = if kind == "fault" {
            let mut more = fields.clone();
            for name in ["type", "fault", "index", "time"] {
                more.remove(name);
            }
            What::Fault { name: text(fields, "fault")?.to_owned(), fields: more }
        } else {
            let process = ProcessId(number(fields, "process")?);
            What::Client {
                process,
                node: fields.get("node").and_then(Json::as_u64),
                phase: self.phase(kind, process, index, fields)?,
            }
        };
        Ok(Event { index, time, what })
    }

    fn phase(
        &mut self,
        kind: &str,
        process: ProcessId,
        index: u64,
        fields: &Map<String, Json>,
    ) -> Result<Phase, String> {
        if kind == "invoke" {
            if let Some(at) = self.retired.get(&process) {
                return Err(format!("process {process} is used after its info at {at}"));
            }
            let op = read_op(fields)?;
            if self.open.insert(process, op.clone()).is_some() {
                return Err(format!("process {process} already has an operation open"));
            }
            return Ok(Phase::Invoke(op));
        }
        // Events that no client asked for (deliveries, views of members) have no invoke.
        let op = match self.open.remove(&process) {
            Some(op) => op,
            None if fields.get("w") == Some(&json!("kv")) => {
                return Err(format!("process {process} has no operation open"));
            }
            None => read_op(fields)?,
        };
        let error = match fields.get("error") {
            Some(Json::String(error)) => error.clone(),
            Some(other) => other.to_string(),
            None => String::new(),
        };
        match kind {
            "ok" => Ok(Phase::Ok(read_done(&op, fields)?)),
            "fail" => Ok(Phase::Fail { error }),
            "info" => {
                self.retired.insert(process, index);
                Ok(Phase::Info { error })
            }
            other => Err(format!("unknown type {other:?}")),
        }
    }
}

fn read_op(fields: &Map<String, Json>) -> Result<Op, String> {
    let w = text(fields, "w")?;
    let f = text(fields, "f")?;
    let value = fields.get("value").unwrap_or(&Json::Null);
    let key = || read_key(fields.get("key").unwrap_or(&Json::Null));
    let pair = || match value.as_array().map(Vec::as_slice) {
        Some([first, second]) => Ok((first, second)),
        _ => Err(format!("{f} needs a value of two parts, not {value}")),
    };
    let op = match (w, f) {
        ("kv", "put") => {
            Op::Put { key: key()?, value: read_value(value)?.ok_or("put needs a value")? }
        }
        ("kv", "get" | "get_local") => Op::Get { key: key()?, local: f == "get_local" },
        ("kv", "del") => Op::Delete { key: key()? },
        ("kv", "cas") => {
            Op::Cas { key: key()?, old: read_value(pair()?.0)?, new: read_value(pair()?.1)? }
        }
        ("kv", "cas_rev") => Op::CasRev {
            key: key()?,
            revision: pair()?.0.as_u64().ok_or("cas_rev needs a revision")?,
            new: read_value(pair()?.1)?,
        },
        ("kv", "batch") => Op::Batch { changes: read_changes(value)? },
        ("kv", "scan" | "scan_local") => read_scan(value, f == "scan_local")?,
        _ => Op::Other {
            w: w.to_owned(),
            f: f.to_owned(),
            key: fields.get("key").cloned().unwrap_or_default(),
            value: value.clone(),
        },
    };
    one_partition(&op)?;
    Ok(op)
}

fn read_changes(value: &Json) -> Result<Vec<(Key, Option<Value>)>, String> {
    let changes = value.as_array().ok_or("batch needs a list of changes")?;
    let read = |change: &Json| match change.as_array().map(Vec::as_slice) {
        Some([verb, key, value]) if verb == "put" => Ok((read_key(key)?, read_value(value)?)),
        Some([verb, key]) if verb == "del" => Ok((read_key(key)?, None)),
        _ => Err(format!("{change} is no change of a batch")),
    };
    changes.iter().map(read).collect()
}

fn read_scan(value: &Json, local: bool) -> Result<Op, String> {
    let optional = |name: &str| match value.get(name) {
        None | Some(Json::Null) => Ok(None),
        Some(key) => read_key(key).map(Some),
    };
    Ok(Op::Scan {
        from: optional("from")?.ok_or("scan needs a first key")?,
        to: optional("to")?,
        limit: value.get("limit").and_then(Json::as_u64).unwrap_or(u64::MAX),
        reverse: value.get("reverse") == Some(&Json::Bool(true)),
        local,
    })
}

fn one_partition(op: &Op) -> Result<(), String> {
    let partitions: Vec<&str> = match op {
        Op::Batch { changes } => changes.iter().map(|(key, _)| key.partition()).collect(),
        Op::Scan { from, to: Some(to), .. } => vec![from.partition(), to.partition()],
        Op::Put { .. }
        | Op::Get { .. }
        | Op::Delete { .. }
        | Op::Cas { .. }
        | Op::CasRev { .. }
        | Op::Scan { .. }
        | Op::Other { .. } => Vec::new(),
    };
    if partitions.windows(2).any(|pair| pair[0] != pair[1]) {
        return Err(format!("\"{op}\" spans partitions"));
    }
    Ok(())
}

fn read_done(op: &Op, fields: &Map<String, Json>) -> Result<Done, String> {
    let value = fields.get("value").unwrap_or(&Json::Null);
    let revision = fields.get("rev").and_then(Json::as_u64);
    let truth = |value: &Json| value.as_bool().ok_or(format!("{value} is not true or false"));
    match op {
        Op::Put { .. } => Ok(Done::Written { revision }),
        Op::Batch { .. } => Ok(Done::Written { revision: value.as_u64() }),
        Op::Get { .. } => Ok(Done::Value(read_value(value)?.map(|v| (v, revision)))),
        Op::Delete { .. } => {
            Ok(Done::Deleted { existed: fields.get("existed").and_then(Json::as_bool), revision })
        }
        Op::Cas { .. } => Ok(Done::Compared { swapped: truth(value)?, revision }),
        Op::CasRev { .. } => Ok(Done::Compared {
            swapped: truth(value.get("ok").unwrap_or(&Json::Null))?,
            revision: value.get("rev").and_then(Json::as_u64),
        }),
        Op::Scan { from, limit, .. } => read_page(from, *limit, value, fields),
        Op::Other { .. } => Ok(Done::Other(value.clone())),
    }
}

fn read_page(
    from: &Key,
    limit: u64,
    value: &Json,
    fields: &Map<String, Json>,
) -> Result<Done, String> {
    let pairs = value.as_array().ok_or("a scan answers a list")?;
    let revisions = fields.get("revs").and_then(Json::as_array);
    let mut items = Vec::with_capacity(pairs.len());
    for (at, pair) in pairs.iter().enumerate() {
        let Some([key, value]) = pair.as_array().map(Vec::as_slice) else {
            return Err(format!("{pair} is no item of a scan"));
        };
        let key = read_key(key)?;
        if key.partition() != from.partition() {
            return Err(format!("{key} is not of the partition that was scanned"));
        }
        let value = read_value(value)?.ok_or("an item of a scan has a value")?;
        let revision = revisions.and_then(|list| list.get(at)?.as_u64());
        items.push((key, value, revision));
    }
    let full = u64::try_from(items.len()).expect("usize has 64 bits") >= limit;
    Ok(Done::Page {
        items,
        more: fields.get("more").and_then(Json::as_bool).unwrap_or(full),
        revision: fields.get("rev").and_then(Json::as_u64),
    })
}

fn read_key(key: &Json) -> Result<Key, String> {
    match key {
        Json::String(key) => Ok(Key::parse(key)),
        Json::Number(key) => Ok(Key::parse(&key.to_string())),
        other @ (Json::Null | Json::Bool(_) | Json::Array(_) | Json::Object(_)) => {
            Err(format!("{other} is no key"))
        }
    }
}

fn read_value(value: &Json) -> Result<Option<Value>, String> {
    match value {
        Json::Null => Ok(None),
        Json::String(value) => Ok(Some(Value::from(value.as_str()))),
        Json::Number(number) => Ok(Some(match number.as_u64() {
            Some(number) => Value::Number(number),
            None => Value::from(number.to_string().as_str()),
        })),
        Json::Bool(_) | Json::Array(_) | Json::Object(_) => Err(format!("{value} is no value")),
    }
}

fn text<'a>(fields: &'a Map<String, Json>, name: &str) -> Result<&'a str, String> {
    let field = fields.get(name).and_then(Json::as_str);
    field.ok_or_else(|| format!("no text in the field {name:?}"))
}

fn number(fields: &Map<String, Json>, name: &str) -> Result<u64, String> {
    let field = fields.get(name).and_then(Json::as_u64);
    field.ok_or_else(|| format!("no number in the field {name:?}"))
}
