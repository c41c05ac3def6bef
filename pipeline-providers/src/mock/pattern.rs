//! Text that matches a regular expression, for schemas with `pattern`.
//!
//! Owns a reader of the common part of the syntax: literals, escapes, classes, groups, alternatives and counts.
//! Best effort: look-around, back-references and the like are given up on, and the caller checks what it gets.

use std::iter::Peekable;
use std::str::Chars;

use crate::mock::seed::Dice;

/// Repetitions that an open count (`*`, `+`, `{2,}`) is stretched to at most.
const MOST_REPEATS: usize = 4096;

/// Parts that are written for one text.
const MOST_PARTS: usize = 50_000;

/// Groups inside groups that are read.
const DEEPEST: usize = 24;

/// A part of an expression.
#[derive(Debug, Clone)]
enum Part {
    /// One of these characters.
    One(Vec<char>),
    /// One of these sequences.
    Group(Vec<Vec<Part>>),
    /// A part so many times; `None` = without end.
    Repeat(Box<Part>, usize, Option<usize>),
}

/// A text that `pattern` matches, with `shortest` to `longest` characters where it leaves a choice; `None` when the
/// pattern is beyond what is read here.
pub(crate) fn matching(pattern: &str, shortest: usize, longest: usize, dice: &Dice) -> Option<String> {
    let mut chars = pattern.chars().peekable();
    let alternatives = alternatives(&mut chars, 0)?;
    if chars.next().is_some() {
        return None;
    }
    let root = Part::Group(alternatives);
    // The length grows with the stretch: look for the smallest that is long enough.
    let (mut low, mut high) = (0, shortest.min(MOST_REPEATS));
    while low < high {
        let middle = low.midpoint(high);
        if Writer::run(&root, middle, dice.clone())?.chars().count() < shortest {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    let text = Writer::run(&root, low, dice.clone())?;
    (shortest..=longest).contains(&text.chars().count()).then_some(text)
}

/// Writes a text out, within limits.
struct Writer {
    stretch: usize,
    dice: Dice,
    fuel: usize,
    out: String,
}

impl Writer {
    fn run(root: &Part, stretch: usize, dice: Dice) -> Option<String> {
        let mut writer = Self { stretch, dice, fuel: MOST_PARTS, out: String::new() };
        writer.write(root)?;
        Some(writer.out)
    }

    fn write(&mut self, part: &Part) -> Option<()> {
        self.fuel = self.fuel.checked_sub(1)?;
        match part {
            Part::One(choices) => self.out.extend(self.dice.pick(choices)),
            Part::Group(alternatives) => {
                for part in alternatives.first().into_iter().flatten() {
                    self.write(part)?;
                }
            }
            Part::Repeat(inner, least, most) => {
                // At least one: a text for `a*` should show something.
                let wanted = (*least).max(self.stretch).max(1);
                for _ in 0..most.map_or(wanted, |most| wanted.min(most)) {
                    self.write(inner)?;
                }
            }
        }
        Some(())
    }
}

fn alternatives(chars: &mut Peekable<Chars<'_>>, depth: usize) -> Option<Vec<Vec<Part>>> {
    if depth > DEEPEST {
        return None;
    }
    let mut all = vec![Vec::new()];
    while let Some(&next) = chars.peek() {
        if next == ')' {
            break;
        }
        chars.next();
        let part = match next {
            '|' => {
                all.push(Vec::new());
                continue;
            }
            '^' | '$' => continue,
            '(' => group(chars, depth)?,
            '[' => Part::One(class(chars)?),
            '\\' => match chars.next()? {
                'b' => continue,
                escaped => Part::One(escape(escaped)?),
            },
            '.' => Part::One(('a'..='z').collect()),
            '*' | '+' | '?' | '{' => return None,
            literal => Part::One(vec![literal]),
        };
        let part = count(part, chars)?;
        all.last_mut()?.push(part);
    }
    Some(all)
}

fn group(chars: &mut Peekable<Chars<'_>>, depth: usize) -> Option<Part> {
    if chars.next_if_eq(&'?').is_some() {
        match chars.next()? {
            ':' => {}
            'P' | '<' => {
                // A named group reads like a plain one; look-behind does not.
                let name: String = chars.by_ref().take_while(|c| *c != '>').collect();
                if name.starts_with(['=', '!']) {
                    return None;
                }
            }
            _ => return None,
        }
    }
    let inner = alternatives(chars, depth + 1)?;
    chars.next_if_eq(&')')?;
    Some(Part::Group(inner))
}

fn count(part: Part, chars: &mut Peekable<Chars<'_>>) -> Option<Part> {
    let (least, most) = match chars.peek() {
        Some('*') => (0, None),
        Some('+') => (1, None),
        Some('?') => (0, Some(1)),
        Some('{') => {
            chars.next();
            let inside: String = chars.by_ref().take_while(|c| *c != '}').collect();
            let range = match inside.split_once(',') {
                None => {
                    let exactly = inside.parse().ok()?;
                    (exactly, Some(exactly))
                }
                Some((least, "")) => (least.parse().ok()?, None),
                Some((least, most)) => (least.parse().ok()?, Some(most.parse().ok()?)),
            };
            chars.next_if_eq(&'?');
            return (range.0 <= MOST_REPEATS).then(|| Part::Repeat(Box::new(part), range.0, range.1));
        }
        _ => return Some(part),
    };
    chars.next();
    chars.next_if_eq(&'?');
    Some(Part::Repeat(Box::new(part), least, most))
}

fn class(chars: &mut Peekable<Chars<'_>>) -> Option<Vec<char>> {
    let negated = chars.next_if_eq(&'^').is_some();
    let mut members = Vec::new();
    loop {
        let first = match chars.next()? {
            ']' => break,
            '\\' => {
                let set = escape(chars.next()?)?;
                if set.len() > 1 {
                    members.extend(set);
                    continue;
                }
                *set.first()?
            }
            literal => literal,
        };
        if chars.peek() != Some(&'-') {
            members.push(first);
            continue;
        }
        chars.next();
        match chars.next()? {
            ']' => {
                members.extend([first, '-']);
                break;
            }
            '\\' => members.extend(first..=*escape(chars.next()?)?.first()?),
            last => members.extend((first..=last).take(512)),
        }
    }
    if negated {
        members = printable().filter(|c| !members.contains(c)).collect();
    }
    (!members.is_empty()).then_some(members)
}

/// The characters that an escape stands for.
fn escape(letter: char) -> Option<Vec<char>> {
    let set = match letter {
        'd' => ('0'..='9').collect(),
        'w' | 'D' | 'S' => ('a'..='z').collect(),
        's' => vec![' '],
        'W' => vec!['-'],
        'n' => vec!['\n'],
        't' => vec!['\t'],
        'r' => vec!['\r'],
        other if other.is_alphanumeric() => return None,
        other => vec![other],
    };
    Some(set)
}

/// What a negated class is chosen from; letters first, so that the outcome reads well.
fn printable() -> impl Iterator<Item = char> {
    ('a'..='z').chain('A'..='Z').chain('0'..='9').chain([' ', '-', '_', '.', ','])
}
