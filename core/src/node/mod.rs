//! One member: where the machines meet.
//!
//! | file | what it does |
//! |---|---|
//! | `mod.rs` | the node's state, birth and inputs |
//! | `alive.rs` | who is alive: the failure detector, and what is told of the others |
//! | `calls.rs` | the application's calls: limits, shards |
//! | `peers.rs` | connections, handshakes, founding, messages |
//! | `gather.rs` | members that found a cluster with whom they find |
//! | `groups.rs` | the replicas: their effects, reads, snapshots, cuts |
//! | `local.rs` | reads of what a replica has, and how stale they are |
//! | `ring.rs` | who owns a key |
//! | `requests.rs` | requests to owners and leaders |
//! | `transfer.rs` | how fast snapshots are sent |
//! | `turn.rs` | the end of a turn: timers, the log's batch, what is sent |
//! | `view.rs` | questions about the node |

mod alive;
mod calls;
mod directory;
mod gather;
mod groups;
mod local;
mod peers;
mod reads;
mod requests;
mod ring;
#[cfg(test)]
mod tests;
mod transfer;
mod turn;
mod view;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use self::reads::Reads;
use crate::config::{Config, ConfigError};
use crate::directory::{ChangeRefused, Director, DirectorSettings, Table};
use crate::founding::Founding;
use crate::gathering::Gathering;
use crate::genesis::Genesis;
use crate::group::Group;
use crate::ids::{Boot, CursorId, GroupId, LogSeq, MemberId, ReadId, RequestId};
use crate::io::{Event, Halt, Input, Output, Wakeup};
use crate::link::{Links, flap};
use crate::raft::message::{Beat, BeatAnswer};
use crate::request::Requests;
use crate::ring::RingView;
use crate::rng::Rng;
use crate::router::Router;
use crate::shard::command::Answer;
use crate::storage::record::{Checkpoint, GroupCheckpoint, Record};
use crate::storage::{Log, Recovered};
use crate::store::{StoreDone, StoreState};
use crate::time::{Instant, Now};
use crate::wire::message::{BeatOf, Message};
use alive::Alive;
use gather::Gathered;
use transfer::Transfers;

pub(crate) use local::Freshness;
pub use ring::Awaited;
pub use view::View;

/// What was durable when a member was started.
#[derive(Clone, Debug, Default)]
pub struct Restored {
    /// What the log says; the default for an empty directory.
    pub log: Recovered,
    /// Where the store stands, as [`crate::shard::Worker::states`] tells.
    pub store: Vec<StoreState>,
}

/// A member that cannot be started. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartError {
    /// The configuration cannot be used.
    Config(ConfigError),
    /// What is durable contradicts itself.
    Halt(Halt),
}

impl core::fmt::Display for StartError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Config(error) => error.fmt(f),
            Self::Halt(halt) => halt.fmt(f),
        }
    }
}

impl core::error::Error for StartError {}

