//! Bytes that changed after they were written: found, and never read as something else.

use std::fs;
use std::path::Path;

use pipeline_core::clock::Timestamp;
use pipeline_core::conformance::store::effect;
use pipeline_core::fact::Fact;
use pipeline_core::path::StepPath;
use pipeline_core::store::{CheckpointStore, StoreError};
use serde_json::json;

use crate::support::{Temporary, ended, write};

async fn damage(temporary: &Temporary, path: &Path) -> String {
    match temporary.store.open("run").await {
        Err(StoreError::Damaged { path: told, message, .. }) => {
            assert_eq!(told, path);
            message
        }
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("{} was accepted", path.display()),
    }
}

fn skipped(reason: &str) -> Fact {
    Fact::StepSkipped { path: StepPath::from("a/b"), turn: 1, reason: reason.to_owned() }
}

#[tokio::test]
async fn every_flipped_bit_is_damage_or_a_shorter_run_that_says_so() {
    let temporary = Temporary::new();
    let mut log = temporary.create("run", 5).await;
    let records = write(&mut *log, vec![skipped("abc"), skipped("Z\" \\ ü"), ended()]).await;
    drop(log);
    let path = temporary.file("run", "journal.log");
    let bytes = fs::read(&path).unwrap();
    let mut repaired = 0;
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut changed = bytes.clone();
            changed[at] ^= 1 << bit;
            fs::write(&path, &changed).unwrap();
            match temporary.store.read("run").await {
                Err(StoreError::Damaged { offset, .. }) => assert!(offset <= at as u64),
                Err(error) => panic!("bit {bit} of byte {at}: {error}"),
                Ok(read) => {
                    assert_eq!(read.records, records[..2], "bit {bit} of byte {at}");
                    let opened = temporary.store.open("run").await.unwrap();
                    assert!(opened.repaired.is_some(), "bit {bit} of byte {at} was accepted");
                    assert_eq!(opened.stored.records, records[..2], "bit {bit} of byte {at}");
                    repaired += 1;
                }
            }
        }
    }
    let last = bytes[..bytes.len() - 1].iter().rposition(|byte| *byte == b'\n').unwrap() + 1;
    assert!(repaired > 0 && repaired <= (bytes.len() - last) * 8, "{repaired} flips were in the last record");
}

#[tokio::test]
async fn a_line_that_is_missing_doubled_or_moved_is_damage() {
    let temporary = Temporary::new();
    let mut log = temporary.create("run", 5).await;
    write(&mut *log, (0..4).map(|n| effect(json!(n))).collect()).await;
    drop(log);
    let path = temporary.file("run", "journal.log");
    let bytes = fs::read(&path).unwrap();
    let lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
    // The last of them stands at the end, and is no torn tail: a whole record that is out of place was written by somebody.
    for order in [vec![0, 2, 3, 4], vec![0, 1, 1, 2], vec![0, 2, 1, 3], vec![0, 1, 2, 4], vec![0, 1, 2, 2]] {
        fs::write(&path, order.iter().flat_map(|line| lines[*line].to_vec()).collect::<Vec<u8>>()).unwrap();
        let message = damage(&temporary, &path).await;
        assert!(message.contains("should be"), "{order:?}: {message}");
    }
}

#[tokio::test]
async fn a_record_of_another_run_does_not_fit() {
    let (one, other) = (Temporary::new(), Temporary::new());
    for (temporary, value) in [(&one, 1), (&other, 2)] {
        let mut log = temporary.create("run", value).await;
        write(&mut *log, vec![effect(json!(value)), effect(json!(value))]).await;
    }
    let path = one.file("run", "journal.log");
    let (mine, theirs) = (fs::read(&path).unwrap(), fs::read(other.file("run", "journal.log")).unwrap());
    let cut = |bytes: &[u8]| bytes[..bytes.len() - 1].iter().rposition(|byte| *byte == b'\n').unwrap() + 1;
    let mixed = [&mine[..cut(&mine)], &theirs[cut(&theirs)..]].concat();
    fs::write(&path, mixed).unwrap();
    assert!(damage(&one, &path).await.contains("does not follow"));
}

