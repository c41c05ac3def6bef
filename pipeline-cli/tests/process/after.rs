//! What can be done with a run after it: look, compare, fork, end, remove, report.

use super::support::Scratch;

const FILE: &str = "workflow:\n  name: w\n  steps:\n    - {name: a, type: test_echo, value: [1, 2]}\n    - name: fan\n      type: for_loop\n      data_source: steps.a\n      parallel: true\n      steps:\n        - {name: think, type: claude, prompt: 'Think of {{ loop.item }} <script>alert(1)</script>'}\n    - {name: b, type: claude, prompt: 'Say {{ steps.a }}'}\n    - {name: c, type: test_echo, value: '{{ steps.b.text }}!'}\n  outputs: {said: steps.c}\n";

fn ran() -> (Scratch, String) {
    let scratch = Scratch::new();
    scratch.write("w.yaml", FILE);
    let ended = scratch.run(&["run", "w.yaml", "--mock", "--json"]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let id = ended.json()["run_id"].as_str().unwrap().to_owned();
    (scratch, id)
}

#[test]
fn a_fork_takes_over_what_came_before_and_runs_the_rest_again() {
    let (scratch, id) = ran();
    let forked = scratch.run(&["runs", "fork", &id, "--set", "b=by hand", "--json"]);
    assert_eq!(forked.code, Some(0), "{}", forked.stderr);
    let document = forked.json();
    assert_eq!(document["outputs"]["said"], "by hand!");
    assert_ne!(document["run_id"], id.as_str());
    assert_eq!(document["steps"]["fan"]["reused"], true);
    assert_eq!(document["steps"]["c"]["reused"], false);
    let again = scratch.run(&["runs", "fork", &id, "--from", "b", "--json"]).json();
    assert_eq!(again["steps"]["b"]["reused"], false);
    assert_eq!(again["steps"]["a"]["reused"], true);
    // A fork can be forked and resumed like any other run.
    let fork = document["run_id"].as_str().unwrap();
    let second = scratch.run(&["runs", "fork", fork, "--from", "c", "--json"]).json();
    assert_eq!(second["outputs"]["said"], "by hand!");
    assert_eq!(scratch.run(&["runs", "diff", &id, fork]).code, Some(1));
    assert_eq!(scratch.run(&["runs", "diff", fork, second["run_id"].as_str().unwrap()]).code, Some(0));
}

#[test]
fn a_fork_that_makes_no_sense_is_refused_with_what_to_write() {
    let (scratch, id) = ran();
    let cases: [(&[&str], &str); 4] = [
        (&[], "nothing would be different"),
        (&["--from", "fann"], "did you mean `fan`?"),
        (&["--set", "fan=1"], "made of other steps"),
        (&["--set", "c=1", "--from", "b"], "runs again"),
    ];
    for (more, expected) in cases {
        let ended = scratch.run(&[&["runs", "fork", &id], more].concat());
        assert_eq!(ended.code, Some(2), "{more:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(expected), "{more:?}: {}", ended.stderr);
    }
}

#[test]
fn a_report_is_one_file_without_scripts_and_addresses_and_everything_is_escaped() {
    let (scratch, id) = ran();
    assert_eq!(scratch.run(&["report", &id[..12], "-o", "out/r.html"]).code, Some(0));
    let html = std::fs::read_to_string(scratch.path().join("out/r.html")).unwrap();
    for part in ["fan[0]/think", "Think of 1 &lt;script&gt;", "prefers-color-scheme", "said"] {
        assert!(html.contains(part), "{part}");
    }
    for part in ["<script", "http://", "https://", "src=", "@import", "url(h"] {
        assert!(!html.contains(part), "{part}");
    }
}

#[test]
fn a_run_that_rests_can_be_cancelled_and_only_then_removed() {
    let scratch = Scratch::new();
    scratch.write("w.yaml", FILE);
    let stopped = scratch.run(&[
        "run",
        "w.yaml",
        "--mock",
        "--set",
        "x=1",
        "--timeout",
        "1h",
        "--run-id",
        "one",
        "--max-cost-usd",
        "0",
    ]);
    assert_ne!(stopped.code, Some(0));
    let refused = scratch.run(&["runs", "rm", "one"]);
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    assert!(refused.stderr.contains("--force"), "{}", refused.stderr);
    assert_eq!(scratch.run(&["runs", "cancel", "one"]).code, Some(0));
    let list = scratch.run(&["runs", "list", "--status", "cancelled", "--json"]).json();
    assert_eq!(list["runs"][0]["status"], "cancelled");
    assert_eq!(scratch.run(&["runs", "cancel", "one"]).code, Some(2));
    assert_eq!(scratch.run(&["resume", "one"]).code, Some(1), "what was cancelled does not go on");
    assert_eq!(scratch.run(&["runs", "rm", "one"]).code, Some(0));
    assert_eq!(scratch.run(&["runs", "show", "one"]).code, Some(3));
}

/// Naive: nothing is ever removed, or the oldest are, also those that wait for a person.
#[test]
fn x09_old_runs_go_when_a_new_one_has_ended_and_what_can_go_on_stays() {
    let scratch = Scratch::new();
    scratch.write("w.yaml", "workflow:\n  name: w\n  steps: [{name: a, type: test_echo}]\n");
    scratch.write("p.yaml", "workflow:\n  name: p\n  steps: [{name: a, type: approval, message: well}]\n");
    let run = |file: &str, id: &str, keep: &str, days: &str| {
        let mut command = scratch.command(&["run", file, "--mock", "--run-id", id]);
        command.env("PIPELINE_KEEP_RUNS", keep).env("PIPELINE_KEEP_DAYS", days);
        super::support::finish(command.spawn().unwrap())
    };
    assert_eq!(run("p.yaml", "paused", "1", "0").code, Some(4));
    for id in ["one", "two", "three"] {
        assert_eq!(run("w.yaml", id, "all", "0").code, Some(0));
    }
    let recent = run("w.yaml", "four", "1", "30");
    assert!(!recent.stderr.contains("removed"), "{}", recent.stderr);
    let wrong = run("w.yaml", "five", "few", "0");
    assert!(wrong.code == Some(0) && wrong.stderr.contains("`few`, which is not"), "{}", wrong.stderr);
    let last = run("w.yaml", "six", "2", "0");
    assert!(last.stderr.contains("removed 4 old runs; the newest 2"), "{}", last.stderr);
    let left = scratch.run(&["runs", "list", "--json"]).json();
    let left: Vec<_> =
        left["runs"].as_array().unwrap().iter().map(|r| r["run_id"].as_str().unwrap()).collect();
    assert_eq!(left, ["six", "five", "paused"]);
}

#[test]
fn a_running_run_is_asked_to_stop_and_then_ended() {
    let scratch = Scratch::new();
    scratch.write("w.yaml", FILE);
    scratch.write("slow.yaml", "rules: [{delay_ms: 30000}]\n");
    let child = scratch.spawn(&["run", "w.yaml", "--mock-rules", "slow.yaml", "--run-id", "slow"]);
    while scratch.run(&["runs", "list", "--status", "running", "--json"]).json()["runs"]
        == serde_json::json!([])
    {}
    let cancelled = scratch.run(&["runs", "cancel", "slow"]);
    assert_eq!(cancelled.code, Some(0), "{}", cancelled.stderr);
    assert_eq!(super::support::finish(child).code, Some(143));
    assert_eq!(scratch.run(&["runs", "list", "--json"]).json()["runs"][0]["status"], "cancelled");
}

#[test]
fn a_torn_end_is_cut_off_and_told() {
    let (scratch, _) = ran();
    let journal = scratch.run_dir().join("journal.log");
    let mut bytes = std::fs::read(&journal).unwrap();
    bytes.truncate(bytes.len() - 3);
    std::fs::write(&journal, bytes).unwrap();
    let repaired = scratch.run(&["runs", "repair"]);
    assert_eq!(repaired.code, Some(0), "{}", repaired.stderr);
    assert!(repaired.stdout.contains("repaired: "), "{}", repaired.stdout);
    assert!(scratch.run(&["runs", "repair"]).stdout.contains("nothing had to be repaired"));
}

#[test]
fn logs_tell_of_one_step_and_what_is_below_it() {
    let (scratch, _) = ran();
    let all = scratch.run(&["runs", "logs"]).stdout;
    assert!(all.contains("fan[1]/think ok in ") && all.contains("the run ends: ok"), "{all}");
    let one = scratch.run(&["runs", "logs", "--step", "fan[1]"]).stdout;
    assert_eq!(one.lines().filter(|line| !line.starts_with("    ")).count(), 1, "{one}");
}

#[test]
fn verbose_show_has_figures_and_a_schema() {
    let (scratch, id) = ran();
    let document = scratch.run(&["runs", "show", &id, "-v", "--json"]).json();
    assert_eq!(document["figures"]["schema"], "pipeline.figures/1");
    let think =
        document["figures"]["steps"].as_array().unwrap().iter().find(|s| s["step"] == "fan[]/think").unwrap();
    assert_eq!((think["instances"].as_u64(), think["calls"].as_u64()), (Some(2), Some(2)));
}

#[test]
fn a_plan_tells_what_would_be_reused_and_runs_nothing() {
    let (scratch, id) = ran();
    scratch.write("edited.yaml", &FILE.replace("Say {{", "Tell {{"));
    let plan = scratch.run(&["plan", "edited.yaml", "--mock", "--against", &id, "--json"]).json();
    assert_eq!(plan["schema"], "pipeline.plan/1");
    let verdicts: Vec<_> =
        plan["steps"].as_array().unwrap().iter().filter_map(|s| s["against"]["verdict"].as_str()).collect();
    assert_eq!(verdicts, ["reuse", "reuse", "run", "run"]);
    assert!(plan["model_calls"]["unbounded"].as_str().unwrap().contains("`fan`"));
    assert_eq!(plan["cost_usd"]["at_most"], 0.0);
    assert!(plan["time_s"]["unbounded"].as_str().unwrap().contains("`fan`"));
    let before = scratch.run(&["runs", "list", "--json"]).stdout;
    let dry = scratch.run(&["run", "edited.yaml", "--mock", "--dry-run"]);
    assert!(dry.code == Some(0) && dry.stdout.contains("as often as its list is long"), "{}", dry.stdout);
    assert_eq!(scratch.run(&["runs", "list", "--json"]).stdout, before);
}

/// Naive: each wait has a deadline somewhere, and nobody can say how long all of them may take together.
#[test]
fn n15_a_plan_tells_the_longest_time_or_what_has_no_bound() {
    let scratch = Scratch::new();
    let longest = |steps: &str, more: &[&str]| {
        scratch.write("w.yaml", &format!("workflow:\n  name: w\n  steps:\n{steps}"));
        scratch.run(&[&["plan", "w.yaml", "--mock", "--json"], more].concat()).json()["time_s"].clone()
    };
    let step = "{name: a, type: test_echo, timeout: 10s";
    assert_eq!(longest(&format!("    - {step}}}\n"), &[])["at_most"], 10.0);
    // Three tries, and between them two waits of up to five minutes, for which a service may ask.
    assert_eq!(longest(&format!("    - {step}, retry: {{max_attempts: 3}}}}\n"), &[])["at_most"], 630.0);
    let list = |source: &str, more: &str| {
        format!("    - {{name: f, type: for_loop, data_source: {source}{more}, steps: [{step}}}]}}\n")
    };
    assert_eq!(longest(&list("[1, 2, 3]", ""), &[])["at_most"], 30.0);
    assert_eq!(longest(&list("range(9)", ", timeout: 25s"), &[])["at_most"], 25.0);
    assert!(longest(&list("range(9)", ""), &[])["unbounded"].as_str().unwrap().contains("`f`"));
    assert_eq!(longest(&list("range(9)", ""), &["--timeout", "1m"])["at_most"], 60.0);
    let endless = longest("    - {name: a, type: test_echo, timeout: none}\n", &[]);
    assert_eq!(endless["unbounded"], "`a` has no timeout");
}
