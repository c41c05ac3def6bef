//! What grows with a run is on disk, not in memory.

use std::fs;
use std::path::Path;

use pipeline_checkpoint::FileStore;
use pipeline_core::clock::Timestamp;
use pipeline_core::conformance::store::{effect, manifest};
use pipeline_core::store::CheckpointStore;
use serde_json::json;

use crate::support::{Temporary, block_on, child, sources, state_of_child, write};

/// Memory in use, in KiB, and open files, of this process; `None` where the system does not tell.
fn in_use() -> Option<(u64, usize)> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    let handles = fs::read_dir("/proc/self/fd").ok()?.count();
    Some((line.trim().strip_suffix(" kB")?.parse().ok()?, handles))
}

/// Measured in a process that does nothing else.
/// Naive: everything that happened is kept in memory until the end.
/// Figure: 100,000 records.
#[test]
fn x19_a_hundred_thousand_records_take_bounded_memory_and_no_more_files() {
    if let Some(state) = state_of_child() {
        block_on(append_and_measure(&FileStore::new(&state), &state.join("runs/run")));
        return;
    }
    let temporary = Temporary::new();
    let test = "growth::x19_a_hundred_thousand_records_take_bounded_memory_and_no_more_files";
    let measured = child(test, &temporary).output().unwrap();
    assert!(measured.status.success(), "{}", String::from_utf8_lossy(&measured.stderr));
    assert!(block_on(temporary.store.list()).unwrap().len() == 1, "the measurement took place");
}

async fn append_and_measure(store: &FileStore, dir: &Path) {
    let mut log = store.create(&manifest("run", 1), &sources()).await.unwrap();
    let mut append = async |count: u64| {
        for number in 0..count {
            log.append(Timestamp(1), number, vec![effect(json!({"n": number, "pad": "x".repeat(200)}))])
                .unwrap();
            if number % 500 == 499 {
                log.flush().await.unwrap();
            }
        }
    };
    append(2_000).await;
    let before = in_use();
    append(98_000).await;
    let after = in_use();
    let written = fs::metadata(dir.join("journal.log")).unwrap().len();
    assert!(written > 40_000_000, "{written} bytes were written");
    if let (Some((memory, handles)), Some((memory_after, handles_after))) = (before, after) {
        let grown = memory_after.saturating_sub(memory);
        assert!(grown < 8 * 1024, "{grown} KiB more for {written} bytes");
        assert_eq!(handles_after, handles);
    }
    assert_eq!(fs::read_dir(dir).unwrap().count(), 5, "no file per record");
}

/// Naive: what is small stays in its record, and a parser that reads 128 levels refuses it when the run is opened.
#[tokio::test]
async fn x15_a_small_value_of_any_depth_is_read_again() {
    let temporary = Temporary::new();
    let depths = [1, 63, 64, 65, 100, 126, 127, 128, 129, 300, 511, 512];
    let nested = |levels: usize| (0..levels).fold(json!(1), |inner, _| json!([inner]));
    let mut log = temporary.create("run", 1).await;
    let written = write(&mut *log, depths.iter().map(|levels| effect(nested(*levels))).collect()).await;
    drop(log);
    assert_eq!(temporary.store.read("run").await.unwrap().records, written);
    let apart = depths.iter().filter(|levels| **levels > 64).count();
    assert_eq!(fs::read_dir(temporary.file("run", "blobs")).unwrap().count(), apart);
}
