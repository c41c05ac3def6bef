//! Every fault × every provider over HTTP × every form of the answer × both ways of asking: one typed error or an answer,
//! within bounds of time and memory, and one request.
//!
//! A row is a member of [`Row`], a provider one of [`Vendor`], and every `match` over them is complete: what is added
//! to either does not compile before each of its cells says what is told.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt;
use pipeline_core::conformance::trials::Trials;
use pipeline_core::error::ErrorKind::*;
use pipeline_core::error::StepError;
use pipeline_core::provider::{ModelAnswer, ModelEvent, Provider, ProviderLimits};
use pipeline_providers::{HttpProvider, Transport};
use serde_json::{Value, json};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, timeout};

use super::support::{Does, KEY, Raw, over};
use super::untrusted::untrusted;
use super::vendor::{Form, ID, Stop, Vendor, data};
use crate::support::{asking, at};
use crate::table::{Bill, Told, again, ends};

/// Longest that a cell may take on a busy machine, where it does not wait for anything.
const SOON: Duration = Duration::from_secs(20);

/// The silence after which the cells that are about silence end.
const SILENCE: Duration = Duration::from_millis(300);

/// The time within which a request arrives and a head comes on a busy machine, where the cell is about what comes after it.
const HEAD: Duration = Duration::from_millis(2500);

/// What sockets on both sides hold of what nobody reads any more.
const IN_SOCKETS: usize = 16 << 20;

rows! {
    /// What goes wrong.
    Row {
        // Refusals by status.
        BadRequest, Unauthorized, Unpaid, Forbidden, NotFound, RequestTooLarge, Unprocessable, TooMany, TooManyForAWhile,
        Failed, BadGateway, Unavailable, GatewayTimeout, Overloaded, Redirect,
        // Nobody there.
        ConnectRefused, UnknownCertificate, NoTls, NoName,
        // Silence.
        HangBeforeHead, HangAfterHead, HangInTheMiddle, DrippedHead, DrippedComments, DrippedHalves,
        // Broken off.
        ClosedWithoutAWord, HalfClosed, HalfAChunk,
        // Nonsense.
        AnotherProtocol, GarbageJson, NotText, WrongContentType, WholeAnswer, ErrorWithGoodStatus, ErrorAtOnce,
        ErrorInTheMiddle,
        // Without end.
        Gigabyte, EndlessComments, EndlessText, EndlessEvents, EndlessRefusal,
        // Answers that are none, and answers with something unknown in them.
        EmptyBody, EmptyAnswer, Refusal, MaxTokens, UnknownStop, UnknownEvent,
    }
}

impl Row {
    /// The forms in which the answer comes, where there is one.
    fn forms(self) -> &'static [Form] {
        match self {
            Self::ConnectRefused | Self::UnknownCertificate | Self::NoTls | Self::NoName => &[Form::Nothing],
            Self::HangBeforeHead | Self::DrippedHead | Self::ClosedWithoutAWord | Self::AnotherProtocol => {
                &[Form::Nothing]
            }
            Self::BadRequest
            | Self::Unauthorized
            | Self::Unpaid
            | Self::Forbidden
            | Self::NotFound
            | Self::RequestTooLarge
            | Self::Unprocessable
            | Self::TooMany
            | Self::TooManyForAWhile
            | Self::Failed
            | Self::BadGateway
            | Self::Unavailable
            | Self::GatewayTimeout
            | Self::Overloaded
            | Self::Redirect
            | Self::HangAfterHead
            | Self::HangInTheMiddle
            | Self::HalfClosed
            | Self::HalfAChunk
            | Self::GarbageJson
            | Self::NotText
            | Self::WrongContentType
            | Self::Gigabyte
            | Self::EmptyBody => &[Form::Events, Form::Whole],
            Self::WholeAnswer | Self::ErrorWithGoodStatus | Self::EndlessRefusal => &[Form::Whole],
            Self::DrippedComments
            | Self::DrippedHalves
            | Self::ErrorAtOnce
            | Self::ErrorInTheMiddle
            | Self::EndlessComments
            | Self::EndlessText
            | Self::EndlessEvents
            | Self::EmptyAnswer
            | Self::Refusal
            | Self::MaxTokens
            | Self::UnknownStop
            | Self::UnknownEvent => &[Form::Events],
        }
    }

    /// Whether it is a race against the clock, which a busy machine must not lose.
    fn is_race(self) -> bool {
        matches!(self, Self::HangBeforeHead | Self::HangAfterHead | Self::HangInTheMiddle | Self::DrippedHead)
    }

    fn is_flood(self) -> bool {
        matches!(
            self,
            Self::Gigabyte
                | Self::EndlessComments
                | Self::EndlessText
                | Self::EndlessEvents
                | Self::EndlessRefusal
        )
    }
}

