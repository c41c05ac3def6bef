//! Writes a tree as plain Jinja.
//!
//! Our words become calls of hidden functions, each with its place, so that an error points into the text as written: a
//! comparison refuses what is not there, a path names what it did not find. Also collects what is read.
//! Next: `expr/functions.rs`, which has the hidden functions.

use std::ops::Range;

use crate::diagnostic::closest;
use crate::expr::reference;
use crate::expr::tree::{Argument, Kind, Node, Pipe, Strength, Suffix};
use crate::expr::{ExprError, Read};

/// Names that are objects of the scope: one field of them is asked for at a time.
pub(super) const NAMESPACES: [&str; 11] = [
    "steps",
    "inputs",
    "state",
    "variables",
    "global_vars",
    "loop",
    "turn",
    "workflow",
    "run",
    "env",
    "local",
];

/// The name of the step just before.
pub(super) const PREVIOUS: &str = "previous_response";

/// Functions whose second argument is an expression over items.
const OVER_ITEMS: [&str; 5] = ["any", "all", "count", "filter", "map"];

/// Rewritten text with the origin of each piece.
#[derive(Debug, Clone, Default)]
pub(super) struct Output {
    pub(super) text: String,
    /// Start, length, origin.
    pieces: Vec<(usize, usize, Range<usize>)>,
    pub(super) reads: Vec<Read>,
}

impl Output {
    /// Appends text made of `from` in the original.
    pub(super) fn push(&mut self, text: &str, from: Range<usize>) {
        self.pieces.push((self.text.len(), text.len(), from));
        self.text.push_str(text);
    }

    /// Where a range of the rewritten text came from.
    pub(super) fn origin(&self, range: &Range<usize>) -> Option<Range<usize>> {
        // A piece that was copied is exact; of one that was made, all of its origin is meant.
        let piece = |at: usize| {
            let place = self.pieces.partition_point(|(start, ..)| *start <= at).checked_sub(1)?;
            let (start, length, from) = self.pieces.get(place)?;
            let exact = (*length == from.len()).then(|| (at - start).min(*length));
            Some((exact, from))
        };
        let (exact, from) = piece(range.start)?;
        let start = from.start + exact.unwrap_or_default();
        let (exact, from) = piece(range.end.saturating_sub(1).max(range.start))?;
        let end = exact.map_or(from.end, |at| from.start + at + 1);
        Some(start.min(end)..end.max(start))
    }
}

/// Whether Jinja itself binds a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Binding {
    /// It is a name of the scope.
    Free,
    /// It may be bound; else it is a name of the scope, if there is one.
    Maybe,
    /// It is bound.
    Bound,
}

/// What is known around an expression.
#[derive(Clone, Copy)]
pub(super) struct Around<'r> {
    /// Where the expression stands in the text that errors point into.
    pub(super) offset: usize,
    pub(super) binding: &'r dyn Fn(&str) -> Binding,
    /// Over rows: what is not there is no error by itself.
    pub(super) is_row: bool,
    /// In a text: `x if c` without `else` is an empty text.
    pub(super) in_text: bool,
    /// What `previous_response` is called.
    pub(super) previous: Option<&'r str>,
}

/// Nothing is bound.
pub(super) fn free(_: &str) -> Binding {
    Binding::Free
}

/// Writes one expression.
pub(super) fn write(node: &Node<'_>, around: &Around<'_>, out: &mut Output) -> Result<(), ExprError> {
    Writer { around, out }.node(node, Strength::Choice)
}

struct Writer<'r, 'o> {
    around: &'r Around<'r>,
    out: &'o mut Output,
}