/// One member of a cluster (or a client), as a state machine.
///
/// Invariants, checked by [`Node::check`]:
/// 1. Every group's own (see [`crate::raft::Raft`]), and those of links and calls.
/// 2. A promise is held under the last batch that has a record of its replica, and that batch is not stored.
/// 3. Only a founded node has groups; a client never has.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Node {
    config: Config,
    me: MemberId,
    boot: Boot,
    /// What was drawn at the starts before this one.
    earlier: Vec<u32>,
    birth: u64,
    started: Instant,
    rng: Rng,
    /// Members by id: name and address.
    members: BTreeMap<MemberId, (String, String)>,
    /// The starts in which peers were let in last.
    boots: BTreeMap<MemberId, Boot>,
    /// The batch with which the last of them is durable that is to be.
    boots_at: LogSeq,
    /// Members that joined and are not registered any more: their starts stay known. At most [`FORMER_MAX`].
    former: BTreeSet<MemberId>,
    founding: Founding,
    /// The batch that makes the genesis durable.
    genesis_at: Option<LogSeq>,
    /// While this member looks for others to found a cluster with.
    gathering: Option<Gathering>,
    gathered: Gathered,
    genesis: Option<Genesis>,
    log: Log,
    /// Nothing is said before this batch, which holds this start's counter, is durable.
    awake_at: Option<LogSeq>,
    links: Links,
    router: Router,
    groups: BTreeMap<GroupId, Group>,
    /// Where the store stood when this member was started.
    store: BTreeMap<GroupId, StoreState>,
    deadlines: BTreeSet<(Instant, GroupId)>,
    dirty: BTreeSet<GroupId>,
    touched: BTreeSet<GroupId>,
    records: Vec<Record>,
    /// Promises that wait for their batch.
    held: BTreeMap<LogSeq, Vec<(MemberId, Message)>>,
    /// Groups that wait for a batch.
    unstored: BTreeMap<LogSeq, BTreeSet<GroupId>>,
    /// Messages of this node to itself.
    local: VecDeque<Message>,
    beats: BTreeMap<MemberId, Vec<BeatOf<Beat>>>,
    beat_answers: BTreeMap<MemberId, Vec<BeatOf<BeatAnswer>>>,
    outputs: Pending,
    next_beat: Instant,
    next_hand_over: Instant,
    reads: Reads,
    next_read: ReadId,
    /// When the replicas ask how fresh they are.
    next_confirm: Instant,
    transfers: Transfers,
    /// Scans that the store may keep a snapshot for, and when they are given up.
    cursors: BTreeMap<CursorId, Instant>,
    /// Batches that are not stored, with their bytes.
    unstored_batches: VecDeque<(LogSeq, u64)>,
    unstored_bytes: u64,
    persist: Persist,
    /// Bytes of proposals that wait, over all groups, as each counted them at its last turn.
    proposals_bytes: usize,
    peer_faults: u64,
    halted: bool,
    /// The newest directory that this node was told of.
    table: Option<Table>,
    director: Director,
    /// The director has something to do.
    directory_due: bool,
    /// Numbers the node's own calls.
    next_own: u64,
    /// The call of its own whose answer the director waits for.
    own_asked: Option<RequestId>,
    /// Members that are connected, as they called themselves.
    guests: BTreeMap<MemberId, Guest>,
    /// Groups whose state the store has yet to forget.
    dropping: BTreeSet<GroupId>,
    /// Those of them for which the log has yet to say so durably, and in which batch it does.
    drops: VecDeque<(LogSeq, GroupId)>,
    departure: Departure,
    /// Why the directory did not let this member go the last time that it asked.
    stays: Option<ChangeRefused>,
    /// The application was told that this member, which joined, is up.
    is_up: bool,
    /// It was told that a majority is connected.
    is_ready: bool,
    /// More or fewer members are connected or registered than when that was counted.
    ready_due: bool,
    requests: Requests,
    ring: RingView,
    /// Other members are alive, or may be, than those of the ring.
    ring_due: bool,
    alive: Alive,
}

/// A member that is connected, as it called itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Guest {
    name: String,
    birth: u64,
    /// Which of its starts speaks.
    boot: Boot,
}

/// How far this member is on its way out of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Departure {
    /// It is one of the cluster's, or asks to be.
    Stays,
    /// It was told to go.
    Leaves {
        /// Also where members that are away must be given up for that.
        force: bool,
    },
    /// It holds nothing, and has said that it may be closed; it does not ask to be registered again.
    Left,
}

/// What this turn has produced so far.
#[derive(Clone, Debug, Default)]
struct Pending(Vec<Output>);

/// When the store is synced, so that the log can be cut.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
struct Persist {
    under_way: bool,
    /// The logs were cut in this turn.
    settling: bool,
    /// Bytes of the log's files after the last cut, with what was written once more for it: the next one waits for
    /// a segment more than that. (Counted before the cut, rewriting alone would ask for the next cut, without end.)
    log_bytes: u64,
    /// Bytes of entries in memory, over all groups.
    memory_bytes: usize,
    /// ... when it was last asked for.
    memory_mark: usize,
}