/// Who is called.
enum Place {
    /// A server that does this with every connection.
    Server(Does),
    /// Somewhere else, and what must stay alive for it.
    Url(String, Option<tokio::net::TcpSocket>),
}

/// One cell.
struct Cell {
    place: Place,
    told: Told,
    /// The head of an answer has come, and with it the request's id.
    has_id: bool,
    /// What the provider may wait for, in place of everything.
    limits: ProviderLimits,
    /// Most bytes that are taken of an answer without end.
    most: usize,
}

impl Cell {
    /// The head comes.
    fn heard(does: Does, told: Told) -> Self {
        let limits = ProviderLimits {
            response_seconds: Some(600.0),
            idle_seconds: Some(600.0),
            ..ProviderLimits::default()
        };
        Self { place: Place::Server(does), told, has_id: true, limits, most: 0 }
    }

    /// No head ever comes.
    fn unheard(does: Does, told: Told) -> Self {
        Self { has_id: false, ..Self::heard(does, told) }
    }

    fn nowhere(url: impl Into<String>, words: &'static str) -> Self {
        let place = Place::Url(url.into(), None);
        Self { place, ..Self::unheard(Does::Say(Vec::new()), again(Network, words)) }
    }

    /// Waits little for the first event; long enough for a head that comes.
    fn hasty(mut self) -> Self {
        self.limits.response_seconds = Some(HEAD.as_secs_f64());
        self
    }

    /// Waits little for the next event.
    fn restless(mut self) -> Self {
        self.limits.idle_seconds = Some(SILENCE.as_secs_f64());
        self
    }

    /// Takes so many MiB and no more.
    fn up_to(mut self, mib: usize) -> Self {
        self.most = (mib << 20) + IN_SOCKETS;
        self
    }
}

/// What one cell is: what the other side does, and what the caller is told of it.
fn cell(row: Row, form: Form, vendor: Vendor) -> Cell {
    match row {
        Row::BadRequest
        | Row::Unauthorized
        | Row::Unpaid
        | Row::Forbidden
        | Row::NotFound
        | Row::RequestTooLarge
        | Row::Unprocessable
        | Row::TooMany
        | Row::TooManyForAWhile
        | Row::Failed
        | Row::BadGateway
        | Row::Unavailable
        | Row::GatewayTimeout
        | Row::Overloaded
        | Row::Redirect => refused(row, form, vendor),
        Row::ConnectRefused | Row::UnknownCertificate | Row::NoTls | Row::NoName => unreached(row),
        Row::HangBeforeHead
        | Row::HangAfterHead
        | Row::HangInTheMiddle
        | Row::DrippedHead
        | Row::DrippedComments
        | Row::DrippedHalves => silent(row, form, vendor),
        Row::ClosedWithoutAWord | Row::HalfClosed | Row::HalfAChunk => cut(row, form, vendor),
        Row::AnotherProtocol
        | Row::GarbageJson
        | Row::NotText
        | Row::WrongContentType
        | Row::WholeAnswer
        | Row::ErrorWithGoodStatus
        | Row::ErrorAtOnce
        | Row::ErrorInTheMiddle => nonsense(row, form, vendor),
        Row::Gigabyte
        | Row::EndlessComments
        | Row::EndlessText
        | Row::EndlessEvents
        | Row::EndlessRefusal => endless(row, form, vendor),
        Row::EmptyBody
        | Row::EmptyAnswer
        | Row::Refusal
        | Row::MaxTokens
        | Row::UnknownStop
        | Row::UnknownEvent => ended(row, form, vendor),
    }
}

