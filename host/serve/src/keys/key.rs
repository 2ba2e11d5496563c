//! One key: its rights, its limits and its usage.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::http::HeaderMap;
use serde_json::{Value, json};
use tightwad_core::{KeyName, KeySpec, Right, sync};
use time::{Date, OffsetDateTime, Time};

use crate::keys::rate_limit_headers::LimitHeaders;
use crate::keys::refusal::Refusal;
use crate::keys::request_limit::{RequestLimit, missing_time};
use crate::keys::route_access::RouteAccess;
use crate::keys::usage::KeyUsage;
use crate::keys::utc_clock::UtcClock;

/// The usage of a key. A reload of the script makes a new [`Key`] with the same usage.
pub(crate) type SharedUsage = Arc<Mutex<KeyUsage>>;

/// A key that the server accepts.
pub(crate) struct Key {
    spec: KeySpec,
    usage: SharedUsage,
    clock: UtcClock,
}

impl Key {
    pub(crate) fn new(spec: KeySpec, usage: SharedUsage, clock: UtcClock) -> Self {
        Self { spec, usage, clock }
    }

    /// The name.
    pub(crate) fn name(&self) -> &str {
        self.spec.name.as_str()
    }

    /// The name as the owner of requests.
    pub(crate) fn owner(&self) -> &KeyName {
        &self.spec.name
    }

    /// True if the key may use `model`.
    pub(crate) fn may_use(&self, model: &str) -> bool {
        self.spec.models.as_ref().is_none_or(|models| models.contains(model))
    }

    /// Checks that the key may use a route now. A request that generates counts against the limits.
    ///
    /// # Errors
    ///
    /// The reason of the refusal. A refused request does not count.
    pub(crate) fn authorize(&self, access: RouteAccess) -> Result<(), Refusal> {
        let (now, key) = (self.clock.now(), &self.spec.name);
        if let Some(last_day) = self.spec.expires.filter(|last_day| *last_day < now.date()) {
            return Err(Refusal::Expired { key: key.clone(), last_day });
        }
        let needed = access.rights();
        if !needed.iter().all(|right| self.spec.rights.contains(right)) {
            let (needed, granted) = (names(needed), names(&self.spec.rights));
            return Err(Refusal::MissingRights { key: key.clone(), needed, granted });
        }
        if access == RouteAccess::Generate { self.take_request(now) } else { Ok(()) }
    }

    /// Counts one request.
    fn take_request(&self, now: OffsetDateTime) -> Result<(), Refusal> {
        let key = &self.spec.name;
        let mut usage = sync::lock(&self.usage);
        if let Some(per_day) = self.spec.tokens_per_day
            && usage.tokens_on(now.date()) >= per_day.get()
        {
            return Err(Refusal::Tokens { key: key.clone(), per_day, retry_after: rest_of_day(now) });
        }
        let Some(per_minute) = self.spec.requests_per_minute else { return Ok(()) };
        let taken = RequestLimit(per_minute).take(&mut usage.requests_full_at, now);
        taken.map_err(|retry_after| Refusal::Requests { key: key.clone(), per_minute, retry_after })
    }

    /// Adds the tokens of a request.
    pub(crate) fn charge(&self, tokens: u64) {
        let today = self.clock.now().date();
        sync::lock(&self.usage).add_tokens(today, tokens);
    }

    /// Sets OpenAI's headers for each limit of the key.
    pub(crate) fn insert_limits(&self, headers: &mut HeaderMap) {
        let (now, usage) = (self.clock.now(), *sync::lock(&self.usage));
        if let Some(per_minute) = self.spec.requests_per_minute {
            let remaining = RequestLimit(per_minute).remaining(usage.requests_full_at, now);
            let reset = missing_time(usage.requests_full_at, now);
            let limit = per_minute.get().into();
            LimitHeaders::requests().insert(headers, limit, remaining.into(), reset);
        }
        if let Some(per_day) = self.spec.tokens_per_day {
            let remaining = per_day.get().saturating_sub(usage.tokens_on(now.date()));
            LimitHeaders::tokens().insert(headers, per_day.get(), remaining, rest_of_day(now));
        }
    }

    /// The key and its usage today.
    pub(crate) fn status(&self) -> Value {
        let (now, usage, spec) = (self.clock.now(), *sync::lock(&self.usage), &self.spec);
        let rights: Vec<&str> = spec.rights.iter().map(|right| right.name()).collect();
        let requests_remaining =
            spec.requests_per_minute.map(|limit| RequestLimit(limit).remaining(usage.requests_full_at, now));
        json!({
            "name": self.name(), "rights": rights, "models": spec.models,
            "requests_per_minute": spec.requests_per_minute, "requests_remaining": requests_remaining,
            "tokens_per_day": spec.tokens_per_day, "tokens_today": usage.tokens_on(now.date()),
            "expires": spec.expires.map(|last_day: Date| last_day.to_string()),
        })
    }
}

/// The time until midnight, UTC.
fn rest_of_day(now: OffsetDateTime) -> Duration {
    const DAY: Duration = Duration::from_secs(86_400);
    DAY.saturating_sub(Duration::try_from(now.time() - Time::MIDNIGHT).unwrap_or_default())
}

fn names<'a>(rights: impl IntoIterator<Item = &'a Right>) -> String {
    let names: Vec<String> = rights.into_iter().map(|right| format!("'{}'", right.name())).collect();
    names.join(", ")
}
