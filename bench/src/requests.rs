//! `bench requests`: request and answer between two processes, beside a bare ping-pong over TCP and a server of NATS.
//!
//! One process asks (this one, a client node with one connection), one answers (a member alone, in memory). *local*: a
//! member asks itself. *tcp*: bytes there and back on one connection for each that is in flight, nothing around them: what
//! sockets and the executor take. *nats*: one nats-server between a process that asks and one that answers, by its text
//! protocol over one connection each, answers matched by their inbox.
//!
//! Then a stream of 1 GiB each way.
//!
//! What it does not show: two machines, a network, TLS, handlers that do something.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::ValueEnum;
use libring::{Call, Data, HandlerError, Incoming, Node, Options, Request, Way};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;

use crate::process::{Directory, Server, free_ports, own_cpu};
use crate::report::{Columns, Section, float, median, show};

mod nats;

/// How it is measured.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) systems: Vec<System>,
    pub(crate) in_flight: Vec<usize>,
    pub(crate) bytes: Vec<usize>,
    pub(crate) window: Duration,
    pub(crate) rounds: usize,
    pub(crate) stream_bytes: u64,
    pub(crate) data: PathBuf,
}

/// Who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum System {
    /// A member in another process.
    Remote,
    /// This process itself.
    Local,
    /// A bare connection.
    Tcp,
    /// A server of NATS, and a process behind it.
    Nats,
}

impl System {
    fn name(self) -> &'static str {
        match self {
            Self::Remote => "remote",
            Self::Local => "local",
            Self::Tcp => "tcp",
            Self::Nats => "nats",
        }
    }
}

/// Somebody who answers a body with the same body. A clone is one more handle.
trait Echo: Clone + Send + Sync + 'static {
    fn echo(&self, body: Bytes) -> impl Future<Output = Result<(), String>> + Send;
}

/// What one measurement saw.
struct Seen {
    per_second: f64,
    micros: [f64; 2],
    /// Processor time of both processes for each request.
    cpu_micros: f64,
}

/// Which measurement: bytes, requests in flight, and of whom.
type Place = (usize, usize, System);

/// Measures. The rounds take turns, because the machine's speed changes.
pub(crate) fn run(plan: &Plan) -> Result<Section, String> {
    let runtime = Runtime::new().map_err(|e| e.to_string())?;
    let mut notes = Vec::new();
    let mut systems = plan.systems.clone();
    if !nats::is_there() && systems.contains(&System::Nats) {
        systems.retain(|system| *system != System::Nats);
        notes.push(String::from("nats-server is not installed (bench/peers.sh)"));
    }
    let mut results: BTreeMap<Place, Vec<Seen>> = BTreeMap::new();
    let mut streamed: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for round in 0..plan.rounds {
        for &bytes in &plan.bytes {
            for &in_flight in &plan.in_flight {
                for k in 0..systems.len() {
                    let system = systems[(round + k) % systems.len()];
                    let seen = measure(&runtime, plan, system, bytes, in_flight)?;
                    results.entry((bytes, in_flight, system)).or_default().push(seen);
                }
            }
        }
        if plan.stream_bytes > 0 {
            for (name, way) in [("to the handler", Way::Up), ("from the handler", Way::Down)] {
                streamed.entry(name).or_default().push(stream(&runtime, plan, way)?);
            }
        }
    }
    Ok(section(plan, &results, &streamed, notes))
}

