//! Lines in the log about connections that were closed. Whoever can connect can cause them, so there are
//! only so many in a time; what is left out is counted.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::port::Port;

/// Lines in a window.
const LINES_MAX: u32 = 20;
/// After this time there may be as many lines again.
const WINDOW: Duration = Duration::from_secs(10);

/// The lines of one port.
#[derive(Debug)]
pub(crate) struct Notes {
    port: Port,
    window: Mutex<Window>,
}

#[derive(Debug)]
struct Window {
    since: Instant,
    lines: u32,
    left_out: u64,
}

impl Window {
    fn new(now: Instant) -> Self {
        Self {
            since: now,
            lines: 0,
            left_out: 0,
        }
    }

    /// How many lines were left out before this one; `None` when it is left out too.
    fn admit(&mut self, now: Instant) -> Option<u64> {
        if now.duration_since(self.since) >= WINDOW {
            let left_out = self.left_out;
            *self = Self::new(now);
            self.lines = 1;
            return Some(left_out);
        }
        if self.lines < LINES_MAX {
            self.lines += 1;
            return Some(std::mem::take(&mut self.left_out));
        }
        self.left_out += 1;
        None
    }
}

impl Notes {
    pub(crate) fn new(port: Port) -> Self {
        Self {
            port,
            window: Mutex::new(Window::new(Instant::now())),
        }
    }

    pub(crate) fn port(&self) -> &Port {
        &self.port
    }

    /// A connection was closed because of what the caller did, or did not do.
    pub(crate) fn closed(&self, from: SocketAddr, why: &str) {
        self.port.counts.turn_away();
        self.say(from, why, "a connection was closed");
    }

    /// A call was turned down; its connection goes on.
    pub(crate) fn stray(&self, from: SocketAddr, why: &str) {
        self.say(from, why, "a call came to the wrong port");
    }

    fn say(&self, from: SocketAddr, why: &str, what: &str) {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let admitted = window.admit(Instant::now());
        drop(window);
        let port = &self.port.name;
        match admitted {
            Some(0) => tracing::warn!(%from, port, why, "{what}"),
            Some(left_out) => tracing::warn!(%from, port, why, left_out, "{what}"),
            None => tracing::debug!(%from, port, why, "{what}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_to_some_lines_and_counted() {
        let begun = Instant::now();
        let mut window = Window::new(begun);
        for _ in 0..LINES_MAX {
            assert_eq!(window.admit(begun), Some(0));
        }
        for _ in 0..1_000 {
            assert_eq!(window.admit(begun), None);
        }
        assert_eq!(window.admit(begun + WINDOW), Some(1_000));
        assert_eq!(window.admit(begun + WINDOW), Some(0));
    }
}
