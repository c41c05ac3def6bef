//! What can be read out of an answer without asking anybody again.
//!
//! Owns [`Extraction`], its configuration and its result: code, links, points, entities, a summary, each a field of its own.
//! The text itself is never changed. The same text gives the same result on every machine. Must not know models.
//! Next: `extraction/markdown.rs` (structure), `extraction/words.rs` (sentences and entities).

mod markdown;
mod words;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, json};

use pipeline_core::value::Value;

use crate::prompt::answer;
use markdown::Document;

pub(super) use words::summary;

/// Characters of a summary, when nothing else is said.
pub(super) const SUMMARY: usize = 500;

/// Sentences of a summary that stands beside the content.
const SENTENCES: usize = 3;

/// Reads an answer.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Extraction {
    /// What `content` is: the text, its JSON, its sections, a summary of it, or its Markdown in one style.
    #[serde(default)]
    pub format: Format,
    /// What is read beside the content; each is a field of its own.
    #[serde(default)]
    pub post_processing: Vec<Reading>,
    /// Most characters of a summary. Default 500.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub max_summary_length: Option<u64>,
    /// Whether `metadata` tells the format and the lengths.
    #[serde(default)]
    pub include_metadata: bool,
}

/// The shape of the content.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Format {
    /// The text as it is.
    #[default]
    Text,
    /// Its JSON.
    Json,
    /// Its headings with what stands under each.
    Structured,
    /// Its first sentences.
    Summary,
    /// Its Markdown, written in one style.
    Markdown,
}

/// Something that is read out of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Reading {
    /// `code_blocks`: fenced code with its language.
    ExtractCodeBlocks,
    /// `recommendations`: sentences that recommend, and points under a heading that does.
    ExtractRecommendations,
    /// `links`: addresses, with their texts.
    ExtractLinks,
    /// `key_points`: items of lists.
    ExtractKeyPoints,
    /// `entities`: mail addresses, dates, sums, percentages, versions, identifiers, names.
    ExtractEntities,
    /// `markdown`: the text in one style of Markdown.
    FormatMarkdown,
    /// `summary`: its first sentences.
    GenerateSummary,
}

impl Format {
    fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
            Self::Structured => "structured",
            Self::Summary => "summary",
            Self::Markdown => "markdown",
        }
    }
}

impl Extraction {
    /// The field `extraction` of a step's value.
    pub fn of(&self, text: &str) -> Value {
        let document = Document::read(text);
        let most = self.max_summary_length.map_or(SUMMARY, |n| usize::try_from(n).unwrap_or(usize::MAX));
        let content = self.content(text, &document, most);
        let mut all = Map::new();
        all.insert("format".to_owned(), self.format.name().into());
        all.insert("content".to_owned(), content);
        for reading in &self.post_processing {
            let (name, found) = match reading {
                Reading::ExtractCodeBlocks => ("code_blocks", json!(document.code_blocks())),
                Reading::ExtractRecommendations => {
                    ("recommendations", json!(words::recommendations(&document)))
                }
                Reading::ExtractLinks => ("links", json!(document.links())),
                Reading::ExtractKeyPoints => ("key_points", json!(document.points())),
                Reading::ExtractEntities => ("entities", json!(words::entities(&document))),
                Reading::FormatMarkdown => ("markdown", document.formatted().into()),
                Reading::GenerateSummary => ("summary", summary(&document.prose(), SENTENCES, most).into()),
            };
            all.insert(name.to_owned(), found);
        }
        if self.include_metadata {
            let shown = text_of(&all["content"]);
            let metadata = json!({
                "format": self.format.name(),
                "post_processing": self.post_processing,
                "original_length": text.chars().count(),
                "content_length": shown.chars().count(),
            });
            all.insert("metadata".to_owned(), metadata);
        }
        Value::Object(all)
    }

    fn content(&self, text: &str, document: &Document<'_>, most: usize) -> Value {
        match self.format {
            Format::Text => text.into(),
            Format::Json => answer::any_json(text).unwrap_or_else(|| json!({ "content": text })),
            Format::Structured => json!({ "sections": document.sections() }),
            Format::Summary => summary(&document.prose(), usize::MAX, most).into(),
            Format::Markdown => document.formatted().into(),
        }
    }

    /// What stands in a prompt: the content, or everything that was read as JSON.
    pub fn for_prompt(&self, text: &str) -> String {
        let all = self.of(text);
        if self.post_processing.is_empty() && !self.include_metadata {
            return text_of(&all["content"]);
        }
        all.to_string()
    }
}

