//! Reviews that were made already: the same answer to the same request is not reviewed again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use moka::sync::Cache;
use sha2::{Digest, Sha256};
use tightwad_core::{CacheSpec, Request, Scored, WireRequest};

/// One review.
#[derive(Clone)]
enum Review {
    /// The scores of a whole answer.
    Scores(Arc<[Scored]>),
    /// The word of a judgement; `None`: no clear one.
    Word(Option<Arc<str>>),
}

/// The reviews of one gate.
pub struct ReviewCache {
    reviews: Cache<[u8; 32], Review>,
    sampled: bool,
    hits: AtomicU64,
}

impl ReviewCache {
    /// An empty one.
    #[must_use]
    pub fn new(spec: CacheSpec) -> Self {
        let reviews = Cache::builder().max_capacity(spec.entries).time_to_live(spec.lives).build();
        Self { reviews, sampled: spec.sampled, hits: AtomicU64::new(0) }
    }

    /// Reviews that were not made again.
    #[must_use]
    pub fn hits(&self) -> u64 {
        self.hits.load(Ordering::Relaxed)
    }

    /// What a review of `answer` to `request` is kept under; `None` where it is not kept. `by` is the reviewer
    /// and, where it is asked in words, those.
    pub(crate) fn key(&self, request: &Request, answer: &str, by: [&str; 2]) -> Option<[u8; 32]> {
        if !self.sampled && request.sampling.temperature > 0.0 {
            return None;
        }
        let wire = WireRequest { id: String::new(), ..WireRequest::from(request) };
        let mut hash = Sha256::new();
        for part in [serde_json::to_string(&wire).ok()?.as_str(), answer, by[0], by[1]] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        Some(hash.finalize().into())
    }

    pub(crate) fn scores(&self, key: Option<&[u8; 32]>) -> Option<Arc<[Scored]>> {
        match self.get(key)? {
            Review::Scores(scores) => Some(scores),
            Review::Word(_) => None,
        }
    }

    pub(crate) fn word(&self, key: Option<&[u8; 32]>) -> Option<Option<Arc<str>>> {
        match self.get(key)? {
            Review::Word(word) => Some(word),
            Review::Scores(_) => None,
        }
    }

    fn get(&self, key: Option<&[u8; 32]>) -> Option<Review> {
        let review = self.reviews.get(key?)?;
        self.hits.fetch_add(1, Ordering::Relaxed);
        Some(review)
    }

    pub(crate) fn keep_scores(&self, key: Option<[u8; 32]>, scores: &[Scored]) {
        if let Some(key) = key {
            self.reviews.insert(key, Review::Scores(scores.into()));
        }
    }

    pub(crate) fn keep_word(&self, key: Option<[u8; 32]>, word: Option<&str>) {
        if let Some(key) = key {
            self.reviews.insert(key, Review::Word(word.map(Into::into)));
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
    fn the_same_answer_to_the_same_request_is_found_and_nothing_else() {
        let cache = ReviewCache::new(CacheSpec::default());
        let key = cache.key(&request("one", 0.0), "42", ["big", ""]);
        cache.keep_word(key, Some("approve"));
        let again = cache.key(&request("two", 0.0), "42", ["big", ""]);
        assert_eq!(cache.word(again.as_ref()).unwrap().as_deref(), Some("approve"));
        assert!(cache.scores(again.as_ref()).is_none());
        for other in [["bigger", ""], ["big", "Is it right?"]] {
            let key = cache.key(&request("one", 0.0), "42", other);
            assert!(cache.word(key.as_ref()).is_none());
        }
        assert!(cache.word(cache.key(&request("one", 0.0), "43", ["big", ""]).as_ref()).is_none());
        assert_eq!(cache.hits(), 2);
    }

    #[test]
    fn what_is_drawn_at_random_is_kept_only_where_the_script_says_so() {
        let sampled = request("one", 0.8);
        assert_eq!(ReviewCache::new(CacheSpec::default()).key(&sampled, "42", ["big", ""]), None);
        let cache = ReviewCache::new(CacheSpec { sampled: true, ..CacheSpec::default() });
        assert!(cache.key(&sampled, "42", ["big", ""]).is_some());
    }

    #[test]
    fn old_ones_go() {
        let cache = ReviewCache::new(CacheSpec { lives: Duration::ZERO, ..CacheSpec::default() });
        let key = cache.key(&request("one", 0.0), "42", ["big", ""]);
        cache.keep_word(key, None);
        assert!(cache.word(key.as_ref()).is_none());
    }
}
