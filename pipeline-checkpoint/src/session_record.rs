//! A session's file as bytes.
//!
//! Owns what stands in a session's records and how they are folded: each turn stores its own messages only, and names the
//! whole history before it by hash. So a conversation is stored once, however long it gets, and two files that name the same
//! history have the same history. Must not know locks or directories.

use std::collections::BTreeMap;
use std::path::Path;

use pipeline_core::clock::Timestamp;
use pipeline_core::error::StepError;
use pipeline_core::message::Content;
use pipeline_core::store::{Session, SessionTurn, StoreError};
use pipeline_core::value::{Hash, Value};
use serde::{Deserialize, Serialize};

use crate::blob;
use crate::chain::{self, Chain, ChainEnd};
use crate::line::Kind;

/// Version of session files that this program writes, and the newest that it reads.
pub const SESSION_FORMAT: u32 = 1;

const KIND: Kind = Kind { magic: "pipeline-session", format: SESSION_FORMAT };

/// Most levels of nesting of a value in a turn: with what is around it, it stays readable.
const MAX_VALUE_DEPTH: usize = blob::MAX_DEPTH - 16;

/// The first line's JSON.
#[derive(Serialize, Deserialize)]
struct Head {
    /// The session's name; the file's name is its hash.
    name: String,
}

#[derive(Serialize)]
struct EntryRef<'a> {
    at: Timestamp,
    parent: Hash,
    turn: &'a SessionTurn,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    set: &'a BTreeMap<String, Value>,
}

#[derive(Deserialize)]
struct Entry {
    at: Timestamp,
    parent: Hash,
    turn: SessionTurn,
    #[serde(default)]
    set: BTreeMap<String, Value>,
}

/// A session as it was read.
pub(crate) struct Stored {
    pub(crate) session: Session,
    /// Where the next record goes; `None` when there is nothing yet.
    pub(crate) end: Option<ChainEnd>,
    /// Whether there are bytes after the end, which were never acknowledged.
    pub(crate) is_torn: bool,
    /// When it was last written.
    pub(crate) updated_at: Timestamp,
    /// Keys of turns that only set variables.
    pub(crate) silent: Vec<String>,
    history: Hash,
}

impl Stored {
    /// A session that nobody has written to.
    pub(crate) fn empty(name: &str) -> Self {
        Self {
            session: Session { name: name.to_owned(), ..Session::default() },
            end: None,
            is_torn: false,
            updated_at: Timestamp::default(),
            silent: Vec::new(),
            history: root(name),
        }
    }

    /// Reads a session's file.
    pub(crate) fn read(name: &str, path: &Path, bytes: &[u8]) -> Result<Self, StoreError> {
        let mut stored = Self::empty(name);
        // The name is needed for the first parent, and is known before the records only by the caller.
        let chain: Option<Chain<Head>> = chain::read(KIND, path, bytes, |payload| stored.fold(payload))?;
        match chain {
            None => stored.is_torn = !bytes.is_empty(),
            Some(chain) if chain.head.name == name => {
                stored.end = Some(chain.end);
                stored.is_torn = chain.is_torn;
            }
            Some(chain) => {
                let message = format!("this is the session `{}`, not `{name}`", chain.head.name);
                return Err(StoreError::Damaged { path: path.to_owned(), offset: 0, message });
            }
        }
        Ok(stored)
    }

    fn fold(&mut self, payload: &[u8]) -> Result<(), String> {
        let value = blob::parse(payload)?;
        let entry: Entry = serde_json::from_value(value).map_err(|error| error.to_string())?;
        if entry.parent != self.history {
            return Err("it goes on with another history".to_owned());
        }
        self.history = Hash::of_bytes(payload);
        self.take(entry.at, entry.turn, entry.set);
        Ok(())
    }

    fn take(&mut self, at: Timestamp, turn: SessionTurn, set: BTreeMap<String, Value>) {
        self.updated_at = at;
        fold_turn(&mut self.session, &mut self.silent, turn, set);
    }

    /// Whether the turn of that key is stored.
    pub(crate) fn has(&self, key: &str) -> bool {
        has_turn(&self.session, &self.silent, key)
    }