/// The service says no. It repeats the key, as some do.
fn refused(row: Row, form: Form, vendor: Vendor) -> Cell {
    const WORDS: &str = "no: ⟦secret⟧";
    let (status, told) = match row {
        Row::BadRequest => (400, ends(Invalid, WORDS)),
        Row::Unauthorized => (401, ends(Auth, WORDS)),
        Row::Unpaid => (402, ends(Quota, WORDS)),
        Row::Forbidden => (403, ends(Denied, WORDS)),
        Row::NotFound => (404, ends(Invalid, WORDS)),
        Row::RequestTooLarge => (413, ends(TooLarge, WORDS)),
        Row::Unprocessable => (422, ends(Invalid, WORDS)),
        Row::TooMany => (429, again(RateLimited, WORDS)),
        Row::TooManyForAWhile => (429, again(RateLimited, WORDS).after(7000)),
        Row::Failed => (500, again(Server, WORDS)),
        Row::BadGateway => (502, again(Server, WORDS)),
        Row::Unavailable => (503, again(Overloaded, WORDS)),
        Row::GatewayTimeout => (504, again(Server, WORDS)),
        Row::Overloaded => (529, again(Overloaded, WORDS)),
        Row::Redirect => (302, ends(Invalid, "redirects are not followed")),
        other => panic!("{other:?} has no status"),
    };
    let mut body = if status == 302 { Value::Null } else { vendor.refusal(status, &format!("no: {KEY}")) };
    let more = match (row, vendor) {
        (Row::TooManyForAWhile, Vendor::Gemini) => {
            // That service says it in the body.
            body["error"]["details"] = json!([{"retryDelay": "7s"}]);
            ""
        }
        (Row::TooManyForAWhile, Vendor::Anthropic | Vendor::OpenAi) => "retry-after: 7\r\n",
        (Row::Redirect, _) => "location: http://127.0.0.1:1/\r\n",
        _ => "",
    };
    Cell::heard(Does::Say(vendor.says(status, form, more, &body)), told)
}

fn unreached(row: Row) -> Cell {
    match row {
        Row::ConnectRefused => {
            // A port that is taken and that nobody listens at.
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
            let url = format!("http://{}", socket.local_addr().unwrap());
            Cell { place: Place::Url(url, Some(socket)), ..Cell::nowhere("", "onnect") }
        }
        Row::UnknownCertificate => Cell::nowhere(untrusted(), "certificate"),
        Row::NoTls => {
            let does = Does::Say(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec());
            Cell::unheard(does, again(Network, "onnect"))
        }
        Row::NoName => Cell::nowhere("http://no-such-host.invalid", "dns"),
        other => panic!("{other:?} reaches somebody"),
    }
}

fn silent(row: Row, form: Form, vendor: Vendor) -> Cell {
    let begun = vendor.begun().into_bytes();
    let half =
        |status| [vendor.head(status, "application/json", "content-length: 1000\r\n"), "{\"text".into()];
    let drip =
        |first: Vec<u8>, again: &str| Does::Drip(first, again.as_bytes().to_vec(), Duration::from_millis(20));
    let late = again(TimedOut, "did not begin to answer in time");
    let quiet = again(TimedOut, "was silent for 0.3 seconds");
    match (row, form) {
        (Row::HangBeforeHead, _) => Cell::unheard(Does::Hang(Vec::new()), late).hasty(),
        (Row::HangAfterHead, Form::Events) => {
            Cell::heard(Does::Hang(vendor.head(200, "text/event-stream", "").into_bytes()), late).hasty()
        }
        // The status says enough: its words are waited for a moment, and not as long as an answer.
        (Row::HangAfterHead, _) => {
            Cell::heard(Does::Hang(half(500).concat().into_bytes()), again(Server, "status 500")).restless()
        }
        (Row::HangInTheMiddle, Form::Events) => Cell::heard(Does::Hang(begun), quiet).restless(),
        (Row::HangInTheMiddle, _) => Cell::heard(Does::Hang(half(200).concat().into_bytes()), late).hasty(),
        (Row::DrippedHead, _) => Cell::unheard(drip(b"HTTP/1.1 200 OK\r\nx-a: ".to_vec(), "a"), late).hasty(),
        (Row::DrippedComments, _) => Cell::heard(drip(begun, ": here\n\n"), quiet).restless(),
        (Row::DrippedHalves, _) => {
            Cell::heard(drip([begun, b"data: ".to_vec()].concat(), "x"), quiet).restless()
        }
        (other, _) => panic!("{other:?} is not about silence"),
    }
}