impl Node {
    /// A member rebuilt from what was durable, or a new one.
    ///
    /// # Errors
    /// [`StartError::Config`] names the field that cannot be used; [`StartError::Halt`] says how what is durable
    /// contradicts itself.
    pub fn new(
        config: Config,
        restored: Restored,
        seed: u64,
        now: Now,
    ) -> Result<Self, StartError> {
        calls::validate(&config).map_err(StartError::Config)?;
        let Restored { log: recovered, store } = restored;
        let mut rng = Rng::new(seed);
        let birth = if recovered.birth == 0 { rng.next().max(1) } else { recovered.birth };
        let (me, mut members) = whoami(&config, &recovered, birth, &mut rng);
        let gathering = gather::begin(&config, &recovered, me, birth, &rng);
        // What is only held while members gather is no cluster yet.
        let genesis = recovered.genesis.clone().filter(|_| gathering.is_none());
        members.extend(listed(&recovered, me));
        check_identity(&config, &recovered, me).map_err(StartError::Config)?;
        let clients = if config.client { 0 } else { config.limits.clients };
        let links = Links::new(config.timers.clone(), config.limits.strangers, clients);
        let router = Router::new(config.timers.clone(), &config.limits, rng.fork(1));
        let boot = recovered.boot.following(rng.next());
        let mut node = Self {
            me,
            boot,
            earlier: recovered.starts(),
            birth,
            started: now.instant,
            members,
            boots: recovered.peers.clone(),
            boots_at: LogSeq(0),
            former: directory::former(&recovered),
            founding: Founding::new(me, birth, genesis.clone(), recovered.founded),
            genesis_at: None,
            gathering,
            gathered: Gathered::default(),
            genesis,
            log: Log::new(&recovered.tail, config.limits.segment_bytes),
            awake_at: None,
            links,
            router,
            groups: BTreeMap::new(),
            store: store.into_iter().map(|state| (state.group, state)).collect(),
            deadlines: BTreeSet::new(),
            dirty: BTreeSet::new(),
            touched: BTreeSet::new(),
            records: Vec::new(),
            held: BTreeMap::new(),
            unstored: BTreeMap::new(),
            local: VecDeque::new(),
            beats: BTreeMap::new(),
            beat_answers: BTreeMap::new(),
            outputs: Pending::default(),
            next_beat: now.instant,
            next_hand_over: now.instant + config.timers.election_max,
            reads: Reads::default(),
            // Drawn: a late answer of the leader to this member's last life must find no read of this one.
            next_read: ReadId(rng.next() >> 2),
            next_confirm: now.instant,
            transfers: Transfers::new(config.limits.transfer_bytes),
            cursors: BTreeMap::new(),
            unstored_batches: VecDeque::new(),
            unstored_bytes: 0,
            persist: Persist::default(),
            proposals_bytes: 0,
            peer_faults: 0,
            halted: false,
            table: recovered.table.clone().map(|table| *table),
            director: director(&config),
            directory_due: false,
            next_own: rng.next() >> 8,
            own_asked: None,
            guests: BTreeMap::new(),
            dropping: BTreeSet::new(),
            drops: VecDeque::new(),
            departure: Departure::Stays,
            stays: None,
            is_up: recovered.founded,
            is_ready: false,
            ready_due: true,
            requests: Requests::new(me, boot, &config.limits, rng.fork(3)),
            ring: RingView::new(me, config.limits.tracks),
            ring_due: false,
            alive: Alive::default(),
            rng,
            config,
        };
        node.start(now.instant, recovered).map_err(StartError::Halt)?;
        Ok(node)
    }

