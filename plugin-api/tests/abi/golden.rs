//! `abi.golden`: every layout and number of the boundary, and what may be appended to it.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::mem::{align_of, size_of};

use abi_stable::StableAbi;
use abi_stable::std_types::{RSlice, RStr};
use plugin_api::abi::{
    AnswerKey, HostVt, HostVtRef, Opaque, PluginVt, RawAck, RawAlternativeName, RawAuth, RawCertificate, RawConnect,
    RawConnected, RawConnectionInfo, RawDeliver, RawDisconnect, RawField, RawHeader, RawHost, RawHttp, RawInfo,
    RawInfoRequest, RawMessage, RawMessageNotice, RawPeer, RawPiece, RawPublish, RawQuery, RawRetained, RawState,
    RawSubscribe, RawSubscribeRequest, RawSubscription, RawSwapped, RawTarget, RawTls, RawTransport, RawUnixPeer,
    RawUnsubscribe, Reply, Sink, Status, Verdict,
};

use crate::header::TABLES;
use crate::source::{Source, Struct};

/// Size and alignment, as rustc has them.
type Size = (usize, usize);

macro_rules! sizes {
    ($($its_type:ty),* $(,)?) => {
        [$((stringify!($its_type), (size_of::<$its_type>(), align_of::<$its_type>()))),*]
    };
}

/// What rustc says of every type that crosses.
#[allow(elided_lifetimes_in_paths)] // The names are compared with those in the sources, without their arguments.
fn sizes() -> BTreeMap<&'static str, Size> {
    let sizes = sizes![
        u8,
        u16,
        u32,
        u64,
        usize,
        f64,
        bool,
        Opaque,
        RStr,
        RSlice<u8>,
        Verdict,
        AnswerKey,
        Status,
        HostVtRef,
        Sink,
        Reply,
        RawPiece,
        RawPeer,
        RawConnectionInfo,
        RawConnect,
        RawAuth,
        RawPublish,
        RawSubscription,
        RawSubscribe,
        RawUnsubscribe,
        RawAck,
        RawInfo,
        RawDisconnect,
        RawMessage,
        RawConnected,
        RawDeliver,
        RawMessageNotice,
        RawRetained,
        RawState,
        RawSwapped,
        RawTarget,
        RawInfoRequest,
        RawQuery,
        RawSubscribeRequest,
        RawField,
        RawTransport,
        RawTls,
        RawCertificate,
        RawAlternativeName,
        RawHttp,
        RawHeader,
        RawUnixPeer,
        RawHost,
        HostVt,
        PluginVt,
    ];
    // `RStr<'a>` is found as `RStr`.
    sizes.into_iter().map(|(name, size)| (name.split('<').next().unwrap_or(name), size)).collect()
}

/// A struct with the places of its fields, by the rules of `repr(C)`.
pub(crate) struct Layout {
    pub(crate) name: String,
    pub(crate) size: usize,
    pub(crate) align: usize,
    /// Offset, name, type.
    pub(crate) fields: Vec<(usize, String, String)>,
}

pub(crate) fn layouts(source: &Source) -> Vec<Layout> {
    let sizes = sizes();
    source.structs.iter().map(|item| layout(item, &sizes)).collect()
}

fn layout(item: &Struct, sizes: &BTreeMap<&str, Size>) -> Layout {
    let (mut end, mut align, mut fields) = (0_usize, 1, Vec::new());
    for field in &item.fields {
        let (field_size, field_align) = size_of_type(&field.its_type, sizes);
        let offset = end.next_multiple_of(field_align);
        fields.push((offset, field.name.clone(), field.its_type.clone()));
        (end, align) = (offset + field_size, align.max(field_align));
    }
    let size = end.next_multiple_of(align);
    let said = sizes.get(item.name.as_str());
    let said = said.unwrap_or_else(|| panic!("{} is not among `sizes` in golden.rs: add it", item.name));
    assert_eq!(*said, (size, align), "{}: rustc's size and alignment, and those of its fields in repr(C)", item.name);
    Layout { name: item.name.clone(), size, align, fields }
}

fn size_of_type(its_type: &str, sizes: &BTreeMap<&str, Size>) -> Size {
    let pointer = (size_of::<Opaque>(), align_of::<Opaque>());
    if let Some(array) = its_type.strip_prefix('[') {
        let (of, count) = array.trim_end_matches(']').split_once("; ").expect("[type; count]");
        let (size, align) = size_of_type(of, sizes);
        return (size * count.parse::<usize>().expect("a number"), align);
    }
    if ["*const ", "&", "Option<&", "unsafe extern"].iter().any(|start| its_type.starts_with(start)) {
        return pointer;
    }
    let name = its_type.split('<').next().unwrap_or(its_type);
    *sizes.get(name).unwrap_or_else(|| panic!("the size of `{its_type}`: add it to `sizes` in golden.rs"))
}

