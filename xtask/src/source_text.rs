//! Reads Rust source as text: enough to count, not enough to compile.
//!
//! Owns [`mask`] (comments and literals blanked out), [`without_tests`] and the measurements [`functions`] and [`traits`].
//! Must not know budgets or files: `tidy.rs` judges what is measured here.
//!
//! Limits, accepted because a full parser would cost more than it finds:
//! * a brace inside a function's signature (a const generic such as `Foo<{ N }>`) is taken for its body;
//! * bodies of `macro_rules!` are counted as they are written, not as they expand;
//! * a closure or an inner function counts as part of the function around it, and an inner function once more by itself.

use std::ops::Range;

/// Something with a name and a length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Measured {
    /// Name as written.
    pub name: String,
    /// First line, from 1.
    pub line: usize,
    /// Lines from the signature to the closing brace for a function; number of methods for a trait.
    pub size: usize,
}

/// The same text with comments and the insides of string and character literals replaced by spaces.
///
/// Line breaks stay, so that line numbers and byte positions are those of `text`.
pub fn mask(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = match bytes[at] {
            b'/' if bytes.get(at + 1) == Some(&b'/') => find(bytes, at, b"\n").unwrap_or(bytes.len()),
            b'/' if bytes.get(at + 1) == Some(&b'*') => block_comment_end(bytes, at),
            b'"' => string_end(bytes, at),
            b'r' if !is_name_byte(before(bytes, at)) => raw_string_end(bytes, at).unwrap_or(at + 1),
            // `br"…"`: the `b` is an ordinary byte, the `r` after it would look like part of a name.
            b'b' if bytes.get(at + 1) == Some(&b'r') && !is_name_byte(before(bytes, at)) => {
                raw_string_end(bytes, at + 1).unwrap_or(at + 1)
            }
            b'\'' => char_end(bytes, at).unwrap_or(at + 1),
            _ => at + 1,
        };
        if end > at + 1 {
            for byte in &mut out[at..end] {
                if *byte != b'\n' {
                    *byte = b' ';
                }
            }
        }
        at = end;
    }
    // Only whole literals and comments were blanked, so no character was cut; lossy never replaces anything here.
    String::from_utf8_lossy(&out).into_owned()
}

/// Byte ranges of the inline `#[cfg(test)] mod x { … }` modules of masked text, attribute included.
pub fn test_regions(masked: &str) -> Vec<Range<usize>> {
    const MARK: &str = "#[cfg(test)]";
    let mut regions: Vec<Range<usize>> = Vec::new();
    for (start, _) in masked.match_indices(MARK) {
        if regions.last().is_some_and(|last| last.contains(&start)) {
            continue;
        }
        if let Some((open, true)) = item_after(masked, start + MARK.len()) {
            let end = closing(masked.as_bytes(), open).map_or(masked.len(), |end| end + 1);
            regions.push(start..end);
        }
    }
    regions
}

/// Masked text with its inline test modules blanked; line breaks stay.
pub fn without_tests(masked: &str) -> String {
    let regions = test_regions(masked);
    let blank =
        |(at, c)| if c != '\n' && regions.iter().any(|region| region.contains(&at)) { ' ' } else { c };
    masked.char_indices().map(blank).collect()
}

/// Number of lines less those of inline test modules.
pub fn lines_without_tests(masked: &str) -> usize {
    let in_tests: usize = test_regions(masked).into_iter().map(|region| masked[region].lines().count()).sum();
    masked.lines().count().saturating_sub(in_tests)
}

/// Names of the modules that are declared `#[cfg(test)] mod x;`, whose files are tests as a whole.
pub fn test_modules(masked: &str) -> Vec<String> {
    let mut lines = masked.lines().map(str::trim).filter(|line| !line.is_empty());
    let mut names = Vec::new();
    while let Some(line) = lines.next() {
        if line != "#[cfg(test)]" {
            continue;
        }
        // Further attributes may stand between.
        let Some(item) = lines.by_ref().find(|line| !line.starts_with("#[")) else { break };
        names.extend(declared_module(item).map(str::to_owned));
    }
    names
}

/// The name in `mod x;`, with or without a visibility.
pub fn declared_module(line: &str) -> Option<&str> {
    let rest = line.trim();
    let rest = match rest.strip_prefix("pub") {
        Some(after) if after.starts_with('(') => after.split_once(')')?.1.trim_start(),
        Some(after) if after.starts_with(' ') => after.trim_start(),
        _ => rest,
    };
    let name = rest.strip_prefix("mod ")?.strip_suffix(';')?.trim();
    name.bytes().all(|b| is_name_byte(Some(b))).then_some(name)
}

