//! Inputs and variables as they are given on the command line.
//!
//! Owns the reading of `KEY=VALUE`, `@FILE` and input files. Whether a value fits what a pipeline declares is core's
//! business. Must not know where the words come from.

use std::collections::BTreeMap;
use std::path::Path;

use pipeline_core::plan::{InputKind, InputPlan, Inputs};
use pipeline_core::value::{Data, Value};

use crate::exit::Failure;
use crate::sources::reason;

/// Everything that may carry inputs.
#[derive(Debug, Clone, Copy, Default)]
pub struct Given<'a> {
    /// `--input-file`.
    pub file: Option<&'a Path>,
    /// `-i KEY=VALUE`.
    pub flags: &'a [String],
    /// Bare `KEY=VALUE`; these keys match whatever their case.
    pub pairs: &'a [String],
}

/// Puts inputs together: a file first, then flags and pairs, which win over the file.
///
/// # Errors
/// A usage [`Failure`] with a sentence for each word that cannot be read, all at once.
pub fn inputs(given: Given<'_>, declared: &[InputPlan], working: &Path) -> Result<Inputs, Failure> {
    let mut inputs = match given.file {
        Some(file) => from_file(&working.join(file), file)?,
        None => Inputs::new(),
    };
    let mut named = BTreeMap::new();
    let mut wrong = Vec::new();
    let words = given.flags.iter().map(|w| (w, false)).chain(given.pairs.iter().map(|w| (w, true)));
    for (word, any_case) in words {
        let read = split(word).and_then(|(key, text)| {
            let name = if any_case { match_name(key, declared)? } else { key.to_owned() };
            let kind = declared.iter().find(|d| d.name == name).map_or(InputKind::Any, |d| d.kind);
            Ok((name, value(text, kind, working)?))
        });
        match read {
            Ok((name, value)) => {
                if named.insert(name.clone(), Data::new(value)).is_some() {
                    wrong.push(format!("input `{name}` is given twice"));
                }
            }
            Err(message) => wrong.push(message),
        }
    }
    if wrong.is_empty() {
        inputs.extend(named);
        Ok(inputs)
    } else {
        let mut failure = Failure::usage("");
        failure.messages = wrong;
        Err(failure.help("write inputs as KEY=VALUE, or KEY=@FILE to take a file"))
    }
}

/// Reads `--set VAR=VALUE`; the last of one name wins.
///
/// # Errors
/// A usage [`Failure`].
pub fn variables(words: &[String], working: &Path) -> Result<BTreeMap<String, Data>, Failure> {
    words
        .iter()
        .map(|word| {
            let (name, text) = split(word)?;
            Ok((name.to_owned(), Data::new(value(text, InputKind::Any, working)?)))
        })
        .collect::<Result<_, String>>()
        .map_err(|message| Failure::usage(message).help("write --set VAR=VALUE"))
}

fn split(word: &str) -> Result<(&str, &str), String> {
    match word.split_once('=') {
        Some((key, text)) if !key.trim().is_empty() => Ok((key.trim(), text)),
        _ => Err(format!("`{word}` is not KEY=VALUE")),
    }
}

/// The declared name that `key` means: itself, or the one that differs in case only.
fn match_name(key: &str, declared: &[InputPlan]) -> Result<String, String> {
    if declared.iter().any(|d| d.name == key) {
        return Ok(key.to_owned());
    }
    let lower = key.to_lowercase();
    let like: Vec<&str> =
        declared.iter().map(|d| d.name.as_str()).filter(|name| name.to_lowercase() == lower).collect();
    match like.as_slice() {
        // Unknown names are refused later, all together, with what they were probably meant to be.
        [] => Ok(key.to_owned()),
        [one] => Ok((*one).to_owned()),
        several => Err(format!("`{key}` could be {}: write it in the right case", several.join(" or "))),
    }
}

/// `@FILE` is the file's text (`.json` files are JSON), `@@…` a text that begins with `@`; anything else is JSON where
/// it parses, else text. What is declared as text stays the text that was written: `007` is not 7.
fn value(text: &str, kind: InputKind, working: &Path) -> Result<Value, String> {
    if let Some(rest) = text.strip_prefix('@') {
        if rest.starts_with('@') {
            return Ok(Value::from(rest));
        }
        return file_value(&working.join(rest), rest);
    }
    let parsed: Option<Value> = serde_json::from_str(text).ok();
    Ok(match (kind, parsed) {
        (InputKind::String | InputKind::File, Some(Value::String(quoted))) => Value::String(quoted),
        (InputKind::String | InputKind::File, _) | (_, None) => Value::from(text),
        (_, Some(json)) => json,
    })
}

fn file_value(path: &Path, shown: &str) -> Result<Value, String> {
    let text =
        std::fs::read_to_string(path).map_err(|error| format!("cannot read {shown}: {}", reason(&error)))?;
    if path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("json")) {
        return serde_json::from_str(&text).map_err(|error| format!("{shown} is not JSON: {error}"));
    }
    Ok(Value::String(text))
}

