//! What can be said on the command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::ValueParser;
use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::out;
use crate::stop::{Code, Stop};

/// A library that makes a program a member of a cluster, and its command line.
#[derive(Debug, Parser)]
#[command(name = "ring", version, arg_required_else_help = true)]
#[command(after_help = "Exit codes: 0 done, 1 the answer is no, 2 wrong usage or configuration, \
    3 no cluster or no answer in time, 4 outcome unknown, 5 refused, \
    6 the member cannot start or has halted, 7 a file or stream failed.")]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What most commands understand.
#[derive(Debug, Args)]
pub(crate) struct Common {
    /// Addresses of members to begin with; without it, the `ring dev` cluster of this user is asked
    #[arg(
        long,
        global = true,
        value_name = "ADDR[,ADDR]",
        env = "RING_CONNECT",
        value_delimiter = ','
    )]
    pub(crate) connect: Vec<String>,
    /// Name of the cluster [default: ring, or that of the running `ring dev`]
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) cluster: Option<String>,
    /// Directory with the keys of this client or member, made by `ring keys`; without it nothing is
    /// encrypted [default: those of the running `ring dev --tls`]
    #[arg(long, global = true, value_name = "DIR", env = "RING_KEYS")]
    pub(crate) keys: Option<PathBuf>,
    /// How long to wait for an answer, like 500ms, 10s or 2m [default: 10s; for status 3s]
    #[arg(long, global = true, value_name = "TIME", value_parser = parse_duration)]
    pub(crate) timeout: Option<Duration>,
    /// Answer with JSON, for programs
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

impl Common {
    /// The time that a call may take.
    pub(crate) fn timeout_or(&self, default: Duration) -> Duration {
        self.timeout.unwrap_or(default)
    }
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a whole local cluster in this process
    Dev(Dev),
    /// Run one member of a cluster
    Serve(Serve),
    /// Show members, shards and leaders
    Status(Status),
    /// Show who is registered
    Members,
    /// Let a member leave: what it holds moves elsewhere first
    Leave(Leave),
    /// Read and write a partition
    Kv(Kv),
    /// Show who owns a key, where requests for it run
    Owner(Owner),
    /// Ask a handler: of the owner of a key, of a member, or of a partition's leader
    Request(Request),
    /// Measure a cluster
    Bench(Bench),
    /// Check a data directory without changing it
    Fsck(Fsck),
    /// Make the keys of a cluster, its members and its clients
    Keys(Keys),
    /// Print a script that completes this command line in a shell
    Completions(Completions),
}

/// `ring dev`.
#[derive(Debug, Args)]
pub(crate) struct Dev {
    /// Number of members [default: 3, or as the data directory was made]
    #[arg(
        short = 'n',
        long = "members",
        value_name = "N",
        value_parser = clap::value_parser!(u16).range(1..=9)
    )]
    pub(crate) members: Option<u16>,
    /// Where the members keep their data
    #[arg(long, value_name = "DIR", default_value = ".ring-dev", conflicts_with = "memory")]
    pub(crate) data: PathBuf,
    /// Keep everything in memory; it is gone when the command ends
    #[arg(long)]
    pub(crate) memory: bool,
    /// Port of the first member, the others follow [default: 4701, or as the data directory was
    /// made]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) port: Option<u16>,
    /// Number of shards [default: 64, or as the data directory was made]
    #[arg(long, value_name = "S")]
    pub(crate) shards: Option<u32>,
    /// Encrypt all connections, with keys that are made and kept beside the data
    #[arg(long, conflicts_with = "memory")]
    pub(crate) tls: bool,
    #[command(flatten)]
    pub(crate) log: Log,
}

/// What the process itself logs.
#[derive(Debug, Args)]
pub(crate) struct Log {
    /// What to log on stderr, like `info` or `libring=debug`
    #[arg(long, value_name = "FILTER", env = "RING_LOG", default_value = "warn")]
    pub(crate) log: String,
}

