//! `ring bench`: what a cluster does for one client process with many calls in flight.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use libring::{Bytes, Change, Error, Failure, Node, Partition};
use ring_core::rng::Rng;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::args::{Bench, Common, Mix};
use crate::connect::connect;
use crate::out;
use crate::stop::{Code, Stop};

/// Fills what is to be read, warms up, measures and tells.
pub(crate) async fn run(common: &Common, args: &Bench) -> Result<(), Stop> {
    let node = connect(common, common.timeout_or(Duration::from_secs(10))).await?;
    let load = Arc::new(Load::new(&node, args));
    if args.mix.puts_percent < 100 {
        load.fill().await?;
    }
    let start = Instant::now();
    let from = start + Duration::from_secs(args.warmup);
    let window = Window { from, to: from + Duration::from_secs(args.seconds) };
    let mut callers = JoinSet::new();
    for number in 0..args.callers {
        callers.spawn(Arc::clone(&load).call_until_end(number, window));
    }
    tokio::select! {
        () = show_progress(&load, start, window.to) => {}
        _ = tokio::signal::ctrl_c() => {
            return Err(Stop::new(Code::Unreachable, "interrupted before the end"));
        }
    }
    while let Some(caller) = callers.join_next().await {
        caller.map_err(|e| Stop::new(Code::Io, format!("a caller failed: {e}")))?;
    }
    load.report(common, args)
}

/// When calls count.
#[derive(Clone, Copy, Debug)]
struct Window {
    from: Instant,
    to: Instant,
}

/// The calls to make, and what became of them.
struct Load {
    partitions: Vec<Partition>,
    keys: u64,
    mix: Mix,
    value_size: usize,
    /// Values are slices of this, so that making one costs nothing.
    noise: Bytes,
    /// Several, so that callers do not wait for each other.
    tallies: Vec<Mutex<Tally>>,
    done: AtomicU64,
}

/// What became of calls.
#[derive(Debug)]
struct Tally {
    puts: Kind,
    gets: Kind,
    errors: BTreeMap<&'static str, u64>,
}

/// Calls of one kind.
#[derive(Debug)]
struct Kind {
    /// Calls that ended well within the window.
    count: u64,
    /// Microseconds, of these and of those still under way when the window closed: a stall at its
    /// end shows.
    latency: Histogram<u64>,
}

impl Load {
    fn new(node: &Node, args: &Bench) -> Self {
        let mut dice = Rng::new(0);
        let noise: Vec<u8> =
            (0..args.value_size + NOISE_OFFSETS).map(|_| dice.next().to_be_bytes()[0]).collect();
        Self {
            partitions: (0..args.partitions.min(args.key_count))
                .map(|number| node.partition(&format!("bench-{number}")))
                .collect(),
            keys: args.key_count,
            mix: args.mix,
            value_size: args.value_size,
            noise: Bytes::from(noise),
            tallies: (0..TALLIES).map(|_| Mutex::new(Tally::new())).collect(),
            done: AtomicU64::new(0),
        }
    }

    /// Writes every key once, so that gets find something.
    async fn fill(self: &Arc<Self>) -> Result<(), Stop> {
        let bar = bar(self.keys, "filling {bar:40} {pos}/{len} keys");
        let mut fillers = JoinSet::new();
        for number in 0..self.partitions.len() {
            fillers.spawn(Arc::clone(self).fill_partition(number, bar.clone()));
        }
        while let Some(filled) = fillers.join_next().await {
            let filled =
                filled.map_err(|e| Stop::new(Code::Io, format!("a caller failed: {e}")))?;
            filled.map_err(|e| Stop::call("filling the keys", &e))?;
        }
        bar.finish_and_clear();
        Ok(())
    }

    async fn fill_partition(self: Arc<Self>, number: usize, bar: ProgressBar) -> Result<(), Error> {
        let mut dice = Rng::new(ring_core::ids::len_u64(number));
        let most = (FILL_BYTES / (self.value_size + 64)).clamp(1, 1000);
        let mut changes = Vec::new();
        let own = (ring_core::ids::len_u64(number)..self.keys).step_by(self.partitions.len());
        for key in own {
            changes.push(Change { key: key_name(key), value: Some(self.value(&mut dice)) });
            if changes.len() == most {
                bar.inc(ring_core::ids::len_u64(most));
                self.partitions[number].batch(std::mem::take(&mut changes)).await?;
            }
        }
        if !changes.is_empty() {
            bar.inc(ring_core::ids::len_u64(changes.len()));
            self.partitions[number].batch(changes).await?;
        }
        Ok(())
    }