/// A text as a literal of Jinja.
fn literal(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Whether filters or tests cope with the absence of what stands before them.
fn is_guarded(pipes: &[Pipe<'_>]) -> bool {
    pipes.first().is_some_and(|pipe| {
        let guards = if pipe.is_test { ["defined", "undefined"] } else { ["default", "d"] };
        guards.contains(&pipe.name)
    })
}

impl Writer<'_, '_> {
    fn shifted(&self, range: &Range<usize>) -> Range<usize> {
        range.start + self.around.offset..range.end + self.around.offset
    }

    fn put(&mut self, text: &str, near: &Range<usize>) {
        let range = self.shifted(near);
        self.out.push(text, range);
    }

    /// A place as the hidden functions take it.
    fn at(&self, range: &Range<usize>) -> String {
        let range = self.shifted(range);
        ((range.start << 16) + (range.end - range.start).min(0xffff)).to_string()
    }

    fn node(&mut self, node: &Node<'_>, least: Strength) -> Result<(), ExprError> {
        let brackets = node.strength() < least;
        if brackets {
            self.put("(", &node.range);
        }
        self.kind(node)?;
        if brackets {
            self.put(")", &node.range);
        }
        Ok(())
    }

    fn kind(&mut self, node: &Node<'_>) -> Result<(), ExprError> {
        let here = &node.range;
        match &node.kind {
            Kind::Text(text, _) => self.put(&literal(text), here),
            Kind::Number(text) | Kind::Constant(text) => self.put(text, here),
            Kind::Name(name) => self.name(name, here, false)?,
            Kind::List(items) => {
                self.put("[", here);
                self.items(items, here)?;
                self.put("]", here);
            }
            Kind::Tuple(items) => {
                self.put("(", here);
                self.items(items, here)?;
                self.put(if items.len() == 1 { ",)" } else { ")" }, here);
            }
            Kind::Map(entries) => {
                self.put("{", here);
                for (place, (key, value)) in entries.iter().enumerate() {
                    self.put(if place > 0 { ", " } else { "" }, here);
                    self.node(key, Strength::Or)?;
                    self.put(": ", here);
                    self.node(value, Strength::Choice)?;
                }
                self.put("}", here);
            }
            Kind::Path(base, suffixes) => self.path(base, suffixes, here, false)?,
            Kind::Piped(base, pipes) => self.piped(base, pipes)?,
            Kind::Negative(count, base) => {
                self.put(if count % 2 == 1 { "-" } else { "- -" }, here);
                self.node(base, Strength::Path)?;
            }
            Kind::Not(count, base) => {
                self.put(if count % 2 == 1 { "not " } else { "not not " }, here);
                self.node(base, Strength::Sum)?;
            }
            Kind::Chain(strength, first, rest) => self.chain(*strength, first, rest)?,
            Kind::Joined(parts) => {
                self.put("_join(", here);
                self.items(parts, here)?;
                self.put(")", here);
            }
            Kind::Compare(left, rest) => {
                let at = self.at(here);
                self.put(&format!("_compare({at}, "), here);
                self.node(left, Strength::Choice)?;
                for (sign, right) in rest {
                    self.put(&format!(", '{sign}', "), here);
                    self.node(right, Strength::Choice)?;
                }
                self.put(")", here);
            }
            Kind::Between(parts) => {
                let at = self.at(here);
                self.put(&format!("_between({at}, "), here);
                self.items(&parts[..], here)?;
                self.put(")", here);
            }
            Kind::Exists(base) => {
                self.put("(", here);
                self.guarded(base)?;
                self.put(" is defined)", here);
            }
            Kind::Empty(base) => {
                self.put("(", here);
                self.guarded(base)?;
                self.put(" is empty)", here);
            }
            Kind::Choice(arms, otherwise) => {
                for (condition, value) in arms {
                    self.node(value, Strength::Or)?;
                    self.put(" if ", &condition.range);
                    self.node(condition, Strength::Or)?;
                    self.put(" else ", here);
                }
                match otherwise {
                    Some(otherwise) => self.node(otherwise, Strength::Or)?,
                    None => self.put(if self.around.in_text { "''" } else { "none" }, here),
                }
            }
        }
        Ok(())
    }

    fn items(&mut self, items: &[Node<'_>], here: &Range<usize>) -> Result<(), ExprError> {
        for (place, item) in items.iter().enumerate() {
            self.put(if place > 0 { ", " } else { "" }, here);
            self.node(item, Strength::Choice)?;
        }
        Ok(())
    }

    fn chain(
        &mut self,
        strength: Strength,
        first: &Node<'_>,
        rest: &[(&'static str, Node<'_>)],
    ) -> Result<(), ExprError> {
        let stronger = match strength {
            Strength::Or => Strength::And,
            Strength::And => Strength::Not,
            Strength::Sum => Strength::Product,
            Strength::Product => Strength::Power,
            _ => Strength::Negative,
        };
        self.node(first, stronger)?;
        for (sign, part) in rest {
            self.put(&format!(" {sign} "), &part.range);
            if matches!(*sign, "/" | "//" | "%") {
                let at = self.at(&part.range);
                self.put(&format!("_divisor({at}, "), &part.range);
                self.node(part, Strength::Choice)?;
                self.put(")", &part.range);
            } else {
                self.node(part, stronger)?;
            }
        }
        Ok(())
    }

    fn piped(&mut self, base: &Node<'_>, pipes: &[Pipe<'_>]) -> Result<(), ExprError> {
        if is_guarded(pipes) {
            self.guarded(base)?;
        } else {
            self.node(base, Strength::Negative)?;
        }
        for pipe in pipes {
            let (what, known) =
                if pipe.is_test { ("test", reference::tests()) } else { ("filter", reference::filters()) };
            self.known(what, pipe.name, &known, &pipe.range)?;
            let sign = match (pipe.is_test, pipe.negated) {
                (false, _) => " | ",
                (true, false) => " is ",
                (true, true) => " is not ",
            };
            self.put(sign, &pipe.range);
            self.put(pipe.name, &pipe.range);
            if !pipe.arguments.is_empty() {
                self.arguments(&pipe.arguments, &pipe.range)?;
            }
        }
        Ok(())
    }

    fn known(&self, what: &str, name: &str, known: &[&str], range: &Range<usize>) -> Result<(), ExprError> {
        if known.contains(&name) {
            return Ok(());
        }
        let help = match closest(name, known.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "see the expression reference for what there is".to_owned(),
        };
        let message = format!("there is no {what} `{name}`");
        Err(ExprError { message, range: Some(self.shifted(range)), help: Some(help) })
    }

    /// A value that may be absent, anywhere in its path.
    fn guarded(&mut self, node: &Node<'_>) -> Result<(), ExprError> {
        match &node.kind {
            Kind::Name(name) => self.name(name, &node.range, true),
            Kind::Path(base, suffixes) => self.path(base, suffixes, &node.range, true),
            _ => self.node(node, Strength::Negative),
        }
    }

    fn read(&mut self, root: &str, path: Vec<String>, range: &Range<usize>, optional: bool) {
        let field = path.first().cloned();
        let range = self.shifted(range);
        self.out.reads.push(Read { root: root.to_owned(), field, path, optional, range });
    }

    /// A name without a path.
    fn name(&mut self, name: &str, here: &Range<usize>, guarded: bool) -> Result<(), ExprError> {
        let binding = (self.around.binding)(name);
        if name == PREVIOUS && binding == Binding::Free {
            return self.previous(&[], here, guarded);
        }
        if binding == Binding::Bound {
            self.put(name, here);
            return Ok(());
        }
        self.read(name, Vec::new(), here, guarded || binding == Binding::Maybe);
        if guarded || self.around.is_row {
            self.put(name, here);
        } else {
            let at = self.at(here);
            self.put(&format!("_path({at}, '{name}', "), here);
            self.put(name, here);
            self.put(")", here);
        }
        Ok(())
    }

    /// The step just before, and a path of its value.
    fn previous(
        &mut self,
        suffixes: &[Suffix<'_>],
        here: &Range<usize>,
        guarded: bool,
    ) -> Result<(), ExprError> {
        let Some(step) = self.around.previous else {
            self.read(PREVIOUS, Vec::new(), here, false);
            self.put("none", here);
            return Ok(());
        };
        let mut all = vec![Suffix::Field(step.to_owned(), here.clone())];
        if suffixes.is_empty() {
            all.push(Suffix::Field("result".to_owned(), here.clone()));
        }
        all.extend(suffixes.iter().cloned());
        let base = Node { kind: Kind::Name("steps".to_owned()), range: here.clone() };
        self.path(&base, &all, here, guarded)
    }

    fn path(
        &mut self,
        base: &Node<'_>,
        suffixes: &[Suffix<'_>],
        here: &Range<usize>,
        guarded: bool,
    ) -> Result<(), ExprError> {
        if let Kind::Name(name) = &base.kind {
            let binding = (self.around.binding)(name);
            if let Some(Suffix::Call(arguments, _)) = suffixes.first() {
                if binding != Binding::Bound {
                    if suffixes.len() == 1 && arguments.len() == 1 {
                        match name.as_str() {
                            "exists" => return self.called_guard(&arguments[0].value, " is defined)", here),
                            "empty" | "isEmpty" => {
                                return self.called_guard(&arguments[0].value, " is empty)", here);
                            }
                            _ => {}
                        }
                    }
                    self.known("function", name, &reference::functions(), &base.range)?;
                    self.over_items(name, arguments)?;
                }
                return self.suffixes(base, suffixes, here, guarded);
            }
            if name == PREVIOUS && binding == Binding::Free {
                return self.previous(suffixes, here, guarded);
            }
            if binding != Binding::Bound {
                let fixed: Vec<String> =
                    suffixes.iter().map_while(Suffix::fixed).map(str::to_owned).collect();
                let last =
                    suffixes.iter().take(fixed.len().max(1)).next_back().map_or(here.end, |s| s.range().end);
                let range = here.start..last.max(here.start);
                self.read(name, fixed, &range, guarded || binding == Binding::Maybe);
            }
        }
        self.suffixes(base, suffixes, here, guarded)
    }

    fn called_guard(&mut self, value: &Node<'_>, test: &str, here: &Range<usize>) -> Result<(), ExprError> {
        self.put("(", here);
        self.guarded(value)?;
        self.put(test, here);
        Ok(())
    }

    /// The expression over items must be written out: a text from a model is data.
    fn over_items(&mut self, name: &str, arguments: &[Argument<'_>]) -> Result<(), ExprError> {
        let Some(second) = arguments.get(1).filter(|_| OVER_ITEMS.contains(&name)) else { return Ok(()) };
        let Kind::Text(text, inside) = &second.value.kind else {
            let message = format!("the second argument of `{name}` is an expression in quotes");
            let help = "write it out, for example 'score > 3'; it cannot be computed";
            let range = Some(self.shifted(&second.value.range));
            return Err(ExprError { message, range, help: Some(help.to_owned()) });
        };
        let mut inner = Output::default();
        let start = inside.unwrap_or(second.value.range.start);
        let around = Around { offset: 0, is_row: true, ..*self.around };
        let parsed = crate::expr::parse::Parser::new(text, &[]).and_then(crate::expr::parse::Parser::whole);
        let result = parsed.and_then(|node| write(&node, &around, &mut inner));
        if let Err(mut error) = result {
            error.range = match (inside, error.range) {
                (Some(_), Some(range)) => Some(self.shifted(&(range.start + start..range.end + start))),
                _ => Some(self.shifted(&second.value.range)),
            };
            return Err(error);
        }
        // Names of the scope are bound where the whole is evaluated.
        for mut read in inner.reads.into_iter().filter(|r| NAMESPACES.contains(&r.root.as_str())) {
            read.range = match inside {
                Some(_) => self.shifted(&(read.range.start + start..read.range.end + start)),
                None => self.shifted(&second.value.range),
            };
            self.out.reads.push(read);
        }
        Ok(())
    }

    /// What is read of a value: runs of fields and places are one call, which names what it does not find.
    fn suffixes(
        &mut self,
        base: &Node<'_>,
        suffixes: &[Suffix<'_>],
        here: &Range<usize>,
        guarded: bool,
    ) -> Result<(), ExprError> {
        let is_step = |s: &Suffix<'_>| !matches!(s, Suffix::Call(..) | Suffix::Slice(..));
        let Some((last, before)) = suffixes.split_last() else {
            return match &base.kind {
                Kind::Name(name) => {
                    self.put(name, &base.range);
                    Ok(())
                }
                _ => self.node(base, Strength::Path),
            };
        };
        match last {
            Suffix::Slice(parts, range) => {
                self.suffixes(base, before, here, guarded)?;
                self.put("[", range);
                for (place, part) in parts.iter().enumerate() {
                    self.put(if place > 0 { ":" } else { "" }, range);
                    if let Some(part) = part {
                        self.node(part, Strength::Choice)?;
                    }
                }
                self.put("]", range);
            }
            Suffix::Call(arguments, range) => {
                match before.split_last() {
                    // A method.
                    Some((Suffix::Field(name, field), rest)) => {
                        self.suffixes(base, rest, here, guarded)?;
                        self.put(&format!(".{name}"), field);
                    }
                    _ => self.suffixes(base, before, here, guarded)?,
                }
                self.arguments(arguments, range)?;
            }
            _ => {
                let run = suffixes.iter().rev().take_while(|s| is_step(s)).count();
                let (under, steps) = suffixes.split_at(suffixes.len() - run);
                return self.run(base, under, steps, here, guarded);
            }
        }
        Ok(())
    }

    fn run(
        &mut self,
        base: &Node<'_>,
        under: &[Suffix<'_>],
        steps: &[Suffix<'_>],
        here: &Range<usize>,
        guarded: bool,
    ) -> Result<(), ExprError> {
        // `steps.x.result` is the primary value and `steps.x.status` how it ended, whatever kind of value the step has.
        let is_steps = under.is_empty() && matches!(&base.kind, Kind::Name(n) if n == "steps");
        let of_step = match steps {
            [_, field, ..] if is_steps => field.fixed(),
            _ => None,
        };
        let end = steps.last().map_or(here.end, |s| s.range().end);
        let at = self.at(&(here.start..end.max(here.start)));
        let root = match &base.kind {
            Kind::Name(name) if under.is_empty() => name.as_str(),
            _ => "",
        };
        let call = if guarded { format!("_opt({at}, ") } else { format!("_path({at}, '{root}', ") };
        self.put(&call, here);
        let mut rest = steps;
        let whole = match of_step {
            Some("result") => Some(("_primary", 2)),
            Some("status") => Some(("_ending", 1)),
            _ => None,
        };
        if let Some((function, taken)) = whole {
            self.put(&format!("{function}({call}"), here);
            self.suffixes(base, under, here, guarded)?;
            self.step(&steps[0])?;
            self.put(")", here);
            if function == "_ending" {
                self.step(&steps[0])?;
            }
            self.put(")", here);
            rest = &steps[taken..];
        } else if self.may_be_bare_step(root) && matches!(steps[0].fixed(), Some("result" | "status")) {
            self.put(&format!("_ending({root}, {})", literal(root)), here);
        } else {
            self.suffixes(base, under, here, guarded)?;
        }
        for step in rest {
            self.step(step)?;
        }
        self.put(")", here);
        Ok(())
    }

    /// Whether a name may be that of a step, without `steps.` before it.
    fn may_be_bare_step(&self, name: &str) -> bool {
        let is_free = || (self.around.binding)(name) == Binding::Free && !self.around.is_row;
        !name.is_empty() && !NAMESPACES.contains(&name) && is_free()
    }

    fn step(&mut self, step: &Suffix<'_>) -> Result<(), ExprError> {
        self.put(", ", step.range());
        match step {
            Suffix::Field(name, range) => self.put(&literal(name), range),
            Suffix::Place(digits, range) => self.put(digits, range),
            Suffix::Index(node, _) => self.node(node, Strength::Choice)?,
            Suffix::Slice(..) | Suffix::Call(..) => {}
        }
        Ok(())
    }

    fn arguments(&mut self, arguments: &[Argument<'_>], here: &Range<usize>) -> Result<(), ExprError> {
        self.put("(", here);
        for (place, argument) in arguments.iter().enumerate() {
            self.put(if place > 0 { ", " } else { "" }, here);
            if let Some(name) = argument.name {
                self.put(&format!("{name}="), &argument.value.range);
            }
            self.node(&argument.value, Strength::Choice)?;
        }
        self.put(")", here);
        Ok(())
    }
}
