//! From parts to the text that is sent.
//!
//! Owns the joining, the filling of `{NAME}` in files and statics, and `inject_as`. Text of a model or of any value is
//! data: nothing in it is ever filled. Must not know providers.

use std::collections::HashMap;

use pipeline_core::error::StepError;
use pipeline_core::step::StepContext;

use crate::file_cache::FileCache;
use crate::prompt::config::{Part, PromptText, text_of};
use crate::prompt::files::{self, TextFile};

/// Values of `{NAME}`.
type Names = HashMap<String, String>;

/// A part's text before the names of other parts are known.
struct Piece {
    text: String,
    /// Names that only this piece fills.
    own: Names,
    is_data: bool,
}

/// The prompt's text.
///
/// # Errors
/// What files say; `Invalid` when nothing is left to ask.
pub(super) async fn text(
    cx: &StepContext,
    cache: &FileCache,
    prompt: PromptText,
) -> Result<String, StepError> {
    let text = match prompt {
        PromptText::Text(text) => text,
        PromptText::Other(value) => text_of(&value),
        PromptText::Parts(parts) => joined(cx, cache, parts).await?,
    };
    if text.trim().is_empty() {
        return Err(StepError::invalid("the prompt is empty")
            .help("see what its templates and parts give; every part with a false condition is left out"));
    }
    Ok(text)
}

async fn joined(cx: &StepContext, cache: &FileCache, parts: Vec<Part>) -> Result<String, StepError> {
    let mut pieces = Vec::new();
    let mut injected = Names::new();
    for part in parts {
        let (inject_as, piece) = piece(cx, cache, part).await?;
        match (inject_as, piece) {
            (Some(name), Some(piece)) => {
                // Filled with its own names only: what is injected is data for the others.
                injected.insert(name, filled(&piece.text, &[&piece.own]));
            }
            // A part that is left out leaves its name empty, not as a word for the model to wonder about.
            (Some(name), None) => {
                injected.entry(name).or_default();
            }
            (None, Some(piece)) => pieces.push(piece),
            (None, None) => {}
        }
    }
    let texts: Vec<String> = pieces
        .into_iter()
        .map(|p| if p.is_data { p.text } else { filled(&p.text, &[&p.own, &injected]) })
        .collect();
    Ok(texts.join("\n"))
}

/// One part: the name it is injected as, and its text unless its condition is false.
async fn piece(
    cx: &StepContext,
    cache: &FileCache,
    part: Part,
) -> Result<(Option<String>, Option<Piece>), StepError> {
    Ok(match part {
        Part::Static { content, when } => {
            let piece = Piece { text: content.0, own: Names::new(), is_data: false };
            (None, when.0.then_some(piece))
        }
        Part::Value { value, max_length, inject_as, when } => {
            let mut text = text_of(&value);
            if let Some(most) = max_length {
                let most = usize::try_from(most).unwrap_or(usize::MAX);
                if let Some((end, _)) = text.char_indices().nth(most) {
                    text.truncate(end);
                }
            }
            (inject_as, when.0.then(|| Piece { text, own: Names::new(), is_data: true }))
        }
        Part::File { inject_as, when, .. } if !when.0 => (inject_as, None),
        Part::File { path, variables, inject_as, encoding, .. } => {
            let files = files::read(cx, cache, &path.0, encoding).await?;
            let own = variables.into_iter().map(|(name, value)| (name, text_of(&value))).collect();
            (inject_as, Some(Piece { text: headed(files), own, is_data: false }))
        }
    })
}

/// The text of one file; of several, each headed by its path.
fn headed(mut files: Vec<TextFile>) -> String {
    if files.len() == 1 {
        return files.remove(0).text;
    }
    let texts: Vec<String> = files.iter().map(|f| format!("--- {} ---\n{}", f.shown, f.text)).collect();
    texts.join("\n")
}

