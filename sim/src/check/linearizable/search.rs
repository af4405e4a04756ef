//! The search for a legal order: depth first, one operation after the other, as in Wing and Gong,
//! "Testing and verifying concurrent objects" (1993), with Lowe's memory of configurations that
//! lead nowhere ("Testing for linearizability", 2017). Four reductions, none of which loses an
//! order that others could not replace:
//!
//! 1. A read that fits now is placed now: it changes nothing, and placing it only widens what may
//!    come next.
//! 2. Writes whose revision is known are placed in the order of revisions.
//! 3. A write without a known outcome is placed only right before an operation that depends on it.
//!    (Any legal order can be brought into this form: such a write has no deadline, so it can move
//!    towards the end until the next operation that looks at its key; if that one overwrites the
//!    key unseen, the write can be left out.) Writes of several keys are exempt: they are tried
//!    everywhere, last.
//! 4. A dead configuration also condemns those with the same writes and state, no more reads placed
//!    and no fewer unknown writes spent.

use std::collections::HashMap;

use super::tasks::{ABSENT, NEVER, Task, UNSEEN, Want};

/// How a search ended.
#[derive(Debug)]
pub(super) enum Found {
    /// A legal order exists.
    Order,
    /// None exists.
    Stuck(Stuck),
    /// The budget is spent.
    Exhausted,
}

/// The furthest that any order came.
#[derive(Debug, Default)]
pub(super) struct Stuck {
    /// Operations placed.
    pub(super) placed: usize,
    /// The task that has to come next and cannot.
    pub(super) blocked: Option<usize>,
    /// The values of the keys that it looks at, at that point.
    pub(super) state: Vec<(usize, u32)>,
}

/// Most dead configurations remembered of one kind.
const DEAD_MAX: usize = 64;

/// Looks for a legal order of `tasks` over `keys` keys, in at most `budget` steps (each places one
/// write).
pub(super) fn search(tasks: &[Task], keys: usize, budget: u64) -> Found {
    Search::new(tasks, keys).run(budget)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cell {
    value: u32,
    revision: u64,
}

struct Search<'t> {
    tasks: &'t [Task],
    /// Mandatory tasks by invocation.
    order: Vec<usize>,
    /// Everything in `order` before this is placed.
    low: usize,
    /// Tasks with a known revision, in its order, and how many are placed.
    ranked: Vec<usize>,
    rank: usize,
    /// Unknown writes of one key, by key, and of several keys; by invocation.
    single: Vec<Vec<usize>>,
    several: Vec<usize>,
    state: Vec<Cell>,
    /// Keys whose last write is unknown and not yet looked at (reduction 3).
    dirty: Vec<usize>,
    placed: Bits,
    placed_count: usize,
    reads: Bits,
    writes: Bits,
    unknown: Bits,
    hash: u64,
    dead: HashMap<u64, Vec<Dead>>,
    undo: Vec<Undo>,
    frames: Vec<Frame>,
    stuck: Stuck,
}

struct Frame {
    /// What can be placed here; taken from the end.
    choices: Vec<usize>,
    /// How long `undo` was before the choice.
    mark: usize,
}

enum Undo {
    Placed { task: usize, low: usize },
    Rank,
    Cell { key: usize, cell: Cell },
    Dirty(Vec<usize>),
}

struct Dead {
    placed: Bits,
    state: Vec<Cell>,
    dirty: Vec<usize>,
}