fn section(
    plan: &Plan,
    results: &BTreeMap<Place, Vec<Seen>>,
    streamed: &BTreeMap<&str, Vec<f64>>,
    notes: Vec<String>,
) -> Section {
    let mut table = Columns::new(&[
        "bytes",
        "in flight",
        "system",
        "requests/s",
        "p50 µs",
        "p99 µs",
        "CPU µs/request",
        "requests/s of tcp",
        "p50 of tcp",
    ]);
    let mut figures = Vec::new();
    for (&(bytes, in_flight, system), rounds) in results {
        let of = |figure: fn(&Seen) -> f64| median(rounds.iter().map(figure));
        let [rate, p50, p99, cpu] = [
            of(|seen| seen.per_second),
            of(|seen| seen.micros[0]),
            of(|seen| seen.micros[1]),
            of(|seen| seen.cpu_micros),
        ];
        // Of the same round.
        let bare = results.get(&(bytes, in_flight, System::Tcp));
        let ratio = |figure: fn(&Seen) -> f64| {
            let bare = bare.into_iter().flatten();
            median(rounds.iter().zip(bare).map(|(seen, bare)| figure(seen) / figure(bare)))
        };
        let (rates, times) = (ratio(|seen| seen.per_second), ratio(|seen| seen.micros[0]));
        let mut row = vec![bytes.to_string(), in_flight.to_string(), String::from(system.name())];
        row.extend([rate, p50, p99, cpu, rates, times].map(show));
        table.rows.push(row);
        for (round, seen) in rounds.iter().enumerate() {
            figures.push(json!({
                "system": system.name(), "bytes": bytes, "in_flight": in_flight, "round": round,
                "per_second": seen.per_second, "p50_micros": seen.micros[0],
                "p99_micros": seen.micros[1], "cpu_micros": seen.cpu_micros,
            }));
        }
    }
    let mut streams = Columns::new(&["stream", "MiB/s"]);
    for (name, rounds) in streamed {
        let rate = median(rounds.iter().copied());
        streams.rows.push(vec![String::from(*name), show(rate)]);
        figures.push(json!({ "stream": name, "mib_per_second": rounds }));
    }
    Section {
        name: String::from("requests"),
        title: String::from("requests and streams between two processes"),
        about: vec![format!(
            "Medians of {} rounds of {} s in turn; ratios are of the same round. Streams of {} MiB over one \
             connection.",
            plan.rounds,
            plan.window.as_secs_f64(),
            plan.stream_bytes >> 20
        )],
        tables: vec![table, streams],
        notes,
        figures: figures.into(),
    }
}

fn measure(
    runtime: &Runtime,
    plan: &Plan,
    system: System,
    bytes: usize,
    in_flight: usize,
) -> Result<Seen, String> {
    let dir = Directory::new(&plan.data, "requests")?;
    let port = free_ports(1)?[0];
    let mut servers = Vec::new();
    let serve = |kind: &str| -> Result<Server, String> {
        let own = std::env::current_exe().map_err(|e| e.to_string())?;
        let words = [own.display().to_string(), String::from(COMMAND), String::from(kind)];
        let words = [&words[..], &[port.to_string()]].concat();
        Server::spawn(kind, &words, dir.path())
    };
    match system {
        System::Remote => {
            servers.push(serve("ring")?);
            let client = runtime.block_on(client(port))?;
            let seen = load(runtime, plan, &servers, Ring(client.clone()), bytes, in_flight);
            runtime.block_on(client.close()).map_err(|e| e.to_string())?;
            seen
        }
        System::Local => {
            let node = runtime.block_on(member(None))?;
            let seen = load(runtime, plan, &servers, Ring(node.clone()), bytes, in_flight);
            runtime.block_on(node.close()).map_err(|e| e.to_string())?;
            seen
        }
        System::Tcp => {
            servers.push(serve("tcp")?);
            let tcp = runtime.block_on(Tcp::connect(port, in_flight))?;
            load(runtime, plan, &servers, tcp, bytes, in_flight)
        }
        System::Nats => {
            servers.push(nats::start(port, dir.path())?);
            servers.push(serve("nats")?);
            let nats = runtime.block_on(nats::Nats::connect(port))?;
            load(runtime, plan, &servers, nats, bytes, in_flight)
        }
    }
}

