//! XML as a value, and a value as XML.
//!
//! Owns the mapping: an element is a map, an attribute is `@name`, its text `#text`, elements of one name are a list; an element
//! with text alone is that text. Entities beyond XML's own five are refused, so that none can grow. Must not touch files.

use std::io::{self, Write};

use pipeline_core::error::StepError;
use quick_xml::XmlVersion;
use quick_xml::escape::escape;
use quick_xml::events::{BytesRef, BytesStart, Event};
use quick_xml::reader::Reader;
use serde_json::{Map, Value};

/// Elements within elements.
const DEEPEST: usize = 128;

fn wrong(at: u64, message: impl std::fmt::Display) -> StepError {
    StepError::invalid(format!("the XML cannot be read at byte {at}: {message}"))
}

/// An element that is open.
struct Open {
    name: String,
    fields: Map<String, Value>,
    text: String,
}

impl Open {
    fn new(start: &BytesStart<'_>, at: u64) -> Result<Self, StepError> {
        let mut fields = Map::new();
        for attribute in start.attributes() {
            let attribute = attribute.map_err(|e| wrong(at, e))?;
            let value = attribute.normalized_value(XmlVersion::Implicit1_0).map_err(|e| wrong(at, e))?;
            fields.insert(format!("@{}", attribute.key.as_ref()), Value::String(value.into_owned()));
        }
        Ok(Self { name: start.name().as_ref().to_owned(), fields, text: String::new() })
    }

    fn add(&mut self, name: String, value: Value) {
        match self.fields.get_mut(&name) {
            None => {
                self.fields.insert(name, value);
            }
            Some(Value::Array(items)) => items.push(value),
            Some(one) => *one = Value::Array(vec![one.take(), value]),
        }
    }

    fn close(mut self) -> (String, Value) {
        let text = if self.fields.is_empty() { self.text.as_str() } else { self.text.trim() };
        if self.fields.is_empty() {
            return (self.name, Value::String(text.to_owned()));
        }
        if !text.is_empty() {
            self.fields.insert("#text".to_owned(), Value::String(text.to_owned()));
        }
        (self.name, Value::Object(self.fields))
    }
}

/// Reads a document: a map of the root's name and its value.
pub(super) fn read(text: &str) -> Result<Value, StepError> {
    let mut reader = Reader::from_str(text);
    let mut open: Vec<Open> = Vec::new();
    let mut root = None;
    loop {
        let at = reader.buffer_position();
        let event = reader.read_event().map_err(|e| wrong(reader.error_position(), e))?;
        let closed = match event {
            Event::Start(start) => {
                if open.len() >= DEEPEST {
                    return Err(wrong(at, format!("elements are nested over {DEEPEST} deep")));
                }
                open.push(Open::new(&start, at)?);
                None
            }
            Event::Empty(start) => Some(Open::new(&start, at)?.close()),
            Event::End(_) => open.pop().map(Open::close),
            Event::Text(text) => {
                add_text(&mut open, &text.xml_content(XmlVersion::Implicit1_0));
                None
            }
            Event::CData(data) => {
                add_text(&mut open, &data);
                None
            }
            Event::GeneralRef(entity) => {
                add_text(&mut open, &resolved(&entity, at)?.to_string());
                None
            }
            Event::Eof => break,
            _ => None,
        };
        if let Some((name, value)) = closed {
            match open.last_mut() {
                Some(parent) => parent.add(name, value),
                None if root.is_none() => root = Some((name, value)),
                None => return Err(wrong(at, "there is a second root element")),
            }
        }
    }
    match (open.last(), root) {
        (Some(element), _) => Err(wrong(text.len() as u64, format!("`{}` is not closed", element.name))),
        (None, Some((name, value))) => Ok(Value::Object(Map::from_iter([(name, value)]))),
        (None, None) => Err(wrong(0, "there is no element")),
    }
}

fn add_text(open: &mut [Open], text: &str) {
    if let Some(element) = open.last_mut() {
        element.text.push_str(text);
    }
}

fn resolved(entity: &BytesRef<'_>, at: u64) -> Result<char, StepError> {
    if let Some(sign) = entity.resolve_char_ref().map_err(|e| wrong(at, e))? {
        return Ok(sign);
    }
    match entity.as_ref() {
        "lt" => Ok('<'),
        "gt" => Ok('>'),
        "amp" => Ok('&'),
        "apos" => Ok('\''),
        "quot" => Ok('"'),
        other => Err(wrong(at, format!("the entity `&{other};` is not known"))),
    }
}

/// Writes a whole document. A map with one field that is no list is the root element, anything else is put into `root`.
pub(super) fn write(out: &mut impl Write, value: &Value) -> io::Result<()> {
    begin(out)?;
    match value {
        Value::Object(fields) if fields.len() == 1 => {
            for (name, value) in fields {
                match value {
                    Value::Array(items) => {
                        out.write_all(b"<root>")?;
                        items.iter().try_for_each(|item| element(out, name, item))?;
                        out.write_all(b"</root>")?;
                    }
                    value => element(out, name, value)?,
                }
            }
        }
        Value::Array(rows) => {
            out.write_all(b"<rows>\n")?;
            rows.iter().try_for_each(|item| row(out, item))?;
            out.write_all(b"</rows>")?;
        }
        other => element(out, "root", other)?,
    }
    out.write_all(b"\n")
}

/// The head of a document.
pub(super) fn begin(out: &mut impl Write) -> io::Result<()> {
    out.write_all(b"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n")
}

