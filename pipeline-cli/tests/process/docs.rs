//! Pages cannot rot: every YAML block is what it says it is, every command runs as it stands, on the mock and offline.
//!
//! A page is played from top to bottom in a folder of its own, which has copies of `examples/` and of one source folder.
//!
//! | block | what is done with it |
//! |---|---|
//! | `yaml` that begins with `workflow:` | written as `NAME.yaml`, by the workflow's name, checked and run |
//! | … with `# exit: N` first | as before; its run ends with that code |
//! | … with `# findings: CODES` first | `check` finds just these |
//! | … with `# cases: FILE` first | written there and run by `pipeline test` |
//! | `yaml` that begins with `# file: FILE` | written there |
//! | `sh` | each line is run; one whose comment is `exit N`, or begins with `exit N:`, must end with that code, the others with 0 |
//! | `console` | each line after `$` is run, and prints what follows; numbers, lengths of time and ids may differ |

use std::path::{Path, PathBuf};
use std::process::Stdio;

use super::support::{Ended, Scratch, finish};

/// A fenced block in a page.
struct Block {
    /// Page and line, for whoever has to mend it.
    place: String,
    language: String,
    text: String,
}

fn docs(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name)
}

fn blocks(name: &str, text: &str) -> Vec<Block> {
    let mut found: Vec<Block> = Vec::new();
    let mut open = false;
    for (index, line) in text.lines().enumerate() {
        match (open, line.strip_prefix("```")) {
            (false, Some(language)) => {
                open = true;
                let place = format!("{name}:{}", index + 1);
                found.push(Block { place, language: language.to_owned(), text: String::new() });
            }
            (true, Some(_)) => open = false,
            (true, None) => {
                let block = found.last_mut().unwrap();
                block.text.push_str(line);
                block.text.push('\n');
            }
            (false, None) => {}
        }
    }
    found
}

/// What a block's first line says after `# key: `.
fn said<'a>(block: &'a Block, key: &str) -> Option<&'a str> {
    block.text.lines().next()?.strip_prefix(&format!("# {key}: "))
}

fn passes(ended: &Ended, code: i32, what: &str) -> Result<(), String> {
    if ended.code == Some(code) {
        return Ok(());
    }
    Err(format!("`{what}` ended with {:?}, not {code}\n{}{}", ended.code, ended.stdout, ended.stderr))
}

/// A folder in which a page is played.
struct Stage(Scratch);

