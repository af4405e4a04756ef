//! `ring serve`: one member in this process.

use std::collections::BTreeMap;
use std::fs;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Duration;

use libring::{Data, Detector, Event, Halt, Keys, Node, OpenError, Options};
use serde::Deserialize;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tracing_subscriber::EnvFilter;

use crate::args::{self, Common, DetectorArgs, Log, Serve};
use crate::follow::{self, Leaders, Names, Repeats};
use crate::out::{self, Watched};
use crate::stop::{Code, Stop};

/// Runs a member until it is told to stop or halts.
pub(crate) async fn run(common: &Common, args: &Serve) -> Result<(), Stop> {
    log_to_stderr(&args.log)?;
    let options = options(common, args)?;
    let mut signals = Signals::new()?;
    let mut watched = Watched::default();
    let who = options.name.clone();
    watched.line(announcement(&options));

    let what = format!("member \"{who}\"");
    let Some(node) = open(options, &mut signals, &mut watched).await else {
        watched.line(format!("{who} stopped before its cluster came up"));
        return Ok(());
    };
    let node = node.map_err(|e| Stop::open(&what, &e))?;
    watched.line(format!(
        "{who} is up: {} of {}",
        node.whoami(),
        out::count(node.members().len(), "member")
    ));
    if let Some(address) = node.metrics_address() {
        watched.line(format!("{who} tells its metrics at http://{address}/metrics"));
    }

    let ended = tokio::select! {
        ended = follow_one(&node, &who, &mut watched) => ended,
        () = signals.stop() => None,
    };
    if let Some(halt) = ended {
        return Err(Stop::new(Code::Member, format!("{what} has halted: {halt}")));
    }
    watched.line(format!("{who} stops"));
    tokio::select! {
        closed = node.close() => closed.map_err(|e| Stop::call(&what, &e))?,
        () = signals.stop() => {
            return Err(Stop::new(Code::Member, format!("{what} was stopped before it had closed")));
        }
    }
    watched.line(format!("{who} has stopped"));
    Ok(())
}

/// Opens a member, and tells meanwhile whom it waits for to found a cluster, and who refuses what; none: it was told to stop.
async fn open(
    options: Options,
    signals: &mut Signals,
    watched: &mut Watched,
) -> Option<Result<Node, OpenError>> {
    let (tell, mut told) = mpsc::unbounded_channel();
    let who = options.name.clone();
    let listener = move |event| {
        let tells = matches!(
            event,
            Event::PeerRefused { .. } | Event::ChangeRefused { .. } | Event::Gathering { .. }
        );
        if tells {
            // When it is up nobody hears it any more.
            let _: Result<(), mpsc::error::SendError<Event>> = tell.send(event);
        }
    };
    let mut opening = std::pin::pin!(Node::open_listening(options, listener));
    let mut repeats = Repeats::default();
    loop {
        tokio::select! {
            biased;
            Some(event) = told.recv() => {
                if let Some(line) = repeats.line(&who, &event, &Names::default()) {
                    watched.line(line);
                }
            }
            opened = &mut opening => return Some(opened),
            () = signals.stop() => return None,
        }
    }
}

/// Tells what happens to a member, until it halts; none when it has left the cluster.
async fn follow_one(node: &Node, who: &str, watched: &mut Watched) -> Option<Halt> {
    let mut names = Names::of(&node.members());
    let mut events = node.events();
    let mut leaders = Leaders::default();
    let mut repeats = Repeats::default();
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            () = tokio::time::sleep(follow::GATHER), if leaders.has_news() => {
                for line in leaders.tell(&names) {
                    watched.line(line);
                }
                continue;
            }
        };
        match event {
            None => return Some(node.halted().await),
            Some(Event::LeaderChanged { group, term, leader }) => leaders.note(group, term, leader),
            // Said already, in more words.
            Some(Event::Up { .. }) => {}
            Some(event) => {
                if let Event::DirectoryChanged { table } = &event {
                    names = Names::of_table(table);
                }
                if let Some(line) = repeats.line(who, &event, &names) {
                    watched.line(line);
                }
                if event == Event::Left {
                    return None;
                }
            }
        }
    }
}

