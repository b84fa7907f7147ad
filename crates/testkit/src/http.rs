//! The little HTTP that a health check needs.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const ANSWER_WITHIN: Duration = Duration::from_secs(5);
const ANSWER_BYTES_MAX: u64 = 4 << 20;

/// Status and body of a plain HTTP answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpAnswer {
    pub status: u16,
    pub body: String,
}

impl HttpAnswer {
    /// The value of a metric, in an answer of metrics as text. Its labels are part of the name, as they stand there.
    ///
    /// # Errors
    /// When there is no such metric, or the answer is another one.
    pub fn metric(&self, name: &str) -> Result<u64> {
        ensure!(self.status == 200, "no metrics, but {}", self.status);
        let mut lines = self.body.lines().filter_map(|line| line.split_once(' '));
        let value = lines.find_map(|(found, value)| (found == name).then_some(value));
        let value = value.with_context(|| format!("no metric {name}"))?;
        value
            .parse()
            .with_context(|| format!("{name} is {value}, not a whole number"))
    }
}

/// `GET http://ADDRESS/PATH`.
///
/// # Errors
/// When nobody answers within five seconds, or not in HTTP.
pub async fn get(address: &str, path: &str) -> Result<HttpAnswer> {
    let raw = timeout(ANSWER_WITHIN, exchange(address, path))
        .await
        .with_context(|| format!("no answer from http://{address}{path} in {ANSWER_WITHIN:?}"))??;
    parse(&raw).with_context(|| format!("no HTTP answer from {address}: {raw:?}"))
}

async fn exchange(address: &str, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address)
        .await
        .with_context(|| format!("connecting to {address}"))?;
    // Version 1.0 keeps the body in one piece and ends it with the connection.
    let request = format!("GET {path} HTTP/1.0\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut raw = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut raw).await?;
    Ok(String::from_utf8_lossy(&raw).into_owned())
}

fn parse(raw: &str) -> Option<HttpAnswer> {
    let (head, body) = raw.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some(HttpAnswer {
        status,
        body: body.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_a_status_and_a_body() {
        let parsed = parse("HTTP/1.0 503 Service Unavailable\r\na: b\r\n\r\nT-011\nwhy\n");
        let expected = HttpAnswer {
            status: 503,
            body: "T-011\nwhy\n".to_owned(),
        };
        assert_eq!(parsed, Some(expected));
        assert_eq!(parse("nonsense"), None);
    }

    #[test]
    fn a_metric_is_found_by_its_whole_name() {
        let answer = HttpAnswer {
            status: 200,
            body: "# TYPE a counter\na_total_more 1\na_total 7\nc{of=\"d\"} 2\n".to_owned(),
        };
        assert_eq!(answer.metric("a_total").ok(), Some(7));
        assert_eq!(answer.metric("c{of=\"d\"}").ok(), Some(2));
        assert_eq!(answer.metric("b").ok(), None);
    }
}
