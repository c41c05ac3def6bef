//! The long form of every diagnostic code: what `pipeline explain CODE` prints.
//!
//! Owns [`CodeDoc`] and the table. A code's meaning never changes; a code is never used again for something else.

/// One code, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CodeDoc {
    /// The code.
    pub code: &'static str,
    /// What it says, in a few words.
    pub title: &'static str,
    /// Why it is so, and what to do.
    pub text: &'static str,
}

/// The long form of `code`; upper and lower case are the same.
pub fn explain(code: &str) -> Option<&'static CodeDoc> {
    ALL.iter().find(|doc| doc.code.eq_ignore_ascii_case(code.trim()))
}

/// Every code, in order.
pub fn all() -> &'static [CodeDoc] {
    ALL
}

const fn doc(code: &'static str, title: &'static str, text: &'static str) -> CodeDoc {
    CodeDoc { code, title, text }
}

static ALL: &[CodeDoc] = &[
    doc(
        "E0001",
        "not YAML",
        "The text breaks a rule of YAML 1.2 at the place shown. Often a tab, a missing space after a colon, or a quote that is not closed. JSON is accepted too.",
    ),
    doc(
        "E0002",
        "a key stands twice",
        "YAML maps have each key once. Which of two values counts would be a guess, so none does. Remove or rename one.",
    ),
    doc(
        "E0003",
        "a template without quotes",
        "YAML reads `{{ x }}` without quotes as a map within a map. Put quotes around the whole value: `\"{{ x }}\"`.",
    ),
    doc(
        "E0004",
        "the file is over a limit",
        "Files are limited to 8 MiB, 250,000 nodes, 8 MiB of scalars, 64 levels and 200 aliases, so that no file can exhaust the program. Move data into files that steps read.",
    ),
    doc(
        "E0005",
        "a number that JSON does not have",
        "Infinity and not-a-number cannot be stored or sent. Write a finite number, or put it in quotes to make it text.",
    ),
    doc("E0006", "a key that is not text", "Keys of a map must be text. Put numbers and dates in quotes."),
    doc(
        "E0100",
        "no workflow",
        "A pipeline file is a map with `workflow:` at its root (or, without it, with `name` and `steps`).",
    ),
    doc(
        "E0101",
        "an unknown key",
        "The key is not one that can stand here. An unknown key is an error, because a misspelt option that is silently ignored does harm later. Keys that start with `x-` are free. `check --lenient` makes it a warning.",
    ),
    doc("E0102", "something is missing", "A key that must be there is not."),
    doc(
        "E0103",
        "a value of the wrong kind",
        "The value is text where a number must be, a list where a map must be, and so on. A text that is one whole template (`\"{{ … }}\"`) may stand anywhere: its value is checked when it is known.",
    ),
    doc(
        "E0104",
        "a word that is not among the allowed ones",
        "The key takes one of a few words. They are listed in the message or its help.",
    ),
    doc(
        "E0105",
        "an unknown step type",
        "There is no step of this type. `pipeline schema` and the reference list all of them.",
    ),
    doc(
        "E0106",
        "a name that is taken",
        "Two steps of one list (or two branches) have the same name, so that `steps.NAME` would be a guess.",
    ),
    doc(
        "E0107",
        "a name that cannot be one",
        "Step names are parts of addresses like `review/files[3]/analyze`: `/`, `[`, `]`, `#` and quotes cannot be in them.",
    ),
    doc("E0108", "an empty list of steps", "A list of steps needs at least one."),
    doc("E0109", "a number out of its range", "The number is below or above what the key allows."),
    doc(
        "E0110",
        "a key without effect",
        "The original system accepted this key and never used it. It is accepted here too, with this note, and does nothing.",
    ),
    doc(
        "E0111",
        "an old spelling",
        "The file uses a spelling of the original system. It was rewritten as shown; the meaning is the same.",
    ),
    // E0112 told of keys that were not acted on yet; there is none any more.
    doc("E0113", "two spellings of one thing", "Two keys that mean the same stand side by side. Keep one."),
    doc(
        "E0201",
        "an unknown name",
        "The expression reads a name that is nothing here: not an input, a variable, a step or a namespace (`steps`, `inputs`, `state`, `global_vars`, `loop`, `workflow`, `run`, `env`).",
    ),
    doc("E0202", "an unknown step", "The expression reads the value of a step that does not exist."),
    doc(
        "E0203",
        "a value that is not there yet",
        "The step exists, and it does not run before this one: it stands later, in another branch that runs at the same time, or inside another step's list (then read it through that step's value).",
    ),
    doc("E0204", "an undeclared input", "The workflow has an `inputs` key, and this name is not in it."),
    doc(
        "E0205",
        "a variable that nothing sets",
        "No `variables` entry, `set_variable` step or reducer of this pipeline sets that name. A child has variables of its own.",
    ),
    doc(
        "E0206",
        "`loop` outside a loop",
        "`loop` is there in the steps of a for_loop or while_loop. Inside a Jinja `{% for %}`, `loop` is Jinja's, and the pipeline's is `turn`.",
    ),
    doc(
        "E0207",
        "an environment variable that is not allowed",
        "Expressions see only the environment variables that `permissions.env` lists.",
    ),
    doc(
        "E0208",
        "an implied input",
        "The workflow has no `inputs` key, and nothing else can give this name: it must be given when the pipeline runs.",
    ),
    doc(
        "E0209",
        "a variable written at the same time",
        "Turns that run at once each write the variable; which value wins would depend on time. Give it a reducer, or set it with `scope: loop` or `scope: local`.",
    ),
    doc(
        "E0210",
        "break or continue outside a loop",
        "They end or skip a turn of the nearest for_loop or while_loop.",
    ),
    doc(
        "E0211",
        "no previous response",
        "`previous_response` is the step just before in the same list. The first step of a list, branches that run at once and lists with `needs` have none.",
    ),
    doc(
        "E0212",
        "a field that the value of a step cannot have",
        "The type and the configuration of the step fix the fields of its value: a shell step has `exit_code`, `stdout` and `stderr`, a set_variable the variables that it sets. The reference of steps names them.",
    ),
    doc(
        "E0301",
        "a file that cannot be read",
        "The pipeline file, or one that it names, is missing or unreadable.",
    ),
    doc(
        "E0302",
        "pipelines in a circle",
        "A pipeline runs itself by way of its children, by file. Recursion is possible through `pipeline_ref`, which `config.max_depth` bounds.",
    ),
    doc(
        "E0303",
        "inputs of a child",
        "A child pipeline needs an input that the step does not give, or is given one that it does not know.",
    ),
    doc("E0304", "a wrong `needs`", "`needs` names steps of the same list, and cannot go in a circle."),
    doc(
        "E0305",
        "too many child pipelines",
        "One plan holds at most 1,000 pipelines: files that each name several others grow without bound.",
    ),
    doc(
        "E0401",
        "a bad expression or template",
        "The text between `{{` and `}}`, or the condition, is not an expression. The place is marked. See the expression reference.",
    ),
    doc(
        "E0402",
        "not a length of time",
        "Write `90s`, `5m`, `250ms`, `1h30m`, a number of seconds, or `none`.",
    ),
    doc("E0403", "an unknown provider", "No provider has this name."),
    doc(
        "E0404",
        "an unknown function",
        "A model step names a function that the workflow does not declare under `functions`.",
    ),
    doc(
        "E0405",
        "a file that is not there",
        "A step names this file literally and it does not exist now. The step fails unless it is there when it runs.",
    ),
    doc(
        "E0406",
        "an option that this backend does not have",
        "The chosen provider cannot honour the option. It is refused here, and never ignored.",
    ),
    doc(
        "E0407",
        "an answer that cannot be kept for later runs",
        "`cache` keeps a model's answer under the hash of the rendered question. A step that reads files, a session or tools \
         may have another answer to the same question, so it cannot have `cache`; nor can steps that are no model steps.",
    ),
    doc(
        "E0408",
        "a tool that is not allowed",
        "`permissions.tools` lists every tool that may be called in a run, and a step names another one. Without that key \
         each step may call what it names.",
    ),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    /// Codes in the sources and codes in the table are the same set.
    #[test]
    #[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    fn every_code_is_explained_once() {
        let mut used = BTreeSet::new();
        let mut open = vec![std::path::PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src")];
        while let Some(path) = open.pop() {
            if path.is_dir() {
                open.extend(std::fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
            } else if !path.ends_with("codes.rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                let found = text.match_indices("\"E0").filter_map(|(i, _)| text.get(i + 1..i + 6));
                used.extend(found.filter(|c| c[1..].chars().all(|d| d.is_ascii_digit())).map(str::to_owned));
            }
        }
        let known: Vec<String> = super::all().iter().map(|d| d.code.to_owned()).collect();
        assert_eq!(known, used.into_iter().collect::<Vec<_>>());
        assert_eq!(super::explain("e0101").map(|d| d.title), Some("an unknown key"));
    }
}
