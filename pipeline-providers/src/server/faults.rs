//! Ways to misbehave on purpose.
//!
//! Owns what goes over the wire where a script asks for a fault. Must not know formats.

use std::io;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::server::http1::Connection;
use crate::server::script::Fault;

/// Misbehaves; the connection is over afterwards.
pub(super) async fn misbehave(
    connection: &mut Connection,
    fault: Fault,
    headers: &Map<String, Value>,
) -> io::Result<()> {
    match fault {
        Fault::HangBeforeHeaders => connection.hold().await,
        Fault::HangMidStream => {
            connection.begin(headers).await?;
            connection.chunk(b"event: ping\ndata: {\"type\": \"ping\"}\n\n").await?;
            connection.hold().await
        }
        Fault::HalfClose => {
            connection.begin(headers).await?;
            connection.chunk(b"event: ping\ndata: {\"type\": \"ping\"}\n\n").await?;
            connection.half_close().await?;
            connection.hold().await
        }
        Fault::GarbageJson => {
            connection.begin(headers).await?;
            connection.chunk(b"data: {\"type\": \"message_st\n\n").await?;
            connection.chunk(b"").await
        }
        Fault::WrongContentType => connection.whole(200, "text/html", headers, b"<html>sign in</html>").await,
        Fault::HugeBody => {
            connection.begin(headers).await?;
            let piece = vec![b'x'; 1 << 20];
            for _ in 0..1024 {
                connection.chunk(&piece).await?;
            }
            connection.chunk(b"").await
        }
        Fault::EmptyBody => {
            connection.begin(headers).await?;
            connection.chunk(b"").await
        }
        Fault::DripComments => {
            connection.begin(headers).await?;
            loop {
                connection.chunk(b": still here\n\n").await?;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        Fault::Reset | Fault::UnknownEvent => Ok(()),
    }
}
