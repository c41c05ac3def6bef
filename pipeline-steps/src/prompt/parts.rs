//! From parts to the turn that is sent.
//!
//! Owns the joining, the filling of `{NAME}` in files and statics, and `inject_as`. Text of a model or of any value is
//! data: nothing in it is ever filled. Must not know providers beyond what they are able to take.

use std::collections::HashMap;

use base64::Engine as _;
use pipeline_core::error::{ErrorKind, StepError};
use pipeline_core::provider::{Capabilities, Content};
use pipeline_core::step::StepContext;

use crate::file_cache::FileCache;
use crate::prompt::extraction::{self, Extraction};
use crate::prompt::files::{self, FileContent, Found};
use crate::prompt::part::{Part, PromptText, text_of};
use crate::prompt::{pick, session};

/// Characters of a prompt that is asked in a simpler way.
const SIMPLE: usize = 4000;

/// Values of `{NAME}`.
type Names = HashMap<String, String>;

/// A prompt, ready to be sent.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// The user's turn: text, images, documents, in order.
    pub content: Vec<Content>,
    /// The conversation that a part goes on with.
    pub continues: Option<String>,
    /// What people should know.
    pub warnings: Vec<String>,
}

/// Whoever answers, as far as the prompt must know.
pub(super) struct Reader<'a> {
    pub provider: &'a str,
    pub able: &'a Capabilities,
    /// Asks for less.
    pub simplify: bool,
}

/// A part before the names of other parts are known.
struct Piece {
    blocks: Vec<Content>,
    /// Names that only this piece fills.
    own: Names,
    is_data: bool,
}

impl Piece {
    fn text(text: String, is_data: bool) -> Self {
        Self { blocks: vec![Content::Text { text }], own: Names::new(), is_data }
    }
}

/// The prompt.
///
/// # Errors
/// What files and sessions say; `Unsupported` for an image or a document that nobody there can see; `Invalid` when nothing
/// is left to ask.
pub(super) async fn asked(
    cx: &StepContext,
    cache: &FileCache,
    prompt: PromptText,
    reader: &Reader<'_>,
) -> Result<Asked, StepError> {
    let mut asked = Asked::default();
    match prompt {
        PromptText::Text(text) => asked.content.push(Content::Text { text }),
        PromptText::Other(value) => asked.content.push(Content::Text { text: text_of(&value) }),
        PromptText::Parts(parts) => Box::pin(joined(cx, cache, parts, reader, &mut asked)).await?,
    }
    let is_empty = |c: &Content| matches!(c, Content::Text { text } if text.trim().is_empty());
    if asked.content.iter().all(is_empty) {
        return Err(StepError::invalid("the prompt is empty")
            .help("see what its templates and parts give; every part with a false condition is left out"));
    }
    // An empty text beside an image says nothing, and providers refuse it.
    asked.content.retain(|c| !is_empty(c));
    if reader.simplify {
        asked.content = simpler(&asked.content);
    }
    Ok(asked)
}

/// Less to read, and a short answer wanted.
fn simpler(content: &[Content]) -> Vec<Content> {
    let texts = content
        .iter()
        .filter_map(|c| if let Content::Text { text } = c { Some(text.as_str()) } else { None });
    let mut text = texts.collect::<Vec<_>>().join("\n");
    cut(&mut text, SIMPLE);
    text.push_str("\n\nAnswer as briefly and simply as you can.");
    vec![Content::Text { text }]
}

fn cut(text: &mut String, most: usize) {
    if let Some((end, _)) = text.char_indices().nth(most) {
        text.truncate(end);
    }
}

async fn joined(
    cx: &StepContext,
    cache: &FileCache,
    parts: Vec<Part>,
    reader: &Reader<'_>,
    asked: &mut Asked,
) -> Result<(), StepError> {
    let own_words = |part: &Part| matches!(part, Part::Static { .. } | Part::ClaudeContinue { .. });
    let only_own = reader.simplify && parts.iter().any(own_words);
    let mut pieces = Vec::new();
    let mut injected = Names::new();
    for part in parts.into_iter().filter(|p| !only_own || own_words(p)) {
        let (inject_as, piece) = piece(cx, cache, part, reader, asked).await?;
        match (inject_as, piece) {
            (Some(name), Some(piece)) => {
                // Filled with its own names only: what is injected is data for the others.
                let text = injectable(&name, &piece)?;
                injected.insert(name, filled(&text, &[&piece.own]));
            }
            // A part that is left out leaves its name empty, not as a word for the model to wonder about.
            (Some(name), None) => {
                injected.entry(name).or_default();
            }
            (None, Some(piece)) => pieces.push(piece),
            (None, None) => {}
        }
    }
    for piece in pieces {
        for block in piece.blocks {
            let block = match block {
                Content::Text { text } if !piece.is_data => {
                    Content::Text { text: filled(&text, &[&piece.own, &injected]) }
                }
                other => other,
            };
            // Texts that follow each other are one.
            match (asked.content.last_mut(), block) {
                (Some(Content::Text { text }), Content::Text { text: more }) => {
                    text.push('\n');
                    text.push_str(&more);
                }
                (_, block) => asked.content.push(block),
            }
        }
    }
    Ok(())
}