/// `ring serve`.
#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// A TOML file with the same words as the flags; flags win over it
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// This member's name, one of the members
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// A member of the cluster, itself included; the same list for all members
    #[arg(long = "member", value_name = "NAME=ADDR", value_parser = parse_member)]
    pub(crate) members: Vec<(String, String)>,
    /// Join the cluster of the member at this address; may be given several times
    #[arg(long, value_name = "ADDR", conflicts_with = "members")]
    pub(crate) join: Vec<String>,
    /// Found the cluster with the members at these addresses and as many more, as soon as so many in
    /// all have found each other; whoever comes later joins. The same for all members
    #[arg(long, value_name = "N", conflicts_with = "members")]
    pub(crate) expect: Option<u16>,
    /// Where the others reach this member [default: where `--member` has it, or where it listens]
    #[arg(long, value_name = "ADDR")]
    pub(crate) advertise: Option<String>,
    /// Share of the shards beside the other members' [default: 1]
    #[arg(long, value_name = "W")]
    pub(crate) weight: Option<u16>,
    /// What a member holds moves elsewhere when it has been away for this long [default: 5m]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub(crate) replace_after: Option<Duration>,
    #[command(flatten)]
    pub(crate) detector: DetectorArgs,
    /// Address to listen on [default: the own one of the members]
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<String>,
    /// Where to tell metrics: `GET /metrics` over HTTP, as Prometheus reads it
    #[arg(long, value_name = "ADDR")]
    pub(crate) metrics: Option<String>,
    /// What the other members are to know about this one; may be given several times
    #[arg(long = "tag", value_name = "NAME=VALUE", value_parser = parse_header)]
    pub(crate) tags: Vec<(String, String)>,
    /// Exchange no datagrams: who is connected is alive. The same for all members
    #[arg(long)]
    pub(crate) no_gossip: bool,
    /// Where this member keeps its data
    #[arg(long, value_name = "DIR", conflicts_with = "memory")]
    pub(crate) data: Option<PathBuf>,
    /// Keep everything in memory; it is gone when the command ends
    #[arg(long)]
    pub(crate) memory: bool,
    /// Allow to listen beyond this machine without keys: nothing is encrypted then, and nobody
    /// proves who they are
    #[arg(long)]
    pub(crate) insecure: bool,
    /// Number of shards, fixed when the cluster is made [default: 64]
    #[arg(long, value_name = "S")]
    pub(crate) shards: Option<u32>,
    /// Replicas of each shard, fixed when the cluster is made [default: 3]
    #[arg(long, value_name = "R")]
    pub(crate) replication: Option<u32>,
    #[command(flatten)]
    pub(crate) log: Log,
}

/// How fast gossip finds out who is alive.
#[derive(Debug, Args)]
pub(crate) struct DetectorArgs {
    /// Gossip: probe one other member so often [default: 1s]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub(crate) probe_interval: Option<Duration>,
    /// Gossip: who does not answer a probe for this long is a suspect [default: three quarters of
    /// the probe interval]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub(crate) probe_timeout: Option<Duration>,
    /// Gossip: so many probe intervals a suspect has to answer when others suspect it too [default:
    /// 5]
    #[arg(long, value_name = "N")]
    pub(crate) suspicion_min: Option<u32>,
    /// Gossip: this times as long if nobody else does [default: 6]
    #[arg(long, value_name = "N")]
    pub(crate) suspicion_max: Option<u32>,
    /// Gossip: compare all that is known of the members with another one so often [default: 30s]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub(crate) sync_interval: Option<Duration>,
}

/// `ring leave`.
#[derive(Debug, Args)]
pub(crate) struct Leave {
    /// Name of the member
    pub(crate) name: String,
    /// Leave also when too many other members are away: they are given up at once, and what they and
    /// this one hold stays on the members that are left, on a single one at worst
    #[arg(long)]
    pub(crate) force: bool,
}

/// `ring status`.
#[derive(Debug, Args)]
pub(crate) struct Status {
    /// Show it again and again until interrupted
    #[arg(long)]
    pub(crate) watch: bool,
}

/// `ring kv`.
#[derive(Debug, Args)]
pub(crate) struct Kv {
    /// The partition
    #[arg(long, global = true, value_name = "NAME", default_value = "default")]
    pub(crate) partition: String,
    #[command(subcommand)]
    pub(crate) verb: KvVerb,
}

/// What to do with a partition.
#[derive(Debug, Subcommand)]
pub(crate) enum KvVerb {
    /// Print the value of a key
    Get {
        /// The key
        key: OsString,
        /// Print exactly the value's bytes
        #[arg(long, conflicts_with = "json")]
        raw: bool,
        /// Do not wait for a majority; the value may be stale
        #[arg(long)]
        local: bool,
    },
    /// Set a key
    Put {
        /// The key
        key: OsString,
        /// The value; `-` reads it from stdin
        #[arg(allow_negative_numbers = true)]
        value: OsString,
    },
    /// Remove a key
    Del {
        /// The key
        key: OsString,
    },
    /// Set and remove several keys, all of them or none
    Batch(KvBatch),
    /// Print keys and values in order
    Scan(KvScan),
    /// Print changes as they are committed, until interrupted
    Watch(KvWatch),
    /// Set or remove a key if it is as expected
    Cas(KvCas),
    /// Show where a partition is and how large
    Info,
}

