//! `include/mqtt_handler.h`, made from the sources.

use std::fmt::Write;

use crate::source::{Numbers, Source, Struct, snake};

/// What stands before everything else.
const HEAD: &str = r#"/*
 * The boundary between the MQTT broker `host` and its plugins, for plugins that are not written in Rust.
 *
 * Generated from plugin-api/src, and checked against it with a C compiler: do not edit. The rules stand in
 * plugin-api/ABI.md: who frees what, which thread may do what, what may grow in a later version.
 *
 * A plugin is a shared library with one symbol:
 *
 *     const mqtt_plugin MQTT_PLUGIN_SYMBOL = { MQTT_PLUGIN_HEAD, .name = MQTT_TEXT("my-plugin"), ... };
 *
 * A function that is NULL is a callback that the plugin does not implement, and costs nothing. It is no opinion, and what no
 * plugin has an opinion about is allowed. With one exception: plugins that decide who may connect (`handle_connect`,
 * `handle_auth`) and on one of publishing (`handle_publish`) and subscribing (`handle_subscribe`, or `handle_deliver`) refuse
 * the other one with 0x87 at listeners that other machines reach, unless the host is told otherwise (`--undecided allow`).
 * Implement both, if only to agree.
 */
#ifndef MQTT_HANDLER_H
#define MQTT_HANDLER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
"#;

/// What stands after everything else.
const TAIL: &str = r#"
/* The name of the symbol, and what its table begins with. */
#define MQTT_PLUGIN_SYMBOL mqtt_handler_plugin
#define MQTT_PLUGIN_HEAD .abi_major = MQTT_ABI_MAJOR, .abi_minor = MQTT_ABI_MINOR, .size = sizeof(mqtt_plugin)

#if defined(__GNUC__)
__attribute__((visibility("default")))
#endif
extern const mqtt_plugin MQTT_PLUGIN_SYMBOL;

/* Text and bytes of a string literal, for initialisers. */
#define MQTT_TEXT(literal) { (const uint8_t *)(literal), sizeof(literal) - 1 }

/* The bit of a callback in `callbacks` and `blocking`. */
#define MQTT_CALLBACK_BIT(callback) (UINT64_C(1) << (callback))

/* Whether a table of the host's has an entry: tables of older hosts end earlier. */
#define MQTT_HAS_SERVICE(host, entry) \
    ((host).services->size >= offsetof(mqtt_services, entry) + sizeof((host).services->entry))

/* Whether a struct that begins with its `size` has a field: those of older hosts end earlier. `type` is that of the struct. */
#define MQTT_HAS_FIELD(type, pointer, field) \
    ((pointer)->size >= offsetof(type, field) + sizeof((pointer)->field))

#ifdef __cplusplus
}
#endif

#endif
"#;

/// What the two tables begin with in C, where abi_stable does not describe them.
pub(crate) const TABLE_HEAD: [(&str, &str, &str); 3] = [
    ("abi_major", "u32", "MQTT_ABI_MAJOR: with another one, nothing that follows means anything."),
    ("abi_minor", "u32", "MQTT_ABI_MINOR."),
    ("size", "usize", "Bytes of the table. What lies behind them is absent."),
];

/// The two tables.
pub(crate) const TABLES: [&str; 2] = ["PluginVt", "HostVt"];

pub(crate) fn header(source: &Source) -> String {
    let mut out = HEAD.to_owned();
    let version = env!("CARGO_PKG_VERSION").split('.').collect::<Vec<_>>();
    write!(out, "\n#define MQTT_ABI_MAJOR {}\n#define MQTT_ABI_MINOR {}\n", version[0], version[1]).unwrap();
    out.push_str("\n/* Bytes, and UTF-8 text; valid for the length of one call. Where there are none, the pointer means nothing. */\n");
    out.push_str("typedef struct mqtt_bytes {\n    const uint8_t *data;\n    size_t length;\n} mqtt_bytes;\n");
    out.push_str("typedef mqtt_bytes mqtt_text;\n");
    for group in &source.numbers {
        numbers(&mut out, source, group);
    }
    out.push('\n');
    for item in &source.structs {
        let name = c_name(&item.name);
        writeln!(out, "typedef struct {name} {name};").unwrap();
    }
    let mut slices = Vec::new();
    for item in &source.structs {
        for field in &item.fields {
            slice_types(&mut out, &field.its_type, &mut slices);
        }
        structure(&mut out, source, item);
    }
    out.push_str(TAIL);
    out
}

