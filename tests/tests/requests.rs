//! Requests from the command line to real processes. That none is lost when members are killed, stopped or restarted is
//! shown in `grow.rs`.

use libring::{Data, Incoming, Node, Options, Response};
use tests::members::Members;
use tests::ports::Ports;
use tests::program::{Program, ring};

/// The command line asks owners, members and leaders, and says what came of it.
#[test]
fn the_command_line_asks() {
    let mut members = Members::new(3, 4);
    members.start_all();
    members.wait_led();
    let info = members.run(&["request", "monitoring/info", "--member", "member-2"]);
    assert!(info.ok().contains("\"name\":\"member-2\""), "{info:?}");
    let memory = members.run(&["request", "monitoring/memory", "--key", "some key", "--json"]);
    assert!(memory.ok().contains("resident"), "{memory:?}");
    let leader = members.run(&["request", "monitoring/info", "--partition", "p"]);
    assert!(leader.ok().contains("\"id\":"), "{leader:?}");
    let missing = members.run(&["request", "nobody/handles/this", "--key", "k"]);
    assert_eq!(missing.code, Some(5), "{missing:?}");
    assert!(missing.stderr.contains("nobody handles this route"), "{missing:?}");
    let nowhere = members.run(&["request", "monitoring/info"]);
    assert_eq!(nowhere.code, Some(2), "{nowhere:?}");
    let stranger = members.run(&["request", "monitoring/info", "--member", "nobody"]);
    assert_eq!(stranger.code, Some(2), "{stranger:?}");

    let owner = members.run(&["owner", "some key", "--json"]);
    let owner: serde_json::Value = serde_json::from_str(owner.ok()).expect("one line of JSON");
    let asked = members.run(&["request", "monitoring/info", "--key", "some key"]);
    let name = owner["owners"][0]["name"].as_str().expect("a name");
    assert!(asked.ok().contains(&format!("\"name\":\"{name}\"")), "{owner} {asked:?}");
    let line = members.run(&["owner", "some key", "--count", "2"]);
    let rows: Vec<&str> = line.ok().lines().collect();
    assert!(rows.len() == 3 && rows[1].contains(name), "{line:?}");
}

/// What `ring request` sends as a stream arrives whole, and its answer's headers are shown.
#[test]
fn the_command_line_sends_streams() {
    let ports = Ports::reserve(1);
    let runtime = tokio::runtime::Runtime::new().expect("threads");
    let options =
        Options { listen: Some(ports.address(0)), data: Data::Memory, ..Options::default() };
    let node = runtime.block_on(Node::open(options)).expect("it is alone");
    let count = |mut incoming: Incoming| async move {
        let mut bytes = 0;
        let mut reader = incoming.reader("data").expect("it is sent");
        while let Some(part) = reader.next().await? {
            bytes += part.len();
        }
        Ok(Response::new(bytes.to_string()).header("unit", "bytes"))
    };
    node.handle("count", count).expect("nobody else does");
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("file");
    std::fs::write(&file, vec![b'x'; 3 << 20]).expect("it can be written");
    let ask = |upload: &str| {
        let mut command = ring();
        command.args(["--connect", &ports.address(0), "request", "count", "--key", "k"]);
        command.args(["--show-headers", "--upload", upload]);
        Program::spawn(command).wait_exit()
    };
    assert_eq!(ask(&format!("data=@{}", file.display())).ok(), "unit: bytes\n3145728\n");
    assert_eq!(ask("data=@/no/such/file").code, Some(7));
    assert_eq!(ask("data").code, Some(2));
    runtime.block_on(node.close()).expect("it ends");
}