/// One row of a table.
pub(super) fn row(out: &mut impl Write, value: &Value) -> io::Result<()> {
    element(out, "row", value)?;
    out.write_all(b"\n")
}

/// What may stand in a document at all.
fn escaped(text: &str) -> io::Result<String> {
    let is_legal = |c: char| matches!(c, '\t' | '\n' | '\r' | '\u{20}'..='\u{FFFD}' | '\u{10000}'..);
    if let Some(sign) = text.chars().find(|c| !is_legal(*c)) {
        let message = format!("the control sign {sign:?} cannot stand in XML");
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    // A reader would make a line end of it.
    Ok(escape(text).replace('\r', "&#13;"))
}

fn is_name(text: &str) -> bool {
    let mut chars = text.chars();
    chars.next().is_some_and(|c| c.is_alphabetic() || c == '_')
        && chars.all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.'))
}

fn element(out: &mut impl Write, name: &str, value: &Value) -> io::Result<()> {
    if let Value::Array(items) = value {
        return items.iter().try_for_each(|item| element(out, name, item));
    }
    // A name that XML does not have is an attribute of an element that it has.
    let (tag, own) = if is_name(name) { (name, None) } else { ("field", Some(name)) };
    write!(out, "<{tag}")?;
    if let Some(own) = own {
        write!(out, " name=\"{}\"", escaped(own)?)?;
    }
    match value {
        Value::Null => out.write_all(b"/>"),
        Value::Object(fields) => {
            let attributes = fields.iter().filter_map(|(key, value)| {
                let name = key.strip_prefix('@').filter(|n| is_name(n))?;
                Some((name, plain(value)?))
            });
            for (name, text) in attributes {
                let text = escaped(&text)?.replace('\n', "&#10;").replace('\t', "&#9;");
                write!(out, " {name}=\"{text}\"")?;
            }
            out.write_all(b">")?;
            for (key, value) in fields {
                let is_attribute = key.strip_prefix('@').is_some_and(is_name) && plain(value).is_some();
                match (key.as_str(), plain(value)) {
                    _ if is_attribute => {}
                    ("#text", Some(text)) => out.write_all(escaped(&text)?.as_bytes())?,
                    _ => element(out, key, value)?,
                }
            }
            write!(out, "</{tag}>")
        }
        other => write!(out, ">{}</{tag}>", escaped(&plain(other).unwrap_or_default())?),
    }
}

fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

    use super::*;
    use pipeline_core::conformance::trials::{Random, Trials};
    use serde_json::json;

    #[test]
    fn attributes_text_lists_and_entities_are_read() {
        let text = "<?xml version='1.0'?><!-- c --><r a='1 &amp; 2'><x>one</x><x>t&lt;o &#65;<![CDATA[<raw>]]></x><y/>tail</r>";
        let expected = json!({"r": {"@a": "1 & 2", "x": ["one", "t<o A<raw>"], "y": "", "#text": "tail"}});
        assert_eq!(read(text).unwrap(), expected);
    }

    /// Naive: a reader that trusts its positions.
    #[test]
    fn t10_any_document_gives_a_value_or_an_error() {
        let trials = Trials::of("T10", 5_000);
        let mut random = Random::new(trials.seed());
        let seed =
            b"<?xml version='1.0'?><!-- c --><r a='1 &amp; 2'><x>one</x><y/>t&#65;<![CDATA[<raw>]]></r>";
        let signs = b"<>/!?[]&;#'\"= x\xc3\xff\0-";
        for _ in 0..trials.wanted() {
            let mut bytes = seed.to_vec();
            for _ in 0..=random.below(5) {
                let at = random.below(bytes.len());
                match random.below(3) {
                    0 => drop(bytes.drain(at..(at + random.below(9)).min(bytes.len()))),
                    1 => bytes.insert(at, signs[random.below(signs.len())]),
                    _ => bytes.extend_from_within(at..),
                }
                if bytes.is_empty() {
                    bytes.push(b'<');
                }
            }
            let text = String::from_utf8_lossy(&bytes).into_owned();
            trials.try_out(&text, || {
                if let Err(error) = read(&text) {
                    assert!(!error.message.is_empty(), "refused without a word");
                }
            });
        }
        let wanted = trials.wanted();
        trials.finish(format!("{wanted} mutants of XML: a value or an error"));
    }

    /// Naive: entities are expanded, and nesting is followed down to the end of the stack.
    #[test]
    fn x26_entities_depth_and_torn_documents_are_refused() {
        let bomb = "<!DOCTYPE r [<!ENTITY a 'aaaa'><!ENTITY b '&a;&a;'>]><r>&b;</r>";
        assert!(read(bomb).unwrap_err().message.contains("`&b;` is not known"));
        assert!(read(&"<a>".repeat(10_000)).unwrap_err().message.contains("128 deep"));
        for torn in ["", "<a>", "<a></b>", "<a/><b/>", "<a b=1/>", "<a", "text"] {
            assert!(read(torn).is_err(), "{torn}");
        }
    }

    #[test]
    fn a_value_comes_back_as_it_was_written() {
        let value = json!({"r": {"@id": "a\"<\n", "x": ["1", "2 & 3", "\r"], "deep": {"y": "é"}}});
        let mut out = Vec::new();
        write(&mut out, &value).unwrap();
        assert_eq!(read(std::str::from_utf8(&out).unwrap()).unwrap(), value);
        let mut out = Vec::new();
        assert!(write(&mut out, &json!({"r": "\u{1}"})).is_err());
    }
}