/// A range of keys.
#[derive(Debug, Args)]
pub(crate) struct KvRange {
    /// Only keys that begin with this
    #[arg(long, conflicts_with_all = ["from", "to"])]
    pub(crate) prefix: Option<OsString>,
    /// First key
    #[arg(long)]
    pub(crate) from: Option<OsString>,
    /// End; this key is no longer shown
    #[arg(long)]
    pub(crate) to: Option<OsString>,
}

/// `ring kv scan`.
#[derive(Debug, Args)]
pub(crate) struct KvScan {
    #[command(flatten)]
    pub(crate) keys: KvRange,
    /// From the last key to the first
    #[arg(long)]
    pub(crate) reverse: bool,
    /// At most this many keys
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<u64>,
    /// Without values
    #[arg(long)]
    pub(crate) keys_only: bool,
    /// Do not wait for a majority; what is shown may be stale
    #[arg(long)]
    pub(crate) local: bool,
}

/// `ring kv batch`.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub(crate) struct KvBatch {
    /// Set a key; may be given several times
    #[arg(long, num_args = 2, value_names = ["KEY", "VALUE"], action = clap::ArgAction::Append, allow_negative_numbers = true)]
    pub(crate) put: Vec<OsString>,
    /// Remove a key; may be given several times
    #[arg(long, value_name = "KEY")]
    pub(crate) del: Vec<OsString>,
}

/// `ring kv watch`.
#[derive(Debug, Args)]
pub(crate) struct KvWatch {
    #[command(flatten)]
    pub(crate) keys: KvRange,
    /// Only changes after this revision; without it, changes from now on
    #[arg(long, value_name = "REVISION")]
    pub(crate) after: Option<u64>,
    /// End after so many changes
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<u64>,
    /// Without values
    #[arg(long)]
    pub(crate) keys_only: bool,
}

/// `ring kv cas`.
#[derive(Debug, Args)]
pub(crate) struct KvCas {
    /// The key
    pub(crate) key: OsString,
    /// The new value; `-` reads it from stdin
    #[arg(
        allow_negative_numbers = true,
        required_unless_present = "delete",
        conflicts_with = "delete"
    )]
    pub(crate) value: Option<OsString>,
    /// Remove the key instead of setting it
    #[arg(long)]
    pub(crate) delete: bool,
    #[command(flatten)]
    pub(crate) expect: KvExpect,
}

/// What a compare-and-set expects.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct KvExpect {
    /// The value that the key must have
    #[arg(long, value_name = "OLD", allow_negative_numbers = true)]
    pub(crate) expect: Option<OsString>,
    /// The revision that the key must have
    #[arg(long, value_name = "N")]
    pub(crate) expect_revision: Option<u64>,
    /// The key must not exist
    #[arg(long)]
    pub(crate) absent: bool,
}

/// `ring owner`.
#[derive(Debug, Args)]
pub(crate) struct Owner {
    /// The key
    pub(crate) key: OsString,
    /// Show so many: the owner, and who would be next
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) count: u16,
}

/// `ring request`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("whom").required(true).args(["key", "member", "partition"]))]
pub(crate) struct Request {
    /// What is asked for, like `monitoring/info`, `monitoring/memory` or `monitoring/trace`
    pub(crate) route: String,
    /// Ask the owner of this key
    #[arg(long)]
    pub(crate) key: Option<String>,
    /// Ask the member of this name
    #[arg(long, value_name = "NAME")]
    pub(crate) member: Option<String>,
    /// Ask the leader of this partition
    #[arg(long, value_name = "NAME")]
    pub(crate) partition: Option<String>,
    /// The body; `@FILE` reads it from a file, `-` from stdin
    #[arg(long, value_name = "TEXT", allow_negative_numbers = true, allow_hyphen_values = true)]
    pub(crate) body: Option<OsString>,
    /// A header; may be given several times
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = parse_header)]
    pub(crate) headers: Vec<(String, String)>,
    /// Print the answer's headers before its body
    #[arg(long)]
    pub(crate) show_headers: bool,
    /// Send a stream with the request: `NAME=@FILE`, or `NAME=-` for stdin
    #[arg(long, value_name = "NAME=@FILE", value_parser = parse_upload)]
    pub(crate) upload: Option<(String, PathBuf)>,
    /// Print this stream of the answer, too (`keys` of `monitoring/trace`)
    #[arg(long, value_name = "NAME")]
    pub(crate) stream: Option<String>,
    /// Never ask twice: say instead when it is not known whether it was handled
    #[arg(long)]
    pub(crate) once: bool,
    /// Do not wait for an answer
    #[arg(long, conflicts_with_all = ["stream", "upload", "member", "partition"])]
    pub(crate) fire: bool,
}

