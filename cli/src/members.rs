//! `ring members` and `ring leave`: who is registered, and how to let one go.

use std::collections::BTreeMap;
use std::time::Duration;

use libring::{Event, GroupId, Member, MemberId, MemberState, Node, Standing};
use serde_json::json;
use tokio::task::JoinSet;

use crate::args::{Common, Leave};
use crate::connect::connect;
use crate::out;
use crate::stop::{Code, Stop};

/// Shows the registered members, from the directory itself.
pub(crate) async fn run(common: &Common) -> Result<(), Stop> {
    let node = connect_and_learn(common).await?;
    let members = node.members();
    let states = states(&node, &members).await;
    let state = |member: &Member| states.get(&member.id).map_or("unknown", |s| state(*s));
    let held = |member: &Member| {
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
                "state": state(member),
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
            String::from(state(member)),
            held(member).to_string(),
        ]
    });
    let head = ["MEMBER", "ID", "ADDRESS", "WEIGHT", "STANDING", "STATE", "SHARDS"];
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

fn is_listed(node: &Node, member: &Member) -> bool {
    node.members().iter().any(|listed| listed.id == member.id)
}

/// What the member that answers first thinks of all of them: a client does not gossip.
async fn states(node: &Node, members: &[Member]) -> BTreeMap<MemberId, MemberState> {
    let mut asked = JoinSet::new();
    for id in members.iter().map(|member| member.id) {
        let node = node.clone();
        asked.spawn(async move { node.status(id).await });
    }
    while let Some(answer) = asked.join_next().await {
        if let Ok(Ok(status)) = answer {
            let own = (status.member, MemberState::Alive);
            return status.members.into_iter().chain([own]).collect();
        }
    }
    BTreeMap::new()
}

fn state(state: MemberState) -> &'static str {
    match state {
        MemberState::Alive => "alive",
        MemberState::Suspect => "suspect",
        MemberState::Dead => "failed",
        MemberState::Left => "left",
    }
}

fn standing(standing: Standing) -> &'static str {
    match standing {
        Standing::Active => "active",
        Standing::Leaving => "leaving",
        Standing::Lost => "lost",
    }
}