fn text_of(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// The first sentences of a text that may be Markdown.
pub(super) fn summary_of(text: &str, most: usize) -> String {
    summary(&Document::read(text).prose(), usize::MAX, most)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

    use super::*;

    const ARTICLE: &str = "\
Python is easy to read. It has many libraries! Who uses it?

# Practice

We recommend type hints. Tabs are possible.

* Use virtual environments
* Pin versions like 3.12.1
1. Test first

## Recommendations

- Read https://docs.python.org/3/.
- Write to Guido van Rossum (guido@python.org) by 2026-01-31

```python
# not a heading
- not a point: https://example.com/code
print('should')
```
See [the guide](https://peps.python.org) and `sys.path`; it costs $1,500 or 5 %.
";

    fn read(reading: &str) -> Value {
        let config = json!({ "post_processing": [reading] });
        let all = serde_json::from_value::<Extraction>(config).unwrap().of(ARTICLE);
        let fields = all.as_object().unwrap();
        assert_eq!(fields.len(), 3, "format, content and one field: {all}");
        assert_eq!(all["content"], ARTICLE, "the text is never changed");
        fields.values().next_back().unwrap().clone()
    }

    fn content(format: &str, most: u64) -> Value {
        let config = json!({ "format": format, "max_summary_length": most });
        serde_json::from_value::<Extraction>(config).unwrap().of(ARTICLE)["content"].clone()
    }

    #[test]
    fn code_blocks_have_their_language() {
        let code = "# not a heading\n- not a point: https://example.com/code\nprint('should')";
        assert_eq!(read("extract_code_blocks"), json!([{ "language": "python", "code": code }]));
    }

    #[test]
    fn points_are_items_of_lists_outside_of_code() {
        let points = json!([
            "Use virtual environments",
            "Pin versions like 3.12.1",
            "Test first",
            "Read https://docs.python.org/3/.",
            "Write to Guido van Rossum (guido@python.org) by 2026-01-31",
        ]);
        assert_eq!(read("extract_key_points"), points);
    }

    #[test]
    fn recommendations_are_sentences_and_points_under_such_a_heading() {
        let found = json!([
            "We recommend type hints.",
            "Read https://docs.python.org/3/.",
            "Write to Guido van Rossum (guido@python.org) by 2026-01-31",
        ]);
        assert_eq!(read("extract_recommendations"), found);
    }

    #[test]
    fn links_have_their_texts_and_no_punctuation() {
        let links = json!([
            { "url": "https://docs.python.org/3/", "text": null },
            { "url": "https://peps.python.org", "text": "the guide" },
        ]);
        assert_eq!(read("extract_links"), links);
    }

    #[test]
    fn entities_have_types() {
        let entities = json!([
            { "type": "email", "text": "guido@python.org" },
            { "type": "date", "text": "2026-01-31" },
            { "type": "money", "text": "$1,500" },
            { "type": "percent", "text": "5 %" },
            { "type": "version", "text": "3.12.1" },
            { "type": "identifier", "text": "sys.path" },
            { "type": "name", "text": "Guido van Rossum" },
        ]);
        assert_eq!(read("extract_entities"), entities);
    }

    #[test]
    fn markdown_has_one_style() {
        let config = Extraction { format: Format::Markdown, ..Extraction::default() };
        let text = "#  Title  \ntext   \n\n\n\n* a\n+ b\n```\n* x   \n```\nend";
        let expected = "# Title\n\ntext\n\n- a\n- b\n\n```\n* x   \n```\n\nend\n";
        assert_eq!(config.of(text)["content"], expected);
        assert_eq!(config.of(expected)["content"], expected, "what is formatted stays");
        assert!(read("format_markdown").as_str().unwrap().contains("\n- Use virtual environments\n"));
    }

    #[test]
    fn a_summary_is_whole_sentences_within_its_length() {
        assert_eq!(read("generate_summary"), "Python is easy to read. It has many libraries! Who uses it?");
        assert_eq!(content("summary", 30), "Python is easy to read.");
        assert_eq!(content("summary", 12), "Python is…", "a first sentence that is too long ends at a word");
        let long = content("summary", 500);
        assert!(long.as_str().unwrap().contains("We recommend type hints."), "{long}");
        assert!(!long.as_str().unwrap().contains("print("), "code is not prose: {long}");
    }

    #[test]
    fn structure_is_headings_with_what_stands_under_them() {
        let sections = content("structured", 1);
        let headings: Vec<&Value> =
            sections["sections"].as_array().unwrap().iter().map(|s| &s["heading"]).collect();
        assert_eq!(headings, [&Value::Null, &json!("Practice"), &json!("Recommendations")]);
        assert_eq!(sections["sections"][2]["level"], 2);
        assert!(sections["sections"][2]["text"].as_str().unwrap().contains("# not a heading"));
    }

    #[test]
    fn json_is_found_or_wrapped() {
        let config = Extraction { format: Format::Json, ..Extraction::default() };
        assert_eq!(config.of("Here:\n```json\n[1]\n```")["content"], json!([1]));
        assert_eq!(config.of("no")["content"], json!({ "content": "no" }));
    }

    #[test]
    fn metadata_has_no_clock() {
        let config = Extraction { include_metadata: true, ..Extraction::default() };
        let expected =
            json!({ "format": "text", "post_processing": [], "original_length": 2, "content_length": 2 });
        assert_eq!(config.of("äb")["metadata"], expected);
    }

    #[test]
    fn odd_texts_do_not_break_it() {
        let all = json!([
            "extract_code_blocks",
            "extract_recommendations",
            "extract_links",
            "extract_key_points",
            "extract_entities",
            "format_markdown",
            "generate_summary"
        ]);
        for text in [
            "",
            "```",
            "```\nopen",
            "#",
            "- ",
            "[a](",
            "<https://x>",
            "\u{feff}\r\n",
            "....",
            "1.",
            "[](http://)",
        ] {
            for format in ["text", "json", "structured", "summary", "markdown"] {
                let config = json!({ "format": format, "post_processing": all, "include_metadata": true });
                let _ = serde_json::from_value::<Extraction>(config).unwrap().of(text);
            }
        }
    }
}