fn cut(row: Row, form: Form, vendor: Vendor) -> Cell {
    let middle = again(Truncated, "in the middle of its answer");
    let chunked = |content_type| vendor.head(200, content_type, "transfer-encoding: chunked\r\n");
    let does = match (row, form) {
        (Row::ClosedWithoutAWord, _) => {
            return Cell::unheard(Does::Say(Vec::new()), again(Network, "before it answered"));
        }
        (Row::HalfClosed, Form::Events) => {
            let told = again(Truncated, "before the answer's own end");
            return Cell::heard(Does::HalfClose(vendor.begun().into_bytes()), told);
        }
        (Row::HalfClosed, _) => {
            let head = vendor.head(200, "application/json", "content-length: 1000\r\n");
            Does::HalfClose(format!("{head}{{\"text").into_bytes())
        }
        (Row::HalfAChunk, Form::Events) => {
            let piece = vendor.piece("par");
            let size = piece.len() + 100;
            Does::Say(format!("{}{size:x}\r\n{piece}", chunked("text/event-stream")).into_bytes())
        }
        (Row::HalfAChunk, _) => Does::Say(format!("{}ff\r\n{{", chunked("application/json")).into_bytes()),
        (other, _) => panic!("{other:?} is not about an end"),
    };
    Cell::heard(does, middle)
}

fn nonsense(row: Row, form: Form, vendor: Vendor) -> Cell {
    let say = |bytes: Vec<u8>, told| Cell::heard(Does::Say(bytes), told);
    let (events, plain) =
        (vendor.head(200, "text/event-stream", ""), vendor.head(200, "application/json", ""));
    let instead = |words| ends(Parse, words);
    match (row, form) {
        (Row::AnotherProtocol, _) => {
            let told = again(Network, "before it answered");
            Cell::unheard(Does::Say(b"SSH-2.0-OpenSSH_9.6\r\n".to_vec()), told)
        }
        (Row::GarbageJson, Form::Events) => {
            say(format!("{events}data: {{\"a\": \n\n").into(), ends(Parse, "an event that is no JSON"))
        }
        (Row::GarbageJson, _) => {
            say(format!("{plain}{{\"a\": ").into(), instead("`application/json` instead"))
        }
        (Row::NotText, Form::Events) => {
            let bytes = [events.as_bytes(), b"data: ", &[0xff, 0xfe], b"\n\n"].concat();
            say(bytes, ends(Parse, "not UTF-8"))
        }
        (Row::NotText, _) => say([plain.as_bytes(), &[0xff, 0xfe]].concat(), instead("instead of a stream")),
        (Row::WrongContentType, Form::Events) => {
            let head = vendor.head(200, "text/plain", "");
            say(format!("{head}{}", vendor.piece("par")).into(), instead("`text/plain` instead of a stream"))
        }
        (Row::WrongContentType, _) => {
            let head = vendor.head(200, "text/html", "");
            say(format!("{head}<html>sign in</html>").into(), instead("sign in"))
        }
        (Row::WholeAnswer, _) => {
            say(vendor.says(200, Form::Whole, "", &json!({"text": "hello"})), instead("`application/json`"))
        }
        (Row::ErrorWithGoodStatus, _) => {
            say(vendor.says(200, Form::Whole, "", &vendor.error_event()), again(Overloaded, "busy"))
        }
        (Row::ErrorAtOnce, _) => {
            say(vendor.says(200, Form::Events, "", &vendor.error_event()), again(Overloaded, "busy"))
        }
        (Row::ErrorInTheMiddle, _) => {
            let bytes = format!("{}{}", vendor.begun(), data(&vendor.error_event()));
            say(bytes.into(), again(Overloaded, "busy").billed(Bill::InFull))
        }
        (other, _) => panic!("{other:?} is no nonsense"),
    }
}

