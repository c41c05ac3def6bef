//! Manifests that are tables: Cargo.toml, package.json, pyproject.toml, Pipfile.
//!
//! Owns where each of them keeps its packages.

use serde_json::{Map, Value};

use super::Asked;
use super::lines::requirement;
use crate::codebase_query::config::Need;

fn toml(text: &str) -> Result<Value, String> {
    toml::from_str(text).map_err(|error| error.message().to_owned())
}

fn map<'v>(value: &'v Value, path: &[&str]) -> impl Iterator<Item = (&'v String, &'v Value)> + use<'v> {
    path.iter().try_fold(value, |at, key| at.get(key)).and_then(Value::as_object).into_iter().flatten()
}

fn version(value: &Value) -> Option<String> {
    let text = value.as_str().or_else(|| value.get("version").and_then(Value::as_str));
    text.map(str::to_owned)
}

pub(super) fn cargo(text: &str) -> Result<Vec<Asked>, String> {
    let manifest = toml(text)?;
    let mut all = Vec::new();
    let mut tables = vec![&manifest];
    tables.extend(map(&manifest, &["target"]).map(|(_, table)| table));
    for table in tables {
        for (key, need) in [
            ("dependencies", Need::Runtime),
            ("dev-dependencies", Need::Development),
            ("build-dependencies", Need::Build),
        ] {
            for (name, value) in map(table, &[key]) {
                let is_optional = value.get("optional").and_then(Value::as_bool) == Some(true);
                // A dependency may be called otherwise in the code than it is in the registry.
                let name = value.get("package").and_then(Value::as_str).unwrap_or(name);
                let version = version(value).or_else(|| {
                    let inherited = value.get("workspace").and_then(Value::as_bool) == Some(true);
                    inherited.then(|| "workspace".to_owned())
                });
                all.push((name.to_owned(), version, if is_optional { Need::Optional } else { need }));
            }
        }
    }
    all.extend(map(&manifest, &["workspace", "dependencies"]).map(|(name, value)| {
        let name = value.get("package").and_then(Value::as_str).unwrap_or(name);
        (name.to_owned(), version(value), Need::Runtime)
    }));
    Ok(all)
}

pub(super) fn npm(text: &str) -> Result<Vec<Asked>, String> {
    let manifest: Map<String, Value> = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let manifest = Value::Object(manifest);
    let tables = [
        ("dependencies", Need::Runtime),
        ("peerDependencies", Need::Runtime),
        ("devDependencies", Need::Development),
        ("optionalDependencies", Need::Optional),
    ];
    let all = tables.iter().flat_map(|(key, need)| {
        map(&manifest, &[*key]).map(|(name, value)| (name.clone(), version(value), *need))
    });
    Ok(all.collect())
}

pub(super) fn pyproject(text: &str) -> Result<Vec<Asked>, String> {
    let manifest = toml(text)?;
    let mut all = Vec::new();
    let mut list = |value: Option<&Value>, need: Need| {
        let items = value.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        all.extend(items.filter_map(requirement).map(|(name, version)| (name, version, need)));
    };
    list(manifest.pointer("/project/dependencies"), Need::Runtime);
    list(manifest.pointer("/build-system/requires"), Need::Build);
    for (_, group) in map(&manifest, &["project", "optional-dependencies"]) {
        list(Some(group), Need::Optional);
    }
    for (_, group) in map(&manifest, &["dependency-groups"]) {
        list(Some(group), Need::Development);
    }
    let poetry = |path: &[&str], need: Need| {
        let entries = map(&manifest, path).filter(|(name, _)| name.as_str() != "python");
        entries
            .map(|(name, value)| {
                let is_optional = value.get("optional").and_then(Value::as_bool) == Some(true);
                (name.clone(), version(value), if is_optional { Need::Optional } else { need })
            })
            .collect::<Vec<_>>()
    };
    let mut more = poetry(&["tool", "poetry", "dependencies"], Need::Runtime);
    more.extend(poetry(&["tool", "poetry", "dev-dependencies"], Need::Development));
    for (group, _) in map(&manifest, &["tool", "poetry", "group"]) {
        more.extend(poetry(&["tool", "poetry", "group", group.as_str(), "dependencies"], Need::Development));
    }
    all.extend(more);
    Ok(all)
}

pub(super) fn pipfile(text: &str) -> Result<Vec<Asked>, String> {
    let manifest = toml(text)?;
    let tables = [("packages", Need::Runtime), ("dev-packages", Need::Development)];
    let all = tables.iter().flat_map(|(key, need)| {
        map(&manifest, &[*key]).map(|(name, value)| (name.clone(), version(value), *need))
    });
    Ok(all.collect())
}
