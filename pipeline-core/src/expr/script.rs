//! Shell scripts with values in them.
//!
//! Owns [`Script`]: a value never becomes text of the script. Where `{{ … }}` stands, the script reads a variable instead
//! (`"${_1}"`), and the values travel beside it, so that no sign in them means anything to the shell. Must not know who
//! runs the script.

use serde_json::json;

use crate::expr::{Expr, ExprError, Names, Read, Template, Words};
use crate::planted::{Bug, planted};
use crate::value::Value;

/// Stand around a value in rendered text. The value itself is JSON text between them, where control signs are escaped.
pub(super) const MARKS: (char, char) = ('\u{2}', '\u{3}');

/// A script whose values are kept out of its text.
#[derive(Debug, Clone)]
pub struct Script(Kind);

#[derive(Debug, Clone)]
enum Kind {
    /// Exactly one `{{ … }}`: a list is a command and its arguments, anything else one word.
    Single(Expr),
    Text(Template),
}

impl Script {
    /// Compiles a script.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn compile(text: &str, words: &Words<'_>) -> Result<Self, ExprError> {
        if let Some(at) = text.find([MARKS.0, MARKS.1]) {
            return Err(ExprError {
                message: "a script with values in it cannot have the control signs 2 and 3".to_owned(),
                range: Some(at..at + 1),
                help: Some("write them with `printf '\\002'`".to_owned()),
            });
        }
        let template = Template::compile_marked(text, words)?;
        Ok(Self(template.as_expr().cloned().map_or(Kind::Text(template), Kind::Single)))
    }

    /// What it reads.
    pub fn reads(&self) -> &[Read] {
        match &self.0 {
            Kind::Single(expr) => expr.reads(),
            Kind::Text(template) => template.reads(),
        }
    }

    /// A list, or `{"$script": text, "$values": [text…]}`, in whose text `${_1}` is the first value.
    ///
    /// # Errors
    /// As [`Template::render`]; also where a value stands in a place of which the shell makes more than a word.
    pub fn render(&self, names: &dyn Names) -> Result<Value, ExprError> {
        match &self.0 {
            Kind::Single(expr) => match expr.eval(names)? {
                list @ Value::Array(_) => Ok(list),
                Value::String(text) => Ok(json!({ "$script": "\"${_1}\"", "$values": [text] })),
                other => Ok(json!({ "$script": "\"${_1}\"", "$values": [other.to_string()] })),
            },
            Kind::Text(template) => match template.render(names)? {
                Value::String(text) => place_values(&text),
                other => Ok(other),
            },
        }
    }
}

/// Where the shell is, as far as quoting goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Inside {
    Single,
    Double,
    /// `$(…)`, `(…)`: like outside, until the closing sign.
    Parens,
    /// `$((…))`, whose text the shell computes with.
    Arithmetic,
    Backticks,
    Comment,
    HereDocument,
}

/// Follows the quoting of a script, sign by sign.
#[derive(Default)]
struct Quoting {
    stack: Vec<Inside>,
    is_escaped: bool,
    /// The last signs.
    before: [char; 2],
}

impl Quoting {
    fn top(&self) -> Option<Inside> {
        self.stack.last().copied()
    }

    fn see(&mut self, c: char) {
        let before = self.before;
        self.before = [before[1], c];
        if std::mem::take(&mut self.is_escaped) {
            return;
        }
        match (self.top(), c) {
            (Some(Inside::Single), '\'')
            | (Some(Inside::Double), '"')
            | (Some(Inside::Backticks), '`')
            | (Some(Inside::Comment), '\n')
            | (Some(Inside::Parens | Inside::Arithmetic), ')') => {
                self.stack.pop();
            }
            (Some(Inside::Single | Inside::Comment | Inside::HereDocument), _) => {}
            (_, '\\') => self.is_escaped = true,
            (_, '(') if before == ['$', '('] => {
                // The first of both was taken for a command.
                self.stack.push(Inside::Arithmetic);
                let outer = self.stack.len() - 2;
                self.stack[outer] = Inside::Arithmetic;
            }
            (Some(Inside::Double), '(') if before[1] != '$' => {}
            (_, '(') => self.stack.push(Inside::Parens),
            (_, '`') => self.stack.push(Inside::Backticks),
            (Some(Inside::Double), _) => {}
            (_, '"') => self.stack.push(Inside::Double),
            (_, '\'') => self.stack.push(Inside::Single),
            (_, '#') if before[1].is_whitespace() || before[1] == '\0' || before[1] == ';' => {
                self.stack.push(Inside::Comment);
            }
            (None | Some(Inside::Parens), '<') if before[1] == '<' => self.stack.push(Inside::HereDocument),
            _ => {}
        }
    }
}

fn refused(message: &str, help: &str) -> ExprError {
    ExprError { message: message.to_owned(), range: None, help: Some(help.to_owned()) }
}