impl<'t> Search<'t> {
    fn new(tasks: &'t [Task], keys: usize) -> Self {
        let mut order: Vec<usize> = (0..tasks.len()).filter(|&t| tasks[t].mandatory).collect();
        order.sort_by_key(|&t| tasks[t].invoked);
        let mut ranked = order.clone();
        ranked.retain(|&t| tasks[t].revision != UNSEEN);
        ranked.sort_by_key(|&t| tasks[t].revision);
        let mut optional: Vec<usize> = (0..tasks.len()).filter(|&t| !tasks[t].mandatory).collect();
        optional.sort_by_key(|&t| tasks[t].invoked);
        let mut single = vec![Vec::new(); keys];
        let mut several = Vec::new();
        for &task in &optional {
            match tasks[task].writes.as_slice() {
                [(key, _)] => single[*key].push(task),
                _ => several.push(task),
            }
        }
        let bits = |keep: &dyn Fn(&Task) -> bool| {
            let mut bits = Bits::new(tasks.len());
            for (at, task) in tasks.iter().enumerate() {
                if keep(task) {
                    bits.set(at);
                }
            }
            bits
        };
        let empty = Cell { value: ABSENT, revision: UNSEEN };
        Self {
            order,
            low: 0,
            ranked,
            rank: 0,
            single,
            several,
            state: vec![empty; keys],
            dirty: Vec::new(),
            placed: Bits::new(tasks.len()),
            placed_count: 0,
            reads: bits(&|task| task.mandatory && task.writes.is_empty()),
            writes: bits(&|task| task.mandatory && !task.writes.is_empty()),
            unknown: bits(&|task| !task.mandatory),
            hash: 0,
            dead: HashMap::new(),
            undo: Vec::new(),
            frames: Vec::new(),
            stuck: Stuck::default(),
            tasks,
        }
    }

    fn run(mut self, budget: u64) -> Found {
        let mut steps = 0;
        let mut entering = true;
        loop {
            if entering {
                let mark = self.undo.len();
                self.place_reads();
                if self.low == self.order.len() {
                    return Found::Order;
                }
                let choices = if self.is_dead() { Vec::new() } else { self.choices() };
                self.frames.push(Frame { choices, mark });
            }
            let Some(frame) = self.frames.last_mut() else {
                return Found::Stuck(self.stuck);
            };
            let before = frame.mark;
            if let Some(task) = frame.choices.pop() {
                steps += 1;
                if steps > budget {
                    return Found::Exhausted;
                }
                // The frame's own reads stay; what the choice does is undone to here when it fails.
                let at = self.undo.len();
                self.place(task);
                self.frames.push(Frame { choices: Vec::new(), mark: at });
                entering = true;
            } else {
                self.bury();
                self.frames.pop();
                self.roll_back(before);
                // The frame below is the choice that led here: undo it as well.
                if let Some(choice) = self.frames.pop() {
                    self.roll_back(choice.mark);
                }
                entering = false;
            }
        }
    }

    fn place_reads(&mut self) {
        loop {
            let limit = self.limit();
            let mut found = None;
            for &task in &self.order[self.low..] {
                if self.tasks[task].invoked >= limit {
                    break;
                }
                if self.reads.has(task) && !self.placed.has(task) && self.fits(task) {
                    found = Some(task);
                    break;
                }
            }
            match found {
                Some(task) => self.place(task),
                None => return,
            }
        }
    }

    /// Nothing that was invoked after this can come next: an operation that is not placed had ended
    /// by then.
    fn limit(&self) -> u64 {
        let mut limit = NEVER;
        for &task in &self.order[self.low..] {
            if self.tasks[task].invoked >= limit {
                break;
            }
            if !self.placed.has(task) {
                limit = limit.min(self.tasks[task].deadline);
            }
        }
        limit
    }

    /// What may come next, the most promising last.
    fn choices(&mut self) -> Vec<usize> {
        let limit = self.limit();
        let mut direct = Vec::new();
        let mut blocked = Vec::new();
        for &task in &self.order[self.low..] {
            if self.tasks[task].invoked >= limit {
                break;
            }
            if self.placed.has(task) {
                continue;
            }
            if !self.fits(task) {
                blocked.push(task);
            } else if self.writes.has(task) {
                direct.push(task);
            }
        }
        self.note_stuck(limit);
        direct.retain(|&task| self.dirty.iter().all(|&key| self.looks_at(task, key)));
        let mut unknown = self.helpful(&blocked, limit);
        // Those that fit nowhere else first.
        unknown.sort_by_key(|&task| self.tasks[task].wants.is_empty());
        if self.dirty.is_empty() {
            for &task in &self.several {
                if self.tasks[task].invoked >= limit {
                    break;
                }
                if !self.placed.has(task) && self.fits(task) && self.changes(task) {
                    unknown.push(task);
                }
            }
        }
        // Taken from the end: known writes first, those with the earliest deadline before others.
        unknown.reverse();
        direct.sort_by_key(|&task| core::cmp::Reverse(self.tasks[task].deadline));
        unknown.append(&mut direct);
        unknown
    }