    /// The bytes that add a turn, and what to call [`Stored::commit`] with once they are durable.
    pub(crate) fn encode(
        &self,
        at: Timestamp,
        turn: &SessionTurn,
        set: &BTreeMap<String, Value>,
    ) -> Result<(Vec<u8>, ChainEnd, Hash), String> {
        let entry = EntryRef { at, parent: self.history, turn, set };
        let payload = serde_json::to_vec(&entry).map_err(|error| error.to_string())?;
        let head = Head { name: self.session.name.clone() };
        let (bytes, end) = chain::extend(KIND, &head, self.end, &payload)?;
        Ok((bytes, end, Hash::of_bytes(&payload)))
    }

    /// Takes up a turn that is durable.
    pub(crate) fn commit(
        &mut self,
        at: Timestamp,
        turn: SessionTurn,
        set: BTreeMap<String, Value>,
        (end, history): (ChainEnd, Hash),
    ) {
        self.end = Some(end);
        self.history = history;
        self.take(at, turn, set);
    }
}

/// What the first record has as its parent.
fn root(name: &str) -> Hash {
    Hash::of_bytes(name.as_bytes())
}

/// The name in a session's file, if its first line can be read.
pub(crate) fn name_in(path: &Path, bytes: &[u8]) -> Option<String> {
    let first = bytes.split(|byte| *byte == b'\n').next()?;
    let (head, _) = crate::line::decode_first::<Head>(KIND, first).ok()?;
    // Whatever else is wrong with the file, it should be where its name says.
    (path.file_stem()?.to_str()? == root(&head.name).to_string()).then_some(head.name)
}

/// The name of a session's file: its own may be anything.
pub(crate) fn file_name(name: &str) -> String {
    format!("{}.log", root(name))
}

/// Adds a turn to a session. One without messages only sets variables, and is no turn.
pub(crate) fn fold_turn(
    session: &mut Session,
    silent: &mut Vec<String>,
    turn: SessionTurn,
    set: BTreeMap<String, Value>,
) {
    session.variables.extend(set);
    if turn.messages.is_empty() {
        silent.push(turn.key);
    } else {
        session.turns.push(turn);
    }
}

/// Refuses a turn that could not be read back.
pub(crate) fn check(name: &str, turn: &SessionTurn, set: &BTreeMap<String, Value>) -> Result<(), StepError> {
    let said =
        turn.messages.iter().flat_map(|message| &message.content).filter_map(|content| match content {
            Content::ToolCall(call) => Some(&call.arguments),
            Content::Opaque { block, .. } => Some(block),
            Content::Text { .. } | Content::Media { .. } | Content::ToolResult { .. } => None,
        });
    if said.chain(set.values()).all(|value| blob::is_within(value, MAX_VALUE_DEPTH)) {
        return Ok(());
    }
    let message =
        format!("a turn of session `{name}` has a value that is nested deeper than {MAX_VALUE_DEPTH} levels");
    Err(StepError::invalid(message).help("say or set less of it"))
}

/// Whether the turn of that key is in a session.
pub(crate) fn has_turn(session: &Session, silent: &[String], key: &str) -> bool {
    session.turns.iter().any(|turn| turn.key == key) || silent.iter().any(|other| other == key)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn a_session_under_the_name_of_another_is_refused() {
        let turn = pipeline_core::conformance::session::turn("r/a/1");
        let (at, set) = (Timestamp(1), BTreeMap::from([("n".to_owned(), Value::from(1))]));
        let entry = EntryRef { at, parent: root("mine"), turn: &turn, set: &set };
        let payload = serde_json::to_vec(&entry).unwrap();
        let read = |head: &str| {
            let head = Head { name: head.to_owned() };
            let (bytes, _) = chain::extend(KIND, &head, None, &payload).unwrap();
            Stored::read("mine", Path::new("s.log"), &bytes).map(|stored| stored.has("r/a/1"))
        };
        assert!(read("mine").unwrap());
        assert!(matches!(read("other"), Err(StoreError::Damaged { .. })));
    }
}
