//! The files of a workspace inside a snapshot.
//!
//! Owns their form: path, base64 of the packed bytes. Links are left out: what they point at may lie elsewhere. Must not know
//! where snapshots are stored.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;
use pipeline_core::error::{ErrorKind, StepError};
use pipeline_core::step::StepContext;
use serde::{Deserialize, Serialize};

use crate::atomic;
use crate::confine::Roots;

/// Bytes of files that a snapshot may hold, and bytes that a packed one may unpack to.
const MOST: u64 = 64 << 20;

/// One file.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Stored {
    path: String,
    content: String,
}

/// Every plain file of the workspace, by path.
pub(super) async fn read(cx: &StepContext) -> Result<Vec<Stored>, StepError> {
    let roots = Roots::write(cx);
    let (root, base) = roots.open(&cx.workspace, &cx.run.dirs.working)?;
    let mut files = Vec::new();
    let mut left = MOST;
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        tokio::task::yield_now().await;
        let at = base.join(&folder);
        let failed = |e: std::io::Error| roots.failure(&cx.workspace.join(&folder), &e);
        for entry in root.read_dir(&at).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let path = folder.join(entry.file_name());
            let kind = entry.file_type().map_err(failed)?;
            if kind.is_dir() {
                folders.push(path);
                continue;
            }
            if !kind.is_file() {
                continue;
            }
            let size = entry.metadata().map_err(failed)?.len();
            left = left.checked_sub(size).ok_or_else(|| {
                StepError::new(ErrorKind::TooLarge, format!("the workspace is over {} MiB", MOST >> 20))
                    .help("copy what matters with file_ops, or leave `include_workspace` out")
            })?;
            let bytes = root.read(base.join(&path)).map_err(failed)?;
            let Some(path) = path.to_str() else { continue };
            files.push(Stored { path: path.to_owned(), content: pack(&bytes)? });
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

/// Puts files back, each whole. Files that the snapshot does not have stay.
pub(super) async fn write(cx: &StepContext, files: &[Stored]) -> Result<(), StepError> {
    let roots = Roots::write(cx);
    let (root, base) = roots.open(&cx.workspace, &cx.run.dirs.working)?;
    for file in files {
        let bytes = unpack(&file.content).map_err(|e| {
            StepError::new(ErrorKind::Environment, format!("`{}` cannot be read: {e}", file.path))
        })?;
        let path = base.join(Path::new(&file.path));
        atomic::write(&root, &path, &bytes)
            .await
            .map_err(|error| roots.failure(&cx.workspace.join(&file.path), &error))?;
    }
    Ok(())
}

/// Packed bytes as text.
pub(super) fn pack(bytes: &[u8]) -> Result<String, StepError> {
    let failed = |e: std::io::Error| StepError::new(ErrorKind::Internal, e.to_string());
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).map_err(failed)?;
    Ok(STANDARD.encode(encoder.finish().map_err(failed)?))
}

/// The bytes of a packed text.
pub(super) fn unpack(text: &str) -> Result<Vec<u8>, String> {
    let packed = STANDARD.decode(text).map_err(|e| e.to_string())?;
    let mut bytes = Vec::new();
    let limit = 4 * MOST;
    DeflateDecoder::new(packed.as_slice())
        .take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| e.to_string())?;
    if bytes.len() as u64 > limit { Err(format!("it is over {} MiB", limit >> 20)) } else { Ok(bytes) }
}