    /// Unknown writes of one key that help an operation that does not fit now (reduction 3).
    fn helpful(&self, blocked: &[usize], limit: u64) -> Vec<usize> {
        let mut found: Vec<usize> = Vec::new();
        for &task in blocked {
            let target = &self.tasks[task];
            if !self.in_rank(task) || !self.dirty.iter().all(|&key| self.looks_at(task, key)) {
                continue;
            }
            let missing = target.wants.iter().find(|(key, want)| {
                let cell = self.state[*key];
                !satisfied(cell, *want)
            });
            let Some(&(key, want)) = missing else {
                continue;
            };
            for &helper in &self.single[key] {
                let unknown = &self.tasks[helper];
                if unknown.invoked >= limit {
                    break;
                }
                if self.placed.has(helper)
                    || !self.fits(helper)
                    || !self.changes(helper)
                    || (self.dirty.contains(&key) && !self.looks_at(helper, key))
                    || found.iter().any(|&other| self.alike(other, helper))
                {
                    continue;
                }
                let after = Cell { value: unknown.writes[0].1, revision: UNSEEN };
                let chained = self.single[key].iter().any(|&next| {
                    next != helper
                        && !self.placed.has(next)
                        && self.tasks[next].wants.iter().any(|w| satisfied(after, w.1))
                });
                if chained || satisfied(after, want) {
                    found.push(helper);
                }
            }
        }
        found
    }

    fn alike(&self, one: usize, other: usize) -> bool {
        let (one, other) = (&self.tasks[one], &self.tasks[other]);
        one.writes == other.writes && one.wants == other.wants
    }

    fn looks_at(&self, task: usize, key: usize) -> bool {
        self.tasks[task].wants.iter().any(|&(other, _)| other == key)
    }

    fn changes(&self, task: usize) -> bool {
        let mut writes = self.tasks[task].writes.iter();
        writes.any(|&(key, value)| {
            let cell = self.state[key];
            cell.value != value || cell.revision != UNSEEN
        })
    }

    fn fits(&self, task: usize) -> bool {
        let wants = &self.tasks[task].wants;
        self.in_rank(task) && wants.iter().all(|&(k, want)| satisfied(self.state[k], want))
    }

    /// Whether the order of revisions allows a task now (reduction 2).
    fn in_rank(&self, task: usize) -> bool {
        let Task { revision, snapshot, .. } = self.tasks[task];
        let next = self.ranked.get(self.rank).copied();
        if revision != UNSEEN && next != Some(task) {
            return false;
        }
        let Some(snapshot) = snapshot else {
            return true;
        };
        let next = next.map_or(NEVER, |next| self.tasks[next].revision);
        let last = self.rank.checked_sub(1).map(|at| self.ranked[at]);
        let last = last.map_or(0, |last| self.tasks[last].revision);
        last <= snapshot && snapshot < next
    }

    fn place(&mut self, task: usize) {
        let this = &self.tasks[task];
        self.undo.push(Undo::Placed { task, low: self.low });
        self.placed.set(task);
        self.placed_count += 1;
        while self.order.get(self.low).is_some_and(|&t| self.placed.has(t)) {
            self.low += 1;
        }
        if self.dirty.iter().any(|&key| self.looks_at(task, key)) {
            self.undo.push(Undo::Dirty(self.dirty.clone()));
            let wants = &self.tasks[task].wants;
            self.dirty.retain(|key| wants.iter().all(|(other, _)| other != key));
        }
        if this.writes.is_empty() {
            return;
        }
        if this.mandatory {
            self.hash ^= mix(1, len(task), 0);
        } else if let [(key, _)] = this.writes.as_slice() {
            self.undo.push(Undo::Dirty(self.dirty.clone()));
            self.dirty.push(*key);
            self.dirty.sort_unstable();
        }
        if this.revision != UNSEEN {
            self.undo.push(Undo::Rank);
            self.rank += 1;
        }
        for &(key, value) in &this.writes {
            let revision = if value == ABSENT { UNSEEN } else { this.revision };
            let cell = self.state[key];
            self.undo.push(Undo::Cell { key, cell });
            self.set(key, Cell { value, revision });
        }
    }