/// Asks until the window has passed, so many at once.
fn load(
    runtime: &Runtime,
    plan: &Plan,
    servers: &[Server],
    echo: impl Echo,
    bytes: usize,
    in_flight: usize,
) -> Result<Seen, String> {
    let body = Bytes::from(vec![b'x'; bytes]);
    runtime.block_on(async {
        let begin = Instant::now() + plan.window / 4;
        let end = begin + plan.window;
        let mut callers = JoinSet::new();
        for _ in 0..in_flight {
            let (echo, body) = (echo.clone(), body.clone());
            callers.spawn(async move {
                let mut took = Vec::new();
                loop {
                    let sent = Instant::now();
                    echo.echo(body.clone()).await?;
                    let now = Instant::now();
                    if now >= end {
                        return Ok::<_, String>(took);
                    }
                    if sent >= begin {
                        took.push(now - sent);
                    }
                }
            });
        }
        let cpu = || own_cpu() + servers.iter().map(Server::cpu).sum::<Duration>();
        tokio::time::sleep_until(begin.into()).await;
        let before = cpu();
        tokio::time::sleep_until(end.into()).await;
        let used = cpu() - before;
        let mut took = Vec::new();
        while let Some(caller) = callers.join_next().await {
            took.extend(caller.map_err(|e| e.to_string())??);
        }
        took.sort_unstable();
        let place = |permille: usize| took[(took.len() * permille / 1000).min(took.len() - 1)];
        if took.is_empty() {
            return Err(String::from("no request was answered"));
        }
        let count = float(u64::try_from(took.len()).unwrap_or(u64::MAX));
        Ok(Seen {
            per_second: count / plan.window.as_secs_f64(),
            micros: [500, 990].map(|permille| place(permille).as_secs_f64() * 1e6),
            cpu_micros: used.as_secs_f64() * 1e6 / count,
        })
    })
}

/// MiB/s of one stream.
fn stream(runtime: &Runtime, plan: &Plan, way: Way) -> Result<f64, String> {
    let dir = Directory::new(&plan.data, "requests")?;
    let port = free_ports(1)?[0];
    let own = std::env::current_exe().map_err(|e| e.to_string())?;
    let words = [&own.display().to_string(), COMMAND, "ring", &port.to_string()].map(String::from);
    let _server = Server::spawn("ring", &words, dir.path())?;
    runtime.block_on(async {
        let client = client(port).await?;
        let began = Instant::now();
        let request = Request::new("stream").deadline(Duration::from_secs(600)).stream("s", way);
        let request = request.body(plan.stream_bytes.to_string());
        let mut call = client.call("key", request).map_err(|e| e.to_string())?;
        let moved = pass(&mut call, way, plan.stream_bytes).await;
        // It says more than what its stream says.
        call.response().await.map_err(|e| e.to_string())?;
        moved?;
        let took = began.elapsed().as_secs_f64();
        client.close().await.map_err(|e| e.to_string())?;
        Ok(float(plan.stream_bytes >> 20) / took)
    })
}

/// Writes or reads the stream of a request.
async fn pass(call: &mut Call, way: Way, bytes: u64) -> Result<(), String> {
    if way == Way::Up {
        let mut writer = call.writer("s").ok_or("it was asked for")?;
        let chunk = Bytes::from(vec![7; CHUNK]);
        let mut left = bytes;
        while left > 0 {
            let len = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
            writer.write(chunk.slice(..len)).await.map_err(|e| e.to_string())?;
            left -= u64::try_from(len).unwrap_or(left);
        }
        return writer.finish().await.map_err(|e| e.to_string());
    }
    let mut reader = call.reader("s").ok_or("it was asked for")?;
    while reader.next().await.map_err(|e| e.to_string())?.is_some() {}
    Ok(())
}

#[derive(Clone)]
struct Ring(Node);

impl Echo for Ring {
    async fn echo(&self, body: Bytes) -> Result<(), String> {
        let request = Request::new("echo").body(body);
        let response = self.0.request("key", request).await.map_err(|e| e.to_string())?;
        if response.body.is_empty() { Err(String::from("an empty answer")) } else { Ok(()) }
    }
}

/// One connection for each that is in flight: a queue of the idle ones.
#[derive(Clone)]
struct Tcp {
    idle: Arc<Mutex<mpsc::UnboundedReceiver<TcpStream>>>,
    back: mpsc::UnboundedSender<TcpStream>,
}

impl Tcp {
    async fn connect(port: u16, count: usize) -> Result<Self, String> {
        let (back, idle) = mpsc::unbounded_channel();
        for _ in 0..count {
            let stream = retry(|| TcpStream::connect(("127.0.0.1", port))).await?;
            stream.set_nodelay(true).map_err(|e| e.to_string())?;
            drop(back.send(stream));
        }
        Ok(Self { idle: Arc::new(Mutex::new(idle)), back })
    }
}

