//! Keys as a type, so that none is printed, stored or sent to the wrong place by accident.
//!
//! Owns [`Secret`]. Must not know where a key comes from.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

/// What stands in the place of a secret.
const REDACTED: &str = "[redacted]";

/// A secret text. It has no `Display` and cannot be serialised; `Debug` tells that there is one, and nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<str>);

impl Secret {
    /// Takes a text as a secret.
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }

    /// The text itself, to be sent to whom it belongs.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// `text` without this secret, in any of the forms in which services and libraries echo one.
    pub fn redact(&self, text: &str) -> String {
        // A text of a few characters would be found everywhere.
        if self.0.len() < 6 {
            return text.to_owned();
        }
        let json = serde_json::Value::from(&*self.0).to_string();
        let forms = [
            self.0.to_string(),
            STANDARD.encode(self.0.as_bytes()).trim_end_matches('=').to_owned(),
            URL_SAFE_NO_PAD.encode(self.0.as_bytes()),
            percent(&self.0),
            json.get(1..json.len().saturating_sub(1)).unwrap_or_default().to_owned(),
        ];
        forms.iter().fold(text.to_owned(), |text, form| text.replace(form.as_str(), REDACTED))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(REDACTED)
    }
}

fn percent(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_shown_in_no_form() {
        let secret = Secret::new("sk-ant-\"a/b+c\"");
        assert_eq!(format!("{secret:?}"), REDACTED);
        for form in
            ["sk-ant-\"a/b+c\"", "sk-ant-\\\"a/b+c\\\"", "sk-ant-%22a%2Fb%2Bc%22", "c2stYW50LSJhL2IrYyI"]
        {
            let told = secret.redact(&format!("wrong key {form}!"));
            assert_eq!(told, "wrong key [redacted]!");
        }
    }
}
