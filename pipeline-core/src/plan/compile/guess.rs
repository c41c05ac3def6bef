//! Keys and words that people write who know other tools.
//!
//! Owns the words for which spelling alone finds no key, or a wrong one. Must not decide what is a key. Next: `keys.rs`.

/// What is written, and the keys that it may mean: the first that there is counts.
const GUESSES: [(&[&str], &[&str]); 30] = [
    (
        &[
            "over",
            "items",
            "in",
            "for",
            "foreach",
            "for_each",
            "each",
            "list",
            "with_items",
            "source",
            "input",
            "data",
        ],
        &["data_source", "input_source"],
    ),
    (&["as", "item", "var", "loop_var", "variable"], &["iterator"]),
    (&["do", "body", "tasks", "jobs", "stages", "then", "children", "actions", "nodes"], &["steps"]),
    (&["while", "test"], &["condition"]),
    (&["on", "value", "match", "key", "switch"], &["expression"]),
    (&["case", "branches", "options"], &["cases"]),
    (&["else", "otherwise"], &["default"]),
    (&["cmd", "run", "script", "exec", "args", "bash", "sh"], &["command"]),
    (&["dir", "directory", "working_directory", "working-directory", "chdir", "workdir"], &["cwd"]),
    (&["set", "vars", "assign", "values", "variable"], &["variables"]),
    (
        &[
            "text",
            "message",
            "messages",
            "content",
            "ask",
            "input",
            "user",
            "query",
            "question",
            "instructions",
        ],
        &["prompt", "message"],
    ),
    (&["system", "system_message", "instructions"], &["system_prompt"]),
    (&["schema", "response_schema", "response_format", "json_schema", "format"], &["output_schema"]),
    (&["max_tokens", "max_output"], &["max_output_tokens"]),
    (&["retries", "max_retries", "max_attempts", "attempts"], &["max_attempts", "retry"]),
    (&["delay", "backoff", "wait"], &["initial_delay", "backoff_ms"]),
    (&["depends_on", "depends", "after", "requires", "dependencies", "dependsOn", "need"], &["needs"]),
    (&["if", "only_if", "unless"], &["condition", "when"]),
    (&["output", "out", "save_to", "output_file", "write_to", "save", "file"], &["output_to_file"]),
    (
        &[
            "parallelism",
            "concurrency",
            "max_concurrency",
            "max_concurrent",
            "workers",
            "threads",
            "max-parallel",
        ],
        &["max_parallel"],
    ),
    (&["ignore_errors", "allow_failure", "continue-on-error"], &["continue_on_error"]),
    (&["deadline", "max_time", "timeout-minutes", "timeout_minutes"], &["timeout"]),
    (&["arguments", "params", "parameters", "with"], &["inputs", "arguments"]),
    // Types of inputs.
    (&["list", "sequence", "tuple", "vector"], &["array"]),
    (&["map", "mapping", "dict", "dictionary", "hash", "struct"], &["object"]),
    (&["str", "text"], &["string"]),
    (&["int", "long"], &["integer"]),
    (&["float", "double", "decimal"], &["number"]),
    (&["bool", "flag"], &["boolean"]),
    (&["path", "filename"], &["file"]),
];

/// Keys that the workflow has one level deeper.
const BELOW: [(&str, &[&str]); 2] = [
    (
        "budget",
        &[
            "max_cost_usd",
            "max_cost",
            "max_tokens",
            "max_steps",
            "max_duration",
            "max_parallel",
            "max_open_files",
            "max_processes",
            "min_free_disk_mb",
        ],
    ),
    (
        "defaults",
        &["provider", "model", "timeout", "timeout_seconds", "retry", "retries", "continue_on_error"],
    ),
];

/// The key of the workflow below which `given` belongs.
pub(super) fn below(given: &str) -> Option<&'static str> {
    BELOW.iter().find(|(_, keys)| keys.contains(&given)).map(|(parent, _)| *parent)
}

/// The key among `known` that `given` says in other words, and how far `given` is from the word, if it is a word of the
/// table that is misspelled.
pub(super) fn meant<'k>(given: &str, known: &[&'k str]) -> Option<(usize, &'k str)> {
    let there = |keys: &[&str]| keys.iter().find_map(|key| known.iter().find(|k| *k == key)).copied();
    let words = GUESSES.iter().flat_map(|(words, keys)| words.iter().map(move |word| (word, *keys)));
    let near = words.filter_map(|(word, keys)| Some((distance(given, word)?, there(keys)?)));
    near.min_by_key(|(distance, _)| *distance)
}

/// How far a word is from one of the table; `None` when it is another: short ones are near to everything.
fn distance(given: &str, word: &str) -> Option<usize> {
    let limit = match word.len() {
        0..=4 => 0,
        5..=7 => 1,
        _ => 2,
    };
    let is_near = given.len().abs_diff(word.len()) <= limit;
    is_near.then(|| strsim::damerau_levenshtein(given, word)).filter(|distance| *distance <= limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_key_that_there_is_counts() {
        assert_eq!(meant("over", &["data_source", "iterator"]), Some((0, "data_source")));
        assert_eq!(meant("input", &["prompt", "model"]), Some((0, "prompt")));
        assert_eq!(meant("instructions", &["system_prompt"]), Some((0, "system_prompt")));
        assert_eq!(meant("over", &["prompt"]), None);
        assert_eq!(meant("list", &["string", "array", "object"]), Some((0, "array")));
        assert_eq!(meant("list", &["data_source", "array"]), Some((0, "data_source")));
        assert_eq!(meant("overt", &["data_source"]), None);
    }

    #[test]
    fn words_of_other_tools_may_be_misspelled() {
        assert_eq!(meant("depend_on", &["name", "needs"]), Some((1, "needs")));
        assert_eq!(meant("dpeends_no", &["needs"]), Some((2, "needs")));
        assert_eq!(meant("paralelism", &["max_parallel"]), Some((1, "max_parallel")));
        assert_eq!(meant("dep", &["needs"]), None);
    }
}
