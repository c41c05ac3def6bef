//! The repository: where it is, which files belong to it, and how other programs are run in it.
//!
//! Owns [`Repo`]. Must not know any check.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// An open working copy.
pub struct Repo {
    root: PathBuf,
}

impl Repo {
    /// The workspace around the current directory.
    pub fn find() -> Result<Self> {
        let args = ["locate-project", "--workspace", "--message-format", "plain"];
        let manifest = stdout(Command::new("cargo").args(args))?;
        let root =
            Path::new(manifest.trim()).parent().context("cargo named a manifest without a directory")?;
        Ok(Self { root: root.to_owned() })
    }

    /// The folder of the workspace manifest.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Paths of all files that git knows or would add, relative to the root, sorted.
    pub fn files(&self) -> Result<Vec<String>> {
        let args = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
        let listed = stdout(Command::new("git").args(args).current_dir(&self.root))
            .context("the list of files comes from git; run this in a git checkout")?;
        let mut files: Vec<String> =
            listed.split('\0').filter(|path| !path.is_empty()).map(str::to_owned).collect();
        // A file that was deleted but not yet committed is still listed.
        files.retain(|path| self.root.join(path).is_file());
        files.sort();
        files.dedup();
        Ok(files)
    }

    /// Text of one file.
    pub fn read(&self, path: &str) -> Result<String> {
        fs::read_to_string(self.root.join(path)).with_context(|| format!("cannot read {path}"))
    }

    /// What `cargo metadata` says about the workspace with all features.
    pub fn metadata(&self) -> Result<Value> {
        let args = ["metadata", "--format-version", "1", "--all-features"];
        let text = stdout(Command::new("cargo").args(args).current_dir(&self.root))?;
        serde_json::from_str(&text).context("cargo metadata did not print JSON")
    }

    /// Runs a program in the root with its output shown; an error when it does not end with 0.
    pub fn run(&self, program: &str, args: &[&str]) -> Result<()> {
        self.run_in(program, args, &[])
    }

    /// As [`Repo::run`], with variables of the environment.
    pub fn run_in(&self, program: &str, args: &[&str], variables: &[(&str, &str)]) -> Result<()> {
        let mut command = Command::new(program);
        command.args(args).envs(variables.iter().copied()).current_dir(&self.root);
        let shown = shown(&command);
        let status = command.status().with_context(|| format!("cannot start `{shown}`"))?;
        if !status.success() {
            bail!("`{shown}` ended with {status}");
        }
        Ok(())
    }

    /// What a program prints that is run in the root; an error when it does not end with 0.
    pub fn output(&self, program: &str, args: &[&str]) -> Result<String> {
        stdout(Command::new(program).args(args).current_dir(&self.root))
    }

    /// Builds the `pipeline` binary and gives its path.
    pub fn build_binary(&self, release: bool) -> Result<PathBuf> {
        let mut command = Command::new("cargo");
        command.args(["build", "--quiet", "--package", "pipeline-cli", "--bin", "pipeline"]);
        command.args(["--message-format", "json-render-diagnostics"]).current_dir(&self.root);
        if release {
            command.arg("--release");
        }
        let messages = stdout(&mut command)?;
        let path = messages
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .filter_map(|message| message["executable"].as_str().map(PathBuf::from))
            .next_back();
        path.context("cargo built pipeline-cli but named no executable")
    }
}

/// True when the program can be started.
pub fn is_installed(program: &str) -> bool {
    Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Standard output of a command that ends with 0; its standard error is shown.
fn stdout(command: &mut Command) -> Result<String> {
    let shown = shown(command);
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start `{shown}`"))?;
    if !output.status.success() {
        bail!("`{shown}` ended with {}", output.status);
    }
    String::from_utf8(output.stdout).with_context(|| format!("`{shown}` printed something that is not UTF-8"))
}

fn shown(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy()];
    words.extend(command.get_args().map(|arg| arg.to_string_lossy()));
    words.join(" ")
}
