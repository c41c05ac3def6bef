//! Conversations that outlive a step.
//!
//! Owns the names that sessions have in the store, the lease that a step holds for its turn, and what of a history is sent.
//! One step at a time has a session: whoever else wants it waits. Must not know how models are called.

use std::collections::BTreeMap;
use std::time::Duration;

use pipeline_core::error::{ErrorKind, StepError};
use pipeline_core::fact::Usage;
use pipeline_core::provider::{Capabilities, Content, Message, Role};
use pipeline_core::step::StepContext;
use pipeline_core::store::{Session, SessionLease, SessionStore, SessionTurn};
use serde_json::json;

use crate::prompt::config::{Memory, SessionConfig};
use crate::prompt::extraction;

/// Tokens of history that are kept when it is compacted, and that may be sent at all.
const COMPACT: u64 = 100_000;
const CONTEXT: u64 = 150_000;

/// Characters that are left of a turn that is left out.
const DIGEST: usize = 160;

/// How often, and how many times, a replay looks for the turns that the recorded step saw.
const LOOK: Duration = Duration::from_millis(10);
const LOOKS: u32 = 200;

/// A session that is taken for one turn.
pub(super) struct Turn {
    lease: Box<dyn SessionLease>,
    /// As the user wrote it.
    name: String,
    /// The turns before this one, as far as they count.
    before: Vec<SessionTurn>,
}

/// How a request goes on with a conversation.
#[derive(Debug, Default, PartialEq)]
pub(super) struct History {
    /// The provider's own session: it knows what was said.
    pub session: Option<String>,
    /// What was said, turn by turn, for a provider that is told again.
    pub messages: Vec<Message>,
    /// What is left of turns that are left out, when nothing else is sent of the history.
    pub told: Option<String>,
}

fn store(cx: &StepContext) -> Result<&dyn SessionStore, StepError> {
    cx.services.sessions.as_deref().ok_or_else(|| {
        StepError::new(ErrorKind::Environment, "there is no place where sessions are kept")
            .help("run it with the program `pipeline`, which keeps them in its state directory")
    })
}

/// The name of a session of this run only.
fn of_run(cx: &StepContext, name: &str) -> String {
    format!("runs/{}/{name}", cx.run.id)
}

/// The name of a session that other runs find. What mocks say never gets among what models said.
fn of_all(cx: &StepContext, name: &str) -> String {
    if cx.run.mock { format!("mock/{name}") } else { name.to_owned() }
}

fn check_name(name: &str) -> Result<(), StepError> {
    if name.trim().is_empty() {
        return Err(StepError::invalid("the name of a session is empty"));
    }
    if ["runs/", "mock/", "variables/"].iter().any(|p| name.starts_with(p)) {
        return Err(StepError::invalid(format!("`{name}` cannot be the name of a session"))
            .help("names that begin with `runs/`, `mock/` and `variables/` are the program's own"));
    }
    Ok(())
}

impl Turn {
    /// Takes the session that a step names.
    ///
    /// # Errors
    /// `Budget` when its turns are used up, `Invalid` for a name that cannot be one, `Environment` from the store.
    pub async fn begin(cx: &StepContext, config: &SessionConfig) -> Result<Self, StepError> {
        let name = &config.name.0;
        check_name(name)?;
        let stored = if config.persist { of_all(cx, name) } else { of_run(cx, name) };
        let this_run_only = config.persist && !config.continue_on_restart;
        let turn = Self::take(cx, &stored, name, this_run_only).await?;
        if let Some(most) = config.max_turns
            && turn.before.len() as u64 >= most
        {
            let message = format!("the session `{name}` has had its {most} turns");
            return Err(StepError::new(ErrorKind::Budget, message)
                .help("raise its `max_turns`, or begin a session with another name")
                .details(json!({ "session": name, "turns": turn.before.len(), "max_turns": most })));
        }
        Ok(turn)
    }

