//! Both stores keep the promises of the trait.

use std::sync::{Arc, Mutex};

use pipeline_checkpoint::{FileStore, MemoryStore};
use pipeline_core::conformance::checkpoint_store;

#[tokio::test]
async fn the_store_on_disk_conforms() {
    let root = tempfile::tempdir().unwrap();
    let made = Mutex::new(0);
    checkpoint_store(|| {
        let mut made = made.lock().unwrap();
        *made += 1;
        Arc::new(FileStore::new(root.path().join(made.to_string())))
    })
    .await;
}

#[tokio::test]
async fn the_store_in_memory_conforms() {
    checkpoint_store(|| Arc::new(MemoryStore::default())).await;
}