/// The text of the file.
pub(crate) fn golden(source: &Source) -> String {
    let mut out = String::from(
        "# The boundary between host and plugins, as it is frozen: see ABI.md. Made by tests/abi, and checked there.\n\
         # What stands here stays. New lines may be appended to tables, prefixes and numbers; types may be added.\n",
    );
    let slice = <RSlice<'static, u8> as StableAbi>::LAYOUT;
    let parts: Vec<&str> = slice.get_fields().expect("a struct").iter().map(|field| field.name()).collect();
    assert_eq!(parts, ["data", "length", "_marker"], "what C is told of slices");
    writeln!(out, "\nstruct RSlice<'a, T> size {} align {}", slice.size(), slice.alignment()).unwrap();
    out.push_str("  0 data: *const T\n  8 length: usize\n");
    writeln!(out, "\nstruct RStr<'a> size {} align {}", size_of::<RStr<'_>>(), align_of::<RStr<'_>>()).unwrap();
    out.push_str("  0 inner: RSlice<'a, u8>\n");
    for Layout { name, size, align, fields } in layouts(source) {
        if TABLES.contains(&name.as_str()) {
            writeln!(out, "\ntable {name} align {align}").unwrap();
        } else if fields.first().is_some_and(|(_, name, its_type)| name == "size" && its_type == "usize") {
            writeln!(out, "\nprefix {name} align {align}").unwrap();
        } else {
            writeln!(out, "\nstruct {name} size {size} align {align}").unwrap();
        }
        for (offset, name, its_type) in fields {
            writeln!(out, "  {offset} {name}: {its_type}").unwrap();
        }
    }
    for group in &source.numbers {
        writeln!(out, "\nnumbers {}", if group.of.is_empty() { "of no type" } else { &group.of }).unwrap();
        for number in &group.list {
            writeln!(out, "  {} = {}", number.name, number.value).unwrap();
        }
    }
    out
}

/// What `new` takes away from `old`, or changes in it: nothing, if something was only appended.
pub(crate) fn broken(old: &str, new: &str) -> Vec<String> {
    let new = sections(new);
    let mut broken = Vec::new();
    for (head, old_lines) in sections(old) {
        let Some(new_lines) = new.get(head) else {
            broken.push(format!("`{head}` is not there any more"));
            continue;
        };
        let kept: Vec<bool> = old_lines
            .iter()
            .enumerate()
            .map(|(index, line)| {
                // A number may stand anywhere, an entry of a table or a field only in its place.
                if head.starts_with("numbers") { new_lines.contains(line) } else { new_lines.get(index) == Some(line) }
            })
            .collect();
        for (line, _) in old_lines.iter().zip(kept).filter(|(_, kept)| !kept) {
            broken.push(format!("`{}` of `{head}` is not there any more, or in another place", line.trim()));
        }
        if head.starts_with("struct") && new_lines.len() > old_lines.len() {
            broken.push(format!("`{head}` has another field: views are closed, they grow behind `extension`"));
        }
        if head.starts_with("numbers") {
            broken.extend(twice(head, new_lines));
        }
    }
    broken
}

/// Numbers that two names have.
fn twice(head: &str, lines: &[&str]) -> Vec<String> {
    let mut names = BTreeMap::new();
    let mut twice = Vec::new();
    for line in lines {
        let (name, value) = line.trim().split_once(" = ").expect("NAME = value");
        // Constants of a view belong to several of its fields, told apart by the first word.
        let family = if head.contains("Raw") || head.ends_with("of no type") {
            name.split('_').next().unwrap_or(name)
        } else {
            ""
        };
        if let Some(other) = names.insert((family.to_owned(), value), name) {
            twice.push(format!("{name} and {other} of `{head}` are both {value}"));
        }
    }
    twice
}

fn sections(text: &str) -> BTreeMap<&str, Vec<&str>> {
    let mut sections = BTreeMap::<&str, Vec<&str>>::new();
    let mut head = "";
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if line.starts_with(' ') {
            sections.entry(head).or_default().push(line);
        } else {
            head = line;
            sections.entry(head).or_default();
        }
    }
    sections
}