    /// One caller: one call after another.
    async fn call_until_end(self: Arc<Self>, number: u32, window: Window) {
        let mut dice = Rng::new(u64::from(number));
        let place = usize::try_from(number).unwrap_or(0) % self.tallies.len();
        while Instant::now() < window.to {
            let key = dice.below(self.keys);
            let partition = &self.partitions[self.place(key)];
            let is_put = dice.below(100) < self.mix.puts_percent;
            let began = Instant::now();
            let result = if is_put {
                let value = self.value(&mut dice);
                partition.put(key_name(key), value).await.map(drop)
            } else {
                partition.get(key_name(key)).await.map(drop)
            };
            let ended = Instant::now();
            if ended < window.from {
                continue;
            }
            self.done.fetch_add(1, Ordering::Relaxed);
            let mut tally = self.tallies[place].lock().unwrap_or_else(PoisonError::into_inner);
            tally.note(is_put, result, ended - began, ended < window.to);
        }
    }

    /// The partition that holds a key.
    fn place(&self, key: u64) -> usize {
        let place = key % ring_core::ids::len_u64(self.partitions.len());
        ring_core::ids::len_usize(place)
    }

    fn value(&self, dice: &mut Rng) -> Bytes {
        let most = ring_core::ids::len_u64(NOISE_OFFSETS);
        let from = ring_core::ids::len_usize(dice.below(most));
        self.noise.slice(from..from + self.value_size)
    }

    fn report(&self, common: &Common, args: &Bench) -> Result<(), Stop> {
        let mut total = Tally::new();
        for tally in &self.tallies {
            total.add(&tally.lock().unwrap_or_else(PoisonError::into_inner));
        }
        if common.json {
            out::json(&total.json(args))?;
        } else {
            out::write(total.text(args).as_bytes())?;
        }
        if total.puts.count + total.gets.count == 0 {
            return Err(Stop::new(Code::Unreachable, "not one call succeeded"));
        }
        Ok(())
    }
}

impl Tally {
    fn new() -> Self {
        Self { puts: Kind::new(), gets: Kind::new(), errors: BTreeMap::new() }
    }

    fn note(&mut self, is_put: bool, result: Result<(), Error>, took: Duration, in_window: bool) {
        let kind = if is_put { &mut self.puts } else { &mut self.gets };
        match result {
            Ok(()) => {
                kind.count += u64::from(in_window);
                let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
                kind.latency.saturating_record(micros);
            }
            Err(error) => *self.errors.entry(error_kind(&error)).or_default() += 1,
        }
    }

    fn add(&mut self, other: &Self) {
        self.puts.add(&other.puts);
        self.gets.add(&other.gets);
        for (kind, count) in &other.errors {
            *self.errors.entry(kind).or_default() += count;
        }
    }

    fn kinds(&self) -> impl Iterator<Item = (&'static str, &Kind)> {
        [("put", &self.puts), ("get", &self.gets)]
            .into_iter()
            .filter(|(_, kind)| !kind.latency.is_empty())
    }

    fn text(&self, args: &Bench) -> String {
        let rows = self.kinds().map(|(name, kind)| {
            let mut row = vec![
                String::from(name),
                kind.count.to_string(),
                (kind.count / args.seconds).to_string(),
            ];
            row.extend(kind.percentiles().iter().map(|(_, micros)| millis(*micros)));
            row
        });
        let mut text = format!(
            "{} calls in flight for {} s, values of {} bytes, {} keys in {} partitions\n\n",
            args.callers,
            args.seconds,
            args.value_size,
            args.key_count,
            args.partitions.min(args.key_count)
        );
        text.push_str(&out::table(
            &["CALL", "COUNT", "PER_SECOND", "P50", "P90", "P99", "P99.9", "MAX"],
            rows.collect(),
        ));
        for (kind, count) in &self.errors {
            text.push_str(&format!("errors: {kind}: {count}\n"));
        }
        if self.errors.is_empty() {
            text.push_str("no errors\n");
        }
        text
    }

