//! Waiting for a condition, never for a time.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::{Instant, sleep, timeout_at};

/// Pause between two looks at a condition.
const POLL: Duration = Duration::from_millis(20);

/// Looks again and again until `check` succeeds, and returns what it found.
///
/// # Errors
/// When `within` has passed; the message carries why the last look did not succeed.
pub async fn until<T>(
    what: &str,
    within: Duration,
    mut check: impl AsyncFnMut() -> Result<T>,
) -> Result<T> {
    let deadline = Instant::now() + within;
    let mut last = anyhow::anyhow!("the first look did not end");
    loop {
        match timeout_at(deadline, check()).await {
            Ok(Ok(found)) => return Ok(found),
            Ok(Err(why)) => last = why,
            Err(_) => break,
        }
        if Instant::now() >= deadline {
            break;
        }
        sleep(POLL).await;
    }
    Err(last).with_context(|| format!("not within {within:?}: {what}"))
}

/// Looks again and again for as long as `span`, and fails as soon as `check` does. For things that
/// must not happen: `span` bounds how long they are watched for.
///
/// # Errors
/// The first failure of `check`.
pub async fn while_observing(
    what: &str,
    span: Duration,
    mut check: impl AsyncFnMut() -> Result<()>,
) -> Result<()> {
    let end = Instant::now() + span;
    while Instant::now() < end {
        check().await.with_context(|| what.to_owned())?;
        sleep(POLL).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_missed_deadline_says_what_was_seen_last() {
        let mut looks = 0;
        let missed: Result<()> = until("three", Duration::from_millis(60), async || {
            looks += 1;
            anyhow::bail!("saw {}", looks.min(1))
        })
        .await;
        let said = format!("{:#}", missed.expect_err("it never comes"));
        assert_eq!(said, "not within 60ms: three: saw 1");
    }

    #[tokio::test]
    async fn a_look_that_hangs_ends_with_the_deadline() {
        let missed: Result<()> = until("anything", Duration::from_millis(30), async || {
            std::future::pending().await
        })
        .await;
        assert!(missed.is_err());
    }
}
