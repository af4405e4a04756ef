//! A client of NATS, by its text protocol (docs.nats.io, "Client Protocol"): as much of it as request and answer need.

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Notify, oneshot};

use super::{Echo, retry};
use crate::process::Server;

pub(super) fn is_there() -> bool {
    Command::new("nats-server").arg("--version").output().is_ok()
}

pub(super) fn start(port: u16, dir: &Path) -> Result<Server, String> {
    let port = port.to_string();
    let words = ["nats-server", "--addr", "127.0.0.1", "--port", &port].map(String::from);
    Server::spawn("nats-server", &words, dir)
}

/// What waits to be written, all at once.
#[derive(Default)]
struct Outgoing {
    bytes: Mutex<BytesMut>,
    more: Notify,
}

impl Outgoing {
    fn publish(&self, subject: &str, reply: &str, body: &[u8]) {
        let head = format!("PUB {subject} {reply} {}\r\n", body.len());
        let mut bytes = self.bytes.lock();
        bytes.extend_from_slice(head.as_bytes());
        bytes.extend_from_slice(body);
        bytes.extend_from_slice(b"\r\n");
        drop(bytes);
        self.more.notify_one();
    }

    async fn write(self: Arc<Self>, mut to: OwnedWriteHalf) {
        loop {
            let mut bytes = self.bytes.lock().split();
            if bytes.is_empty() {
                self.more.notified().await;
            } else if to.write_all_buf(&mut bytes).await.is_err() {
                return;
            }
        }
    }
}

/// A message: its subject, where to answer, its body.
struct Message {
    subject: String,
    reply: Option<String>,
    body: Bytes,
}

/// Connects, subscribes, and gives each message to `take`.
async fn connect(
    port: u16,
    subscribe: &str,
    take: impl Fn(&Outgoing, Message) + Send + 'static,
) -> Result<Arc<Outgoing>, String> {
    let stream = retry(|| TcpStream::connect(("127.0.0.1", port))).await?;
    stream.set_nodelay(true).map_err(|e| e.to_string())?;
    let (from, to) = stream.into_split();
    let outgoing = Arc::new(Outgoing::default());
    let hello = format!("CONNECT {{\"verbose\":false}}\r\nSUB {subscribe} 1\r\n");
    outgoing.bytes.lock().extend_from_slice(hello.as_bytes());
    tokio::spawn(Arc::clone(&outgoing).write(to));
    tokio::spawn(read(from, Arc::clone(&outgoing), take));
    Ok(outgoing)
}

async fn read(mut from: OwnedReadHalf, outgoing: Arc<Outgoing>, take: impl Fn(&Outgoing, Message)) {
    let mut buffer = BytesMut::with_capacity(256 << 10);
    loop {
        while let Some(message) = next(&mut buffer, &outgoing) {
            take(&outgoing, message);
        }
        buffer.reserve(64 << 10);
        if !matches!(from.read_buf(&mut buffer).await, Ok(1..)) {
            return;
        }
    }
}

/// The next whole message; answers pings on the way.
fn next(buffer: &mut BytesMut, outgoing: &Outgoing) -> Option<Message> {
    loop {
        let end = buffer.windows(2).position(|pair| pair == b"\r\n")?;
        let line = String::from_utf8_lossy(&buffer[..end]).into_owned();
        if !line.starts_with("MSG ") {
            if line == "PING" {
                outgoing.bytes.lock().extend_from_slice(b"PONG\r\n");
                outgoing.more.notify_one();
            }
            drop(buffer.split_to(end + 2));
            continue;
        }
        let words: Vec<&str> = line.split(' ').collect();
        let len: usize = words.last()?.parse().ok()?;
        if buffer.len() < end + 2 + len + 2 {
            return None;
        }
        drop(buffer.split_to(end + 2));
        let body = buffer.split_to(len).freeze();
        drop(buffer.split_to(2));
        let reply = (words.len() == 5).then(|| String::from(words[3]));
        return Some(Message { subject: String::from(words[1]), reply, body });
    }
}

/// Answers each request with its own body, until the connection ends.
pub(super) async fn answer(port: u16) -> Result<(), String> {
    let _outgoing = connect(port, "echo", |outgoing, message| {
        if let Some(reply) = message.reply {
            outgoing.publish(&reply, "", &message.body);
        }
    })
    .await?;
    std::future::pending().await
}

type Waiting = Mutex<HashMap<u64, oneshot::Sender<()>>>;

#[derive(Clone)]
pub(super) struct Nats {
    outgoing: Arc<Outgoing>,
    waiting: Arc<Waiting>,
    next: Arc<AtomicU64>,
}

impl Nats {
    pub(super) async fn connect(port: u16) -> Result<Self, String> {
        let waiting = Arc::new(Waiting::default());
        let answered = Arc::clone(&waiting);
        let outgoing = connect(port, "in.*", move |_, message| {
            let number = message.subject.strip_prefix("in.").and_then(|n| n.parse().ok());
            let waiter = number.and_then(|number| answered.lock().remove(&number));
            if let Some(waiter) = waiter {
                let _: Result<(), ()> = waiter.send(()); // it may have given up
            }
        })
        .await?;
        let nats = Self { outgoing, waiting, next: Arc::default() };
        // Until the answering process has subscribed nobody answers.
        for _ in 0..100 {
            let asked = nats.echo(Bytes::from_static(b"up?"));
            if tokio::time::timeout(std::time::Duration::from_millis(100), asked).await.is_ok() {
                return Ok(nats);
            }
        }
        Err(String::from("nobody answers through nats-server"))
    }
}

impl Echo for Nats {
    async fn echo(&self, body: Bytes) -> Result<(), String> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        self.waiting.lock().insert(number, answer);
        self.outgoing.publish("echo", &format!("in.{number}"), &body);
        answered.await.map_err(|e| e.to_string())
    }
}
