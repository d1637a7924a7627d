//! Values as TOML has them.

use serde_json::{Map, Number, Value};
use toml::de::DeValue;

/// What a value of a plugin's configuration is in JSON. The error says what JSON cannot have, and nothing of the value, which
/// may be a secret.
pub(super) fn to_json(value: &DeValue<'_>) -> Result<Value, String> {
    Ok(match value {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Boolean(flag) => Value::Bool(*flag),
        DeValue::Integer(number) => {
            let parsed = i64::from_str_radix(number.as_str(), number.radix());
            Value::from(parsed.map_err(|_| "an integer in it is beyond 64 bits")?)
        }
        DeValue::Float(number) => {
            let parsed = number.as_str().parse().ok().and_then(Number::from_f64);
            Value::Number(parsed.ok_or("JSON has neither inf nor nan")?)
        }
        // JSON has no dates: they are texts there.
        DeValue::Datetime(date) => Value::String(date.to_string()),
        DeValue::Array(values) => values.iter().map(|value| to_json(value.get_ref())).collect::<Result<_, _>>()?,
        DeValue::Table(table) => {
            let entry = |(key, value): (&toml::Spanned<_>, &toml::Spanned<_>)| {
                let key: &std::borrow::Cow<'_, str> = key.get_ref();
                Ok((key.to_string(), to_json(value.get_ref())?))
            };
            Value::Object(table.iter().map(entry).collect::<Result<Map<_, _>, String>>()?)
        }
    })
}

/// A text as it stands in a TOML file, in quotes.
pub(super) fn quoted(text: &str) -> String {
    // The escapes of JSON are escapes of TOML; what TOML wants escaped besides is the character DEL.
    Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_become_objects() {
        let text = "{ a = 1, b = [true, 0x10, 1_0.5], c = { \"d e\" = 'x', when = 2026-11-23 } }";
        let value = DeValue::parse(text).unwrap();
        let expected = serde_json::json!({"a": 1, "b": [true, 16, 10.5], "c": {"d e": "x", "when": "2026-11-23"}});
        assert_eq!(to_json(value.get_ref()), Ok(expected));
        for (text, why) in [("inf", "neither inf nor nan"), ("{ a = [99999999999999999999] }", "beyond 64 bits")] {
            let why_not = to_json(DeValue::parse(text).unwrap().get_ref()).unwrap_err();
            assert!(why_not.contains(why), "{text}: {why_not}");
        }
    }

    #[test]
    fn quoted_texts_are_read_as_they_were() {
        for text in ["", "a\"b\\c", "x\u{7f}y\n\t\u{0}\u{1f}", "ü😀"] {
            let quoted = quoted(text);
            let value = DeValue::parse(&quoted).unwrap_or_else(|error| panic!("{quoted}: {error}"));
            assert_eq!(value.get_ref().as_str(), Some(text));
        }
    }
}
