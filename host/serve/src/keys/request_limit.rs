//! The limit on requests per minute: a token bucket.
//!
//! The bucket holds the requests of one minute and refills steadily. So an idle client can send them all at once, and
//! at most twice as many within one minute. The state is one point in time (the generic cell rate algorithm, ITU-T
//! I.371): the time at which the bucket is full again. A restart of the host can therefore restore it.

use std::num::NonZeroU32;
use std::time::Duration;

use time::OffsetDateTime;

/// The time in which an empty bucket becomes full.
const REFILL_TIME: Duration = Duration::from_secs(60);

/// A limit on the requests per minute.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RequestLimit(pub NonZeroU32);

impl RequestLimit {
    /// Takes one request from the bucket that is full at `full_at`.
    ///
    /// # Errors
    ///
    /// The time until the bucket holds a request.
    pub(crate) fn take(self, full_at: &mut OffsetDateTime, now: OffsetDateTime) -> Result<(), Duration> {
        let missing = missing_time(*full_at, now) + self.interval();
        if let Some(excess) = missing.checked_sub(REFILL_TIME).filter(|excess| !excess.is_zero()) {
            return Err(excess);
        }
        *full_at = now + missing;
        Ok(())
    }

    /// The requests in the bucket.
    pub(crate) fn remaining(self, full_at: OffsetDateTime, now: OffsetDateTime) -> u32 {
        let available = REFILL_TIME.saturating_sub(missing_time(full_at, now));
        let requests = available.as_nanos() / self.interval().as_nanos().max(1);
        u32::try_from(requests).unwrap_or(u32::MAX).min(self.0.get())
    }

    /// The time in which the bucket gains one request.
    fn interval(self) -> Duration {
        REFILL_TIME / self.0.get()
    }
}

/// The time until a bucket is full. It is never longer than the refill of an empty bucket, also after the system's clock
/// was set back.
pub(crate) fn missing_time(full_at: OffsetDateTime, now: OffsetDateTime) -> Duration {
    Duration::try_from(full_at - now).unwrap_or_default().min(REFILL_TIME)
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

    fn limit(per_minute: u32) -> RequestLimit {
        RequestLimit(NonZeroU32::new(per_minute).unwrap())
    }

    #[test]
    fn bucket_holds_requests_of_one_minute() {
        for per_minute in [1, 2, 7, 60, 1000, 99_999] {
            let (limit, mut full_at) = (limit(per_minute), START);
            for taken in 0..per_minute {
                assert_eq!(limit.remaining(full_at, START), per_minute - taken);
                assert_eq!(limit.take(&mut full_at, START), Ok(()), "{taken} of {per_minute}");
            }
            assert_eq!(limit.remaining(full_at, START), 0);
            let wait = limit.take(&mut full_at, START).unwrap_err();
            assert!(wait <= limit.interval(), "{wait:?}");
            assert_eq!(limit.take(&mut full_at, START + wait), Ok(()), "{per_minute}");
        }
    }

    #[test]
    fn refused_request_takes_nothing() {
        let (limit, mut full_at) = (limit(1), START);
        assert_eq!(limit.take(&mut full_at, START), Ok(()));
        for second in [10, 20, 59] {
            let now = START + Duration::from_secs(second);
            assert_eq!(limit.take(&mut full_at, now), Err(Duration::from_secs(60 - second)));
        }
        assert_eq!(limit.take(&mut full_at, START + Duration::from_secs(60)), Ok(()));
    }

    #[test]
    fn clock_set_back_blocks_for_one_refill_at_most() {
        let (limit, mut full_at) = (limit(2), START + Duration::from_secs(86_400));
        assert_eq!(limit.take(&mut full_at, START), Err(Duration::from_secs(30)));
        assert_eq!(missing_time(full_at, START), REFILL_TIME);
        full_at = START;
        assert_eq!(limit.remaining(full_at, START + Duration::from_secs(86_400)), 2);
    }
}