    /// Takes the session that a `claude_continue` part means: by name, or by the provider's id of it. `None` when no
    /// stored session is meant.
    ///
    /// # Errors
    /// `Environment` from the store.
    pub async fn resume(cx: &StepContext, name: &str) -> Result<Option<Self>, StepError> {
        if cx.services.sessions.is_none() {
            return Ok(None);
        }
        match find(cx, name).await? {
            Some(stored) => Self::take(cx, &stored, name, false).await.map(Some),
            None => Ok(None),
        }
    }

    async fn take(
        cx: &StepContext,
        stored: &str,
        name: &str,
        this_run_only: bool,
    ) -> Result<Self, StepError> {
        cx.progress.note(&format!("session {name}"));
        let mut lease = store(cx)?.lease(stored).await?;
        let own = cx.idempotency_key();
        // Recorded, so that an attempt that comes back after a crash sees what it saw: not its own turn, nor later ones.
        let seen = lease.session().turns.iter().take_while(|t| t.key != own).count();
        let request = json!({ "session": name });
        let seen = cx.effect("session", &request, async { Ok(json!({ "turns": seen })) }).await?;
        let seen = seen.json()["turns"].as_u64().and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
        for _ in 0..LOOKS {
            if lease.session().turns.len() >= seen {
                break;
            }
            // In a replay another step was to come first.
            drop(lease);
            tokio::time::sleep(LOOK).await;
            lease = store(cx)?.lease(stored).await?;
        }
        let turns = &lease.session().turns;
        let of_this_run = format!("{}/", cx.run.id);
        let counts = |t: &&SessionTurn| !this_run_only || t.key.starts_with(&of_this_run);
        let before = turns.iter().take(seen).filter(counts).cloned().collect();
        Ok(Self { lease, name: name.to_owned(), before })
    }

    /// What a request to `provider` carries of the turns before.
    pub fn history(&self, provider: &str, able: &Capabilities, memory: &Memory) -> History {
        let (dropped, kept) = self.compacted(memory);
        let last = self.before.last().filter(|t| t.provider == provider);
        if let Some(session) = last.and_then(|t| t.provider_session.clone()).filter(|_| able.sessions)
            && dropped.is_none()
        {
            return History { session: Some(session), ..History::default() };
        }
        let mut messages: Vec<Message> = kept.iter().flat_map(|t| t.messages.clone()).collect();
        for message in &mut messages {
            let is_foreign =
                |c: &Content| matches!(c, Content::Opaque { provider: by, .. } if by != provider);
            message.content.retain(|c| !is_foreign(c));
        }
        match (dropped, messages.first_mut()) {
            // Turns alternate: what is left of the others stands before the first question that is kept.
            (Some(digest), Some(first)) => first.content.insert(0, Content::Text { text: digest }),
            (Some(digest), None) => return History { told: Some(digest), ..History::default() },
            (None, _) => {}
        }
        History { messages, ..History::default() }
    }

    /// What is left of the turns that are left out, and the turns that are sent.
    fn compacted(&self, memory: &Memory) -> (Option<String>, &[SessionTurn]) {
        let sizes: Vec<u64> = self.before.iter().map(|t| tokens(&t.messages)).collect();
        let most = memory.compact_threshold.unwrap_or(COMPACT);
        let mut total: u64 = sizes.iter().sum();
        let mut first = 0;
        while memory.auto_compact && total > most && first < sizes.len() {
            total -= sizes[first];
            first += 1;
        }
        if first == 0 {
            return (None, &self.before);
        }
        let mut lines = vec![format!("Shortened, the first {first} turns of the conversation:")];
        for message in self.before.iter().take(first).flat_map(|t| &t.messages) {
            let text = extraction::summary_of(&message.text(), DIGEST);
            if !text.is_empty() {
                lines.push(format!("- {}: {text}", who(message.role)));
            }
        }
        (Some(lines.join("\n")), self.before.get(first..).unwrap_or_default())
    }