    fn start(&mut self, now: Instant, recovered: Recovered) -> Result<(), Halt> {
        for address in self.config.join.clone() {
            self.links.add_target(now, None, address);
        }
        // Founders that were all given other addresses while they were down: nobody is where the directory says.
        let is_known = |address: &String| self.members.values().any(|(_, known)| known == address);
        let others = self.config.members.iter().filter(|(name, _)| *name != self.config.name);
        let moved: Vec<String> =
            others.map(|(_, at)| at.clone()).filter(|at| !is_known(at)).collect();
        for address in moved.into_iter().filter(|_| !self.config.client) {
            self.links.add_target(now, None, address);
        }
        if self.config.client {
            for (_, address) in self.config.members.clone() {
                self.links.add_target(now, None, address);
            }
            return Ok(());
        }
        if let Some(held) = self.gathering.as_ref().and_then(Gathering::written) {
            for founder in held.members.clone() {
                self.introduce(now, founder.address);
            }
        }
        // The first batch opens a segment and holds this start's counter; nothing is said before it is durable.
        // It tells what the log held so far; what the store knows beyond that follows in records of its own.
        let mut checkpoint = self.checkpoint();
        checkpoint.groups = self.recovered_groups(&recovered);
        self.log.open_segment(checkpoint);
        self.awake_at = Some(self.log.next_seq());
        if recovered.founded {
            self.restore_groups(now, recovered)?;
        }
        Ok(())
    }

    /// The groups as the log has them; none of them is in `self.groups` yet.
    fn recovered_groups(&self, recovered: &Recovered) -> Vec<GroupCheckpoint> {
        let groups = recovered.groups.iter().map(|(&group, log)| GroupCheckpoint {
            group,
            replica: log.replica,
            term: log.term,
            vote: log.vote,
            commit: log.commit,
            cut_index: log.cut_index,
            cut_term: log.cut_term,
            membership: log.membership.clone(),
            last_index: log.entries.last().map_or(log.cut_index, |entry| entry.index),
        });
        groups.collect()
    }

    /// The only way for the world to act on the node. Never fails, never blocks.
    pub fn handle(&mut self, now: Now, input: Input) {
        let now = now.instant;
        if self.halted {
            return;
        }
        match input {
            Input::Connected { conn, dial } => self.on_connected(now, conn, dial),
            Input::ConnectFailed { dial } => {
                let told = self.links.on_connect_failed(now, dial);
                self.outputs.0.extend(told.map(Output::Event));
            }
            Input::Message { conn, message } => self.on_message(now, conn, message),
            Input::Disconnected { conn } => self.on_disconnected(now, conn),
            Input::Datagram { from, bytes } => self.on_datagram(now, from, &bytes),
            // What is due is done at the end of every turn.
            Input::Wakeup => {}
            Input::Stored { upto } => self.on_stored(now, upto),
            Input::LogFailed { problem } => self.halt(Halt::Log { problem }),
            Input::Store(done) => self.on_store_done(now, done),
        }
    }

    /// The next deadline and why; cheap.
    #[must_use]
    pub fn wakeup(&self) -> Option<Wakeup> {
        use crate::io::Timer;
        if self.halted {
            return None;
        }
        if self.awake_at.is_some() {
            let call = self.router.expires().map(|at| (at, Timer::Call));
            let request = self.requests.expires().map(|at| (at, Timer::Request));
            let (at, timer) = [call, request].into_iter().flatten().min()?;
            return Some(Wakeup { at, timer });
        }
        let raft = self.deadlines.first().map(|&(at, group)| (at, Timer::Raft(group)));
        let beat = Some((self.next_beat, Timer::Beat));
        let link = self.links.deadline().map(|at| (at, Timer::Link));
        let call = self.router.deadline().map(|at| (at, Timer::Call));
        let request = self.requests.deadline().map(|at| (at, Timer::Request));
        let alive = self.alive.deadline().map(|at| (at, Timer::Membership));
        let transfer = self.transfers.deadline().map(|at| (at, Timer::Transfer));
        let all = [raft, beat, link, call, request, alive, transfer];
        let (at, timer) = all.into_iter().flatten().min()?;
        Some(Wakeup { at, timer })
    }

    /// Asserts the invariants of what the last turn touched.
    pub fn check(&self) {
        for id in &self.touched {
            if let Some(group) = self.groups.get(id) {
                group.check();
            }
        }
        self.links.check();
        self.router.check();
        self.alive.check();
        self.requests.check();
        let stored = self.log.stored();
        assert!(self.held.keys().all(|&seq| seq > stored), "2: a held promise is not stored");
        assert!(self.groups.is_empty() || self.founding.is_founded(), "3: founded");
    }

