//! A plan as a picture: boxes, groups and arrows; in Mermaid, Graphviz or JSON.
//!
//! Owns [`Picture`]. Must not know how a plan runs. Next: `picture/svg.rs`, which lays a picture out and draws it.

mod svg;

use std::fmt::Write;

use pipeline_core::plan::{BlockId, Body, PipelineId, Plan, StepPlan};
use pipeline_core::value::Value;
use serde_json::json;

pub use svg::escape;

/// A step, or a group of steps.
#[derive(Debug, Clone, PartialEq)]
pub struct Shape {
    /// Path of the step, unique in the picture.
    pub path: String,
    /// What it is called.
    pub label: String,
    /// Its type as it was written.
    pub kind: String,
    /// The group that it stands in.
    pub inside: Option<usize>,
    /// True when other shapes stand in it.
    pub is_group: bool,
    /// It runs only when a condition holds.
    pub is_conditional: bool,
}

/// Boxes, groups and arrows; arrows join shapes by their number.
#[derive(Debug, Default)]
pub struct Picture {
    /// The workflow's name.
    pub name: String,
    /// What is drawn.
    pub shapes: Vec<Shape>,
    /// What follows what.
    pub arrows: Vec<(usize, usize)>,
}

impl Picture {
    /// The picture of a plan.
    pub fn of(plan: &Plan) -> Self {
        let mut picture = Self { name: plan.root().name.to_string(), ..Self::default() };
        picture.block(plan, plan.root().body, "", None, &mut Vec::new());
        picture
    }

    /// Draws the steps of a block and the arrows between them.
    fn block(
        &mut self,
        plan: &Plan,
        id: BlockId,
        prefix: &str,
        inside: Option<usize>,
        children: &mut Vec<PipelineId>,
    ) {
        let block = plan.block(id);
        let shapes: Vec<usize> = block
            .steps
            .iter()
            .map(|step| self.step(plan, plan.step(*step), prefix, inside, children))
            .collect();
        match &block.needs {
            None => self.arrows.extend(shapes.windows(2).map(|pair| (pair[0], pair[1]))),
            Some(needs) => {
                for (to, froms) in shapes.iter().zip(needs) {
                    self.arrows.extend(froms.iter().filter_map(|from| Some((*shapes.get(*from)?, *to))));
                }
            }
        }
    }

    fn step(
        &mut self,
        plan: &Plan,
        step: &StepPlan,
        prefix: &str,
        inside: Option<usize>,
        children: &mut Vec<PipelineId>,
    ) -> usize {
        let path = format!("{prefix}{}", step.name);
        let shape = self.shape(&path, &step.name, &step.written_type, inside);
        self.shapes[shape].is_conditional = step.condition.is_some();
        match &step.body {
            Body::Leaf(_) | Body::Ask(_) | Body::Break | Body::Continue => {}
            Body::ForEach(form) => self.body(plan, form.body, &path, shape, children),
            Body::While(form) => self.body(plan, form.body, &path, shape, children),
            Body::Parallel(parallel) => {
                for (id, branch) in &parallel.branches {
                    self.branch(plan, *branch, id, &path, shape, children);
                }
            }
            Body::Choose(choose) => {
                for (value, case) in &choose.cases {
                    let name = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                    self.branch(plan, *case, &name, &path, shape, children);
                }
                if let Some(default) = choose.default {
                    self.branch(plan, default, "default", &path, shape, children);
                }
            }
            // A child that is one of its own ancestors is not drawn again.
            Body::Child(child) if !children.contains(&child.pipeline) => {
                children.push(child.pipeline);
                self.body(plan, plan.pipeline(child.pipeline).body, &path, shape, children);
                children.pop();
            }
            Body::Child(_) => self.shapes[shape].label.push_str(" (again)"),
        }
        shape
    }

    fn body(&mut self, plan: &Plan, body: BlockId, path: &str, shape: usize, children: &mut Vec<PipelineId>) {
        self.shapes[shape].is_group = true;
        self.block(plan, body, &format!("{path}/"), Some(shape), children);
    }

