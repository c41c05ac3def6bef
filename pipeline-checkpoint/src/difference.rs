//! The first difference between two values.
//!
//! Owns [`Difference`]: where a request is not the one on tape, and what stands there. Must not know tapes.

use pipeline_core::value::Value;

use pipeline_core::redact::MARK;

/// Characters of a text that are shown before and after the place where it differs.
const BEFORE: usize = 30;
const AFTER: usize = 60;

/// Characters of a value that are shown.
const SHOWN: usize = 200;

/// Where two values first differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Difference {
    /// JSON pointer; empty for the whole.
    pub(crate) path: String,
    /// What is on tape there.
    pub(crate) expected: String,
    /// What is there now.
    pub(crate) got: String,
}

/// The first difference, in the order of the recorded value. The order of keys makes none, and where a secret was taken out any
/// text may stand.
pub(crate) fn first(expected: &Value, got: &Value) -> Option<Difference> {
    let mut path = String::new();
    let (expected, got) = find(expected, got, &mut path)?;
    Some(Difference { path, expected, got })
}

fn find(expected: &Value, got: &Value, path: &mut String) -> Option<(String, String)> {
    let length = path.len();
    match (expected, got) {
        (Value::Object(old), Value::Object(new)) => {
            for (key, value) in old {
                path.push_str(&step(key));
                match new.get(key) {
                    None => return Some((shown(value), "nothing".to_owned())),
                    Some(other) => {
                        if let Some(found) = find(value, other, path) {
                            return Some(found);
                        }
                    }
                }
                path.truncate(length);
            }
            let (key, value) = new.iter().find(|(key, _)| !old.contains_key(*key))?;
            path.push_str(&step(key));
            Some(("nothing".to_owned(), shown(value)))
        }
        (Value::Array(old), Value::Array(new)) => {
            for (at, (value, other)) in old.iter().zip(new).enumerate() {
                path.push_str(&step(&at.to_string()));
                if let Some(found) = find(value, other, path) {
                    return Some(found);
                }
                path.truncate(length);
            }
            let at = old.len().min(new.len());
            let there = |items: &[Value]| items.get(at).map_or_else(|| "nothing".to_owned(), shown);
            if old.len() == new.len() {
                return None;
            }
            path.push_str(&step(&at.to_string()));
            Some((there(old), there(new)))
        }
        (Value::String(old), Value::String(new)) => {
            if fits(old, new) {
                return None;
            }
            let same = old.chars().zip(new.chars()).take_while(|(a, b)| a == b).count();
            Some((around(old, same), around(new, same)))
        }
        _ if expected == got => None,
        _ => Some((shown(expected), shown(got))),
    }
}

fn step(key: &str) -> String {
    format!("/{}", key.replace('~', "~0").replace('/', "~1"))
}

/// Whether a text is the recorded one, with anything in the place of secrets.
fn fits(recorded: &str, text: &str) -> bool {
    if !recorded.contains(MARK) {
        return recorded == text;
    }
    let mut pieces = recorded.split(MARK);
    let first = pieces.next().unwrap_or("");
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut pieces: Vec<&str> = pieces.collect();
    let last = pieces.pop().unwrap_or("");
    for piece in pieces {
        match rest.find(piece) {
            Some(at) => rest = &rest[at + piece.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

fn around(text: &str, place: usize) -> String {
    let begin = place.saturating_sub(BEFORE);
    let cut: String = text.chars().skip(begin).take(BEFORE + AFTER).collect();
    let is_whole = begin == 0 && text.chars().nth(BEFORE + AFTER).is_none();
    let quoted = Value::from(cut).to_string();
    if is_whole { quoted } else { format!("{quoted} (from character {begin})") }
}

fn shown(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().nth(SHOWN).is_none() { text } else { text.chars().take(SHOWN).chain(['…']).collect() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

    use serde_json::json;

    use super::*;

    fn told(expected: &Value, got: &Value) -> (String, String, String) {
        let found = first(expected, got).unwrap();
        (found.path, found.expected, found.got)
    }

    #[test]
    fn a_text_that_is_cut_says_where_its_part_begins() {
        let text = |length: usize| "x".repeat(length);
        assert_eq!(around(&text(90), 0), format!("\"{}\"", text(90)), "as long as a part");
        assert_eq!(around(&text(91), 0), format!("\"{}\" (from character 0)", text(90)));
        assert_eq!(around(&text(40), 35), format!("\"{}\" (from character 5)", text(35)));
    }

    #[test]
    fn the_first_difference_is_told_with_its_place() {
        let base = json!({"m": [{"text": "count the words"}], "t": 0.5, "a/b": {"x": 1}});
        let cases = [
            (
                json!({"m": [{"text": "count the lines"}], "t": 0.5, "a/b": {"x": 1}}),
                "/m/0/text",
                "words",
                "lines",
            ),
            (json!({"m": [], "t": 0.5, "a/b": {"x": 1}}), "/m/0", "{\"text\"", "nothing"),
            (
                json!({"m": [{"text": "count the words"}], "t": "0.5", "a/b": {"x": 1}}),
                "/t",
                "0.5",
                "\"0.5\"",
            ),
            (json!({"m": [{"text": "count the words"}], "t": 0.5, "a/b": {}}), "/a~1b/x", "1", "nothing"),
            (
                json!({"m": [{"text": "count the words", "n": 1}], "t": 0.5, "a/b": {"x": 1}}),
                "/m/0/n",
                "nothing",
                "1",
            ),
        ];
        for (other, path, expected, got) in cases {
            let found = told(&base, &other);
            assert_eq!(found.0, path);
            assert!(found.1.contains(expected) && found.2.contains(got), "{found:?}");
        }
        let turned = json!({"a/b": {"x": 1}, "t": 0.5, "m": [{"text": "count the words"}]});
        assert_eq!(first(&base, &turned), None, "the order of keys means nothing");
    }

    #[test]
    fn a_long_text_is_shown_where_it_differs() {
        let text = |word: &str| json!(format!("{} {word} {}", "a".repeat(5000), "z".repeat(5000)));
        let (_, expected, got) = told(&text("left"), &text("right"));
        assert!(expected.len() < 200 && expected.contains("left") && got.contains("right"), "{expected}");
        assert!(expected.contains("character 4971"), "{expected}");
    }

    #[test]
    fn any_text_may_stand_where_a_secret_was() {
        let recorded = json!(format!("Use {MARK} and {MARK}."));
        assert_eq!(first(&recorded, &json!("Use k1 and k2.")), None);
        assert_eq!(first(&recorded, &json!("Use  and .")), None);
        for other in ["Take k1 and k2.", "Use k1 or k2.", "Use k1 and k2"] {
            assert!(first(&recorded, &json!(other)).is_some(), "{other}");
        }
    }
}
