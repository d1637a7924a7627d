//! What the sources say about the boundary: structs, numbers and their documentation.
//!
//! rustfmt gives the sources one form, which is what is read here. Whatever is misread shows: rustc's own sizes and a C
//! compiler's are compared with it.

use std::fs;
use std::path::{Path, PathBuf};

/// Files that have structs and constants of the boundary, in the order in which C needs them.
const FILES: [&str; 5] = ["abi.rs", "abi/views.rs", "abi/transport.rs", "abi/host.rs", "abi/plugin.rs"];

/// Files that have numbers which cross, as an enumeration of the API.
const ENUMS: [(&str, &str); 8] = [
    ("callbacks.rs", "Callback"),
    ("view/connection.rs", "AuthStep"),
    ("view/connection.rs", "DisconnectKind"),
    ("view/message.rs", "AckKind"),
    ("view/notice.rs", "DropReason"),
    ("view/subscription.rs", "RetainHandling"),
    ("view/transport.rs", "TransportKind"),
    ("view/transport.rs", "NameKind"),
];

/// Everything that crosses.
pub(crate) struct Source {
    pub(crate) structs: Vec<Struct>,
    pub(crate) numbers: Vec<Numbers>,
}

pub(crate) struct Struct {
    pub(crate) name: String,
    pub(crate) docs: Vec<String>,
    pub(crate) fields: Vec<Field>,
}

pub(crate) struct Field {
    pub(crate) name: String,
    pub(crate) docs: Vec<String>,
    pub(crate) its_type: String,
}

/// Constants that belong together: those of a type, or of no type (an empty name).
pub(crate) struct Numbers {
    pub(crate) of: String,
    pub(crate) docs: Vec<String>,
    pub(crate) list: Vec<Number>,
}

pub(crate) struct Number {
    pub(crate) name: String,
    pub(crate) docs: Vec<String>,
    pub(crate) value: u64,
}

pub(crate) fn package() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn text(file: &str) -> String {
    let path = package().join("src").join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

impl Source {
    pub(crate) fn read() -> Self {
        let mut source = Self { structs: Vec::new(), numbers: Vec::new() };
        for file in FILES {
            source.items(&text(file));
        }
        for (file, name) in ENUMS {
            source.enumeration(&text(file), name);
        }
        source.reason_codes(&text("reason_code.rs"));
        source
    }

    pub(crate) fn find(&self, name: &str) -> Option<&Struct> {
        self.structs.iter().find(|item| item.name == name)
    }

    fn group(&mut self, of: &str, docs: &[String]) -> &mut Numbers {
        let index = self.numbers.iter().position(|group| group.of == of).unwrap_or_else(|| {
            self.numbers.push(Numbers { of: of.into(), docs: docs.to_vec(), list: Vec::new() });
            self.numbers.len() - 1
        });
        &mut self.numbers[index]
    }

    /// Structs, and constants in their `impl` blocks and outside of them.
    fn items(&mut self, text: &str) {
        let (mut docs, mut owner, mut in_struct) = (Vec::new(), String::new(), None::<Struct>);
        // Of a struct that crosses the layout is described, by abi_stable too; others are for Rust's side only.
        let (mut is_repr_c, mut crosses) = (false, false);
        let mut lines = text.lines().take_while(|line| *line != "#[cfg(test)]");
        while let Some(line) = lines.next() {
            let code = line.trim_start();
            if let Some(doc) = code.strip_prefix("///") {
                docs.push(doc.trim().to_owned());
                continue;
            }
            if code.starts_with("#[") {
                is_repr_c |= code == "#[repr(C)]";
                crosses |= code.contains("StableAbi");
                continue;
            }
            if line == "}" {
                self.structs.extend(in_struct.take());
                owner.clear();
            } else if let Some(item) = &mut in_struct {
                let mut field = code.to_owned();
                while !field.ends_with(',') {
                    field = format!("{field} {}", lines.next().expect("a field ends in a comma").trim());
                }
                let (name, its_type) = field.trim_end_matches(',').split_once(": ").expect("name: type");
                let name = name.trim_start_matches("pub ").to_owned();
                // A marker without size.
                if !its_type.starts_with("PhantomData") {
                    item.fields.push(Field { name, docs: std::mem::take(&mut docs), its_type: its_type.to_owned() });
                }
            } else if let Some(rest) = code.strip_prefix("pub struct ") {
                let name: String = rest.chars().take_while(char::is_ascii_alphanumeric).collect();
                if rest.ends_with('{') && crosses {
                    assert!(is_repr_c, "{name} is not repr(C)");
                    in_struct = Some(Struct { name, docs: docs.clone(), fields: Vec::new() });
                } else if crosses {
                    self.group(&name, &docs);
                }
            } else if let Some(rest) = line.strip_prefix("impl").filter(|_| line.ends_with('{')) {
                let name = rest.trim_start_matches("<'a>").trim_start();
                owner = name.chars().take_while(char::is_ascii_alphanumeric).collect();
            } else if let Some(rest) = code
                .strip_prefix("pub const ")
                .filter(|rest| rest.starts_with(|first: char| first.is_ascii_uppercase()))
            {
                let (name, rest) = rest.split_once(": ").expect("name: type");
                let (_, value) = rest.split_once(" = ").expect("type = value");
                let value = value.trim_start_matches("Self(").trim_end_matches([')', ';']);
                let value = value.parse().unwrap_or_else(|_| panic!("a number: {line}"));
                let number = Number { name: name.to_owned(), docs: docs.clone(), value };
                let owner = owner.clone();
                self.group(&owner, &[]).list.push(number);
            }
            docs.clear();
            (is_repr_c, crosses) = (false, false);
        }
    }

    /// The variants of an enumeration, or of the macro that makes it.
    fn enumeration(&mut self, text: &str, name: &str) {
        let snake = snake(name);
        let starts = [format!("pub enum {name} {{"), format!("{snake}s! {{")];
        let body = starts.iter().filter_map(|start| text.split_once(&format!("\n{start}\n"))).next();
        let (_, body) = body.unwrap_or_else(|| panic!("{name} is found"));
        let mut docs = Vec::new();
        for line in body.lines().take_while(|line| *line != "}") {
            let line = line.trim();
            if let Some(doc) = line.strip_prefix("///") {
                docs.push(doc.trim().to_owned());
            } else if let Some((variant, value)) = line.trim_end_matches(',').split_once(" = ") {
                let value = value.parse().unwrap_or_else(|_| panic!("a number: {line}"));
                let number = Number { name: upper(variant), docs: std::mem::take(&mut docs), value };
                self.group(name, &[]).list.push(number);
            }
        }
        assert!(self.group(name, &[]).list.len() > 2, "{name} is read");
    }

    fn reason_codes(&mut self, text: &str) {
        let (_, body) = text.split_once("\nreason_codes! {\n").expect("the table of Reason Codes");
        for line in body.lines().take_while(|line| *line != "}") {
            let (name, rest) = line.trim().split_once(" = 0x").expect("NAME = 0x…");
            let value = u64::from_str_radix(&rest[..2], 16).expect("a number");
            let doc = rest.split('"').nth(1).expect("a name in words").to_owned();
            self.group("ReasonCode", &[]).list.push(Number { name: name.to_owned(), docs: vec![doc], value });
        }
    }
}

/// `SessionExpired` to `session_expired`.
pub(crate) fn snake(name: &str) -> String {
    let mut snake = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.push(c.to_ascii_lowercase());
    }
    snake
}

fn upper(name: &str) -> String {
    snake(name).to_uppercase()
}
