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

/// Naive: to look at the attempt's number only, which the journal may not know; or at the owner's number only, which another
/// process may have by now.
#[tokio::test]
async fn n08a_what_a_dead_owner_left_is_killed_and_what_a_living_one_does_is_not() {
    let lines = [init(), assistant("ok"), result("ok", json!({}))];
    let fake = Fake::new("cat >/dev/null; cat \"$FAKE_DIR/lines\"", &lines);
    let cx = fake.attempt("orphans", 1);
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let began = stat.rsplit_once(')').unwrap().1.split_whitespace().nth(19).unwrap();
    // No process has the largest number that a pid can be.
    let start = |owner: &str| {
        let mut command = std::process::Command::new("sleep");
        command.arg("300").env("PIPELINE_ATTEMPT", cx.family()).env("PIPELINE_CHILD", owner);
        command.spawn().unwrap()
    };
    let own = std::process::id();
    let mut orphan = start(&format!("{}.{began}.0", i32::MAX));
    let mut older = start(&format!("{own}.1.0"));
    let mut sibling = start(&format!("{own}.{began}.77"));
    fake.provider().complete(&asking("hi"), &cx).await.unwrap();
    assert!(!is_alive(&orphan.id().to_string()));
    assert!(!is_alive(&older.id().to_string()), "its owner had our number, and is gone");
    assert!(is_alive(&sibling.id().to_string()));
    sibling.kill().unwrap();
    sibling.wait().unwrap();
    orphan.wait().unwrap();
    older.wait().unwrap();
}
