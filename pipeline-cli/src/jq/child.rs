//! The process that runs one jq program and nothing else.
//!
//! Owns [`serve`]: reads a program and its input from standard input, prints `v` and a value for each output, `e` and an error,
//! and `.` when all is told. It takes its own memory, processor time and environment away first. Must not know who asks.

use std::io::{self, BufWriter, Read, Write};
use std::process::ExitCode;

use jaq_core::load::{Arena, File, Loader};
use jaq_core::{Compiler, Ctx, Vars, compile, data, load};
use jaq_json::{Val, read, write};
use serde_json::json;

/// Address space of the child, in bytes.
pub(super) const MOST_MEMORY: u64 = 2 << 30;

/// Functions that tell of the machine or the moment: a program's answer depends on its input alone.
const WITHHELD: [&str; 9] = [
    "env",
    "now",
    "localtime",
    "strflocaltime",
    "input",
    "inputs",
    "input_filename",
    "input_line_number",
    "stderr_empty",
];

/// What went wrong, for the host.
struct Trouble {
    message: String,
    offset: Option<usize>,
}

impl Trouble {
    fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), offset: None }
    }
}

/// Runs the program on standard input. `seconds` of processor time are left to it.
pub fn serve(seconds: Option<u64>) -> ExitCode {
    if !limit(seconds.unwrap_or(60).max(1)) {
        return ExitCode::FAILURE;
    }
    let mut out = BufWriter::new(io::stdout().lock());
    let told = match answer(&mut out) {
        Ok(()) => out.write_all(b".\n"),
        Err(trouble) => {
            let line = json!({ "message": trouble.message, "offset": trouble.offset });
            writeln!(out, "e{line}")
        }
    };
    match told.and_then(|()| out.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Takes memory, processor time, core files and open files away; false when that cannot be done.
#[cfg(unix)]
fn limit(seconds: u64) -> bool {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let limits =
        [(Resource::As, MOST_MEMORY), (Resource::Cpu, seconds), (Resource::Core, 0), (Resource::Nofile, 16)];
    limits.into_iter().all(|(resource, most)| {
        // The hard limit of processor time comes a second later: the soft one says why it ended.
        let hard = if matches!(resource, Resource::Cpu) { most + 1 } else { most };
        setrlimit(resource, Rlimit { current: Some(most), maximum: Some(hard) }).is_ok()
    })
}

/// There are no such limits here: the host's deadline ends a program that takes too long.
#[cfg(not(unix))]
fn limit(_: u64) -> bool {
    true
}

fn answer(out: &mut impl Write) -> Result<(), Trouble> {
    let mut request = Vec::new();
    io::stdin().lock().read_to_end(&mut request).map_err(|e| Trouble::new(e.to_string()))?;
    let end = request.iter().position(|b| *b == b'\n').unwrap_or(request.len());
    let (program, input) = request.split_at(end);
    let program: String = serde_json::from_slice(program).map_err(|e| Trouble::new(e.to_string()))?;
    let input = read::parse_single(input).map_err(|e| Trouble::new(e.to_string()))?;
    drop(request);

    let arena = Arena::default();
    let defs = jaq_core::defs().chain(jaq_std::defs()).chain(jaq_json::defs());
    // `stderr` and `halt_error` speak to a terminal that is not there.
    let defs = defs.filter(|def| !matches!(def.name, "stderr" | "halt_error"));
    let file = File { code: program.as_str(), path: () };
    let modules = Loader::new(defs).load(&arena, file).map_err(|errors| unread(&errors))?;
    let funs = jaq_core::funs().chain(jaq_std::funs()).chain(jaq_json::funs());
    let funs = funs.filter(|(name, ..)| !WITHHELD.contains(name));
    let filter = Compiler::default().with_funs(funs).compile(modules).map_err(|errors| unknown(&errors))?;
    let ctx = Ctx::<data::JustLut<Val>>::new(&filter.lut, Vars::new([]));
    let gone = |e: io::Error| Trouble::new(e.to_string());
    for (index, result) in filter.id.run((ctx, input)).enumerate() {
        match result {
            Ok(value) => {
                out.write_all(b"v").map_err(gone)?;
                write::write(out, &write::Pp::default(), 0, &value).map_err(gone)?;
                out.write_all(b"\n").map_err(gone)?;
            }
            // Never `unwrap_valr`: it ends the process when a program halts.
            Err(exception) => match exception.get_err().map_err(jaq_core::Exn::get_halt) {
                Ok(error) => return Err(Trouble::new(format!("after {index} outputs: {error}"))),
                Err(Ok(0)) => return Ok(()),
                Err(Ok(code)) => return Err(Trouble::new(format!("the program halted with code {code}"))),
                Err(Err(_)) => return Err(Trouble::new("the program broke out of nothing")),
            },
        }
    }
    Ok(())
}

/// Where a part of the program begins.
fn offset(code: &str, part: &str) -> Option<usize> {
    (part.as_ptr() as usize).checked_sub(code.as_ptr() as usize).filter(|at| *at <= code.len())
}

fn at(code: &str, part: &str, message: &str) -> Trouble {
    let offset = offset(code, part);
    let near: String = part.chars().take(20).collect();
    let place = match (offset, near.is_empty()) {
        (_, true) => "at its end".to_owned(),
        (Some(at), _) => format!("at character {}, near `{near}`", code[..at].chars().count() + 1),
        (None, _) => format!("near `{near}`"),
    };
    Trouble { message: format!("{message}, {place}"), offset }
}

fn unread(errors: &load::Errors<&str, ()>) -> Trouble {
    let Some((file, error)) = errors.first() else { return Trouble::new("the program cannot be read") };
    match error {
        load::Error::Io(errors) => {
            let what = errors.first().map(|(path, _)| *path).unwrap_or_default();
            at(file.code, what, "a program cannot import modules")
        }
        load::Error::Lex(errors) => match errors.first() {
            Some((expected, part)) => at(file.code, part, &format!("expected {}", expected.as_str())),
            None => Trouble::new("the program cannot be read"),
        },
        load::Error::Parse(errors) => match errors.first() {
            Some((expected, part)) => at(file.code, part, &format!("expected {}", expected.as_str())),
            None => Trouble::new("the program cannot be read"),
        },
    }
}

fn unknown(errors: &compile::Errors<&str, ()>) -> Trouble {
    let first = errors.first().and_then(|(file, errors)| Some((file, errors.first()?)));
    match first {
        Some((file, (name, undefined))) => {
            at(file.code, name, &format!("there is no {} `{name}`", undefined.as_str()))
        }
        None => Trouble::new("the program cannot be compiled"),
    }
}
