//! The spelling of paths.

use axum::http::Uri;
use axum::http::uri::PathAndQuery;

/// The similarity from which a known path is what the client meant, 0 to 1.
const MIN_SIMILARITY: f64 = 0.6;

/// `uri` without repeated and trailing slashes in its path. `None`: it has none.
pub(crate) fn normalized(uri: &Uri) -> Option<Uri> {
    let path = uri.path();
    if !path.contains("//") && (path == "/" || !path.ends_with('/')) {
        return None;
    }
    let mut normal: String =
        path.split('/').filter(|part| !part.is_empty()).flat_map(|part| ["/", part]).collect();
    if normal.is_empty() {
        normal.push('/');
    }
    if let Some(query) = uri.query() {
        normal.push('?');
        normal.push_str(query);
    }
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(normal).ok()?);
    Uri::from_parts(parts).ok()
}

/// The path in `known` that the client meant by `path`, if one is similar.
pub(crate) fn nearest<'a>(path: &str, known: &[&'a str]) -> Option<&'a str> {
    let ends_with =
        known.iter().filter(|known| path.len() > 1 && known.ends_with(path)).min_by_key(|known| known.len());
    let repeated = known.iter().filter(|known| path.ends_with(**known)).max_by_key(|known| known.len());
    let similarity = |known: &str| strsim::normalized_damerau_levenshtein(path, known);
    let similar = known.iter().max_by(|a, b| similarity(a).total_cmp(&similarity(b)));
    let similar = similar.filter(|known| similarity(known) >= MIN_SIMILARITY);
    ends_with.or(repeated).or(similar).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slashes_are_normalized() {
        let normal = |uri: &str| normalized(&uri.parse().unwrap()).map(|uri| uri.to_string());
        assert_eq!(normal("/v1/models/").as_deref(), Some("/v1/models"));
        assert_eq!(normal("//v1//models///?a=/b//").as_deref(), Some("/v1/models?a=/b//"));
        assert_eq!(normal("http://localhost:1/v1/models/").as_deref(), Some("http://localhost:1/v1/models"));
        assert_eq!(normal("//").as_deref(), Some("/"));
        for unchanged in ["/", "/v1/models", "/v1/models?a=b/", "*"] {
            assert_eq!(normal(unchanged), None, "{unchanged}");
        }
    }

    #[test]
    fn nearest_path_is_what_the_client_meant() {
        let known = ["/v1/chat/completions", "/v1/completions", "/v1/models", "/metrics"];
        for (path, meant) in [
            ("/chat/completions", "/v1/chat/completions"),
            ("/completions", "/v1/completions"),
            ("/models", "/v1/models"),
            ("/v1/v1/chat/completions", "/v1/chat/completions"),
            ("/v1/chat/completion", "/v1/chat/completions"),
            ("/api/v1/models", "/v1/models"),
            ("/v1/metrics", "/metrics"),
        ] {
            assert_eq!(nearest(path, &known), Some(meant), "{path}");
        }
        for path in ["/", "/favicon.ico", "/x"] {
            assert_eq!(nearest(path, &known), None, "{path}");
        }
    }
}