impl Echo for Tcp {
    async fn echo(&self, mut body: Bytes) -> Result<(), String> {
        let stream = self.idle.lock().await.recv().await;
        let mut stream = stream.ok_or("a connection for each")?;
        let len = body.len();
        let io = async {
            stream.write_all_buf(&mut body).await?;
            let mut back = vec![0; len];
            stream.read_exact(&mut back).await
        };
        io.await.map_err(|e| e.to_string())?;
        drop(self.back.send(stream));
        Ok(())
    }
}

/// What is tried until a server that has just been started is there.
async fn retry<T, F>(mut attempt: impl FnMut() -> F) -> Result<T, String>
where
    F: Future<Output = std::io::Result<T>>,
{
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        match attempt().await {
            Ok(done) => return Ok(done),
            Err(e) if Instant::now() > until => return Err(e.to_string()),
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

/// A client of the member at this port, once that has its handlers.
async fn client(port: u16) -> Result<Node, String> {
    let options = Options {
        name: String::from("bench"),
        client: true,
        join: vec![format!("127.0.0.1:{port}")],
        ..Options::default()
    };
    let client = Node::open(options).await.map_err(|e| e.to_string())?;
    let until = Instant::now() + Duration::from_secs(10);
    while let Err(problem) = Ring(client.clone()).echo(Bytes::from_static(b"up?")).await {
        if Instant::now() > until {
            return Err(problem);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(client)
}

async fn member(listen: Option<u16>) -> Result<Node, String> {
    let options = Options {
        listen: listen.map(|port| format!("127.0.0.1:{port}")),
        data: Data::Memory,
        ..Options::default()
    };
    let node = Node::open(options).await.map_err(|e| e.to_string())?;
    node.handle("stream", stream_through).map_err(|e| e.to_string())?;
    // Last: who is answered finds the other, too.
    let echo = |incoming: Incoming| async move { Ok(incoming.body().clone()) };
    node.handle("echo", echo).map_err(|e| e.to_string())?;
    Ok(node)
}

/// Reads or writes as many bytes as the body says.
async fn stream_through(mut incoming: Incoming) -> Result<String, HandlerError> {
    let mut left: u64 = std::str::from_utf8(incoming.body())?.parse()?;
    if let Some(mut reader) = incoming.reader("s") {
        while let Some(part) = reader.next().await? {
            left -= u64::try_from(part.len())?;
        }
    } else if let Some(mut writer) = incoming.writer("s") {
        let chunk = Bytes::from(vec![7; CHUNK]);
        while left > 0 {
            let len = CHUNK.min(usize::try_from(left)?);
            writer.write(chunk.slice(..len)).await?;
            left -= u64::try_from(len)?;
        }
        writer.finish().await?;
    }
    Ok(left.to_string())
}

/// What the answering process does: it answers until it is killed.
pub(crate) fn serve(kind: &str, port: u16) -> Result<(), String> {
    let runtime = Runtime::new().map_err(|e| e.to_string())?;
    runtime.block_on(async {
        match kind {
            "ring" => {
                let node = member(Some(port)).await?;
                node.halted().await;
                Ok(())
            }
            "nats" => nats::answer(port).await,
            _ => serve_tcp(port).await,
        }
    })
}

async fn serve_tcp(port: u16) -> Result<(), String> {
    let listener = TcpListener::bind(("127.0.0.1", port)).await.map_err(|e| e.to_string())?;
    loop {
        let (mut stream, _) = listener.accept().await.map_err(|e| e.to_string())?;
        stream.set_nodelay(true).map_err(|e| e.to_string())?;
        tokio::spawn(async move {
            let mut buffer = vec![0; 64 << 10];
            while let Ok(len @ 1..) = stream.read(&mut buffer).await {
                if stream.write_all(&buffer[..len]).await.is_err() {
                    return;
                }
            }
        });
    }
}

const CHUNK: usize = 128 << 10;
/// The hidden command by which this program answers.
pub(crate) const COMMAND: &str = "answer-requests";
