//! A picture, laid out and drawn as SVG.
//!
//! Steps stand below each other in the order of their arrows, steps without an order between them side by side, and what
//! is inside a loop, branch or child stands in its box. Long lists go on in a further column. No script, no font, no
//! address: the drawing stands alone and inside a page.

use std::fmt::Write;

use super::{Picture, Shape};

/// Height of a box with a name and a type.
const BOX: f32 = 44.0;
/// Between boxes.
const GAP: f32 = 22.0;
/// Between a group's edge and what is in it.
const PAD: f32 = 14.0;
/// Height of a group's title.
const TITLE: f32 = 30.0;
/// Rows of a column.
const ROWS: usize = 12;
/// Width of a letter of a name.
const LETTER: f32 = 7.6;
/// Most letters of a name that are shown.
const LETTERS: usize = 28;

/// Colours for light and dark, by the classes of states.
const STYLE: &str = "\
.g{font:13px system-ui,sans-serif}.g rect{fill:#fff;stroke:#94a3b8;stroke-width:1.2}.g .group>rect{fill:#64748b;fill-opacity:.06;stroke:#cbd5e1}\
.g text{fill:#0f172a}.g .kind{fill:#64748b;font-size:11px}.g path{fill:none;stroke:#94a3b8;stroke-width:1.4}.g marker path{fill:#94a3b8;stroke:none}\
.g .maybe>rect{stroke-dasharray:5 3}.g .ok>rect{stroke:#16a34a}.g .failed>rect{stroke:#dc2626;fill:#fef2f2}.g .degraded>rect{stroke:#d97706}.g .skipped{opacity:.5}.g .running>rect{stroke:#2563eb}\
@media(prefers-color-scheme:dark){.g rect{fill:#1e293b;stroke:#64748b}.g .group>rect{stroke:#475569}.g text{fill:#e2e8f0}.g .kind{fill:#94a3b8}.g .failed>rect{fill:#450a0a}}";

#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Place {
    x: f32,
    y: f32,
    w: f32,
    h: f32,
}

impl Picture {
    /// The drawing as a file of its own. `state` gives a shape's path a class: `ok`, `failed`, `degraded`, `skipped` or `running`.
    pub fn svg(&self, state: &dyn Fn(&str) -> Option<&'static str>) -> String {
        // The only address in a drawing is the name of its language, which a page does not need.
        self.svg_in_page(state).replacen("<svg ", "<svg xmlns=\"http://www.w3.org/2000/svg\" ", 1)
    }

    /// The drawing inside a page.
    pub fn svg_in_page(&self, state: &dyn Fn(&str) -> Option<&'static str>) -> String {
        let mut places = vec![Place::default(); self.shapes.len()];
        let (w, h) = self.lay_out(None, GAP, GAP, &mut places);
        let (w, h) = (w + 2.0 * GAP, h + 2.0 * GAP);
        let mut out = format!(
            "<svg class=\"g\" viewBox=\"0 0 {w:.0} {h:.0}\" width=\"{w:.0}\" height=\"{h:.0}\" role=\"img\">\
             <title>{}</title><style>{STYLE}</style><defs><marker id=\"tip\" viewBox=\"0 0 8 8\" refX=\"7\" refY=\"4\" markerWidth=\"7\" markerHeight=\"7\" orient=\"auto\"><path d=\"M0 0L8 4L0 8z\"/></marker></defs>\n",
            escape(&self.name)
        );
        self.draw(&mut out, None, &places, state);
        for (from, to) in &self.arrows {
            let _ok =
                writeln!(out, "<path d=\"{}\" marker-end=\"url(#tip)\"/>", arrow(places[*from], places[*to]));
        }
        out.push_str("</svg>\n");
        out
    }

    /// Gives places to what is in a group, from its corner; returns how much room it takes.
    fn lay_out(&self, group: Option<usize>, x: f32, y: f32, places: &mut [Place]) -> (f32, f32) {
        let layers = self.layers(group);
        let (mut column_x, mut width, mut height) = (x, 0.0_f32, 0.0_f32);
        for column in layers.chunks(ROWS) {
            let (mut row_y, mut column_width) = (y, 0.0_f32);
            for layer in column {
                let (mut shape_x, mut row_height) = (column_x, 0.0_f32);
                for shape in layer {
                    let place = self.place(*shape, shape_x, row_y, places);
                    shape_x += place.w + GAP;
                    row_height = row_height.max(place.h);
                }
                column_width = column_width.max(shape_x - GAP - column_x);
                row_y += row_height + GAP;
            }
            height = height.max(row_y - GAP - y);
            width = column_x + column_width - x;
            column_x += column_width + 2.0 * GAP;
        }
        (width, height)
    }

    fn place(&self, number: usize, x: f32, y: f32, places: &mut [Place]) -> Place {
        let shape = &self.shapes[number];
        let letters = shown(&shape.label).chars().count().max(shown(&shape.kind).chars().count());
        let named = (letters as f32 * LETTER + 24.0).max(90.0);
        let place = if shape.is_group {
            let (w, h) = self.lay_out(Some(number), x + PAD, y + TITLE, places);
            let title = (shape.label.chars().count().min(LETTERS) + shape.kind.chars().count()) as f32
                * LETTER
                + 30.0;
            Place { x, y, w: (w + 2.0 * PAD).max(title), h: h + TITLE + PAD }
        } else {
            Place { x, y, w: named, h: BOX }
        };
        places[number] = place;
        place
    }

