//! Files that cannot run: every finding at once, with its place; exit 2; nothing ran. A new case adds a file, no Rust.

use std::path::Path;

use super::support::Scratch;

#[test]
fn every_broken_file_is_told_what_is_wrong_with_it() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/broken");
    let mut names: Vec<String> =
        std::fs::read_dir(&folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert!(names.len() >= 40, "{} cases", names.len());
    let scratch = Scratch::new();
    for name in &names {
        std::fs::copy(folder.join(name), scratch.path().join(name)).unwrap();
    }
    for name in &names {
        let checked = scratch.run(&["check", name]);
        assert_eq!(checked.code, Some(2), "{name}: {}{}", checked.stdout, checked.stderr);
        let ran = scratch.run(&["run", name, "--mock"]);
        assert_eq!(ran.code, Some(2), "{name}: {}{}", ran.stdout, ran.stderr);
        assert!(!scratch.path().join(".pipeline").exists(), "{name}: something ran");
        insta::assert_snapshot!(name.trim_end_matches(".yaml"), checked.stdout);
    }
}

/// Files that only a program writes: each is refused within its limit, and quickly.
#[test]
fn bombs_are_refused() {
    let scratch = Scratch::new();
    let large = format!("workflow:\n  name: t\n  steps: []\n# {}\n", "x".repeat(10 << 20));
    let scalar = format!("a: &a {}\nb: [{}]\n", "x".repeat(100_000), vec!["*a"; 20_000].join(", "));
    let laughs = (0..10).fold("a0: &a0 [x]\n".to_owned(), |text, n| {
        text + &format!("a{}: &a{} [{}]\n", n + 1, n + 1, vec![format!("*a{n}"); 9].join(", "))
    });
    let cases = [
        ("large.yaml", large),
        ("scalar.yaml", scalar),
        ("laughs.yaml", laughs),
        ("deep.yaml", "[".repeat(200_000)),
        (
            "steps.yaml",
            format!(
                "workflow:\n  name: t\n  steps:\n    - {{name: a, type: test_echo, value: '{{{{ {}1{} }}}}'}}\n",
                "(".repeat(5000),
                ")".repeat(5000)
            ),
        ),
    ];
    for (name, text) in cases {
        scratch.write(name, &text);
        let checked = scratch.run(&["check", name]);
        assert_eq!(checked.code, Some(2), "{name}: {}", checked.stderr);
        assert!(checked.stdout.contains("error[E0"), "{name}: {}", checked.stdout);
    }
}