/// `ring bench`.
#[derive(Debug, Args)]
pub(crate) struct Bench {
    /// Calls in flight at once
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) callers: u32,
    /// How long to measure
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) seconds: u64,
    /// What to call: `put`, `get`, or `mixed:PERCENT` with that share of puts
    #[arg(long, default_value = "put", value_parser = parse_mix)]
    pub(crate) mix: Mix,
    /// Bytes of a value
    #[arg(long, default_value_t = 64, value_parser = ValueParser::from(parse_value_size))]
    pub(crate) value_size: usize,
    /// Number of keys
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) key_count: u64,
    /// Number of partitions that the keys are spread over; each lives in one shard
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) partitions: u64,
    /// Seconds to run before measuring
    #[arg(long, default_value_t = 1, value_name = "SECONDS")]
    pub(crate) warmup: u64,
}

/// What `ring bench` calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mix {
    /// How many of a hundred calls are puts; the others are gets.
    pub(crate) puts_percent: u64,
}

/// `ring fsck`.
#[derive(Debug, Args)]
pub(crate) struct Fsck {
    /// A member's data directory
    pub(crate) dir: PathBuf,
}

/// `ring keys`.
#[derive(Debug, Args)]
pub(crate) struct Keys {
    #[command(subcommand)]
    pub(crate) verb: KeysVerb,
}

/// What to do with keys.
#[derive(Debug, Subcommand)]
pub(crate) enum KeysVerb {
    /// Make an authority for a cluster, and the keys of its members and clients
    New(KeysNew),
    /// Make keys of further members and clients, or new ones for those whose time is over
    Add(KeysAdd),
    /// Take the next step to another key of datagrams: three make a rotation
    RotateDatagram {
        /// The directory that `ring keys new` made
        #[arg(value_name = "AUTHORITY")]
        dir: PathBuf,
    },
}

/// `ring keys new`.
#[derive(Debug, Args)]
pub(crate) struct KeysNew {
    /// The directory to make
    #[arg(value_name = "AUTHORITY")]
    pub(crate) dir: PathBuf,
    #[command(flatten)]
    pub(crate) names: Names,
}

/// `ring keys add`.
#[derive(Debug, Args)]
pub(crate) struct KeysAdd {
    /// The directory that `ring keys new` made
    #[arg(value_name = "AUTHORITY")]
    pub(crate) dir: PathBuf,
    #[command(flatten)]
    pub(crate) names: Names,
}

/// Who gets keys, and for how long.
#[derive(Debug, Args)]
pub(crate) struct Names {
    /// A member: its keys are for the member of this name, and nobody else
    #[arg(long = "member", value_name = "NAME")]
    pub(crate) members: Vec<String>,
    /// A client: its keys are for calls from outside, like those of this command line
    #[arg(long = "client", value_name = "NAME")]
    pub(crate) clients: Vec<String>,
    /// How long the certificates are valid
    #[arg(long, value_name = "N", default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=3650))]
    pub(crate) days: u32,
}

/// `ring completions`.
#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// The shell
    pub(crate) shell: clap_complete::Shell,
}

/// Reads the command line. Help and version are printed here and end the command.
pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Cli, Stop> {
    Cli::try_parse_from(args).map_err(|error| {
        let kind = error.kind();
        let asked = matches!(kind, ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
        if asked || kind == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
            // Its output goes where it can; a closed stdout is no error.
            drop(error.print());
            return if asked { Stop::Unread } else { Stop::Silent(Code::Usage) };
        }
        Stop::new(Code::Usage, one_line(&error.render().to_string()))
    })
}

/// The script that completes the command line in a shell.
pub(crate) fn completions(shell: clap_complete::Shell) -> Result<(), Stop> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "ring", &mut script);
    out::write(&script)
}

