//! Configuration files: a backend, its prices and a cap that no pipeline file names.

use std::io::{BufRead, BufReader};

use super::support::{Scratch, finish};

#[test]
fn a_configuration_file_gives_a_backend_its_price_and_a_cap() {
    let server = Scratch::new();
    let mut mock = server.spawn(&["mock-server", "--quiet"]);
    let mut address = String::new();
    BufReader::new(mock.stdout.take().unwrap()).read_line(&mut address).unwrap();
    let scratch = Scratch::new();
    let configure = |cap: &str| {
        let text = format!(
            "max_cost_usd = {cap}\noutput_dir = 'made'\n[providers.house]\nkind = 'openai'\nbase_url = '{}/v1'\n[prices]\nas_of = '2026-11-01'\nmodels.tiny = {{input = 2.0, output = 8.0, max_output_tokens = 100}}\n",
            address.trim()
        );
        scratch.write("pipeline.toml", &text);
    };
    let step =
        "{name: ask, type: prompt, provider: house, model: tiny, prompt: hello, output_to_file: said.txt}";
    scratch.write("work/t.yaml", &format!("workflow:\n  name: t\n  steps:\n    - {step}\n"));
    let work = scratch.path().join("work");
    let run = |arguments: &[&str]| finish(scratch.command(arguments).current_dir(&work).spawn().unwrap());

    configure("0.5");
    let ended = run(&["run", "t.yaml", "--json"]);
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    assert!(ended.stderr.contains("using ") && ended.stderr.contains("pipeline.toml"), "{}", ended.stderr);
    let value = &ended.json()["steps"]["ask"]["value"];
    let usage = |name: &str| value["usage"][name].as_f64().unwrap();
    let cost = (usage("input") * 2.0 + usage("output") * 8.0) / 1e6;
    assert!((value["cost_usd"].as_f64().unwrap() - cost).abs() < 1e-12, "{value}");
    assert!(scratch.path().join("made/said.txt").is_file(), "relative to the configuration file");

    let doctor = run(&["doctor", "--json"]);
    for told in ["pipeline.toml", "1 of your own as of 2026-11-01", "openai at http://127.0.0.1:"] {
        assert!(doctor.stdout.contains(told), "{told}: {}", doctor.stdout);
    }

    configure("0.000001");
    assert_eq!(run(&["run", "t.yaml", "--json"]).code, Some(5), "the cap of the configuration");
    assert_eq!(run(&["run", "t.yaml", "--json", "--max-cost-usd", "1"]).code, Some(0), "a flag wins");
    scratch.write("pipeline.toml", "max_cost = 1\n");
    let wrong = run(&["check", "t.yaml"]);
    assert!(
        wrong.code == Some(2) && wrong.stderr.contains("pipeline.toml:1: unknown field"),
        "{}",
        wrong.stderr
    );
    mock.kill().unwrap();
    mock.wait().unwrap();
}
