//! Nothing that an agent started outlives its call.

use std::time::Duration;

use futures_util::StreamExt;
use pipeline_core::provider::Provider;
use serde_json::json;

use super::support::{Fake, assistant, init, result};
use crate::support::asking;

/// Starts a tool as the CLI does, in a session of its own, and tells its pid.
const TOOL: &str = "setsid sh -c 'echo $$ >\"$FAKE_DIR/tool\"; exec sleep 300' </dev/null >/dev/null 2>&1 &
while [ ! -s \"$FAKE_DIR/tool\" ]; do sleep 0.01; done
echo $$ >\"$FAKE_DIR/cli\"
cat \"$FAKE_DIR/lines\"";

fn is_alive(pid: &str) -> bool {
    // A zombie that nobody has reaped yet does not run.
    std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).is_ok_and(|s| !s.contains(") Z "))
}

async fn gone(fake: &Fake) {
    for name in ["tool", "cli"] {
        let pid = fake.file(name);
        assert!(!pid.is_empty(), "the {name} had started");
        for _ in 0..500 {
            if !is_alive(&pid) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(!is_alive(&pid), "the {name} {pid} is alive");
    }
}

/// Naive: killing the process group. A tool in a session of its own goes on.
#[tokio::test]
async fn n03_a_call_that_is_dropped_leaves_no_process() {
    let fake = Fake::new(&format!("{TOOL}; sleep 300"), &[init()]);
    let cx = fake.context();
    let mut stream = fake.provider().start(&asking("hi"), &cx).await.unwrap();
    let next = tokio::time::timeout(Duration::from_secs(20), async {
        while fake.file("cli").is_empty() {
            tokio::select! {
                event = stream.next() => panic!("{event:?}"),
                () = tokio::time::sleep(Duration::from_millis(5)) => {}
            }
        }
    });
    next.await.unwrap();
    assert!(is_alive(&fake.file("tool")));
    drop(stream);
    gone(&fake).await;
}

/// Naive: the CLI is killed and its tools, in sessions of their own, go on.
#[tokio::test]
async fn n03_a_call_that_times_out_is_cancelled_or_ends_leaves_no_process() {
    let lines = [init(), assistant("ok"), result("ok", json!({}))];
    for (script, how) in
        [("sleep 300", "deadline"), ("sleep 300", "cancel"), ("exit 0", "end"), ("exit 9", "crash")]
    {
        let fake = Fake::new(&format!("{TOOL}; {script}"), &lines);
        let mut cx = fake.context();
        let begun = tokio::time::Instant::now();
        if how == "deadline" {
            cx.deadline = begun + Duration::from_secs(1);
        }
        let cancel = async {
            while fake.file("cli").is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            if how == "cancel" {
                cx.cancel.cancel();
            }
        };
        let provider = fake.provider();
        let request = asking("hi");
        let (outcome, ()) = tokio::join!(provider.complete(&request, &cx), cancel);
        let told = match outcome {
            Ok(answer) => answer.text,
            Err(error) => error.kind.name().to_owned(),
        };
        let expected = match how {
            "deadline" => "timed_out",
            "cancel" => "cancelled",
            "crash" => "truncated",
            _ => "ok",
        };
        assert_eq!(told, expected, "{how}");
        gone(&fake).await;
    }
}

/// What a killed process of ours left is found when its attempt runs again.
/// Naive: after a crash the old agent and the new one work on the same files.
#[tokio::test]
async fn n08a_the_next_attempt_kills_what_the_cut_one_left() {
    let lines = [init(), assistant("ok"), result("ok", json!({}))];
    let fake = Fake::new(&format!("{TOOL}; sleep 300"), &lines);
    let first = fake.attempt("leftovers", 1);
    let stream = fake.provider().start(&asking("hi"), &first).await.unwrap();
    while fake.file("cli").is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // As after kill -9 of this process: nobody drops the stream.
    std::mem::forget(stream);
    assert!(is_alive(&fake.file("tool")) && is_alive(&fake.file("cli")));
    std::fs::write(fake.dir.path().join("script"), "cat \"$FAKE_DIR/lines\"").unwrap();
    let answer = fake.provider().complete(&asking("hi"), &fake.attempt("leftovers", 2)).await.unwrap();
    assert_eq!(answer.text, "ok");
    gone(&fake).await;
}

/// Naive: to look at the attempt's number only, which the journal may not know.
#[tokio::test]
async fn n08a_what_a_dead_owner_left_is_killed_and_what_a_living_one_does_is_not() {
    let lines = [init(), assistant("ok"), result("ok", json!({}))];
    let fake = Fake::new("cat >/dev/null; cat \"$FAKE_DIR/lines\"", &lines);
    let cx = fake.attempt("orphans", 1);
    let step = format!("{}/{}/1", cx.run.dirs.run.display(), cx.key.path);
    // No process has the largest number that a pid can be.
    let start = |owner: &str| {
        let mut command = std::process::Command::new("sleep");
        command.arg("300").env("PIPELINE_AGENT_STEP", &step).env("PIPELINE_AGENT_CALL", owner);
        command.spawn().unwrap()
    };
    let mut orphan = start(&format!("{}.0", i32::MAX));
    let mut sibling = start(&format!("{}.77", std::process::id()));
    fake.provider().complete(&asking("hi"), &cx).await.unwrap();
    assert!(!is_alive(&orphan.id().to_string()));
    assert!(is_alive(&sibling.id().to_string()));
    sibling.kill().unwrap();
    sibling.wait().unwrap();
    orphan.wait().unwrap();
}