/// `text` with `{NAME}` and `{{NAME}}` replaced, in one pass: what a name brings in is not looked at again.
fn filled(text: &str, names: &[&Names]) -> String {
    if names.iter().all(|n| n.is_empty()) {
        return text.to_owned();
    }
    let value = |name: &str| names.iter().find_map(|n| n.get(name.trim()));
    // No further than the longest name reaches, with spaces around it: a text full of `{` stays cheap.
    let longest = names.iter().flat_map(|n| n.keys()).map(String::len).max().unwrap_or(0) + 16;
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find('{') {
        out.push_str(&rest[..start]);
        rest = &rest[start..];
        let near = &rest[..rest.floor_char_boundary(longest)];
        let hit = [("{{", "}}"), ("{", "}")].into_iter().find_map(|(open, close)| {
            let (name, _) = near.strip_prefix(open)?.split_once(close)?;
            Some((value(name)?, open.len() + name.len() + close.len()))
        });
        if let Some((value, _)) = hit {
            out.push_str(value);
        } else {
            out.push('{');
        }
        rest = &rest[hit.map_or(1, |(_, length)| length)..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

    use pipeline_core::error::ErrorKind;
    use serde_json::json;

    use super::*;
    use crate::fixture::Fixture;

    async fn render(fx: &Fixture, prompt: serde_json::Value) -> Result<String, StepError> {
        let prompt: PromptText = serde_json::from_value(prompt).unwrap();
        text(&fx.context(), &FileCache::default(), prompt).await
    }

    #[test]
    fn filling_is_one_pass_over_known_names() {
        let names = Names::from([("A".to_owned(), "{B}".to_owned()), ("B".to_owned(), "b".to_owned())]);
        let fill = |text| filled(text, &[&names]);
        assert_eq!(fill("{A} {{A}} {{ B }} {C} {{C}} {"), "{B} {B} b {C} {{C}} {");
        assert_eq!(fill(r#"{"json": {B}}"#), r#"{"json": b}"#);
        assert_eq!(fill("{{{B}}}"), "{b}");
        assert_eq!(fill("ü{B}ü{"), "übü{");
    }

    #[tokio::test]
    async fn parts_are_joined_by_newlines_and_false_ones_are_left_out() {
        let fx = Fixture::new();
        fx.write("p.md", "File for {WHO} and {{WHO}}, not {OTHER}");
        let prompt = json!([
            { "type": "static", "content": "One" },
            { "type": "static", "content": "never", "when": false },
            { "type": "file", "path": "missing.md", "when": false },
            { "type": "file", "path": "p.md", "variables": { "WHO": "you" } },
            { "type": "value", "value": { "a": 1 } },
            { "type": "value", "value": "äbcdef", "max_length": 3 },
        ]);
        let text = render(&fx, prompt).await.unwrap();
        assert_eq!(text, "One\nFile for you and you, not {OTHER}\n{\"a\":1}\näbc");
    }

    #[tokio::test]
    async fn injected_parts_fill_the_others_but_never_data() {
        let fx = Fixture::new();
        fx.write("code.rs", "let x = {SECRET};");
        let prompt = json!([
            { "type": "static", "content": "Review {CODE} with {{NOTE}}{NONE}." },
            { "type": "value", "value": "model wrote {CODE}" },
            { "type": "value", "value": "be {CODE} kind", "inject_as": "NOTE" },
            { "type": "file", "path": "code.rs", "inject_as": "CODE" },
            { "type": "file", "path": "missing", "inject_as": "NONE", "when": false },
        ]);
        let text = render(&fx, prompt).await.unwrap();
        assert_eq!(text, "Review let x = {SECRET}; with be {CODE} kind.\nmodel wrote {CODE}");
    }

    #[tokio::test]
    async fn directories_and_globs_are_sorted_and_headed() {
        let fx = Fixture::new();
        for name in ["d/b.md", "d/a.md", "d/sub/c.md", "d/x.txt", "d/.hidden.md"] {
            fx.write(name, name);
        }
        let of = |path: &'static str| render(&fx, json!([{ "type": "file", "path": path }]));
        let two = "--- d/a.md ---\nd/a.md\n--- d/b.md ---\nd/b.md";
        assert_eq!(of("d/*.md").await.unwrap(), two);
        assert_eq!(of("./d/*.md").await.unwrap(), two);
        assert_eq!(of("d/**/c.md").await.unwrap(), "d/sub/c.md");
        assert_eq!(of("d/.h*.md").await.unwrap(), "d/.hidden.md");
        let all = of("d").await.unwrap();
        let heads: Vec<&str> = all.lines().filter(|l| l.starts_with("---")).collect();
        assert_eq!(heads, ["--- d/a.md ---", "--- d/b.md ---", "--- d/sub/c.md ---", "--- d/x.txt ---"]);
        let none = of("d/*.none").await.unwrap_err();
        assert_eq!(none.kind, ErrorKind::Environment);
        assert!(none.message.contains("d/*.none"));
    }

    #[tokio::test]
    async fn files_are_looked_for_beside_the_pipeline_first() {
        let fx = Fixture::new();
        fx.write("pipes/own.md", "beside");
        fx.write("own.md", "working");
        fx.write("other.md", "other");
        let mut run = (*fx.context().run).clone();
        run.dirs.pipeline = fx.path("pipes");
        let cx = StepContext { run: std::sync::Arc::new(run), ..fx.context() };
        let prompt = json!([{ "type": "file", "path": "own.md" }, { "type": "file", "path": "other.md" }]);
        let prompt = serde_json::from_value(prompt).unwrap();
        assert_eq!(text(&cx, &FileCache::default(), prompt).await.unwrap(), "beside\nother");
    }

    #[tokio::test]
    async fn a_file_that_is_missing_forbidden_or_no_text_is_an_error_that_names_it() {
        let fx = Fixture::new();
        std::fs::write(fx.path("image.png"), b"\x89PNG\xff").unwrap();
        std::fs::write(fx.path("latin.txt"), b"caf\xe9").unwrap();
        std::fs::write(fx.outside("s.md"), "secret").unwrap();
        std::os::unix::fs::symlink(fx.outside("s.md"), fx.path("link.md")).unwrap();
        std::os::unix::fs::symlink(fx.outside(""), fx.path("linked")).unwrap();
        for (path, kind, help) in [
            ("none.md", ErrorKind::Environment, "create it"),
            ("../outside/s.md", ErrorKind::Denied, "--allow-read"),
            ("link.md", ErrorKind::Denied, "--allow-read"),
            ("linked/*.md", ErrorKind::Denied, "--allow-read"),
            ("../outside/*.md", ErrorKind::Denied, "--allow-read"),
            ("image.png", ErrorKind::Invalid, "encoding"),
        ] {
            let error = render(&fx, json!([{ "type": "file", "path": path }])).await.unwrap_err();
            assert_eq!(error.kind, kind, "{path}: {error:?}");
            let shown = path.trim_end_matches("/*.md");
            assert!(error.message.contains(shown), "{}", error.message);
            assert!(error.help.unwrap_or_default().contains(help), "{path}");
        }
        let latin = json!([{ "type": "file", "path": "latin.txt", "encoding": "latin-1" }]);
        assert_eq!(render(&fx, latin).await.unwrap(), "café");
    }

    #[tokio::test]
    async fn an_empty_prompt_is_refused_before_any_money_is_spent() {
        let fx = Fixture::new();
        for prompt in [json!("  \n"), json!([]), json!([{ "type": "static", "content": "x", "when": false }])]
        {
            assert_eq!(render(&fx, prompt).await.unwrap_err().kind, ErrorKind::Invalid);
        }
    }
}
