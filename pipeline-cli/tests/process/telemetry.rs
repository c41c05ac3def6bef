//! What a collector of OpenTelemetry receives, and that a bad one changes nothing; and logs.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;

use super::support::{Ended, Scratch, finish};

const FILE: &str = "workflow:
  name: w
  steps:
    - {name: a, type: test_echo, value: [1, 2]}
    - name: fan
      type: for_loop
      data_source: steps.a
      parallel: true
      steps: [{name: think, type: gemini, prompt: 'Think of {{ loop.item }}, and it is secret'}]
    - {name: shaky, type: test_echo, fail: true, continue_on_error: true}
";

/// How a collector behaves.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
    Fine,
    Silent,
    Dying,
    Refusing,
}

/// A collector on this machine.
struct Collector {
    address: SocketAddr,
    bodies: Arc<Mutex<Vec<(String, Value)>>>,
    connections: Arc<Mutex<usize>>,
}

impl Collector {
    fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (bodies, connections) = (Arc::default(), Arc::default());
        let collector = Self { address, bodies: Arc::clone(&bodies), connections: Arc::clone(&connections) };
        #[expect(clippy::disallowed_methods, reason = "a server of the test")]
        let _server = std::thread::spawn(move || {
            let mut held = Vec::new();
            for stream in listener.incoming().map_while(Result::ok) {
                *connections.lock().unwrap() += 1;
                match manner {
                    Manner::Silent => held.push(stream),
                    Manner::Dying => drop(stream),
                    Manner::Refusing => answer(stream, "503 Service Unavailable", &bodies),
                    Manner::Fine => answer(stream, "200 OK", &bodies),
                }
            }
        });
        collector
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn of(&self, path: &str) -> Vec<Value> {
        let bodies = self.bodies.lock().unwrap();
        bodies.iter().filter(|(at, _)| at == path).map(|(_, body)| body.clone()).collect()
    }
}

/// Reads requests of one connection, and answers each.
fn answer(mut stream: TcpStream, status: &str, bodies: &Mutex<Vec<(String, Value)>>) {
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut bytes = Vec::new();
    let mut piece = vec![0; 65_536];
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let head = head.to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
            let length: usize = length.trim().parse().unwrap();
            if body.len() >= length {
                let path = head.split(' ').nth(1).unwrap().to_owned();
                bodies.lock().unwrap().push((path, serde_json::from_str(&body[..length]).unwrap()));
                bytes.clear();
                let reply = format!(
                    "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{{}}"
                );
                if stream.write_all(reply.as_bytes()).is_err() {
                    return;
                }
                continue;
            }
        }
        match stream.read(&mut piece) {
            Ok(0) | Err(_) => return,
            Ok(count) => bytes.extend_from_slice(&piece[..count]),
        }
    }
}

fn run(scratch: &Scratch, variables: &[(&str, &str)], arguments: &[&str]) -> Ended {
    let mut command = scratch.command(arguments);
    command.envs(variables.iter().copied());
    finish(command.spawn().unwrap())
}

fn attribute<'a>(span: &'a Value, name: &str) -> Option<&'a str> {
    let all = span["attributes"].as_array()?;
    let value = &all.iter().find(|a| a["key"] == name)?["value"];
    value["stringValue"].as_str().or(value["intValue"].as_str())
}

