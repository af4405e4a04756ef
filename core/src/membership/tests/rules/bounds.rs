//! What is refused, and what datagrams look like.

use super::*;

#[test]
fn bad_configurations_name_their_field() {
    let check = |change: fn(&mut Config)| {
        let mut config = Config::new(CLUSTER);
        change(&mut config);
        config.check().map_err(|error| error.field)
    };
    assert_eq!(check(|_| {}), Ok(()));
    assert_eq!(check(|config| config.period = Duration::ZERO), Err("period"));
    assert_eq!(check(|config| config.probe_timeout = secs(2)), Err("probe_timeout"));
    assert_eq!(check(|config| config.ping_timeout = config.probe_timeout), Err("ping_timeout"));
    assert_eq!(check(|config| config.ping_timeout_min = secs(1)), Err("ping_timeout_min"));
    assert_eq!(check(|config| config.indirect_probes = 99), Err("indirect_probes"));
    assert_eq!(check(|config| config.transmissions = 0), Err("transmissions"));
    assert_eq!(check(|config| config.datagram_bytes = 500), Err("datagram_bytes"));
    assert_eq!(check(|config| config.dead_max = 0), Err("dead_max"));
}

#[test]
fn profiles_out_of_bounds_are_refused() {
    let check = |change: fn(&mut Profile)| {
        let mut one = profile(1);
        change(&mut one);
        one.check()
    };
    assert_eq!(check(|_| {}), Ok(()));
    assert_eq!(check(|one| one.name.clear()), Err(ProfileError::Name { len: 0 }));
    let long = check(|one| one.name = "x".repeat(256));
    assert_eq!(long, Err(ProfileError::Name { len: 256 }));
    let many = check(|one| {
        one.tags = (100..133).map(|tag| (format!("{tag}"), "".into())).collect();
    });
    assert_eq!(many, Err(ProfileError::Tags { count: 33 }));
    let twice =
        check(|one| one.tags = alloc::vec![("a".into(), "".into()), ("a".into(), "".into())]);
    assert_eq!(twice, Err(ProfileError::TagOrder { key: "a".into() }));
    let large = check(|one| one.tags = alloc::vec![("a".into(), "x".repeat(500))]);
    assert!(matches!(large, Err(ProfileError::TooLarge { len }) if len > PROFILE_BYTES_MAX));
}

/// Golden bytes: a protocol version is these bytes.
#[test]
fn datagrams_look_the_same_for_ever() {
    let bytes =
        datagram(ClusterId(2), 3, Incarnation(4), 5, Body::Ping { to: MemberId(6).into() }, &[]);
    let mut expected = [0; 38];
    (expected[0], expected[8], expected[16], expected[24]) = (2, 3, 5, 4);
    (expected[32], expected[33], expected[34]) = (1, 0, 6);
    assert_eq!(bytes, expected);

    let updates = [
        Update::Alive {
            member: MemberId(1),
            incarnation: Incarnation(2),
            profile: Profile {
                name: "n".into(),
                datagram: "1.2.3.4:5".parse().unwrap(),
                stream: "[::1]:6".parse().unwrap(),
                weight: 7,
                tags: alloc::vec![("k".into(), "v".into())],
            },
        },
        suspect(1, Incarnation(2), &[3]),
        dead(1, Incarnation(2)),
        left(1, Incarnation(2)),
    ];
    let bytes = datagram(CLUSTER, 3, Incarnation(4), 5, Body::Gossip, &updates);
    let expected = [
        [8].as_slice(),
        &[0, 1, 2, 0, 0, 0, 0, 0, 0, 0, 1, b'n', 0, 1, 2, 3, 4, 5],
        &[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 6, 7, 1, 1, b'k', 1, b'v'],
        &[1, 1, 2, 0, 0, 0, 0, 0, 0, 0, 1, 3],
        &[2, 1, 2, 0, 0, 0, 0, 0, 0, 0],
        &[3, 1, 2, 0, 0, 0, 0, 0, 0, 0],
    ];
    assert_eq!(bytes[33..], expected.concat());
}
