use std::io::Write;
use std::sync::{Arc, Mutex};

use serde_json::json;
use tightwad_core::{BackendError, Credentials, KeySpec, Right, Token, sync};
use tracing::Level;
use tracing_subscriber::fmt::MakeWriter;

use crate::keys::usage_file::UsageFile;
use crate::keys::usage_saver::UsageSaver;
use crate::tests::fake::{FakeBackend, Server, key, state};

/// All texts that the server lets out.
#[derive(Clone, Default)]
struct Texts(Arc<Mutex<Vec<u8>>>);

impl Write for Texts {
    fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
        sync::lock(&self.0).extend_from_slice(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Texts {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// Sends right and wrong secrets to all kinds of paths, and records the responses.
async fn ask_with_all_secrets(server: &Server, texts: &mut Texts) {
    for secret in ["SECRET-token", "SECRET-alice", "SECRET-admin", "SECRET-wrong"] {
        for path in ["/v1/models", "/v1/models/x", "/v1/tightwad/status", "/metrics", "/v1/nothing"] {
            for request in
                [server.get(path).bearer_auth(secret), server.get(path).header("x-api-key", secret)]
            {
                texts.write_all(request.send().await.unwrap().text().await.unwrap().as_bytes()).unwrap();
            }
        }
        let body = json!({"model": "m", "prompt": "hi"});
        let request = server.post("/v1/completions").bearer_auth(secret).json(&body);
        let response = request.send().await.unwrap();
        write!(texts, "{:?}", response.headers()).unwrap();
        texts.write_all(response.text().await.unwrap().as_bytes()).unwrap();
    }
}

#[tokio::test]
async fn no_log_status_metric_or_error_has_a_secret() {
    let mut texts = Texts::default();
    let subscriber =
        tracing_subscriber::fmt().with_max_level(Level::TRACE).with_ansi(false).with_writer(texts.clone());
    let _guard = tracing::subscriber::set_default(subscriber.finish());

    let folder = tempfile::tempdir().unwrap();
    let file = UsageFile::at(folder.path().join("key-usage.json"));
    std::fs::write(file.path(), "not JSON").unwrap();
    let admin = KeySpec { rights: Right::ALL.into(), ..key("admin") };
    let credentials = Credentials { token: Token::new("SECRET-token").ok(), keys: vec![key("alice"), admin] };
    let backend = FakeBackend {
        events: |_| {
            tracing::info!("a line of a backend");
            Vec::new()
        },
        end: Err(BackendError::failed("fake", "out of luck")),
    };
    let state = state(backend, None);
    state.keys().replace(credentials.clone());
    let saver = UsageSaver::start(state.keys().clone(), Some(file.clone()));
    let server = Server::start(state).await;
    ask_with_all_secrets(&server, &mut texts).await;
    saver.finish().await;
    write!(texts, "{credentials:?}").unwrap();
    texts.write_all(&std::fs::read(file.path()).unwrap()).unwrap();

    let texts = String::from_utf8(sync::lock(&texts.0).clone()).unwrap();
    for expected in [
        "client{key=\"alice\"}: tightwad_serve::tests::secrets: a line of a backend",
        "refused a request",
        "cannot use",
        "out of luck",
        "tightwad_key_requests",
    ] {
        assert!(texts.contains(expected), "{expected} is missing, so this test proves nothing: {texts}");
    }
    let hashes = credentials.keys.iter().map(|key| key.hash.to_string());
    for secret in hashes.chain(["SECRET".to_owned()]) {
        let line = texts.lines().find(|line| line.contains(&secret));
        assert_eq!(line, None, "{secret}");
    }
}
