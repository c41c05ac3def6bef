//! The rate governor.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;
use pipeline_core::error::{ErrorKind, StepError};
use pipeline_core::provider::{Provider, ProviderLimits};
use pipeline_providers::{Governed, RateSignals, Rates, Window};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::support::{Scripted, answer};
use crate::support::{asking, at};

fn requests(per_minute: u64) -> ProviderLimits {
    ProviderLimits { requests_per_minute: Some(per_minute), ..ProviderLimits::default() }
}

#[tokio::test(start_paused = true)]
async fn requests_are_spread_over_the_minute_in_their_order() {
    let inner = Scripted::slow(0);
    let outer = Governed::new(Arc::clone(&inner), Rates::of_process().account("a", "k", &requests(60)));
    let begun = Instant::now();
    let order = Mutex::new(Vec::new());
    let (outer, order) = (&outer, &order);
    join_all((0..70).map(|n| async move {
        outer.complete(&asking("hi"), &at("a")).await.unwrap();
        order.lock().push(n);
    }))
    .await;
    assert!(order.lock().is_sorted(), "first come, first served");
    // A twelfth of a minute's limit at once, the others one after the other at 95 %.
    let seconds = begun.elapsed().as_secs_f64();
    assert!((67.0..70.0).contains(&seconds), "{seconds}");
}

#[tokio::test(start_paused = true)]
async fn a_wait_beyond_the_deadline_is_refused_at_once_and_booked_for_nobody() {
    let inner = Scripted::slow(0);
    let outer = Governed::new(Arc::clone(&inner), Rates::of_process().account("a", "k", &requests(6)));
    outer.complete(&asking("hi"), &at("a")).await.unwrap();
    let begun = Instant::now();
    for _ in 0..100 {
        let mut cx = at("a");
        cx.deadline = begun + Duration::from_secs(3);
        let error = outer.complete(&asking("hi"), &cx).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::RateLimited);
        assert!(error.retry_after_ms.unwrap() > 3000, "{error:?}");
    }
    assert_eq!(begun.elapsed(), Duration::ZERO);
    outer.complete(&asking("hi"), &at("a")).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(12), "the refused ones take no place");
}

/// Naive: a wait that nobody can stop.
#[tokio::test(start_paused = true)]
async fn x22_a_wait_is_cancelled_at_once_and_gives_its_place_back() {
    let inner = Scripted::slow(0);
    let outer = Governed::new(Arc::clone(&inner), Rates::of_process().account("a", "k", &requests(6)));
    outer.complete(&asking("hi"), &at("a")).await.unwrap();
    let begun = Instant::now();
    let cx = at("a");
    let cancel = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        cx.cancel.cancel();
    };
    let request = asking("hi");
    let (told, ()) = tokio::join!(outer.complete(&request, &cx), cancel);
    assert_eq!(told.unwrap_err().kind, ErrorKind::Cancelled);
    assert!(begun.elapsed() <= Duration::from_millis(1250));
    outer.complete(&asking("hi"), &at("a")).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(12), "{:?}", begun.elapsed());
}