    /// Adds this turn, once, and gives the session back.
    ///
    /// # Errors
    /// `Environment` when it cannot be written.
    pub async fn end(
        mut self,
        cx: &StepContext,
        said: Vec<Message>,
        by: Answered<'_>,
    ) -> Result<(), StepError> {
        let turn = SessionTurn {
            key: cx.idempotency_key(),
            messages: said,
            provider: by.provider.to_owned(),
            provider_session: by.session,
            usage: by.usage,
        };
        let number = self.before.len() + 1;
        let request = json!({ "session": self.name, "turn": number });
        let mut turn = Some(turn);
        let add = async {
            if let Some(turn) = turn.take() {
                self.lease.append(turn, BTreeMap::new()).await?;
            }
            Ok(json!({ "turn": number }))
        };
        cx.effect("session turn", &request, add).await?;
        match turn {
            // A tape has answered: the next turn must find this one all the same.
            Some(turn) => self.lease.append(turn, BTreeMap::new()).await,
            None => Ok(()),
        }
    }
}

/// Who answered a turn.
pub(super) struct Answered<'a> {
    pub provider: &'a str,
    pub session: Option<String>,
    pub usage: Usage,
}

/// An error when more would be sent than the memory allows.
///
/// # Errors
/// `TooLarge`.
pub(super) fn check_length(memory: &Memory, messages: &[Message]) -> Result<(), StepError> {
    let most = memory.max_context_length.or(memory.auto_compact.then_some(CONTEXT));
    let sent = tokens(messages);
    match most.filter(|most| sent > *most) {
        None => Ok(()),
        Some(most) => Err(StepError::new(
            ErrorKind::TooLarge,
            format!("the prompt has about {sent} tokens, and `max_context_length` is {most}"),
        )
        .help("send less: fewer files, `max_length` on parts, or a session with `auto_compact`")),
    }
}

fn tokens(messages: &[Message]) -> u64 {
    messages.iter().map(|m| (m.text().chars().count() as u64).div_ceil(4)).sum()
}

fn who(role: Role) -> &'static str {
    match role {
        Role::User => "User",
        Role::Assistant => "Assistant",
    }
}

fn told(messages: &[Message]) -> String {
    let lines = messages.iter().map(|m| (who(m.role), m.text())).filter(|(_, text)| !text.trim().is_empty());
    lines.map(|(who, text)| format!("{who}: {text}")).collect::<Vec<_>>().join("\n\n")
}

/// What was said in a session, its last `last` turns; `None` when there is nothing.
///
/// # Errors
/// `Environment` from the store.
pub(super) async fn transcript(
    cx: &StepContext,
    name: &str,
    last: Option<u64>,
) -> Result<Option<String>, StepError> {
    let request = json!({ "session": name, "last": last });
    let read = async {
        let found = match find(cx, name).await? {
            Some(stored) => store(cx)?.read(&stored).await?,
            None => None,
        };
        let turns = found.map(|s| s.turns).unwrap_or_default();
        let first = last.map_or(0, |n| turns.len().saturating_sub(usize::try_from(n).unwrap_or(usize::MAX)));
        let messages: Vec<Message> = turns.into_iter().skip(first).flat_map(|t| t.messages).collect();
        Ok(json!({ "text": (!messages.is_empty()).then(|| told(&messages)) }))
    };
    let recorded = cx.effect("session context", &request, read).await?;
    Ok(recorded.json()["text"].as_str().map(str::to_owned))
}

/// The stored name of the session that `name` means: one of this run, one of all runs, or one whose last turn has this id
/// at its provider.
async fn find(cx: &StepContext, name: &str) -> Result<Option<String>, StepError> {
    let store = store(cx)?;
    check_name(name)?;
    for stored in [of_run(cx, name), of_all(cx, name)] {
        if store.read(&stored).await?.is_some_and(|s| !s.turns.is_empty()) {
            return Ok(Some(stored));
        }
    }
    let own = of_run(cx, "");
    let is_ours =
        |n: &str| n.starts_with(&own) || !n.starts_with("runs/") && n.starts_with("mock/") == cx.run.mock;
    for summary in store.list().await?.into_iter().filter(|s| is_ours(&s.name) && s.damage.is_none()) {
        let session: Option<Session> = store.read(&summary.name).await?;
        let last = session.and_then(|s| s.turns.into_iter().next_back());
        if last.is_some_and(|t| t.provider_session.as_deref() == Some(name)) {
            return Ok(Some(summary.name));
        }
    }
    Ok(None)
}
