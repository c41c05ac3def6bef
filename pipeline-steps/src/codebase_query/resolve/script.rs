//! Where JavaScript and TypeScript look for modules.
//!
//! Owns the way from `./a` or the name of a package of this codebase to a file.

use super::{Resolver, Target, joined};
use crate::codebase_query::facts::Import;
use crate::codebase_query::language::directory;

const ENDINGS: &[&str] =
    &["ts", "tsx", "d.ts", "js", "jsx", "mjs", "cjs", "mts", "cts", "json", "vue", "svelte"];

impl Resolver<'_> {
    pub(super) fn script(&self, from: &str, import: &Import) -> Target {
        let module = import.module.as_str();
        if module.starts_with('.') {
            return Target::Files(self.relative(directory(from), module).into_iter().collect());
        }
        for (name, dir) in &self.packages {
            let Some(rest) = module.strip_prefix(name.as_str()) else { continue };
            let rest = rest.trim_start_matches('/');
            if rest.is_empty() || module.as_bytes().get(name.len()) == Some(&b'/') {
                let found = ["src", "lib", ""]
                    .iter()
                    .find_map(|part| self.script_file(&joined(&joined(dir, part), rest)));
                return Target::Files(found.into_iter().collect());
            }
        }
        let parts = if module.starts_with('@') { 2 } else { 1 };
        Target::Package(module.split('/').take(parts).collect::<Vec<_>>().join("/"))
    }

    fn relative(&self, dir: &str, module: &str) -> Option<usize> {
        let mut parts: Vec<&str> = dir.split('/').filter(|part| !part.is_empty()).collect();
        for part in module.split('/') {
            match part {
                "" | "." => {}
                // Above the top there is nothing of this codebase.
                ".." => {
                    parts.pop()?;
                }
                part => parts.push(part),
            }
        }
        self.script_file(&parts.join("/"))
    }

    fn script_file(&self, base: &str) -> Option<usize> {
        let ended = |base: &str| ENDINGS.iter().map(|ending| format!("{base}.{ending}")).collect::<Vec<_>>();
        // TypeScript is imported by the name that it is compiled to.
        let compiled = base.rsplit_once('.').map_or_else(Vec::new, |(stem, ending)| match ending {
            "js" => vec![format!("{stem}.ts"), format!("{stem}.tsx"), format!("{stem}.d.ts")],
            "jsx" => vec![format!("{stem}.tsx")],
            "mjs" => vec![format!("{stem}.mts")],
            "cjs" => vec![format!("{stem}.cts")],
            _ => Vec::new(),
        });
        if base.is_empty() {
            return self.first(ended("index"));
        }
        self.at(base)
            .or_else(|| self.first(compiled))
            .or_else(|| self.first(ended(base)))
            .or_else(|| self.first(ended(&joined(base, "index"))))
    }
}
