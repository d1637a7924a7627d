//! In what a candidate answers otherwise, for people.

use std::fmt::Write as _;

use plugin_api::ReasonCode;
use serde_json::Value;

use super::{Table, grouped, list, word};

/// Whether all answers are the same that could be compared.
pub(crate) fn is_same(report: &Value) -> bool {
    report["different"].as_u64() == Some(0)
}

/// What is printed.
pub(crate) fn differences(report: &Value) -> String {
    let number = |key: &str| grouped(&report[key]);
    let mut text = format!(
        "{} calls of {} were put to {}: {} answered the same, {} otherwise, {} left out\n\n",
        number("calls"),
        named(&report["plugin"]),
        named(&report["candidate"]),
        number("same"),
        number("different"),
        number("left_out")
    );
    let mut table = Table::new(&["CALLBACK", ">CALLS", ">SAME", ">DIFFERENT", ">LEFT OUT"]);
    for row in list(report, "callbacks") {
        let number = |key: &str| grouped(&row[key]);
        table.row([word(&row["name"]), number("calls"), number("same"), number("different"), number("left_out")]);
    }
    if !table.is_empty() {
        let _ = write!(text, "{table}");
    }
    for one in list(report, "differences") {
        let first = &one["first"];
        let about = Some(word(&first["about"])).filter(|about| !about.is_empty());
        let about = about.map(|about| format!(", {about}")).unwrap_or_default();
        let _ = writeln!(
            text,
            "\n{} × {}, first is number {} at {} s: client {}{about}",
            grouped(&one["count"]),
            word(&one["callback"]),
            word(&first["number"]),
            word(&first["at"]),
            word(&first["client"])
        );
        for (who, side) in [("plugin   ", &one["recorded"]), ("candidate", &one["candidate"])] {
            let _ = writeln!(text, "  {who}  {}", answer(&side["answer"]));
            for effect in list(side, "effects") {
                let _ = writeln!(text, "  {who}  asks the host to {}", answer(effect));
            }
        }
    }
    if report["more_differences"].as_u64() > Some(0) {
        let _ = writeln!(text, "\nand {} more that differ in other ways", number("more_differences"));
    }
    for note in list(report, "notes") {
        let _ = writeln!(text, "\nnote: {}", word(note));
    }
    text
}

fn named(plugin: &Value) -> String {
    let path = plugin["path"].as_str().map(|_| format!(" ({})", word(&plugin["path"]))).unwrap_or_default();
    format!("{} {}{path}", word(&plugin["plugin"]), word(&plugin["version"]))
}

/// `{"reject":{"reason_code":135}}` as `reject 0x87 (Not authorized)`.
fn answer(value: &Value) -> String {
    let Some((what, details)) = value.as_object().and_then(|fields| fields.iter().next()) else { return word(value) };
    let code = |value: &Value| {
        value.as_u64().and_then(|code| u8::try_from(code).ok()).map(|code| ReasonCode(code).to_string())
    };
    let mut text = what.replace('_', " ");
    match details {
        Value::Array(codes) if what == "codes" => {
            let codes: Vec<_> = codes.iter().filter_map(code).collect();
            let _ = write!(text, " {}", codes.join(", "));
        }
        Value::Object(fields) => {
            let mut fields = fields.clone();
            if let Some(code) = fields.remove("reason_code").as_ref().and_then(code) {
                let _ = write!(text, " {code}");
            }
            if !fields.is_empty() {
                let _ = write!(text, " {}", word(&Value::Object(fields)));
            }
        }
        other => _ = write!(text, " {}", word(other)),
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn differences_are_a_table_and_a_paragraph_each() {
        let report = json!({
            "plugin": {"plugin": "acl", "version": "1.0.0", "path": null},
            "candidate": {"plugin": "acl", "version": "1.1.0", "path": "/srv/libacl.so"},
            "calls": 1204, "same": 1193, "different": 11, "left_out": 0,
            "callbacks": [{"name": "handle_publish", "calls": 1204, "same": 1193, "different": 11, "left_out": 0}],
            "differences": [{
                "callback": "handle_publish", "count": 10,
                "first": {"number": 7, "at": 0.5, "connection": 1, "client": "c1", "about": "a/\u{1b}b"},
                "recorded": {"answer": {"forward": {}}, "effects": []},
                "candidate": {"answer": {"reject": {"reason_code": 135}}, "effects": [{"publish": {"topic": "t"}}]},
            }],
            "more_differences": 1, "notes": ["something"],
        });
        let expected = "\
1,204 calls of acl 1.0.0 were put to acl 1.1.0 (/srv/libacl.so): 1,193 answered the same, 11 otherwise, 0 left out

CALLBACK        CALLS   SAME  DIFFERENT  LEFT OUT
handle_publish  1,204  1,193         11         0

10 × handle_publish, first is number 7 at 0.5 s: client c1, a/ b
  plugin     forward
  candidate  reject 0x87 (Not authorized)
  candidate  asks the host to publish {\"topic\":\"t\"}

and 1 more that differ in other ways

note: something
";
        assert_eq!(differences(&report), expected);
        assert!(!is_same(&report));
    }
}
