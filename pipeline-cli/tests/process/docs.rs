//! Every YAML block of the guide and of the README is what it says it is: it is checked and runs on the mock, as it stands.
//!
//! A first line `# exit: N` in a block names the exit code of its run, and `# cases: FILE` makes it cases of the pipeline before
//! it. A block that is neither a pipeline nor cases is a fragment; the guide has none.

use std::path::{Path, PathBuf};

use super::support::{Ended, Scratch};

/// A block of YAML in a page.
struct Block {
    /// Page and line, for whoever has to mend it.
    place: String,
    text: String,
}

fn docs(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name)
}

fn blocks(page: &Path) -> Vec<Block> {
    let text = std::fs::read_to_string(page).unwrap();
    let mut found: Vec<Block> = Vec::new();
    let mut open = false;
    for (index, line) in text.lines().enumerate() {
        match (open, line) {
            (false, "```yaml") => {
                open = true;
                found.push(Block { place: format!("{}:{}", page.display(), index + 1), text: String::new() });
            }
            (true, "```") => open = false,
            (true, line) => {
                let block = found.last_mut().unwrap();
                block.text.push_str(line);
                block.text.push('\n');
            }
            (false, _) => {}
        }
    }
    found
}

/// What a block's first line says after `# key: `.
fn said<'a>(block: &'a Block, key: &str) -> Option<&'a str> {
    block.text.lines().next()?.strip_prefix(&format!("# {key}: "))
}

fn passes(ended: &Ended, code: i32, place: &str) {
    assert_eq!(ended.code, Some(code), "{place}\n{}{}", ended.stdout, ended.stderr);
}

fn play(scratch: &Scratch, name: &str, block: &Block) {
    scratch.write(name, &block.text);
    let checked = scratch.run(&["check", name]);
    passes(&checked, 0, &block.place);
    assert_eq!(checked.stdout, "", "{}: no finding, no note", block.place);
    let exit = said(block, "exit").map_or(0, |code| code.parse().unwrap());
    passes(&scratch.run(&["run", name, "--mock"]), exit, &block.place);
}

#[test]
fn every_pipeline_of_the_guide_runs_as_it_stands() {
    let mut pages: Vec<PathBuf> =
        std::fs::read_dir(docs("docs/guide")).unwrap().map(|entry| entry.unwrap().path()).collect();
    pages.sort();
    let mut played = 0;
    for page in &pages {
        let scratch = Scratch::new();
        for block in blocks(page) {
            if let Some(cases) = said(&block, "cases") {
                scratch.write(cases, &block.text);
                passes(&scratch.run(&["test", cases]), 0, &block.place);
            } else {
                // Cases name the pipeline `answer.yaml`; for the others the name does not matter.
                play(&scratch, "answer.yaml", &block);
            }
            played += 1;
        }
    }
    assert!(pages.len() >= 9 && played >= 14, "{} pages, {played} blocks", pages.len());
}

#[test]
fn the_pipeline_of_the_readme_runs_as_it_stands() {
    let blocks = blocks(&docs("README.md"));
    let pipelines: Vec<&Block> = blocks.iter().filter(|b| b.text.starts_with("workflow:")).collect();
    assert!(!pipelines.is_empty());
    for block in pipelines {
        play(&Scratch::new(), "readme.yaml", block);
    }
}

#[test]
fn the_run_of_the_guide_that_asks_goes_on_with_an_answer() {
    let scratch = Scratch::new();
    let page = blocks(&docs("docs/guide/people.md"));
    play(&scratch, "ship.yaml", &page[0]);
    let resumed = scratch.run(&["resume", "--answer", "go=yes"]);
    passes(&resumed, 0, &page[0].place);
    assert!(resumed.stdout.contains("shipped"), "{}", resumed.stdout);
}
