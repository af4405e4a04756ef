//! `ring dev`: a whole cluster in this process, on real sockets and disks.

use std::env;
use std::fs;
use std::io::{self, ErrorKind};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use libring::security::Role;
use libring::{Data, Event, Events, Halt, Node, Options};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::args::{Common, Dev, Names as KeyNames};
use crate::dev_state::{self, DevState, Found};
use crate::follow::{self, Leaders, Names};
use crate::keys;
use crate::out::{self, Watched};
use crate::serve::{Signals, log_to_stderr, read_keys};
use crate::stop::{Code, Stop, say};

/// Runs a cluster until it is told to stop or all its members have halted.
pub(crate) async fn run(common: &Common, args: &Dev) -> Result<(), Stop> {
    log_to_stderr(&args.log)?;
    let plan = Plan::new(common, args)?;
    let mut signals = Signals::new()?;
    let mut watched = Watched::default();
    watched.line(format!("starting {} ...", plan.describe()));

    let nodes = tokio::select! {
        nodes = open_all(&plan) => nodes?,
        () = signals.stop() => {
            watched.line("stopped before the cluster came up");
            return Ok(());
        }
    };
    let published = Published::new(&plan);
    let ready = plan.how_to_talk(published.is_found());

    let all_halted = tokio::select! {
        () = follow_all(&nodes, plan.shape.shards, ready, &mut watched) => true,
        () = signals.stop() => false,
    };
    drop(published);
    if all_halted {
        return Err(Stop::new(Code::Member, "all members have halted"));
    }
    watched.line("stopping ...");
    tokio::select! {
        closed = close_all(nodes) => closed?,
        () = signals.stop() => {
            return Err(Stop::new(Code::Member, "stopped before all members had closed"));
        }
    }
    watched.line(match &plan.data {
        Some(data) => format!(
            "stopped; the data is kept in {}, `ring dev` goes on from there",
            data.display()
        ),
        None => String::from("stopped; the data was in memory and is gone"),
    });
    Ok(())
}

/// What to start.
#[derive(Debug)]
struct Plan {
    shape: Shape,
    /// Absolute; none: in memory.
    data: Option<PathBuf>,
    /// The keys of all members; none: no TLS.
    keys: Option<PathBuf>,
}

/// What a dev cluster is made with and keeps for as long as its data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Shape {
    cluster: String,
    members: u16,
    port: u16,
    shards: u32,
}

impl Plan {
    /// From the command line and what the data directory was made with. Writes the directory only
    /// once the ports are known to be free.
    fn new(common: &Common, args: &Dev) -> Result<Self, Stop> {
        let wanted = |kept: Option<&Shape>| {
            let default = Options::default();
            Shape {
                cluster: common
                    .cluster
                    .clone()
                    .or_else(|| kept.map(|kept| kept.cluster.clone()))
                    .unwrap_or(default.cluster),
                members: args.members.or(kept.map(|kept| kept.members)).unwrap_or(3),
                port: args.port.or(kept.map(|kept| kept.port)).unwrap_or(4701),
                shards: args.shards.or(kept.map(|kept| kept.shards)).unwrap_or(default.shards),
            }
        };
        if args.memory {
            let shape = wanted(None);
            shape.check_ports()?;
            return Ok(Self { shape, data: None, keys: None });
        }
        let data = std::path::absolute(&args.data)
            .map_err(|e| Stop::io(format!("--data {}", args.data.display()), &e))?;
        let kept = Shape::read(&data)?;
        let shape = wanted(kept.as_ref());
        if let Some(kept) = &kept {
            shape.check_against(kept, &data)?;
        }
        shape.check_ports()?;
        if kept.is_none() {
            shape.write(&data).map_err(|e| {
                Stop::new(Code::Member, format!("cannot write {}: {e}", data.display()))
            })?;
        }
        let keys = if args.tls { Some(shape.keys(&data)?) } else { None };
        Ok(Self { shape, data: Some(data), keys })
    }

