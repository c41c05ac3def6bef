//! `data_transform`: filters, reshapes and sums up rows, without a model.
//!
//! Owns the step: its input, the order of its operations, the shape of its value. Must not have effects. Reading order:
//! `config.rs` (what is written), `cell.rs` (values of a row), `rows.rs` and `summary.rs` (the operations).

mod cell;
mod config;
mod rows;
mod summary;

use std::borrow::Cow;

use async_trait::async_trait;
use pipeline_core::document::Node;
use pipeline_core::error::{ErrorKind, StepError};
use pipeline_core::plan::CheckContext;
use pipeline_core::step::{Step, StepContext, StepOutput, StepSpec};
use pipeline_core::value::{Data, Value};
use serde_json::Map;

use config::{Config, Format, Kind, Operation};
use rows::{Row, Table};

const EXAMPLE: &str = r#"workflow:
  name: best_orders
  steps:
    - name: orders
      type: set_variable
      variables:
        orders:
          - {id: 1, status: completed, total: 250}
          - {id: 2, status: pending, total: 80}
          - {id: 3, status: completed, total: 310}
    - name: best
      type: data_transform
      input_source: state.orders
      operations:
        - {operation: filter, condition: "status == 'completed' and total > 100"}
        - {operation: sort, field: total, order: desc}
"#;

/// The step type `data_transform`.
pub(crate) struct DataTransform;

#[async_trait]
impl Step for DataTransform {
    fn spec(&self) -> StepSpec {
        StepSpec {
            kind: "data_transform",
            summary: "Filters, maps, sorts, joins, groups and sums up rows.",
            schema: schemars::schema_for!(Config),
            example: EXAMPLE,
        }
    }

    fn check(&self, config: &Node, cx: &mut CheckContext<'_>) {
        config::check(config, cx);
    }

    fn fields(&self, config: &Node) -> Option<Vec<String>> {
        let name = match config.get("output_field") {
            Some(written) => written.as_text()?,
            None => config.get("name").and_then(Node::as_text)?,
        };
        (!name.contains("{{")).then(|| vec![name.to_owned(), "count".to_owned()])
    }

    async fn run(&self, cx: &StepContext, with: Data) -> Result<StepOutput, StepError> {
        let Written { config, input, others } = Written::of(cx, &with)?;
        let mut table = match Table::of(Cow::Borrowed(input.json())) {
            Table::One(value) if value.is_null() => {
                return Err(StepError::invalid(format!("the `input_source` of `{}` is null", cx.key.path))
                    .help("point it at a list of rows"));
            }
            table => table,
        };
        for (index, (operation, other)) in config.operations.iter().zip(&others).enumerate() {
            table = apply(cx, operation, table, other.as_ref()).await.map_err(|mut error| {
                error.message =
                    format!("operation {} ({}): {}", index + 1, operation.kind.name(), error.message);
                error
            })?;
        }
        let name = config.output_field.unwrap_or_else(|| {
            let path = cx.key.path.as_str();
            path.rsplit('/').next().unwrap_or(path).to_owned()
        });
        Ok(StepOutput::ok(value(name, table, config.output_format)))
    }
}

/// The configuration, and apart from it the rows, which nobody needs to copy.
struct Written {
    config: Config,
    input: Data,
    /// The `right_source` of each operation.
    others: Vec<Option<Data>>,
}

impl Written {
    fn of(cx: &StepContext, with: &Data) -> Result<Self, StepError> {
        let (mut rest, mut input, mut others) = (Map::new(), Data::null(), Vec::new());
        for (key, value) in with.fields() {
            match key.as_str() {
                "input_source" => {
                    rest.insert(key, Value::Null);
                    input = value;
                }
                "operations" => {
                    let operation = |operation: Data| {
                        let mut fields = operation.fields();
                        let other = fields.iter().position(|(key, _)| key == "right_source");
                        others.push(other.map(|place| fields.remove(place).1));
                        fields.into_iter().map(|(key, value)| (key, value.into_json())).collect::<Value>()
                    };
                    rest.insert(key, value.items().into_iter().map(operation).collect());
                }
                _ => drop(rest.insert(key, value.into_json())),
            }
        }
        Ok(Self { config: cx.decode(Value::Object(rest))?, input, others })
    }
}