    fn branch(
        &mut self,
        plan: &Plan,
        body: BlockId,
        name: &str,
        path: &str,
        parent: usize,
        children: &mut Vec<PipelineId>,
    ) {
        self.shapes[parent].is_group = true;
        let path = format!("{path}/{name}");
        let group = self.shape(&path, name, "branch", Some(parent));
        self.body(plan, body, &path, group, children);
    }

    fn shape(&mut self, path: &str, label: &str, kind: &str, inside: Option<usize>) -> usize {
        self.shapes.push(Shape {
            path: path.to_owned(),
            label: label.to_owned(),
            kind: kind.to_owned(),
            inside,
            is_group: false,
            is_conditional: false,
        });
        self.shapes.len() - 1
    }

    /// What stands directly in a group.
    pub fn inside(&self, group: Option<usize>) -> impl Iterator<Item = (usize, &Shape)> {
        self.shapes.iter().enumerate().filter(move |(_, shape)| shape.inside == group)
    }

    /// As a Mermaid flowchart.
    pub fn mermaid(&self) -> String {
        let mut out = format!("---\ntitle: {}\n---\nflowchart TD\n", quoted(&self.name));
        self.mermaid_group(&mut out, None, 1);
        for (from, to) in &self.arrows {
            let _ok = writeln!(out, "  n{from} --> n{to}");
        }
        out
    }

    fn mermaid_group(&self, out: &mut String, group: Option<usize>, depth: usize) {
        let indent = "  ".repeat(depth);
        for (number, shape) in self.inside(group) {
            let label = mermaid_text(&shape.title());
            // Writing to a text cannot fail.
            let _ok = if shape.is_group {
                let _ok = writeln!(out, "{indent}subgraph n{number}[\"{label}\"]");
                self.mermaid_group(out, Some(number), depth + 1);
                writeln!(out, "{indent}end")
            } else if shape.is_conditional {
                writeln!(out, "{indent}n{number}{{{{\"{label}\"}}}}")
            } else {
                writeln!(out, "{indent}n{number}[\"{label}\"]")
            };
        }
    }

    /// As a Graphviz digraph.
    pub fn dot(&self) -> String {
        let mut out = format!("digraph {} {{\n  compound=true;\n  node [shape=box];\n", quoted(&self.name));
        self.dot_group(&mut out, None, 1);
        for (from, to) in &self.arrows {
            let (tail, head) = (self.anchor(*from), self.anchor(*to));
            let mut ends = Vec::new();
            if self.shapes[*from].is_group {
                ends.push(format!("ltail=cluster_{from}"));
            }
            if self.shapes[*to].is_group {
                ends.push(format!("lhead=cluster_{to}"));
            }
            let ends = if ends.is_empty() { String::new() } else { format!(" [{}]", ends.join(", ")) };
            let _ok = writeln!(out, "  n{tail} -> n{head}{ends};");
        }
        out.push_str("}\n");
        out
    }

    fn dot_group(&self, out: &mut String, group: Option<usize>, depth: usize) {
        let indent = "  ".repeat(depth);
        for (number, shape) in self.inside(group) {
            let label = quoted(&shape.title());
            let _ok = if shape.is_group {
                let _ok = writeln!(out, "{indent}subgraph cluster_{number} {{\n{indent}  label={label};");
                if self.inside(Some(number)).next().is_none() {
                    // Graphviz draws no cluster without a node, and arrows need one to end at.
                    let _ok = writeln!(out, "{indent}  n{number} [style=invis];");
                }
                self.dot_group(out, Some(number), depth + 1);
                writeln!(out, "{indent}}}")
            } else {
                let style = if shape.is_conditional { ", style=dashed" } else { "" };
                writeln!(out, "{indent}n{number} [label={label}{style}];")
            };
        }
    }