/// Puts a variable where each marked value stands.
fn place_values(text: &str) -> Result<Value, ExprError> {
    let mut script = String::with_capacity(text.len());
    let mut values: Vec<String> = Vec::new();
    let mut quoting = Quoting::default();
    let mut rest = text;
    while let Some((literal, after)) = rest.split_once(MARKS.0) {
        literal.chars().for_each(|c| quoting.see(c));
        script.push_str(literal);
        let (value, tail) = after
            .split_once(MARKS.1)
            .ok_or_else(|| refused("the script cannot be read", "use fewer statements in it"))?;
        values.push(serde_json::from_str(value).map_err(|e| {
            refused(&format!("the script cannot be read: {e}"), "use fewer statements in it")
        })?);
        if planted(Bug::SpliceScript) {
            script.push_str(&values.pop().unwrap_or_default());
            rest = tail;
            continue;
        }
        let number = values.len();
        script.push_str(&match quoting.top() {
            None | Some(Inside::Parens | Inside::Backticks) => format!("\"${{_{number}}}\""),
            Some(Inside::Double) => format!("${{_{number}}}"),
            Some(Inside::Comment) => String::new(),
            Some(Inside::Single) => {
                return Err(refused(
                    "a value stands between single quotes, where the shell reads no variable",
                    "take the quotes away: a value is one word by itself, whatever signs it has",
                ));
            }
            Some(Inside::Arithmetic) => {
                return Err(refused(
                    "a value stands in `$((…))`, where the shell would compute what is written in it",
                    "compute in the expression: `{{ a + b }}`",
                ));
            }
            Some(Inside::HereDocument) => {
                return Err(refused(
                    "a value stands after `<<`, in a here-document",
                    "give it to the command with `input`",
                ));
            }
        });
        quoting.before = ['\0', 'v'];
        quoting.is_escaped = false;
        rest = tail;
    }
    script.push_str(rest);
    Ok(json!({ "$script": script, "$values": values }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

    use super::*;
    use crate::clock::Timestamp;
    use crate::value::Data;

    struct One(Value);

    impl Names for One {
        fn get(&self, root: &str, _: Option<&str>) -> Option<Data> {
            (root == "x").then(|| Data::new(self.0.clone()))
        }

        fn now(&self) -> Timestamp {
            Timestamp(0)
        }
    }

    fn script(text: &str, x: Value) -> Result<Value, ExprError> {
        Script::compile(text, &Words::default()).unwrap().render(&One(x))
    }

    fn text(source: &str) -> String {
        script(source, json!("v")).unwrap()["$script"].as_str().unwrap().to_owned()
    }

    #[test]
    fn a_value_is_a_variable_in_the_right_quotes() {
        assert_eq!(text("echo {{ x }} done"), "echo \"${_1}\" done");
        assert_eq!(text("echo \"say {{ x }}\" {{ x }}"), "echo \"say ${_1}\" \"${_2}\"");
        assert_eq!(text("echo \"$(cat {{ x }})\""), "echo \"$(cat \"${_1}\")\"");
        assert_eq!(text("echo 'it''s' \\' {{ x }}"), "echo 'it''s' \\' \"${_1}\"");
        assert_eq!(text("# don't\necho {{ x }}"), "# don't\necho \"${_1}\"");
        assert_eq!(text("a --b={{ x }}.txt"), "a --b=\"${_1}\".txt");
        assert_eq!(
            text("{% for i in range(2) %}echo {{ x }};{% endfor %}"),
            "echo \"${_1}\";echo \"${_2}\";"
        );
    }

    #[test]
    fn values_travel_beside_the_text_whatever_is_in_them() {
        for nasty in
            ["$(id)", "`id`", "'; id; '", "\"; id; \"", "\u{2}\"a\"\u{3}", "{{ x }}", "\n", "é", "\\"]
        {
            let made = script("echo {{ x }} \"{{ x }}\"", json!(nasty)).unwrap();
            assert_eq!(made["$script"], "echo \"${_1}\" \"${_2}\"", "{nasty:?}");
            assert_eq!(made["$values"], json!([nasty, nasty]));
        }
        let made = script("echo {{ x }}", json!({"a": [1, null]})).unwrap();
        assert_eq!(made["$values"], json!(["{\"a\":[1,null]}"]));
    }

    #[test]
    fn a_whole_value_is_one_word_or_a_list_of_arguments() {
        assert_eq!(script("{{ x }}", json!("rm -rf /")).unwrap()["$values"], json!(["rm -rf /"]));
        assert_eq!(script("{{ x }}", json!(["ls", "a b"])).unwrap(), json!(["ls", "a b"]));
    }

    #[test]
    fn places_where_a_value_would_be_more_than_a_word_are_refused() {
        for (source, words) in [
            ("echo '{{ x }}'", "single quotes"),
            ("echo $(( {{ x }} + 1 ))", "$((…))"),
            ("cat <<EOF\n{{ x }}\nEOF", "here-document"),
        ] {
            let error = script(source, json!("v")).unwrap_err();
            assert!(error.message.contains(words) && error.help.is_some(), "{source}: {error:?}");
        }
        assert_eq!(text("echo $(( 1 + 1 )) {{ x }}"), "echo $(( 1 + 1 )) \"${_1}\"");
    }
}
