//! `ring owner`: whose a key is.

use libring::{Member, MemberId, MemberState, Node, Placement, slot_of};
use ring_core::ids::len_u64;
use serde_json::{Map, Value, json};

use crate::args::{Common, Owner};
use crate::members::{connect_and_learn, states};
use crate::out;
use crate::stop::{Code, Stop};

/// Shows who owns a key, and who would be next.
pub(crate) async fn run(common: &Common, args: &Owner) -> Result<(), Stop> {
    let node = connect_and_learn(common).await?;
    let key = args.key.as_encoded_bytes();
    let members = node.members();
    let alive = owning(&node, &members).await;
    let slot = slot_of(key);
    let owners = Placement::new(alive).owners(slot, usize::from(args.count));
    let owners: Vec<&Member> =
        owners.iter().filter_map(|id| members.iter().find(|member| member.id == *id)).collect();
    if owners.is_empty() {
        return Err(Stop::new(Code::No, "no member with a weight is alive: nobody owns a key"));
    }
    tell(common, (key, slot), &owners)
}

/// Who owns keys, as a member sees it: this client knows only whom it is connected to.
async fn owning(node: &Node, members: &[Member]) -> Vec<(MemberId, u16)> {
    let (states, _) = states(node, members).await;
    let is_present = |id| states.get(&id).is_some_and(|state: &MemberState| state.is_present());
    let present = members.iter().filter(|member| is_present(member.id));
    present.map(|member| (member.id, member.weight)).collect()
}

fn tell(common: &Common, (key, slot): (&[u8], u16), owners: &[&Member]) -> Result<(), Stop> {
    if common.json {
        let owners = owners.iter().map(
            |member| json!({ "name": member.name, "id": member.id.0, "address": member.address }),
        );
        let mut object = Map::new();
        out::put_bytes(&mut object, "key", key);
        object.insert(String::from("slot"), Value::from(slot));
        object.insert(String::from("owners"), owners.collect());
        return out::json(&Value::from(object));
    }
    let rows = owners.iter().zip(1..).map(|(member, line)| {
        vec![
            len_u64(line).to_string(),
            member.name.clone(),
            member.id.to_string(),
            member.address.clone(),
            slot.to_string(),
        ]
    });
    let head = ["IN LINE", "MEMBER", "ID", "ADDRESS", "SLOT"];
    out::write(out::table(&head, rows.collect()).as_bytes())
}
