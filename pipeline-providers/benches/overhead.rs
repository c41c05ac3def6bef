//! `cargo bench -p pipeline-providers --all-features --bench overhead [STREAMS]`: what a call of a model costs beside the
//! bare HTTP client, and how much memory many streams hold.
//!
//! A server in a process of its own answers each call with the same bytes. The bare client posts the same body and reads the
//! answer to its end; "bare+json" parses its events, too, and puts the text together, as whoever writes a client must; the
//! provider does that with deadlines, limits, prices and errors; "all layers" is what a run calls. The rounds of the four
//! alternate, and medians are told: run it twice on a machine that does nothing else before believing it.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::result_large_err,
    reason = "a measurement that people start by hand"
)]

#[path = "overhead/server.rs"]
mod server;
#[path = "overhead/client.rs"]
mod client;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use client::{Asks, Client};
use tokio::time::Instant;

/// Streams at once, when nobody says how many.
const STREAMS: usize = 2000;

/// Calls of one round, and rounds of one measurement.
const ROUND: u32 = 40;
const ROUNDS: usize = 25;

fn main() {
    // Cargo passes `--bench`, too.
    let words: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["serve"] => block_on(server::serve()),
        ["hold", asks, base, count] => {
            let asks = Asks::ALL.into_iter().find(|a| a.name() == *asks).expect("a client");
            block_on(hold(asks, base, count.parse().expect("a number")));
        }
        others => {
            let streams = others.iter().find_map(|a| a.parse().ok()).unwrap_or(STREAMS);
            measure(streams);
        }
    }
}

fn block_on(work: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(work);
}

/// This program again, with its first line.
fn again(words: &[&str]) -> (Child, String) {
    let own = std::env::current_exe().expect("this program");
    let mut child = Command::new(own).args(words).stdout(Stdio::piped()).spawn().expect("it starts");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
    (child, line.trim().to_owned())
}

fn measure(streams: usize) {
    let (mut server, base) = again(&["serve"]);
    block_on(async {
        for (what, place) in [
            ("an answer of 8 events at once", "short"),
            ("an answer of 200 events at once", "long"),
            ("the same in 40 pieces, 2 ms apart", "paced"),
        ] {
            // Slow answers say enough in few rounds.
            compare(what, &format!("{base}/{place}"), if place == "paced" { 5 } else { ROUNDS }).await;
        }
    });
    println!("open files allowed: {}", client::open_files());
    for asks in [Asks::Bare, Asks::Layers] {
        let (mut child, line) = again(&["hold", asks.name(), &format!("{base}/held"), &streams.to_string()]);
        let ended = child.wait().expect("it ends");
        println!(
            "{streams} streams at once, {:<11} {line}{}",
            asks.name(),
            if ended.success() { "" } else { " FAILED" }
        );
    }
    println!("limits: a call under 10 % over the bare client, 2,000 streams under 300 MiB");
    server.kill().expect("it was there");
    server.wait().expect("it ends");
}

/// Medians of a call, for every way to ask.
async fn compare(what: &str, base: &str, rounds: usize) {
    let clients = Asks::ALL.map(|asks| Client::new(asks, base));
    for client in &clients {
        client.ask().await;
    }
    let mut times = [const { Vec::new() }; Asks::ALL.len()];
    for _ in 0..rounds {
        for (client, times) in clients.iter().zip(&mut times) {
            let begun = Instant::now();
            for _ in 0..ROUND {
                client.ask().await;
            }
            times.push(begun.elapsed() / ROUND);
        }
    }
    let median = times.map(|mut times| {
        times.sort();
        times[times.len() / 2]
    });
    println!("{what}:");
    for (asks, time) in Asks::ALL.into_iter().zip(median) {
        let more = |than: Duration| time.as_secs_f64() / than.as_secs_f64() * 100.0 - 100.0;
        println!(
            "  {:<11} {:>9.1} µs a call  {:>+6.1} % over bare  {:>+6.1} % over bare+json",
            asks.name(),
            micros(time),
            more(median[0]),
            more(median[1])
        );
    }
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// Holds so many streams at once, and tells what this process holds of memory meanwhile.
async fn hold(asks: Asks, base: &str, count: usize) {
    let client = std::sync::Arc::new(Client::new(asks, base));
    let before = client::memory("VmRSS:");
    let begun = Instant::now();
    let mut all = tokio::task::JoinSet::new();
    for _ in 0..count {
        let client = std::sync::Arc::clone(&client);
        all.spawn(async move { client.ask().await });
    }
    // The server tells when it has so many, and has told each of them the first piece.
    client::tell(&format!("{base}/wait/{count}")).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let (now, opened) = (client::memory("VmRSS:"), begun.elapsed());
    client::tell(&format!("{base}/release")).await;
    let bytes: Vec<usize> = all.join_all().await;
    assert!(bytes.iter().all(|b| *b == bytes[0] && *b > 0), "every stream is read to its end");
    println!(
        "{} MiB ({} MiB before), peak {} MiB, all open after {:.1} s",
        now,
        before,
        client::memory("VmHWM:"),
        opened.as_secs_f64()
    );
}