    fn set(&mut self, key: usize, cell: Cell) {
        let part = |cell: Cell| mix(len(key) + 2, u64::from(cell.value), cell.revision);
        self.hash ^= part(self.state[key]) ^ part(cell);
        self.state[key] = cell;
    }

    fn roll_back(&mut self, mark: usize) {
        while self.undo.len() > mark {
            match self.undo.pop().expect("longer than the mark") {
                Undo::Placed { task, low } => {
                    self.placed.clear(task);
                    self.placed_count -= 1;
                    self.low = low;
                    if self.writes.has(task) {
                        self.hash ^= mix(1, len(task), 0);
                    }
                }
                Undo::Rank => self.rank -= 1,
                Undo::Cell { key, cell } => self.set(key, cell),
                Undo::Dirty(dirty) => self.dirty = dirty,
            }
        }
    }

    /// Whether a dead configuration condemns this one (reduction 4).
    fn is_dead(&self) -> bool {
        let Some(known) = self.dead.get(&self.hash) else {
            return false;
        };
        known.iter().any(|dead| {
            let words = 0..self.placed.0.len();
            dead.state == self.state
                && dead.dirty == self.dirty
                && words.into_iter().all(|at| {
                    let (then, now) = (dead.placed.0[at], self.placed.0[at]);
                    let (reads, unknown) = (self.reads.0[at], self.unknown.0[at]);
                    (then ^ now) & self.writes.0[at] == 0
                        && now & !then & reads == 0
                        && then & !now & unknown == 0
                })
        })
    }

    fn bury(&mut self) {
        if self.is_dead() {
            return;
        }
        let known = self.dead.entry(self.hash).or_default();
        // What is not remembered is only searched again; a longer list would cost more than it saves, and make the
        // budget of steps no bound of the time.
        if known.len() < DEAD_MAX {
            known.push(Dead {
                placed: self.placed.clone(),
                state: self.state.clone(),
                dirty: self.dirty.clone(),
            });
        }
    }

    fn note_stuck(&mut self, limit: u64) {
        if self.stuck.blocked.is_some() && self.placed_count <= self.stuck.placed {
            return;
        }
        let open = &self.order[self.low..];
        let mut open = open.iter().copied().filter(|&task| !self.placed.has(task));
        let blocked = open.find(|&task| self.tasks[task].deadline == limit);
        let mut state: Vec<(usize, u32)> = blocked.map_or_else(Vec::new, |task| {
            let wants = self.tasks[task].wants.iter();
            let missing = wants.filter(|&&(key, want)| !satisfied(self.state[key], want));
            missing.map(|&(key, _)| (key, self.state[key].value)).collect()
        });
        state.dedup();
        self.stuck = Stuck { placed: self.placed_count, blocked, state };
    }
}

fn satisfied(cell: Cell, want: Want) -> bool {
    match want {
        Want::Is(value) => cell.value == value,
        Want::IsNot(value) => cell.value != value,
        Want::Present => cell.value != ABSENT,
        Want::Revision(revision) => cell.value != ABSENT && cell.revision == revision,
        Want::NotRevision(revision) => cell.value == ABSENT || cell.revision != revision,
        Want::Unseen => cell.value != ABSENT && cell.revision == UNSEEN,
    }
}

#[derive(Clone, Debug)]
struct Bits(Vec<u64>);

impl Bits {
    fn new(len: usize) -> Self {
        Self(vec![0; len.div_ceil(64)])
    }

    fn has(&self, at: usize) -> bool {
        self.0[at / 64] & (1 << (at % 64)) != 0
    }

    fn set(&mut self, at: usize) {
        self.0[at / 64] |= 1 << (at % 64);
    }

    fn clear(&mut self, at: usize) {
        self.0[at / 64] &= !(1 << (at % 64));
    }
}

fn len(at: usize) -> u64 {
    u64::try_from(at).expect("usize has 64 bits")
}

/// A number that depends on all bits of the three (the finalizer of SplitMix64).
fn mix(a: u64, b: u64, c: u64) -> u64 {
    let mut x = 0;
    for part in [a, b, c] {
        x = (x ^ part).wrapping_add(0x9e37_79b9_7f4a_7c15);
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^= x >> 31;
    }
    x
}