/// The parser's message without its usage section, on one line.
fn one_line(message: &str) -> String {
    let mut line = message
        .lines()
        .map(str::trim)
        .take_while(|part| !part.starts_with("Usage:") && !part.starts_with("For more"))
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join(" ");
    if let Some(rest) = line.strip_prefix("error: ") {
        line = String::from(rest);
    }
    line.push_str(" (`ring --help` tells more)");
    line
}

pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 =
        digits.parse().map_err(|_| String::from("not a time like 500ms, 10s or 2m"))?;
    let millis = match &text[digits.len()..] {
        "ms" => Some(number),
        "" | "s" => number.checked_mul(1_000),
        "m" => number.checked_mul(60_000),
        _ => return Err(String::from("the unit must be ms, s or m")),
    };
    match millis {
        Some(0) => Err(String::from("must be longer than nothing")),
        Some(millis) if millis <= 86_400_000 => Ok(Duration::from_millis(millis)),
        _ => Err(String::from("must be at most a day")),
    }
}

fn parse_header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("NAME=VALUE is wanted")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// A stream's name and the file with its bytes; `-` is stdin.
fn parse_upload(text: &str) -> Result<(String, PathBuf), String> {
    let wanted = "NAME=@FILE or NAME=- is wanted";
    let (name, from) = text.split_once('=').ok_or(wanted)?;
    let path = if from == "-" { from } else { from.strip_prefix('@').ok_or(wanted)? };
    Ok((name.to_owned(), path.into()))
}

fn parse_member(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, address)) if !name.is_empty() && !address.is_empty() => {
            Ok((String::from(name), String::from(address)))
        }
        _ => Err(String::from("must be NAME=ADDR, like a=127.0.0.1:4701")),
    }
}

fn parse_mix(text: &str) -> Result<Mix, String> {
    let puts_percent = match text.split_once(':') {
        None if text == "put" => 100,
        None if text == "get" => 0,
        Some(("mixed", percent)) => percent
            .parse()
            .ok()
            .filter(|percent| *percent <= 100)
            .ok_or("the share of puts must be 0 to 100")?,
        _ => return Err(String::from("must be put, get or mixed:PERCENT")),
    };
    Ok(Mix { puts_percent })
}

fn parse_value_size(text: &str) -> Result<usize, String> {
    let most = libring::Limits::default().value_bytes;
    match text.parse() {
        Ok(bytes) if bytes <= most => Ok(bytes),
        Ok(_) => Err(format!("the limit of a value is {most} bytes")),
        Err(_) => Err(String::from("not a number of bytes")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Cli, Stop> {
        parse(line.split(' ').map(OsString::from))
    }

    fn refusal(line: &str) -> String {
        match parsed(line).expect_err(line) {
            Stop::Error { code: Code::Usage, line } => line,
            other @ (Stop::Unread | Stop::Silent(_) | Stop::Error { .. }) => {
                panic!("{line}: {other:?}")
            }
        }
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_belongs_to_all_commands_may_stand_anywhere() {
        for line in ["ring --connect a:1,b:2 kv get k", "ring kv get k --connect a:1,b:2"] {
            assert_eq!(parsed(line).expect(line).common.connect, ["a:1", "b:2"]);
        }
    }

    #[test]
    fn a_mistake_is_one_line_that_says_what() {
        assert!(refusal("ring kv get k --tiemout 3").contains("--tiemout"));
        assert!(refusal("ring kv cas k v").contains("--absent"));
        assert!(refusal("ring kv put k").contains("<VALUE>"));
        assert!(refusal("ring kv cas k v --absent --expect x").contains("cannot be used with"));
        assert!(refusal("ring bench --mix mixed:200").contains("0 to 100"));
        assert!(refusal("ring serve --member a").contains("NAME=ADDR"));
        assert!(refusal("ring dev -n 0").contains('0'));
        assert!(!refusal("ring frobnicate").contains('\n'));
    }

    #[test]
    fn values_may_be_negative_numbers_and_stdin() {
        for value in ["-5", "-", "x"] {
            let cli = parsed(&format!("ring kv put k {value} --json")).expect(value);
            assert!(cli.common.json);
            let Command::Kv(Kv { verb: KvVerb::Put { value: read, .. }, .. }) = cli.command else {
                panic!("{value}");
            };
            assert_eq!(read, value);
        }
    }

    #[test]
    fn times_have_units_and_bounds() {
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("3"), Ok(Duration::from_secs(3)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_secs(120)));
        for wrong in ["", "s", "0", "3h", "-1", "99999999999999999999", "2000000s"] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }
}