fn endless(row: Row, form: Form, vendor: Vendor) -> Cell {
    const GIB: usize = 1 << 30;
    let begun = vendor.begun();
    let flood = |first: String, again: Vec<u8>| Does::Flood(first.into_bytes(), again, GIB);
    let large = |words| ends(TooLarge, words).billed(Bill::InFull);
    let line = vec![b'x'; 1 << 16];
    match (row, form) {
        (Row::Gigabyte, Form::Events) => {
            Cell::heard(flood(format!("{begun}data: "), line), large("over 8 MiB without an event")).up_to(8)
        }
        (Row::Gigabyte, _) => {
            let head = vendor.head(200, "application/json", &format!("content-length: {GIB}\r\n"));
            Cell::heard(flood(head, line), large("over 1 MiB that are no stream")).up_to(1)
        }
        (Row::EndlessComments, _) => {
            let head = vendor.head(200, "text/event-stream", "");
            Cell::heard(flood(head, b": x\n".repeat(1 << 14)), large("without an event")).up_to(8)
        }
        (Row::EndlessText, _) => {
            // Each piece is 5,000 bytes of text in a little more.
            let pieces = vendor.piece(&"long ".repeat(1000)).repeat(5);
            Cell::heard(flood(begun, pieces.into_bytes()), large("an answer over 8 MiB")).up_to(16)
        }
        (Row::EndlessEvents, _) => {
            // Events that every client passes over: nothing of them is stored, and yet they must end.
            let event = format!(": {}\n{}", "x".repeat(60_000), data(&vendor.empty()));
            Cell::heard(flood(begun, event.into_bytes()), large("over 64 MiB in one answer")).up_to(64)
        }
        (Row::EndlessRefusal, _) => {
            let head = vendor.head(500, "text/html", "");
            Cell::heard(flood(head, line), again(Server, "status 500")).up_to(1)
        }
        (other, _) => panic!("{other:?} ends"),
    }
}

fn ended(row: Row, form: Form, vendor: Vendor) -> Cell {
    let paid = |told: Told| told.billed(Bill::Told);
    let (bytes, told) = match (row, form) {
        (Row::EmptyBody, Form::Events) => {
            let head = vendor.head(200, "text/event-stream", "content-length: 0\r\n");
            (head.into_bytes(), again(Truncated, "before the answer's own end"))
        }
        (Row::EmptyBody, _) => {
            let head = vendor.head(200, "application/json", "content-length: 0\r\n");
            (head.into_bytes(), ends(Parse, "instead of a stream of events"))
        }
        (Row::EmptyAnswer, _) => {
            (vendor.answer("", "", Stop::Good), paid(again(Truncated, "answered with nothing")))
        }
        (Row::Refusal, _) => {
            (vendor.answer("I", "", Stop::Refusal), paid(ends(Refused, "that would be harmful")))
        }
        (Row::MaxTokens, _) => {
            (vendor.answer("some of it", "", Stop::Limit), paid(ends(TooLarge, "the limit of tokens")))
        }
        (Row::UnknownStop, _) => {
            (vendor.answer("all of it", "", Stop::Unknown), Told::Answer("all of it", 1))
        }
        (Row::UnknownEvent, _) => {
            let weather = format!("event: weather\n{}", data(&json!({"type": "weather", "sun": true})));
            (vendor.answer("all of it", &weather, Stop::Good), Told::Answer("all of it", 0))
        }
        (other, _) => panic!("{other:?} has no end of its own"),
    };
    Cell::heard(Does::Say(bytes), told)
}

/// The two ways to ask: for the answer, and for its events.
#[derive(Debug, Clone, Copy)]
enum Way {
    Answer,
    Events,
}

async fn ask(way: Way, provider: &HttpProvider) -> Result<ModelAnswer, StepError> {
    let (request, cx) = (asking("hello"), at("step"));
    if matches!(way, Way::Answer) {
        return provider.complete(&request, &cx).await;
    }
    let mut stream = provider.start(&request, &cx).await?;
    while let Some(event) = stream.next().await {
        let end = match event {
            Ok(ModelEvent::Finished(answer)) => Ok(*answer),
            Err(error) => Err(error),
            Ok(_) => continue,
        };
        assert!(stream.next().await.is_none(), "nothing comes after the end: {end:?}");
        return end;
    }
    panic!("the events ended without an end")
}

