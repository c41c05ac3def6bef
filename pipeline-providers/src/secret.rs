//! Keys as a type, so that none is printed, stored or sent to the wrong place by accident.
//!
//! Owns [`Secret`]. Must not know where a key comes from.

use std::fmt;
use std::sync::Arc;

use pipeline_core::redact::{MARK, Redactor};

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
        // One pattern too many for a search is none at all.
        Redactor::new([&*self.0]).map_or_else(|_| MARK.to_owned(), |redactor| redactor.text(text))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(MARK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_shown_in_no_form() {
        let secret = Secret::new("sk-ant-\"a/b+c\"");
        assert_eq!(format!("{secret:?}"), MARK);
        for form in
            ["sk-ant-\"a/b+c\"", "sk-ant-\\\"a/b+c\\\"", "sk-ant-%22a%2Fb%2Bc%22", "c2stYW50LSJhL2IrYyI"]
        {
            let told = secret.redact(&format!("wrong key {form}!"));
            assert_eq!(told, format!("wrong key {MARK}!"));
        }
    }
}
