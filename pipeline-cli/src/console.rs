//! The two streams: results go to standard output, everything else to standard error.
//!
//! Owns [`Console`] and [`visible`], which keeps text from pipelines and models from steering a terminal.
//! Must not know what is printed.

use std::io::{self, Write};

use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};

use crate::exit::{Exit, Failure};
use crate::settings::Settings;

/// For errors.
pub const RED: Style = AnsiColor::Red.on_default().bold();
/// For warnings.
pub const YELLOW: Style = AnsiColor::Yellow.on_default().bold();
/// For what went well.
pub const GREEN: Style = AnsiColor::Green.on_default();
/// For notes and help.
pub const CYAN: Style = AnsiColor::Cyan.on_default();
/// For what matters less.
pub const DIM: Style = Style::new().dimmed();

/// Text in a style.
pub fn paint(style: Style, text: impl std::fmt::Display) -> String {
    format!("{style}{text}{style:#}")
}

/// Where commands print.
#[expect(clippy::struct_excessive_bools, reason = "four answers that have nothing to do with each other")]
#[derive(Debug, Clone, Copy)]
pub struct Console {
    colour_out: bool,
    colour_err: bool,
    /// `--quiet`.
    pub quiet: bool,
    json: bool,
}

impl Console {
    /// Streams as the settings want them.
    pub fn new(settings: &Settings) -> Self {
        Self {
            colour_out: settings.colour_out,
            colour_err: settings.colour_err,
            quiet: settings.quiet,
            json: settings.json,
        }
    }

    /// Prints a piece of the result and flushes it.
    ///
    /// # Errors
    /// [`Failure`] when it cannot be written. A reader that has gone away (`| head`) is no error: it has what it wanted.
    pub fn out(self, text: &str) -> Result<(), Failure> {
        let mut stream = AutoStream::new(io::stdout().lock(), choice(self.colour_out));
        match stream.write_all(text.as_bytes()).and_then(|()| stream.flush()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(Failure::environment(format!("the result cannot be written to standard output: {error}")))
            }
            _ => Ok(()),
        }
    }

    /// Prints a line for people.
    pub fn err(self, line: &str) {
        let mut stream = AutoStream::new(io::stderr().lock(), choice(self.colour_err));
        // When standard error is gone there is nobody left to tell.
        let _gone = writeln!(stream, "{line}");
    }

    /// Prints a line for people unless they asked for quiet.
    pub fn note(self, line: &str) {
        if !self.quiet {
            self.err(line);
        }
    }

    /// Standard error as a stream that reporters keep.
    pub fn stderr(self) -> Box<dyn Write + Send> {
        Box::new(AutoStream::new(io::stderr(), choice(self.colour_err)))
    }

    /// Tells of a failure, for people and, with `--json`, for programs.
    pub fn fail(self, failure: &Failure) -> Exit {
        for message in &failure.messages {
            self.err(&format!("{} {}", paint(RED, "error:"), visible(message)));
        }
        if let Some(help) = &failure.help {
            self.err(&format!("  {} {}", paint(CYAN, "help:"), visible(help)));
        }
        if self.json {
            let document = serde_json::json!({
                "schema": "pipeline.error/1",
                "exit_code": failure.exit.code(),
                "messages": failure.messages,
                "help": failure.help,
            });
            if let Err(second) = self.out(&format!("{document}\n")) {
                self.err(&second.to_string());
            }
        }
        failure.exit
    }
}

fn choice(colour: bool) -> ColorChoice {
    if colour { ColorChoice::Always } else { ColorChoice::Never }
}

/// The text with every control character shown instead of sent: nothing that a model wrote may move the cursor.
/// Line ends and tabs stay.
pub fn visible(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\n' | '\t' => c,
            // Directional marks can make text read as what it is not.
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
            c if c.is_control() => '\u{fffd}',
            c => c,
        })
        .collect()
}

/// As [`visible`], on one line and at most `most` characters long.
pub fn short(text: &str, most: usize) -> String {
    let one_line = visible(text).replace(['\n', '\t'], " ");
    if one_line.chars().count() <= most {
        return one_line;
    }
    one_line.chars().take(most.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_a_model_cannot_steer_the_terminal() {
        assert_eq!(visible("a\u{1b}[2Jb\r\nc\td\u{202e}"), "a\u{fffd}[2Jb\u{fffd}\nc\td\u{fffd}");
    }

    #[test]
    fn a_short_text_is_one_line_and_says_that_it_was_cut() {
        assert_eq!(short("one\ntwo", 20), "one two");
        assert_eq!(short("ääääää", 4), "äää…");
    }
}
