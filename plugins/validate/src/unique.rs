//! `uniqueItems` in linear time. The library's own compares all elements with each other where their hashes agree, and a
//! client can send thousands of such elements.

use std::collections::HashSet;

use jsonschema::{Keyword, ValidationError};
use serde_json::{Map, Number, Value};

/// `uniqueItems`, by its value in the schema.
pub(crate) struct UniqueItems(pub(crate) bool);

impl Keyword for UniqueItems {
    fn validate<'i>(&self, instance: &'i Value) -> Result<(), ValidationError<'i>> {
        if self.is_valid(instance) { Ok(()) } else { Err(ValidationError::custom("it has equal elements")) }
    }

    fn is_valid(&self, instance: &Value) -> bool {
        match instance {
            Value::Array(items) if self.0 => are_unique(items),
            _ => true,
        }
    }
}

fn are_unique(items: &[Value]) -> bool {
    let (mut bytes, mut ends) = (Vec::new(), Vec::with_capacity(items.len()));
    for item in items {
        put(item, &mut bytes);
        ends.push(bytes.len());
    }
    // With a hash that nobody outside can foresee.
    let mut seen = HashSet::with_capacity(items.len());
    let mut begin = 0;
    ends.into_iter().all(|end| seen.insert(&bytes[std::mem::replace(&mut begin, end)..end]))
}

/// Appends a form that is the same for values that JSON Schema calls equal, and for no others.
fn put(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Null => out.push(b'n'),
        Value::Bool(value) => out.push(if *value { b't' } else { b'f' }),
        Value::Number(number) => put_number(number, out),
        Value::String(text) => put_text(text, out),
        Value::Array(items) => {
            out.push(b'[');
            items.iter().for_each(|item| put(item, out));
            out.push(b']');
        }
        Value::Object(members) => put_object(members, out),
    }
}

fn put_text(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    out.extend(text.len().to_le_bytes());
    out.extend(text.as_bytes());
}

fn put_object(members: &Map<String, Value>, out: &mut Vec<u8>) {
    let mut members: Vec<_> = members.iter().collect();
    members.sort_unstable_by_key(|(name, _)| *name);
    out.push(b'{');
    for (name, value) in members {
        put_text(name, out);
        put(value, out);
    }
    out.push(b'}');
}

/// 1 and 1.0 are equal.
fn put_number(number: &Number, out: &mut Vec<u8>) {
    /// The first number that no integer of JSON has here: larger ones are read as `f64`.
    const INTEGERS_END: f64 = 18_446_744_073_709_551_616.0;
    let integer = number.as_u64().map(i128::from).or_else(|| number.as_i64().map(i128::from));
    let float = number.as_f64().unwrap_or(f64::NAN);
    let is_whole = float.fract() == 0.0 && float.abs() < INTEGERS_END;
    match integer.or_else(|| is_whole.then_some(float as i128)) {
        Some(integer) => {
            out.push(b'i');
            out.extend(integer.to_le_bytes());
        }
        None => {
            out.push(b'd');
            out.extend(float.to_le_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_equal_as_json_schema_says() {
        for (json, expected) in [
            ("[]", true),
            ("[1, 2, 1]", false),
            ("[1, 1.0]", false),
            ("[0, -0.0]", false),
            ("[-1, -1.0]", false),
            ("[18446744073709551615, 18446744073709551616]", true),
            ("[9007199254740993, 9007199254740992.0]", true),
            ("[1e300, 1.5, 1e300]", false),
            ("[1, true, \"1\", null, [1], {\"1\": 1}]", true),
            ("[\"a\", \"b\", \"a\"]", false),
            ("[[[], []], [[[]]]]", true),
            ("[[1, [2]], [1, [2.0]]]", false),
            (r#"[["a", "b"], ["ab"]]"#, true),
            (r#"[{"a": 1, "b": 2}, {"b": 2, "a": 1}]"#, false),
            (r#"[{"a": 1, "b": 2}, {"a": 2, "b": 1}]"#, true),
        ] {
            let value: Value = serde_json::from_str(json).unwrap_or_else(|error| panic!("{json}: {error}"));
            assert_eq!(UniqueItems(true).is_valid(&value), expected, "{json}");
            assert!(UniqueItems(false).is_valid(&value), "{json}");
        }
    }
}