    /// The first shape in a group that is no group: Graphviz draws arrows between nodes only.
    fn anchor(&self, shape: usize) -> usize {
        let first = self.inside(Some(shape)).next().map(|(number, _)| number);
        first.map_or(shape, |first| self.anchor(first))
    }

    /// `pipeline.graph/1`.
    pub fn json(&self) -> Value {
        let node = |shape: &Shape| {
            json!({
                "path": shape.path,
                "name": shape.label,
                "type": shape.kind,
                "parent": shape.inside.map(|group| &self.shapes[group].path),
                "conditional": shape.is_conditional,
            })
        };
        let edge = |(from, to): &(usize, usize)| json!({"from": self.shapes[*from].path, "to": self.shapes[*to].path});
        json!({
            "schema": "pipeline.graph/1",
            "name": self.name,
            "nodes": self.shapes.iter().map(node).collect::<Vec<_>>(),
            "edges": self.arrows.iter().map(edge).collect::<Vec<_>>(),
        })
    }
}

impl Shape {
    fn title(&self) -> String {
        format!("{} ({})", self.label, self.kind)
    }
}

/// A text in double quotes, for Graphviz and YAML.
fn quoted(text: &str) -> String {
    let plain: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    format!("\"{}\"", plain.replace('\\', "\\\\").replace('"', "\\\""))
}

/// A text inside the quotes of a Mermaid label: what would end them, or be read as HTML, is written as an entity.
fn mermaid_text(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '"' => "#quot;".to_owned(),
            '#' => "#35;".to_owned(),
            '<' => "#lt;".to_owned(),
            '>' => "#gt;".to_owned(),
            '&' => "#amp;".to_owned(),
            c if c.is_control() => " ".to_owned(),
            c => c.to_string(),
        })
        .collect()
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

    use super::*;

    /// `list`, then the loop `fan` with `think` in it, then `say "hi"` under a condition.
    pub(crate) fn example() -> Picture {
        let mut picture = Picture { name: "demo".to_owned(), ..Picture::default() };
        let list = picture.shape("list", "list", "file", None);
        let fan = picture.shape("fan", "fan", "for_loop", None);
        picture.shapes[fan].is_group = true;
        picture.shape("fan/think", "think", "claude", Some(fan));
        let say = picture.shape("say", "say \"hi\" <b>", "prompt", None);
        picture.shapes[say].is_conditional = true;
        picture.arrows = vec![(list, fan), (fan, say)];
        picture
    }

    #[test]
    fn mermaid_has_groups_arrows_and_safe_labels() {
        let expected = "---\ntitle: \"demo\"\n---\nflowchart TD\n  n0[\"list (file)\"]\n  \
            subgraph n1[\"fan (for_loop)\"]\n    n2[\"think (claude)\"]\n  end\n  \
            n3{{\"say #quot;hi#quot; #lt;b#gt; (prompt)\"}}\n  n0 --> n1\n  n1 --> n3\n";
        assert_eq!(example().mermaid(), expected);
    }

    #[test]
    fn graphviz_joins_groups_by_a_node_in_them() {
        let expected = "digraph \"demo\" {\n  compound=true;\n  node [shape=box];\n  \
            n0 [label=\"list (file)\"];\n  subgraph cluster_1 {\n    label=\"fan (for_loop)\";\n    \
            n2 [label=\"think (claude)\"];\n  }\n  n3 [label=\"say \\\"hi\\\" <b> (prompt)\", style=dashed];\n  \
            n0 -> n2 [lhead=cluster_1];\n  n2 -> n3 [ltail=cluster_1];\n}\n";
        assert_eq!(example().dot(), expected);
    }

    #[test]
    fn json_names_shapes_by_their_paths() {
        let document = example().json();
        assert_eq!(document["schema"], "pipeline.graph/1");
        assert_eq!(document["nodes"][2]["parent"], "fan");
        assert_eq!(document["edges"][0], json!({"from": "list", "to": "fan"}));
        assert_eq!(document["nodes"][3]["conditional"], true);
    }
}
