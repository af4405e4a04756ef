//! `ring request`: asks a handler of the cluster.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use libring::{Bytes, Call, Error, MemberId, Node, Response, StreamReader, StreamWriter, Way};
use serde_json::{Map, Value};
use tokio::io::AsyncRead;

use crate::args::{Common, Request};
use crate::connect::connect;
use crate::out;
use crate::stop::{Code, Stop};

/// One request, and what it answers.
pub(crate) async fn run(common: &Common, args: &Request) -> Result<(), Stop> {
    // Read before connecting: whoever types it may take longer than a call.
    let body = body(args)?;
    let node = connect(common, common.timeout_or(Duration::from_secs(10))).await?;
    let mut request = libring::Request::new(args.route.as_str()).body(body);
    for (name, value) in &args.headers {
        request = request.header(name.as_str(), value.clone());
    }
    if let Some(name) = &args.stream {
        request = request.stream(name.as_str(), Way::Down);
    }
    let upload =
        args.upload.as_ref().map(|(name, path)| Ok((name, path, source(path)?))).transpose()?;
    if let Some((name, ..)) = &upload {
        request = request.stream(name.as_str(), Way::Up);
    }
    if args.once {
        request = request.once();
    }
    let what = format!("request \"{}\"", args.route);
    let failed = |error: Error| Stop::call(&what, &error);
    if args.fire {
        let key = args.key.clone().unwrap_or_default();
        return node.fire(key, request).await.map_err(failed);
    }
    let mut call = begin(&node, args, request, &what)?;
    if let Some((name, path, from)) = upload
        && let Some(stream) = call.writer(name)
    {
        // Beside the answer, which may come before all of it was read.
        tokio::spawn(send(from, path.clone(), stream));
    }
    let mut response = call.response().await.map_err(failed)?;
    let stream = args.stream.as_deref().and_then(|name| response.reader(name));
    if args.show_headers && !common.json {
        for (name, value) in &response.headers {
            out::line(format!("{name}: {}", out::show(value)))?;
        }
    }
    show(common.json, &response)?;
    match stream {
        Some(stream) => follow(stream, &what).await,
        None => Ok(()),
    }
}

fn begin(node: &Node, args: &Request, request: libring::Request, what: &str) -> Result<Call, Stop> {
    let begun = if let Some(name) = &args.member {
        node.call_member(member(node, name)?, request)
    } else if let Some(name) = &args.partition {
        node.partition(name).begin(request)
    } else {
        node.call(args.key.clone().unwrap_or_default(), request)
    };
    begun.map_err(|error| Stop::call(what, &error))
}

fn member(node: &Node, name: &str) -> Result<MemberId, Stop> {
    let members = node.members();
    let found = members.iter().find(|member| member.name == name);
    found.map(|member| member.id).ok_or_else(|| {
        let names: Vec<&str> = members.iter().map(|member| member.name.as_str()).collect();
        let names = names.join(", ");
        Stop::new(Code::Usage, format!("no member is called \"{name}\"; there are {names}"))
    })
}

fn show(json: bool, response: &Response) -> Result<(), Stop> {
    let body = &response.body;
    if !json {
        return if body.is_empty() { Ok(()) } else { out::line(out::show_value(body)) };
    }
    let mut headers = Map::new();
    for (name, value) in &response.headers {
        out::put_bytes(&mut headers, name, value);
    }
    let mut object = Map::from_iter([(String::from("headers"), Value::from(headers))]);
    out::put_bytes(&mut object, "body", body);
    out::json(&Value::from(object))
}

/// Prints what comes, as it comes, until its end or an interrupt.
async fn follow(mut stream: StreamReader, what: &str) -> Result<(), Stop> {
    loop {
        let next = tokio::select! {
            next = stream.next() => next,
            _ = tokio::signal::ctrl_c() => return Ok(()),
        };
        match next {
            Ok(Some(bytes)) => out::write(&bytes)?,
            Ok(None) => return Ok(()),
            Err(broken) => return Err(Stop::new(Code::Unreachable, format!("{what}: {broken}"))),
        }
    }
}

type Source = Box<dyn AsyncRead + Send + Unpin>;

/// A file, or stdin.
fn source(path: &Path) -> Result<Source, Stop> {
    if path == Path::new("-") {
        return Ok(Box::new(tokio::io::stdin()));
    }
    let file = fs::File::open(path).map_err(|e| Stop::io(path.display().to_string(), &e))?;
    Ok(Box::new(tokio::fs::File::from_std(file)))
}

/// Sends what is read as it comes. What cannot be read to its end breaks the stream at its reader.
async fn send(mut from: Source, path: PathBuf, mut stream: StreamWriter) {
    match tokio::io::copy(&mut from, &mut stream).await {
        // Broken meanwhile: whoever reads it has answered or gone, and the answer says so.
        Ok(_) => drop(stream.finish().await),
        Err(error) => out::aside(&format!("({}: {error}: not all was sent)", path.display())),
    }
}

/// The body as given: text, `@FILE`, or `-` for stdin.
fn body(args: &Request) -> Result<Bytes, Stop> {
    let Some(given) = &args.body else { return Ok(Bytes::new()) };
    let text = given.to_string_lossy();
    if text == "-" {
        let mut bytes = Vec::new();
        io::stdin().read_to_end(&mut bytes).map_err(|e| Stop::io("stdin", &e))?;
        return Ok(Bytes::from(bytes));
    }
    match text.strip_prefix('@') {
        Some(path) => {
            let read = fs::read(Path::new(path));
            read.map(Bytes::from).map_err(|e| Stop::io(path, &e))
        }
        None => Ok(Bytes::copy_from_slice(given.as_encoded_bytes())),
    }
}
