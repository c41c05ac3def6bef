//! `pipeline mock-server` as tests use it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Child;
use std::time::Duration;

use serde_json::Value;

use super::support::Scratch;

/// A mock server that ends with the test.
pub struct Server {
    process: Child,
    /// Where it is, without a slash at the end.
    pub address: String,
    _folder: Scratch,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ended = self.process.kill();
        let _reaped = self.process.wait();
    }
}

impl Server {
    /// One that answers by these rules and takes these further arguments.
    pub fn start(rules: &str, arguments: &[&str]) -> Self {
        let folder = Scratch::new();
        folder.write("rules.yaml", rules);
        let all = [&["mock-server", "--quiet", "--rules", "rules.yaml"], arguments].concat();
        let mut process = folder.spawn(&all);
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { process, address: line.trim().to_owned(), _folder: folder }
    }

    /// One request, and the JSON that is answered.
    pub fn door(&self, method: &str, path: &str, body: &Value) -> Value {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let mut stream = TcpStream::connect(self.address.trim_start_matches("http://")).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
    }

    /// Every request that it took on.
    pub fn requests(&self) -> Vec<Value> {
        self.door("GET", "/__log", &Value::Null).as_array().unwrap().clone()
    }
}
