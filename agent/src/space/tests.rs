use coral_api::{NodeImages, NodeImagesSpec, node_images::FilesystemUsage};
use jiff::Timestamp;
use serde_json::json;

use super::*;
use crate::{containerd, runtime::Inventory};

const NOW: Timestamp = Timestamp::UNIX_EPOCH;
const MIB: i64 = KIB * KIB;

/// A node that wants the image `a` and has this much space.
fn situation(free: i64, capacity: i64) -> Situation {
    let entry = |image: &str| serde_json::from_value(json!({"image": image})).unwrap();
    let images = ["a", "b"].map(entry).to_vec();
    let mut situation = Situation::default();
    let spec = NodeImagesSpec { paused: None, images };
    situation.asked(Some(&NodeImages::new("node-1", spec)), NOW);
    situation.looked(NOW, Inventory::new());
    has(&mut situation, free, capacity);
    situation
}

fn has(situation: &mut Situation, free: i64, capacity: i64) {
    situation.filesystem = Some(FilesystemUsage {
        used_bytes: 0,
        free_bytes: Some(free),
        capacity_bytes: Some(capacity),
    });
}

fn admission(situation: &Situation, running: &[&str]) -> Admission {
    let running: Vec<String> = running.iter().map(ToString::to_string).collect();
    admit(situation, &situation.wanted[0], room(situation, &running))
}

#[test]
fn a_reserve_is_a_percentage_or_a_quantity() {
    for (text, of_a_gibibyte) in [
        ("15%", GIB / 100 * 15),
        ("0%", 0),
        ("0", 0),
        ("512", 512),
        ("10Gi", 10 * GIB),
        ("300Mi", 300 * MIB),
        ("2k", 2_000),
        ("1T", 1_000_000_000_000),
    ] {
        assert_eq!(text.parse::<Reserve>().unwrap().of(GIB), of_a_gibibyte, "{text}");
    }
    for text in [
        "",
        "%",
        "-1%",
        "100%",
        "1.5Gi",
        "10 Gi",
        "10Qi",
        "Gi",
        "9999999999Ti",
        "4000000000Ti",
    ] {
        assert!(text.parse::<Reserve>().is_err(), "{text}");
    }
}

#[test]
fn a_pull_begins_where_there_is_room_beside_the_reserve() {
    // Free, capacity and need; 15 % are the reserve.
    #[rustfmt::skip]
    let cases = [
        (100 * GIB, 200 * GIB, Need::Unasked, Admission::Go(0)),
        (80 * GIB, 200 * GIB, Need::Unasked, Admission::Ask),
        (80 * GIB, 200 * GIB, Need::Unknown, Admission::Go(0)),
        (80 * GIB, 200 * GIB, Need::Bytes(49 * GIB), Admission::Go(49 * GIB)),
        (80 * GIB, 200 * GIB, Need::Bytes(51 * GIB), Admission::Wait),
        (30 * GIB, 200 * GIB, Need::Unasked, Admission::Wait),
        (29 * GIB, 200 * GIB, Need::Unknown, Admission::Wait),
        (29 * GIB, 200 * GIB, Need::Bytes(1), Admission::Wait),
    ];
    for (free, capacity, need, expected) in cases {
        let mut situation = situation(free, capacity);
        situation.measured("a", need);
        assert_eq!(admission(&situation, &[]), expected, "{free} of {capacity}, {need:?}");
    }
}

#[test]
fn where_the_agent_does_not_see_the_file_system_it_does_not_ask_either() {
    let mut situation = situation(0, GIB);
    situation.filesystem = Some(FilesystemUsage::default());
    assert_eq!(admission(&situation, &[]), Admission::Go(0));
    situation.filesystem = None;
    assert_eq!(admission(&situation, &[]), Admission::Go(0));
}

#[test]
fn what_runs_takes_its_part() {
    let mut situation = situation(10 * GIB, 20 * GIB);
    situation.measured("a", Need::Bytes(5 * GIB));
    assert_eq!(admission(&situation, &["b"]), Admission::Go(5 * GIB));
    situation.measured("b", Need::Bytes(4 * GIB));
    assert_eq!(
        admission(&situation, &["b"]),
        Admission::Go(5 * GIB),
        "it is only asked for"
    );
    situation.pull_began("b", NOW);
    assert_eq!(admission(&situation, &["b"]), Admission::Wait);
    // What has arrived is not free any more.
    let arrived = |done| containerd::Bytes { done, total: 3 * GIB };
    situation.progressed(vec![("b".parse().unwrap(), arrived(3 * GIB))]);
    assert_eq!(admission(&situation, &["b"]), Admission::Go(5 * GIB));
    // Of a pull whose size nobody asked for the runtime tells.
    situation.measured("b", Need::Unasked);
    situation.progressed(vec![("b".parse().unwrap(), arrived(0))]);
    assert_eq!(admission(&situation, &["b"]), Admission::Wait);
}

#[test]
fn compressed_layers_stay_beside_unpacked_ones_with_containerd() {
    assert_eq!(needed(100 * MIB, true), 350 * MIB);
    assert_eq!(needed(100 * MIB, false), 250 * MIB);
}

#[test]
fn figures_are_told_anew_when_they_have_changed_noticeably() {
    let mut situation = situation(2 * GIB, 20 * GIB);
    let shortage = |situation: &Situation, before| shortage(situation, &situation.wanted[0], &[], before);
    let first = shortage(&situation, None);
    assert_eq!(
        first.unwrap().to_string(),
        "the image waits for space on the image filesystem: 2.0 GiB of 20.0 GiB are free; 2.9 GiB are to stay free"
    );
    has(&mut situation, 2 * GIB - 100 * MIB, 20 * GIB);
    assert_eq!(shortage(&situation, first), first);
    has(&mut situation, GIB, 20 * GIB);
    assert_ne!(shortage(&situation, first), first);
    has(&mut situation, 10 * GIB, 20 * GIB);
    assert_eq!(shortage(&situation, first), None);
    situation.measured("a", Need::Bytes(8 * GIB));
    assert_eq!(
        shortage(&situation, first).unwrap().to_string(),
        "the image waits for space on the image filesystem: it takes about 8.0 GiB, and 10.0 GiB of 20.0 GiB are free; \
         2.9 GiB are to stay free"
    );
}
