//! Looking through a plan.
//!
//! Owns the one walk over every leaf, and what a leaf's configuration says without running anything. Must not know
//! step types.

use std::collections::BTreeSet;

use pipeline_core::catalog::Catalog;
use pipeline_core::expr::Dynamic;
use pipeline_core::plan::{BlockId, Body, Leaf, OnError, PipelineId, Plan};

/// Names of providers that the plan's steps name literally, children included.
///
/// A name that a template makes is not known before the step runs.
pub fn providers(plan: &Plan) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut seen = BTreeSet::new();
    block(plan, plan.root().body, &mut seen, &mut |leaf| {
        found.extend(text_field(&leaf.with, "provider").map(str::to_owned));
    });
    found
}

/// Steps that can start programs on this machine: `shell`, and agents with tools of their own.
pub fn starters(plan: &Plan, catalog: &Catalog) -> Vec<String> {
    let mut found = Vec::new();
    block(plan, plan.root().body, &mut BTreeSet::new(), &mut |leaf| match &*leaf.kind {
        "shell" => found.push("a shell step".to_owned()),
        "prompt" => {
            let provider = text_field(&leaf.with, "provider").and_then(|name| catalog.provider(name));
            if let Some(provider) = provider.filter(|p| p.capabilities().agent) {
                found.push(format!("an agent step of `{}`", provider.name()));
            }
        }
        _ => {}
    });
    found.sort();
    found.dedup();
    found
}

fn block(plan: &Plan, id: BlockId, seen: &mut BTreeSet<PipelineId>, each: &mut impl FnMut(&Leaf)) {
    for step in &plan.block(id).steps {
        let step = plan.step(*step);
        if let OnError::Steps(fallback) = &step.on_error {
            block(plan, *fallback, seen, each);
        }
        match &step.body {
            Body::Leaf(leaf) => std::iter::once(leaf).chain(&step.fallback).for_each(&mut *each),
            Body::Parallel(parallel) => {
                parallel.branches.iter().for_each(|(_, branch)| block(plan, *branch, seen, each));
            }
            Body::ForEach(form) => block(plan, form.body, seen, each),
            Body::While(form) => block(plan, form.body, seen, each),
            Body::Choose(choose) => {
                let cases = choose.cases.iter().map(|(_, case)| *case).chain(choose.default);
                cases.for_each(|case| block(plan, case, seen, each));
            }
            // A child may be one of its own ancestors.
            Body::Child(child) if seen.insert(child.pipeline) => {
                block(plan, plan.pipeline(child.pipeline).body, seen, each);
            }
            Body::Child(_) | Body::Ask(_) | Body::Break | Body::Continue => {}
        }
    }
}

/// The text of a field of a map, where it is written out.
fn text_field<'a>(with: &'a Dynamic, name: &str) -> Option<&'a str> {
    match with {
        Dynamic::Const(value) => value.json().get(name)?.as_str(),
        Dynamic::Map(entries) => match entries.iter().find(|(key, _)| key == name) {
            Some((_, Dynamic::Const(value))) => value.json().as_str(),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pipeline_core::value::Data;
    use serde_json::json;

    #[test]
    fn only_what_is_written_out_is_found() {
        let whole = Dynamic::Const(Data::new(json!({"provider": "claude"})));
        assert_eq!(text_field(&whole, "provider"), Some("claude"));
        let fields = vec![
            ("provider".to_owned(), Dynamic::Const(Data::new(json!("gemini")))),
            ("made".to_owned(), Dynamic::List(Vec::new())),
        ];
        let map = Dynamic::Map(fields);
        assert_eq!(text_field(&map, "provider"), Some("gemini"));
        assert_eq!(text_field(&map, "made"), None);
        assert_eq!(text_field(&map, "absent"), None);
    }
}
