//! `data_transform`: filters, reshapes and sums up rows, without a model.
//!
//! Owns the step: its input, the order of its operations, the shape of its value. Must not have effects. Reading order:
//! `config.rs` (what is written), `cell.rs` (values of a row), `rows.rs` and `summary.rs` (the operations).

mod cell;
mod config;
mod rows;
mod summary;

use async_trait::async_trait;
use pipeline_core::document::Node;
use pipeline_core::error::{ErrorKind, StepError};
use pipeline_core::plan::CheckContext;
use pipeline_core::step::{Step, StepContext, StepOutput, StepSpec};
use pipeline_core::value::Value;
use serde_json::Map;

use config::{Config, Format, Kind, Operation};
use rows::Data;

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

    async fn run(&self, cx: &StepContext, with: Value) -> Result<StepOutput, StepError> {
        let config = config(cx, with)?;
        let mut data = match config.input_source {
            Value::Null => {
                return Err(StepError::invalid(format!("the `input_source` of `{}` is null", cx.key.path))
                    .help("point it at a list of rows"));
            }
            Value::Array(rows) => Data::Rows(rows),
            other => Data::One(other),
        };
        for (index, operation) in config.operations.into_iter().enumerate() {
            let kind = operation.kind;
            data = apply(cx, operation, data).await.map_err(|mut error| {
                error.message = format!("operation {} ({}): {}", index + 1, kind.name(), error.message);
                error
            })?;
        }
        let name = config.output_field.unwrap_or_else(|| {
            let path = cx.key.path.as_str();
            path.rsplit('/').next().unwrap_or(path).to_owned()
        });
        Ok(StepOutput::ok(value(name, data, config.output_format)))
    }
}

/// Reads the configuration. The rows are moved around the reading, which would copy each of them.
fn config(cx: &StepContext, mut with: Value) -> Result<Config, StepError> {
    let input = with.get_mut("input_source").map(Value::take);
    let operations = with.get_mut("operations").and_then(Value::as_array_mut);
    let others: Vec<Option<Value>> = operations
        .into_iter()
        .flatten()
        .map(|operation| operation.get_mut("right_source").map(Value::take))
        .collect();
    let mut config: Config = cx.decode(with)?;
    config.input_source = input.unwrap_or_default();
    for (operation, other) in config.operations.iter_mut().zip(others) {
        operation.right_source = other;
    }
    Ok(config)
}

/// Does one operation.
async fn apply(cx: &StepContext, operation: Operation, data: Data) -> Result<Data, StepError> {
    let data = data.inner_list(operation.field.as_deref());
    if operation.kind == Kind::Query {
        return query(cx, &operation, data).await;
    }
    if operation.kind == Kind::Aggregate {
        return summary::aggregate(&operation, data);
    }
    match data {
        Data::Rows(rows) => one_list(&operation, rows).await,
        Data::Groups(groups) => {
            let mut changed = Map::new();
            for (key, rows) in groups {
                let Value::Array(rows) = rows else { continue };
                let Data::Rows(rows) = one_list(&operation, rows).await? else {
                    return Err(StepError::invalid("the rows are grouped already")
                        .help("put the second grouping into a data_transform of its own"));
                };
                changed.insert(key, Value::Array(rows));
            }
            Ok(Data::Groups(changed))
        }
        Data::One(value) => Err(not_rows(&value)),
    }
}

/// Runs a jq program over everything.
async fn query(cx: &StepContext, operation: &Operation, data: Data) -> Result<Data, StepError> {
    let Some(program) = &operation.query else {
        return Err(StepError::invalid("`query` is missing").help("add `query: …`, a jq program"));
    };
    let Some(host) = &cx.services.jq else {
        let message = "this program was put together without jq";
        return Err(StepError::new(ErrorKind::Unsupported, message)
            .help("use the other operations, or a build with the feature `jq`"));
    };
    let mut outputs = host.run(program, &data.into_value(), cx.deadline).await?;
    let one = if outputs.len() == 1 { outputs.pop() } else { None };
    Ok(match one {
        Some(Value::Array(rows)) => Data::Rows(rows),
        Some(other) => Data::One(other),
        None => Data::Rows(outputs),
    })
}

async fn one_list(operation: &Operation, list: Vec<Value>) -> Result<Data, StepError> {
    let list = match operation.kind {
        Kind::Filter => rows::filter(operation, list).await?,
        Kind::Map => rows::map(operation, list).await?,
        Kind::Sort => rows::sort(operation, list)?,
        Kind::Unique => rows::unique(operation, list),
        Kind::Select => rows::select(operation, list)?,
        Kind::Limit => rows::limit(operation, list)?,
        Kind::Flatten => rows::flatten(operation, list),
        Kind::Join => rows::join(operation, list).await?,
        Kind::GroupBy => return summary::group_by(operation, list),
        // Both take everything at once, and were done before.
        Kind::Aggregate | Kind::Query => list,
    };
    Ok(Data::Rows(list))
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
fn value(name: String, data: Data, format: Option<Format>) -> Value {
    let count = match &data {
        Data::Rows(rows) => rows.len(),
        Data::Groups(groups) => groups.len(),
        Data::One(_) => 1,
    };
    let plain = data.into_value();
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