fn numbers(out: &mut String, source: &Source, group: &Numbers) {
    out.push('\n');
    if !group.docs.is_empty() {
        comment(out, source, "", &group.docs);
    }
    if is_number(&group.of) {
        writeln!(out, "typedef uint8_t {};", c_name(&group.of)).unwrap();
    }
    out.push_str("enum {\n");
    for number in &group.list {
        comment(out, source, "    ", &number.docs);
        let value = if group.of == "ReasonCode" { format!("{:#04x}", number.value) } else { number.value.to_string() };
        writeln!(out, "    {} = {value},", constant(&group.of, &number.name)).unwrap();
    }
    out.push_str("};\n");
}

/// Types of their own that are numbers in C.
fn is_number(name: &str) -> bool {
    ["Verdict", "AnswerKey", "Status"].contains(&name)
}

fn structure(out: &mut String, source: &Source, item: &Struct) {
    out.push('\n');
    comment(out, source, "", &item.docs);
    writeln!(out, "struct {} {{", c_name(&item.name)).unwrap();
    if TABLES.contains(&item.name.as_str()) {
        for (name, its_type, doc) in TABLE_HEAD {
            writeln!(out, "    /* {doc} */\n    {};", declaration(its_type, name)).unwrap();
        }
    }
    for field in &item.fields {
        if !field.docs.is_empty() {
            comment(out, source, "    ", &field.docs);
        }
        writeln!(out, "    {};", declaration(&field.its_type, &field.name)).unwrap();
    }
    out.push_str("};\n");
}

/// Slices of something other than bytes get a type of their own.
fn slice_types(out: &mut String, its_type: &str, done: &mut Vec<String>) {
    for (start, _) in its_type.match_indices("RSlice<") {
        let rest = &its_type[start..];
        let name = c_type(&rest[..closing(rest)]);
        if name != "mqtt_bytes" && !done.contains(&name) {
            let element = element(&rest[..closing(rest)]);
            let element = c_type(element);
            write!(out, "\ntypedef struct {name} {{\n    const {element} *data;\n    size_t length;\n}} {name};\n")
                .unwrap();
            done.push(name);
        }
    }
}

/// Where the generic type that `text` begins with ends.
fn closing(text: &str) -> usize {
    let mut depth = 0;
    for (index, c) in text.char_indices() {
        match c {
            '<' => depth += 1,
            '>' => depth -= 1,
            _ => {}
        }
        if c == '>' && depth == 0 {
            return index + 1;
        }
    }
    panic!("`{text}` is not closed")
}

/// `RSlice<'a, T>` to `T`.
fn element(slice: &str) -> &str {
    let inner = &slice["RSlice<".len()..slice.len() - 1];
    inner.split_once(", ").expect("a lifetime comes first").1
}

/// A type with its generic arguments taken away.
fn base(its_type: &str) -> &str {
    its_type.split('<').next().unwrap_or(its_type)
}

pub(crate) fn c_name(name: &str) -> String {
    match name {
        "AnswerKey" => "mqtt_key".into(),
        "PluginVt" => "mqtt_plugin".into(),
        "HostVt" => "mqtt_services".into(),
        other => format!("mqtt_{}", snake(other.strip_prefix("Raw").unwrap_or(other))),
    }
}

/// The name of a constant.
pub(crate) fn constant(of: &str, name: &str) -> String {
    let group = match of {
        "" => String::new(),
        "ReasonCode" => "REASON_".into(),
        "HostVt" => "METRIC_".into(),
        other => format!("{}_", c_name(other)["mqtt_".len()..].to_uppercase()),
    };
    format!("MQTT_{group}{name}")
}

