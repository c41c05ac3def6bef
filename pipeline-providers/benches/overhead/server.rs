//! The other side: answers calls of the Messages API with prepared bytes, at once, in pieces, or held until it is told.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Pieces of a paced answer, and the time between two of them.
const PIECES: usize = 40;
const PAUSE: Duration = Duration::from_millis(2);

struct Shared {
    short: Vec<u8>,
    long: Vec<u8>,
    held: AtomicUsize,
    is_released: watch::Sender<bool>,
}

/// Serves until the process is ended; the first line that it prints is where.
pub async fn serve() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("http://{}", listener.local_addr().unwrap());
    let shared = Arc::new(Shared {
        short: answer(8),
        long: answer(200),
        held: AtomicUsize::new(0),
        is_released: watch::Sender::new(false),
    });
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let shared = Arc::clone(&shared);
        connections.spawn(async move { connection(stream, &shared).await.is_ok() });
        while connections.try_join_next().is_some() {}
    }
}

/// A whole answer with so many pieces of text, as events.
fn answer(pieces: usize) -> Vec<u8> {
    let start = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"claude-sonnet-4-5\",\"content\":[],\"usage\":{\"input_tokens\":11,\"output_tokens\":1}}}\n\nevent: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n";
    let delta = "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\" some twenty letters\"}}\n\n";
    let stop = "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\nevent: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":900}}\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";
    format!("{start}{}{stop}", delta.repeat(pieces)).into_bytes()
}

async fn connection(stream: TcpStream, shared: &Shared) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let Some(path) = request(&mut stream).await? else { return Ok(()) };
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        let to = stream.get_mut();
        match parts.as_slice() {
            ["held", "wait", count] => {
                let count: usize = count.parse().unwrap_or(0);
                while shared.held.load(Ordering::SeqCst) < count {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                to.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await?;
            }
            ["held", "release"] => {
                shared.is_released.send_replace(true);
                to.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await?;
                // The next client begins anew.
                tokio::time::sleep(Duration::from_millis(200)).await;
                shared.held.store(0, Ordering::SeqCst);
                shared.is_released.send_replace(false);
            }
            ["held", ..] => {
                let (first, rest) = shared.short.split_at(shared.short.len() / 2);
                let mut is_released = shared.is_released.subscribe();
                begin(to).await?;
                chunk(to, first).await?;
                shared.held.fetch_add(1, Ordering::SeqCst);
                drop(is_released.wait_for(|released| *released).await);
                chunk(to, rest).await?;
                to.write_all(b"0\r\n\r\n").await?;
            }
            ["paced", ..] => {
                begin(to).await?;
                for piece in shared.long.chunks(shared.long.len().div_ceil(PIECES)) {
                    tokio::time::sleep(PAUSE).await;
                    chunk(to, piece).await?;
                }
                to.write_all(b"0\r\n\r\n").await?;
            }
            [place, ..] => {
                let body = if *place == "short" { &shared.short } else { &shared.long };
                let mut bytes = HEAD.as_bytes().to_vec();
                bytes.extend_from_slice(format!("{:x}\r\n", body.len()).as_bytes());
                bytes.extend_from_slice(body);
                bytes.extend_from_slice(b"\r\n0\r\n\r\n");
                to.write_all(&bytes).await?;
            }
            [] => return Ok(()),
        }
    }
}

const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\nrequest-id: req_1\r\ntransfer-encoding: chunked\r\n\r\n";

async fn begin(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.write_all(HEAD.as_bytes()).await
}

async fn chunk(stream: &mut TcpStream, bytes: &[u8]) -> std::io::Result<()> {
    let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
    chunk.extend_from_slice(bytes);
    chunk.extend_from_slice(b"\r\n");
    stream.write_all(&chunk).await
}

/// The path of the next request, which has been read as a whole.
async fn request(stream: &mut BufReader<TcpStream>) -> std::io::Result<Option<String>> {
    let mut first = String::new();
    stream.read_line(&mut first).await?;
    let Some(path) = first.split(' ').nth(1).map(str::to_owned) else { return Ok(None) };
    let mut length = 0;
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    Ok(Some(path))
}
