//! One owner at a time, in one process and among many.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::sync::Barrier;

use pipeline_checkpoint::FileStore;
use pipeline_core::conformance::store::effect;
use pipeline_core::store::{CheckpointStore, StoreError};
use serde_json::json;

use crate::support::{Temporary, block_on, child, state_of_child, write};

#[test]
fn of_many_openers_one_wins_and_the_others_hear_its_number() {
    let temporary = Temporary::new();
    drop(block_on(temporary.create("run", 1)));
    for _ in 0..20 {
        let start = Barrier::new(8);
        let results: Vec<_> = std::thread::scope(|scope| {
            let openers: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        start.wait();
                        block_on(temporary.store.open("run"))
                    })
                })
                .collect();
            openers.into_iter().map(|opener| opener.join().unwrap()).collect()
        });
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
        for refused in results.iter().filter_map(|result| result.as_ref().err()) {
            let told = matches!(refused, StoreError::Held { run, pid } if run == "run" && *pid == std::process::id());
            assert!(told, "{refused}");
        }
    }
}

#[test]
fn a_list_never_keeps_an_owner_out() {
    let temporary = Temporary::new();
    drop(block_on(temporary.create("run", 1)));
    let start = Barrier::new(2);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            start.wait();
            for _ in 0..300 {
                assert_eq!(block_on(temporary.store.list()).unwrap().len(), 1);
            }
        });
        start.wait();
        for _ in 0..300 {
            assert!(block_on(temporary.store.open("run")).is_ok());
        }
    });
}

#[test]
fn another_process_is_refused_and_told_our_number() {
    if let Some(state) = state_of_child() {
        match block_on(FileStore::new(state).open("run")).map(drop) {
            Err(StoreError::Held { pid, .. }) => writeln!(std::io::stdout(), "held by {pid}").unwrap(),
            other => panic!("{other:?}"),
        }
        return;
    }
    let temporary = Temporary::new();
    let log = block_on(temporary.create("run", 1));
    let heard =
        child("ownership::another_process_is_refused_and_told_our_number", &temporary).output().unwrap();
    let text = String::from_utf8(heard.stdout).unwrap();
    assert!(text.contains(&format!("held by {}\n", std::process::id())), "{text}");
    drop(log);
}

/// Naive: the file is written without a flush before success is told.
#[test]
fn n10_a_killed_process_loses_the_run_and_nothing_that_it_acknowledged() {
    if let Some(state) = state_of_child() {
        let mut log = block_on(FileStore::new(state).open("run")).unwrap().log;
        let mut out = std::io::stdout();
        for number in 0_u64.. {
            let pad = "x".repeat(usize::try_from(number % 7).unwrap() * 2000);
            let written = block_on(write(&mut *log, vec![effect(json!([number, pad]))]));
            writeln!(out, "\nacknowledged {}", written[0].index).unwrap();
        }
        return;
    }
    let temporary = Temporary::new();
    drop(block_on(temporary.create("run", 1)));
    let mut least = 0;
    for round in 1..=6 {
        let mut process = child(
            "ownership::n10_a_killed_process_loses_the_run_and_nothing_that_it_acknowledged",
            &temporary,
        )
        .spawn()
        .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut acknowledged =
            lines.filter_map(|line| line.strip_prefix("acknowledged ")?.parse::<usize>().ok());
        least = acknowledged.nth(round * 3).unwrap() + 1;
        let held = block_on(temporary.store.open("run")).map(drop);
        assert!(matches!(held, Err(StoreError::Held { pid, .. }) if pid == process.id()), "{held:?}");
        process.kill().unwrap();
        least = acknowledged.last().map_or(least, |index| index + 1);
        process.wait().unwrap();

        let opened = block_on(temporary.store.open("run")).unwrap();
        let records = opened.stored.records;
        assert!(records.len() >= least, "{} of {least} acknowledged records are there", records.len());
        assert!(records.iter().enumerate().all(|(at, record)| record.index == at as u64));
    }
    let journal = fs::read_to_string(temporary.file("run", "journal.log")).unwrap();
    let epochs: Vec<u64> =
        journal.lines().skip(1).map(|line| line.split(' ').nth(4).unwrap().parse().unwrap()).collect();
    assert!(epochs.is_sorted() && epochs.last() > epochs.first(), "each owner has its own epoch");
    assert!(epochs.len() >= least);
}
