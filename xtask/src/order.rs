//! Declaration order is dependency order: a module of a crate uses only modules that are declared above it.
//!
//! Owns the reading of `mod` lines and of `crate::name` paths, and the list of allowed exceptions with their reasons.
//! Must not know where files are: it is given their text.

use crate::source_text::{declared_module, line_of, name_after, words};

/// An upward use that is accepted, and why.
pub struct Exception {
    /// The using module.
    pub from: &'static str,
    /// The module below it that it uses.
    pub to: &'static str,
    /// Why it is accepted.
    pub reason: &'static str,
}

/// Accepted upward uses inside pipeline-core.
pub const EXCEPTIONS: &[Exception] = &[
    Exception {
        from: "step",
        to: "catalog",
        reason: "a step is given the catalog's services, and the catalog holds steps: one trait seen from both ends",
    },
    Exception {
        from: "step",
        to: "engine",
        reason: "a step's context carries the effect port, whose other end is the engine's dispatcher",
    },
    Exception {
        from: "step",
        to: "plan",
        reason: "a step may check its own configuration while the compiler walks it",
    },
    Exception {
        from: "store",
        to: "step",
        reason: "an output writer is told which run it writes for (`RunInfo`)",
    },
];

/// An upward use.
#[derive(Debug, PartialEq, Eq)]
pub struct Upward {
    /// The using module.
    pub from: String,
    /// The module that is used too early.
    pub to: String,
    /// Line of the use, from 1.
    pub line: usize,
}

/// Top-level modules of a masked `lib.rs`, in declaration order.
pub fn declared(masked_lib: &str) -> Vec<String> {
    masked_lib.lines().filter_map(declared_module).map(str::to_owned).collect()
}

/// Uses of modules declared after `module` in masked text without tests that belongs to it.
///
/// Paths are read as `crate::name` and as the first names in `crate::{a, b::{c}}`.
pub fn upward(order: &[String], module: &str, code: &str) -> Vec<Upward> {
    let Some(own) = order.iter().position(|name| name == module) else { return Vec::new() };
    let mut found = Vec::new();
    for at in words(code, "crate") {
        for name in heads(code, at + "crate".len()) {
            if order.iter().position(|known| *known == name).is_some_and(|used| used > own) {
                let line = line_of(code.as_bytes(), at);
                found.push(Upward { from: module.to_owned(), to: name, line });
            }
        }
    }
    found
}

/// The reason for which an upward use is accepted.
pub fn excused(upward: &Upward) -> Option<&'static Exception> {
    EXCEPTIONS.iter().find(|e| e.from == upward.from && e.to == upward.to)
}

/// First names of the path that follows `crate`.
fn heads(code: &str, at: usize) -> Vec<String> {
    let Some(rest) = code.get(at..).and_then(|rest| rest.strip_prefix("::")) else { return Vec::new() };
    let Some(group) = rest.strip_prefix('{') else { return name_after(rest, 0).into_iter().collect() };
    let mut depth = 0_usize;
    let mut names = Vec::new();
    let mut start = 0;
    for (i, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                names.extend(name_after(group, start));
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                names.extend(name_after(group, start));
                start = i + 1;
            }
            _ => {}
        }
    }
    names
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

    use super::*;
    use crate::source_text::mask;

    fn order() -> Vec<String> {
        declared(&mask("mod stack;\n// mod ghost;\npub mod value;\npub(crate) mod plan;\npub mod engine;\n"))
    }

    #[test]
    fn modules_are_read_in_order_and_comments_are_not_modules() {
        assert_eq!(order(), ["stack", "value", "plan", "engine"]);
    }

    #[test]
    fn a_use_of_a_later_module_is_found_with_its_line() {
        let code = mask("use crate::stack::x;\nuse crate::engine::Engine;\n");
        assert_eq!(
            upward(&order(), "plan", &code),
            [Upward { from: "plan".into(), to: "engine".into(), line: 2 }]
        );
    }

    #[test]
    fn groups_and_paths_outside_use_lines_are_read_too() {
        let code = mask("use crate::{stack, plan::{Plan, engine}};\nfn f(_: &crate::engine::E) {}\n");
        let names: Vec<_> = upward(&order(), "value", &code).into_iter().map(|u| u.to).collect();
        assert_eq!(names, ["plan", "engine"]);
    }

    #[test]
    fn uses_of_itself_of_earlier_modules_and_in_comments_are_fine() {
        let code = mask(
            "//! [`crate::engine`]\nuse crate::plan::a;\nuse crate::value;\nlet s = \"crate::engine\";\n",
        );
        assert_eq!(upward(&order(), "plan", &code), []);
    }

    #[test]
    fn only_listed_pairs_are_excused() {
        let pair = |from: &str, to: &str| Upward { from: from.into(), to: to.into(), line: 1 };
        assert!(excused(&pair("step", "engine")).is_some());
        assert!(excused(&pair("engine", "step")).is_none());
    }
}