/// Goes through one cell.
async fn prove(transport: Arc<Transport>, row: Row, form: Form, vendor: Vendor, way: Way) {
    let name = format!("{row:?} × {vendor:?} × {form:?} × {way:?}");
    let Cell { place, told, has_id, limits, most } = cell(row, form, vendor);
    let (url, raw, _taken) = match place {
        Place::Server(does) => {
            let raw = Raw::start(does).await;
            let url = if row == Row::NoTls { raw.url.replace("http:", "https:") } else { raw.url.clone() };
            (url, Some(raw), None)
        }
        Place::Url(url, taken) => (url, None, taken),
    };
    let provider = over(&transport, vendor.kind(), &url, limits);
    let begun = Instant::now();
    // What is without end takes as long as its bytes: that it ends is bounded by size.
    let patience = if row.is_flood() { SOON * 4 } else { SOON };
    let came = timeout(patience, ask(way, &provider)).await;
    let came = came.unwrap_or_else(|_| panic!("{name}: it goes on after {:?}", begun.elapsed()));
    if let Some(raw) = &raw {
        assert_eq!(raw.connections.load(Ordering::SeqCst), 1, "{name}: one request");
        let sent = raw.sent.load(Ordering::SeqCst);
        assert!(!row.is_flood() || sent < most, "{name}: {} KiB were taken", sent >> 10);
    }
    if let Ok(answer) = &came {
        assert_eq!(answer.request_id.as_deref(), Some(ID), "{name}");
    }
    if let Some(error) = told.check(&name, came) {
        let id = error.details.get("request_id").and_then(Value::as_str);
        assert_eq!(id, has_id.then_some(ID), "{name}: {error:?}");
        let all = format!("{error:?} {}", serde_json::to_string(&error).unwrap());
        assert!(!all.contains(KEY), "{name}: {all}");
    }
}

/// What a cell that failed says.
fn told(error: JoinError) -> String {
    match error.try_into_panic().map(<Box<dyn Any + Send>>::downcast::<String>) {
        Ok(Ok(words)) => *words,
        _ => "a cell ended without a word".to_owned(),
    }
}

/// All cells of the rows that `takes`, so many at once.
async fn prove_all(trials: &Trials, takes: impl Fn(Row) -> bool, ways: &[Way], at_once: usize) {
    let mut cells = Vec::new();
    for &row in Row::ALL.iter().filter(|row| takes(**row)) {
        assert!(!row.forms().is_empty(), "{row:?} has no cell");
        for (&form, &vendor) in row.forms().iter().flat_map(|f| Vendor::ALL.iter().map(move |v| (f, v))) {
            cells.extend(ways.iter().map(|way| (row, form, vendor, *way)));
        }
    }
    let transport = Arc::new(Transport::live(None));
    // Whoever comes first makes the client; no cell that counts time shall.
    prove(Arc::clone(&transport), Row::ClosedWithoutAWord, Form::Nothing, Vendor::OpenAi, Way::Answer).await;
    let mut running = JoinSet::new();
    for (row, form, vendor, way) in cells {
        if running.len() >= at_once {
            trials.count(running.join_next().await.unwrap().map_err(told));
        }
        if !trials.go_on() {
            break;
        }
        running.spawn(prove(Arc::clone(&transport), row, form, vendor, way));
    }
    while let Some(ended) = running.join_next().await {
        trials.count(ended.map_err(told));
    }
}

/// Naive: a client that panics, hangs or takes half an answer for a whole one when a service misbehaves.
/// Figure: 20 faults, three kinds of service, whole answers and streams.
#[tokio::test(flavor = "multi_thread")]
async fn n04_t08_every_fault_of_every_provider_is_told_by_its_kind() {
    let trials = Trials::of("T8", 1);
    let ways = [Way::Answer, Way::Events];
    prove_all(&trials, |row| !row.is_flood() && !row.is_race(), &ways, 48).await;
    prove_all(&trials, Row::is_race, &ways, 24).await;
    let rows = Row::ALL.iter().filter(|row| !row.is_flood()).count();
    trials.finish(format!("{rows} faults of {} services, as a whole and as a stream: one error of its kind each, one request, in time", Vendor::ALL.len()));
}

/// Naive: what comes is read to its end before anybody looks at it.
#[tokio::test(flavor = "multi_thread")]
async fn n19c_t08_no_answer_without_end_is_read_beyond_its_limit() {
    let trials = Trials::of("T8", 1);
    prove_all(&trials, Row::is_flood, &[Way::Answer], 3).await;
    trials.finish("answers without end: each is left at its limit");
}