/// Every function with a body, in order.
pub fn functions(masked: &str) -> Vec<Measured> {
    let bytes = masked.as_bytes();
    words(masked, "fn")
        .filter_map(|at| {
            let name = name_after(masked, at + 2)?;
            let open = body_after(bytes, at)?;
            let close = closing(bytes, open)?;
            let size = line_of(bytes, close) - line_of(bytes, at) + 1;
            Some(Measured { name, line: line_of(bytes, at), size })
        })
        .collect()
}

/// Every trait, with its number of methods.
pub fn traits(masked: &str) -> Vec<Measured> {
    let bytes = masked.as_bytes();
    words(masked, "trait")
        .filter_map(|at| {
            let name = name_after(masked, at + 5)?;
            let open = body_after(bytes, at)?;
            let close = closing(bytes, open)?;
            let body = &masked[open + 1..close];
            let methods = words(body, "fn")
                .filter(|found| {
                    depth_at(body.as_bytes(), *found) == 0 && name_after(body, found + 2).is_some()
                })
                .count();
            Some(Measured { name, line: line_of(bytes, at), size: methods })
        })
        .collect()
}

/// Line number of a byte position, from 1.
pub fn line_of(bytes: &[u8], at: usize) -> usize {
    bytes.iter().take(at).filter(|byte| **byte == b'\n').count() + 1
}

/// Byte positions where `word` stands alone.
pub fn words<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let bytes = text.as_bytes();
    text.match_indices(word).map(|(at, _)| at).filter(move |at| {
        !is_name_byte(before(bytes, *at)) && !is_name_byte(bytes.get(at + word.len()).copied())
    })
}

/// The identifier that starts at or after `at`, when nothing but space stands before it.
pub fn name_after(text: &str, at: usize) -> Option<String> {
    let name: String =
        text.get(at..)?.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    (!name.is_empty()).then_some(name)
}

fn is_name_byte(byte: Option<u8>) -> bool {
    byte.is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_' || b >= 0x80)
}

fn before(bytes: &[u8], at: usize) -> Option<u8> {
    at.checked_sub(1).and_then(|i| bytes.get(i)).copied()
}

fn find(bytes: &[u8], from: usize, what: &[u8]) -> Option<usize> {
    bytes.get(from..)?.windows(what.len()).position(|part| part == what).map(|found| from + found)
}

