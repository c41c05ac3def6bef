//! Secrets out of what is stored.
//!
//! Owns [`Redactor`]: it knows the secret values and finds them however they are written: as they are, in base64 (at any place in
//! the encoded bytes), URL-encoded, in hex, escaped for JSON. Must not know where secrets come from.

use aho_corasick::{AhoCorasick, MatchKind};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use pipeline_core::value::Value;

/// What stands in the place of a secret.
pub const MARK: &str = "⟦secret⟧";

/// Shorter values are not looked for: they would be found everywhere.
const SHORTEST: usize = 6;

/// Finds secrets in texts and values.
#[derive(Debug, Clone, Default)]
pub struct Redactor {
    finder: Option<AhoCorasick>,
    patterns: usize,
}

impl Redactor {
    /// A redactor of these values. Those shorter than six bytes are left out.
    ///
    /// # Errors
    /// A sentence, when there are too many to be looked for at once.
    pub fn new<S: AsRef<str>>(secrets: impl IntoIterator<Item = S>) -> Result<Self, String> {
        let mut patterns: Vec<String> = Vec::new();
        for secret in secrets {
            let secret = secret.as_ref().trim();
            if secret.len() >= SHORTEST {
                forms(secret, &mut patterns);
            }
        }
        patterns.sort();
        patterns.dedup();
        if patterns.is_empty() {
            return Ok(Self::default());
        }
        let finder = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(&patterns);
        let finder = finder.map_err(|error| format!("the secrets cannot be looked for: {error}"))?;
        Ok(Self { finder: Some(finder), patterns: patterns.len() })
    }

    /// Whether there is nothing to look for.
    pub fn is_empty(&self) -> bool {
        self.patterns == 0
    }

    /// The text with [`MARK`] in the place of every secret.
    pub fn text(&self, text: &str) -> String {
        match &self.finder {
            Some(finder) if finder.is_match(text) => {
                let mut out = String::with_capacity(text.len());
                finder.replace_all_with(text, &mut out, |_, _, out| {
                    out.push_str(MARK);
                    true
                });
                out
            }
            _ => text.to_owned(),
        }
    }

    /// The value with [`MARK`] in every text and key in the place of every secret. A number that is a secret becomes the mark.
    pub fn value(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.text(text)),
            Value::Array(items) => Value::Array(items.iter().map(|item| self.value(item)).collect()),
            Value::Object(fields) => {
                let fields = fields.iter().map(|(key, value)| (self.text(key), self.value(value)));
                Value::Object(fields.collect())
            }
            Value::Number(number) => {
                let text = number.to_string();
                let redacted = self.text(&text);
                if redacted == text { value.clone() } else { Value::String(redacted) }
            }
            Value::Null | Value::Bool(_) => value.clone(),
        }
    }
}

/// Every way in which a secret may be written.
fn forms(secret: &str, patterns: &mut Vec<String>) {
    patterns.push(secret.to_owned());
    let bytes = secret.as_bytes();
    // In base64 three bytes are four letters: what a text is depends on how many bytes stand before it. The letters at
    // either end also depend on the neighbours, and are left out.
    for before in 0..3_usize {
        let mut padded = vec![0; before];
        padded.extend_from_slice(bytes);
        let first = (before * 8).div_ceil(6);
        let last = padded.len() * 8 / 6;
        for engine in [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
            patterns.extend(engine.encode(&padded).get(first..last).map(str::to_owned));
        }
    }
    let hex = |upper: bool| -> String {
        bytes.iter().map(|b| if upper { format!("{b:02X}") } else { format!("{b:02x}") }).collect()
    };
    patterns.extend([hex(false), hex(true)]);
    for (space, upper) in [("%20", true), ("%20", false), ("+", true)] {
        patterns.push(url_encoded(bytes, space, upper));
    }
    let mut escaped = secret.to_owned();
    for _ in 0..2 {
        escaped = json_escaped(&escaped);
        patterns.push(escaped.clone());
        patterns.push(escaped.replace('/', "\\/"));
    }
}

fn url_encoded(bytes: &[u8], space: &str, upper: bool) -> String {
    let mut out = String::new();
    for byte in bytes {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(char::from(*byte));
            }
            b' ' => out.push_str(space),
            _ if upper => out.push_str(&format!("%{byte:02X}")),
            _ => out.push_str(&format!("%{byte:02x}")),
        }
    }
    out
}

fn json_escaped(text: &str) -> String {
    let quoted = Value::from(text).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

    use base64::engine::general_purpose::{STANDARD, URL_SAFE};
    use serde_json::json;

    use super::*;

    const SECRET: &str = "sk-ant/\"äß\\ 1?>~end";

    fn redactor() -> Redactor {
        Redactor::new([SECRET, "12345678", "short"]).unwrap()
    }

    #[test]
    fn every_form_of_a_secret_is_found_wherever_it_stands() {
        let redactor = redactor();
        let mut seen = vec![
            SECRET.to_owned(),
            json!({"k": SECRET}).to_string(),
            json!([json!({"k": SECRET}).to_string()]).to_string(),
        ];
        for before in ["", "a", "ab", "abc", "user:", "Bearer "] {
            for after in ["", "x", "xy", "xyz"] {
                let text = format!("{before}{SECRET}{after}");
                seen.extend([STANDARD.encode(&text), URL_SAFE.encode(&text), STANDARD_NO_PAD.encode(&text)]);
                seen.extend([true, false].map(|upper| url_encoded(text.as_bytes(), "%20", upper)));
                seen.push(url_encoded(text.as_bytes(), "+", true));
                seen.push(text.bytes().map(|b| format!("{b:02x}")).collect());
                seen.push(text.bytes().map(|b| format!("{b:02X}")).collect());
            }
        }
        for text in seen {
            let redacted = redactor.text(&text);
            assert!(redacted.contains(MARK), "{text} became {redacted}");
        }
    }

    #[test]
    fn values_are_redacted_in_keys_texts_and_numbers_and_nothing_else_changes() {
        let value = json!({"a": [SECRET, 1, null, true, "plain"], SECRET: 12_345_678, "x": "in 12345678 out", "s": "short"});
        let expected = json!({"a": [MARK, 1, null, true, "plain"], MARK: MARK, "x": format!("in {MARK} out"), "s": "short"});
        assert_eq!(redactor().value(&value), expected);
        let plain = json!({"n": 12.5, "t": "nothing here"});
        assert_eq!(redactor().value(&plain), plain);
    }

    #[test]
    fn nothing_is_looked_for_when_there_are_no_secrets() {
        assert!(Redactor::new(["", "abc"]).unwrap().is_empty());
        assert_eq!(Redactor::default().text("abc"), "abc");
    }
}
