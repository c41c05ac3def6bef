//! What is written in a `data_transform` step.
//!
//! Owns the configuration and the table of which operation takes which keys. Must not touch rows.

use pipeline_core::document::Node;
use pipeline_core::expr::RowExpr;
use pipeline_core::plan::CheckContext;
use pipeline_core::value::Value;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Map;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// The rows: an expression that gives a list, such as `steps.load.orders`.
    #[schemars(extend("x-kind" = "expression"))]
    #[expect(dead_code, reason = "for the schema: rows are taken around the reading, which would copy them")]
    pub(super) input_source: Value,
    /// What to do with the rows, in order. Without any, they stay as they are.
    #[serde(default)]
    pub(super) operations: Vec<Operation>,
    /// The name of the result in this step's value; the step's own name when it is left out.
    #[serde(default)]
    pub(super) output_field: Option<String>,
    /// The form of the result: `json` and `string` make it text, `count` only counts.
    #[serde(default)]
    pub(super) output_format: Option<Format>,
}

/// The form of the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Format {
    Json,
    String,
    Count,
}

/// What an operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    /// Keeps the rows for which a condition holds.
    Filter,
    /// Changes each row, or one field of it.
    Map,
    /// Sums rows up to one value, or to one for each group.
    Aggregate,
    /// Puts each row together with every row of another list that has the same key.
    Join,
    /// Sorts rows into lists by the value of a field.
    GroupBy,
    /// Orders rows; those without the field come last.
    Sort,
    /// Keeps the first of rows that are the same.
    Unique,
    /// Makes one list of lists.
    Flatten,
    /// Keeps some fields of each row.
    Select,
    /// Keeps some rows.
    Limit,
    /// Runs a jq program over all of it.
    Query,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Filter => "filter",
            Self::Map => "map",
            Self::Aggregate => "aggregate",
            Self::Join => "join",
            Self::GroupBy => "group_by",
            Self::Sort => "sort",
            Self::Unique => "unique",
            Self::Flatten => "flatten",
            Self::Select => "select",
            Self::Limit => "limit",
            Self::Query => "query",
        }
    }

    /// The groups of keys of which at least one must be there, and the keys that may be.
    fn keys(self) -> (&'static [&'static [&'static str]], &'static [&'static str]) {
        match self {
            Self::Filter => (&[&["condition", "field"]], &["condition", "field"]),
            Self::Map => (&[&["expression", "mapping"]], &["field", "expression", "mapping"]),
            Self::Aggregate => (&[], &["field", "function", "group_by", "as"]),
            Self::Join => (
                &[&["right_source"], &["left_field", "join_key"]],
                &["right_source", "left_field", "join_key", "join_type", "as"],
            ),
            Self::GroupBy => (&[&["field"]], &["field"]),
            Self::Sort => (&[], &["field", "order", "by"]),
            Self::Unique => (&[], &["field", "fields"]),
            Self::Flatten => (&[], &["field"]),
            Self::Select => (&[&["fields"]], &["field", "fields"]),
            Self::Limit => (&[&["count"]], &["field", "count", "offset"]),
            Self::Query => (&[&["query"]], &["field", "query"]),
        }
    }
}

/// One operation. Which keys it takes depends on `operation`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Operation {
    /// What to do.
    #[serde(rename = "operation")]
    pub(super) kind: Kind,
    /// The field of the rows that it is about; `a.b` and `a[0]` reach inside. When the input is a map, it names the list
    /// in it that holds the rows.
    #[serde(default)]
    pub(super) field: Option<String>,
    /// filter: keeps the rows for which this holds. Names are the row's fields; `item` is the row, `value` its `field`.
    #[serde(default)]
    pub(super) condition: Option<RowExpr>,
    /// map: what becomes of the row, or of its `field`. `uppercase` and `lowercase` change the text of `field`.
    #[serde(default)]
    pub(super) expression: Option<RowExpr>,
    /// map: old values of `field` and what stands for them; others stay. Without `field`, it is merged into every row.
    #[serde(default)]
    pub(super) mapping: Option<Map<String, Value>>,
    /// aggregate: what to compute.
    #[serde(default)]
    pub(super) function: Function,
    /// aggregate: one result for each value of this field, as rows.
    #[serde(default)]
    pub(super) group_by: Option<String>,
    /// join: the name under which the row of `right_source` is put, instead of merging it.
    /// aggregate with group_by: the name of the result in each row.
    #[serde(default, rename = "as")]
    pub(super) alias: Option<String>,
    /// join: the other rows, as an expression.
    #[serde(default)]
    #[schemars(extend("x-kind" = "expression"))]
    #[expect(dead_code, reason = "as `input_source`")]
    pub(super) right_source: Option<Value>,
    /// join: the field of these rows; the same as `join_key` when it is left out.
    #[serde(default)]
    pub(super) left_field: Option<String>,
    /// join: the field of the other rows; the same as `left_field` when it is left out.
    #[serde(default)]
    pub(super) join_key: Option<String>,
    /// join: `left` keeps rows without a partner, `inner` drops them. A row with several partners
    /// becomes several rows, in the order of the partners.
    #[serde(default)]
    pub(super) join_type: JoinType,
    /// sort: ascending or descending. Rows without the field come last either way.
    #[serde(default)]
    pub(super) order: Order,
    /// sort: several fields, the first counts most; each a name, or `{field, order}`.
    #[serde(default)]
    pub(super) by: Option<Keys>,
    /// select: the fields to keep, or a map of new names to fields. unique: the fields that make a row the same.
    #[serde(default)]
    pub(super) fields: Option<Fields>,
    /// limit: how many rows to keep.
    #[serde(default)]
    pub(super) count: Option<u64>,
    /// limit: how many rows to leave out first.
    #[serde(default)]
    pub(super) offset: u64,
    /// query: a jq program. Its input is the list of rows (or what else the operation before gave); one output is the
    /// result, several are rows. It runs in a process of its own that sees no environment and no clock.
    #[serde(default)]
    #[schemars(extend("x-kind" = "raw"))]
    pub(super) query: Option<String>,
}