pub(crate) fn c_type(its_type: &str) -> String {
    if let Some(rest) = its_type.strip_prefix("Option<") {
        return c_type(&rest[..rest.len() - 1]);
    }
    if let Some(rest) = its_type.strip_prefix('&') {
        let rest = rest.strip_prefix(|_| rest.starts_with('\'')).map_or(rest, |rest| {
            rest.split_once(' ').map_or(rest, |(_, rest)| rest) // a lifetime
        });
        return match rest.strip_prefix("mut ") {
            Some(rest) => format!("{} *", c_type(rest)),
            None => format!("const {} *", c_type(rest)),
        };
    }
    match base(its_type) {
        "u8" => "uint8_t".into(),
        "u16" => "uint16_t".into(),
        "u32" => "uint32_t".into(),
        "u64" => "uint64_t".into(),
        "f64" => "double".into(),
        "bool" => "bool".into(),
        "usize" => "size_t".into(),
        "Opaque" => "void *".into(),
        "*const c_void" => "const void *".into(),
        "HostVtRef" => "const mqtt_services *".into(),
        "RStr" => "mqtt_text".into(),
        "RSlice" => match element(its_type) {
            "u8" => "mqtt_bytes".into(),
            "u32" => "mqtt_u32_slice".into(),
            "RStr<'a>" => "mqtt_text_slice".into(),
            other => format!("{}_slice", c_type(other)),
        },
        name if name.starts_with("Raw") || ["Sink", "Reply"].contains(&name) || is_number(name) => c_name(name),
        other => panic!("how is `{other}` called in C?"),
    }
}

/// A field or a function pointer of a type.
pub(crate) fn declaration(its_type: &str, name: &str) -> String {
    if let Some(array) = its_type.strip_prefix('[') {
        let (of, count) = array.trim_end_matches(']').split_once("; ").expect("[type; count]");
        return format!("{} {name}[{count}]", c_type(of));
    }
    let Some(rest) = its_type.strip_prefix("unsafe extern \"C\" fn(") else {
        let its_type = c_type(its_type);
        let space = if its_type.ends_with('*') { "" } else { " " };
        return format!("{its_type}{space}{name}");
    };
    let (parameters, result) = rest.rsplit_once(") -> ").unwrap_or((rest.trim_end_matches(')'), "void"));
    let result = if result == "void" { result.to_owned() } else { c_type(result) };
    let space = if result.ends_with('*') { "" } else { " " };
    let parameters: Vec<String> = split(parameters).into_iter().map(c_type).collect();
    format!("{result}{space}(*{name})({})", parameters.join(", "))
}

/// Splits a list at its commas, but not at those inside of `<…>`.
fn split(list: &str) -> Vec<&str> {
    let (mut parts, mut start, mut depth) = (Vec::new(), 0, 0);
    for (index, c) in list.char_indices() {
        match c {
            '<' => depth += 1,
            '>' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(list[start..index].trim());
                start = index + 1;
            }
            _ => {}
        }
    }
    parts.push(list[start..].trim());
    parts.into_iter().filter(|part| !part.is_empty()).collect()
}

/// Writes documentation as a comment of C, in lines of at most 116 columns.
fn comment(out: &mut String, source: &Source, indent: &str, docs: &[String]) {
    let text = in_c_words(source, &docs.join(" "));
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let last = lines.last_mut().expect("there is one");
        if last.len() + word.len() + indent.len() > 110 {
            lines.push(word.to_owned());
        } else {
            last.push_str(if last.is_empty() { "" } else { " " });
            last.push_str(word);
        }
    }
    writeln!(out, "{indent}/* {} */", lines.join(&format!("\n{indent} * "))).unwrap();
}

/// Links of Rust's documentation become names of C.
fn in_c_words(source: &Source, text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("[`") {
        let (link, after) = after.split_once("`]").expect("a link is closed");
        let after = match after.strip_prefix('(') {
            Some(address) => address.split_once(')').expect("an address is closed").1,
            None => after,
        };
        out.push_str(before);
        out.push_str(&word(source, link));
        rest = after;
    }
    out + rest
}

fn word(source: &Source, link: &str) -> String {
    let (of, name) = link.split_once("::").unwrap_or(("", link));
    let is_number = |of: &str, name: &str| {
        source.numbers.iter().any(|group| group.of == of && group.list.iter().any(|number| number.name == name))
    };
    if is_number(of, name) {
        constant(of, name)
    } else if source.find(of).is_some() {
        name.to_owned() // an entry of a table
    } else if source.find(link).is_some() {
        c_name(link)
    } else if source.numbers.iter().any(|group| group.of == link) {
        format!("{}...", constant(link, ""))
    } else {
        link.to_owned()
    }
}
