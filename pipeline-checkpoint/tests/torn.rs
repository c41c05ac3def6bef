//! A journal that ends where the power went.

use std::fs;

use pipeline_core::conformance::store::{effect, one_of_each};
use pipeline_core::fact::{Fact, Record};
use pipeline_core::store::{CheckpointStore, StoreError};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::support::{Temporary, write};

/// Offsets after each line: of the head, then of each record.
fn line_ends(bytes: &[u8]) -> Vec<usize> {
    bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1).collect()
}

async fn journal(temporary: &Temporary, facts: Vec<Fact>) -> (Vec<u8>, Vec<Record>) {
    let mut log = temporary.create("run", 5).await;
    let records = write(&mut *log, facts).await;
    drop(log);
    (fs::read(temporary.file("run", "journal.log")).unwrap(), records)
}

#[tokio::test]
async fn every_cut_in_the_last_record_opens_to_the_records_before_it() {
    let temporary = Temporary::new();
    let (bytes, records) = journal(&temporary, one_of_each("run")).await;
    let path = temporary.file("run", "journal.log");
    let ends = line_ends(&bytes);
    let (start, end) = (ends[ends.len() - 2], bytes.len());
    for cut in start..end {
        fs::write(&path, &bytes[..cut]).unwrap();
        let mut opened = temporary.store.open("run").await.unwrap();
        assert_eq!(opened.stored.records, records[..records.len() - 1], "cut at {cut}");
        match opened.repaired {
            None => assert_eq!(cut, start),
            Some(told) => {
                assert!(told.contains(&format!("{} bytes from byte {start}", cut - start)), "{told}");
            }
        }
        assert_eq!(fs::read(&path).unwrap(), bytes[..start], "the torn end is gone");
        let again = write(&mut *opened.log, vec![effect(json!("again"))]).await;
        drop(opened.log);
        let whole = temporary.store.open("run").await.unwrap();
        assert_eq!((whole.stored.records.last(), whole.repaired), (again.last(), None));
    }
}

#[tokio::test]
async fn every_cut_of_a_whole_journal_reads_as_a_prefix() {
    let temporary = Temporary::new();
    let (bytes, records) = journal(&temporary, one_of_each("run").split_off(8)).await;
    let path = temporary.file("run", "journal.log");
    let ends = line_ends(&bytes);
    for cut in 0..=bytes.len() {
        fs::write(&path, &bytes[..cut]).unwrap();
        let whole = ends.iter().filter(|end| **end <= cut).count();
        match temporary.store.read("run").await {
            Ok(read) => assert_eq!(read.records, records[..whole - 1], "cut at {cut}"),
            Err(error) => {
                assert!(whole == 0 && matches!(error, StoreError::Damaged { .. }), "{cut}: {error}");
            }
        }
        assert_eq!(fs::metadata(&path).unwrap().len(), cut as u64, "reading repairs nothing");
    }
}

#[tokio::test]
async fn zeros_at_the_end_are_dropped_and_told() {
    let temporary = Temporary::new();
    let (bytes, records) = journal(&temporary, one_of_each("run")).await;
    let path = temporary.file("run", "journal.log");
    let last = line_ends(&bytes)[records.len() - 1];
    for zeros in [1, 7, 512, 4096, 70_000] {
        for (keep, expected) in [(bytes.len(), records.len()), (last + 30, records.len() - 1)] {
            let mut torn = bytes[..keep].to_vec();
            torn.resize(keep + zeros, 0);
            fs::write(&path, &torn).unwrap();
            let opened = temporary.store.open("run").await.unwrap();
            assert_eq!(opened.stored.records, records[..expected]);
            assert!(opened.repaired.is_some());
            assert_eq!(
                fs::metadata(&path).unwrap().len(),
                [last, bytes.len()][usize::from(keep > last + 30)] as u64
            );
        }
    }
    // The length was made durable, the end of the data was not.
    let mut holed = bytes.clone();
    holed[last + 5..].fill(0);
    fs::write(&path, &holed).unwrap();
    let opened = temporary.store.open("run").await.unwrap();
    assert_eq!((opened.stored.records.len(), opened.repaired.is_some()), (records.len() - 1, true));
}

#[tokio::test]
async fn an_empty_journal_is_damage_and_not_an_empty_run() {
    let temporary = Temporary::new();
    journal(&temporary, Vec::new()).await;
    let path = temporary.file("run", "journal.log");
    for bytes in [vec![], vec![0; 4096], b"\n".to_vec()] {
        fs::write(&path, bytes).unwrap();
        assert!(matches!(temporary.store.open("run").await, Err(StoreError::Damaged { offset: 0, .. })));
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((any::<String>(), inner), 0..6)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_values_in_any_batches_come_back_up_to_any_cut(
        batches in prop::collection::vec(prop::collection::vec(any_json(), 0..4), 1..5),
        cut in any::<prop::sample::Index>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let temporary = Temporary::new();
            let mut log = temporary.create("run", 5).await;
            let mut all = Vec::new();
            for batch in batches {
                all.extend(write(&mut *log, batch.into_iter().map(effect).collect()).await);
            }
            drop(log);
            assert_eq!(temporary.store.read("run").await.unwrap().records, all);
            let path = temporary.file("run", "journal.log");
            let bytes = fs::read(&path).unwrap();
            let ends = line_ends(&bytes);
            let cut = ends[0] + cut.index(bytes.len() - ends[0] + 1);
            fs::write(&path, &bytes[..cut]).unwrap();
            let whole = ends.iter().filter(|end| **end <= cut).count() - 1;
            assert_eq!(temporary.store.open("run").await.unwrap().stored.records, all[..whole]);
        });
    }
}
