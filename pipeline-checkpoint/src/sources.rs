//! The texts that a run was compiled from: numbered files with an index, because their names may be anything.

use std::io;
use std::path::Path;

use pipeline_core::store::{StoreError, StoredSources};
use serde::{Deserialize, Serialize};

use crate::files;

#[derive(Serialize, Deserialize)]
struct Index {
    root: String,
    files: Vec<Entry>,
    links: Vec<(String, String, String)>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    file: String,
    name: String,
    shown: String,
}

pub(crate) fn write(dir: &Path, sources: &StoredSources) -> io::Result<()> {
    files::make_new_dir(dir)?;
    let mut index = Index { root: sources.root.clone(), files: Vec::new(), links: sources.links.clone() };
    for (number, (name, (shown, text))) in sources.files.iter().enumerate() {
        let base: String = shown
            .rsplit('/')
            .next()
            .unwrap_or_default()
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_') { c } else { '_' })
            .collect();
        let tail = base.len().saturating_sub(64);
        let file = format!("{number:03}-{}", &base[tail..]);
        files::write_atomic(&dir.join(&file), text.as_bytes())?;
        index.files.push(Entry { file, name: name.clone(), shown: shown.clone() });
    }
    files::write_atomic(&dir.join("index.json"), serde_json::to_string_pretty(&index)?.as_bytes())
}

pub(crate) fn read(dir: &Path) -> Result<StoredSources, StoreError> {
    let damaged =
        |path: &Path, message: String| StoreError::Damaged { path: path.to_owned(), offset: 0, message };
    let path = dir.join("index.json");
    let text = std::fs::read_to_string(&path).map_err(|e| damaged(&path, e.to_string()))?;
    let index: Index = serde_json::from_str(&text).map_err(|e| damaged(&path, e.to_string()))?;
    let mut sources = StoredSources { root: index.root, links: index.links, ..StoredSources::default() };
    for entry in index.files {
        let path = dir.join(&entry.file);
        let text = std::fs::read_to_string(&path).map_err(|e| damaged(&path, e.to_string()))?;
        sources.files.insert(entry.name, (entry.shown, text));
    }
    Ok(sources)
}
