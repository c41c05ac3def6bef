//! A seeded mutator over parsing and compiling: any text gives a plan or findings, never a panic or a hang.

use pipeline_core::conformance::trials::Trials;
use pipeline_core::plan::{CompileOptions, compile};
use pipeline_core::source::{MemorySources, SourceRef};

use super::support::World;

const SEEDS: [&str; 3] = [
    "workflow:\n  name: t\n  variables: {n: 0}\n  inputs: {x: {type: integer, default: 3}}\n  steps:\n    - {name: a, type: work, value: '{{ inputs.x + 1 }}', condition: 'state.n < 3 and not false', retry: {max_attempts: 2, on: [timeout]}}\n    - name: f\n      type: for_loop\n      iterator: i\n      data_source: '[1, 2, 3]'\n      parallel: true\n      reduce: {n: sum}\n      steps: [{name: s, type: work, value: '{{ loop.i ? 1 : 2 }}', set: {n: '{{ loop.item }}'}}]\n  outputs: {a: '{{ steps.a }}', b: steps.f.results}\n",
    "name: t\nsteps:\n  - &x {name: a, type: work, needs: [b], timeout: 1h30m}\n  - {<<: *x, name: b, needs: []}\n  - name: w\n    type: while_loop\n    until: 'steps.c between 1 and 3 || loop.index contains 2'\n    max_iterations: 4\n    steps: [{name: c, type: work}, {name: d, type: break, when: {or: [true, 'a exists']}}]\n",
    "workflow:\n  name: t\n  steps:\n    - name: p\n      type: pipeline\n      inputs: {q: '{{ run.id }}'}\n      config: {inherit_context: true}\n      pipeline: {name: c, inputs: {q: null}, steps: [{name: a, type: switch, expression: inputs.q, cases: {x: [{name: z, type: work}]}, default: [{name: y, type: work, value: \"{% for a in [1] %}{{ a }}{% endfor %}\"}]}]}\n    - {name: q, type: work, value: \"{{ previous_response }}\", on_error: [{name: r, type: work, value: '{{ state.error.kind }}'}]}\n",
];

const WORDS: [&str; 40] = [
    "steps",
    "{{",
    "}}",
    "{%",
    "%}",
    ": ",
    "\n",
    "  ",
    "- ",
    "'",
    "\"",
    "[",
    "]",
    "{",
    "}",
    "&a",
    "*a",
    "<<: *a",
    "|",
    ">",
    "#",
    "type",
    "name",
    "null",
    "~",
    "true",
    "loop.",
    "state.",
    " and ",
    " not ",
    "(",
    ")",
    "??",
    "..",
    "é",
    "\t",
    "9999999999999999999",
    "needs",
    "parallel",
    "\u{0}",
];

/// A small generator: the same inputs on every machine.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit.max(1) as u64).unwrap_or(0)
    }
}

pub(super) fn mutate(text: &str, random: &mut Random) -> String {
    let mut chars: Vec<char> = text.chars().collect();
    for _ in 0..=random.below(4) {
        let at = random.below(chars.len());
        match random.below(5) {
            0 => drop(chars.drain(at..(at + random.below(12)).min(chars.len()))),
            1 => {
                let word = WORDS[random.below(WORDS.len())];
                drop(chars.splice(at..at, word.chars()));
            }
            2 => {
                let end = (at + random.below(60)).min(chars.len());
                let part: Vec<char> = chars[at..end].to_vec();
                let to = random.below(chars.len());
                drop(chars.splice(to..to, part));
            }
            3 => {
                let word = WORDS[random.below(WORDS.len())];
                let end = (at + word.len()).min(chars.len());
                drop(chars.splice(at..end, word.chars()));
            }
            _ => {
                let other = random.below(chars.len());
                chars.swap(at, other);
            }
        }
        if chars.is_empty() {
            chars.push('a');
        }
    }
    chars.into_iter().collect()
}

/// Naive: one finding at a time, and a panic on what nobody thought of.
#[test]
fn t10_any_text_gives_a_plan_or_findings() {
    let trials = Trials::of("T10", 6_000);
    let catalog = World::default().catalog();
    let root = SourceRef::Path("t.yaml".to_owned());
    let options = CompileOptions::default();
    let rounds = usize::try_from(trials.wanted()).unwrap();
    let mut random = Random(0x5eed_1234_9876_abcd ^ trials.seed());
    let mut plans = 0;
    for round in 0..rounds {
        let text = mutate(SEEDS[round % SEEDS.len()], &mut random);
        let sources = MemorySources::default().with("t.yaml", text.clone());
        if !trials.go_on() {
            break;
        }
        trials.try_out(&text, || match compile(&sources, &root, &catalog, &options) {
            Ok(_) => plans += 1,
            Err(findings) => assert!(!findings.is_empty(), "refused without a word"),
        });
    }
    assert!(!trials.go_on() || plans > rounds / 100, "hardly anything compiles: the mutator proves nothing");
    trials.finish(format!("{rounds} mutants of pipeline files: a plan or findings each, {plans} plans"));
}
