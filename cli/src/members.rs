//! `ring members` and `ring leave`: who is registered, and how to let one go.

use std::time::Duration;

use libring::{Event, GroupId, Node, Registered, Standing};
use serde_json::json;

use crate::args::{Common, Leave};
use crate::connect::connect;
use crate::out;
use crate::stop::{Code, Stop};

/// Shows the registered members, from the directory itself.
pub(crate) async fn run(common: &Common) -> Result<(), Stop> {
    let node = connect_and_learn(common).await?;
    let members = node.members();
    let held = |member: &Registered| {
        let table = node.directory();
        table.map_or(0, |table| {
            let shards = table.groups.iter().filter(|group| group.group != GroupId::DIRECTORY);
            shards.filter(|group| group.on_member(member.id).is_some()).count()
        })
    };
    if common.json {
        let members = members.iter().map(|member| {
            json!({
                "name": member.name,
                "id": member.id.0,
                "address": member.address,
                "weight": member.weight,
                "standing": standing(member.standing),
                "shards": held(member),
            })
        });
        return out::json(&json!({ "members": members.collect::<Vec<_>>() }));
    }
    let rows = members.iter().map(|member| {
        vec![
            member.name.clone(),
            member.id.to_string(),
            member.address.clone(),
            member.weight.to_string(),
            String::from(standing(member.standing)),
            held(member).to_string(),
        ]
    });
    let head = ["MEMBER", "ID", "ADDRESS", "WEIGHT", "STANDING", "SHARDS"];
    out::write(out::table(&head, rows.collect()).as_bytes())
}

/// Tells a member to leave, and waits until it has left.
pub(crate) async fn leave(common: &Common, args: &Leave) -> Result<(), Stop> {
    let node = connect_and_learn(common).await?;
    let mut events = node.events();
    let found = node.members().into_iter().find(|member| member.name == args.name);
    let Some(member) = found else {
        return Err(Stop::new(Code::No, format!("no member is called \"{}\"", args.name)));
    };
    let others = node.members().iter().filter(|m| m.standing == Standing::Active).count();
    if others <= 1 {
        let why = "it is the only member that holds the data: stop it instead";
        return Err(Stop::new(Code::Refused, format!("\"{}\" cannot leave: {why}", args.name)));
    }
    let what = format!("leave of \"{}\"", args.name);
    node.tell_to_leave(member.id).await.map_err(|e| Stop::call(&what, &e))?;
    while is_listed(&node, &member) {
        match events.next().await {
            Some(Event::DirectoryChanged { table }) if !common.json => {
                out::line(format!("directory {}: {} on the move", table.version, table.moving()))?;
            }
            Some(_) => {}
            None => {
                return Err(Stop::new(Code::Unreachable, format!("{what}: the cluster is lost")));
            }
        }
    }
    match common.json {
        true => out::json(&json!({ "left": args.name })),
        false => out::line(format!("{} has left", args.name)),
    }
}

/// A client that knows the directory, if a member can tell it within its patience.
async fn connect_and_learn(common: &Common) -> Result<Node, Stop> {
    let patience = common.timeout_or(Duration::from_secs(3));
    let node = connect(common, patience).await?;
    await_directory(&node, patience).await;
    Ok(node)
}

/// Waits until this node was told of the directory. Members that have just been started know none before its leader is
/// elected.
pub(crate) async fn await_directory(node: &Node, patience: Duration) {
    let mut events = node.events();
    let told = async { while node.directory().is_none() && events.next().await.is_some() {} };
    // Without it the founders are shown, as the genesis names them.
    let _ = tokio::time::timeout(patience, told).await;
}

fn is_listed(node: &Node, member: &Registered) -> bool {
    node.members().iter().any(|listed| listed.id == member.id)
}

fn standing(standing: Standing) -> &'static str {
    match standing {
        Standing::Active => "active",
        Standing::Leaving => "leaving",
        Standing::Lost => "lost",
    }
}
