//! `ring members` and `ring leave`: who is registered, and how to let one go.

use std::collections::BTreeMap;
use std::time::Duration;

use libring::{
    ChangeRefused, Error, Event, Failure, GroupId, Member, MemberId, MemberState, MemberStatus,
    Node, Standing,
};
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
    let (states, tags) = states(&node, &members).await;
    let state = |member: &Member| states.get(&member.id).map_or("unknown", |s| state(*s));
    let no_tags = Vec::new();
    let tags = |member: &Member| tags.get(&member.id).unwrap_or(&no_tags);
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
                "tags": tags(member).iter().cloned().collect::<BTreeMap<String, String>>(),
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
            show_tags(tags(member)),
        ]
    });
    let head = ["MEMBER", "ID", "ADDRESS", "WEIGHT", "STANDING", "STATE", "SHARDS", "TAGS"];
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
    let told = node.tell_to_leave(member.id, args.force).await;
    let status = told.map_err(|error| {
        if error != Error::Failed(Failure::Deadline) {
            return Stop::call(&what, &error);
        }
        let way_out = "start it, or wait: what a member holds that is away moves elsewhere by itself, after \
                       its --replace-after";
        let line = format!("{what}: it does not answer, so it cannot be told: {way_out}");
        Stop::new(Code::Unreachable, line)
    })?;
    let away = away(&node, &status);
    if args.force && !away.is_empty() && !common.json {
        out::line(format!(
            "given up: {}; what they and {} hold is left to the members that are there",
            away.join(", "),
            args.name
        ))?;
    }
    let mut look = tokio::time::interval(LOOK);
    while is_listed(&node, &member) {
        let event = tokio::select! {
            event = events.next() => event,
            _ = look.tick() => match stays(&node, &member).await {
                Some((reason, away)) => return Err(refused(&args.name, reason, &away)),
                None => continue,
            },
        };
        match event {
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

/// Why a member that was told to leave stays, and who is away, as it says itself.
async fn stays(node: &Node, member: &Member) -> Option<(ChangeRefused, Vec<String>)> {
    let status = node.status(member.id).await.ok()?;
    Some((status.stays?, away(node, &status)))
}

/// Names of the registered members that a member is not connected to.
fn away(node: &Node, status: &MemberStatus) -> Vec<String> {
    let is_here = |id| id == status.member || status.connected.contains(&id);
    let away = node.members().into_iter().filter(|member| !is_here(member.id));
    away.map(|member| member.name).collect()
}

fn refused(name: &str, reason: ChangeRefused, away: &[String]) -> Stop {
    let why = match reason {
        ChangeRefused::NoMajority => {
            let away = away.join(", ");
            format!(
                "with {away} away there would be no majority without \"{name}\" for what they hold: start {away} \
                 first, or use --force, which gives up {away}: what they hold is then left to the members that \
                 are there, to a single one at worst"
            )
        }
        ChangeRefused::NameTaken
        | ChangeRefused::IdTaken
        | ChangeRefused::Full
        | ChangeRefused::LastMember => reason.to_string(),
    };
    Stop::new(Code::Refused, format!("\"{name}\" cannot leave: {why}"))
}

/// A client that knows the directory, if a member can tell it within its patience.
pub(crate) async fn connect_and_learn(common: &Common) -> Result<Node, Stop> {
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

/// What the member that answers first thinks of all of them, for a client does not gossip; and what those that are alive
/// say of themselves.
pub(crate) async fn states(
    node: &Node,
    members: &[Member],
) -> (BTreeMap<MemberId, MemberState>, BTreeMap<MemberId, Vec<(String, String)>>) {
    let mut asked = JoinSet::new();
    for id in members.iter().map(|member| member.id) {
        let node = node.clone();
        asked.spawn(async move { node.status(id).await });
    }
    let (mut states, mut tags) = (BTreeMap::new(), BTreeMap::new());
    while let Some(answer) = asked.join_next().await {
        let Ok(Ok(status)) = answer else { continue };
        tags.insert(status.member, status.tags);
        if states.is_empty() {
            let own = (status.member, MemberState::Alive);
            states = status.members.into_iter().chain([own]).collect();
        }
        // Who is away would only be waited for.
        let is_owed = |(id, state): (&MemberId, &MemberState)| {
            *state == MemberState::Alive && !tags.contains_key(id)
        };
        if !states.iter().any(is_owed) {
            break;
        }
    }
    (states, tags)
}

fn show_tags(tags: &[(String, String)]) -> String {
    let shown: Vec<String> =
        tags.iter().map(|(name, value)| out::show(format!("{name}={value}").as_bytes())).collect();
    shown.join(",")
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

/// How often a member that leaves is asked whether it may.
const LOOK: Duration = Duration::from_millis(200);
