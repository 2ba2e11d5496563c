//! The cache of a gate's reviews: the same answer to the same request is not reviewed again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use moka::sync::Cache;
use sha2::{Digest, Sha256};
use tightwad_core::{CacheSpec, Request, TokenScore, WireRequest};

/// One cached review.
#[derive(Clone)]
enum Review {
    /// The scores of a whole answer.
    Scores(Arc<[TokenScore]>),
    /// The judgement. `None` if the reviewer's reply was unclear.
    Judgement(Option<Arc<str>>),
}

/// The cached reviews of one gate.
pub struct ReviewCache {
    reviews: Cache<[u8; 32], Review>,
    sampled: bool,
    hits: AtomicU64,
}

impl ReviewCache {
    /// An empty cache.
    #[must_use]
    pub fn new(spec: CacheSpec) -> Self {
        let reviews = Cache::builder().max_capacity(spec.max_entries).time_to_live(spec.max_age).build();
        Self { reviews, sampled: spec.sampled, hits: AtomicU64::new(0) }
    }

    /// The number of reviews that came from the cache.
    #[must_use]
    pub fn hits(&self) -> u64 {
        self.hits.load(Ordering::Relaxed)
    }

    /// The key of a review of `answer` to `request`. `None` if the cache does not store the review. `reviewed_by` is
    /// the reviewer's name and the judge prompt, which is empty for scores.
    pub(crate) fn key(&self, request: &Request, answer: &str, reviewed_by: [&str; 2]) -> Option<[u8; 32]> {
        if !self.sampled && request.sampling.temperature > 0.0 {
            return None;
        }
        let wire = WireRequest { id: String::new(), ..WireRequest::from(request) };
        let mut hash = Sha256::new();
        for part in [serde_json::to_string(&wire).ok()?.as_str(), answer, reviewed_by[0], reviewed_by[1]] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        Some(hash.finalize().into())
    }

    pub(crate) fn scores(&self, key: Option<&[u8; 32]>) -> Option<Arc<[TokenScore]>> {
        match self.get(key)? {
            Review::Scores(scores) => Some(scores),
            Review::Judgement(_) => None,
        }
    }

    pub(crate) fn judgement(&self, key: Option<&[u8; 32]>) -> Option<Option<Arc<str>>> {
        match self.get(key)? {
            Review::Judgement(judgement) => Some(judgement),
            Review::Scores(_) => None,
        }
    }

    fn get(&self, key: Option<&[u8; 32]>) -> Option<Review> {
        let review = self.reviews.get(key?)?;
        self.hits.fetch_add(1, Ordering::Relaxed);
        Some(review)
    }

    pub(crate) fn insert_scores(&self, key: Option<[u8; 32]>, scores: &[TokenScore]) {
        if let Some(key) = key {
            self.reviews.insert(key, Review::Scores(scores.into()));
        }
    }

    pub(crate) fn insert_judgement(&self, key: Option<[u8; 32]>, judgement: Option<&str>) {
        if let Some(key) = key {
            self.reviews.insert(key, Review::Judgement(judgement.map(Into::into)));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tightwad_core::{Sampling, SamplingSpec};

    use super::*;

    fn request(id: &str, temperature: f32) -> Request {
        let spec = SamplingSpec { temperature, ..SamplingSpec::default() };
        Request { id: id.to_owned(), sampling: Sampling::new(spec).unwrap(), ..Request::default() }
    }

    #[test]
    fn cache_finds_only_the_same_answer_to_the_same_request() {
        let cache = ReviewCache::new(CacheSpec::default());
        let key = cache.key(&request("one", 0.0), "42", ["big", ""]);
        cache.insert_judgement(key, Some("approve"));
        let again = cache.key(&request("two", 0.0), "42", ["big", ""]);
        assert_eq!(cache.judgement(again.as_ref()).unwrap().as_deref(), Some("approve"));
        assert!(cache.scores(again.as_ref()).is_none());
        for other in [["bigger", ""], ["big", "Is it right?"]] {
            let key = cache.key(&request("one", 0.0), "42", other);
            assert!(cache.judgement(key.as_ref()).is_none());
        }
        assert!(cache.judgement(cache.key(&request("one", 0.0), "43", ["big", ""]).as_ref()).is_none());
        assert_eq!(cache.hits(), 2);
    }

    #[test]
    fn sampled_request_is_cached_only_if_the_script_allows_it() {
        let sampled = request("one", 0.8);
        assert_eq!(ReviewCache::new(CacheSpec::default()).key(&sampled, "42", ["big", ""]), None);
        let cache = ReviewCache::new(CacheSpec { sampled: true, ..CacheSpec::default() });
        assert!(cache.key(&sampled, "42", ["big", ""]).is_some());
    }

    #[test]
    fn review_expires_after_the_maximum_age() {
        let cache = ReviewCache::new(CacheSpec { max_age: Duration::ZERO, ..CacheSpec::default() });
        let key = cache.key(&request("one", 0.0), "42", ["big", ""]);
        cache.insert_judgement(key, None);
        assert!(cache.judgement(key.as_ref()).is_none());
    }
}
