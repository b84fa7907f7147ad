//! A client of the etcd API in JSON, over plain HTTP.

use std::convert::Infallible;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::{Bytes, BytesMut};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http1;
use hyper::http::response::Parts;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;

const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// An answer in JSON.
#[derive(Debug)]
pub struct JsonAnswer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Value,
}

/// `POST http://ADDRESS/PATH` with headers and a body.
///
/// # Errors
/// When nobody answers in time, or not in JSON.
pub async fn post(
    address: &str,
    path: &str,
    headers: &[(&str, String)],
    body: &Value,
) -> Result<JsonAnswer> {
    let body = Full::new(Bytes::from(body.to_string())).boxed();
    let (parts, body) = answered(address, path, headers, body).await?;
    let body = serde_json::from_slice(&body)
        .with_context(|| format!("{} is no JSON", body.escape_ascii()))?;
    Ok(JsonAnswer {
        status: parts.status.as_u16(),
        headers: parts.headers,
        body,
    })
}

/// The same with a body of any bytes; gives the status, and what is said.
///
/// # Errors
/// When nobody answers in time.
pub async fn post_bytes(
    address: &str,
    path: &str,
    headers: &[(&str, String)],
    body: &'static [u8],
) -> Result<(u16, String)> {
    let body = Full::new(Bytes::from_static(body)).boxed();
    let (parts, body) = answered(address, path, headers, body).await?;
    Ok((
        parts.status.as_u16(),
        String::from_utf8_lossy(&body).into_owned(),
    ))
}

async fn answered(
    address: &str,
    path: &str,
    headers: &[(&str, String)],
    body: BoxBody<Bytes, Infallible>,
) -> Result<(Parts, Bytes)> {
    let exchange = async {
        let (parts, body) = send(address, path, headers, body).await?.into_parts();
        anyhow::Ok((parts, body.collect().await?.to_bytes()))
    };
    let answered = timeout(ANSWER_WITHIN, exchange).await;
    answered.with_context(|| format!("no answer from http://{address}{path}"))?
}

/// A stream of requests and answers.
pub struct JsonStream {
    send: mpsc::Sender<Result<Frame<Bytes>, Infallible>>,
    answers: Incoming,
    /// What has come and is no whole line.
    read: BytesMut,
}

impl JsonStream {
    /// Begins with a request.
    ///
    /// # Errors
    /// When nobody answers in time, or it is refused.
    pub async fn open(address: &str, path: &str, first: &Value) -> Result<Self> {
        let (send, receive) = mpsc::channel(4);
        send.send(Ok(Frame::data(first.to_string().into()))).await?;
        let body = BodyExt::boxed(StreamBody::new(ReceiverStream::new(receive)));
        let answered = timeout(ANSWER_WITHIN, self::send(address, path, &[], body)).await;
        let response =
            answered.with_context(|| format!("no answer from http://{address}{path}"))??;
        ensure!(response.status().is_success(), "{response:?}");
        Ok(Self {
            send,
            answers: response.into_body(),
            read: BytesMut::new(),
        })
    }

    /// Asks once more.
    ///
    /// # Errors
    /// When the stream has ended.
    pub async fn ask(&self, request: &Value) -> Result<()> {
        let frame = Frame::data(request.to_string().into());
        self.send
            .send(Ok(frame))
            .await
            .context("the stream has ended")
    }

    /// The next answer; `None` when the stream has ended.
    ///
    /// # Errors
    /// When none comes in time, or the connection is lost.
    pub async fn next(&mut self) -> Result<Option<Value>> {
        let line = async {
            loop {
                if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                    let line = self.read.split_to(end + 1);
                    return Ok(Some(serde_json::from_slice(&line)?));
                }
                match self.answers.frame().await {
                    Some(frame) => {
                        if let Ok(data) = frame?.into_data() {
                            self.read.extend_from_slice(&data);
                        }
                    }
                    None => {
                        ensure!(self.read.is_empty(), "cut off after {:?}", self.read);
                        return Ok(None);
                    }
                }
            }
        };
        timeout(ANSWER_WITHIN, line)
            .await
            .context("no answer came")?
    }
}

async fn send(
    address: &str,
    path: &str,
    headers: &[(&str, String)],
    body: BoxBody<Bytes, Infallible>,
) -> Result<Response<Incoming>> {
    let stream = TcpStream::connect(address).await;
    let stream = stream.with_context(|| format!("connecting to {address}"))?;
    let (mut client, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // It ends with the answer, or when that is dropped.
    tokio::spawn(connection);
    let request = Request::post(path).header("host", address);
    let request = headers.iter().fold(request, |request, (name, value)| {
        request.header(*name, value)
    });
    Ok(client.send_request(request.body(body)?).await?)
}
