//! References as the original system wrote them.

/// The expression that a legacy reference means, if the text is one: `previous_response:step.path`,
/// `previous_response:step:path`, `step:path`. `known` says whether a name is a step or an output field.
pub fn rewrite_legacy(text: &str, known: impl Fn(&str) -> bool) -> Option<String> {
    let text = text.trim();
    let is_path = |t: &str| {
        !t.is_empty()
            && t.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '.' | '-' | '[' | ']' | ':' | '*'))
    };
    let rest = match text.strip_prefix("previous_response:") {
        Some(rest) => rest,
        None if text.split_once(':').is_some_and(|(name, _)| known(name)) => text,
        None => return None,
    };
    if !is_path(rest) {
        return None;
    }
    let dotted = rest.replace(':', ".");
    let (name, path) = dotted.split_once('.').map_or((dotted.as_str(), None), |(n, p)| (n, Some(p)));
    let step = format!("steps['{name}']");
    Some(path.map_or_else(|| format!("{step}.result"), |path| format!("{step}.{path}")))
}