/// Does one operation.
async fn apply<'a>(
    cx: &StepContext,
    operation: &Operation,
    table: Table<'a>,
    other: Option<&Data>,
) -> Result<Table<'a>, StepError> {
    let table = table.inner_list(operation.field.as_deref());
    if operation.kind == Kind::Query {
        return query(cx, operation, table).await;
    }
    if operation.kind == Kind::Aggregate {
        return summary::aggregate(operation, table);
    }
    match table {
        Table::Rows(rows) => one_list(operation, rows, other).await,
        Table::Groups(mut groups) => {
            for rows in groups.values_mut() {
                let Table::Rows(changed) = one_list(operation, std::mem::take(rows), other).await? else {
                    return Err(StepError::invalid("the rows are grouped already")
                        .help("put the second grouping into a data_transform of its own"));
                };
                *rows = changed;
            }
            Ok(Table::Groups(groups))
        }
        Table::One(value) => Err(not_rows(&value)),
    }
}

/// Runs a jq program over everything.
async fn query<'a>(
    cx: &StepContext,
    operation: &Operation,
    table: Table<'a>,
) -> Result<Table<'a>, StepError> {
    let Some(program) = &operation.query else {
        return Err(StepError::invalid("`query` is missing").help("add `query: …`, a jq program"));
    };
    let Some(host) = &cx.services.jq else {
        let message = "this program was put together without jq";
        return Err(StepError::new(ErrorKind::Unsupported, message)
            .help("use the other operations, or a build with the feature `jq`"));
    };
    let mut outputs = host.run(program, &table.into_value(), cx.deadline).await?;
    let one = if outputs.len() == 1 { outputs.pop() } else { None };
    Ok(Table::of(Cow::Owned(one.unwrap_or(Value::Array(outputs)))))
}

async fn one_list<'a>(
    operation: &Operation,
    list: Vec<Row<'a>>,
    other: Option<&Data>,
) -> Result<Table<'a>, StepError> {
    let list = match operation.kind {
        Kind::Filter => rows::filter(operation, list).await?,
        Kind::Map => rows::map(operation, list).await?,
        Kind::Sort => rows::sort(operation, list)?,
        Kind::Unique => rows::unique(operation, list),
        Kind::Select => rows::select(operation, list)?,
        Kind::Limit => rows::limit(operation, list)?,
        Kind::Flatten => rows::flatten(operation, list),
        Kind::Join => rows::join(operation, list, other.map(Data::json)).await?,
        Kind::GroupBy => return summary::group_by(operation, list),
        // Both take everything at once, and were done before.
        Kind::Aggregate | Kind::Query => list,
    };
    Ok(Table::Rows(list))
}

fn not_rows(value: &Value) -> StepError {
    let (what, help) = match value {
        Value::Object(fields) => {
            let lists: Vec<&str> =
                fields.iter().filter(|(_, v)| v.is_array()).map(|(k, _)| k.as_str()).take(12).collect();
            let help = match lists.first() {
                Some(first) => {
                    format!("it has the lists {}: add `.{first}` to `input_source`", lists.join(", "))
                }
                None => "point `input_source` at a list".to_owned(),
            };
            ("a map", help)
        }
        Value::String(_) => (
            "text",
            "point `input_source` at a list; text from a model is read as JSON only \
            when all of it is JSON"
                .to_owned(),
        ),
        _ => ("a single value", "point `input_source` at a list".to_owned()),
    };
    StepError::invalid(format!("it needs a list of rows, and it got {what}")).help(help)
}

/// The step's value: the result under its name, and how many there are.
fn value(name: String, table: Table<'_>, format: Option<Format>) -> Value {
    let count = match &table {
        Table::Rows(rows) => rows.len(),
        Table::Groups(groups) => groups.len(),
        Table::One(_) => 1,
    };
    let plain = table.into_value();
    let shown = match format {
        None => plain,
        Some(Format::Json) => Value::String(plain.to_string()),
        Some(Format::String) => match plain {
            Value::String(text) => Value::String(text),
            other => Value::String(other.to_string()),
        },
        Some(Format::Count) => count.into(),
    };
    let mut result = Map::new();
    result.insert(name, shown);
    // The compiler refuses an output field of this name; a rendered one wins over the count.
    result.entry("count").or_insert(count.into());
    Value::Object(result)
}