    fn halt(&mut self, reason: Halt) {
        if self.halted {
            return;
        }
        self.halted = true;
        self.router.close(&mut self.outputs.0);
        self.requests.close();
        self.outputs.0.extend(self.requests.effects().map(Output::Request));
        self.held.clear();
        self.records.clear();
        self.outputs.0.push(Output::Halt(reason));
    }

    fn event(&mut self, event: Event) {
        self.outputs.0.push(Output::Event(event));
    }

    fn on_store_done(&mut self, now: Instant, done: StoreDone) {
        match done {
            StoreDone::Dropped { group } => self.on_dropped(now, group),
            // What the store did before it forgot a group concerns nobody any more.
            StoreDone::Applied { group, .. }
            | StoreDone::Staged { group, .. }
            | StoreDone::InstallRefused { group, .. }
                if self.dropping.contains(&group) => {}
            StoreDone::Installed { state, .. } if self.dropping.contains(&state.group) => {}
            StoreDone::Applied { group, index, outcomes, digest, stamp } => {
                self.on_applied(group, index, outcomes, (digest, stamp));
            }
            StoreDone::Read { read, answer } => {
                if let Some(read) = self.reads.remove(read) {
                    let ends = !matches!(&answer, Answer::Page(page) if page.more);
                    if let Some(cursor) = read.cursor.filter(|_| ends) {
                        self.cursors.remove(&cursor);
                    }
                    let call = read.call;
                    let answer = if read.is_local {
                        let age = read.known.map(|known| duration_nanos(now.since(known)));
                        Message::LocalAnswer { call, answer, age }
                    } else {
                        Message::Answer { call, result: Ok(answer) }
                    };
                    self.send(read.asker, answer);
                }
            }
            StoreDone::Persisted { groups } => self.on_persisted(now, &groups),
            StoreDone::Loaded { id, chunk, data, last, state } => {
                self.transfers.on_loaded(now, data.len());
                self.on_group_of_snapshot(now, id, |raft, fx| {
                    raft.on_loaded(id, chunk, data, last, &state, fx);
                });
            }
            StoreDone::Staged { group, id, next } => {
                self.with_group(now, group, |group, fx| group.raft.on_staged(id, next, fx));
            }
            StoreDone::Installed { state, id: _ } => self.on_installed(now, &state),
            StoreDone::InstallRefused { group, id, problem: _ } => {
                self.with_group(now, group, |group, _| group.raft.on_install_refused(id));
            }
            StoreDone::Failed { problem } => self.halt(Halt::Store { problem }),
        }
    }

    /// Everything durable but the entries; opens a segment.
    fn checkpoint(&self) -> Checkpoint {
        let groups = self.groups.iter().map(|(&id, group)| {
            let log = group.raft.log();
            GroupCheckpoint {
                group: id,
                replica: group.raft.id(),
                term: group.raft.term(),
                vote: group.raft.vote(),
                commit: group.raft.commit(),
                cut_index: log.cut_index(),
                cut_term: log.cut_term(),
                membership: log.cut_membership().clone(),
                last_index: log.last_index(),
            }
        });
        Checkpoint {
            birth: self.birth,
            genesis: match &self.gathering {
                Some(gathering) => gathering.written().cloned(),
                None => self.founding.genesis().cloned(),
            },
            founded: self.founding.is_founded(),
            boot: self.boot,
            earlier: self.earlier.clone(),
            peers: self.boots.iter().map(|(&member, &boot)| (member, boot)).collect(),
            table: self.table.clone().map(Box::new),
            groups: groups.collect(),
        }
    }
}

fn duration_nanos(time: core::time::Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn director(config: &Config) -> Director {
    Director::new(DirectorSettings {
        replace_after: config.timers.replace_after,
        name_after: flap(&config.timers),
        moving_max: config.limits.moves,
        members_max: config.limits.members,
    })
}

/// Where the members were last, whoever they are by now; a founder is where it was told to be now.
fn listed(
    recovered: &Recovered,
    me: MemberId,
) -> impl Iterator<Item = (MemberId, (String, String))> + '_ {
    let members = recovered.table.iter().flat_map(|table| &table.members);
    let listed = members
        .filter(move |member| !member.address.is_empty() && (member.id != me || me.is_joiner()));
    listed.map(|member| (member.id, (member.name.clone(), member.address.clone())))
}