    fn options(&self) -> Result<Vec<Options>, Stop> {
        let members = self.shape.member_list();
        let keys = |name: &str| {
            let dir = self.keys.as_deref().map(|keys| keys::place(keys, Role::Member, name));
            dir.map(|dir| read_keys(&dir)).transpose()
        };
        let options = |(name, _): &(String, String)| {
            Ok(Options {
                name: name.clone(),
                cluster: self.shape.cluster.clone(),
                members: members.clone(),
                data: match &self.data {
                    Some(data) => Data::Dir(data.join(name)),
                    None => Data::Memory,
                },
                shards: self.shape.shards,
                keys: keys(name)?,
                ..Options::default()
            })
        };
        members.iter().map(options).collect()
    }

    /// The keys that clients of this cluster use.
    fn client_keys(&self) -> Option<PathBuf> {
        self.keys.as_deref().map(|keys| keys::place(keys, Role::Client, CLIENT))
    }

    fn addresses(&self) -> Vec<String> {
        self.shape.member_list().into_iter().map(|(_, address)| address).collect()
    }

    fn describe(&self) -> String {
        let place = match &self.data {
            Some(data) => format!("data in {}", data.display()),
            None => String::from("data in memory only"),
        };
        format!(
            "cluster \"{}\": {} at {}, {}, {place}{}",
            self.shape.cluster,
            out::count(usize::from(self.shape.members), "member"),
            self.addresses().join(" "),
            follow::count_shards(self.shape.shards),
            if self.keys.is_some() { ", TLS" } else { "" },
        )
    }

    /// Lines to paste into another shell. `found`: other commands find this cluster by themselves.
    fn how_to_talk(&self, found: bool) -> String {
        let ring = command_name();
        let mut flags = String::new();
        if !found {
            flags = format!(" --connect {}", self.addresses().join(","));
            if self.shape.cluster != Options::default().cluster {
                flags.push_str(&format!(" --cluster {}", self.shape.cluster));
            }
            if let Some(keys) = self.client_keys() {
                flags.push_str(&format!(" --keys {}", keys.display()));
            }
        }
        format!(
            "ready. Talk to it from another shell:\n\n  \
             {ring}{flags} kv put greeting hello\n  \
             {ring}{flags} kv get greeting\n  \
             {ring}{flags} kv scan\n  \
             {ring}{flags} status\n  \
             {ring}{flags} bench --seconds 5\n\n\
             Ctrl-C stops it. What happens:"
        )
    }
}

impl Shape {
    /// What the directory was made with; none if it is new or empty.
    fn read(data: &Path) -> Result<Option<Self>, Stop> {
        let path = data.join(SHAPE_FILE);
        let refuse = |why: String| {
            let text = format!(
                "{}: {why}; choose another --data directory, or remove this one",
                data.display()
            );
            Err(Stop::new(Code::Member, text))
        };
        match fs::read(&path) {
            Ok(text) => match serde_json::from_slice(&text) {
                Ok(shape) => Ok(Some(shape)),
                Err(e) => refuse(format!("its {SHAPE_FILE} is damaged ({e})")),
            },
            Err(e) if e.kind() == ErrorKind::NotFound => match fs::read_dir(data) {
                Ok(mut entries) => match entries.next() {
                    None => Ok(None),
                    Some(_) => refuse(String::from("not empty, and not made by `ring dev`")),
                },
                Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
                Err(e) => refuse(format!("cannot be read ({e})")),
            },
            Err(e) => refuse(format!("{SHAPE_FILE} cannot be read ({e})")),
        }
    }

    /// Whole or not at all; before any member writes.
    fn write(&self, data: &Path) -> io::Result<()> {
        fs::create_dir_all(data)?;
        let path = data.join(SHAPE_FILE);
        let aside = path.with_extension("json.new");
        let file = fs::File::create(&aside)?;
        serde_json::to_writer(&file, self)?;
        file.sync_all()?;
        fs::rename(&aside, &path)?;
        fs::File::open(data)?.sync_all()
    }

    /// The keys beside the data; made when they are not there.
    fn keys(&self, data: &Path) -> Result<PathBuf, Stop> {
        let dir = data.join(KEYS_DIR);
        if !dir.exists() {
            let names = KeyNames {
                members: self.member_list().into_iter().map(|(name, _)| name).collect(),
                clients: vec![CLIENT.into()],
                days: DEV_DAYS,
            };
            keys::make(&dir, &self.cluster, &names)?;
        }
        Ok(dir)
    }

