//! T16 of `cargo xtask reliability`: a journal that ends anywhere, of pipelines of every kind, is gone on with to the same end.

use std::sync::atomic::{AtomicUsize, Ordering};

use pipeline_core::conformance::trials::{Random, Trials};

use serde_json::Value;

use super::crash::{check_journal, copy, facts};
use super::support::{Ended, Scratch};

/// A pipeline, the rules of its mock, and what people answer.
struct Case {
    name: &'static str,
    text: &'static str,
    rules: &'static str,
    answer: Option<&'static str>,
}

const fn case(name: &'static str, text: &'static str) -> Case {
    Case { name, text, rules: "rules: []\n", answer: None }
}

const CASES: &[Case] = &[
    case("loops in a fan-out in a child", super::crash::NESTED),
    case(
        "a graph",
        "workflow:
  name: graph
  steps:
    - {name: a, type: test_echo, value: 1}
    - {name: b, type: claude, prompt: b}
    - {name: c, type: test_echo, needs: [a, b], value: '{{ [steps.a, steps.b.text] }}'}
    - {name: d, type: test_echo, needs: [a], delay_ms: 3, value: d}
    - {name: e, type: claude, needs: [c, d], prompt: '{{ steps.c }}'}
",
    ),
    Case {
        name: "tries, fallbacks and steps instead",
        text: "workflow:
  name: tries
  steps:
    - {name: often, type: claude, prompt: often, retry: {max_attempts: 4, base_delay: 1ms}}
    - {name: other, type: claude, prompt: other, fallback: [{model: haiku}]}
    - {name: never, type: claude, prompt: never, on_error: [{name: instead, type: test_echo, value: 7}]}
    - {name: weak, type: claude, prompt: never, continue_on_error: true}
    - {name: end, type: test_echo, value: '{{ [steps.often.text, steps.other.text] }}'}
  outputs: {end: steps.end}
",
        rules: "rules:
  - {match: {step: often, call: 1}, error: {kind: overloaded, message: busy}}
  - {match: {step: often, call: 2}, error: {kind: server, message: broken}}
  - {match: {step: other, call: 1}, error: {kind: server, message: broken}}
  - {match: {prompt_contains: never}, error: {kind: invalid, message: no}}
  - {text: fine}
",
        answer: None,
    },
    Case {
        name: "calls of tools",
        text: "workflow:
  name: tools
  functions:
    book: {description: Books, parameters: {type: object, required: [people], properties: {people: {type: integer}}}}
  steps:
    - name: fan
      type: for_loop
      parallel: true
      max_parallel: 3
      data_source: range(5)
      steps:
        - {name: sum, type: gemini, prompt: 'Compute {{ loop.item }}', tools: [calculator], max_turns: 4}
        - {name: order, type: gemini, prompt: 'A table for {{ loop.item }}', functions: [book]}
        - {name: told, type: claude, prompt: 'Booked {{ steps.order.people }}', schema: {type: object, required: [ok], properties: {ok: {type: boolean}}}}
  outputs: {sums: 'map(steps.fan.iterations, \"item.results.sum.text\")'}
",
        rules: "rules:
  - {match: {step: sum, call: 1}, function_calls: [{name: calculator, arguments: {expression: 2 * 3}}]}
  - {match: {step: sum, call: 2}, function_calls: [{name: calculator, arguments: {expression: 6 + 1}}]}
  - {match: {step: sum, call: 3}, text: it is 7}
",
        answer: None,
    },
    Case {
        name: "a person",
        text: "workflow:
  name: person
  steps:
    - {name: draft, type: claude, prompt: draft}
    - {name: publish, type: approval, message: 'Publish {{ steps.draft.text }}?', choices: ['yes', 'no']}
    - {name: both, type: parallel, steps: [{name: a, type: test_echo, condition: \"steps.publish == 'yes'\", value: 1}, {name: b, type: test_echo, value: 2}]}
",
        rules: "rules: []\n",
        answer: Some("publish=yes"),
    },
    case(
        "batches",
        "workflow:
  name: batches
  steps:
    - {name: ask, type: claude_batch, max_parallel: 2, tasks: \"map(range(6), '{\\\"id\\\": \\\"t\\\" ~ item, \\\"prompt\\\": \\\"task \\\" ~ item}')\"}
    - {name: tasks, type: parallel_claude, max_parallel: 2, parallel_tasks: [{id: x, prompt: x}, {id: y, prompt: y}, {id: z, prompt: z}]}
",
    ),
    case(
        "cases and circles",
        "workflow:
  name: ways
  variables: {n: 0}
  steps:
    - name: turns
      type: while_loop
      condition: state.n < 6
      steps:
        - name: way
          type: switch
          expression: state.n % 3
          cases:
            '0': [{name: zero, type: claude, prompt: zero}]
            '1': [{name: one, type: test_echo, value: one}, {name: more, type: test_echo, value: more}]
          default: [{name: rest, type: test_echo, value: rest}]
        - {name: add, type: set_variable, variable: n, value: '{{ state.n + 1 }}'}
        - {name: out, type: break, condition: state.n >= 5}
",
    ),
    case(
        "children of children",
        "workflow:
  name: top
  steps:
    - name: outer
      type: pipeline
      pipeline:
        name: middle
        steps:
          - name: fan
            type: for_loop
            parallel: true
            data_source: range(4)
            steps:
              - name: inner
                type: pipeline
                inputs: {n: '{{ loop.item }}'}
                pipeline:
                  name: leaf
                  inputs: {n: integer}
                  steps:
                    - {name: think, type: claude, prompt: 'n {{ inputs.n }}'}
                    - {name: twice, type: test_echo, value: '{{ inputs.n * 2 }}'}
                  outputs: {twice: steps.twice}
        outputs: {all: steps.fan.results}
  outputs: {all: steps.outer.all}
",
    ),
    case(
        "large values",
        "workflow:
  name: large
  steps:
    - {name: many, type: test_echo, value: '{{ range(16000) }}'}
    - {name: again, type: test_echo, value: '{{ steps.many }}'}
    - name: fan
      type: for_loop
      parallel: true
      data_source: range(3)
      steps: [{name: one, type: test_echo, value: '{{ range(15000) }}'}]
    - {name: end, type: test_echo, value: '{{ steps.again | length }}'}
  outputs: {end: steps.end}
",
    ),
    case(
        "sums of branches",
        "workflow:
  name: sums
  variables: {sum: 0, all: []}
  steps:
    - name: fan
      type: for_loop
      parallel: true
      max_parallel: 5
      data_source: range(20)
      reduce: {sum: sum, all: append}
      steps:
        - {name: add, type: set_variable, variables: {sum: '{{ loop.item }}', all: '{{ loop.item }}'}}
    - {name: files, type: for_loop, data_source: range(3), steps: [{name: f, type: test_echo, value: '{{ loop.item }}', output_to_file: 'f{{ loop.item }}.txt'}]}
  outputs: {sum: state.sum, all: state.all}
",
    ),
    case(
        "tables",
        "workflow:
  name: tables
  steps:
    - {name: rows, type: test_echo, value: '{{ range(40) }}'}
    - name: change
      type: data_transform
      input_source: '{{ map(steps.rows, \"{\\\"n\\\": item, \\\"odd\\\": item % 2}\") }}'
      output_field: changed
      operations:
        - {operation: filter, condition: 'n > 10'}
        - {operation: sort, by: n, order: desc}
    - {name: ask, type: claude, prompt: '{{ steps.change }}'}
",
    ),
];

fn finished(scratch: &Scratch, case: &Case, first: &[&str]) -> Ended {
    let ended = scratch.run(first);
    match case.answer {
        Some(answer) if ended.code == Some(4) => scratch.run(&["resume", "r", "--json", "--answer", answer]),
        _ => ended,
    }
}

/// A run that nothing happened to, and where its journal can be cut.
struct Whole<'a> {
    case: &'a Case,
    scratch: Scratch,
    journal: Vec<u8>,
    outputs: Value,
    ends: usize,
    /// Behind the head, and behind each record but the last.
    lines: Vec<usize>,
}

impl<'a> Whole<'a> {
    fn of(case: &'a Case) -> Self {
        let scratch = Scratch::new();
        scratch.write("w.yaml", case.text);
        scratch.write("rules.yaml", case.rules);
        let run = ["run", "w.yaml", "--mock-rules", "rules.yaml", "--run-id", "r", "--json"];
        let ended = finished(&scratch, case, &run);
        assert_eq!(ended.code, Some(0), "{}: {}{}", case.name, ended.stdout, ended.stderr);
        let dir = scratch.run_dir();
        let journal = std::fs::read(dir.join("journal.log")).unwrap();
        let mut lines: Vec<usize> =
            journal.iter().enumerate().filter(|(_, b)| **b == b'\n').map(|(at, _)| at + 1).collect();
        lines.pop();
        let ends = ends(&scratch);
        let outputs = ended.json()["outputs"].clone();
        Self { case, scratch, journal, outputs, ends, lines }
    }

    /// Cuts the journal there and goes on.
    fn go_on(&self, at: usize) -> Result<(), String> {
        let scratch = Scratch::new();
        copy(&self.scratch.path().join(".pipeline"), &scratch.path().join(".pipeline"));
        std::fs::write(scratch.run_dir().join("journal.log"), &self.journal[..at]).unwrap();
        let told = |what: &str| format!("{} cut at byte {at}: {what}", self.case.name);
        let ended = finished(&scratch, self.case, &["resume", "r", "--json"]);
        if ended.code != Some(0) {
            return Err(told(&format!("ends with {:?}: {}", ended.code, ended.stderr)));
        }
        if ended.json()["outputs"] != self.outputs {
            return Err(told("the outputs differ"));
        }
        check_journal(&scratch.run_dir()).map_err(|why| told(&why))?;
        let ends = ends(&scratch);
        if ends == self.ends { Ok(()) } else { Err(told(&format!("{ends} ends, and not {}", self.ends))) }
    }
}

fn ends(scratch: &Scratch) -> usize {
    facts(&scratch.run_dir()).iter().filter(|(_, _, fact)| fact == "AttemptEnded").count()
}

/// Naive: a resume starts with the last step again, or with the first turn of a loop.
#[test]
fn t16_x10_x27_a_journal_that_ends_anywhere_is_gone_on_with_to_the_same_end() {
    let trials = Trials::of("T16", 40);
    let mut random = Random::new(trials.seed());
    let all: Vec<Whole<'_>> = CASES.iter().map(Whole::of).collect();
    // Behind every record, and then in the middle of some; in an order that reaches all kinds soon.
    let mut cuts: Vec<(usize, usize)> = Vec::new();
    for (kind, whole) in all.iter().enumerate() {
        cuts.extend(whole.lines.iter().map(|at| (kind, *at)));
    }
    let records = cuts.len();
    for place in (1..cuts.len()).rev() {
        cuts.swap(place, random.below(place + 1));
    }
    let wanted = usize::try_from(trials.wanted()).unwrap();
    cuts.truncate(wanted);
    while cuts.len() < wanted {
        let kind = random.below(all.len());
        let head = all[kind].lines[0];
        cuts.push((kind, head + random.below(all[kind].journal.len() - head)));
    }
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some((kind, at)) = cuts.get(next.fetch_add(1, Ordering::Relaxed))
                    && trials.go_on()
                {
                    trials.count(all[*kind].go_on(*at));
                }
            });
        }
    });
    trials.finish(format!(
        "{} pipelines of {records} records cut at {} places: none lost, none again, none different",
        CASES.len(),
        cuts.len(),
    ));
}