    /// The shapes of a group in rows: each stands below everything that it follows.
    fn layers(&self, group: Option<usize>) -> Vec<Vec<usize>> {
        let members: Vec<usize> = self.inside(group).map(|(number, _)| number).collect();
        let mut row = std::collections::BTreeMap::<usize, usize>::new();
        // Arrows lead from earlier steps to later ones, or (in a graph) to any; as many rounds as shapes settle all.
        for _ in 0..members.len() {
            let mut changed = false;
            for (from, to) in self.arrows.iter().filter(|(from, _)| members.contains(from)) {
                let below = row.get(from).copied().unwrap_or(0) + 1;
                if row.get(to).copied().unwrap_or(0) < below && below < members.len() {
                    row.insert(*to, below);
                    changed = true;
                }
            }
            if !changed {
                break;
            }
        }
        let mut layers: Vec<Vec<usize>> = Vec::new();
        for member in members {
            let at = row.get(&member).copied().unwrap_or(0);
            if layers.len() <= at {
                layers.resize(at + 1, Vec::new());
            }
            layers[at].push(member);
        }
        layers
    }

    fn draw(
        &self,
        out: &mut String,
        group: Option<usize>,
        places: &[Place],
        state: &dyn Fn(&str) -> Option<&'static str>,
    ) {
        for (number, shape) in self.inside(group) {
            let Place { x, y, w, h } = places[number];
            let class = class(shape, state(&shape.path));
            let (label, kind) = (escape(&shown(&shape.label)), escape(&shown(&shape.kind)));
            let _ok = write!(
                out,
                "<g class=\"{class}\"><title>{}</title><rect x=\"{x:.0}\" y=\"{y:.0}\" width=\"{w:.0}\" height=\"{h:.0}\" rx=\"7\"/>",
                escape(&shape.path)
            );
            let _ok = if shape.is_group {
                write!(
                    out,
                    "<text x=\"{:.0}\" y=\"{:.0}\">{label} <tspan class=\"kind\">{kind}</tspan></text>",
                    x + PAD,
                    y + 20.0
                )
            } else {
                write!(
                    out,
                    "<text x=\"{:.0}\" y=\"{:.0}\">{label}</text><text class=\"kind\" x=\"{:.0}\" y=\"{:.0}\">{kind}</text>",
                    x + 12.0,
                    y + 19.0,
                    x + 12.0,
                    y + 35.0
                )
            };
            self.draw(out, Some(number), places, state);
            out.push_str("</g>\n");
        }
    }
}

fn class(shape: &Shape, state: Option<&str>) -> String {
    let mut classes = vec![if shape.is_group { "group" } else { "step" }];
    classes.extend(shape.is_conditional.then_some("maybe"));
    classes.extend(state);
    classes.join(" ")
}

/// Down where the target is below, else around to its left side.
fn arrow(from: Place, to: Place) -> String {
    let (x, y) = (from.x + 45.0, from.y + from.h);
    if to.y >= y {
        let (tx, ty) = (to.x + 45.0, to.y - 1.0);
        let middle = f32::midpoint(y, ty);
        return format!("M{x:.0} {y:.0}C{x:.0} {middle:.0} {tx:.0} {middle:.0} {tx:.0} {ty:.0}");
    }
    let (x, y) = (from.x + from.w, from.y + from.h / 2.0);
    let (tx, ty) = (to.x - 1.0, to.y + to.h.min(BOX) / 2.0);
    let middle = f32::midpoint(x, tx);
    format!("M{x:.0} {y:.0}C{middle:.0} {y:.0} {middle:.0} {ty:.0} {tx:.0} {ty:.0}")
}

/// A name of at most [`LETTERS`] letters.
fn shown(name: &str) -> String {
    crate::console::short(name, LETTERS)
}

/// The text as XML and HTML have it, in quotes and outside of them. What XML does not have becomes a sign of its own.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\t' => out.push(c),
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{fffe}' | '\u{ffff}' => {
                out.push('\u{fffd}');
            }
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::tests::example;
    use super::*;

    #[test]
    fn steps_stand_below_each_other_and_in_their_groups() {
        let picture = example();
        let mut places = vec![Place::default(); picture.shapes.len()];
        picture.lay_out(None, 0.0, 0.0, &mut places);
        let [list, fan, think, say] = [places[0], places[1], places[2], places[3]];
        assert!(list.y + list.h < fan.y && fan.y + fan.h < say.y);
        assert!(fan.x < think.x && think.x + think.w < fan.x + fan.w && think.y + think.h < fan.y + fan.h);
    }

    #[test]
    fn names_are_escaped_and_states_are_classes() {
        let svg = example().svg(&|path| (path == "fan/think").then_some("failed"));
        assert!(svg.contains("say &quot;hi&quot; &lt;b&gt;") && !svg.contains("<b>"), "{svg}");
        assert!(svg.contains("class=\"step failed\"") && svg.contains("class=\"step maybe\""), "{svg}");
        assert_eq!(svg.matches("marker-end").count(), 2);
        assert_eq!(escape("a<\u{1b}[0m'&\u{202e}"), "a&lt;\u{fffd}[0m&#39;&amp;\u{fffd}");
    }

    #[test]
    fn a_long_list_goes_on_in_a_further_column() {
        let mut picture = Picture { name: "long".to_owned(), ..Picture::default() };
        for number in 0..30 {
            picture.shapes.push(Shape {
                path: format!("s{number}"),
                label: format!("s{number}"),
                kind: "shell".to_owned(),
                inside: None,
                is_group: false,
                is_conditional: false,
            });
        }
        picture.arrows = (1..30).map(|to| (to - 1, to)).collect();
        let mut places = vec![Place::default(); 30];
        let (_, height) = picture.lay_out(None, 0.0, 0.0, &mut places);
        assert!(height < 13.0 * (BOX + GAP), "{height}");
        assert!(places[12].x > places[11].x && places[12].y < places[11].y);
    }
}