    /// A cluster keeps what it was made with.
    fn check_against(&self, kept: &Self, data: &Path) -> Result<(), Stop> {
        let differing = [
            ("-n", kept.members.to_string(), self.members.to_string()),
            ("--port", kept.port.to_string(), self.port.to_string()),
            ("--shards", kept.shards.to_string(), self.shards.to_string()),
            ("--cluster", kept.cluster.clone(), self.cluster.clone()),
        ];
        match differing.into_iter().find(|(_, kept, wanted)| kept != wanted) {
            None => Ok(()),
            Some((flag, kept, wanted)) => Err(Stop::new(
                Code::Usage,
                format!(
                    "{} was made with {flag} {kept}, not {wanted}: leave {flag} out, or choose \
                     another --data directory",
                    data.display()
                ),
            )),
        }
    }

    /// Each port of the members must be free. Tried here so that one line can name all that are
    /// not.
    fn check_ports(&self) -> Result<(), Stop> {
        if self.port.checked_add(self.members - 1).is_none() {
            return Err(Stop::new(
                Code::Usage,
                format!("--port {}: no room for {} ports after it", self.port, self.members),
            ));
        }
        let mut taken = Vec::new();
        for (_, address) in self.member_list() {
            match TcpListener::bind(&address) {
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::AddrInUse => taken.push(address),
                Err(e) => {
                    return Err(Stop::new(
                        Code::Member,
                        format!("cannot listen on {address}: {e}"),
                    ));
                }
            }
        }
        if taken.is_empty() {
            return Ok(());
        }
        Err(Stop::new(
            Code::Member,
            format!(
                "{} already in use (another `ring dev`?): stop what listens there, or choose \
                 another --port (and --data)",
                taken.join(", ")
            ),
        ))
    }

    fn member_list(&self) -> Vec<(String, String)> {
        (0..self.members)
            .map(|k| {
                (format!("dev-{}", k + 1), format!("127.0.0.1:{}", self.port.saturating_add(k)))
            })
            .collect()
    }
}

/// The state file, as long as it is ours.
#[derive(Debug)]
struct Published(Option<(DevState, PathBuf)>);

impl Published {
    /// Tells other shells where the cluster is; tells the user when that cannot be.
    fn new(plan: &Plan) -> Self {
        let Some(path) = dev_state::path() else {
            say("neither XDG_STATE_HOME nor HOME is set: other commands need --connect");
            return Self(None);
        };
        if let Found::Running(other) = dev_state::find(&path) {
            say(&format!(
                "another `ring dev` runs (process {}): commands without --connect go there",
                other.pid
            ));
            return Self(None);
        }
        let cluster = plan.shape.cluster.clone();
        let state = DevState::of_this_process(
            cluster,
            plan.addresses(),
            plan.data.clone(),
            plan.client_keys(),
        );
        match state.write(&path) {
            Ok(()) => Self(Some((state, path))),
            Err(e) => {
                say(&format!(
                    "cannot write {} ({e}): other commands need --connect",
                    path.display()
                ));
                Self(None)
            }
        }
    }

    fn is_found(&self) -> bool {
        self.0.is_some()
    }
}

impl Drop for Published {
    fn drop(&mut self) {
        if let Some((state, path)) = &self.0
            && let Err(e) = state.remove(path)
        {
            say(&format!("cannot remove {}: {e}", path.display()));
        }
    }
}

/// Opens all members at once: none is up before a majority is there.
async fn open_all(plan: &Plan) -> Result<Vec<(String, Node)>, Stop> {
    let mut opening = JoinSet::new();
    for options in plan.options()? {
        opening.spawn(async move {
            let name = options.name.clone();
            match Node::open(options).await {
                Ok(node) => Ok((name, node)),
                Err(e) => Err(Stop::open(&format!("member \"{name}\""), &e)),
            }
        });
    }
    let mut nodes = Vec::new();
    while let Some(opened) = opening.join_next().await {
        nodes.push(opened.map_err(|e| Stop::new(Code::Member, format!("a member failed: {e}")))??);
    }
    nodes.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(nodes)
}

async fn close_all(nodes: Vec<(String, Node)>) -> Result<(), Stop> {
    let mut closing = JoinSet::new();
    for (name, node) in nodes {
        closing.spawn(async move {
            let closed = node.close().await;
            closed.map_err(|e| Stop::call(&format!("closing member \"{name}\""), &e))
        });
    }
    let mut result = Ok(());
    while let Some(closed) = closing.join_next().await {
        let closed = closed.map_err(|e| Stop::new(Code::Member, format!("a member failed: {e}")));
        result = result.and(closed.and_then(|closed| closed));
    }
    result
}

