//! The step as a whole, over small trees.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;

use super::*;
use crate::fixture::Fixture;

async fn ask(cx: &StepContext, queries: Value) -> Result<StepOutput, StepError> {
    CodebaseQuery.run(cx, json!({ "queries": queries }).into()).await
}

/// The answer to one query.
async fn one(fx: &Fixture, query: Value) -> Value {
    ask(&fx.context(), json!({ "q": query })).await.unwrap().value["q"].take()
}

async fn files(fx: &Fixture, options: Value) -> Vec<String> {
    let found = one(fx, json!({ "find_files": options })).await;
    found["files"].as_array().unwrap().iter().map(|f| f["path"].as_str().unwrap().to_owned()).collect()
}

/// What a file depends on directly, of this codebase.
async fn uses(fx: &Fixture, file: &str) -> Vec<String> {
    let found = one(fx, json!({ "find_dependencies": { "for_file": file, "type": "internal" } })).await;
    found["direct"].as_array().unwrap().iter().map(|d| d["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn ignore_files_are_honoured() {
    let fx = Fixture::new();
    for file in
        ["a.rs", "b.log", "keep.log", "target/x.rs", "sub/c.rs", "sub/gen/d.rs", ".hidden/e.rs", "out.rs"]
    {
        fx.write(file, "x");
    }
    fx.write(".gitignore", "*.log\n!keep.log\n/target/\n");
    fx.write("sub/.gitignore", "gen\n");
    fx.write(".ignore", "out.rs\n");
    assert_eq!(files(&fx, json!({})).await, ["a.rs", "keep.log", "sub/c.rs"]);
    let cx = fx.context();
    let hidden = json!({ "include_hidden": true, "exclude_patterns": ["sub/**"], "queries": { "q": { "find_files": null } } });
    let found = CodebaseQuery.run(&cx, hidden.into()).await.unwrap().value;
    let found: Vec<_> =
        found["q"]["files"].as_array().unwrap().iter().map(|f| f["path"].as_str().unwrap()).collect();
    assert_eq!(found, [".gitignore", ".hidden/e.rs", ".ignore", "a.rs", "keep.log"]);
}

#[tokio::test]
async fn a_part_of_a_repository_knows_what_the_whole_ignores() {
    let fx = Fixture::new();
    fx.write(".git/HEAD", "ref: refs/heads/main\n");
    fx.write(".gitignore", "*.gen.rs\n/part/out/\n");
    for file in ["part/a.rs", "part/b.gen.rs", "part/out/c.rs", "part/deep/out/d.rs"] {
        fx.write(file, "x");
    }
    let with = json!({ "path": "part", "queries": { "q": { "find_files": {} } } });
    let found = CodebaseQuery.run(&fx.context(), with.into()).await.unwrap().value;
    let found: Vec<_> =
        found["q"]["files"].as_array().unwrap().iter().map(|f| f["path"].as_str().unwrap()).collect();
    assert_eq!(found, ["a.rs", "deep/out/d.rs"]);
}

#[tokio::test]
async fn files_are_found_by_every_criterion() {
    let fx = Fixture::new();
    fx.write("src/main.rs", "fn main() { needle() }");
    fx.write("src/lib.rs", "mod a;");
    fx.write("src/a.rs", "");
    fx.write("tests/a.rs", "needle");
    fx.write("Cargo.toml", "[package]\nname = \"x\"\n");
    fx.write("web/page.test.tsx", "");
    fx.write("README.md", "needle");
    assert_eq!(files(&fx, json!({ "type": "main" })).await, ["src/lib.rs", "src/main.rs"]);
    assert_eq!(files(&fx, json!({ "type": "source" })).await, ["src/a.rs", "src/lib.rs", "src/main.rs"]);
    assert_eq!(files(&fx, json!({ "type": "test" })).await, ["tests/a.rs", "web/page.test.tsx"]);
    assert_eq!(files(&fx, json!({ "type": "config" })).await, ["Cargo.toml"]);
    assert_eq!(
        files(&fx, json!({ "contains": "needle", "exclude_tests": true })).await,
        ["README.md", "src/main.rs"]
    );
    assert_eq!(files(&fx, json!({ "pattern": "a.*" })).await, ["src/a.rs", "tests/a.rs"]);
    assert_eq!(
        files(&fx, json!([{ "pattern": "src/*.rs" }, { "size_min": 1, "size_max": 6 }])).await,
        ["src/lib.rs"]
    );
    assert_eq!(files(&fx, json!({ "extension": ".tsx" })).await, ["web/page.test.tsx"]);
    assert_eq!(files(&fx, json!({ "language": "rust", "exclude_patterns": ["src"] })).await, ["tests/a.rs"]);
    assert_eq!(files(&fx, json!({ "modified_since": "2999-01-01" })).await, [""; 0]);
    assert_eq!(files(&fx, json!({ "modified_since": "2001-01-01T00:00:00Z" })).await.len(), 7);
    let error =
        ask(&fx.context(), json!({ "q": { "find_files": { "modified_since": "soon" } } })).await.unwrap_err();
    assert_eq!((error.kind, error.message.as_str()), (ErrorKind::Invalid, "query `q`: `soon` is not a time"));
}

#[tokio::test]
async fn what_cannot_be_read_is_told_and_harms_nothing() {
    let fx = Fixture::new();
    fx.write("good.py", "def good(): pass\n");
    fx.write("broken.py", "def before(): pass\nclass (((\n");
    fx.write("large.py", &"x = 1\n".repeat(200_000));
    fx.write("binary.py", "def no(): pass\0\n");
    let done = ask(&fx.context(), json!({ "q": { "find_functions": {} } })).await.unwrap();
    let names: Vec<_> =
        done.value["q"].as_array().unwrap().iter().map(|f| f["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["before", "good"]);
    assert_eq!(
        done.warnings,
        ["`binary.py` is left out: it is not text", "`large.py` is left out: it is over 1 MiB"]
    );
}

#[tokio::test]
async fn nothing_outside_of_the_roots_is_read() {
    let fx = Fixture::new();
    fx.write("in.py", "def inside(): pass\n");
    std::fs::write(fx.outside("secret.py"), "def secret(): pass\n").unwrap();
    std::os::unix::fs::symlink(fx.outside("secret.py"), fx.path("link.py")).unwrap();
    std::os::unix::fs::symlink(fx.outside(""), fx.path("linked")).unwrap();
    let found = one(&fx, json!({ "find_functions": {} })).await;
    assert_eq!(found.as_array().unwrap().len(), 1, "{found}");
    for path in ["../outside", "linked", "/etc"] {
        let with = json!({ "path": path, "queries": { "q": { "find_files": {} } } });
        let error = CodebaseQuery.run(&fx.context(), with.into()).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Denied, "{path}: {error:?}");
    }
    let error =
        ask(&fx.context(), json!({ "q": { "find_functions": { "in_file": "../outside/secret.py" } } })).await;
    assert_eq!(error.unwrap_err().kind, ErrorKind::Invalid);
}

/// Naive: a thread that reads ten thousand files goes on when the step was stopped.
#[tokio::test]
async fn n08a_a_search_that_is_dropped_ends() {
    let fx = Fixture::new();
    for i in 0..300 {
        fx.write(&format!("f{i}.rs"), &"fn f() { let x = 1; }\n".repeat(300));
    }
    let cx = fx.context();
    let (roots, working) = (Roots::read(&cx), cx.run.dirs.working.clone());
    let walk = move |stop: &Stop| Tree::walk(&roots, ".", &working, &Selection::default(), stop);
    let tree = Arc::new(blocking::run(walk).await.unwrap().unwrap());
    let places = (0..tree.files.len()).collect();
    let reading = Index::read(&tree, places, Detail::Paths);
    tokio::select! {
        biased;
        _ = reading => panic!("it was done at once"),
        () = tokio::task::yield_now() => {}
    }
    for _ in 0..2000 {
        if Arc::strong_count(&tree) == 1 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("threads are still at work");
}

#[tokio::test]
async fn rust_modules_lead_to_files() {
    let fx = Fixture::new();
    fx.write("Cargo.toml", "[workspace]\nmembers = ['one', 'two-b']\n");
    fx.write("one/Cargo.toml", "[package]\nname = \"one\"\n[dependencies]\nserde = \"1\"\n");
    fx.write("two-b/Cargo.toml", "[package]\nname = \"two-b\"\n");
    fx.write("one/src/lib.rs", "pub mod a;\nmod b;\n#[path = \"odd.rs\"] mod c;\n");
    fx.write(
        "one/src/a.rs",
        "mod deep;\nuse super::b::B;\nuse std::fs;\n#[cfg(test)] mod tests { use super::*; }\n",
    );
    fx.write("one/src/a/deep.rs", "fn f() { crate::b::g() }\nuse super::super::b;\n");
    fx.write("one/src/b/mod.rs", "pub struct B;\nuse two_b::thing::Thing;\n");
    fx.write("one/src/odd.rs", "");
    fx.write("one/tests/it.rs", "mod support;\nuse one::a;\n");
    fx.write("one/tests/support.rs", "");
    fx.write("two-b/src/lib.rs", "pub mod thing;");
    fx.write("two-b/src/thing.rs", "pub struct Thing;");
    assert_eq!(uses(&fx, "one/src/lib.rs").await, ["one/src/a.rs", "one/src/b/mod.rs", "one/src/odd.rs"]);
    assert_eq!(uses(&fx, "one/src/a.rs").await, ["one/src/a/deep.rs", "one/src/b/mod.rs"]);
    assert_eq!(uses(&fx, "one/src/a/deep.rs").await, ["one/src/b/mod.rs"]);
    assert_eq!(uses(&fx, "one/src/b/mod.rs").await, ["two-b/src/thing.rs"]);
    assert_eq!(uses(&fx, "one/tests/it.rs").await, ["one/src/a.rs", "one/tests/support.rs"]);
    let impact = one(&fx, json!({ "analyze_impact": { "file": "two-b/src/thing.rs" } })).await;
    assert_eq!(impact["directly_affected"], json!(["one/src/b/mod.rs", "two-b/src/lib.rs"]));
    assert_eq!(
        impact["potentially_affected"],
        json!(["one/src/a.rs", "one/src/a/deep.rs", "one/src/lib.rs"])
    );
    assert_eq!(impact["test_files"], json!(["one/tests/it.rs"]));
    assert_eq!(impact["impact_score"], 3 * 2 + 3 + 2);
}

#[tokio::test]
async fn python_modules_lead_to_files() {
    let fx = Fixture::new();
    fx.write(
        "pyproject.toml",
        "[project]\nname = 'x'\ndependencies = ['requests>=2', 'tomli; python_version<\"3.11\"']\n",
    );
    for file in ["src/app/__init__.py", "src/app/models/__init__.py", "src/app/models/user.py"] {
        fx.write(file, "");
    }
    fx.write(
        "src/app/views.py",
        "from . import models\nfrom .models.user import User\nimport requests\nfrom app import models as m\n",
    );
    fx.write("tests/test_views.py", "from app.views import index\nimport app.models.user\n");
    assert_eq!(uses(&fx, "src/app/views.py").await, ["src/app/models/__init__.py", "src/app/models/user.py"]);
    assert_eq!(uses(&fx, "tests/test_views.py").await, ["src/app/models/user.py", "src/app/views.py"]);
    let imports = one(&fx, json!({ "find_imports": { "external_only": true } })).await;
    assert_eq!(imports.as_array().unwrap().len(), 1);
    assert_eq!(imports[0]["module"], "requests");
    let related = one(&fx, json!({ "find_related": { "file": "src/app/views.py", "max_results": 1 } })).await;
    assert_eq!(
        related,
        json!([{ "file": "tests/test_views.py", "relation_type": "test", "confidence": 0.9 }])
    );
}

#[tokio::test]
async fn scripts_lead_to_files() {
    let fx = Fixture::new();
    fx.write("packages/ui/package.json", r#"{"name": "@me/ui"}"#);
    fx.write("packages/ui/src/index.ts", "export * from './button.js'");
    fx.write("packages/ui/src/button.tsx", "import React from 'react'; import theme from '../theme.json';");
    fx.write("packages/ui/theme.json", "{}");
    fx.write(
        "app/main.ts",
        "import { B } from '@me/ui'; const x = require('./dir'); await import('../../../../etc/passwd');",
    );
    fx.write("app/dir/index.js", "");
    assert_eq!(uses(&fx, "packages/ui/src/index.ts").await, ["packages/ui/src/button.tsx"]);
    assert_eq!(uses(&fx, "packages/ui/src/button.tsx").await, ["packages/ui/theme.json"]);
    assert_eq!(uses(&fx, "app/main.ts").await, ["app/dir/index.js", "packages/ui/src/index.ts"]);
    let found = one(
        &fx,
        json!({ "find_dependents": { "file": "packages/ui/src/button.tsx", "include_transitive": true } }),
    )
    .await;
    assert_eq!(found["direct"], json!(["packages/ui/src/index.ts"]));
    assert_eq!(found["transitive"], json!(["app/main.ts"]));
}

#[tokio::test]
async fn go_packages_and_elixir_modules_lead_to_files() {
    let fx = Fixture::new();
    fx.write("go.mod", "module example.org/x\n\nrequire (\n\tgithub.com/a/b v1.2.3\n\tgithub.com/c/d v0.1.0 // indirect\n)\n");
    fx.write("main.go", "package main\nimport (\n\"fmt\"\n\"example.org/x/store\"\n\"github.com/a/b\"\n)\n");
    fx.write("store/a.go", "package store\n");
    fx.write("store/b.go", "package store\n");
    fx.write("store/a_test.go", "package store\n");
    fx.write("lib/one.ex", "defmodule App.One do\n  alias App.{Two}\n  def f, do: App.Three.g()\nend\n");
    fx.write("lib/two.ex", "defmodule App.Two do\nend\n");
    fx.write("lib/three.ex", "defmodule App do\n defmodule Three do\n def g, do: 1\n end\nend\n");
    assert_eq!(uses(&fx, "main.go").await, ["store/a.go", "store/b.go"]);
    assert_eq!(uses(&fx, "lib/one.ex").await, ["lib/three.ex", "lib/two.ex"]);
    let found =
        one(&fx, json!({ "find_dependencies": { "include_transitive": true, "language": "go" } })).await;
    assert_eq!(
        (&found["direct"][0]["name"], &found["transitive"][0]["name"]),
        (&json!("github.com/a/b"), &json!("github.com/c/d"))
    );
}

#[tokio::test]
async fn packages_of_every_manifest() {
    let fx = Fixture::new();
    fx.write("Cargo.toml", "[dependencies]\na = '1'\nb = { version = '2', optional = true }\n[dev-dependencies]\nc.workspace = true\n");
    fx.write("package.json", r#"{"dependencies": {"d": "^1"}, "devDependencies": {"e": "2"}}"#);
    fx.write("requirements.txt", "# no\nf[x]==1.0 # why\n-r other.txt\n");
    fx.write("setup.cfg", "[options]\ninstall_requires =\n    g>=1\n    h\n");
    fx.write("mix.exs", "defmodule M do\n  defp deps do\n    [{:i, \"~> 1.0\"}, {:j, \">= 0.0.0\", only: :test}]\n  end\nend\n");
    fx.write("bad/Cargo.toml", "[[[\n");
    let done = ask(&fx.context(), json!({ "q": { "get_dependencies": null } })).await.unwrap();
    let told = |d: &Value| {
        format!(
            "{} {} {}",
            d["name"].as_str().unwrap(),
            d["version"].as_str().unwrap_or("-"),
            d["type"].as_str().unwrap()
        )
    };
    let found: Vec<_> = done.value["q"]["dependencies"].as_array().unwrap().iter().map(told).collect();
    let expected = [
        "a 1 runtime",
        "b 2 optional",
        "c workspace development",
        "i ~> 1.0 runtime",
        "j >= 0.0.0 development",
        "d ^1 runtime",
        "e 2 development",
        "f ==1.0 runtime",
        "g >=1 runtime",
        "h - runtime",
    ];
    assert_eq!(found, expected);
    assert!(done.warnings[0].starts_with("`bad/Cargo.toml` cannot be read: "), "{:?}", done.warnings);
    let kind = one(&fx, json!({ "get_project_type": {} })).await;
    assert_eq!(kind["types"].as_array().unwrap().len(), 4);
}

#[tokio::test]
async fn references_are_told_from_texts_and_comments() {
    let fx = Fixture::new();
    fx.write("a.py", "from b import run\n# run\ns = 'run'\nt = f'{run}'\nrun(1)\nx.run()\nf = run\n");
    fx.write("b.py", "def run(x): pass\n");
    fx.write("c.rs", "fn call() { run(); a::run::<u8>(); let r: Run = Run {}; }\n");
    fx.write("d.ex", "defmodule D do\n  def run(x), do: run(x + 1)\nend\n");
    let found = one(&fx, json!({ "find_references": { "name": "run", "include_definitions": true } })).await;
    let told = |r: &Value| {
        format!(
            "{}:{}:{} {}",
            r["file"].as_str().unwrap(),
            r["line"],
            r["column"],
            r["type"].as_str().unwrap()
        )
    };
    let found: Vec<_> = found.as_array().unwrap().iter().map(told).collect();
    let expected = [
        "a.py:1:15 import",
        "a.py:4:8 reference",
        "a.py:5:1 call",
        "a.py:6:3 call",
        "a.py:7:5 reference",
        "b.py:1:5 definition",
        "c.rs:1:13 call",
        "c.rs:1:23 call",
        "d.ex:2:7 definition",
        "d.ex:2:19 call",
    ];
    assert_eq!(found, expected);
    let found =
        one(&fx, json!({ "find_references": { "name": "run", "language": "elixir", "max_results": 5 } }))
            .await;
    assert_eq!(found.as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn answers_are_chosen_and_the_same_each_time() {
    let fx = Fixture::new();
    for i in 0..40 {
        fx.write(&format!("m{i}.rs"), &format!("pub fn open{i}() {{}}\nfn shut() {{}}\npub struct S{i};\n"));
    }
    let queries = json!({
        "f": { "find_functions": { "type": "public", "pattern": "open1?" } },
        "c": { "find_classes": { "type": "struct", "name": "S7" } },
        "p": { "find_functions": { "in_files": ["m1.rs", "m2?.rs"], "type": "private" } },
        "m": { "find_functions": { "max_results": 3 } },
    });
    let first = ask(&fx.context(), queries.clone()).await.unwrap().value;
    assert_eq!(first["f"].as_array().unwrap().len(), 10);
    assert_eq!(first["c"][0]["line"], 3);
    assert_eq!(first["p"].as_array().unwrap().len(), 11);
    assert_eq!(first["m"].as_array().unwrap().len(), 3);
    for _ in 0..5 {
        assert_eq!(ask(&fx.context(), queries.clone()).await.unwrap().value, first);
    }
}

#[tokio::test]
async fn a_question_is_one_question() {
    let fx = Fixture::new();
    let cx = fx.context();
    for (query, message) in [
        (json!({}), "the query `q` must ask exactly one thing"),
        (json!({ "find_files": {}, "find_classes": {} }), "the query `q` must ask exactly one thing"),
        (json!({ "analyze_impact": {} }), "query `q`: `analyze_impact` needs `file`"),
        (json!({ "find_dependents": { "file": "no.rs" } }), "query `q`: there is no file `no.rs` in `.`"),
    ] {
        let error = ask(&cx, json!({ "q": query })).await.unwrap_err();
        assert_eq!((error.kind, error.message.as_str()), (ErrorKind::Invalid, message));
    }
    let error = ask(&cx, json!({ "q": { "find_files": [{ "type": "test" }, { "type": "main" }] } }))
        .await
        .unwrap_err();
    assert!(error.message.contains("`type` is there twice"), "{}", error.message);
}

/// The context of a fixture with programs.
fn with_path(fx: &Fixture, path: &str) -> StepContext {
    let mut cx = fx.context();
    let mut services = (*cx.services).clone();
    services.child_env = Arc::new(BTreeMap::from([("PATH".to_owned(), path.to_owned())]));
    cx.services = Arc::new(services);
    cx
}

/// Runs git for a test; false where there is none.
fn git(fx: &Fixture, args: &[&str]) -> bool {
    let setup = ["-c", "user.name=T", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main"];
    let mut command = std::process::Command::new("git");
    command.args(setup).args(args).current_dir(fx.path(""));
    command.output().is_ok_and(|o| o.status.success())
}

const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

#[tokio::test]
async fn git_tells_what_has_changed() {
    let fx = Fixture::new();
    if !git(&fx, &["init", "-q"]) {
        // A machine with only Rust: what follows is shown where there is git.
        return;
    }
    fx.write("old.rs", &"fn a() {}\n".repeat(20));
    fx.write("gone.rs", "fn b() {}\n");
    fx.write("part/kept.rs", "fn c() {}\n");
    assert!(git(&fx, &["add", "."]) && git(&fx, &["commit", "-qm", "First"]));
    let cx = with_path(&fx, PATH);
    let queries = json!({ "s": { "get_git_status": {} }, "c": { "get_changed_files": {} } });
    let clean = ask(&cx, queries.clone()).await.unwrap().value;
    assert_eq!(
        (&clean["s"]["branch"], &clean["s"]["status"], &clean["c"]["count"]),
        (&json!("main"), &json!("clean"), &json!(0))
    );
    assert_eq!(clean["s"]["commit"].as_str().unwrap().len(), 8);
    assert_eq!(clean["s"]["recent_commits"][0]["subject"], "First");
    assert!(git(&fx, &["mv", "old.rs", "new name.rs"]));
    std::fs::remove_file(fx.path("gone.rs")).unwrap();
    fx.write("part/kept.rs", "fn c2() {}\n");
    fx.write("ünew.rs", "");
    let dirty = ask(&cx, queries).await.unwrap().value;
    let status = &dirty["s"];
    assert_eq!(status["staged"], json!(["new name.rs"]));
    assert_eq!((&status["deleted"], &status["modified"]), (&json!(["gone.rs"]), &json!(["part/kept.rs"])));
    assert_eq!(status["untracked"], json!(["ünew.rs"]));
    let changed = &dirty["c"]["files"];
    assert_eq!(
        *changed,
        json!([
            { "path": "gone.rs", "status": "deleted" },
            { "path": "new name.rs", "status": "renamed", "old_path": "old.rs" },
            { "path": "part/kept.rs", "status": "modified" },
            { "path": "ünew.rs", "status": "untracked" },
        ])
    );
    let part = json!({ "path": "part", "queries": { "s": { "get_git_status": {} }, "c": { "get_changed_files": {} } } });
    let part = CodebaseQuery.run(&cx, part.into()).await.unwrap().value;
    assert_eq!(
        (&part["s"]["modified"], &part["c"]["files"][0]["path"]),
        (&json!(["kept.rs"]), &json!("kept.rs"))
    );
}

/// Naive: what a pipeline or a repository says reaches git as an option or a program.
#[tokio::test]
async fn git_runs_nothing_that_others_name() {
    let fx = Fixture::new();
    if !git(&fx, &["init", "-q"]) {
        return;
    }
    fx.write("a", "1");
    assert!(git(&fx, &["add", "."]) && git(&fx, &["commit", "-qm", "First"]));
    let evil = format!("touch {}", fx.outside("ran").display());
    for key in ["core.fsmonitor", "diff.external", "core.pager"] {
        assert!(git(&fx, &["config", key, &evil]));
    }
    fx.write("a", "2");
    let cx = with_path(&fx, PATH);
    for since in ["--output=leak", "no-such-branch", "HEAD:a", ""] {
        let error = ask(&cx, json!({ "c": { "get_changed_files": { "since": since } } })).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Invalid, "{since}: {error:?}");
    }
    ask(&cx, json!({ "c": { "get_changed_files": {} }, "s": { "get_git_status": {} } })).await.unwrap();
    assert!(!fx.outside("ran").exists() && !fx.path("leak").exists());
}

#[tokio::test]
async fn no_git_and_no_repository_are_told_apart() {
    let fx = Fixture::new();
    let error = ask(&with_path(&fx, "/nowhere"), json!({ "s": { "get_git_status": {} } })).await.unwrap_err();
    assert_eq!(
        (error.kind, error.message.as_str()),
        (ErrorKind::Environment, "there is no program `git` on this machine")
    );
    if git(&fx, &["--version"]) {
        let error = ask(&with_path(&fx, PATH), json!({ "s": { "get_git_status": {} } })).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Environment);
        assert!(error.message.starts_with("there is no git repository in "), "{}", error.message);
    }
}

/// Naive: git waits for a lock or a slow disk, and the run waits for git.
#[tokio::test]
async fn x26_a_git_that_hangs_ends_at_the_deadline() {
    use std::os::unix::fs::PermissionsExt;
    let fx = Fixture::new();
    let program = fx.outside("git");
    std::fs::write(&program, "#!/bin/sh\nsleep 300\n").unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut cx = with_path(&fx, &format!("{}:/usr/bin:/bin", fx.outside("").display()));
    cx.deadline = tokio::time::Instant::now() + Duration::from_millis(300);
    let error = ask(&cx, json!({ "s": { "get_git_status": {} } })).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::TimedOut);
}