/// This node's id, and the members that it knows of from the start. A founder is known by the birth that stands in the
/// genesis; whoever has another directory joined later. Founders that found each other have ids as if they joined.
fn whoami(
    config: &Config,
    recovered: &Recovered,
    birth: u64,
    rng: &mut Rng,
) -> (MemberId, BTreeMap<MemberId, (String, String)>) {
    if config.client {
        return (MemberId::client(rng.next()), BTreeMap::new());
    }
    let founders = recovered.genesis.as_ref().map(|genesis| &genesis.members);
    let founder = founders.and_then(|all| all.iter().find(|founder| founder.birth == birth));
    let joins = match &recovered.genesis {
        Some(_) => founder.is_none_or(|f| f.id.is_joiner()) && config.members.is_empty(),
        None => !config.join.is_empty() || config.expect.is_some(),
    };
    if joins {
        let all = founders.into_iter().flatten().filter(|_| recovered.founded);
        let members = all.map(|f| (f.id, (f.name.clone(), f.address.clone()))).collect();
        return (MemberId::joiner(birth), members);
    }
    let mut sorted: Vec<(String, String)> = config.members.clone();
    if sorted.is_empty() {
        sorted.push((config.name.clone(), config.address.clone()));
    }
    sorted.sort();
    let members: BTreeMap<MemberId, (String, String)> = (1..).map(MemberId).zip(sorted).collect();
    let mine = members.iter().find(|(_, (name, _))| *name == config.name);
    (*mine.expect("validated: the name is one of the members").0, members)
}

/// The directory must belong to this member of this cluster.
fn check_identity(config: &Config, recovered: &Recovered, me: MemberId) -> Result<(), ConfigError> {
    let Some(genesis) = &recovered.genesis else { return Ok(()) };
    let wrong = |field, problem| Err(ConfigError { field, problem });
    if genesis.name != config.cluster {
        let problem = format!(
            "the data directory belongs to cluster {:?}, not {:?}",
            genesis.name, config.cluster
        );
        return wrong("cluster", problem);
    }
    if me.is_joiner() {
        return Ok(());
    }
    let mine = genesis.members.iter().find(|founder| founder.birth == recovered.birth);
    if mine.is_some_and(|founder| founder.name == config.name && founder.id.is_joiner()) {
        let problem = "the founders of this cluster found each other (expect): give no list";
        return wrong("members", String::from(problem));
    }
    if mine.is_none_or(|founder| founder.name != config.name || founder.id != me) {
        let owner = mine.map_or("another", |founder| founder.name.as_str());
        let problem =
            format!("the data directory belongs to member {owner:?}, not {:?}", config.name);
        return wrong("name", problem);
    }
    let names: Vec<&str> = genesis.members.iter().map(|founder| founder.name.as_str()).collect();
    if !config.members.is_empty() {
        let mut configured: Vec<&str> = config.members.iter().map(|m| m.0.as_str()).collect();
        configured.sort_unstable();
        if configured != names {
            let problem = format!("the cluster was created with the members {names:?}");
            return wrong("members", problem);
        }
    } else if names.len() > 1 {
        return wrong("members", format!("the cluster was created with the members {names:?}"));
    }
    if genesis.shards != config.shards {
        let problem = format!("the cluster was created with {} shards", genesis.shards);
        return wrong("shards", problem);
    }
    if genesis.replication != config.replication {
        let problem = format!("the cluster was created with replication {}", genesis.replication);
        return wrong("replication", problem);
    }
    Ok(())
}

impl PartialEq for Pending {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Eq for Pending {}

/// Outputs are drained at the end of each turn, between which nodes are compared; they add nothing to a hash.
impl core::hash::Hash for Pending {
    fn hash<H: core::hash::Hasher>(&self, state: &mut H) {
        self.0.len().hash(state);
    }
}
