//! Licences of everything that the program is built from.
//!
//! Owns the list of licences that may be, and the reading of SPDX expressions against it. Must not know where they come from: the
//! manifests of the packages say them, so nothing is fetched.

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// Licences under which a program may be passed on with no more than their text beside it.
const ALLOWED: [&str; 12] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Packages whose licence is not among those that may be, or is not told.
pub fn problems(metadata: &Value) -> Result<Vec<String>> {
    let packages = metadata["packages"].as_array().context("cargo metadata lists no packages")?;
    let mut problems = Vec::new();
    for package in packages {
        let name = package["name"].as_str().unwrap_or("a package without a name");
        let Some(licence) = package["license"].as_str() else {
            problems.push(format!("{name} does not say its licence"));
            continue;
        };
        match is_allowed(licence) {
            Ok(true) => {}
            Ok(false) => {
                problems
                    .push(format!("{name} is under `{licence}`, which xtask/src/licences.rs does not allow"));
            }
            Err(error) => problems.push(format!("{name}: `{licence}` cannot be read: {error}")),
        }
    }
    Ok(problems)
}

/// Whether a choice that an expression gives is allowed. `MIT/Apache-2.0` is an old way to write `OR`.
fn is_allowed(expression: &str) -> Result<bool> {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = words.as_slice();
    let allowed = any(&mut rest)?;
    match rest {
        [] => Ok(allowed),
        [word, ..] => bail!("`{word}` stands where the end should be"),
    }
}

fn any(rest: &mut &[&str]) -> Result<bool> {
    let mut allowed = all(rest)?;
    while take(rest, "OR") {
        allowed |= all(rest)?;
    }
    Ok(allowed)
}

fn all(rest: &mut &[&str]) -> Result<bool> {
    let mut allowed = one(rest)?;
    while take(rest, "AND") {
        allowed &= one(rest)?;
    }
    Ok(allowed)
}

fn one(rest: &mut &[&str]) -> Result<bool> {
    if take(rest, "(") {
        let allowed = any(rest)?;
        if !take(rest, ")") {
            bail!("a bracket is not closed");
        }
        return Ok(allowed);
    }
    let [id, after @ ..] = *rest else { bail!("it ends too early") };
    *rest = after;
    if take(rest, "WITH") {
        let [exception, after @ ..] = *rest else { bail!("it ends too early") };
        *rest = after;
        return Ok(ALLOWED.contains(&format!("{id} WITH {exception}").as_str()));
    }
    Ok(ALLOWED.contains(id))
}

fn take(rest: &mut &[&str], word: &str) -> bool {
    match *rest {
        [first, after @ ..] if *first == word => {
            *rest = after;
            true
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

    use super::*;
    use serde_json::json;

    #[test]
    fn a_choice_is_enough_and_a_sum_needs_all_of_it() {
        for good in [
            "MIT",
            "MIT/Apache-2.0",
            "GPL-2.0-only OR Apache-2.0",
            "(MIT OR GPL-3.0-only) AND Unicode-3.0",
            "Apache-2.0 WITH LLVM-exception",
        ] {
            assert!(is_allowed(good).unwrap(), "{good}");
        }
        for bad in [
            "GPL-3.0-only",
            "MIT AND GPL-3.0-only",
            "MIT AND (GPL-3.0-only OR AGPL-3.0-only)",
            "GPL-2.0-only WITH Classpath-exception-2.0",
            "mit",
        ] {
            assert!(!is_allowed(bad).unwrap(), "{bad}");
        }
        for torn in ["", "MIT OR", "(MIT", "MIT Apache-2.0", "MIT WITH"] {
            assert!(is_allowed(torn).is_err(), "{torn}");
        }
    }

    #[test]
    fn packages_that_may_not_be_are_named() {
        let metadata = json!({"packages": [
            {"name": "a", "license": "MIT"},
            {"name": "b", "license": "AGPL-3.0-only"},
            {"name": "c", "license": null},
        ]});
        let told = problems(&metadata).unwrap();
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].starts_with("b is under `AGPL-3.0-only`") && told[1].starts_with("c does not say"));
    }
}