#[tokio::test]
async fn a_changed_or_missing_file_beside_the_journal_is_damage() {
    let temporary = Temporary::new();
    let mut log = temporary.create("run", 5).await;
    write(&mut *log, vec![effect(json!("x".repeat(70_000)))]).await;
    drop(log);
    let blobs = temporary.file("run", "blobs");
    let blob = fs::read_dir(&blobs).unwrap().next().unwrap().unwrap().path();
    let files =
        ["manifest.json", "source/index.json", "source/0000.txt"].map(|name| temporary.file("run", name));
    for path in files.iter().chain([&blob]) {
        let bytes = fs::read(path).unwrap();
        for at in [0, bytes.len() / 2, bytes.len() - 1] {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            fs::write(path, &changed).unwrap();
            damage(&temporary, path).await;
        }
        fs::write(path, &bytes[..bytes.len() - 1]).unwrap();
        damage(&temporary, path).await;
        fs::remove_file(path).unwrap();
        assert!(damage(&temporary, path).await.contains("missing"));
        fs::write(path, &bytes).unwrap();
        assert!(temporary.store.open("run").await.is_ok());
    }
}

#[tokio::test]
async fn a_newer_format_is_refused_by_its_number() {
    let temporary = Temporary::new();
    drop(temporary.create("run", 5).await);
    let path = temporary.file("run", "journal.log");
    let rest = "pipeline-journal 7 {\"anything\": true}";
    fs::write(&path, format!("{:08x} {rest}\nlines of another form\n", crc32fast::hash(rest.as_bytes())))
        .unwrap();
    match temporary.store.open("run").await.map(drop) {
        Err(StoreError::Newer { path: told, found: 7, supported: 1 }) => assert_eq!(told, path),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_folder_under_another_name_is_not_that_run() {
    let temporary = Temporary::new();
    drop(temporary.create("first", 5).await);
    fs::rename(temporary.file("first", ""), temporary.file("run", "")).unwrap();
    assert!(damage(&temporary, &temporary.file("run", "journal.log")).await.contains("run first"));
}

#[tokio::test]
async fn an_owner_notices_that_somebody_else_writes() {
    let temporary = Temporary::new();
    let mut log = temporary.create("run", 5).await;
    write(&mut *log, vec![effect(json!(1))]).await;
    let path = temporary.file("run", "journal.log");
    let mut bytes = fs::read(&path).unwrap();
    bytes.push(b'?');
    fs::write(&path, &bytes).unwrap();
    log.append(Timestamp(1), 1, vec![effect(json!(2))]).unwrap();
    let error = log.flush().await.unwrap_err().to_string();
    assert!(error.contains("somebody else"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), bytes, "nothing was written after it");
    assert!(log.append(Timestamp(1), 1, Vec::new()).is_err());
}

#[tokio::test]
async fn a_blob_that_cannot_be_written_keeps_its_record_out_of_the_journal() {
    let temporary = Temporary::new();
    let mut log = temporary.create("run", 5).await;
    let kept = write(&mut *log, vec![effect(json!(1))]).await;
    fs::remove_dir(temporary.file("run", "blobs")).unwrap();
    log.append(Timestamp(1), 1, vec![effect(json!("x".repeat(70_000)))]).unwrap();
    assert!(matches!(log.flush().await, Err(StoreError::Write { .. })));
    assert!(log.flush().await.is_err());
    drop(log);
    assert_eq!(temporary.store.read("run").await.unwrap().records, kept);
}

#[tokio::test]
async fn a_blob_that_rotted_is_written_again() {
    let temporary = Temporary::new();
    let mut log = temporary.create("run", 5).await;
    let large = effect(json!("x".repeat(70_000)));
    let first = write(&mut *log, vec![large.clone()]).await;
    let blobs = temporary.file("run", "blobs");
    let blob = fs::read_dir(&blobs).unwrap().next().unwrap().unwrap().path();
    fs::write(&blob, "rotten").unwrap();
    let second = write(&mut *log, vec![large]).await;
    assert_eq!(temporary.store.read("run").await.unwrap().records, [first, second].concat());
    assert_eq!(fs::read_dir(&blobs).unwrap().count(), 1, "the same value is stored once");
}
