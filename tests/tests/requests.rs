//! Requests from the command line to real processes. That none is lost when members are killed, stopped or restarted is
//! shown in `grow.rs`.

use tests::members::Members;

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
}