/// Naive: a limit for each step or run. Twenty runs with twenty branches make four hundred calls at once.
#[tokio::test(start_paused = true)]
async fn n19b_x25_calls_at_once_are_bounded_over_all_runs_and_processes() {
    let dir = tempfile::tempdir().unwrap();
    let most = Arc::new(AtomicUsize::new(0));
    let now = Arc::new(AtomicUsize::new(0));
    let (seen, current) = (Arc::clone(&most), Arc::clone(&now));
    let inner = Scripted::new(move |_| {
        let (seen, current) = (Arc::clone(&seen), Arc::clone(&current));
        async move {
            seen.fetch_max(current.fetch_add(1, SeqCst) + 1, SeqCst);
            tokio::time::sleep(Duration::from_millis(200)).await;
            current.fetch_sub(1, SeqCst);
            Ok(answer(1, 1))
        }
    });
    let limits = ProviderLimits { max_parallel: Some(8), ..ProviderLimits::default() };
    let start = Instant::now();
    let mut calls = JoinSet::new();
    for _ in 0..4 {
        let rates = Rates::shared(dir.path().join("rates")).since(start);
        let outer = Arc::new(Governed::new(Arc::clone(&inner), rates.account("a", "k", &limits)));
        for _ in 0..20 {
            let outer = Arc::clone(&outer);
            calls.spawn(async move { outer.complete(&asking("hi"), &at("a")).await.unwrap() });
        }
    }
    assert_eq!(calls.join_all().await.len(), 80);
    assert_eq!(most.load(SeqCst), 8);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_holds_everybody_for_as_long_as_it_says() {
    let inner = Scripted::new(|call| async move {
        let mut error = StepError::new(ErrorKind::RateLimited, "slow down");
        error.retry_after_ms = Some(7000);
        if call == 0 { Err(error) } else { Ok(answer(1, 1)) }
    });
    let rates = Rates::of_process();
    let outer = Governed::new(Arc::clone(&inner), rates.account("a", "k", &ProviderLimits::default()));
    let begun = Instant::now();
    outer.complete(&asking("hi"), &at("a")).await.unwrap_err();
    outer.complete(&asking("hi"), &at("b")).await.unwrap();
    assert_eq!(begun.elapsed(), Duration::from_secs(7));
}

#[tokio::test(start_paused = true)]
async fn a_used_up_account_is_not_called_again_before_its_time() {
    let inner = Scripted::new(|_| async {
        let mut error = StepError::new(ErrorKind::Quota, "used up");
        error.retry_after_ms = Some(3_600_000);
        Err(error)
    });
    let outer =
        Governed::new(Arc::clone(&inner), Rates::of_process().account("a", "k", &ProviderLimits::default()));
    for _ in 0..10 {
        let error = outer.complete(&asking("hi"), &at("a")).await.unwrap_err();
        assert_eq!((error.kind, error.retry_after_ms), (ErrorKind::Quota, Some(3_600_000)));
    }
    assert_eq!(inner.calls(), 1);
    tokio::time::advance(Duration::from_secs(3601)).await;
    outer.complete(&asking("hi"), &at("a")).await.unwrap_err();
    assert_eq!(inner.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn limits_are_learned_from_what_the_service_tells() {
    let inner = Scripted::slow(0);
    let account = Rates::of_process().account("a", "k", &requests(1_000_000));
    let outer = Governed::new(Arc::clone(&inner), Arc::clone(&account));
    let window = Window { limit: Some(60), remaining: Some(0) };
    account.hear(&RateSignals { requests: window, ..RateSignals::default() });
    let begun = Instant::now();
    for _ in 0..10 {
        outer.complete(&asking("hi"), &at("a")).await.unwrap();
    }
    // At 95 % of 60 a minute.
    let seconds = begun.elapsed().as_secs_f64();
    assert!((10.0..11.0).contains(&seconds), "the smaller limit counts: {seconds}");
}

/// Naive: a call begins as soon as the service has anything left, and is refused because that is not enough for it.
#[tokio::test(start_paused = true)]
async fn a_call_waits_until_the_service_has_enough_for_it() {
    let inner = Scripted::new(|_| async { Ok(answer(1000, 0)) });
    let account = Rates::of_process().account("a", "k", &ProviderLimits::default());
    let outer = Governed::new(Arc::clone(&inner), Arc::clone(&account));
    let told = |remaining| {
        // A hundred tokens a second.
        let tokens = Window { limit: Some(6000), remaining: Some(remaining) };
        account.hear(&RateSignals { tokens, ..RateSignals::default() });
    };
    outer.complete(&asking("hi"), &at("a")).await.unwrap();
    for (remaining, seconds) in [(100, 9.0..10.0), (1000, 0.0..0.1)] {
        // Long enough that what went before is paid for.
        tokio::time::sleep(Duration::from_secs(60)).await;
        told(remaining);
        let begun = Instant::now();
        outer.complete(&asking("hi"), &at("a")).await.unwrap();
        let waited = begun.elapsed().as_secs_f64();
        assert!(seconds.contains(&waited), "{remaining} are left: waited {waited} s");
    }
}

#[tokio::test]
async fn a_file_that_cannot_be_read_begins_anew_and_one_that_cannot_be_made_is_done_without() {
    let dir = tempfile::tempdir().unwrap();
    let inner = Scripted::slow(0);
    let ask = |rates: Rates| {
        let outer = Governed::new(Arc::clone(&inner), rates.account("a", "k", &requests(6000)));
        async move { outer.complete(&asking("hi"), &at("a")).await.unwrap() }
    };
    ask(Rates::shared(dir.path().join("rates"))).await;
    let file = std::fs::read_dir(dir.path().join("rates")).unwrap().next().unwrap().unwrap().path();
    assert!(std::fs::metadata(&file).unwrap().len() < 2000, "small");
    for torn in ["{\"torn".to_owned(), "x".repeat(50_000)] {
        std::fs::write(&file, torn).unwrap();
        ask(Rates::shared(dir.path().join("rates"))).await;
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.trim_end().ends_with('}') && text.len() < 2000, "{text}");
    }
    ask(Rates::shared("/proc/nowhere".into())).await;
}

/// Naive: one vendor's rule for all. Where the cache counts, calls are refused that were thought to be within the limit.
#[tokio::test(start_paused = true)]
async fn what_is_read_from_a_cache_counts_where_the_vendor_counts_it() {
    for (is_unlimited, waits) in [(true, 0.0..1.0), (false, 60.0..130.0)] {
        let inner = Scripted::new(|_| async {
            let mut answer = answer(10, 5);
            answer.usage.cache_read = 100_000;
            Ok(answer)
        });
        inner.cache_is_unlimited.store(is_unlimited, SeqCst);
        let limits = ProviderLimits { input_tokens_per_minute: Some(50_000), ..ProviderLimits::default() };
        let outer = Governed::new(Arc::clone(&inner), Rates::of_process().account("a", "k", &limits));
        outer.complete(&asking("hi"), &at("a")).await.unwrap();
        let begun = Instant::now();
        outer.complete(&asking("hi"), &at("a")).await.unwrap();
        let waited = begun.elapsed().as_secs_f64();
        assert!(waits.contains(&waited), "unlimited {is_unlimited}: waited {waited} s");
    }
}

/// A strict service: so many tokens a minute, counted when a call arrives, of which at most ten seconds' worth at once.
struct Service {
    level: f64,
    at: Instant,
    per_minute: f64,
    /// Refusals, and tokens taken, by minute.
    refused: Vec<usize>,
    used: Vec<f64>,
}

impl Service {
    fn take(&mut self, tokens: f64, minute: usize) -> bool {
        let passed = self.at.elapsed().as_secs_f64();
        self.at = Instant::now();
        self.level = (self.level + passed * self.per_minute / 60.0).min(self.per_minute / 6.0);
        if self.level < tokens {
            self.refused[minute] += 1;
            return false;
        }
        self.level -= tokens;
        self.used[minute] += tokens;
        true
    }
}

/// 8 processes with 20 branches each against 30,000 tokens a minute, for 10 minutes of their time.
///
/// Naive: a limiter for each process. Eight of them send eight times what is allowed, and most calls are refused.
#[tokio::test(start_paused = true)]
async fn n08d_eight_processes_use_what_is_allowed_and_are_never_refused() {
    const MINUTES: usize = 10;
    let dir = tempfile::tempdir().unwrap();
    let start = Instant::now();
    let service = Arc::new(Mutex::new(Service {
        level: 5000.0,
        at: start,
        per_minute: 30_000.0,
        refused: vec![0; MINUTES + 1],
        used: vec![0.0; MINUTES + 1],
    }));
    let serving = Arc::clone(&service);
    let inner = Scripted::new(move |call| {
        let serving = Arc::clone(&serving);
        async move {
            // Answers and questions of different sizes; what is expected is wrong by a factor.
            let tokens = 200 + u64::try_from(call * 7919 % 500).unwrap();
            let minute = usize::try_from(start.elapsed().as_secs() / 60).unwrap().min(MINUTES);
            if !serving.lock().take(tokens as f64, minute) {
                return Err(StepError::new(ErrorKind::RateLimited, "429"));
            }
            tokio::time::sleep(Duration::from_millis(300 + u64::try_from(call % 17).unwrap() * 100)).await;
            Ok(answer(tokens, 20))
        }
    });
    let limits = ProviderLimits { input_tokens_per_minute: Some(30_000), ..ProviderLimits::default() };
    let end = start + Duration::from_secs(60 * MINUTES as u64);
    let mut branches = JoinSet::new();
    for _ in 0..8 {
        let rates = Rates::shared(dir.path().join("rates")).since(start);
        let outer = Arc::new(Governed::new(Arc::clone(&inner), rates.account("a", "k", &limits)));
        for _ in 0..20 {
            let outer = Arc::clone(&outer);
            branches.spawn(async move {
                let mut request = asking(&"word ".repeat(200));
                request.max_output_tokens = Some(100);
                while Instant::now() < end {
                    let _ = outer.complete(&request, &at("a")).await;
                }
            });
        }
    }
    branches.join_all().await;
    let service = service.lock();
    let after_warm_up = 1..MINUTES;
    let refused: usize = service.refused[after_warm_up.clone()].iter().sum();
    let used: f64 = service.used[after_warm_up].iter().sum::<f64>() / ((MINUTES - 1) as f64 * 30_000.0);
    println!("refused {:?}, used {:.3}", service.refused, used);
    assert_eq!(refused, 0, "{:?}", service.refused);
    assert!(used >= 0.85, "{used}");
}
