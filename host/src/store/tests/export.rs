//! What is exported and imported is the same; what is not whole is not imported.

use std::io::Cursor;

use super::*;
use crate::durable::model::tests::Writing;

/// Journals in a store, some of them in its checkpoint, and the others behind it.
pub(super) fn filled(place: &Place, writing: &mut Writing, journals: [usize; 2]) {
    for (count, is_kept) in journals.into_iter().zip([true, false]) {
        let mut fill = Fill::new(Opened::open(&place.0).unwrap()).unwrap();
        (0..count).for_each(|_| fill.put(writing.next()).unwrap());
        if is_kept {
            fill.end().unwrap();
        }
    }
}

fn exported(place: &Place) -> String {
    let mut lines = Vec::new();
    let counts = export(&Opened::open(&place.0).unwrap(), &mut lines).unwrap();
    let lines = String::from_utf8(lines).unwrap();
    let of = |kind: &str| lines.matches(&format!("{{\"type\":\"{kind}\"")).count() as u64;
    assert_eq!((counts.sessions, counts.retained, counts.key_values), (of("session"), of("retained"), of("key_value")));
    lines
}

fn import_into(place: &Place, lines: &str) -> Result<String, String> {
    std::fs::create_dir_all(&place.0).unwrap();
    let imported = import(&place.0, &mut Cursor::new(lines.as_bytes()));
    imported.map(|counts| counts.to_string()).map_err(|error| error.to_string())
}

/// Line by line, so that the first difference is enough to read.
fn compare(one: &str, other: &str) {
    one.lines().zip(other.lines()).for_each(|(one, other)| assert_eq!(one, other));
    assert_eq!(one.len(), other.len());
}

#[test]
fn what_is_exported_and_imported_is_the_same() {
    for seed in 0..8 {
        let (from, to) = (Place::new(), Place::new());
        let mut writing = Writing::new(seed + 100);
        filled(&from, &mut writing, [60, 60]);
        let lines = exported(&from);
        import_into(&to, &lines).unwrap();
        compare(&lines, &exported(&to));
        let names = to.disk().names().unwrap();
        assert!(names.iter().all(|name| name.starts_with(CHECKPOINT)), "{names:?}");
        // What a server is given is what was kept.
        let image = super::load::image(&Opened::open(&from.0).unwrap());
        image.compare(&writing.plain, seed);
    }
}

#[test]
fn what_is_not_whole_is_not_imported() {
    let (from, to) = (Place::new(), Place::new());
    filled(&from, &mut Writing::new(7), [40, 0]);
    let lines = exported(&from);
    let count = lines.lines().count();
    let without = |number: usize| {
        let left = lines.lines().enumerate().filter(|(at, _)| *at != number);
        left.map(|(_, line)| format!("{line}\n")).collect::<String>()
    };
    for (text, at) in [
        (without(count - 1), count),
        (without(0), 1),
        (without(count / 2), 1),
        (lines[..lines.len() / 2].to_owned(), 1),
        (lines.replacen("\"qos\":", "\"qso\":", 1), 1),
    ] {
        // One that was interrupted before is not in the way.
        std::fs::create_dir_all(to.0.join("import.new/checkpoint")).unwrap();
        let error = import_into(&to, &text).unwrap_err();
        let number: usize = error.split([' ', ':']).nth(1).unwrap().parse().unwrap();
        assert!(error.starts_with("line ") && number >= at, "{error}");
        assert_eq!(to.disk().names().unwrap(), Vec::<String>::new());
    }
    import_into(&to, &lines).unwrap();
    let again = import_into(&to, &lines).unwrap_err();
    assert!(again.contains("is not empty: checkpoint is there"), "{again}");
    compare(&lines, &exported(&to));
}

/// Nothing was written, and so there was nothing to make a checkpoint of.
#[test]
fn export_of_nothing_is_imported() {
    let (from, to) = (Place::new(), Place::new());
    let lines = exported(&from);
    assert_eq!(lines.lines().count(), 2, "{lines}");
    let said = import_into(&to, &lines).unwrap();
    assert!(said.starts_with("0 sessions"), "{said}");
    let again = import_into(&to, &lines).unwrap_err();
    assert!(again.contains("is not empty"), "{again}");
    compare(&lines, &exported(&to));
}

/// A backup that somebody has sorted, or has added to.
#[test]
fn the_order_of_lines_is_free_where_nothing_depends_on_it() {
    let to = Place::new();
    let retained = |topic: &str| {
        format!("{{ \"message\":{{\"qos\":0, \"topic\":\"{topic}\",\"payload\":\"\"}}, \"type\":\"retained\"}}\n")
    };
    let lines = [
        "{\"type\":\"export\",\"format\":1,\"host\":\"by hand\"}\n",
        &retained("b"),
        "{\"type\":\"session\",\"client_id\":\"c\",\"expiry_secs\":60,\"expiry_secs_max\":60,\"ends_at_ms\":\"never\",\
         \"next_packet_id\":9}\n",
        &retained("a"),
        "{\"type\":\"queued\",\"client_id\":\"c\",\"qos\":1,\"message\":{\"topic\":\"t\",\"payload_base64\":\"MQ==\",\
         \"qos\":1}}\n",
        "{\"type\":\"end\",\"sessions\":1,\"subscriptions\":0,\"messages\":1,\"retained\":2,\"key_values\":0}\n",
    ];
    let said = import_into(&to, &lines.concat()).unwrap();
    assert_eq!(said, "1 sessions with 0 subscriptions, 1 messages for them, 2 retained messages, 0 values of plugins");
    assert!(exported(&to).contains("\"payload\":\"1\""));
}