/// What a member's follower tells.
#[derive(Debug)]
enum News {
    Event { who: String, event: Event },
    Halted { who: String, halt: Halt },
}

/// Tells what happens to the members, until all have halted. Says that the cluster is `ready` when
/// every shard has a leader, so that what one types next works.
async fn follow_all(nodes: &[(String, Node)], shards: u32, ready: String, watched: &mut Watched) {
    let names = nodes.first().map_or_else(Names::default, |(_, node)| Names::of(&node.members()));
    let (tell, mut news) = mpsc::channel(256);
    let mut followers = JoinSet::new();
    for (name, node) in nodes {
        let events = node.events();
        followers.spawn(follow_one(name.clone(), node.clone(), events, tell.clone()));
    }
    drop(tell);
    let mut leaders = Leaders::default();
    let mut ready = Some(ready);
    // The first look is now: there were elections before anyone listened.
    let mut looked = false;
    let mut looks = tokio::time::interval(LOOK_AGAIN);
    loop {
        let next = tokio::select! {
            next = news.recv() => next,
            _ = looks.tick(), if ready.is_some() => {
                if std::mem::replace(&mut looked, true) {
                    watched.line(format!(
                        "electing leaders: {} of {} have one",
                        leaders.count(),
                        follow::count_shards(shards)
                    ));
                }
                note_present(nodes, &mut leaders).await;
                ready = ready.filter(|ready| !announce(ready, &leaders, shards, watched));
                continue;
            }
            () = tokio::time::sleep(follow::GATHER), if ready.is_none() && leaders.has_news() => {
                for line in leaders.tell(&names) {
                    watched.line(format!("  {line}"));
                }
                continue;
            }
        };
        match next {
            None => return,
            Some(News::Halted { who, halt }) => say(&format!("{who} has halted: {halt}")),
            Some(News::Event { event: Event::LeaderChanged { group, term, leader }, .. }) => {
                leaders.note(group, term, leader);
                ready = ready.filter(|ready| !announce(ready, &leaders, shards, watched));
            }
            Some(News::Event { event: Event::Up { .. }, .. }) => {}
            Some(News::Event { who, event }) => {
                if let Some(line) = follow::describe(&who, &event, &names) {
                    watched.line(format!("  {line}"));
                }
            }
        }
    }
}

/// Says that the cluster is ready, if it is.
fn announce(ready: &str, leaders: &Leaders, shards: u32, watched: &mut Watched) -> bool {
    let all = u32::try_from(leaders.count()) == Ok(shards);
    if all {
        watched.line(ready);
    }
    all
}

/// Who leads at present.
async fn note_present(nodes: &[(String, Node)], leaders: &mut Leaders) {
    for (_, node) in nodes {
        // A member that has halted since says so by itself.
        if let Ok(status) = node.status(node.whoami()).await {
            for replica in &status.groups {
                leaders.note(replica.group, replica.term, replica.leader);
            }
        }
    }
}

async fn follow_one(who: String, node: Node, mut events: Events, tell: mpsc::Sender<News>) {
    let halt = loop {
        let event = tokio::select! {
            halt = node.halted() => break halt,
            event = events.next() => event,
        };
        let Some(event) = event else {
            break node.halted().await;
        };
        let who = who.clone();
        if tell.send(News::Event { who, event }).await.is_err() {
            return;
        }
    };
    // Nobody listens any more only when the whole cluster is being stopped.
    drop(tell.send(News::Halted { who, halt }).await);
}

/// How the user called this command, so that pasted lines work.
fn command_name() -> String {
    let called = env::args().next().unwrap_or_default();
    if called.contains('/') { called } else { String::from("ring") }
}

/// How often leaders are looked for, and the wait explained, before the cluster is ready.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// Where the keys are, in the data directory.
const KEYS_DIR: &str = "keys";
/// The client that has keys.
const CLIENT: &str = "dev";
/// Long enough that nobody meets their end: they are for this machine only.
const DEV_DAYS: u32 = 3650;
const SHAPE_FILE: &str = "ring-dev.json";