/// What an aggregate computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Function {
    /// The sum; whole as long as all numbers are whole.
    #[default]
    Sum,
    /// The mean; null for no rows.
    Average,
    /// How many rows have the field.
    Count,
    /// How many different values there are.
    CountDistinct,
    /// The smallest value; null for no rows.
    Min,
    /// The largest value; null for no rows.
    Max,
    /// The middle value; null for no rows.
    Median,
    /// The first value; null for no rows.
    First,
    /// The last value; null for no rows.
    Last,
    /// The different values, in order of first appearance.
    Unique,
}

impl Function {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Sum => "sum",
            Self::Average => "average",
            Self::Count => "count",
            Self::CountDistinct => "count_distinct",
            Self::Min => "min",
            Self::Max => "max",
            Self::Median => "median",
            Self::First => "first",
            Self::Last => "last",
            Self::Unique => "unique",
        }
    }
}

/// Which rows a join keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum JoinType {
    #[default]
    Left,
    Inner,
}

/// Which way a sort goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Order {
    #[default]
    Asc,
    Desc,
}

/// Fields to sort by.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum Keys {
    One(String),
    Many(Vec<Key>),
}

/// One field to sort by.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum Key {
    Name(String),
    Full(FullKey),
}

/// A field to sort by, with its direction.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct FullKey {
    /// The field.
    pub(super) field: String,
    /// Ascending or descending.
    #[serde(default)]
    pub(super) order: Order,
}

/// Fields of a row.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum Fields {
    One(String),
    Many(Vec<String>),
    Renamed(Map<String, Value>),
}

/// Finds operations that lack a key, or have one that does nothing there.
pub(super) fn check(config: &Node, cx: &mut CheckContext<'_>) {
    if let Some(field) = config.get("output_field")
        && field.as_text() == Some("count")
    {
        let message = "`output_field` cannot be `count`: the step's value has that field already";
        cx.error("E0109", field.span, message, "choose another name");
    }
    for node in config.get("operations").map(Node::items).unwrap_or_default() {
        let kind = node.get("operation").map(Node::to_json);
        let Some(kind) = kind.and_then(|k| serde_json::from_value::<Kind>(k).ok()) else { continue };
        let (needed, known) = kind.keys();
        for group in needed {
            if group.iter().all(|key| node.get(key).is_none()) {
                let words = group.iter().map(|k| format!("`{k}`")).collect::<Vec<_>>().join(" or ");
                let message = format!("the operation `{}` needs {words}", kind.name());
                cx.missing(node, group, node.span, message, &format!("add `{}: …`", group[0]));
            }
        }
        for entry in node.entries() {
            if entry.key != "operation" && !known.contains(&entry.key.as_str()) {
                let message = format!("the operation `{}` does nothing with `{}`", kind.name(), entry.key);
                let help = format!("it takes: {}", known.join(", "));
                cx.warning("E0110", entry.key_span, message, &help);
            }
        }
    }
}
