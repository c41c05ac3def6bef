//! Secrets out of what is stored and shown.
//!
//! Owns [`Redactor`]: it knows the secret values and finds them however they are written: as they are, in base64 (at any place in
//! the encoded bytes), URL-encoded, in hex, escaped for JSON. Must not know where secrets come from.

use crate::error::StepError;
use crate::value::{Data, Value};
use aho_corasick::{AhoCorasick, MatchKind};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// What stands in the place of a secret.
pub const MARK: &str = "⟦secret⟧";

/// Shorter values are not looked for: they would be found everywhere.
const SHORTEST: usize = 6;

/// Finds secrets in texts and values.
#[derive(Clone, Default)]
pub struct Redactor {
    finder: Option<AhoCorasick>,
    /// As they are, for texts that come in pieces.
    secrets: Vec<String>,
}

impl std::fmt::Debug for Redactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Redactor of {} secrets", self.secrets.len())
    }
}

impl Redactor {
    /// A redactor of these values. Those shorter than six bytes are left out.
    ///
    /// # Errors
    /// A sentence, when there are too many to be looked for at once.
    pub fn new<S: AsRef<str>>(secrets: impl IntoIterator<Item = S>) -> Result<Self, String> {
        let mut patterns: Vec<String> = Vec::new();
        let trimmed = secrets.into_iter().map(|secret| secret.as_ref().trim().to_owned());
        let mut secrets: Vec<String> = trimmed.filter(|secret| secret.len() >= SHORTEST).collect();
        secrets.sort();
        secrets.dedup();
        for secret in &secrets {
            forms(secret, &mut patterns);
        }
        patterns.sort();
        patterns.dedup();
        if patterns.is_empty() {
            return Ok(Self::default());
        }
        let finder = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(&patterns);
        let finder = finder.map_err(|error| format!("the secrets cannot be looked for: {error}"))?;
        Ok(Self { finder: Some(finder), secrets })
    }

    /// Whether there is nothing to look for.
    pub fn is_empty(&self) -> bool {
        self.finder.is_none()
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

    /// The error with [`MARK`] in the place of every secret.
    pub fn error(&self, mut error: StepError) -> StepError {
        if !self.is_empty() {
            error.message = self.text(&error.message);
            error.help = error.help.map(|help| self.text(&help));
            error.details = self.value(&error.details);
        }
        error
    }

    /// Where a text that comes in pieces can be cut without cutting a secret in two: what stands behind may be the
    /// beginning of one.
    fn safe_end(&self, text: &str) -> usize {
        let begins = |at: &usize| {
            let rest = &text[*at..];
            self.secrets.iter().any(|secret| secret.len() > rest.len() && secret.starts_with(rest))
        };
        let longest = self.secrets.iter().map(String::len).max().unwrap_or(0);
        let from = text.len().saturating_sub(longest);
        (from..text.len()).filter(|at| text.is_char_boundary(*at)).find(begins).unwrap_or(text.len())
    }

    /// Whether a secret stands anywhere in the value.
    pub fn finds(&self, value: &Value) -> bool {
        let Some(finder) = &self.finder else { return false };
        match value {
            Value::String(text) => finder.is_match(text),
            Value::Array(items) => items.iter().any(|item| self.finds(item)),
            Value::Object(fields) => fields.iter().any(|(k, v)| finder.is_match(k) || self.finds(v)),
            Value::Number(number) => finder.is_match(&number.to_string()),
            Value::Null | Value::Bool(_) => false,
        }
    }

    /// The same value where no secret is in it, else [`Redactor::value`] of it.
    pub fn cleaned(&self, value: Value) -> Value {
        if self.finds(&value) { self.value(&value) } else { value }
    }

    /// [`Redactor::cleaned`] for shared data.
    pub(crate) fn cleaned_data(&self, data: &Data) -> Data {
        let found = !self.is_empty() && self.finds(data.json());
        if found { Data::new(self.value(data.json())) } else { data.clone() }
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

/// A text that comes in pieces. A secret is found although it stands in several of them; what may be the beginning of one is
/// held back until more is known.
#[derive(Debug, Default)]
pub struct Flow(String);

impl Flow {
    /// Takes a piece; returns what can be shown.
    pub fn push(&mut self, redactor: &Redactor, piece: &str) -> String {
        if redactor.is_empty() {
            return piece.to_owned();
        }
        self.0.push_str(piece);
        // A whole secret at the end is no beginning of one.
        let clean = redactor.text(&self.0);
        let end = redactor.safe_end(&clean);
        clean[end..].clone_into(&mut self.0);
        clean[..end].to_owned()
    }

    /// What was held back; there is no more.
    pub fn end(&mut self) -> String {
        std::mem::take(&mut self.0)
    }
}

/// Every way in which a secret may be written.
fn forms(secret: &str, patterns: &mut Vec<String>) {
    patterns.push(secret.to_owned());
    let bytes = secret.as_bytes();
    // In base64 three bytes are four letters: what a text is depends on how many bytes stand before it. The letters at
    // either end also depend on the neighbours, and are left out.
    for engine in [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
        // Standing alone, to its last letter.
        patterns.push(engine.encode(bytes));
    }
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
        assert!(redactor().finds(&value) && !redactor().finds(&json!({"n": 12.5, "t": ["nothing here"]})));
        let plain = json!({"n": 12.5, "t": "nothing here"});
        assert_eq!(redactor().value(&plain), plain);
    }

    #[test]
    fn a_secret_in_pieces_is_found_and_all_else_comes_through() {
        let redactor = redactor();
        let text = format!("before {SECRET} sk-an between {SECRET}{SECRET} 1234567 sk-ant/");
        let expected = redactor.text(&text);
        for size in 1..12 {
            let (mut flow, mut shown) = (Flow::default(), String::new());
            for piece in text.chars().collect::<Vec<_>>().chunks(size) {
                shown.push_str(&flow.push(&redactor, &piece.iter().collect::<String>()));
            }
            shown.push_str(&flow.end());
            assert_eq!(shown, expected, "in pieces of {size}");
        }
    }

    #[test]
    fn nothing_is_looked_for_when_there_are_no_secrets() {
        assert!(Redactor::new(["", "abc"]).unwrap().is_empty());
        assert_eq!(Redactor::default().text("abc"), "abc");
    }
}