fn spans(collector: &Collector) -> Vec<Value> {
    let bodies = collector.of("/v1/traces");
    bodies
        .iter()
        .flat_map(|b| b["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap().clone())
        .collect()
}

/// Naive: spans are made by whoever remembers to, and an attempt that fails or is cut off has none.
#[test]
fn n23_a_collector_receives_every_attempt_and_model_call_below_what_it_is_part_of() {
    let scratch = Scratch::new();
    scratch.write("w.yaml", FILE);
    let collector = Collector::start(Manner::Fine);
    let variables =
        [("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url()), ("OTEL_SERVICE_NAME", "mine".to_owned())];
    let variables = variables.each_ref().map(|(name, value)| (*name, value.as_str()));
    let ended = run(&scratch, &variables, &["run", "w.yaml", "--mock", "--run-id", "one"]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(!ended.stderr.contains("warning"), "{}", ended.stderr);

    let all = spans(&collector);
    let by_id: BTreeMap<&str, &Value> = all.iter().map(|s| (s["spanId"].as_str().unwrap(), s)).collect();
    assert_eq!(by_id.len(), all.len(), "every span has an id of its own");
    // From a span up to the root, by name.
    let line = |span: &Value| {
        let mut names = vec![span["name"].as_str().unwrap().to_owned()];
        let mut at = span;
        while let Some(parent) = at["parentSpanId"].as_str() {
            at = by_id[parent];
            names.push(at["name"].as_str().unwrap().to_owned());
        }
        names.join(" < ")
    };
    let mut lines: Vec<String> = all.iter().map(line).collect();
    lines.sort();
    let model = all.iter().find(|s| s["kind"] == 3).map(|s| s["name"].as_str().unwrap()).unwrap();
    let mut expected = vec![
        "run w".to_owned(),
        "a < run w".to_owned(),
        "fan < run w".to_owned(),
        "fan[0] < fan < run w".to_owned(),
        "fan[1] < fan < run w".to_owned(),
        "think < fan[0] < fan < run w".to_owned(),
        "think < fan[1] < fan < run w".to_owned(),
        format!("{model} < think < fan[0] < fan < run w"),
        format!("{model} < think < fan[1] < fan < run w"),
        "shaky < run w".to_owned(),
    ];
    expected.sort();
    assert_eq!(lines, expected);
    for span in &all {
        let time = |name: &str| span[name].as_str().unwrap().parse::<u64>().unwrap();
        assert!(time("startTimeUnixNano") <= time("endTimeUnixNano"), "{span}");
        assert_eq!(span["traceId"].as_str().unwrap().len(), 32);
        if let Some(parent) = span["parentSpanId"].as_str() {
            assert!(
                by_id[parent]["startTimeUnixNano"].as_str().unwrap().parse::<u64>().unwrap()
                    <= time("startTimeUnixNano")
            );
        }
    }
    let call = all.iter().find(|s| s["kind"] == 3).unwrap();
    assert_eq!(attribute(call, "gen_ai.operation.name"), Some("chat"));
    assert_eq!(attribute(call, "gen_ai.provider.name"), Some("gcp.gemini"));
    assert!(attribute(call, "gen_ai.usage.output_tokens").unwrap().parse::<u64>().unwrap() > 0);
    let failed: Vec<_> = all.iter().filter(|s| s["status"]["code"] == 2).collect();
    assert_eq!(failed.len(), 1, "the attempt that failed");
    let body = collector.of("/v1/traces")[0].to_string();
    assert!(!body.contains("secret"), "no prompt leaves the machine");
    assert!(body.contains("schemas/1.37.0") && body.contains("\"mine\""), "{body}");

    let metrics = &collector.of("/v1/metrics")[0]["resourceMetrics"][0]["scopeMetrics"][0]["metrics"];
    let names: Vec<_> = metrics.as_array().unwrap().iter().map(|m| m["name"].as_str().unwrap()).collect();
    assert_eq!(
        names,
        ["gen_ai.client.token.usage", "gen_ai.client.operation.duration", "pipeline.step.duration"]
    );
    let points = metrics[1]["histogram"]["dataPoints"].as_array().unwrap();
    assert_eq!(points[0]["count"], "2", "both calls are one series: {points:?}");
}

/// Naive: the exporter waits for its collector, or fails with it.
#[test]
fn n01_a_collector_that_hangs_refuses_or_dies_costs_a_warning_and_nothing_else() {
    let scratch = Scratch::new();
    scratch.write("w.yaml", FILE);
    let document = |ended: &Ended| {
        let mut document = ended.json();
        for field in ["run_id", "started_at", "duration_ms"] {
            document.as_object_mut().unwrap().remove(field);
        }
        for (_, step) in document["steps"].as_object_mut().unwrap() {
            step.as_object_mut().unwrap().remove("duration_ms");
        }
        document
    };
    let plain = run(&scratch, &[], &["run", "w.yaml", "--mock", "--json"]);
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let collectors = [Manner::Silent, Manner::Dying, Manner::Refusing].map(Collector::start);
    let urls =
        collectors.iter().map(Collector::url).chain([format!("http://{nobody}"), "gopher://x".to_owned()]);
    for url in urls {
        let variables =
            [("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str()), ("OTEL_EXPORTER_OTLP_TIMEOUT", "200")];
        let ended = run(&scratch, &variables, &["run", "w.yaml", "--mock", "--json"]);
        assert_eq!(ended.code, Some(0), "{url}: {}", ended.stderr);
        assert_eq!(document(&ended), document(&plain), "{url}");
        assert!(ended.stderr.contains("telemetry"), "{url}: {}", ended.stderr);
    }
}

#[test]
fn without_an_endpoint_nobody_is_called() {
    let scratch = Scratch::new();
    scratch.write("w.yaml", FILE);
    let collector = Collector::start(Manner::Fine);
    let url = collector.url();
    let others = [
        ("OTEL_SERVICE_NAME", "mine"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "k=v"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", url.as_str()),
    ];
    let disabled = [("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str()), ("OTEL_SDK_DISABLED", "true")];
    for variables in [&others[..], &disabled[..]] {
        let ended = run(&scratch, variables, &["run", "w.yaml", "--mock"]);
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    }
    assert_eq!(*collector.connections.lock().unwrap(), 0);
}

#[test]
fn logs_are_off_until_asked_for_and_carry_run_step_and_attempt() {
    let scratch = Scratch::new();
    scratch.write("w.yaml", FILE);
    let args = ["run", "w.yaml", "--mock", "-q", "--run-id"];
    let quiet = run(&scratch, &[], &[&args[..], &["none"]].concat());
    assert_eq!(quiet.stderr, "");
    let told = run(&scratch, &[], &[&args[..], &["told", "--log", "debug"]].concat());
    assert_eq!(told.stdout, quiet.stdout, "standard output is the result's");
    let lines: Vec<&str> = told.stderr.lines().filter(|l| l.contains("fan[1]/think")).collect();
    assert!(lines.iter().any(|l| l.contains("run=\"told\"") && l.contains("attempt=1")), "{}", told.stderr);
    assert!(told.stderr.contains("WARN") && told.stderr.contains("step=shaky attempt=1"), "{}", told.stderr);
    assert!(!told.stderr.contains("secret"), "{}", told.stderr);
    let filed = run(
        &scratch,
        &[("PIPELINE_LOG_LEVEL", "warn")],
        &[&args[..], &["filed", "--log-file", "l.txt"]].concat(),
    );
    assert_eq!(filed.stderr, "");
    let file = std::fs::read_to_string(scratch.path().join("l.txt")).unwrap();
    assert!(file.lines().count() == 1 && file.contains("shaky"), "{file}");
    let wrong = run(&scratch, &[], &["run", "w.yaml", "--mock", "--log", "loud"]);
    assert!(wrong.code == Some(2) && wrong.stderr.contains("`loud`"), "{}", wrong.stderr);
}

/// Naive: an exporter that has given up, or an observer that has died, is known to nobody but the log of that day.
#[test]
fn n17_the_health_of_a_runs_services_is_kept_with_it_and_told_by_show_and_doctor() {
    let scratch = Scratch::new();
    scratch.write("w.yaml", FILE);
    let of = |run: &str| {
        let document = scratch.run(&["runs", "show", run, "--json"]).json();
        let services = document["services"].as_array().cloned().unwrap_or_default();
        let words =
            |s: &Value| format!("{} {}", s["service"].as_str().unwrap(), s["state"].as_str().unwrap());
        services.iter().map(words).collect::<Vec<_>>()
    };
    let collector = Collector::start(Manner::Refusing);
    let bad = [("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url())];
    let bad = bad.each_ref().map(|(name, value)| (*name, value.as_str()));
    assert_eq!(run(&scratch, &bad, &["run", "w.yaml", "--mock", "--run-id", "one"]).code, Some(0));
    assert_eq!(of("one"), ["figures up", "telemetry down", "progress up"]);
    let shown = scratch.run(&["runs", "show", "one"]).stdout;
    assert!(shown.contains("services: figures ok, telemetry DOWN ("), "{shown}");
    let doctor = scratch.run(&["doctor"]).stdout;
    let line = doctor.lines().find(|line| line.contains("services: of run one")).expect("it is told");
    assert!(line.starts_with("absent") && line.contains("telemetry DOWN"), "{line}");

    assert_eq!(run(&scratch, &[], &["run", "w.yaml", "--mock", "--run-id", "two"]).code, Some(0));
    assert_eq!(of("two"), ["figures up", "progress up"]);
    assert!(
        scratch.run(&["doctor"]).stdout.contains("ok       services: of run two: figures ok, progress ok")
    );
    // What a killed process would have told is not made up.
    std::fs::remove_file(scratch.run_dir().join("services.json")).unwrap();
    assert_eq!(of("two"), Vec::<String>::new());
}
