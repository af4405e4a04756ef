//! The load: callers that make one call after another, the same for every system.

use std::future::Future;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ring_core::rng::Rng;
use tokio::task::JoinSet;

/// What the load calls. A clone is one more handle to the same connections.
pub(crate) trait Client: Clone + Send + Sync + 'static {
    /// Writes, durably.
    fn put(&self, key: u64, value: Bytes) -> impl Future<Output = Result<(), String>> + Send;
    /// Reads the latest value; an error if there is none.
    fn get(&self, key: u64) -> impl Future<Output = Result<(), String>> + Send;
}

/// One kind of call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Call {
    Put,
    Get,
}

impl Call {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Get => "get",
        }
    }
}

/// What to do for how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) call: Call,
    pub(crate) callers: usize,
    pub(crate) keys: u64,
    pub(crate) value_bytes: usize,
    pub(crate) warmup: Duration,
    pub(crate) window: Duration,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    /// Calls that ended well in the window, and also those that were under way at its end: their
    /// times in µs, from least to most.
    micros: Vec<u32>,
    /// Calls that ended well in the window.
    pub(crate) done: u64,
    pub(crate) errors: u64,
    /// One of the errors.
    pub(crate) error: Option<String>,
}

impl Load {
    /// Writes every key once, so that reads find something.
    pub(crate) async fn fill(&self, client: &impl Client) -> Result<(), String> {
        let mut fillers = JoinSet::new();
        for first in (0..self.keys).take(self.callers) {
            let client = client.clone();
            let Self { callers, keys, value_bytes, .. } = *self;
            fillers.spawn(async move {
                let mut dice = Rng::new(first);
                for key in (first..keys).step_by(callers) {
                    client.put(key, value(&mut dice, value_bytes)).await?;
                }
                Ok(())
            });
        }
        while let Some(filled) = fillers.join_next().await {
            filled.map_err(|e| format!("a filler failed: {e}")).flatten()?;
        }
        Ok(())
    }

    /// Calls until the window ends. `edge` runs when it begins and when it ends.
    pub(crate) async fn run(&self, client: &impl Client, mut edge: impl FnMut()) -> Outcome {
        let from = Instant::now() + self.warmup;
        let to = from + self.window;
        let mut callers = JoinSet::new();
        for number in 0..self.callers {
            callers.spawn(self.call_until_end(number, client.clone(), from, to));
        }
        tokio::time::sleep_until(from.into()).await;
        edge();
        tokio::time::sleep_until(to.into()).await;
        edge();
        let mut total = Outcome::default();
        while let Some(outcome) = callers.join_next().await {
            match outcome {
                Ok(outcome) => total.add(outcome),
                Err(e) => total.fail(format!("a caller failed: {e}")),
            }
        }
        total.micros.sort_unstable();
        total
    }

    async fn call_until_end(
        self,
        number: usize,
        client: impl Client,
        from: Instant,
        to: Instant,
    ) -> Outcome {
        let mut dice = Rng::new(u64::try_from(number).unwrap_or(0));
        let mut outcome = Outcome::default();
        while Instant::now() < to {
            let key = dice.below(self.keys);
            let value = value(&mut dice, self.value_bytes);
            let began = Instant::now();
            let result = match self.call {
                Call::Put => client.put(key, value).await,
                Call::Get => client.get(key).await,
            };
            let ended = Instant::now();
            if ended < from {
                continue;
            }
            match result {
                Ok(()) => outcome.note(ended - began, ended < to),
                Err(error) => outcome.fail(error),
            }
        }
        outcome
    }
}

impl Outcome {
    fn note(&mut self, took: Duration, in_window: bool) {
        self.micros.push(u32::try_from(took.as_micros()).unwrap_or(u32::MAX));
        self.done += u64::from(in_window);
    }

    fn fail(&mut self, error: String) {
        self.errors += 1;
        self.error.get_or_insert(error);
    }

    fn add(&mut self, other: Self) {
        self.micros.extend(other.micros);
        self.done += other.done;
        self.errors += other.errors;
        self.error = self.error.take().or(other.error);
    }

    /// The time in µs within which so many of a thousand calls ended.
    pub(crate) fn permille(&self, permille: usize) -> u32 {
        let place = (self.micros.len() * permille).div_ceil(1000);
        self.micros.get(place.saturating_sub(1)).copied().unwrap_or(0)
    }
}

/// A value that a store cannot compress much, and that costs little to make.
fn value(dice: &mut Rng, bytes: usize) -> Bytes {
    let mut value = vec![0; bytes];
    for chunk in value.chunks_mut(8) {
        chunk.copy_from_slice(&dice.next().to_le_bytes()[..chunk.len()]);
    }
    Bytes::from(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_calls_seen() {
        let mut outcome = Outcome::default();
        assert_eq!(outcome.permille(990), 0);
        for micros in 1..=100 {
            outcome.note(Duration::from_micros(micros), micros != 100);
        }
        assert_eq!((outcome.permille(500), outcome.permille(990)), (50, 99));
        assert_eq!((outcome.permille(1000), outcome.done), (100, 99));
    }

    #[test]
    fn values_differ_and_have_their_size() {
        let mut dice = Rng::new(3);
        let (a, b) = (value(&mut dice, 61), value(&mut dice, 61));
        assert_eq!((a.len(), b.len()), (61, 61));
        assert_ne!(a, b);
    }
}
