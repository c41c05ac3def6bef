//! The registry, and what stands between a caller and a tool.

use std::sync::Arc;

use async_trait::async_trait;
use pipeline_core::error::{ErrorKind, StepError};
use pipeline_core::step::StepContext;
use pipeline_core::tool::{Tool, ToolOutput, ToolSource, ToolSpec};
use pipeline_core::value::Value;
use pipeline_tools::{DuplicateTool, Registry};
use serde_json::json;

use crate::support::{Fake, bomb, context, echo};

#[test]
fn tools_are_listed_by_name() {
    let registry = Registry::with_builtins();
    registry.register(echo("alpha")).unwrap();
    let names: Vec<String> = registry.list().into_iter().map(|spec| spec.name).collect();
    assert!(names.is_sorted() && names[0] == "alpha", "{names:?}");
    for builtin in
        ["calculator", "jq", "json", "list_files", "read_file", "shell", "text_stats", "write_file"]
    {
        assert!(names.iter().any(|name| name == builtin), "{builtin}");
    }
    let empty = Registry::default();
    empty.register(echo("alpha")).unwrap();
    assert_eq!(format!("{empty:?}"), r#"{"alpha"}"#);
}

#[tokio::test]
async fn a_second_registration_is_an_error_and_changes_nothing() {
    let registry = Registry::default();
    registry.register(echo("x")).unwrap();
    let error = registry.register(bomb("x")).unwrap_err();
    assert_eq!(error, DuplicateTool { name: "x".to_owned() });
    assert!(error.to_string().contains("`x`"));
    let output = registry.get("x").unwrap().call(json!(1), &context()).await.unwrap();
    assert_eq!(output.data, json!(1), "the first one answers");
}

#[test]
fn a_name_is_free_again_after_unregistering() {
    let registry = Registry::default();
    registry.register(echo("x")).unwrap();
    assert_eq!(registry.unregister("x").unwrap().spec().name, "x");
    assert!(registry.unregister("x").is_none());
    assert!(registry.get("x").is_none());
    registry.register(echo("x")).unwrap();
    assert!(registry.get("x").is_some());
}

#[tokio::test]
async fn arguments_are_checked_before_the_tool_sees_them() {
    let parameters = json!({
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 1}},
        "required": ["city"],
    });
    let registry = Registry::default();
    let tool = Fake {
        name: "weather".to_owned(),
        parameters,
        answer: |arguments| {
            assert!(arguments["city"].is_string(), "the tool was called with what does not fit");
            Ok(arguments)
        },
    };
    registry.register(Arc::new(tool)).unwrap();
    let weather = registry.get("weather").unwrap();
    let fits = json!({"city": "Oslo", "days": 2});
    assert_eq!(weather.call(fits.clone(), &context()).await.unwrap().data, fits);

    let error = weather.call(json!({"city": 5, "days": 0}), &context()).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Invalid);
    assert!(error.message.starts_with("the arguments of tool `weather` do not fit its schema: "));
    assert!(
        error.message.contains("at `/city`") && error.message.contains("at `/days`"),
        "{}",
        error.message
    );
    assert_eq!(error.details["violations"].as_array().unwrap().len(), 2);
    let error = weather.call(json!({}), &context()).await.unwrap_err();
    assert!(error.message.contains("city"), "{}", error.message);
}

/// A tool that panics before there is a future to poll.
struct AtOnce;

impl Tool for AtOnce {
    fn spec(&self) -> ToolSpec {
        ToolSpec { name: "at_once".to_owned(), description: String::new(), parameters: json!({}) }
    }

    fn call<'a, 'b, 'c>(
        &'a self,
        _arguments: Value,
        _cx: &'b StepContext,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<ToolOutput, StepError>> + Send + 'c>>
    where
        'a: 'c,
        'b: 'c,
        Self: 'c,
    {
        std::panic::panic_any(7)
    }
}

/// A tool that panics with a formatted message, after it has waited.
struct Later;

#[async_trait]
impl Tool for Later {
    fn spec(&self) -> ToolSpec {
        ToolSpec { name: "later".to_owned(), description: String::new(), parameters: json!({}) }
    }

    async fn call(&self, arguments: Value, _cx: &StepContext) -> Result<ToolOutput, StepError> {
        tokio::task::yield_now().await;
        panic!("cannot do {arguments}")
    }
}

#[tokio::test]
async fn a_panic_of_a_tool_is_an_error() {
    let registry = Registry::default();
    let tools: [Arc<dyn Tool>; 3] = [Arc::new(AtOnce), Arc::new(Later), bomb("bomb")];
    for tool in tools {
        registry.register(tool).unwrap();
    }
    let cases = [
        ("at_once", "tool `at_once` panicked: it gave no reason"),
        ("later", "tool `later` panicked: cannot do 5"),
        ("bomb", "tool `bomb` panicked: boom"),
    ];
    for (name, message) in cases {
        let error = registry.get(name).unwrap().call(json!(5), &context()).await.unwrap_err();
        assert_eq!((error.kind, error.message.as_str()), (ErrorKind::Panicked, message));
    }
}