fn block_comment_end(bytes: &[u8], start: usize) -> usize {
    let mut depth = 0_usize;
    let mut at = start;
    while at < bytes.len() {
        match &bytes[at..bytes.len().min(at + 2)] {
            b"/*" => {
                depth += 1;
                at += 2;
            }
            b"*/" => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    bytes.len()
}

fn string_end(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// `start` is the `r`.
fn raw_string_end(bytes: &[u8], start: usize) -> Option<usize> {
    let hashes = bytes.get(start + 1..)?.iter().take_while(|b| **b == b'#').count();
    let quote = start + 1 + hashes;
    if bytes.get(quote) != Some(&b'"') {
        return None;
    }
    let mut close = vec![b'"'];
    close.resize(hashes + 1, b'#');
    Some(find(bytes, quote + 1, &close).map_or(bytes.len(), |at| at + close.len()))
}

/// `None` for a lifetime or a label.
fn char_end(bytes: &[u8], start: usize) -> Option<usize> {
    let first = *bytes.get(start + 1)?;
    if first == b'\\' {
        // The byte after the backslash may itself be a quote.
        return find(bytes, start + 3, b"'").map(|at| at + 1);
    }
    let width = match first {
        0xF0.. => 4,
        0xE0.. => 3,
        0xC0.. => 2,
        _ => 1,
    };
    (bytes.get(start + 1 + width) == Some(&b'\'')).then_some(start + width + 2)
}

/// Position of the `{` that opens a body; `None` when a `;` ends the item first.
fn body_after(bytes: &[u8], from: usize) -> Option<usize> {
    let mut depth = 0_i32;
    for (at, byte) in bytes.iter().enumerate().skip(from) {
        match byte {
            b'(' | b'[' => depth += 1,
            b')' | b']' => depth -= 1,
            b'{' if depth == 0 => return Some(at),
            b';' | b'}' if depth == 0 => return None,
            _ if depth < 0 => return None,
            _ => {}
        }
    }
    None
}

fn closing(bytes: &[u8], open: usize) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, byte) in bytes.iter().enumerate().skip(open) {
        match byte {
            b'{' => depth += 1,
            b'}' => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
    }
    None
}

fn depth_at(bytes: &[u8], at: usize) -> usize {
    bytes.iter().take(at).fold(0_usize, |depth, byte| match byte {
        b'{' => depth + 1,
        b'}' => depth.saturating_sub(1),
        _ => depth,
    })
}

/// The `{` of the item that an attribute at `from` belongs to, and whether the item is a module.
fn item_after(text: &str, from: usize) -> Option<(usize, bool)> {
    let mut rest_at = from;
    loop {
        let rest = text.get(rest_at..)?;
        let skipped = rest.len() - rest.trim_start().len();
        if !rest.trim_start().starts_with("#[") {
            rest_at += skipped;
            break;
        }
        // Attributes here are written without nested brackets, or with balanced ones.
        let open = rest_at + skipped + 1;
        let mut depth = 0_i32;
        let close = text.as_bytes().iter().enumerate().skip(open).find_map(|(at, byte)| {
            depth += match byte {
                b'[' => 1,
                b']' => -1,
                _ => 0,
            };
            (depth == 0).then_some(at)
        })?;
        rest_at = close + 1;
    }
    let open = body_after(text.as_bytes(), rest_at)?;
    let is_module = words(&text[rest_at..open], "mod").next().is_some();
    Some((open, is_module))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn masking_blanks_comments_and_literals_and_keeps_every_position() {
        let text = "let a = \"{ \\\" {\"; // {\nlet b = r#\"}\"}\"#; /* { /* { */ } */ let c = '{'; let d: &'a str = br\"{\";";
        let masked = mask(text);
        assert_eq!(masked.len(), text.len());
        assert!(!masked.contains(['{', '}']), "{masked}");
        assert!(masked.contains("let d: &'a str"), "a lifetime is not a literal: {masked}");
        assert_eq!(masked.find('\n'), text.find('\n'));
    }

    #[test]
    fn quotes_inside_character_literals_do_not_open_a_string() {
        let masked = mask("let q = '\"'; let e = '\\''; let u = '\\u{1F}'; let w = 'ü'; end()");
        assert!(masked.ends_with("end()"), "{masked}");
        assert!(!masked.contains('"'), "{masked}");
    }

    #[test]
    fn a_function_is_measured_from_its_signature_to_its_last_brace() {
        let text = mask(
            "fn one() {}\n\nfn two(\n    a: [u8; 3],\n) -> bool {\n    // }\n    if a { x }\n    true\n}\n",
        );
        let found = functions(&text);
        assert_eq!(found[0], Measured { name: "one".into(), line: 1, size: 1 });
        assert_eq!(found[1], Measured { name: "two".into(), line: 3, size: 7 });
        assert_eq!(found.len(), 2);
    }

    #[test]
    fn function_pointers_and_bodiless_methods_are_not_functions() {
        let text =
            mask("type F = fn(u8) -> u8;\ntrait T { fn a(&self); fn b(&self) { () } }\nstruct S { f: fn() }");
        let names: Vec<_> = functions(&text).into_iter().map(|f| f.name).collect();
        assert_eq!(names, ["b"]);
    }

    #[test]
    fn a_trait_counts_its_methods_and_not_what_is_inside_them() {
        let text = mask(
            "pub trait T: Send {\n fn a(&self);\n async fn b(&self) { fn inner() {} }\n const X: fn();\n}",
        );
        assert_eq!(traits(&text), [Measured { name: "T".into(), line: 1, size: 2 }]);
    }

    #[test]
    fn inline_test_modules_are_blanked_and_code_after_them_stays() {
        let text = mask(
            "fn a() {}\n#[cfg(test)]\n#[allow(x, y = [1])]\nmod tests {\n fn t() { {} }\n}\nfn b() {}\n#[cfg(test)]\nfn probe() {}\n",
        );
        let code = without_tests(&text);
        let names: Vec<_> = functions(&code).into_iter().map(|f| f.name).collect();
        assert_eq!(names, ["a", "b", "probe"]);
        assert_eq!(code.lines().count(), text.lines().count());
    }

    #[test]
    fn lines_of_an_inline_test_module_do_not_count() {
        let body = "    // why\n\n    fn t() {}\n".repeat(400);
        let text = format!("//! Header.\nfn a() {{}}\n\n#[cfg(test)]\nmod tests {{\n{body}}}\n");
        assert_eq!(lines_without_tests(&mask(&text)), 3);
    }

    #[test]
    fn a_test_module_in_its_own_file_does_not_cut_the_rest_of_the_file() {
        let text = mask("#[cfg(test)]\nmod tests;\n\nfn after() {}\n");
        assert_eq!(test_modules(&text), ["tests"]);
        assert_eq!(functions(&without_tests(&text)).len(), 1);
    }

    #[test]
    fn module_declarations_are_read_with_any_visibility() {
        assert_eq!(declared_module("pub(crate) mod engine;"), Some("engine"));
        assert_eq!(declared_module("pub mod path;"), Some("path"));
        assert_eq!(declared_module("mod stack;"), Some("stack"));
        assert_eq!(declared_module("mod tests {"), None);
    }
}