    fn json(&self, args: &Bench) -> Value {
        let mut report = json!({
            "callers": args.callers,
            "seconds": args.seconds,
            "value_size": args.value_size,
            "keys": args.key_count,
            "partitions": args.partitions.min(args.key_count),
            "errors": self.errors,
        });
        for (name, kind) in self.kinds() {
            let mut told = json!({ "count": kind.count, "per_second": kind.count / args.seconds });
            for (percentile, micros) in kind.percentiles() {
                told[format!("{percentile}_us")] = Value::from(micros);
            }
            report[name] = told;
        }
        report
    }
}

impl Kind {
    fn new() -> Self {
        // Up to an hour, to three digits.
        let latency = Histogram::new_with_bounds(1, 3_600_000_000, 3);
        Self { count: 0, latency: latency.expect("the bounds are in order") }
    }

    fn add(&mut self, other: &Self) {
        self.count += other.count;
        self.latency.add(&other.latency).expect("all have the same bounds");
    }

    fn percentiles(&self) -> [(&'static str, u64); 5] {
        [
            ("p50", self.latency.value_at_quantile(0.5)),
            ("p90", self.latency.value_at_quantile(0.9)),
            ("p99", self.latency.value_at_quantile(0.99)),
            ("p999", self.latency.value_at_quantile(0.999)),
            ("max", self.latency.max()),
        ]
    }
}

/// Draws how far it is, until the end.
async fn show_progress(load: &Load, start: Instant, end: Instant) {
    let seconds = (end - start).as_secs();
    let bar = bar(seconds, "{bar:40} {pos}/{len} s  {msg}");
    let mut every = tokio::time::interval(Duration::from_millis(250));
    let mut before = 0;
    while Instant::now() < end {
        every.tick().await;
        let done = load.done.load(Ordering::Relaxed);
        bar.set_position(start.elapsed().as_secs());
        bar.set_message(format!("{} calls/s", (done - before) * 4));
        before = done;
    }
    bar.finish_and_clear();
}

/// A progress bar on stderr; an invisible one when nobody looks.
fn bar(len: u64, template: &str) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template(template).expect("the templates stand in this file");
    ProgressBar::with_draw_target(Some(len), ProgressDrawTarget::stderr()).with_style(style)
}

fn key_name(key: u64) -> Bytes {
    Bytes::from(format!("key-{key:010}"))
}

fn millis(micros: u64) -> String {
    format!("{}.{:02}ms", micros / 1000, micros % 1000 / 10)
}

fn error_kind(error: &Error) -> &'static str {
    match error {
        Error::Refused(_) | Error::Leave(_) | Error::Track(_) => "refused",
        Error::Request(failure) if failure.is_outcome_unknown() => "outcome unknown",
        Error::Request(_) => "request failed",
        Error::Failed(Failure::Deadline) => "deadline, did not happen",
        Error::Failed(Failure::OutcomeUnknown) => "outcome unknown",
        Error::Failed(Failure::Interrupted) => "interrupted",
        Error::Failed(Failure::Malformed) => "malformed",
        Error::Failed(Failure::Closed { .. }) => "closed",
    }
}

const TALLIES: usize = 8;
const NOISE_OFFSETS: usize = 4096;
const FILL_BYTES: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_several_callers_saw_adds_up() {
        let mut total = Tally::new();
        for took in [1, 3] {
            let mut tally = Tally::new();
            tally.note(true, Ok(()), Duration::from_millis(took), true);
            tally.note(false, Ok(()), Duration::from_millis(took), false);
            tally.note(false, Err(Error::Failed(Failure::Deadline)), Duration::ZERO, true);
            total.add(&tally);
        }
        assert_eq!((total.puts.count, total.gets.count), (2, 0));
        assert_eq!(total.gets.latency.len(), 2, "late calls show in the percentiles");
        assert_eq!(total.puts.latency.max() / 100, 30);
        assert_eq!(total.errors, [("deadline, did not happen", 2)].into());
    }

    #[test]
    fn dice_differ_by_stream_and_stay_below() {
        let (mut a, mut b) = (Rng::new(0), Rng::new(1));
        assert_ne!(a.next(), b.next());
        assert!((0..1000).all(|_| a.below(7) < 7));
    }
}