impl Stage {
    fn new() -> Self {
        let scratch = Scratch::new();
        for folder in ["examples", "pipeline-tools/src"] {
            copy(&docs(folder), &scratch.path().join(folder));
        }
        // Building takes minutes; what cargo would build is the binary under test.
        scratch.write(
            "bin/cargo",
            "#!/bin/sh\ncase \"$*\" in\n'install --locked --path pipeline-cli' | 'test --workspace') ;;\n'run --release -- '*) shift 3; exec pipeline \"$@\" ;;\n*) exit 9 ;;\nesac\n",
        );
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_pipeline"), scratch.path().join("bin/pipeline"))
            .unwrap();
        let cargo = scratch.path().join("bin/cargo");
        std::fs::set_permissions(cargo, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        Self(scratch)
    }

    fn shell(&self, script: &str) -> Ended {
        let bin = self.0.path().join("bin");
        let mut command = std::process::Command::new("/bin/sh");
        command.args(["-c", script]).current_dir(self.0.path()).env_clear();
        command.env("PATH", format!("{}:/usr/bin:/bin", bin.display())).env("HOME", self.0.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        finish(command.spawn().unwrap())
    }

    fn play(&self, block: &Block) -> Result<(), String> {
        match block.language.as_str() {
            "yaml" => self.yaml(block),
            "sh" => self.commands(block),
            "console" => self.console(block),
            _ => Ok(()),
        }
    }

    fn yaml(&self, block: &Block) -> Result<(), String> {
        if let Some(file) = said(block, "file") {
            self.0.write(file, &block.text);
            return Ok(());
        }
        if let Some(cases) = said(block, "cases") {
            self.0.write(cases, &block.text);
            return passes(&self.0.run(&["test", cases]), 0, "pipeline test");
        }
        let name = block.text.lines().find_map(|line| line.strip_prefix("  name: "));
        let Some(name) = name else {
            return Err("a fragment: neither a pipeline nor a named file".to_owned());
        };
        let name = format!("{name}.yaml");
        self.0.write(&name, &block.text);
        let checked = self.0.run(&["check", &name]);
        if let Some(codes) = said(block, "findings") {
            passes(&checked, 2, "pipeline check")?;
            let found = checked.stdout.matches(": error[").count();
            let all = codes.split(", ").all(|code| checked.stdout.contains(&format!("error[{code}]")));
            return if all && found == codes.split(", ").count() { Ok(()) } else { Err(checked.stdout) };
        }
        passes(&checked, 0, "pipeline check")?;
        if said(block, "notes").is_none() && !checked.stdout.is_empty() {
            return Err(format!("`check` has something to say: {}", checked.stdout));
        }
        let exit = said(block, "exit").map_or(0, |code| code.parse().unwrap());
        passes(&self.0.run(&["run", &name, "--mock"]), exit, "pipeline run")
    }

    /// One script for the block, so that a later line may speak of an earlier one's process.
    fn commands(&self, block: &Block) -> Result<(), String> {
        let mut script = String::from("set -eu\n");
        for line in block.text.lines().filter(|line| !line.is_empty()) {
            let (command, code) = with_code(line);
            script.push_str(&match code {
                // Of a pair of commands on one line, or of one in the background, the last counts.
                0 => format!("{line}\n"),
                code => format!(
                    "if {command}; then c=0; else c=$?; fi\n[ $c = {code} ] || {{ echo \"exit $c, not {code}\" >&2; exit 99; }}\n"
                ),
            });
        }
        passes(&self.shell(&script), 0, &block.text)
    }

    fn console(&self, block: &Block) -> Result<(), String> {
        let mut parts: Vec<(&str, Vec<String>)> = Vec::new();
        for line in block.text.lines() {
            match (line.strip_prefix("$ "), parts.last_mut()) {
                (Some(command), _) => parts.push((command, Vec::new())),
                (None, Some((_, shown))) => shown.push(plain(line)),
                (None, None) => return Err("a console block begins with `$ `".to_owned()),
            }
        }
        for (command, shown) in parts {
            let (command, code) = with_code(command);
            let ended = self.shell(&format!("{command} 2>&1"));
            passes(&ended, code, command)?;
            let printed: Vec<String> = ended.stdout.lines().map(plain).collect();
            if printed != shown {
                return Err(format!("`{command}` prints\n{}", ended.stdout));
            }
        }
        Ok(())
    }
}

/// A command without its comment, and the exit code with which the comment begins, if it does.
fn with_code(line: &str) -> (&str, i32) {
    let Some((command, comment)) = line.split_once(" # ") else { return (line.trim(), 0) };
    let code = comment.trim().strip_prefix("exit ").and_then(|code| code.split(':').next()?.parse().ok());
    (command.trim(), code.unwrap_or(0))
}

/// A line without what differs from run to run.
fn plain(line: &str) -> String {
    let mut numbers = String::new();
    for word in line.split_whitespace() {
        let is_id = word.len() == 36 && word.matches('-').count() == 4;
        numbers.push_str(if is_id { "ID" } else { word });
        numbers.push(' ');
    }
    let mut text = String::new();
    for sign in numbers.chars() {
        match sign {
            '0'..='9' | '.' if text.ends_with('#') => {}
            '0'..='9' => text.push('#'),
            other => text.push(other),
        }
    }
    text.replace("# ms", "# s")
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// Plays a page; what is wrong with it, with the place.
fn played(name: &str, text: &str) -> Result<usize, String> {
    let stage = Stage::new();
    let blocks = blocks(name, text);
    for block in &blocks {
        stage.play(block).map_err(|error| format!("{}: {error}", block.place))?;
    }
    Ok(blocks.len())
}

fn page(name: &str) {
    let text = std::fs::read_to_string(docs(name)).unwrap();
    if let Err(error) = played(name, &text) {
        panic!("{error}");
    }
}

#[test]
fn the_readme_does_what_it_says() {
    page("README.md");
}

#[test]
fn the_guide_does_what_it_says() {
    let pages: Vec<String> = std::fs::read_dir(docs("docs/guide"))
        .unwrap()
        .map(|entry| format!("docs/guide/{}", entry.unwrap().file_name().display()))
        .collect();
    assert!(pages.len() >= 11, "{pages:?}");
    // They mostly wait, for mocks and retries.
    std::thread::scope(|scope| pages.iter().for_each(|name| drop(scope.spawn(|| page(name)))));
}

#[test]
fn the_pages_beside_the_guide_do_what_they_say() {
    for name in ["docs/troubleshooting.md", "docs/migrating.md", "docs/comparison.md"] {
        page(name);
    }
}

#[test]
fn a_page_with_a_wrong_flag_exit_code_output_or_file_is_found() {
    let file =
        "```yaml\nworkflow:\n  name: a\n  steps:\n    - { name: x, type: test_echo, value: hello }\n```\n";
    let sound = format!(
        "{file}```sh\npipeline run a.yaml\npipeline run b.yaml   # exit 2\n```\n```console\n$ pipeline run a.yaml -q\nx: hello\n```\n"
    );
    assert_eq!(played("sound.md", &sound), Ok(3));
    for (place, broken) in [
        ("page.md:7", format!("{file}```sh\npipeline run a.yaml --mok\n```\n")),
        ("page.md:7", format!("{file}```sh\npipeline run a.yaml   # exit 2\n```\n")),
        ("page.md:7", format!("{file}```sh\npipeline run a.yaml --mok &\nwait $!\n```\n")),
        ("page.md:7", format!("{file}```console\n$ pipeline run a.yaml -q\nx: goodbye\n```\n")),
        ("page.md:1", file.replace("test_echo", "test_ecko")),
        ("page.md:1", "```sh\ncargo instal pipeline\n```\n".to_owned()),
        ("page.md:1", "```yaml\nsteps: []\n```\n".to_owned()),
    ] {
        let error = played("page.md", &broken).expect_err(&broken);
        assert!(error.starts_with(place), "{error}");
    }
}

#[test]
fn what_differs_from_run_to_run_is_left_out() {
    let one = plain("ok        a (36 ms, 1 call), run 01a214c4-04bc-7377-9ec5-68d588d5411d");
    let two = plain("ok a (1.2 s, 1 call), run 01a214c4-2f65-7109-bcb1-fe03a22bb5a8");
    assert_eq!(one, two);
    assert_ne!(plain("ok a"), plain("failed a"));
}
