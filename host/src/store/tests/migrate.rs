//! What older hosts have written is what this one has.

use super::*;
use crate::durable::model::layout::{HEAD_KEY, Head};
use crate::durable::model::tests::Writing;

/// Makes of a store what a host of version 0 would have written.
fn make_old(place: &Place) {
    let disk = place.disk();
    for name in disk.names().unwrap().iter().filter(|name| segment::number_of(name).is_some()) {
        let path = place.0.join(name);
        let bytes = std::fs::read(&path).unwrap();
        let mut old = bytes[..48].to_vec();
        old[8..12].fill(0);
        let checksum = crc32fast::hash(&old[..40]);
        old[40..44].copy_from_slice(&checksum.to_le_bytes());
        old.extend_from_slice(&bytes[HEADER_BYTES as usize..]);
        std::fs::write(&path, old).unwrap();
    }
    let database = fjall::Database::builder(place.0.join(CHECKPOINT)).open().unwrap();
    let entries = database.keyspace("kept", fjall::KeyspaceCreateOptions::default).unwrap();
    let mut head = entries.get(HEAD_KEY).unwrap().unwrap().to_vec();
    head[..4].fill(0);
    head[12..20].copy_from_slice(&48_u64.to_le_bytes());
    entries.insert(HEAD_KEY, head).unwrap();
}

#[test]
fn what_an_older_host_has_kept_is_migrated_once_and_nothing_of_it_is_lost() {
    let place = Place::new();
    let mut writing = Writing::new(5);
    super::export::filled(&place, &mut writing, [40, 40]);
    make_old(&place);
    // One that was interrupted amid it.
    std::fs::write(place.0.join("0000000009.journal.new"), "MQTT").unwrap();
    let opened = Opened::open(&place.0).unwrap();
    let said = opened.migrated().unwrap().to_string();
    assert_eq!(said, "from version 0 to 1: 1 segments of the journal and the checkpoint");
    super::load::image(&opened).compare(&writing.plain, 5);
    drop(opened);
    // A machine that stops while something is written may do so before it is migrated.
    make_old(&place);
    let name = place.disk().names().unwrap().into_iter().find(|name| segment::number_of(name).is_some()).unwrap();
    let mut bytes = std::fs::read(place.0.join(&name)).unwrap();
    bytes.extend_from_slice(b"Grp1 torn");
    std::fs::write(place.0.join(&name), bytes).unwrap();
    let opened = Opened::open(&place.0).unwrap();
    assert_eq!((opened.tail().map(|tail| tail.bytes), opened.migrated().is_some()), (Some(9), true));
    super::load::image(&opened).compare(&writing.plain, 5);
    drop(opened);
    let opened = Opened::open(&place.0).unwrap();
    assert_eq!((opened.tail(), opened.migrated()), (None, None));
}

#[test]
fn checkpoint_of_version_0_may_end_anywhere_in_a_segment() {
    for (before, now) in [(48, HEADER_BYTES), (1048, HEADER_BYTES + 1000), (u64::MAX, u64::MAX)] {
        let head = Head { up_to: [3, before, 7], workers: 2, next_shared: 9 };
        let mut bytes = head.encode();
        assert_eq!(crate::store::migrate::head(&bytes), Ok(None), "it is of this version");
        bytes[..4].fill(0);
        assert_eq!(crate::store::migrate::head(&bytes).unwrap().unwrap().up_to, [3, now, 7]);
    }
}