fn from_file(path: &Path, shown: &Path) -> Result<Inputs, Failure> {
    let shown = shown.display();
    let text = std::fs::read_to_string(path).map_err(|error| {
        Failure::usage(format!("cannot read {shown}: {}", reason(&error)))
            .help("check the path after --input-file; it is a map of inputs, YAML or JSON")
    })?;
    let parsed: Value = if path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("json")) {
        serde_json::from_str(&text).map_err(|error| format!("{shown} is not JSON: {error}"))
    } else {
        let options = serde_yaml::options! { with_snippet: false };
        serde_yaml::from_str_with_options(&text, options)
            .map_err(|error| format!("{shown} is not YAML: {error}"))
    }
    .map_err(|message| Failure::usage(message).help("write one input a line: `name: value`"))?;
    match parsed {
        Value::Object(entries) => Ok(entries.into_iter().map(|(k, v)| (k, Data::new(v))).collect()),
        Value::Null => Ok(Inputs::new()),
        _ => Err(Failure::usage(format!("{shown} is not a map of inputs"))
            .help("write one input a line: `name: value`")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

    use super::*;
    use pipeline_core::diagnostic::Span;
    use serde_json::json;

    fn declared(names: &[(&str, InputKind)]) -> Vec<InputPlan> {
        let input = |(name, kind): &(&str, InputKind)| InputPlan {
            name: (*name).to_owned(),
            kind: *kind,
            required: true,
            default: None,
            choices: Vec::new(),
            description: None,
            implied: false,
            span: Span::default(),
        };
        names.iter().map(input).collect()
    }

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|w| (*w).to_owned()).collect()
    }

    fn read(flags: &[&str], pairs: &[&str], inputs_of: &[InputPlan]) -> Result<Value, Failure> {
        let (flags, pairs) = (words(flags), words(pairs));
        let given = Given { file: None, flags: &flags, pairs: &pairs };
        inputs(given, inputs_of, Path::new("/")).map(|i| serde_json::to_value(i).unwrap())
    }

    #[test]
    fn values_are_json_where_they_parse() {
        let read = read(&["n=3", "list=[1,2]", "text=hello there", "eq=a=b", "empty=", "at=@@me"], &[], &[]);
        let expected =
            json!({"n": 3, "list": [1, 2], "text": "hello there", "eq": "a=b", "empty": "", "at": "@me"});
        assert_eq!(read.unwrap(), expected);
    }

    #[test]
    fn an_input_declared_as_text_keeps_its_spelling() {
        let inputs = declared(&[("zip", InputKind::String), ("n", InputKind::Integer)]);
        let numbers = read(&["zip=00123", "n=5"], &[], &inputs).unwrap();
        assert_eq!(numbers, json!({"zip": "00123", "n": 5}));
        let quoted = read(&["zip=\"1.0\""], &[], &inputs).unwrap();
        assert_eq!(quoted, json!({"zip": "1.0"}));
    }

    #[test]
    fn bare_pairs_match_whatever_their_case_and_flags_do_not() {
        let inputs = declared(&[("topic", InputKind::Any), ("Lang", InputKind::Any)]);
        assert_eq!(read(&[], &["TOPIC=x", "lang=y"], &inputs).unwrap(), json!({"topic": "x", "Lang": "y"}));
        assert_eq!(read(&["TOPIC=x"], &[], &inputs).unwrap(), json!({"TOPIC": "x"}));
        let twins = declared(&[("a", InputKind::Any), ("A", InputKind::Any)]);
        assert_eq!(read(&[], &["A=1"], &twins).unwrap(), json!({"A": 1}));
        let both = declared(&[("aB", InputKind::Any), ("Ab", InputKind::Any)]);
        assert!(read(&[], &["ab=1"], &both).expect_err("unclear").to_string().contains("aB or Ab"));
    }

    #[test]
    fn everything_wrong_is_told_at_once() {
        let failure = read(&["nonsense", "k=@/no/such/file", "a=1"], &["a=2", "=x"], &[]).expect_err("wrong");
        assert_eq!(failure.exit.code(), 2);
        let expected = ["`nonsense`", "/no/such/file", "given twice", "`=x`"];
        for (message, expected) in failure.messages.iter().zip(expected) {
            assert!(message.contains(expected), "{message}");
        }
        assert_eq!(failure.messages.len(), expected.len());
    }

    #[test]
    fn files_give_text_json_or_many_inputs_and_words_win() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write("notes.md", "42");
        write("data.json", "{\"a\": [1]}");
        write("all.yaml", "n: 1\ntopic: rust\n");
        write("list.yaml", "- 1\n");
        let flags = words(&["notes=@notes.md", "data=@data.json", "n=2"]);
        let given = Given { file: Some(Path::new("all.yaml")), flags: &flags, pairs: &[] };
        let read = serde_json::to_value(inputs(given, &[], dir.path()).unwrap()).unwrap();
        assert_eq!(read, json!({"notes": "42", "data": {"a": [1]}, "n": 2, "topic": "rust"}));
        let list = Given { file: Some(Path::new("list.yaml")), ..Given::default() };
        assert!(inputs(list, &[], dir.path()).expect_err("a list").to_string().contains("not a map"));
    }

    #[test]
    fn variables_are_read_like_inputs() {
        let set = variables(&words(&["a=1", "b=x", "a=2"]), Path::new("/")).unwrap();
        assert_eq!(serde_json::to_value(set).unwrap(), json!({"a": 2, "b": "x"}));
        assert!(variables(&words(&["oops"]), Path::new("/")).is_err());
    }
}