/// The two ways to be told to stop.
#[derive(Debug)]
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// From now on they do not end the process by themselves.
    pub(crate) fn new() -> Result<Self, Stop> {
        let listen = |kind| signal(kind).map_err(|e| Stop::io("cannot listen for signals", &e));
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    /// Resolves at the next Ctrl-C or SIGTERM.
    pub(crate) async fn stop(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Sends what the library logs to stderr.
pub(crate) fn log_to_stderr(log: &Log) -> Result<(), Stop> {
    let filter = EnvFilter::try_new(&log.log)
        .map_err(|e| Stop::new(Code::Usage, format!("--log \"{}\": {e}", log.log)))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    Ok(())
}

/// A configuration file: the flags' words.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: Option<String>,
    cluster: Option<String>,
    #[serde(default)]
    members: BTreeMap<String, String>,
    listen: Option<String>,
    data: Option<PathBuf>,
    #[serde(default)]
    memory: bool,
    keys: Option<PathBuf>,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    join: Vec<String>,
    expect: Option<u16>,
    metrics: Option<String>,
    #[serde(default)]
    tags: BTreeMap<String, String>,
    gossip: Option<bool>,
    replace_after: Option<String>,
    probe_interval: Option<String>,
    probe_timeout: Option<String>,
    suspicion_min: Option<u32>,
    suspicion_max: Option<u32>,
    sync_interval: Option<String>,
    advertise: Option<String>,
    weight: Option<u16>,
    shards: Option<u32>,
    replication: Option<u32>,
}

fn options(common: &Common, args: &Serve) -> Result<Options, Stop> {
    let file = match &args.config {
        Some(path) => read(path)?,
        None => File::default(),
    };
    let default = Options::default();
    let detector = detector(&args.detector, &file)?;
    // A flag for one kind of data overrides the file's other kind.
    let (data, memory) = match (&args.data, args.memory) {
        (None, false) => (file.data, file.memory),
        (data, memory) => (data.clone(), memory),
    };
    let data = match (data, memory) {
        (Some(dir), false) => Data::Dir(dir),
        (None, true) => Data::Memory,
        (None, false) => {
            return Err(Stop::new(
                Code::Usage,
                "configuration: data: missing; give --data DIR, or --memory to keep nothing",
            ));
        }
        (Some(_), true) => {
            return Err(Stop::new(
                Code::Usage,
                "configuration: data: given together with memory; choose one of the two",
            ));
        }
    };
    let members = if args.members.is_empty() {
        file.members.into_iter().collect()
    } else {
        args.members.clone()
    };
    let tags = match args.tags.is_empty() {
        true => file.tags.into_iter().collect(),
        false => args.tags.clone(),
    };
    let keys = common.keys.clone().or(file.keys);
    let mut timers = default.timers;
    let replace_after = time("replace_after", args.replace_after, file.replace_after.as_deref())?;
    if let Some(replace_after) = replace_after {
        timers.replace_after = replace_after;
    }
    Ok(Options {
        timers,
        detector,
        name: args.name.clone().or(file.name).unwrap_or(default.name),
        cluster: common.cluster.clone().or(file.cluster).unwrap_or(default.cluster),
        members,
        join: if args.join.is_empty() { file.join } else { args.join.clone() },
        expect: args.expect.or(file.expect),
        metrics: args.metrics.clone().or(file.metrics),
        tags,
        gossip: !args.no_gossip && file.gossip.unwrap_or(default.gossip),
        advertise: args.advertise.clone().or(file.advertise),
        weight: args.weight.or(file.weight).unwrap_or(default.weight),
        listen: args.listen.clone().or(file.listen),
        data,
        keys: keys.as_deref().map(read_keys).transpose()?,
        insecure: args.insecure || file.insecure,
        shards: args.shards.or(file.shards).unwrap_or(default.shards),
        replication: args.replication.or(file.replication).unwrap_or(default.replication),
        ..Options::default()
    })
}

fn detector(args: &DetectorArgs, file: &File) -> Result<Detector, Stop> {
    let default = Detector::default();
    let interval = time("probe_interval", args.probe_interval, file.probe_interval.as_deref())?;
    let timeout = time("probe_timeout", args.probe_timeout, file.probe_timeout.as_deref())?;
    let sync = time("sync_interval", args.sync_interval, file.sync_interval.as_deref())?;
    let (min, max) =
        (args.suspicion_min.or(file.suspicion_min), args.suspicion_max.or(file.suspicion_max));
    Ok(Detector {
        sync_interval: sync.unwrap_or(default.sync_interval),
        suspicion_min: min.unwrap_or(default.suspicion_min),
        suspicion_max: max.unwrap_or(default.suspicion_max),
        ..Detector::paced(interval.unwrap_or(default.probe_interval), timeout)
    })
}

/// A time of the flags, or else of the file.
fn time(field: &str, flag: Option<Duration>, file: Option<&str>) -> Result<Option<Duration>, Stop> {
    let of_file = file
        .map(args::parse_duration)
        .transpose()
        .map_err(|problem| Stop::new(Code::Usage, format!("configuration: {field}: {problem}")))?;
    Ok(flag.or(of_file))
}

/// The keys of a directory.
pub(crate) fn read_keys(dir: &Path) -> Result<Keys, Stop> {
    Keys::read(dir).map_err(|e| Stop::new(Code::Usage, format!("keys: {e}")))
}

fn read(path: &Path) -> Result<File, Stop> {
    let text = fs::read_to_string(path)
        .map_err(|e| Stop::new(Code::Usage, format!("{}: {e}", path.display())))?;
    toml::from_str(&text).map_err(|e| {
        let line = e
            .span()
            .map_or(1, |span| 1 + text.bytes().take(span.start).filter(|b| *b == b'\n').count());
        Stop::new(Code::Usage, format!("{}:{line}: {}", path.display(), e.message()))
    })
}

fn announcement(options: &Options) -> String {
    let mut line =
        format!("starting member \"{}\" of cluster \"{}\"", options.name, options.cluster);
    match &options.data {
        Data::Dir(dir) => line.push_str(&format!(", data in {}", dir.display())),
        Data::Memory => line.push_str(", data in memory only"),
    }
    if options.keys.is_some() {
        line.push_str(", TLS");
    }
    let others: Vec<String> = options
        .members
        .iter()
        .filter(|(name, _)| *name != options.name)
        .map(|(name, address)| format!("{name} at {address}"))
        .collect();
    if let Some(expect) = options.expect {
        line.push_str(&format!("; {} found the cluster", out::count(expect.into(), "member")));
    }
    if !others.is_empty() {
        line.push_str(&format!("; the others: {}", others.join(", ")));
    }
    line
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;
    use crate::args::Command;

    fn options_of(line: &str) -> Result<Options, Stop> {
        let cli = args::parse(line.split(' ').map(OsString::from))?;
        let Command::Serve(serve) = cli.command else {
            panic!("{line}");
        };
        options(&cli.common, &serve)
    }

    fn refusal(line: &str) -> String {
        match options_of(line).expect_err(line) {
            Stop::Error { code: Code::Usage, line } => line,
            other @ (Stop::Unread | Stop::Silent(_) | Stop::Error { .. }) => {
                panic!("{line}: {other:?}")
            }
        }
    }

    #[test]
    fn flags_win_over_the_file() {
        let path = std::env::temp_dir().join(format!("ring-serve-{}.toml", std::process::id()));
        let text =
            "name = 'b'\ncluster = 'c'\ndata = 'd'\nshards = 8\n[members]\na = 'h:1'\nb = 'h:2'\n";
        fs::write(&path, text).expect("the temporary directory is ours");
        let config = format!("ring serve --config {}", path.display());

        let options = options_of(&config).expect("a good file");
        assert_eq!((options.name.as_str(), options.shards), ("b", 8));
        assert_eq!(options.data, Data::Dir("d".into()));
        let members = [("a", "h:1"), ("b", "h:2")].map(|(n, a)| (n.into(), a.into()));
        assert_eq!(options.members, members);

        let options =
            options_of(&format!("{config} --name a --memory --cluster e")).expect("good flags");
        assert_eq!((options.name.as_str(), options.cluster.as_str()), ("a", "e"));
        assert_eq!(options.data, Data::Memory);

        fs::write(&path, "name = 'a'\n\nadress = 'x'\n").expect("the temporary directory is ours");
        let line = refusal(&config);
        assert!(line.contains(":3: unknown field `adress`"), "{line}");
        fs::remove_file(&path).expect("the temporary directory is ours");
    }

    #[test]
    fn a_file_says_all_that_flags_say() {
        let path = std::env::temp_dir().join(format!("ring-serve-all-{}.toml", std::process::id()));
        let text = "name = 'b'\nmemory = true\njoin = ['h:1', 'h:2']\nexpect = 3\nlisten = 'h:3'\n\
                    metrics = 'h:4'\nweight = 2\ngossip = false\nreplace_after = '9s'\n\
                    probe_interval = '200ms'\nsuspicion_min = 2\nsuspicion_max = 3\nsync_interval = '4s'\n\
                    [tags]\nzone = 'a'\nrack = '7'\n";
        fs::write(&path, text).expect("the temporary directory is ours");
        let config = format!("ring serve --config {}", path.display());
        let flags = "ring serve --name b --memory --join h:1 --join h:2 --expect 3 --listen h:3 \
                     --metrics h:4 --weight 2 --no-gossip --replace-after 9s --probe-interval 200ms \
                     --suspicion-min 2 --suspicion-max 3 --sync-interval 4s --tag rack=7 --tag zone=a";
        for line in [config.as_str(), flags] {
            let options = options_of(line).expect(line);
            assert_eq!(options.expect, Some(3), "{line}");
            assert_eq!(options.metrics.as_deref(), Some("h:4"), "{line}");
            assert_eq!((options.weight, options.gossip), (2, false), "{line}");
            assert_eq!(options.timers.replace_after, Duration::from_secs(9), "{line}");
            let ms = Duration::from_millis;
            let detector = Detector {
                suspicion_min: 2,
                suspicion_max: 3,
                sync_interval: ms(4000),
                ..Detector::paced(ms(200), Some(ms(150)))
            };
            assert_eq!(options.detector, detector, "{line}");
            let tags = [("rack", "7"), ("zone", "a")].map(|(k, v)| (k.into(), v.into()));
            assert_eq!(options.tags, tags, "{line}");
            assert_eq!(options.join, ["h:1", "h:2"], "{line}");
        }
        let options = options_of(&format!("{config} --tag zone=b")).expect("good flags");
        assert_eq!(options.tags, [("zone".into(), "b".into())]);
        fs::write(&path, "memory = true\nreplace_after = '3h'\n").expect("the directory is ours");
        assert!(refusal(&config).contains("replace_after: the unit must be"));
        fs::remove_file(&path).expect("the temporary directory is ours");
    }

    #[test]
    fn a_member_says_where_its_data_is() {
        assert!(refusal("ring serve --name a").contains("data: missing"));
        assert!(refusal("ring serve --config /nowhere.toml").contains("/nowhere.toml: "));
    }
}