fn injectable(name: &str, piece: &Piece) -> Result<String, StepError> {
    let mut texts = Vec::new();
    for block in &piece.blocks {
        let Content::Text { text } = block else {
            return Err(StepError::invalid(format!(
                "an image or PDF cannot stand in a text as `{{{name}}}`"
            ))
            .help("leave out `inject_as`: it is sent where the part stands"));
        };
        texts.push(text.as_str());
    }
    Ok(texts.join("\n"))
}

/// One part: the name it is injected as, and its content unless its condition is false.
async fn piece(
    cx: &StepContext,
    cache: &FileCache,
    part: Part,
    reader: &Reader<'_>,
    asked: &mut Asked,
) -> Result<(Option<String>, Option<Piece>), StepError> {
    Ok(match part {
        Part::Static { content, when } => (None, when.0.then(|| Piece::text(content.0, false))),
        Part::Value { inject_as, when, .. } if !when.0 => (inject_as, None),
        Part::Value { value, path, strict, extract, summary, max_length, inject_as, .. } => {
            let value = match &path {
                Some(path) => pick::at(&value, path, strict)?,
                None => value,
            };
            let text = shortened(&text_of(&value), extract.as_ref(), summary, max_length);
            (inject_as, Some(Piece::text(text, true)))
        }
        Part::File { inject_as, when, .. } if !when.0 => (inject_as, None),
        Part::File { path, variables, inject_as, encoding, .. } => {
            let files = files::read(cx, cache, &path.0, encoding).await?;
            let own = variables.into_iter().map(|(name, value)| (name, text_of(&value))).collect();
            (inject_as, Some(Piece { blocks: blocks(files, reader)?, own, is_data: false }))
        }
        Part::SessionContext { when, .. } if !when.0 => (None, None),
        Part::SessionContext { session, include_last_n, .. } => {
            let text = session::transcript(cx, &session.0, include_last_n).await?;
            if text.is_none() {
                asked.warnings.push(format!("the session `{}` has no turns yet", session.0));
            }
            (None, text.map(|text| Piece::text(text, true)))
        }
        Part::ClaudeContinue { when, .. } if !when.0 => (None, None),
        Part::ClaudeContinue { new_prompt, session, .. } => {
            if let Some(session) = session {
                if session.0.is_empty() {
                    return Err(StepError::invalid("there is no conversation to go on with")
                        .help("the step before has no session; give `session_id` or `session_name`"));
                }
                asked.continues = Some(session.0);
            }
            (None, Some(Piece::text(new_prompt.0, false)))
        }
    })
}

/// What a value comes to in a prompt.
fn shortened(text: &str, extract: Option<&Extraction>, summary: bool, max_length: Option<u64>) -> String {
    let most = max_length.map(|n| usize::try_from(n).unwrap_or(usize::MAX));
    let mut text = extract.map_or_else(|| text.to_owned(), |e| e.for_prompt(text));
    if summary {
        text = extraction::summary_of(&text, most.unwrap_or(extraction::SUMMARY));
    }
    if let Some(most) = most {
        cut(&mut text, most);
    }
    text
}

/// The content of files, in order. Of several, each is headed by its path.
fn blocks(files: Vec<Found>, reader: &Reader<'_>) -> Result<Vec<Content>, StepError> {
    let is_headed = files.len() > 1;
    let mut all = Vec::new();
    for Found { shown, content } in files {
        if is_headed {
            all.push(Content::Text { text: format!("--- {shown} ---") });
        }
        all.push(match content {
            FileContent::Text(text) => Content::Text { text },
            FileContent::Media { media_type, bytes } => {
                let (is_able, what) = match media_type {
                    "application/pdf" => (reader.able.documents, "PDF"),
                    _ => (reader.able.images, "image"),
                };
                if !is_able {
                    let message = format!("`{}` takes no {what} in a prompt: `{shown}`", reader.provider);
                    return Err(StepError::new(ErrorKind::Unsupported, message)
                        .help("ask a provider that does, or give it text instead"));
                }
                let data = base64::engine::general_purpose::STANDARD.encode(&bytes);
                Content::Media { media_type: media_type.to_owned(), name: shown, data }
            }
        });
    }
    Ok(all)
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
        render_in(&fx.context(), prompt).await
    }

    async fn render_in(cx: &StepContext, prompt: serde_json::Value) -> Result<String, StepError> {
        let prompt: PromptText = serde_json::from_value(prompt).unwrap();
        let reader = Reader { provider: "test", able: &Capabilities::default(), simplify: false };
        let asked = asked(cx, &FileCache::default(), prompt, &reader).await?;
        let texts = asked.content.into_iter().map(|c| match c {
            Content::Text { text } => text,
            other => panic!("only text was expected: {other:?}"),
        });
        Ok(texts.collect::<Vec<_>>().join("|"))
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
        assert_eq!(render_in(&cx, prompt).await.unwrap(), "beside\nother");
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
            ("image.png", ErrorKind::Invalid, "the name that fits"),
            ("latin.txt", ErrorKind::Invalid, "encoding"),
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
